"""What a stranger's few lines may grow to, and where Lightning's own classes write and remove."""

import argparse
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from safetensors.torch import save_file
from torch.distributed import checkpoint as distributed_checkpoint

from ssl_lightning import load_backbone
from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO
from ssl_lightning.cli.compose import compose
from ssl_lightning.config import allowed, instantiate
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs import places, saving, sharded

MC: dict[str, Any] = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}
VIT: dict[str, Any] = {"_target_": "ssl_lightning.models.vit.ViT", "image_size": 32, "patch_size": 8, "heads": 1}


def check(node: dict[str, Any]) -> None:
    instantiate.check(node, where="callbacks.x", takes=(allowed.CALLBACK,))


@pytest.mark.parametrize(
    "name",
    ["{/tmp/x}", "a/{../../x}", "{step:c}{step:c}/x", "{step:.>3}/x", "{epoch[0]}", "{epoch!r}"],
)
def test_a_checkpoints_name_is_not_computed(name: str) -> None:
    with pytest.raises(UserError, match="leads out of the run's folder"):
        check(MC | {"filename": name})


@pytest.mark.parametrize(
    "name", ["{epoch}-{step}", "{epoch:03d}", "best-{val/probe_top1:.2f}", "e={epoch:02d}", "{val/a.b:.1%}", "a..b"]
)
def test_honest_names_of_checkpoints(name: str) -> None:
    check(MC | {"filename": name})


def test_lightnings_classes_are_given_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "abcdefg123456789xyz")
    node = {"_target_": "ssl_lightning.callbacks.wandb_logger.WandbLogger", "project": "abcdefg123456789xyz"}
    with pytest.raises(UserError, match=r"logger\.x\.project holds a secret") as refused:
        instantiate.check(node, where="logger.x", injected=("run_path",), takes=(allowed.LOGGER,))
    assert "abcdefg" not in str(refused.value)


def experiment(folder: Path, text: str) -> Path:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "it.yaml").write_text(f"# @package _global_\n{text}")
    return folder


@pytest.mark.parametrize("next_one", ["${notes.a%d}${notes.a%d}", "['${notes.a%d}', '${notes.a%d}']"])
def test_references_do_not_grow_without_end(tmp_path: Path, next_one: str) -> None:
    lines = [f"  a{i}: {next_one % (i - 1, i - 1)}\n" for i in range(1, 40)]
    folder = experiment(tmp_path, "notes:\n  a0: xxxxxxxx\n" + "".join(lines))
    with pytest.raises(UserError, match="stand for too many values"):
        compose(["experiment=it"], folder)


def test_honest_references(tmp_path: Path) -> None:
    lines = "".join(f"  a{i}: ${{notes.a{i - 1}}}/x\n" for i in range(1, 20))
    config = compose(["experiment=it"], experiment(tmp_path, f"notes:\n  a0: y\n{lines}"))
    assert config.values["notes"]["a19"] == "y" + "/x" * 19


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    whole, bomb = tmp_path / "whole.pt", tmp_path / "bomb.pt"
    torch.save({"x": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert saving.load(whole)["x"].shape == (1 << 20,)
    with pytest.raises(saving.Damaged):
        saving.load(bomb)


@pytest.mark.parametrize("sizes", [{"dim": 4, "depth": 100_000}, {"dim": 20_000, "depth": 2}])
def test_a_card_of_a_network_much_larger_than_its_weights(tmp_path: Path, sizes: dict[str, int]) -> None:
    file = tmp_path / "x.safetensors"
    card = {"backbone": VIT | sizes, "out_dim": 4}
    save_file(ConvNetSmall(width=4).state_dict(), file, {"format": "pt", "card": json.dumps(card)})
    with pytest.raises(UserError, match="much larger than the weights"):
        load_backbone(file)


def test_a_foreign_checkpoint_names_nothing_to_remove(tmp_path: Path) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim.ckpt"
    (run / "checkpoints").mkdir(parents=True)
    victim.mkdir()
    callback = ModelCheckpoint(dirpath=run / "checkpoints")
    path = f"{run}/checkpoints/../../victim.ckpt"
    callback.load_state_dict({"best_model_score": None, "best_model_path": "", "last_model_path": path})
    io = AtomicCheckpointIO(run)
    config = run / "config.yaml"
    config.touch()
    for named in (callback.last_model_path, str(config), "memory://x.ckpt"):
        io.remove_checkpoint(named)
    assert victim.is_dir()
    assert config.exists()
    theirs = tmp_path / "elsewhere.ckpt"  # a class of the user's own may save anywhere
    io.save_checkpoint({}, theirs)
    io.remove_checkpoint(theirs)
    assert not theirs.exists()
    own = run / "checkpoints" / "epoch=1.ckpt"
    own.touch()
    io.remove_checkpoint(own)
    assert not own.exists()


def test_a_link_out_of_a_stages_folder(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "notes.txt"
    (run / "linear").mkdir(parents=True)
    (run / "config.yaml").write_text("{name: x, seed: 0, resume: auto, data: {}, trainer: {}}")
    (run / "results.json").write_text("{}")
    places.check_run(run)
    outside.touch()
    (run / "linear" / "metrics.csv").symlink_to(outside)
    with pytest.raises(UserError, match="leads out of its run"):
        places.check_run(run)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


def shards(folder: Path, **state: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process alone
        distributed_checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def test_a_sharded_checkpoint_runs_no_code(tmp_path: Path) -> None:
    canary, strategy = tmp_path / "canary", FSDPStrategy()
    honest = {"w": torch.ones(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "lr": 0.1, "betas": (0.9, 0.95)}
    good = shards(tmp_path / "good.ckpt", **honest)
    assert sharded.checked(good, strategy) == good
    bad = shards(tmp_path / "bad.ckpt", **honest, x=Evil(canary))  # a value
    worse = shards(tmp_path / "worse.ckpt", **honest)  # the description itself
    (worse / ".metadata").write_bytes(pickle.dumps(Evil(canary)))
    file = tmp_path / "file.ckpt"  # one file, which FSDP unpickles
    torch.save({"state_dict": {}, "x": Evil(canary)}, file)
    for path in (bad, worse, file):
        with pytest.raises(UserError, match="could run code"):
            sharded.checked(path, strategy)
    assert not canary.exists()


def test_a_sharded_checkpoints_description_stays_small(tmp_path: Path) -> None:
    copies = b"ctorch\nSize\nq\x00](" + b"K\x01" * 100_000 + b"eq\x01(" + b"h\x00h\x01\x85R" * 10_000 + b"l"
    for steps in (b"Nr\xff\xff\xff\x7f", copies, b"(" + b"}" * 6_000_000 + b"l"):
        (tmp_path / ".metadata").write_bytes(b"\x80\x02" + steps + b".")
        with pytest.raises(UserError, match=r"without measure|again and again|too long") as refused:
            sharded.checked(tmp_path, FSDPStrategy())
        assert "\n" not in str(refused.value)


def test_one_file_for_a_sharded_strategy_holds_plain_values_alone(tmp_path: Path) -> None:
    """FSDP unpickles it for real: what `saving.load` reads as text would be imported there."""
    file = tmp_path / "file.ckpt"
    torch.save({"state_dict": {}, "args": argparse.Namespace(a=1)}, file)
    assert saving.load(file)["state_dict"] == {}
    with pytest.raises(UserError, match="more than plain values, which could run code"):
        sharded.checked(file, FSDPStrategy())
