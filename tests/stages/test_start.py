"""A training that begins with given weights: backbone and teacher at step 0, what is refused, and how it goes on."""

import copy
import json
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.cli.run import Parts, compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import begin
from tests.methods.harness import METHODS, tiny_backbone, tiny_method
from tests.stages.tiny_run import NODE, a_run

SMALL = ["data=shapes", "data.size=64", "data.test_size=20", "data.image_size=16", "data.batch_size=32", "trainer=cpu"]
SMALL += [
    "callbacks=minimal",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "method.projector.hidden_dim=8",
]


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def shapes(part: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in part.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_backbone_and_every_copy_of_it_begin_with_the_weights(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = tiny_backbone(name)
    torch.save(given.state_dict(), tmp_path / "w.pt")
    torch.manual_seed(0)
    start = begin(tmp_path / "w.pt", {}, lambda node: tiny_backbone(name))
    torch.manual_seed(0)
    assert same(start.random, tiny_backbone(name)), "what a run without weights begins with"
    assert not same(start.random, given)
    method = tiny_method(name, backbone=start.backbone)
    given.double()
    copies = [part for part in method.modules() if shapes(part) == shapes(given)]
    assert all(same(part, given) for part in copies)
    assert len(copies) >= (2 if method.teacher_pairs() else 1)
    assert any(part is method.judged for part in copies)


def test_a_training_from_a_timm_vit_s_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole command: the weights at the trainer's start, in student and teacher."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    sizes = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    given = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5, **sizes)
    torch.save(given.state_dict(), tmp_path / "vit.pth")
    words = [
        "ckpt=vit.pth",
        "method=dino",
        "backbone=timm",
        *(f"+backbone.{key}={value}" for key, value in sizes.items()),
    ]
    config = compose([*words, "method.projector.out_dim=16"])
    parts = Parts(config, RunFolder(tmp_path / "run"))
    method = parts.method
    wanted = {key: value for key, value in given.state_dict().items() if not key.startswith("head.")}
    for network in (method.backbone, method.judged):
        found = network.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert method.judged is not method.backbone
    assert parts.start.ref == "vit.pth"


def test_a_method_of_masked_patches_takes_timm_s_weights_into_our_vit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    given = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=1, embed_dim=24, num_heads=3)
    torch.save({"model": given.state_dict()}, tmp_path / "vit.pth")
    words = ["method=mae", "backbone=vit_tiny", "backbone.dim=24", "backbone.depth=1", "backbone.patch_size=4"]
    method = Parts(compose([f"ckpt={tmp_path}/vit.pth", *words]), RunFolder(tmp_path / "run")).method
    assert torch.equal(method.backbone.pos_embed, given.pos_embed)
    assert torch.equal(method.backbone.blocks[0].attn.qkv.weight, given.blocks[0].attn.qkv.weight)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, *SMALL]) == 2
    assert not Path("runs").exists(), "nothing is left behind"
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no checkpoint at /nonexistent" in refused(["ckpt=/nonexistent"], capsys)
    a_run(tmp_path / "x", width=6)
    a_run(tmp_path / "photos-run", width=6)
    assert "Did you mean 'photos-run'?" in refused(["ckpt=photo-run"], capsys)
    assert "Did you mean" not in refused(["ckpt=gone"], capsys)
    assert "another backbone: " in refused(["ckpt=x", "backbone.width=7"], capsys)
    state = ConvNetSmall(48).state_dict()
    last = next(reversed(state))
    torch.save({key: value for key, value in state.items() if key != last}, "part.pt")
    key = next(key for key in reversed(state) if not key.endswith("num_batches_tracked"))
    torch.save({k: v for k, v in state.items() if k != key}, "part.pt")
    assert f"'{key}'" in refused(["ckpt=part.pt"], capsys)
    torch.save({**state, key: state[key] * math.nan}, "nan.pt")
    assert f"not finite: '{key}' has" in refused(["ckpt=nan.pt"], capsys)
    torch.save({f"module.{k}": v for k, v in state.items()}, "whole.pt")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = refused(["ckpt=timm:vit_tiny_patch16_224", "backbone=timm"], capsys)
    assert "the weights of timm:vit_tiny_patch16_224 could not be fetched" in line
    assert "give the file as ckpt=" in line


def test_a_run_from_a_run_is_resumed_from_its_own_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = load_backbone(a_run(tmp_path / "x", width=4))
    words = ["ckpt=x/backbone.safetensors", "name=b", *SMALL, "stage.k=3", "trainer.log_every_n_steps=1"]
    assert main(words) == 0
    results = json.loads(Path("runs/b/results.json").read_text())
    assert results["ckpt"] == "x/backbone.safetensors"
    assert set(results["baselines"]["start"]) == {"knn_top1", "linear_top1"}
    assert results["baselines"].keys() == {"random_init", "raw_pixels", "start"}
    assert isinstance(results["verdict"], str)
    trained = load_backbone("runs/b")
    assert trained.out_dim == given.out_dim
    assert not same(trained, given)

    assert main(["stage=finetune", "ckpt=runs/b", "stage.epochs=1", "trainer=cpu", "trainer.log_every_n_steps=1"]) == 0
    tuned = json.loads(Path("runs/b/finetune-shapes/results.json").read_text())
    assert (tuned["labels"], tuned["data"]) == (64, "shapes")
    out = capsys.readouterr().out
    assert "as in runs/b: data.mean=[0.4, 0.4, 0.4]" in out
    assert "data.size=64, data.test_size=20, data.image_size=16\n" in out

    assert main([*words, "ckpt=null"]) == 2
    assert "ckpt: x/backbone.safetensors -> null" in capsys.readouterr().err
    for ckpt, why in (("x/gone.pt", "no checkpoint at x/gone.pt"), ("runs/b", "which resume=never would move away")):
        assert main([*words, f"ckpt={ckpt}", "resume=never"]) == 2
        assert why in capsys.readouterr().err
        assert [path.name for path in Path("runs").iterdir()] == ["b"]
    for gone in (False, True):
        Path("runs/b/results.json").unlink()
        Path("runs/b/backbone.safetensors").unlink()
        if gone:
            Path("x/backbone.safetensors").unlink()
        assert main(words) == 0
        assert same(load_backbone("runs/b"), trained)
        beside = json.loads(Path("runs/b/results.json").read_text())["baselines"]
        assert ("start" in beside) == (not gone)
    assert "going on from the run's own checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["knn", "linear", "finetune", "embed", "export"])
def test_no_verdict_on_weights_that_are_no_numbers(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = ConvNetSmall(4)
    name = list(net.state_dict())[3]
    with torch.no_grad():
        net.state_dict()[name].view(-1)[0] = math.inf
    file = save_backbone(net, NODE, tmp_path / "x", image_size=16)
    with pytest.raises(UserError, match=f"not finite: '{name}' has 1 of "):
        load_backbone(file)
    words = [f"stage={stage}", f"ckpt={file}", f"runs_dir={tmp_path}/runs", "data=shapes"]
    words += ["trainer=cpu"] if stage != "export" else []
    assert main(words) == 2
    assert f"'{name}'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_may_have_lost_the_weights_it_began_with(tmp_path: Path) -> None:
    def build(node: dict[str, object]) -> nn.Module:
        assert node == {"name": "x", "pretrained": False}, "nothing is fetched for weights that come from a file"
        return ConvNetSmall(4)

    node = {"name": "x", "pretrained": True}
    with pytest.raises(UserError, match="no checkpoint at"):
        begin(tmp_path / "gone.pt", node, build)
    start = begin(tmp_path / "gone.pt", node, build, resumed=True)
    assert not start.loaded
    assert same(start.backbone, copy.deepcopy(start.random))
