"""The model of a fine-tuned audio run: what it says of recordings, from files, waves and the command line."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import ssl_lightning as sl
from ssl_lightning.__main__ import main
from tests.modalities.audio.test_audio_stages import SMALL

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
RATE = 4000


def recording(path: Path, hertz: float, seed: int) -> None:
    draws = np.random.default_rng(seed)
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(1600) / RATE + draws.uniform(0, 6)) + draws.normal(0, 0.05, 1600)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def test_recordings_are_told_as_in_the_results(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 6)):
        for name, hertz in (("high", 900.0), ("low", 200.0)):
            for i in range(count):
                recording(tmp_path / "sound" / split / name / f"{i}.wav", hertz, i + 100 * (split == "test"))
    sizes = [word for word in SMALL if not word.startswith(("data.size", "data.test_size", "data.seconds"))]
    words = [f"runs_dir={tmp_path}", "trainer=cpu"]
    pretrain = ["data=audio", f"data.root={tmp_path}/sound", "name=run", "trainer.max_epochs=1", *sizes]
    assert main([*words, *pretrain, "data.batch_size=8"]) == 0
    short = ["stage.epochs=2", "stage.batch_size=8", "trainer.log_every_n_steps=1"]
    assert main([*words, "stage=finetune", f"ckpt={tmp_path}/run", "name=tuned", *short]) == 0
    model = sl.load_model(tmp_path / "tuned")
    files = sorted((tmp_path / "sound" / "test").rglob("*.wav"))
    with torch.no_grad():
        outputs = torch.cat([model(model.transform(file)[None]) for file in files])
    right = [model.classes[i] == file.parent.name for i, file in zip(outputs.argmax(1), files, strict=True)]
    assert sum(right) / len(right) == results(tmp_path / "tuned")["finetune_top1"]

    (tmp_path / "sound" / "test" / "low" / "0.wav").write_bytes(b"none")
    root = f"data.root={tmp_path}/sound/test"
    assert main([*words, "stage=predict", f"ckpt={tmp_path}/tuned", "data=audio", root, "name=said"]) == 0
    with open(tmp_path / "said" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(file.relative_to(tmp_path / "sound" / "test")) for file in files]
    assert [row["class"] for row in rows] == [
        "" if row["path"] == "low/0.wav" else model.classes[i] for row, i in zip(rows, outputs.argmax(1), strict=True)
    ]
    told = results(tmp_path / "said")
    assert (told["labelled"], told["unreadable"]) == (11, 1)
    assert told["predict_top1"] == sum(row["class"] == row["label"] for row in rows) / 11
    wave, rate = soundfile.read(files[0])
    assert model.predict([(wave, rate)])[0]["class"] == rows[0]["class"]


def test_data_that_are_no_files_are_predicted_from_the_test_set(tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "trainer=cpu", "trainer.log_every_n_steps=1"]
    assert main([*words, "data=tones", "name=run", "trainer.max_epochs=1", *SMALL[:-4], *SMALL[-4:]]) == 0
    assert main([*words, "stage=linear", f"ckpt={tmp_path}/run", "name=probe", "stage.probe.epochs=5"]) == 0
    assert main([*words, "stage=predict", f"ckpt={tmp_path}/probe", "name=said"]) == 0
    told = results(tmp_path / "said")
    assert told["labelled"] == 24
    assert told["predict_top1"] == results(tmp_path / "probe")["linear_top1"]
