"""Detection and segmentation as tasks: what is perfect scores 1, what is worse less; losses against a loop."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from ssl_lightning.core.task import computed
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.tasks.dense import DenseTuner
from ssl_lightning.tasks.detect import Detect, matched
from ssl_lightning.tasks.segment import Segment

pytestmark = pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")  # of pycocotools


def truth(count: int = 12) -> Tensor:
    """Two boxes for each image, of three classes; the last row empty."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(count, 3, 6)
    corners = torch.rand(count, 3, 2, generator=generator) * 20
    rows[:, :, :2], rows[:, :, 2:4] = corners, corners + 6 + 10 * torch.rand(count, 3, 2, generator=generator)
    rows[:, :, 4] = (torch.arange(count)[:, None] + torch.arange(3)) % 3
    rows[:, 2, 4] = -1
    return rows


def said(targets: Tensor) -> Tensor:
    """The same boxes as a detector says them."""
    out = torch.zeros(len(targets), 100, 6)
    out[:, :, 5] = -1
    out[:, :3, :4], out[:, :3, 5] = targets[:, :, :4], targets[:, :, 4]
    out[:, :3, 4] = 0.9
    return out


def test_perfect_boxes_score_1_and_others_less() -> None:
    task, targets = Detect().prepare(["a", "b", "c"], None), truth()
    assert task.measure(said(targets), targets) == pytest.approx({"map": 1, "map_50": 1, "map_75": 1})
    assert task.per_class(said(targets), targets) == pytest.approx({"a": 1, "b": 1, "c": 1})
    moved = said(targets)
    moved[:, :, :4] += torch.tensor([2.0, 0, 2, 0])
    found = task.measure(moved, targets)
    assert found["map"] < found["map_50"]
    assert found["map_75"] < found["map_50"]
    wrong = said(targets)
    wrong[:, :2, 5] = (wrong[:, :2, 5] + 1) % 3
    assert task.measure(wrong, targets)["map_50"] < 0.2
    assert task.measure(torch.cat([torch.zeros(12, 100, 5), -torch.ones(12, 100, 1)], 2), targets)["map"] == 0


def test_a_box_that_counts_nowhere_costs_nothing() -> None:
    task, targets = Detect().prepare(["a", "b", "c"], None), truth()
    targets[:, 2] = torch.tensor([1.0, 1, 5, 5, 0, 1])
    without = said(targets)
    without[:, 2, 5] = -1
    assert task.measure(without, targets)["map"] == pytest.approx(1)
    assert task.measure(said(targets), targets)["map"] == pytest.approx(1)


def test_average_precision_at_half_is_that_of_a_loop() -> None:
    """COCO's: precision at 101 recalls, the best at that recall or beyond; one class, boxes that overlap or not."""
    task = Detect().prepare(["a"], None)
    targets = torch.tensor(
        [[[0.0, 0, 10, 10, 0, 0], [20, 20, 30, 30, 0, 0]], [[5, 5, 15, 15, 0, 0], [0, 0, 0, 0, -1, 0]]]
    )
    rows = [[(0.9, [0, 0, 10, 10]), (0.8, [40, 40, 50, 50])], [(0.7, [5, 5, 15, 14]), (0.6, [5, 5, 15, 15])]]
    out = torch.zeros(2, 100, 6)
    out[:, :, 5] = -1
    for i, some in enumerate(rows):
        for k, (score, box) in enumerate(some):
            out[i, k] = torch.tensor([*box, score, 0])
    hits = [True, False, True, False]  # in the order of scores: the last finds a box that is found already
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(4)]
    recall = [sum(hits[: i + 1]) / 3 for i in range(4)]
    best = [
        max([p for p, r in zip(precision, recall, strict=True) if r >= at / 100 - 1e-9], default=0.0)
        for at in range(101)
    ]
    assert task.measure(out, targets)["map_50"] == pytest.approx(sum(best) / 101, abs=1e-6)


def test_which_boxes_are_right() -> None:
    targets = torch.tensor([[0.0, 0, 10, 10, 0, 0], [20, 20, 30, 30, 1, 0], [0, 0, 0, 0, -1, 0]])
    boxes = torch.tensor(
        [[0.0, 0, 10, 9, 0.9, 0], [0, 0, 10, 10, 0.8, 0], [20, 20, 30, 30, 0.7, 0], [0, 0, 9, 9, 0.2, 0]]
    )
    right, found = matched(boxes, targets)
    assert right.tolist() == [True, False, False]
    assert found.tolist() == [True, False]


def test_segmentation_is_scored_as_a_loop_over_pixels_says() -> None:
    generator = torch.Generator().manual_seed(0)
    task = Segment().prepare(["ground", "a", "b", "c"], None)
    targets = torch.randint(0, 3, (4, 6, 6), generator=generator).to(torch.uint8)
    targets[:, 0] = 255
    answers = torch.randint(0, 3, (4, 6, 6), generator=generator).float()
    found, each = task.measure(answers, targets), {}
    counts = targets != 255
    for label in range(3):  # nobody has or says the fourth
        mine, true = (answers == label) & counts, (targets == label) & counts
        each[task.names[label]] = float((mine & true).sum() / (mine | true).sum())
    assert task.per_class(answers, targets) == pytest.approx(each)
    assert found == pytest.approx({"miou": sum(each.values()) / 3})
    assert task.measure(targets.where(counts, 0).float(), targets)["miou"] == 1


def test_the_loss_of_pixels_is_that_of_a_loop_and_the_mean_over_images() -> None:
    generator = torch.Generator().manual_seed(0)
    task = Segment().prepare(["ground", "a"], None)
    logits = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (3, 4, 4), generator=generator).to(torch.uint8)
    targets[0, :3] = 255
    each = []
    for x, y in zip(logits, targets, strict=True):
        pixels = [
            -math.log(float(F.softmax(x[:, i, j], 0)[int(y[i, j])]))
            for i in range(4)
            for j in range(4)
            if y[i, j] != 255
        ]
        each.append(sum(pixels) / len(pixels))
    assert float(task.loss(logits, targets)) == pytest.approx(sum(each) / 3)
    assert float(task.loss(logits, targets, reduction="sum")) == pytest.approx(sum(each))
    targets[0] = 255
    assert float(task.loss(logits, targets)) == pytest.approx(sum(each[1:]) / 3)


@pytest.mark.parametrize("frozen_statistics", [True, False])
def test_batch_norms_keep_their_statistics_where_they_are_to(frozen_statistics: bool) -> None:
    task = Segment(width=8).prepare(["ground", "a"], None).seeing(torch.zeros(1, 3, 16, 16))
    module = DenseTuner(ConvNetSmall(4), task, optimizer=None, frozen_statistics=frozen_statistics)  # type: ignore[arg-type]
    module.train()
    before = module.backbone.conv1[1].running_mean.clone()  # type: ignore[index, union-attr, operator]
    module.head(torch.randn(2, 3, 16, 16))
    moved = not torch.equal(before, module.backbone.conv1[1].running_mean)  # type: ignore[index, union-attr, operator]
    assert moved != frozen_statistics
    assert module.head.network.classifier[1].training  # type: ignore[index, union-attr]


def test_metrics_of_validation_are_those_of_the_end() -> None:
    for task, answers, targets in (
        (Detect().prepare(["a", "b", "c"], None), said(truth()), truth()),
        (Segment().prepare(["g", "a"], None), torch.ones(4, 5, 5), torch.ones(4, 5, 5).to(torch.uint8)),
    ):
        metrics = task.metrics()
        for rows in torch.arange(len(targets)).split(3):
            metrics.update(*task.measurable(answers[rows], targets[rows]))
        assert computed(metrics)[task.main] == pytest.approx(task.measure(answers, targets)[task.main])


def test_what_is_said_with_names() -> None:
    targets = truth(1)
    boxes = Detect().prepare(["a", "b", "c"], None).predict(said(targets))[0]["boxes"]
    assert [one["class"] for one in boxes] == ["a", "b"]
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0] = 1
    assert Segment().prepare(["ground", "a"], None).predict(logits) == [{"ground": 0.5, "a": 0.5}]


def test_no_metric_of_masks_asks_other_ranks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("No backend type associated with device type cpu")  # as under NCCL

    monkeypatch.setattr(torchmetrics.metric, "jit_distributed_available", lambda: True)
    monkeypatch.setattr(torchmetrics.metric, "gather_all_tensors", fails)
    task = Segment().prepare(["ground", "a"], None)
    masks = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    assert task.per_class(masks.float(), masks) == {"ground": 1, "a": 1}
    metrics = task.metrics()
    metrics.update(*task.measurable(masks.float(), masks))
    assert float(metrics["miou"].compute()) == 1
