"""The one atomic write: whole or absent whatever happens, nothing left behind, nobody in another's way."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.core import files
from ssl_lightning.core.files import atomic, write_atomic
from ssl_lightning.runs.folder import LEFT_OVER
from ssl_lightning.runs.places import FILES

PACKAGE = Path(files.__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_new_file_is_there_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with atomic(path) as temporary:
        assert temporary.read_bytes() == b""
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_after_a_failure_the_old_file_is_there_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.txt"

    def fail() -> None:
        with atomic(path, keep=tmp_path / "kept") as temporary:
            temporary.write_text("half")
            raise error

    for old in ([], ["x.txt"]):
        with pytest.raises(error):
            fail()
        assert names(tmp_path) == old
        path.write_text("old")
    assert path.read_text() == "old"


def test_a_name_that_a_killed_process_leaves_is_known(tmp_path: Path) -> None:
    """To the run that tidies its folder, and to the check of what a folder holds."""
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "backbone.safetensors", "results.json", ".writable"):
        with atomic(tmp_path / name) as temporary:
            assert LEFT_OVER.fullmatch(temporary.name)
            assert re.fullmatch(FILES[-1], temporary.name)
            assert temporary.name.endswith(f".{os.getpid()}.tmp")


def test_two_that_write_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic(path) as first, atomic(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"  # its block ended last
    assert names(tmp_path) == ["x"]


def test_many_processes_write_one_file(tmp_path: Path) -> None:
    """A reader sees a whole file of one of them at any moment."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom ssl_lightning.core.files import write_atomic\n"
        "for _ in range(60): write_atomic(Path(sys.argv[1]), sys.argv[2] * 60_000)"
    )
    path = tmp_path / "x"
    write_atomic(path, "0" * 60_000)
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), word]) for word in "123"]
    seen = set()
    while any(process.poll() is None for process in running):
        text = path.read_text()
        assert len(text) == 60_000
        assert len(set(text)) == 1
        seen.add(text[0])
    assert [process.wait() for process in running] == [0, 0, 0]
    assert names(tmp_path) == ["x"]
    assert len(seen) > 1


def test_text_is_utf_8_and_bytes_are_as_they_are(tmp_path: Path) -> None:
    write_atomic(tmp_path / "text", "é\n")
    write_atomic(tmp_path / "bytes", b"\r\n\0")
    assert (tmp_path / "text").read_bytes() == "é\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\r\n\0"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask_whatever_the_writer_does(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic(tmp_path / "x") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def order_of(monkeypatch: pytest.MonkeyPatch, write: Callable[[], Any]) -> list[str]:
    seen: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (seen.append(name), real(*a))[1])
    write()
    return seen


@pytest.mark.parametrize("durable", [True, False])
def test_only_a_durable_file_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    seen = order_of(monkeypatch, lambda: write_atomic(tmp_path / "x", "x", durable))
    assert seen == (["fsync", "replace", "fsync"] if durable else ["replace"])


def test_the_old_file_keeps_the_other_name(tmp_path: Path) -> None:
    path, kept = tmp_path / "last", tmp_path / "previous"
    for text in "abc":
        with atomic(path, keep=kept) as temporary:
            temporary.write_text(text)
    assert (path.read_text(), kept.read_text()) == ("c", "b")
    assert names(tmp_path) == ["last", "previous"]


def test_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can write into the folder can not have another file written to, even if the name could be guessed."""
    (tmp_path / "theirs").write_text("theirs")
    monkeypatch.setattr(files, "_beside", lambda path: tmp_path / ".x.1.tmp")
    (tmp_path / ".x.1.tmp").symlink_to(tmp_path / "theirs")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "x", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "x", "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic(tmp_path / "x") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_text("new")

    write_atomic(tmp_path / "x", "old")
    with pytest.raises(OSError, match="No space left"):
        fill()
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_nothing_else_in_the_package_renames_over_a_file() -> None:
    own = PACKAGE / "core" / "files.py"
    words = re.compile(r"os\.(replace|rename|link)\(|mkstemp|NamedTemporaryFile")
    assert words.search(own.read_text())
    assert [file for file in PACKAGE.rglob("*.py") if file != own and words.search(file.read_text())] == []
