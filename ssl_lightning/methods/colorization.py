"""Colourisation: from the lightness of an image, predict its colours.

Zhang et al. 2016, "Colorful Image Colorization", https://arxiv.org/abs/1603.08511
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pixel_shuffle

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import map_encoder
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.models.channels import in_channels
from ssl_lightning.models.maps import check_map, feature_map, map_dim
from ssl_lightning.parts.lab import lab_to_rgb, rgb_to_lab

AB_RANGE = 110.0  # a and b are divided by it where they are regressed


class Colorization(SSLMethod):
    """Section 2 of the paper: the network sees grey images of three equal channels; a linear layer predicts a and b.

    In evaluation the network sees images in colour, as any other.

    Args:
        backbone: a `TokenEncoder` or a `MapEncoder` of images, e.g. a `ViT` or a `ResNet`.
        loss: with `bins` scores (R, Q), codes (R, Q) and weights (R,) of R pixels to a scalar, e.g. `ColorLoss`;
            without them predicted and true a and b (R, 2) over 110, e.g. `torch.nn.MSELoss` (equation 1).
        mean, std: by which the images were normalised.
        bins: the classes of colours, e.g. `ColorBins`; None to regress.
        cells: each place of the map predicts cells x cells colours.
        **optim: `optimizer`, an OptimizerRecipe.
    """

    features_are_readout = False
    global_views = 1
    modality = "image"

    def __init__(
        self,
        backbone: nn.Module,
        loss: Callable[..., Tensor],
        mean: Sequence[float],
        std: Sequence[float],
        bins: nn.Module | None = None,
        cells: int = 1,
        **optim: Any,
    ) -> None:
        super().__init__(backbone, **optim)
        map_encoder(backbone, "colourisation")
        if in_channels(backbone) != 3 or len(mean) != 3:
            raise UserError("colourisation predicts colours: it takes images of 3 channels (data.channels=3)")
        if cells < 1:
            raise UserError(f"cells is {cells}; each place of the map predicts 1 x 1 colours or more")
        classes: Any = bins
        self.bins = classes
        self.channels = 2 if bins is None else len(classes.centers)
        self.head = nn.Conv2d(map_dim(backbone), self.channels * cells**2, 1)
        self.loss = self.scoring(loss, *(("scores", "targets") if bins is None else ("scores", "codes", "weights")))
        self.cells = cells
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(3, 1, 1), persistent=False)

    def check_views(self, sizes: Sequence[int]) -> None:
        super().check_views(sizes)
        with evaluating(self.backbone):
            check_map(self.backbone, sizes[0], self.head.in_channels)

    def grey(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) -> the same in grey, and L, a, b."""
        lab = rgb_to_lab((x * self.std + self.mean).clamp(0, 1))
        without = torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1)
        return (lab_to_rgb(without) - self.mean) / self.std, lab

    def predict(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Grey images -> features (B, D), scores of the pixels of a small image (B, C, h, w)."""
        features, places = feature_map(self.backbone, grey)
        return features, pixel_shuffle(self.head(places), self.cells)

    def targets(self, ab: Tensor) -> list[Tensor]:
        """True a and b (R, 2) -> what the loss takes beside the scores."""
        if self.bins is None:
            return [ab / AB_RANGE]
        codes = self.bins.encode(ab)
        self.bins.count(codes)
        return [codes, self.bins.weights(codes)]

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        grey, lab = self.grey(batch.views[0])
        features, scores = self.predict(grey)
        ab = adaptive_avg_pool2d(lab[:, 1:], (scores.shape[2], scores.shape[3]))  # (B, 2, h, w)
        rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in (scores, ab)]  # (R, C), (R, 2)
        loss = self.loss(rows[0], *self.targets(rows[1]))
        return self.output(loss, features, features)

    def pictures(self, batch: Batch) -> dict[str, list[Tensor]]:
        """The image, what the network sees of it, and that in the predicted colours: (B, 3, H, W) each."""
        x = batch.views[0]
        grey, lab = self.grey(x)
        _, scores = self.predict(grey)
        rows = scores.permute(0, 2, 3, 1).flatten(0, 2)
        ab = rows * AB_RANGE if self.bins is None else self.bins.decode(rows)  # (R, 2)
        small = ab.view(len(x), *scores.shape[-2:], 2).permute(0, 3, 1, 2).to(lab)
        colours = interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
        coloured = lab_to_rgb(torch.cat([lab[:, :1], colours], 1))
        return {"colorization": [x, grey, (coloured - self.mean) / self.std]}
