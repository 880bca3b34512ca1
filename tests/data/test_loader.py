"""Fetching image by image: what is random is drawn once for a batch, and belongs to the image that is used."""

from pathlib import Path

import pytest
import torch

from ssl_lightning.data import broken
from ssl_lightning.data.loader import SampleFetch
from ssl_lightning.modalities.image import draw
from ssl_lightning.modalities.image.fetch import EvalCrop
from ssl_lightning.modalities.image.images import FileImages
from ssl_lightning.modalities.image.views import DeviceViews, EvalView, LocalView, View, Views, WorkerCrops, WorkerViews
from tests.data.pictures import write_mixed, write_picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIEWS = Views(View(12, count=2, blur_p=0.5), local=LocalView(12, count=3))


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    write_mixed(tmp_path)
    return FileImages(sorted(str(path) for path in tmp_path.rglob("*.png")))


@pytest.mark.parametrize("transform", [WorkerCrops(VIEWS, 3), WorkerViews(VIEWS, MEAN, STD, 3)])
def test_a_batchs_numbers_are_drawn_together(
    files: FileImages, transform: WorkerCrops | WorkerViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = torch.tensor([7, 0, 19, 3]), []
    alone = [transform(files.image(row), row, 2) for row in rows.tolist()]
    uniform = draw.uniform
    monkeypatch.setattr(draw, "uniform", lambda *args: (calls.append(len(args[2])), uniform(*args))[1])
    batch = SampleFetch(files, transform)[2, rows]
    assert set(calls) == {4}
    assert len(calls) == (5 if isinstance(transform, WorkerCrops) else 10)  # one a view, not one an image
    for place, view in enumerate(batch.images):
        assert torch.equal(view, torch.stack([views[place] for views in alone]))


def test_the_image_in_place_of_a_broken_one_has_its_own_numbers(
    files: FileImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(files.paths[5]).write_bytes(b"no image")
    monkeypatch.setattr(broken, "BROKEN_LIMIT", 0.1)
    crops = WorkerCrops(VIEWS, 3)
    batch = SampleFetch(files, crops)[1, torch.tensor([4, 5])]
    assert batch.indices.tolist() == [4, 6]
    assert batch.broken.tolist() == [5]
    for place, view in enumerate(batch.images):
        assert torch.equal(view[1], crops(files.image(6), 6, 1)[place])


def test_crops_of_a_batch_meet_their_colours(tmp_path: Path) -> None:
    """Through workers' crops and the device: the views of the decoded image, up to the crop's rounding to bytes."""
    paths = []
    for i in range(6):
        write_picture(tmp_path / f"{i}.png", (20, 30), i)
        paths.append(str(tmp_path / f"{i}.png"))
    views, files = Views(View(12, count=2, jitter_p=0, grayscale_p=0)), FileImages(paths)
    device, rows = DeviceViews(views, (0, 0, 0), (1, 1, 1), 3), torch.tensor([3, 5, 0])
    batch = SampleFetch(files, WorkerCrops(views, 3))[4, rows]
    decoded = torch.stack([files.image(int(row)) for row in rows])
    for got, expected in zip(device(batch.images, rows, 4), device(decoded, rows, 4), strict=True):
        assert float((got - expected).abs().max()) <= 1.01 / 255


def test_evaluation_draws_nothing(files: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "uniform", lambda *args: pytest.fail("drawn"))
    batch = SampleFetch(files, EvalCrop(EvalView(8, MEAN, STD)))[-1, torch.tensor([1, 2])]
    assert batch.images.shape == (2, 8, 8, 3)
