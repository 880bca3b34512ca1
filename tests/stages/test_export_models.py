"""stage=export of a fine-tuned run: others' programs give the same logits and know the names of the classes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ssl_lightning as sl
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.runs.checkpoint import build_backbone
from ssl_lightning.runs.model import Model, folded, save_model
from ssl_lightning.stages import export, export_onnx
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import NODE, TinyData, a_folder, judged

TIMM = {"_target_": "ssl_lightning.models.timm.timm_backbone", "name": "resnet10t"}
CONVNEXT = {"_target_": "ssl_lightning.models.timm.timm_backbone", "name": "convnext_atto"}
VIT = {"_target_": "ssl_lightning.models.vit.ViT", "image_size": 32, "patch_size": 8, "dim": 16, "depth": 1,
       "heads": 2}  # fmt: skip
NAMES = ["<b>cat", "dog", "bird, blue"]


def a_model(folder: Path, node: dict[str, Any], task: Task | None = None, normed: bool = False) -> Model:
    torch.manual_seed(0)
    net = build_backbone({"backbone": node})
    width = int(net.out_dim)  # type: ignore[arg-type]
    task = (task or Classify()).prepare(NAMES, torch.randn(9, 3))
    norm = nn.BatchNorm1d(width, affine=False) if normed else None
    if norm is not None:
        norm(torch.randn(64, width) * 3 + 2)
    model = Model(net, task, nn.Linear(width, 3), norm, 0.5 if normed else 1.0).eval()
    model.stage = "finetune"
    save_model(model, {"backbone": node, "image_size": 32, "mean": [0.4] * 3, "std": [0.3] * 3, "data": "x"}, folder)
    return model


def exported(tmp_path: Path, formats: list[Any]) -> tuple[Path, dict[str, Any]]:
    folder = a_folder(tmp_path / "out")
    return folder.path, export.run(judged(tmp_path / "run"), TinyData(), folder, formats)


def test_safetensors_hold_the_model(tmp_path: Path) -> None:
    model = a_model(tmp_path / "run", NODE)
    folder, found = exported(tmp_path, ["safetensors"])
    assert sorted(file.name for file in folder.iterdir()) == [
        "backbone.json", "backbone.safetensors", "model.safetensors",
    ]  # fmt: skip
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(sl.load_model(folder)(x), model(x))
    assert torch.equal(sl.load_backbone(folder)(x), model.backbone(x))
    assert json.loads((folder / "backbone.json").read_text())["classes"] == NAMES
    assert found["files"][0].endswith("model.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="onnxruntime")
@pytest.mark.parametrize(("task", "normed"), [(Classify(), False), (MultiLabel(), True), (Regress(), False)])
def test_onnx_gives_the_outputs_and_the_names(tmp_path: Path, task: Task, normed: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = a_model(tmp_path / "run", NODE, task, normed)
    folder, found = exported(tmp_path, ["onnx"])
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    name = "outputs" if isinstance(task, Regress) else "logits"
    assert [output.name for output in session.get_outputs()] == [name]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == NAMES
    for count in (1, 5):
        x = torch.rand(count, 3, 32, 32)
        (theirs,) = session.run(None, {"input": x.numpy()})
        assert torch.allclose(torch.from_numpy(theirs), model(x), atol=1e-5)
    assert found["onnx_model"]["max_difference"] <= 1e-5
    assert (folder / "backbone.onnx").exists()


@pytest.mark.parametrize(
    ("node", "normed"), [(TIMM, False), (TIMM, True), (CONVNEXT, False), (VIT, True)], ids=str
)  # fmt: skip
def test_timm_reads_the_classifier(tmp_path: Path, node: dict[str, Any], normed: bool) -> None:
    timm = pytest.importorskip("timm")
    model = a_model(tmp_path / "run", node, normed=normed)
    folder, found = exported(tmp_path, ["hf"])
    theirs = timm.create_model(f"local-dir:{folder / 'hf'}", pretrained=True).eval()
    size = tuple(model_shape(folder))
    x = torch.rand(3, *size)
    with torch.no_grad():
        assert torch.allclose(theirs(x), model(x), atol=1e-5)
    config = json.loads((folder / "hf" / "config.json").read_text())
    assert theirs.num_classes == config["num_classes"] == 3
    assert config["label_names"] == NAMES
    assert found["hf"]["max_difference"] <= 1e-4
    text = (folder / "hf" / "README.md").read_text()
    assert "image-classification" in text
    assert "<b>cat" not in text


def test_logits_that_differ_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_model(tmp_path / "run", TIMM)
    monkeypatch.setattr(export, "folded", lambda model: (torch.ones(3, 512), torch.full((3,), torch.nan)))
    with pytest.raises(UserError, match=r"hf: timm's network gives logits that differ"):
        exported(tmp_path, ["safetensors", "hf"])
    assert not list((tmp_path / "out").iterdir())
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export_onnx, "_compared", lambda *_: (0.5, 1.0))
    with pytest.raises(UserError, match=r"the logits of the ONNX file differ from torch's by up to 0\.5"):
        export.run(judged(tmp_path / "run"), TinyData(), a_folder(tmp_path / "again"), ["onnx"])
    assert not list((tmp_path / "again").iterdir())


def model_shape(folder: Path) -> list[int]:
    config = json.loads((folder / "hf" / "config.json").read_text())
    return list(config["pretrained_cfg"]["input_size"])


def test_what_timm_has_no_head_for_is_the_backbone_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_model(tmp_path / "run", TIMM, Regress())
    folder, _ = exported(tmp_path, ["hf"])
    assert "the folder has the backbone alone" in capsys.readouterr().err
    assert json.loads((folder / "hf" / "config.json").read_text())["num_classes"] == 0


def test_norm_scale_and_head_are_one_layer(tmp_path: Path) -> None:
    model = a_model(tmp_path / "run", NODE, normed=True)
    found = folded(model)
    assert found is not None
    x = torch.rand(5, 3, 32, 32)
    assert torch.allclose(model.backbone(x) @ found[0].T + found[1], model(x), atol=1e-5)
    model.head = nn.Sequential(nn.Linear(32, 3))
    assert folded(model) is None
