"""Own recordings: what is read of a file, labels and groups from every place, and files that are no good."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import broken
from ssl_lightning.modalities.audio import reading, source
from ssl_lightning.modalities.audio.clips import ArrayClips, FileClips, part_places
from ssl_lightning.modalities.audio.resample import resample
from ssl_lightning.modalities.audio.source import Recordings

PATTERN = "{label}_{group}_{take}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(
    path: Path, samples: int = 400, rate: int = 8000, channels: int = 1, seed: int = 0, **kind: str
) -> np.ndarray:
    x = np.random.default_rng([seed, samples, channels]).uniform(-0.5, 0.5, (samples, channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, **kind)
    return x


def digits(root: Path, speakers: str = "abcd", takes: int = 3) -> Path:
    for i, name in enumerate(f"{d}_{s}_{t}.wav" for d in (7, 10) for s in speakers for t in range(takes)):
        write(root / name, 100 + i, seed=i)
    return root


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [("a.wav", {"subtype": "FLOAT"}, 1e-7), ("a.flac", {}, 4e-5), ("a.wav", {}, 4e-5), ("a.ogg", {}, None)],
)
def test_any_format_rate_and_channels(tmp_path: Path, name: str, kind: dict[str, str], tolerance: float | None) -> None:
    for channels, rate in ((1, 8000), (2, 44100), (6, 16000)):
        x = write(tmp_path / name, 9000, rate, channels, **kind)
        found = reading.read(str(tmp_path / name), 16000, 10**6)
        wanted = resample(torch.from_numpy(x.mean(1)).float(), rate, 16000)
        assert found.shape == wanted.shape
        assert found.dtype == torch.float32
        if tolerance is not None:
            torch.testing.assert_close(found, wanted, rtol=0, atol=2 * tolerance)


def test_a_part_of_a_long_file_is_the_wholes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.flac")
    write(tmp_path / "a.flac", 20_000, 22050, 2)
    whole = reading.read(path, 8000, 10**6)
    assert reading.length(path, 8000) == len(whole) == 7257
    monkeypatch.setattr(reading, "BLOCK", 1000)
    for where in (0.0, 0.37, 0.5, 0.999):
        first = int(where * (7257 - 600 + 1))
        torch.testing.assert_close(reading.read(path, 8000, 600, where), whole[first : first + 600], rtol=0, atol=1e-6)


def test_a_header_that_lies_costs_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 1000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    for size in (2**31 - 1, 2**32 - 1):
        content[40:44] = struct.pack("<I", size)
        (tmp_path / "a.wav").write_bytes(content)
        assert 1000 <= len(reading.read(str(tmp_path / "a.wav"), 8000, 10**5)) <= 10**5
    for rate in (0, 1, 2**31 - 1):
        content[24:28] = struct.pack("<I", rate)
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(OSError):
            reading.read(str(tmp_path / "a.wav"), 8000, 10**5)


def bad_files(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x_text.wav").write_text("no sound")
    (folder / "x_none.flac").write_bytes(b"")
    soundfile.write(folder / "x_empty.wav", np.zeros(0), 8000)
    soundfile.write(folder / "x_silent.wav", np.zeros(500), 8000)
    soundfile.write(folder / "x_nan.wav", np.full(500, np.nan), 8000, subtype="FLOAT")
    soundfile.write(folder / "x_other.wav", np.ones(500) / 7, 8000, format="AIFF")
    return sorted(str(path) for path in folder.iterdir())


def test_bad_files_are_broken_and_nothing_worse(tmp_path: Path) -> None:
    for path in bad_files(tmp_path / "bad"):
        with pytest.raises(reading.BROKEN):
            reading.read(path, 8000, 1000)
    with pytest.raises(reading.BROKEN):
        reading.read(str(tmp_path / "nowhere.wav"), 8000, 1000)


@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_files_are_skipped_counted_and_told(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(broken, "BROKEN_LIMIT", 0.3)
    monkeypatch.setattr(source, "MEMORY_BYTES", 2**30 if in_memory else 1)
    digits(tmp_path / "r")
    bad_files(tmp_path / "r")
    train, test, probe = Recordings(tmp_path / "r", 8000, labels=PATTERN, held_out="b").load()
    assert isinstance(train, ArrayClips if in_memory else FileClips)
    assert len(test) == 6
    assert len(probe) == 18
    found = train.fetch(torch.arange(len(train)))
    assert bool(found.x.abs().sum(1).gt(0).all())
    if isinstance(train, FileClips):
        assert len(train) == 24
        assert len(found.broken.unique()) == 6
        assert not bool(torch.isin(found.rows, found.broken).any())
        train.broken.add(found.broken)
        train.broken.report()
    words = capsys.readouterr().err
    assert "Skipped 6 recording files that cannot be decoded, or are empty or silent (" in words
    monkeypatch.setattr(broken, "BROKEN_LIMIT", 0.01)
    if in_memory:
        with pytest.raises(UserError, match="more than 1% of 30"):
            Recordings(tmp_path / "r", 8000, labels=PATTERN).load()
    else:
        assert len(Recordings(tmp_path / "r", 8000, labels=PATTERN).load()[0].fetch(torch.arange(20)).rows) == 0


def test_memory_and_files_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits(tmp_path)
    held, held_test, _ = Recordings(tmp_path, 11025, seconds=0.01, labels=PATTERN).load()
    monkeypatch.setattr(source, "MEMORY_BYTES", 1)
    read, read_test, _ = Recordings(tmp_path, 11025, seconds=0.01, labels=PATTERN).load()
    assert held.paths == read.paths
    assert torch.equal(held_test.labels, read_test.labels)
    rows = torch.tensor([3, 0, 7])
    for places in (None, part_places(0, 1)):
        a, b = held.fetch(rows, places), read.fetch(rows, places)
        assert torch.equal(a.lengths, b.lengths)
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=4e-5)
    assert a.x.shape == (3, 110)
    assert not torch.allclose(held.fetch(rows, part_places(0, 1)).x, held.fetch(rows, part_places(0, 2)).x)
    first = held.fetch(rows, part_places(0, 1)).x[0]
    assert torch.equal(held.fetch(rows[:1], part_places(0, 1)).x[0], first)
    torch.testing.assert_close(held.clip(3), read.clip(3), rtol=0, atol=4e-5)
    assert held.subset(rows).fetch(torch.tensor([1])).x.equal(held.fetch(rows[1:2]).x)


def test_loud_float_files_are_not_clipped() -> None:
    x = torch.tensor([0.5, -3.0, 2.0])
    torch.testing.assert_close(ArrayClips.of([x, x / 4], 8000).clip(0), x, rtol=0, atol=1e-4)


def speakers(clips: ArrayClips | FileClips) -> set[str]:
    return {clips.group_names[i] if i >= 0 else "" for i in clips.groups.tolist()}


def test_groups_of_a_pattern(tmp_path: Path) -> None:
    digits(tmp_path)
    train, test, probe = Recordings(tmp_path, 8000, labels=PATTERN, test_fraction=0.25).load()
    assert probe is train
    assert test.classes == ["7", "10"]
    assert len(speakers(test)) == 1
    assert not speakers(test) & speakers(train)
    named = Recordings(tmp_path, 8000, labels=PATTERN, held_out=["c", "d"]).load()[1]
    assert speakers(named) == {"c", "d"}
    takes = Recordings(tmp_path, 8000, labels=PATTERN, group="take", held_out=["2"]).load()[1]
    assert speakers(takes) == {"2"}
    assert {Path(path).stem[-1] for path in takes.paths or ()} == {"2"}
    without = Recordings(tmp_path, 8000, labels="{label}_{_}").load()[1]
    assert speakers(without) == {""}


def test_groups_of_folders_and_names(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        for day in ("mon", "tue", "wed"):
            write(tmp_path / label / f"{day}-1.wav", 200, seed=len(label + day))
            write(tmp_path / label / f"{day}-2.wav", 210)
    train, test, _ = Recordings(tmp_path, 8000, group="{group}-*", held_out=["tue"]).load()
    assert (train.classes, len(train), len(test)) == (["cat", "dog"], 8, 4)
    with pytest.raises(UserError, match="column of a table or a field of a pattern"):
        Recordings(tmp_path, 8000, group="day").load()
    with pytest.raises(UserError, match="Did you mean 'tue'"):
        Recordings(tmp_path, 8000, group="{group}-*", held_out=["tu"]).load()
    by_folder = Recordings(tmp_path, 8000, labels="{_}/{label}-*", group="folder", held_out="dog").load()[1]
    assert speakers(by_folder) == {"dog"}
    assert by_folder.classes == ["mon", "tue", "wed"]


def test_labels_and_groups_of_a_table(tmp_path: Path) -> None:
    digits(tmp_path / "r")
    rows = [
        f"{path.name},{path.stem.split('_')[1]},{path.stem[0]},x"
        for path in sorted((tmp_path / "r").iterdir())
        if not path.stem.endswith("_2")
    ]
    (tmp_path / "t.csv").write_text("\n".join(["file,who,digit,other", *rows]))
    table = {"labels": str(tmp_path / "t.csv"), "label_column": "digit", "group": "who"}
    train, test, probe = Recordings(tmp_path / "r", 8000, held_out=["a"], **table).load()  # type: ignore[arg-type]
    assert test.classes == ["1", "7"]
    assert speakers(test) == {"a"}
    assert len(test) == 4
    assert (len(train), len(probe)) == (20, 12)  # those without a row are trained on and not probed with
    with pytest.raises(UserError, match=r"so there is no data.group=woh. Did you mean 'who'"):
        Recordings(tmp_path / "r", 8000, **{**table, "group": "woh"}).load()  # type: ignore[arg-type]


def test_a_given_split_that_shares_groups_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("x", "y"):
            for who in "ab" if part == "train" else "bc":
                write(tmp_path / part / label / f"{who}-1.wav")
    train, test, _ = Recordings(tmp_path, 8000).load()
    assert (len(train), len(test), train.classes) == (4, 4, ["x", "y"])
    with pytest.raises(UserError, match=r"in both the training and the evaluation data \(b\); leave data.group out"):
        Recordings(tmp_path, 8000, group="{group}-*").load()


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"the recording folder .* does not exist"):
        Recordings(tmp_path / "no").load()
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no recordings under .*; expected files such as .wav, .flac or .ogg"):
        Recordings(tmp_path).load()
    for wrong in ({"held_out": ["a"]}, {"label_column": "x"}, {"labels": "{digit}_{who}"}):
        with pytest.raises(UserError):
            Recordings(tmp_path, **wrong)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match=r"pip install 'ssl_lightning\[audio\]'"):
        Recordings(tmp_path).load()


def test_image_lists_and_sound_lists_of_one_folder_are_two(tmp_path: Path) -> None:
    from ssl_lightning.data.folder_scan import list_files, list_images

    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.wav").write_bytes(b"")
    for _ in range(2):
        assert list_images(tmp_path).files == ["a.png"]
        assert list_files(tmp_path, reading.RECORDINGS).files == ["a.wav"]
