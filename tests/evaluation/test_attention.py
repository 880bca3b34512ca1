"""Attention as segmentation, against a loop over heads and places; and the stage on shapes."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.attention import best_overlap, mass_masks
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.vit import ViT
from ssl_lightning.stages import attention
from ssl_lightning.stages.common import Judged
from tests.stages.tiny_run import TinyData, a_trainer


def naive_mask(weights: Tensor, mass: float) -> Tensor:
    """Of one head (h, w): add the strongest places until they hold the mass."""
    total, held, out = float(weights.sum()), 0.0, torch.zeros_like(weights, dtype=torch.bool)
    for place in sorted(range(weights.numel()), key=lambda i: -float(weights.flatten()[i])):
        if held >= mass * total:
            break
        out.view(-1)[place] = True
        held += float(weights.flatten()[place])
    return out


@pytest.mark.parametrize("mass", [0.1, 0.6, 1.0])
def test_masks_and_overlap_are_those_of_a_loop(mass: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(5, 3, 4, 4, generator=generator).double() ** 3
    weights = weights / weights.sum((2, 3), keepdim=True)
    classes = torch.randint(0, 4, (5, 8, 8), generator=generator).to(torch.uint8)
    classes[classes == 3] = 255
    classes[4] = 0
    found, masks = best_overlap(weights, classes, mass), mass_masks(weights, mass)
    for i in range(5):
        best = 0.0
        for head in range(3):
            wanted = naive_mask(weights[i, head], mass)
            assert torch.equal(masks[i, head], wanted) or mass == 1.0
            both = either = 0
            for y in range(8):
                for x in range(8):
                    if classes[i, y, x] == 255:
                        continue
                    said, true = bool(masks[i, head, y // 2, x // 2]), bool(classes[i, y, x] > 0)
                    both, either = both + (said and true), either + (said or true)
            best = max(best, both / max(1, either))
        assert (math.isnan(found[i]) and i == 4) or found[i] == pytest.approx(best)


def test_attention_on_the_objects_alone_scores_1() -> None:
    classes = torch.zeros(1, 8, 8, dtype=torch.uint8)
    classes[0, 2:4, 4:8] = 1
    weights = torch.full((1, 2, 4, 4), 1 / 16)
    weights[0, 1] = 0
    weights[0, 1, 1, 2:] = 0.5
    assert best_overlap(weights, classes).tolist() == [1]
    assert best_overlap(weights[:, :1], classes).item() < 0.5


def judged(network: Any) -> Judged:
    return Judged(
        network, type(network)(**SIZES) if isinstance(network, ViT) else network, {"method": "dino"}, "runs/x"
    )


SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "dim": 24, "depth": 1, "heads": 3}


def test_the_stage_tells_random_weights_beside(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = Shapes(8, 12, image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    found = attention.run(judged(ViT(**SIZES)), data, a_trainer(tmp_path))
    for value in (found["attention_jaccard"], found["baselines"]["random_init"]["attention_jaccard"]):
        assert 0 < value < 1
    assert "of random weights" in found["verdict"]
    assert "12 test images" in found["protocol"]["attention"]
    same = attention.in_words(torch.tensor([0.5, 0.4]).double(), torch.tensor([0.5, 0.4]).double())
    assert "no better than" in same
    assert "better than by chance" in attention.in_words(torch.tensor([0.9, 0.8, 0.9]), torch.tensor([0.2, 0.1, 0.3]))


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a network with a class token"):
        attention.run(judged(ConvNetSmall(4)), TinyData(), a_trainer(tmp_path))
    with pytest.raises(UserError, match="stage=attention needs masks"):
        attention.run(judged(ViT(**{**SIZES, "image_size": 16})), TinyData(), a_trainer(tmp_path))


def test_an_image_that_stands_in_for_a_broken_one_counts_once() -> None:
    network = ViT(**SIZES)
    data = Shapes(size=4, test_size=6, image_size=SIZES["image_size"], batch_size=6, num_workers=0)
    data.read_labels("masks")
    batch = next(iter(data.eval_loader("test")))
    twice = Batch([batch.views[0][[0, 1, 1, 2]]], batch.labels[[0, 1, 1, 2]], batch.indices[[0, 1, 1, 2]])
    once = attention.overlaps(network, SimpleNamespace(eval_loader=lambda _: [twice]), torch.device("cpu"), 0.6)  # type: ignore[arg-type]
    assert torch.equal(once, attention.overlaps(network, data, torch.device("cpu"), 0.6)[:3])
