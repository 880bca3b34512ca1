"""The MLP heads of the papers: projectors and predictors."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from ssl_lightning.core.errors import UserError


class MLP(nn.Sequential):
    """`num_layers` linear layers with BatchNorm and ReLU between them: (B, in_dim) -> (B, out_dim).

    The variants of the papers:

    - SimCLR, `MLP(d, 2048, 256, norm=False)`, and with BatchNorm in the hidden layer `norm=True`;
    - MoCo v2, `MLP(d, 2048, 128, norm=False)`;
    - BYOL, projector and predictor, `MLP(d, 4096, 256)`;
    - SimSiam, `MLP(d, 2048, 2048, num_layers=3, last_norm=True, last_norm_affine=False)`;
    - Barlow Twins and VICReg, `MLP(d, 8192, 8192, num_layers=3, bias=False)`.

    A linear layer that BatchNorm follows has no bias, as BatchNorm would take it away again.

    Args:
        norm: BatchNorm after each hidden layer.
        last_norm: BatchNorm after the last layer; `last_norm_affine` gives it a learned scale and shift.
        bias: bias of the last layer where no BatchNorm follows it. Hidden layers without BatchNorm always have one.
        activation: "gelu" instead of ReLU, as in MSN's code.

    Raises:
        UserError: fewer than one layer.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 2048,
        out_dim: int = 256,
        num_layers: int = 2,
        norm: bool = True,
        last_norm: bool = False,
        last_norm_affine: bool = True,
        bias: bool = True,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        super().__init__()
        if activation not in ("relu", "gelu"):
            raise UserError(f"an MLP head's activation={activation} is unknown; use relu or gelu")
        if num_layers < 1:
            raise UserError(f"an MLP head needs at least one layer, not num_layers={num_layers}; give 1 or more")
        self.out_dim = out_dim
        for _ in range(num_layers - 1):
            self.append(nn.Linear(in_dim, hidden_dim, bias=not norm))
            if norm:
                self.append(nn.BatchNorm1d(hidden_dim))
            self.append(nn.GELU() if activation == "gelu" else nn.ReLU(inplace=True))
            in_dim = hidden_dim
        self.append(nn.Linear(in_dim, out_dim, bias=bias and not last_norm))
        if last_norm:
            self.append(nn.BatchNorm1d(out_dim, affine=last_norm_affine))


class DINOHead(nn.Module):
    """DINO's projector: three layers to a bottleneck, unit length, then cosines with K unit prototypes.

    Caron et al. 2021, appendix C, https://arxiv.org/abs/2104.14294: hidden 2048 and bottleneck 256, GELU, no BatchNorm,
    K = 65536. The last layer is weight-normalised, its scale held at 1 or learned.

    Args:
        hidden_dim, bottleneck_dim: widths.
        out_dim: K, how many prototypes.
        norm: BatchNorm in the hidden layers, an option of the authors' code.
        learned_scale: each prototype's scores have a factor that learns, from 1 on: `norm_last_layer false` in the
            authors' code, as in their runs of a ViT-S; they warn that it can make training unstable.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        out_dim: int = 65536,
        norm: bool = False,
        learned_scale: bool = False,
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        widths = [in_dim, hidden_dim, hidden_dim, bottleneck_dim]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.mlp = nn.Sequential()
        for layer in layers[:-1]:
            self.mlp.extend([layer, *([nn.BatchNorm1d(hidden_dim)] if norm else []), nn.GELU()])
        self.mlp.append(layers[-1])
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(out_dim, bottleneck_dim))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)
        self.scale = nn.Parameter(torch.ones(out_dim)) if learned_scale else None

    def forget_last_gradient(self) -> None:
        """The last layer does not learn in this step: the paper leaves it as it is in the first epoch."""
        self.prototypes.grad = None
        if self.scale is not None:
            self.scale.grad = None

    def project(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> unit vectors (B, bottleneck_dim)."""
        return normalize(self.mlp(x), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> scores (B, K), in [-1, 1] times the scale."""
        z = self.project(x)
        with torch.autocast(x.device.type, enabled=False):  # a fortieth of a cosine decides: too fine for bfloat16
            scores = linear(z.to(self.prototypes.dtype), normalize(self.prototypes, dim=1))
            return scores if self.scale is None else scores * self.scale
