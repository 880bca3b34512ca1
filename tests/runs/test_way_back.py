"""A checkpoint that is not as it was written is never used, and the one before it leads to the same end."""

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs import checkpoint as ck
from ssl_lightning.runs import saving
from ssl_lightning.runs.folder import RunFolder
from tests.equal_runs import assert_equal_runs
from tests.test_exact import EPOCHS, go, stopped

pytestmark = pytest.mark.long

NODE = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 4}


def test_a_change_of_any_byte_is_found(tmp_path: Path) -> None:
    """Each byte of the file in turn."""
    content = {"state_dict": {"weight": torch.arange(6.0)}, "loops": {"a": {"b": 1}}, "epoch": 3}
    path = saving.save_atomic(content, tmp_path / "x.ckpt")
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= (1, 128, 255)[place % 3]
        path.write_bytes(changed)
        with pytest.raises(UserError):
            saving.load(path)


def test_a_checkpoint_without_a_stamp_is_read_and_checked_by_torch_s_own_sums(tmp_path: Path) -> None:
    """As older versions wrote them."""
    path, content = tmp_path / "x.ckpt", {"weight": torch.arange(4096.0)}
    torch.save(content, path)
    assert torch.equal(saving.load(path)["weight"], content["weight"])
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(UserError, match="damaged"):
        saving.load(path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "64 bytes flipped": lambda path: flip(path, 64),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another file": lambda path: torch.save({"x": torch.ones(3)}, path),
}


def flip(path: Path, count: int) -> None:
    content, draw = bytearray(path.read_bytes()), random.Random(0)
    for place in draw.sample(range(len(content)), count):
        content[place] ^= draw.randrange(1, 256)
    replace_content(path, bytes(content))


def replace_content(path: Path, content: bytes) -> None:
    """A new file: `last.ckpt` and `previous.ckpt` may be two names of one."""
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(folder, *EPOCHS, "callbacks.checkpoint.every_n_steps=1")
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_one_before_leads_to_the_same_end(
    damage: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, folder = [*EPOCHS, "callbacks.checkpoint.every_n_steps=1"], tmp_path / "run"
    stopped(folder, 5, monkeypatch, *words)
    last = folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5
    DAMAGE[damage](last)
    (folder / "checkpoints" / ".last.ckpt.123.tmp").write_text("half")
    (folder / "metrics.csv.tmp").write_text("half")
    (folder / ".writable").write_text("")
    go(folder, *words)
    said = capsys.readouterr().err.splitlines()
    state = "absent" if damage == "gone" else "damaged"
    assert [line for line in said if "ckpt" in line] == [
        f"{last} is {state}; going on from the one before it, previous.ckpt"
    ]
    assert_equal_runs(whole, folder)


def test_both_damaged_is_one_line_and_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, folder = [*EPOCHS, "callbacks.checkpoint.every_n_steps=1"], tmp_path / "run"
    stopped(folder, 5, monkeypatch, *words)
    for name in ("last.ckpt", "previous.ckpt"):
        flip(folder / "checkpoints" / name, 64)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"last\.ckpt is damaged and .*previous\.ckpt is damaged: .*resume=never"
    ) as error:
        go(folder, *words)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_ckpt_that_names_a_run_falls_back_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    net = ConvNetSmall(4)
    state = {f"backbone.{key}": value for key, value in net.state_dict().items()}
    for name in ("previous.ckpt", "last.ckpt"):
        saving.save_atomic({"pytorch-lightning_version": "2.6.6", "state_dict": state}, folder / name)
    flip(folder / "last.ckpt", 64)
    loaded = ConvNetSmall(4)
    ck.load_weights(loaded, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values()))
    assert capsys.readouterr().err.count("going on from the one before it") == 1
    with pytest.raises(UserError, match="damaged"):
        ck.load_weights(loaded, folder / "last.ckpt")  # asked for by its own name


def test_the_newest_name_always_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each rename of a save there is a whole `last.ckpt`; without hard links at least a whole `previous.ckpt`."""
    path, kept, rename = tmp_path / "last.ckpt", tmp_path / "previous.ckpt", os.replace
    whole: list[bool] = []

    def watched(a: Path, b: Path) -> None:
        rename(a, b)
        whole.append(any(file.exists() and saving.load(file) for file in (path, kept)))
        if links:
            assert path.exists() or not kept.exists()

    for links in (True, False):  # noqa: B007  (watched looks at it)
        monkeypatch.setattr(os, "replace", watched)
        for step in range(1, 5):
            saving.save_atomic({"step": step}, path, keep=kept)
            assert saving.load(path) == {"step": step}
            assert step == 1 or saving.load(kept) == {"step": step - 1}
        assert all(whole)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
        monkeypatch.setattr(os, "link", no_links)
        path.unlink()
        kept.unlink()


def no_links(*args: Any) -> None:
    raise PermissionError("this file system has no hard links")


def test_a_sharded_checkpoint_is_seen(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "last.ckpt").mkdir(parents=True)
    run = RunFolder(tmp_path)
    assert run.checkpoint == run.saved == tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="sharded checkpoint"):
        ck.resolve_ckpt(tmp_path / "checkpoints" / "last.ckpt")


def test_equal_backbones_are_equal_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ConvNetSmall(4)
    names = {"card_of": 'é\n"', "image_size": 32, "mean": [0.5], "std": [0.2], "method": "x", "data": "y"}
    before = os.umask(0o027)
    try:
        files = [ck.save_backbone(net, NODE, tmp_path / str(i), **names) for i in range(8)]
    finally:
        os.umask(before)
    assert len({file.read_bytes() for file in files}) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o640
    again = load_backbone(files[0])
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values()))
    card = ck.resolve_ckpt(files[0]).card
    assert card is not None
    assert {key: card[key] for key in names} == names
