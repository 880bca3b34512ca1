"""CIFAR and STL-10: read from the published files; a download that fails says which file to put where."""

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.datasets import utils

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.sources.cifar import CIFAR10, CIFAR100
from ssl_lightning.modalities.image.sources.stl10 import FILES, STL10

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(utils, "_urlretrieve", refuse)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, *args, **kwargs: url)


def test_cifar_is_read_from_the_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)  # the sums of the real files
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for part, name in enumerate(names):
        rows = range(part * 10, part * 10 + 10)
        batch = {"data": PIXELS[rows].reshape(10, -1), "labels": [row % 10 for row in rows]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *args: True)
    data = CIFAR10(tmp_path)
    assert isinstance(data.train_set, ArrayImages)
    assert isinstance(data.test_set, ArrayImages)
    assert torch.equal(data.train_set.images, torch.from_numpy(PIXELS[:50]).permute(0, 2, 3, 1))
    assert torch.equal(data.test_set.images, torch.from_numpy(PIXELS[50:]).permute(0, 2, 3, 1))
    assert data.train_set.labels.tolist() == [i % 10 for i in range(50)]
    assert data.classes == list("abcdefghij")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("source", "archive"),
    [(CIFAR10, "cifar-10-python.tar.gz"), (CIFAR100, "cifar-100-python.tar.gz"), (STL10, "stl10_binary.tar.gz")],
)
def test_without_network_the_file_and_its_place_are_named(tmp_path: Path, source: Any, archive: str) -> None:
    with pytest.raises(
        UserError, match=rf"{archive} is not in {tmp_path} .*; put the file http.*/{archive} there"
    ) as error:
        _ = source(tmp_path).train_set
    assert "\n" not in str(error.value)


def write_stl10(root: Path) -> dict[str, np.ndarray]:
    """Tiny files in STL-10's format; returns the images as (N, 96, 96, 3)."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    parts = {}
    for seed, (part, count) in enumerate((("train", 4), ("test", 3), ("unlabeled", 5))):
        images = np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        images.transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            np.arange(1, count + 1, dtype=np.uint8).tofile(folder / f"{part}_y.bin")
        parts[part] = images
    (folder / "class_names.txt").write_text("\n".join("abcdefghij") + "\n")
    assert all((folder / name).is_file() for name in FILES)
    return parts


def test_stl10_pretrains_without_and_probes_with_labels(tmp_path: Path) -> None:
    parts = write_stl10(tmp_path)
    data = STL10(tmp_path, image_size=96)
    for images, part in ((data.train_set, "unlabeled"), (data.probe_set, "train"), (data.test_set, "test")):
        assert isinstance(images, ArrayImages)
        assert np.array_equal(images.images.numpy(), parts[part])
    assert data.has_labels
    assert data.num_classes == 10
    assert data.train_set.labels.tolist() == [-1] * 5
    assert data.probe_set.labels.tolist() == [0, 1, 2, 3]
    assert torch.cat([b.indices for b in data.eval_loader("train")]).tolist() == [0, 1, 2, 3]
    reference = datasets.STL10.__new__(datasets.STL10)  # torchvision's reader of the same file
    loaded, labels = _torchvision(reference, tmp_path)
    assert np.array_equal(loaded.transpose(0, 2, 3, 1), parts["train"])
    assert labels.tolist() == data.probe_set.labels.tolist()


def _torchvision(reference: datasets.STL10, root: Path) -> tuple[np.ndarray, np.ndarray]:
    reference.root = str(root)
    images, labels = reference._STL10__loadfile("train_X.bin", "train_y.bin")  # type: ignore[attr-defined]
    return images, labels


def test_stl10_can_pretrain_on_both_parts(tmp_path: Path) -> None:
    parts = write_stl10(tmp_path)
    images = STL10(tmp_path, pretrain_on="train+unlabeled").train_set
    assert isinstance(images, ArrayImages)
    assert np.array_equal(images.images.numpy(), np.concatenate([parts["train"], parts["unlabeled"]]))
    only = STL10(tmp_path, pretrain_on="train")
    assert only.train_set is only.probe_set
    with pytest.raises(UserError, match=r"data\.pretrain_on=all is unknown"):
        STL10(tmp_path, pretrain_on="all")  # type: ignore[arg-type]
