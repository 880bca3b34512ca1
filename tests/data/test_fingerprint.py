"""The fingerprint of data: the same for copies and for every split, another where items or labels are others."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data.fingerprint import fingerprint
from ssl_lightning.data.items import HeldItems
from ssl_lightning.modalities.audio.sources import Audio, Tones
from ssl_lightning.modalities.image.sources.folder import Folder


def photos(root: Path, count: int = 12) -> Path:
    for i in range(count):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 24), (i, 0, 0)).save(path)
    return root


def of(data: Any) -> dict[str, Any]:
    return fingerprint((data.train_set, data.test_set, data.probe_set), len(data.test_set), data.num_classes)


def folder(root: Path, **other: Any) -> dict[str, Any]:
    return of(Folder(root=str(root), image_size=16, batch_size=4, **other))


def test_a_copy_elsewhere_and_another_split_have_the_same(tmp_path: Path) -> None:
    first = folder(photos(tmp_path / "one"))
    assert (first["items"], first["classes"]) == (12, 2)
    shutil.copytree(tmp_path / "one", tmp_path / "deep" / "er" / "two")
    assert folder(tmp_path / "deep" / "er" / "two") == first
    splits = [Folder(root=str(tmp_path / "one"), image_size=16, test_fraction=0.5, seed=seed) for seed in range(3)]
    assert len({tuple(data.test_set.paths) for data in splits}) > 1
    assert {of(data)["sha256"] for data in splits} == {first["sha256"]}


@pytest.mark.parametrize("change", ["name", "size", "label", "one less"])
def test_other_files_have_another(change: str, tmp_path: Path) -> None:
    first = folder(photos(tmp_path / "one"))
    root = photos(tmp_path / "two")
    if change == "name":
        (root / "a" / "0.png").rename(root / "a" / "00.png")
    if change == "size":
        Image.effect_noise((64, 64), 90).convert("RGB").save(root / "a" / "0.png")
    if change == "label":
        (root / "a" / "0.png").rename(root / "b" / "0.png")
    if change == "one less":
        (root / "a" / "0.png").unlink()
    assert folder(root)["sha256"] != first["sha256"]


def test_items_in_memory_are_looked_at() -> None:
    x = torch.arange(5000.0).reshape(10, 500)
    labels = torch.arange(10) % 2

    def of_held(order: torch.Tensor, x: torch.Tensor = x, labels: torch.Tensor = labels) -> str:
        train, test = (HeldItems(x[rows], labels[rows], ["a", "b"]) for rows in (order[:7], order[7:]))
        return str(fingerprint((train, test, train), 3, 2)["sha256"])

    first = of_held(torch.arange(10))
    assert of_held(torch.randperm(10, generator=torch.Generator().manual_seed(1))) == first  # however it is split
    assert of_held(torch.arange(10), x + 1) != first  # CIFAR-10-C has the labels of CIFAR-10
    assert of_held(torch.arange(10), labels=1 - labels) != first
    several = HeldItems(x).with_targets(torch.eye(10), [str(i) for i in range(10)])
    others = HeldItems(x).with_targets(torch.eye(10).flip(0), [str(i) for i in range(10)])
    prints = [fingerprint((items, items, items), 10, 10)["sha256"] for items in (several, others, HeldItems(x))]
    assert len(set(prints)) == 3


def test_of_recordings(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for i in range(8):
        path = tmp_path / "one" / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, 1600 + i), 16000)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (of(Audio(root=str(tmp_path / name), batch_size=2)) for name in ("one", "two"))
    assert one == two
    assert one["items"] == 8
    tones = [of(Tones(size=20, test_size=10, batch_size=2, seed=seed))["sha256"] for seed in (0, 1)]
    assert tones[0] == tones[1]
