"""Detectors and segmenters are torchvision's own: their files load there, and give the same."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.detector import CountedSampler, Detector, told
from ssl_lightning.models.resnet import resnet
from ssl_lightning.models.segmenter import Segmenter

LAYERS = {f"layer{i}": str(i - 1) for i in range(1, 5)}
DIMS = [64, 128, 256, 512]


def targets(count: int, side: int) -> Tensor:
    """One box or two for each image, the third row empty."""
    rows = torch.zeros(count, 3, 6)
    rows[:, :, 4] = -1
    for i in range(count):
        rows[i, 0] = torch.tensor([2.0 + i, 3, side / 2 + i, side / 2, i % 2, 0])
        if i % 2:
            rows[i, 1] = torch.tensor([side / 2, side / 2, side - 1.0, side - 2.0, 1, 0])
    return rows


@pytest.mark.parametrize("architecture", ["faster_rcnn", "retinanet"])
def test_plain_torchvision_loads_it_strictly_and_finds_the_same_boxes(architecture: Any) -> None:
    torch.manual_seed(0)
    network, x = resnet("resnet18").eval(), torch.randn(2, 3, 64, 64)
    mine = Detector(network, x[:1], 3, architecture, width=16, head_dim=32).eval()
    same = {"min_size": 64, "max_size": 64, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    theirs: Any
    if architecture == "faster_rcnn":
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

        body = BackboneWithFPN(resnet18(weights=None), LAYERS, DIMS, 16)
        head = {"box_head": TwoMLPHead(16 * 49, 32), "box_predictor": FastRCNNPredictor(32, 4)}
        theirs = FasterRCNN(body, **head, **same)  # anchors and pooling are its own defaults
    else:
        some = {f"layer{i}": str(i - 2) for i in range(2, 5)}
        body = BackboneWithFPN(resnet18(weights=None), some, DIMS[1:], 16, LastLevelP6P7(16, 16))
        from torchvision.models.detection.retinanet import _default_anchorgen

        theirs = RetinaNet(body, 4, anchor_generator=_default_anchorgen(), detections_per_img=100, **same)
        mine.network.score_thresh = theirs.score_thresh = 0.0  # untrained ones are sure of nothing
    state = {f"backbone.body.{key}": value for key, value in network.state_dict().items()}
    if architecture == "retinanet":  # torchvision leaves out what lies behind its last layer, and nothing else
        assert set(theirs.state_dict()) == {*state, *mine.network.state_dict()}
    theirs.load_state_dict(state | mine.network.state_dict(), strict=True)
    with torch.no_grad():
        wanted, found = theirs.eval()(list(x)), mine(x)
    assert len(wanted[0]["boxes"]) > 0
    for row, one in zip(found, wanted, strict=True):
        count = len(one["boxes"])
        assert torch.equal(row[:count, :4], one["boxes"])
        assert torch.equal(row[:count, 4], one["scores"])
        assert torch.equal(row[:count, 5].long() + 1, one["labels"])
        assert (row[count:, 5] == -1).all()


def test_a_segmenter_is_torchvisions_fcn() -> None:
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    class Finest(BackboneWithFPN):
        def forward(self, x: Tensor) -> Any:
            return {"out": super().forward(x)["0"]}

    torch.manual_seed(0)
    network, x = resnet("resnet18").eval(), torch.randn(2, 3, 64, 64)
    mine = Segmenter(network, x[:1], 5, width=16).eval()
    theirs = FCN(Finest(resnet18(weights=None), LAYERS, DIMS, 16), FCNHead(16, 5))
    state = {f"backbone.body.{key}": value for key, value in network.state_dict().items()}
    theirs.load_state_dict(state | mine.network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(theirs.eval()(x)["out"], mine(x))
    assert mine(x).shape == (2, 5, 64, 64)


@pytest.mark.parametrize("architecture", ["faster_rcnn", "retinanet"])
def test_losses_are_of_boxes_that_count_and_drawn_from_seed_epoch_and_index(architecture: Any) -> None:
    torch.manual_seed(0)
    network, x = ConvNetSmall(8).eval(), torch.randn(2, 3, 32, 32)
    detector = Detector(network, x[:1], 2, architecture, 8, 16, samples=8).train()

    def losses(epoch: int, given: Tensor, rows: slice = slice(None)) -> float:
        detector.draw_for(0, epoch, torch.tensor([5, 9])[rows])
        torch.manual_seed(epoch)  # of no matter
        return float(torch.stack(list(detector(x[rows], given[rows]).values())).sum().detach())

    given = targets(2, 32)
    first = losses(0, given)
    assert first == losses(0, given)
    if architecture == "faster_rcnn":
        assert first != losses(1, given)
    ignored = given.clone()
    ignored[1, 2] = torch.tensor([1.0, 1, 9, 9, 0, 1])
    assert first == losses(0, ignored)
    each = [losses(0, given, slice(i, i + 1)) for i in range(2)]
    assert first == pytest.approx(sum(each) / 2, rel=1e-5)  # so several ranks learn what one process does


def test_an_image_without_boxes_is_learned_from() -> None:
    torch.manual_seed(0)
    x, empty = torch.randn(1, 3, 32, 32), torch.tensor([[[0.0, 0, 0, 0, -1, 0]]])
    detector = Detector(ConvNetSmall(8), x, 2, width=8, head_dim=16).train()
    detector.draw_for(0, 0, torch.tensor([0]))
    assert len(told(empty[0])["boxes"]) == 0
    assert all(value.isfinite() for value in detector(x, empty).values())


def test_the_sampler_takes_as_many_as_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    matched = [torch.randint(-1, 3, (40,), generator=generator), torch.zeros(5, dtype=torch.int64)]
    sampler = CountedSampler(16, 0.25, 0)
    sampler.key = (0, 0, torch.tensor([3, 4]))
    found, theirs = sampler(matched), BalancedPositiveNegativeSampler(16, 0.25)(matched)
    for part in range(2):
        for mine, other, labels in zip(found[part], theirs[part], matched, strict=True):
            assert int(mine.sum()) == int(other.sum())
            assert (labels[mine.bool()] >= 1).all() if part == 0 else (labels[mine.bool()] == 0).all()


def test_a_copy_and_its_backbone_stay_together() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = ConvNetSmall(8)
            self.head = Detector(self.backbone, torch.zeros(1, 3, 32, 32), 2, width=8, head_dim=16)

    both = Both()
    other = copy.deepcopy(both)
    assert other.head.network.backbone.backbone is other.backbone
    assert sum(p.numel() for p in both.parameters()) == sum(p.numel() for p in set(both.parameters()))


def test_plain_torchvision_takes_images_that_are_not_normalised() -> None:
    """As docs/guides/dense.md builds it: mean and deviation are given to torchvision."""
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

    torch.manual_seed(0)
    network, pixels = resnet("resnet18").eval(), torch.rand(2, 3, 64, 64)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    x = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    mine = Detector(network, x[:1], 3, width=16, head_dim=32).eval()
    body = BackboneWithFPN(resnet18(weights=None), LAYERS, DIMS, 16)
    head = {"box_head": TwoMLPHead(16 * 49, 32), "box_predictor": FastRCNNPredictor(32, 4)}
    theirs = FasterRCNN(body, **head, min_size=64, max_size=64, image_mean=mean, image_std=std).eval()
    state = {f"backbone.body.{key}": value for key, value in network.state_dict().items()}
    theirs.load_state_dict(state | mine.network.state_dict())
    with torch.no_grad():
        for row, one in zip(mine(x), theirs(list(pixels)), strict=True):
            count = len(one["boxes"])
            assert torch.allclose(row[:count, 4], one["scores"], atol=1e-5)
            assert torch.allclose(row[:3, :4], one["boxes"][:3], atol=1e-2)
