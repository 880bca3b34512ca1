"""Colours as classes: soft codes over a grid of ab colours, weights that favour the rare ones, and the way back.

Zhang et al. 2016, "Colorful Image Colorization", section 2, https://arxiv.org/abs/1603.08511
"""

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import reduce
from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.lab import ab_centers


class ColorBins(nn.Module):
    """The Q cells of an ab grid, and how often each has been seen so far, on all ranks.

    The paper takes the frequencies from ImageNet, before training; here they are those of the run up to this batch.

    Args:
        size: of a cell, in units of a and b.
        neighbours, sigma: a colour's code is a Gaussian of its distance to its nearest cells; 5 and 5 in the paper.
        even_share: how much of an even distribution is mixed into the frequencies, in [0, 1]; 1/2 in the paper. 1: all
            colours weigh the same.
        temperature: of the annealed mean that makes a colour of a prediction; 0.38 in the paper.
    """

    def __init__(
        self,
        size: float = 10.0,
        neighbours: int = 5,
        sigma: float = 5.0,
        even_share: float = 0.5,
        temperature: float = 0.38,
    ) -> None:
        super().__init__()
        if neighbours < 1 or not min(size, sigma, temperature) > 0 or not 0 <= even_share <= 1:
            raise UserError(
                f"colour bins got size={size}, neighbours={neighbours}, sigma={sigma}, even_share={even_share}, "
                f"temperature={temperature}; neighbours must be 1 or more, even_share in 0 to 1, the others above 0"
            )
        self.neighbours, self.sigma = neighbours, sigma
        self.even_share, self.temperature = even_share, temperature
        self.centers: Tensor
        self.seen: Tensor
        self.register_buffer(
            "centers", ab_centers(size).to(torch.get_default_device(), copy=True), persistent=False
        )  # (Q, 2)
        self.register_buffer("seen", torch.zeros(len(self.centers)))  # sums of codes

    def encode(self, ab: Tensor) -> Tensor:
        """Colours (R, 2) -> codes (R, Q), rows sum to 1."""
        squared = torch.cdist(ab, self.centers.to(ab)).square()  # (R, Q)
        near = squared.topk(min(self.neighbours, squared.shape[1]), dim=1, largest=False)
        weights = (-(near.values - near.values[:, :1]) / (2 * self.sigma**2)).exp()
        weights = weights / weights.sum(1, keepdim=True)
        return torch.zeros_like(squared).scatter_(1, near.indices, weights)

    @torch.no_grad()
    def count(self, codes: Tensor) -> None:
        """Takes note of these codes (R, Q), on all ranks."""
        self.seen += reduce(codes.sum(0).to(self.seen.dtype))

    def weights(self, codes: Tensor) -> Tensor:
        """Equations 3 and 4: the weight (R,) of the colour nearest to each code; their mean over what was seen is 1."""
        prior = self.seen / self.seen.sum()  # (Q,)
        kernel = (-torch.cdist(self.centers, self.centers).square().to(prior) / (2 * self.sigma**2)).exp()
        # Smoothed, still of sum 1; a sum of products and no matrix product, which autocast would round to bfloat16.
        prior = (kernel / kernel.sum(0) * prior).sum(1)
        inverse = 1 / ((1 - self.even_share) * prior + self.even_share / len(prior))
        return (inverse / (prior * inverse).sum())[codes.argmax(1)].to(codes.dtype)

    def decode(self, scores: Tensor) -> Tensor:
        """Equation 5: scores (R, Q) -> colours (R, 2), between the mean and the mode of the distribution."""
        return (scores / self.temperature).softmax(1) @ self.centers.to(scores)
