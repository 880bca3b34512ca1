"""`data=array`: npz and npy files, with and without labels and test part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.sources.array import Array

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(40) % 2


def rows_of(part: object) -> list[int]:
    """Which rows of PIXELS these images are."""
    assert isinstance(part, ArrayImages)
    return [int((image.numpy() == PIXELS).all((1, 2, 3)).nonzero()[0][0]) for image in part.images]


def test_images_and_labels_are_split_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    data = Array(tmp_path / "a.npz", seed=1)
    assert data.has_labels
    assert data.classes == ["0", "1"]
    train, test = rows_of(data.train_set), rows_of(data.test_set)
    assert sorted(train + test) == list(range(40))
    assert data.train_set.labels.tolist() == LABELS[train].tolist()
    assert torch.bincount(data.test_set.labels).tolist() == [2, 2]
    assert "40 images in 2 classes and no test part; 4 of them (seeded) are held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", ["train_images train_labels test_images test_labels", "x_train y_train x_test y_test"]
)
def test_a_test_part_is_used_as_it_is(tmp_path: Path, names: str) -> None:
    arrays = dict(zip(names.split(), (PIXELS[:30], LABELS[:30, None], PIXELS[30:], LABELS[30:] * 2), strict=True))
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    data = Array(tmp_path / "a.npz")
    assert rows_of(data.train_set) == list(range(30))
    assert rows_of(data.test_set) == list(range(30, 40))
    assert data.num_classes == 3
    assert data.train_set.labels.tolist() == LABELS[:30].tolist()


def test_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    data = Array(tmp_path / "a.npy")
    assert not data.has_labels
    assert (len(data.train_set), len(data.test_set)) == (36, 4)
    np.savez(tmp_path / "b.npz", train_images=PIXELS[:30], test_images=PIXELS[30:])
    assert Array(tmp_path / "b.npz").classes == []


def test_labels_from_a_second_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    np.save(tmp_path / "l.npy", LABELS)
    data = Array(tmp_path / "a.npy", labels=tmp_path / "l.npy")
    assert data.train_set.labels.tolist() == LABELS[rows_of(data.train_set)].tolist()
    np.save(tmp_path / "l.npy", LABELS[:7])
    with pytest.raises(UserError, match="40 images but 7 labels"):
        _ = Array(tmp_path / "a.npy", labels=tmp_path / "l.npy").train_set


@pytest.mark.parametrize("shape", ["grey", "grey1", "first"])
def test_grey_and_channels_first_become_rgb(tmp_path: Path, shape: str) -> None:
    given = {"grey": PIXELS[..., 0], "grey1": PIXELS[..., :1], "first": PIXELS.transpose(0, 3, 1, 2)}[shape]
    wanted = PIXELS if shape == "first" else PIXELS[..., :1].repeat(3, axis=-1)
    np.savez(tmp_path / "a.npz", train_images=given, test_images=given)
    images = Array(tmp_path / "a.npz").train_set
    assert isinstance(images, ArrayImages)
    assert np.array_equal(images.images.numpy(), wanted)


def test_trouble_with_the_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=FILE"):
        Array()
    with pytest.raises(UserError, match=r"nowhere\.npz does not exist"):
        _ = Array(tmp_path / "nowhere.npz").train_set
    with pytest.raises(UserError, match="neither"):
        _ = Array(tmp_path / "a.csv").train_set
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).write_text("no array")
        with pytest.raises(UserError, match="cannot be read"):
            _ = Array(tmp_path / name).train_set
    for arrays, message in (
        ({"pixels": PIXELS}, "holds pixels; expected images"),
        ({"images": PIXELS.astype(str)}, "images is <U3; save numbers"),
        ({"images": PIXELS[..., :2]}, r"shape \(40, 8, 6, 2\)"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels is float64"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            _ = Array(tmp_path / "a.npz").train_set


def test_numbers_as_labels_are_told_and_those_too_large_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ages = np.linspace(0, 1, len(PIXELS))
    for labels, line in ((ages, r"expected integers .* or task=regress"), (ages * 1e300, "too large for 32 bits")):
        np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels)
        data = Array(tmp_path / "a.npz")
        data.read_labels("classes" if labels is ages else "numbers")
        with pytest.raises(UserError, match=line):
            data.setup("fit")
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=ages)
    data = Array(tmp_path / "a.npz")
    data.read_labels("numbers")
    data.setup("fit")
    assert f"{len(PIXELS)} images with 1 number each and no test part" in capsys.readouterr().err
