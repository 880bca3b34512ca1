"""Weights on disk: whole or absent, read without running code, and never loaded in part."""

import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import yaml
from safetensors import safe_open
from torch import nn

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.resnet import resnet
from ssl_lightning.runs import checkpoint as ck

NODE = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 4}


def small(width: int = 4, seed: int = 7) -> ConvNetSmall:
    """A net whose weights and running statistics are all different from a fresh one's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ConvNetSmall(width)
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
    return net


def assert_same(a: nn.Module, b: nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_save_atomic_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = ck.save_atomic({"step": 1}, tmp_path / "deep" / "x.ckpt")

    def halfway(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ck.save_atomic(halfway, path)
    assert ck.load(path) == {"step": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.ckpt"]


def test_save_atomic_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    ck.save_atomic({"x": torch.ones(2)}, tmp_path / "x.pt")
    assert order == ["fsync", "rename", "fsync"]


def test_save_atomic_says_where_it_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*x\.pt.*runs_dir="):
        ck.save_atomic({}, tmp_path / "file" / "x.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_told(tmp_path: Path, keep: float) -> None:
    path = ck.save_atomic({"state_dict": small().state_dict()}, tmp_path / "x.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(UserError, match=r"x\.ckpt is truncated, damaged or not a checkpoint"):
        ck.load(path)


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    path = ck.save_atomic({"x": torch.zeros(4096)}, tmp_path / "x.ckpt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        ck.load(path)


class Bomb:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (os.mkdir, ("bomb-went-off",))


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, "x.pt")
    with pytest.raises(UserError, match="run code on loading"):
        ck.resolve_ckpt("x.pt")
    assert not (tmp_path / "bomb-went-off").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.ckpt", None, "no checkpoint at"),
        ("gone.safetensors", None, "no checkpoint at"),
        ("text.pt", b"hello, this is a text", "not a checkpoint"),
        ("text.safetensors", b"hello, this is a text", "not a safetensors file"),
    ],
)
def test_absent_and_foreign_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        ck.resolve_ckpt(tmp_path / name)


def test_a_file_without_weights_and_a_folder_without_a_run(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds no state_dict"):
        ck.resolve_ckpt(tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"holds neither backbone\.safetensors nor"):
        ck.resolve_ckpt(tmp_path)


def test_a_backbone_comes_back_from_its_file_alone(tmp_path: Path) -> None:
    net = small().to(memory_format=torch.channels_last)
    card = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "method": "simclr", "data": "shapes"}
    path = ck.save_backbone(net, NODE, tmp_path, **card)
    for ref in (tmp_path, path, str(path)):
        again = load_backbone(ref)
        assert_same(again, net)
        assert again.out_dim == 16
        assert not again.training
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["card"]) == {"backbone": NODE, "out_dim": 16, **card}


def test_pretrained_weights_are_not_fetched_again(tmp_path: Path) -> None:
    path = ck.save_backbone(small(), NODE | {"pretrained": True, "weights": "DEFAULT"}, tmp_path)
    card = ck.resolve_ckpt(path).card
    assert card is not None
    assert card["backbone"] == NODE | {"pretrained": False, "weights": None}


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = ck.save_backbone(small(), NODE, tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated"):
        load_backbone(path)


def lightning_run(folder: Path, net: nn.Module) -> Path:
    """A run interrupted before it wrote backbone.safetensors."""
    state = {f"backbone.{k}": v for k, v in net.state_dict().items()}
    state |= {f"teacher_backbone.{k}": v + 1 for k, v in net.state_dict().items()} | {"queue": torch.ones(3)}
    ck.save_atomic({"pytorch-lightning_version": "2.6.6", "state_dict": state}, folder / "checkpoints" / "last.ckpt")
    data = {"image_size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    config = {"backbone": NODE, "data": data, "choices": {"method": "byol", "data": "shapes", "stage": "pretrain"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_lightning_checkpoint_beside_its_config(tmp_path: Path) -> None:
    run = lightning_run(tmp_path / "runs" / "x", small())
    for ref in (run, run / "checkpoints" / "last.ckpt"):
        assert_same(load_backbone(ref), small())
        assert ck.resolve_ckpt(ref).run == run
    card = ck.resolve_ckpt(run).card
    assert card is not None
    assert card["backbone"] == NODE
    assert (card["method"], card["data"], card["image_size"]) == ("byol", "shapes", 32)
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match="does not say which backbone"):
        load_backbone(run)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "module.encoder_q."])
@pytest.mark.parametrize("wrap", ["state_dict", None])
def test_load_weights_finds_common_prefixes(tmp_path: Path, prefix: str, wrap: str | None) -> None:
    state: object = {prefix + key: value for key, value in small().state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "x.pt")
    net = ConvNetSmall(4)
    ck.load_weights(net, tmp_path / "x.pt")
    assert_same(net, small())


def test_a_classifier_is_left_out_only_where_the_backbone_has_none(tmp_path: Path) -> None:
    full = torchvision.models.resnet18()
    torch.save(full.state_dict(), tmp_path / "full.pth")
    backbone = resnet("resnet18")
    ck.load_weights(backbone, tmp_path / "full.pth")
    assert torch.equal(backbone.layer4[1].conv2.weight, full.layer4[1].conv2.weight)
    with_ten = torchvision.models.resnet18(num_classes=10)
    with pytest.raises(UserError, match=r"'fc\.weight' is \(1000, 512\) there and \(10, 512\) here"):
        ck.load_weights(with_ten, tmp_path / "full.pth")


def test_another_width_names_key_shapes_and_mend(tmp_path: Path) -> None:
    ck.save_backbone(small(8), NODE | {"width": 8}, tmp_path)
    net = ConvNetSmall(4)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError) as caught:
        ck.load_weights(net, tmp_path)
    message = str(caught.value)
    assert "checkpoint of another backbone: 'conv1.0.weight' is (8, 3, 3, 3) there and (4, 3, 3, 3) here" in message
    assert message.endswith("more); choose the backbone it was trained with")
    assert "\n" not in message
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_missing_and_left_over_layers_are_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save({k: v for k, v in state.items() if k != "block.conv2.1.bias"}, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"'block\.conv2\.1\.bias' \(16,\) is missing there"):
        ck.load_weights(ConvNetSmall(4), tmp_path / "less.pt")
    torch.save(state | {"block2.weight": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(UserError, match=r"'block2\.weight' \(2,\) is missing here"):
        ck.load_weights(ConvNetSmall(4), tmp_path / "more.pt")
    torch.save(resnet("resnet18").state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="another backbone"):
        ck.load_weights(ConvNetSmall(4), tmp_path / "other.pt")


def test_old_files_without_the_batch_counter(tmp_path: Path) -> None:
    state = {k: v for k, v in small().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pt")
    net = ConvNetSmall(4)
    ck.load_weights(net, tmp_path / "old.pt")
    assert torch.equal(net.conv1[0].weight, small().conv1[0].weight)


def test_timm_and_torchvision_names(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    theirs = timm.create_model("resnet10t", num_classes=0)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda n, pretrained, **kw: theirs if pretrained else create(n, **kw))
    ours = load_backbone("timm:resnet10t")
    assert_same(ours, theirs)
    assert ours.out_dim == 512
    full = torchvision.models.resnet18()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: full)
    ours = load_backbone("torchvision:resnet18")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(full.fc(ours(x)), full.eval()(x))


def test_names_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"timm knows no model 'resnet18x'.*Did you mean 'resnet18'"):
        ck.resolve_ckpt("timm:resnet18x")
    with pytest.raises(UserError, match=r"torchvision knows no model 'resnt18'.*Did you mean 'resnet18'"):
        ck.resolve_ckpt("torchvision:resnt18")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(UserError, match=r"could not be fetched \(Name or service not known\); download them"):
        ck.resolve_ckpt("torchvision:resnet18")
