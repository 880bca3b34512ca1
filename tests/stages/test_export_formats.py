"""stage=export stage.formats=[onnx,hf]: others' programs give the same features from the files alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core import files
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.stages import export, export_hf, export_onnx
from tests.stages.tiny_run import NODE, TinyData, a_folder, a_run, judged

MODELS = "ssl_lightning.models."
RESNET = {"_target_": f"{MODELS}resnet.resnet", "stem": "imagenet", "zero_init_residual": False}
TIMM = {"_target_": f"{MODELS}timm.timm_backbone", "pretrained": False}
VIT = {"_target_": f"{MODELS}vit.ViT", "image_size": 32, "patch_size": 8, "dim": 24, "depth": 2, "heads": 3}
AUDIO = {"modality": "audio", "sample_rate": 8000, "length": 2560, "mean": [0.1], "std": [2.0]}
MEL = AUDIO | {"representation": "logmel", "mels": 16, "window": 0.025, "hop": 0.01, "low": 60.0}
MELVIT = {
    "_target_": f"{MODELS}vit_mel.MelViT",
    "mels": 16,
    "length": 2560,
    "sample_rate": 8000,
    "hop": 0.01,
    "dim": 24,
}
MELVIT |= {"patch_size": 8, "depth": 2, "heads": 3, "image_size": None}


def exported(
    tmp_path: Path, node: dict[str, Any], formats: list[str], **card: Any
) -> tuple[nn.Module, Path, dict[str, Any]]:
    """(the network, the folder of its export, what results say)."""
    torch.manual_seed(4)
    net = instantiate(node)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    card = card or {"image_size": 32, "mean": [0.1] * 3, "std": [0.2] * 3}
    save_backbone(net, node, tmp_path / "run", method="byol", data="x", **card)
    folder = a_folder(tmp_path / "out")
    return net.eval(), folder.path, export.run(judged(tmp_path / "run"), TinyData(), folder, formats)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "node",
    [
        RESNET | {"name": "resnet18"},
        RESNET | {"name": "resnet34"},
        RESNET | {"name": "resnet50"},
        TIMM | {"name": "resnet10t", "image_size": 32},
        TIMM | {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 2},
        VIT,
        VIT | {"readout": "mean", "positions": "sincos", "layer_scale": 0.3},
        VIT | {"registers": 3, "image_size": [32, 32]},
        VIT | {"readout": "mean", "class_token": False},
    ],
    ids=lambda node: "-".join(str(v) for k, v in node.items() if k in ("name", "readout", "registers", "class_token")),
)
def test_timm_reads_the_folder(tmp_path: Path, node: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    net, folder, found = exported(tmp_path, node, ["hf"])
    theirs = timm.create_model(f"local-dir:{folder / 'hf'}", pretrained=True).eval()
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), net(x), rtol=1e-5, atol=1e-5)
    fed = timm.data.resolve_model_data_config(theirs)
    assert (tuple(fed["input_size"]), list(fed["mean"]), list(fed["std"]), fed["crop_pct"]) == (
        (3, 32, 32),
        [0.1] * 3,
        [0.2] * 3,
        1,
    )
    assert found["hf"]["max_difference"] <= 1e-5
    assert sorted(file.name for file in folder.iterdir()) == ["backbone.json", "hf"]
    assert sorted(file.name for file in (folder / "hf").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_one_channel_and_spectrograms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net, folder, _ = exported(tmp_path / "a", RESNET | {"name": "resnet18", "in_channels": 1}, ["hf"], image_size=32,
                              channels=1, mean=[0.1], std=[0.2])  # fmt: skip
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        theirs = timm.create_model(f"local-dir:{folder / 'hf'}", pretrained=True).eval()
        torch.testing.assert_close(theirs(x), net(x), rtol=1e-5, atol=1e-5)
    node = {key: value for key, value in MELVIT.items() if value is not None}
    net, folder, _ = exported(tmp_path / "b", node, ["hf"], **MEL)
    x = torch.rand(2, 1, 16, 32)
    with torch.no_grad():
        theirs = timm.create_model(f"local-dir:{folder / 'hf'}", pretrained=True).eval()
        torch.testing.assert_close(theirs(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (RESNET | {"name": "resnet18", "stem": "cifar"}, "no resnet18 with the stem for small images"),
        (VIT | {"readout": "both"}, "no ViT with readout=both"),
        (NODE, "it has no ConvNetSmall"),
    ],
)
def test_what_timm_has_none_like_is_refused(tmp_path: Path, node: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=rf"{why}.*stage\.formats=\[safetensors,onnx\]"):
        exported(tmp_path, node, ["safetensors", "hf"])
    assert not list((tmp_path / "out").iterdir())  # not even what had been written before


def test_a_difference_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: timm's network pools otherwise."""
    monkeypatch.setitem(export_hf.POOLS, "mean", "token")
    with pytest.raises(UserError, match="timm's network gives features that differ"):
        exported(tmp_path, VIT | {"readout": "mean"}, ["hf"])
    assert not list((tmp_path / "out").iterdir())


def test_the_model_card_says_what_is_known(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_backbone(instantiate(RESNET | {"name": "resnet18"}), RESNET | {"name": "resnet18"}, run, image_size=32,
                  mean=[0.1] * 3, std=[0.2] * 3, method="byol", data="<script>alert(1)</script>")  # fmt: skip
    (run / "config.yaml").write_text("backbone: {}\nchoices: {stage: pretrain}\n")
    found = {"knn_top1": 0.7125, "epochs": 5, "baselines": {"random_init": {"knn_top1": 0.25}}, "data": "<b>"}
    (run / "results.json").write_text(json.dumps(found))
    folder = a_folder(tmp_path / "out")
    export.run(judged(run), TinyData(), folder, ["hf"])
    text = (folder.path / "hf" / "README.md").read_text()
    assert "pretrained with byol" in text
    assert "<script" not in text
    assert "&lt;script" in text
    for row in ("knn\\_top1 | 0.7125", "epochs | 5", "random\\_init: knn\\_top1 | 0.2500", "Licence", "unknown"):
        assert row in text


@pytest.mark.parametrize(
    ("node", "card", "shape"),
    [
        (NODE, {}, (3, 32, 32)),
        (RESNET | {"name": "resnet18", "stem": "cifar"}, {}, (3, 32, 32)),
        (VIT | {"registers": 1, "readout": "both"}, {}, (3, 32, 32)),
        (TIMM | {"name": "resnet10t", "image_size": 32}, {}, (3, 32, 32)),
        ({"_target_": f"{MODELS}audio.MelConvNet", "mels": 16, "width": 4, "out_dim": 8}, MEL, (1, 16, 32)),
        ({"_target_": f"{MODELS}audio.WaveConvNet", "width": 8}, AUDIO | {"representation": "wave"}, (1, 2560)),
    ],
    ids=("convnet", "resnet", "vit", "timm", "mel", "wave"),
)
def test_onnx(tmp_path: Path, node: dict[str, Any], card: dict[str, Any], shape: tuple[int, ...]) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, folder, found = exported(tmp_path, node, ["safetensors", "onnx"], **card)
    names = ["backbone.json", "backbone.onnx", "backbone.safetensors"]
    assert sorted(file.name for file in folder.iterdir()) == names
    session = onnxruntime.InferenceSession(str(folder / "backbone.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        x = torch.randn(count, *shape)
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], net(x).numpy(), rtol=1e-3, atol=1e-4)
    told = json.loads((folder / "backbone.json").read_text())["onnx"]
    assert told == found["onnx"]
    assert told["input"] == ["batch", *shape]
    assert 0 <= told["max_difference"] < 1e-3 * max(1, told["largest_feature"])
    assert onnx.load(folder / "backbone.onnx").opset_import[0].version == told["opset"] == 18


def test_onnx_that_differs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export_onnx, "_compared", lambda *_: (0.5, 1.0))
    with pytest.raises(UserError, match=r"differ from torch's by up to 0\.5"):
        exported(tmp_path, NODE, ["safetensors", "onnx"])
    assert not list((tmp_path / "out").iterdir())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "ssl-lightning\[export\]"'):
        export_onnx.need_packages()


def test_a_second_export_takes_the_place_of_the_first(tmp_path: Path) -> None:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    (folder.path / "hf").mkdir()
    (folder.path / "hf" / "old").touch()
    with files.all_or_none(folder.path) as place:
        (place / "hf").mkdir()
        (place / "hf" / "new").touch()
    assert [file.name for file in (folder.path / "hf").iterdir()] == ["new"]
    export.run(judged(run), TinyData(), folder)
    export.run(judged(run), TinyData(), folder)
    assert sorted(file.name for file in folder.path.iterdir()) == ["backbone.json", "backbone.safetensors", "hf"]


def test_nothing_heavy_is_imported_for_the_default() -> None:
    code = "import ssl_lightning.stages.export, sys; print([m for m in sys.modules if m.startswith('onnx')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
