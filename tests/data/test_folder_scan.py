"""Finding image files, and a cached list that never outlives a change."""

import os
import time
from pathlib import Path

import pytest

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import folder_scan
from ssl_lightning.data.folder_scan import list_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def age(root: Path, seconds: float = 60) -> None:
    """Sets every directory's time stamp back, so that the list may be cached."""
    then = time.time() - seconds
    for folder in (root, *(p for p in root.rglob("*") if p.is_dir())):
        os.utime(folder, (then, then))


def test_images_at_any_depth_are_found_sorted_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "r"
    touch(root, "b/2.JPG", "b/1.png", "a/deep/er/x.jpeg", "top.webp", "notes.txt", ".hidden.png", ".git/x.png", "b/jpg")
    listing = list_images(root)
    assert listing.files == ["a/deep/er/x.jpeg", "b/1.png", "b/2.JPG", "top.webp"]
    assert listing.paths()[0] == str(root / "a/deep/er/x.jpeg")
    assert listing.under("b").paths() == [str(root / "b/1.png"), str(root / "b/2.JPG")]


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "r"
    touch(root, "a/x.png")
    touch(tmp_path / "elsewhere", "y.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert list_images(root).files == ["a/x.png", "b/y.png"]


def test_a_list_is_read_back_until_a_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "r"
    touch(root, "a/x.png", "b/y.png")
    age(root)
    first = list_images(root)
    with monkeypatch.context() as patch:
        patch.setattr(folder_scan, "_scan", None)  # calling it would fail: the list must come from the cache
        assert list_images(root) == first
    touch(root, "b/z.png")
    assert list_images(root).files == ["a/x.png", "b/y.png", "b/z.png"]
    age(root)
    list_images(root)
    (root / "a/x.png").unlink()
    assert list_images(root).files == ["b/y.png", "b/z.png"]


def test_a_directory_just_changed_is_not_trusted(tmp_path: Path, own_cache: Path) -> None:
    root = tmp_path / "r"
    touch(root, "x.png")
    list_images(root)
    assert not list(own_cache.rglob("*.json"))


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/nowhere does not exist"):
        list_images(tmp_path / "nowhere")
    touch(tmp_path / "r", "readme.txt")
    with pytest.raises(UserError, match=r"no images under .*/r; expected files such as \.jpg"):
        list_images(tmp_path / "r")
    with pytest.raises(UserError, match=r"readme\.txt is a file"):
        list_images(tmp_path / "r" / "readme.txt")
