"""What is known above: a causal network over the rows of a grid, for predictive coding."""

import torch.nn.functional as F
from torch import Tensor, nn


class RowBlock(nn.Module):
    """x + f(x), where f at a place sees its own row to both sides and the row above."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(dim, hidden_dim, 1)
        self.across = nn.Conv2d(hidden_dim, hidden_dim, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(hidden_dim, hidden_dim, (2, 1))
        self.widen = nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.across(F.relu(self.narrow(F.relu(x))))
        y = self.down(F.pad(y, (0, 0, 1, 0)))  # a row of zeros above: nothing from below comes in
        return x + self.widen(F.relu(y))


class RowContext(nn.Sequential):
    """The masked convolutions of CPC on images: (B, D, T, W) -> (B, D, T, W), row t of the result sees rows <= t.

    Henaff et al. 2020, "Data-Efficient Image Recognition with Contrastive Predictive Coding", appendix A,
    https://arxiv.org/abs/1905.09272. A sequence is a grid one column wide.

    Args:
        dim: D.
        hidden_dim: of the blocks.
        depth: how many blocks, and so how many rows up they see.
    """

    def __init__(self, dim: int, hidden_dim: int = 256, depth: int = 5) -> None:
        super().__init__(*[RowBlock(dim, hidden_dim) for _ in range(depth)])
        self.out_dim = dim
