"""What `stage=doctor` sees in recordings: each fault that is planted."""

from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.core.finding import Finding
from ssl_lightning.modalities.audio.checkup import look
from ssl_lightning.modalities.audio.sources import Audio, Tones

soundfile = pytest.importorskip("soundfile")


def wave(seed: int, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, first, count in (("train", 0, 200), ("test", 1000, 10)):
        (tmp_path / split).mkdir()
        for i in range(count):
            soundfile.write(tmp_path / split / f"{i:03d}.wav", wave(first + i), 8000)
    return tmp_path


def seen(folder: Path, **data: int) -> list[Finding]:
    return look(Audio(root=folder, num_workers=0, **({"sample_rate": 8000, "length": 6400} | data)), 60.0)


def said(found: list[Finding], text: str) -> Finding:
    return next(line for line in found if text in line.says)


def test_nothing_is_wrong_with_good_recordings(folder: Path) -> None:
    found = seen(folder)
    assert {line.level for line in found} == {"ok"}
    assert "210 recordings looked at, 4 minutes; mostly 1 to 1 s" in found[0].says


def test_faults_are_named(folder: Path) -> None:
    train = folder / "train"
    (train / "broken.wav").write_bytes((train / "001.wav").read_bytes()[:30])
    soundfile.write(train / "silent.wav", np.zeros(8000), 8000)
    (train / "same.wav").write_bytes((train / "002.wav").read_bytes())
    (folder / "test" / "leak.wav").write_bytes((train / "003.wav").read_bytes())
    soundfile.write(train / "rate.wav", wave(5, 1.0, 16000), 16000)
    found = seen(folder)
    assert "broken.wav" in said(found, "cannot be decoded or are empty").says
    assert "silent.wav" in said(found, "are silent").says
    assert said(found, "trained on and evaluated on").level == "bad"
    assert "003.wav" in said(found, "trained on and evaluated on").says
    assert "same.wav" in said(found, "more than once").says
    assert "8000 Hz" in said(found, "rates differ").says


def test_lengths_and_rates_that_do_not_fit(folder: Path) -> None:
    found = seen(folder, sample_rate=16000, length=64000)
    assert said(found, "fill less than half of a view of 4 s").level == "watch"
    assert "data.sample_rate=8000" in said(found, "lower rate").fix


def test_recordings_in_memory() -> None:
    found = look(Tones(size=12, test_size=4, sample_rate=8000, length=7680), 60.0)
    assert {line.level for line in found} == {"ok"}
