"""What is known so far: causal networks over the rows of a grid or the steps of a sequence, for predictive coding."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import MapEncoder, has_tokens, map_encoder, out_dim
from ssl_lightning.models.sincos import sincos_positions


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


class Steps(nn.Module):
    """What networks over sequences share: (B, D, T, W) -> (B, C, T, W), each column a sequence of its own."""

    out_dim: int

    def read(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, C), where step t sees steps <= t."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(0, 3, 2, 1)  # (B, W, T, D)
        seen = self.read(steps.flatten(0, 1)).unflatten(0, steps.shape[:2])  # (B, W, T, C)
        return seen.permute(0, 3, 2, 1)


class GRUContext(Steps):
    """A recurrent network over the steps seen so far: (B, D, T, W) -> (B, hidden_dim, T, W).

    van den Oord et al. 2018, section 3.1, https://arxiv.org/abs/1807.03748: one layer of 256.

    Args:
        dim: D.
        hidden_dim: of the state, and so of what is given.
        depth: layers.
    """

    def __init__(self, dim: int, hidden_dim: int = 256, depth: int = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden_dim, depth, batch_first=True)
        self.out_dim = hidden_dim

    def read(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]  # type: ignore[no-any-return]


class TransformerContext(Steps):
    """A causal transformer over the steps seen so far: (B, D, T, W) -> (B, hidden_dim, T, W), any T.

    Blocks of Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, with the norms first, and their fixed positions.

    Args:
        dim: D.
        hidden_dim: of the tokens, and so of what is given; a multiple of `heads`, and of 2.
        depth: blocks.
        heads: of attention.

    Raises:
        UserError: a width that heads do not divide.
    """

    def __init__(self, dim: int, hidden_dim: int = 256, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        if hidden_dim % heads:
            raise UserError(f"{heads} heads do not divide a width of {hidden_dim}; change context.hidden_dim or .heads")
        self.proj = nn.Linear(dim, hidden_dim)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden_dim, heads, 4 * hidden_dim, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.out_dim = hidden_dim

    def read(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        x = self.proj(x)
        x = x + sincos_positions((length,), self.out_dim).to(x)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)  # True: not looked at
        for block in self.blocks:
            x = block(x, src_mask=later, is_causal=True)
        return self.norm(x)  # type: ignore[no-any-return]


class InContext(nn.Module):
    """An encoder of sequences and a context network behind it, as one encoder: its features are the mean over time of
    what has been heard up to each step.

    Args:
        encoder: `feature_map` from items to (B, D, T), with `out_dim` = D and one number in `strides`.
        context: called with D, gives the module from (B, D, T, 1) to (B, C, T, 1), with `out_dim` = C.

    Attributes:
        out_dim: C. strides: the encoder's.

    Raises:
        UserError: an encoder that gives no sequence, or whose steps each see the whole item.
    """

    def __init__(self, encoder: nn.Module, context: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.strides = check_sequence(encoder).strides
        self.reads = str(getattr(encoder, "reads", ""))
        self.context = context(out_dim(encoder))
        self.out_dim = out_dim(self.context)

    def feature_map(self, x: Tensor) -> Tensor:
        """Items -> (B, C, T); step t is made of the encoder's steps <= t."""
        steps = check_sequence(self.encoder).feature_map(x)  # (B, D, T)
        return self.context(steps[..., None])[..., 0]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(2)  # (B, C)


def check_sequence(network: nn.Module) -> MapEncoder:
    """The network as one whose map is a sequence of parts. Raises UserError for any other."""
    found = None if has_tokens(network) or not hasattr(network, "feature_map") else map_encoder(network)
    if found is None or len(found.strides) != 1:
        name = type(network).__name__
        why = "each of its tokens sees the whole item" if has_tokens(network) else "it gives no sequence of steps"
        raise UserError(f"predictive coding on sequences cannot use {name}: {why}; choose a convnet "
                        "(backbone=mel_convnet, or wave_convnet for waves)")  # fmt: skip
    return found
