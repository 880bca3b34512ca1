"""Images on a canvas: boxes and masks move with them, as a loop over pixels and boxes says, whatever the batch."""

import math

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.counter import uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.sampler import EVALUATE, TRAIN, Request
from ssl_lightning.modalities.image.annotations import IGNORED, Boxes, DenseSet, HeldMasks
from ssl_lightning.modalities.image.canvas import CanvasFetch, CanvasView, Draw, OnCanvas, canvas_views
from ssl_lightning.modalities.image.images import ArrayImages

SIZE, MEAN = 16, (0.5, 0.25, 0.0)


def scene(height: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """An image, three boxes in it and a mask of four classes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (height, width, 3), generator=generator).to(torch.uint8)
    corners = torch.rand(3, 2, 2, generator=generator).sort(1).values * torch.tensor([width, height])
    boxes = torch.cat([corners.flatten(1), torch.tensor([[0.0, 0], [1, 1], [2, 0]])], 1)
    return image, boxes, torch.randint(0, 4, (height, width), generator=generator).to(torch.uint8)


def naive(drawn: Draw, boxes: Tensor, mask: Tensor) -> tuple[list[list[float]], Tensor]:
    """Boxes and mask on the canvas, one by one."""
    height, width = mask.shape
    scale = drawn.zoom * SIZE / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))

    def start(share: float, length: int) -> int:
        if length <= SIZE:
            return math.floor(share * (SIZE - length + 1))
        return -math.floor(share * (length - SIZE + 1))

    top, left = start(drawn.down, h), start(drawn.right, w)
    found = []
    for x0, y0, x1, y1, *rest in boxes.tolist():
        xs = [min(max(x * w / width + left, 0), SIZE) for x in (x0, x1)]
        ys = [min(max(y * h / height + top, 0), SIZE) for y in (y0, y1)]
        if drawn.flip:
            xs = [SIZE - xs[1], SIZE - xs[0]]
        if xs[1] - xs[0] >= 1 and ys[1] - ys[0] >= 1:
            found.append([xs[0], ys[0], xs[1], ys[1], *rest])
    out = torch.full((SIZE, SIZE), 255, dtype=torch.uint8)
    for y in range(SIZE):
        for x in range(SIZE):
            i, j = y - top, x - left
            if 0 <= i < h and 0 <= j < w:
                at = SIZE - 1 - x if drawn.flip else x
                line, column = int((i + 0.5) * height / h), int((j + 0.5) * width / w)
                out[y, at] = mask[min(height - 1, line), min(width - 1, column)]
    return found, out


@pytest.mark.parametrize("sides", [(16, 16), (9, 20), (31, 12), (40, 40), (5, 3)])
def test_boxes_and_masks_move_as_a_loop_says(sides: tuple[int, int]) -> None:
    view = CanvasView(SIZE, zoom=(0.5, 2.0))
    move = OnCanvas(SIZE, MEAN, view, seed=3)
    draws = move.draw(torch.arange(12), epoch=2)
    assert len({drawn.flip for drawn in draws}) == 2
    assert min(d.zoom for d in draws) < 1 < max(d.zoom for d in draws)
    for index, drawn in enumerate(draws):
        image, boxes, mask = scene(*sides, seed=index)
        wanted_boxes, wanted_mask = naive(drawn, boxes, mask)
        picture, found = move.apply((image, boxes), drawn)
        assert torch.allclose(found, torch.tensor(wanted_boxes).view(-1, 6), atol=1e-4)
        assert torch.equal(move.apply((image, mask), drawn)[1], wanted_mask)
        assert (picture[wanted_mask == 255] == torch.tensor([128, 64, 0], dtype=torch.uint8)).all()


def test_draws_are_of_seed_epoch_and_index() -> None:
    move = OnCanvas(SIZE, MEAN, CanvasView(SIZE, zoom=(0.5, 2.0), flip_p=0.5), seed=3)
    whole = move.draw(torch.tensor([7, 4, 9]), 5)
    assert whole[1:2] == move.draw(torch.tensor([4]), 5)
    assert whole != move.draw(torch.tensor([7, 4, 9]), 6)
    u = uniform(3, 5, torch.tensor([4]), 0, 4).double()[0].tolist()
    assert whole[1] == Draw(0.5 + 1.5 * u[0], u[1], u[2], u[3] < 0.5)


def test_a_picture_and_its_mask_move_alike() -> None:
    """A mask painted in two greys comes to lie where the picture of the same greys does, edges apart."""
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[8:30, 5:22] = 1
    image = (mask * 200)[:, :, None].expand(-1, -1, 3).contiguous()
    move = OnCanvas(SIZE, (0.0,) * 3, CanvasView(SIZE, zoom=(0.7, 1.6)), seed=1)
    for drawn in move.draw(torch.arange(20), 0):
        picture, found = move.apply((image, mask), drawn)
        sure = (picture[:, :, 0] < 5) | (picture[:, :, 0] > 195)
        agree = (picture[:, :, 0] > 100) == (found == 1)
        assert agree[sure & (found != 255)].float().mean() > 0.97
        tight = (found == 1).nonzero()
        box = move.apply((image, torch.tensor([[5.0, 8, 22, 30, 0, 0]])), drawn)[1]
        if len(tight) and len(box):
            low, high = tight.amin(0).flip(0), tight.amax(0).flip(0) + 1
            assert (box[0, :4] - torch.cat([low, high])).abs().max() <= 1


def test_in_evaluation_the_whole_image_is_seen_in_the_corner() -> None:
    image, boxes, mask = scene(8, 16, 0)
    picture, found = OnCanvas(SIZE, MEAN).apply((image, boxes), Draw())
    assert torch.equal(picture[:8], image)
    assert torch.equal(found, boxes[(boxes[:, 2:4] - boxes[:, :2]).amin(1) >= 1])
    assert torch.equal(OnCanvas(SIZE, MEAN).apply((image, mask), Draw())[1][:8], mask)


def test_a_batch_of_boxes_is_filled_up_to_the_most_of_the_set() -> None:
    images = ArrayImages(torch.zeros(3, SIZE, SIZE, 3, dtype=torch.uint8))
    rows = [torch.zeros(0, 6), torch.tensor([[1.0, 1, 9, 9, 2, 0]]), torch.tensor([[1.0, 1, 9, 9, 2, 0]]).repeat(3, 1)]
    items = DenseSet(images, Boxes(rows), ["a", "b", "c"]).subset(torch.tensor([1, 0]))
    fetch = CanvasFetch(items, OnCanvas(SIZE, MEAN), training=False)
    raw = fetch[Request(0, torch.tensor([0, 1]), EVALUATE)]
    assert raw.items.shape == (2, SIZE, SIZE, 3)
    assert raw.labels.shape == (2, 3, 6)
    assert raw.labels[0, 0].tolist() == [1, 1, 9, 9, 2, 0]
    assert (raw.labels[0, 1:, 4] == -1).all()
    assert (raw.labels[1, :, 4] == -1).all()


def test_a_batch_of_masks_in_training() -> None:
    images = ArrayImages(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    items = DenseSet(images, HeldMasks(torch.ones(2, 8, 8, dtype=torch.uint8)), ["a", "b"])
    raw = CanvasFetch(items, OnCanvas(SIZE, MEAN), training=True)[Request(0, torch.tensor([1]), TRAIN)]
    assert raw.items[0].shape == (1, SIZE, SIZE, 3)
    assert (raw.labels == 1).all()


def test_a_mask_of_another_size_is_refused_by_name() -> None:
    images = ArrayImages(torch.zeros(1, 8, 9, 3, dtype=torch.uint8), paths=["a.png"])
    with pytest.raises(UserError, match=r"the mask of a\.png is 8 x 8 px and the image 9 x 8"):
        DenseSet(images, HeldMasks(torch.ones(1, 8, 8, dtype=torch.uint8)), ["a"]).item(0)


def test_a_mask_with_a_class_that_is_none_is_refused_by_name() -> None:
    images = ArrayImages(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), paths=["a.png"])
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, 0, :2] = torch.tensor([IGNORED, 7])
    with pytest.raises(UserError, match=r"the mask of a\.png holds 7; the classes are 0 to 1"):
        DenseSet(images, HeldMasks(mask), ["a", "b"]).item(0)


@pytest.mark.parametrize("zoom", [(0.0, 1.0), (1.5, 1.0), (1.0,)])
def test_a_zoom_that_is_no_range(zoom: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"stage\.zoom=.* is not a range"):
        canvas_views(16, zoom, 0.5) if len(zoom) == 2 else CanvasView(16, zoom=zoom)  # type: ignore[arg-type]
