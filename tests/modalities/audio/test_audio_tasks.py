"""Numbers and several labels of recordings, from a table: kNN, linear probe and fine-tuning, against values by hand."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ssl_lightning.__main__ import main

WORDS = ["data=audio", "data.sample_rate=4000", "data.length=1280", "data.mels=16", "data.window=0.05"]
WORDS += ["data.num_workers=0", "data.batch_size=12", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
NET = ["backbone.width=4", "backbone.out_dim=16", "method.projector.hidden_dim=16", "method.projector.out_dim=8"]
QUICK = ["stage.probe.epochs=20", "stage.probe.lrs=[0.1]", "stage.probe.weight_decays=[0.0]"]
COUNT, HELD = 48, 16  # the last ones are the second speaker's


def row_of(i: int) -> tuple[float, bool]:
    """(pitch in octaves above 100 Hz, whether there is an overtone)."""
    return (i * 7 % COUNT) / COUNT * 3, i % 3 == 0


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of some pitch, some with an overtone, a table of both, and a run."""
    folder = tmp_path_factory.mktemp("tasks")
    time = np.arange(1280) / 4000
    (folder / "r").mkdir()
    rows = [["path", "octaves", "kinds", "speaker"]]
    for i in range(COUNT):
        octaves, over = row_of(i)
        wave = np.sin(2 * math.pi * 100 * 2**octaves * time) + over * np.sin(2 * math.pi * 1700 * time)
        soundfile.write(folder / "r" / f"{i:02}.wav", 0.3 * wave, 4000)
        kinds = "|".join([*(["high"] if octaves > 1.5 else []), *(["over"] if over else [])])
        rows.append([f"{i:02}.wav", f"{octaves:.4f}", kinds, "xy"[i >= COUNT - HELD]])
    with open(folder / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = [*WORDS, *NET, f"data.root={folder}/r", "method=simclr", "experiment=cpu", "trainer.max_epochs=1"]
    assert main([*words, f"runs_dir={folder}", "name=run", "stage.judge=false"]) == 0
    return folder


def found(there: Path, stage: str, task: str, column: str) -> dict[str, Any]:
    more = {"linear": QUICK, "finetune": ["stage.epochs=6", "stage.batch_size=8", "stage.base_lr=0.03"]}.get(stage, [])
    data = [f"data.root={there}/r", f"data.labels={there}/t.csv", f"data.label_column={column}"]
    data += ["data.group=speaker", "data.held_out=y"]
    words = [*WORDS, *data, f"stage={stage}", f"task={task}", f"ckpt={there}/run", *more]
    assert main([*words, f"runs_dir={there}", f"name={stage}-{task}"]) == 0
    return json.loads((there / f"{stage}-{task}" / "results.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("stage", ["knn", "linear", "finetune"])
def test_numbers(stage: str, there: Path) -> None:
    given = np.array([round(row_of(i)[0], 4) for i in range(COUNT)])
    train, test = given[: COUNT - HELD], given[COUNT - HELD :]
    results = found(there, stage, "regress", "octaves")
    mean = results["baselines"]["train_mean"]
    assert mean["mae"] == pytest.approx(np.abs(test - train.mean()).mean(), abs=1e-5)
    assert mean["rmse"] == pytest.approx(np.sqrt(((test - train.mean()) ** 2).mean()), abs=1e-5)
    assert mean["r2"] == pytest.approx(
        1 - ((test - train.mean()) ** 2).sum() / ((test - test.mean()) ** 2).sum(), abs=1e-4
    )
    r2, rmse = results[f"{stage}_r2"], results[f"{stage}_rmse"]
    assert r2 == pytest.approx(1 - rmse**2 / test.var(), abs=1e-4)  # both of the same answers
    assert r2 > mean["r2"] + 0.1


@pytest.mark.parametrize("stage", ["knn", "linear", "finetune"])
def test_several_labels(stage: str, there: Path) -> None:
    flags = np.array([[row_of(i)[0] > 1.5, row_of(i)[1]] for i in range(COUNT - HELD, COUNT)])
    results = found(there, stage, "multilabel", "kinds")
    share = results["baselines"]["class_frequencies"]
    assert share["map"] == pytest.approx(flags.mean(0).mean(), abs=1e-5)  # a constant score's precision is the share
    assert results[f"{stage}_map"] > share["map"] + 0.1
    assert results["metric"] == {"name": "map", "higher_is_better": True}
    assert "macro_f1" in share
