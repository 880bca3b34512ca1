"""Small equal images become one memory-mapped array; anything else stays files."""

import errno
import os
from pathlib import Path

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import decode_cache
from ssl_lightning.modalities.image.decode_cache import decoded_once
from ssl_lightning.modalities.image.images import ArrayImages, FileImages, decode
from tests.data.pictures import write_mixed, write_picture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def small(folder: Path, count: int = 300) -> FileImages:
    for i in range(count):
        write_picture(folder / f"{i:04}.png", (6, 5), i)
    return FileImages(sorted(map(str, folder.glob("*.png"))), torch.arange(count) % 3, ["x", "y", "z"])


def test_the_array_holds_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small(tmp_path / "r")
    for round in ("decoded", "from the cache"):
        images = decoded_once(files)
        assert isinstance(images, ArrayImages), round
        assert torch.equal(images.images, torch.stack([decode(p) for p in files.paths]))
        assert images.labels.tolist() == files.labels.tolist()
        assert (images.classes, images.paths) == (files.classes, files.paths)
        monkeypatch.setattr(decode_cache, "_decode_all", None)  # calling it again would fail


def test_a_rewritten_file_is_decoded_again(tmp_path: Path) -> None:
    files = small(tmp_path / "r", 4)
    decoded_once(files)
    write_picture(Path(files.paths[2]), (6, 5), 77)
    assert int(decoded_once(files).image(2)[0, 0, 0]) == 77


def test_workers_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small(tmp_path / "r", 40)
    monkeypatch.setattr(decode_cache, "CHUNK", 8)
    monkeypatch.setattr(decode_cache, "automatic_workers", lambda: 2)
    images = decoded_once(files)
    assert isinstance(images, ArrayImages)
    assert torch.equal(images.images, torch.stack([decode(p) for p in files.paths]))


def test_different_sizes_stay_files(tmp_path: Path) -> None:
    write_mixed(tmp_path / "r")
    files = FileImages(sorted(map(str, (tmp_path / "r").rglob("*.png"))))
    assert decoded_once(files) is files


def test_one_late_odd_size_also_stays_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small(tmp_path / "r", 100)
    write_picture(Path(files.paths[50]), (7, 7), 0)  # not among the headers that are looked at first
    assert decode_cache._common_size(files.paths) == (6, 5)
    assert decoded_once(files) is files
    monkeypatch.setattr(decode_cache, "_decode_all", None)
    assert decoded_once(files) is files  # remembered


def test_large_images_stay_files(tmp_path: Path) -> None:
    for i in range(3):
        write_picture(tmp_path / f"r/{i}.png", (129, 40), i)
    files = FileImages(sorted(map(str, (tmp_path / "r").glob("*.png"))))
    assert decoded_once(files) is files


def test_broken_files_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = small(tmp_path / "r")
    Path(files.paths[7]).write_text("no image")
    Path(files.paths[9]).write_bytes(Path(files.paths[9]).read_bytes()[:60])
    for _ in range(2):  # decoded, then from the cache: said each time
        images = decoded_once(FileImages(files.paths, files.labels, files.classes))
        assert isinstance(images, ArrayImages)
        assert len(images) == 298
        assert images.paths is not None
        assert images.paths[7] == files.paths[8]
        assert torch.equal(images.image(297), decode(files.paths[299]))
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Skipped 2 image files" in said
        assert "0007.png" in said
        assert "0009.png" in said


def test_more_than_one_percent_broken_stops(tmp_path: Path) -> None:
    files = small(tmp_path / "r", 300)
    for path in files.paths[:4]:
        Path(path).write_text("no image")
    with pytest.raises(UserError, match=r"4 image files .*0000\.png.* more than 1% of 300"):
        decoded_once(files)
    for path in files.paths:
        Path(path).write_text("no image")
    assert decoded_once(files) is files  # no header can be read: training will say so


def test_on_a_full_disk_the_images_stay_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = small(tmp_path / "r", 4)
    monkeypatch.setattr(os, "replace", full)
    assert decoded_once(files) is files
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be kept" in said
    assert "No space left on device" in said
    assert list((tmp_path / "cache" / "ssl_lightning" / "decoded").iterdir()) == []
