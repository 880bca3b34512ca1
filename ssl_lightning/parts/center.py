"""What keeps a teacher from giving one answer to all: DINO's running centre, or DINOv2's Sinkhorn-Knopp."""

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import reduce
from ssl_lightning.core.errors import UserError
from ssl_lightning.parts.sinkhorn import sinkhorn


class Center(nn.Module):
    """Caron et al. 2021, equation 4, https://arxiv.org/abs/2104.14294: c <- m c + (1 - m) mean of the batch, all ranks.

    Args:
        dim: K, how many scores.
        momentum: m, in [0, 1]; 1 leaves the centre at zero, that is without centring.
    """

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f"the centre's momentum is {momentum}; it must lie in 0 to 1 (0.9 is DINO's)")
        self.momentum = momentum
        self.value: Tensor
        self.register_buffer("value", torch.zeros(dim))

    def sharpen(self, scores: Tensor, temperature: float) -> Tensor:
        """The teacher's scores (B, K) -> answers (B, K), softmax((scores - centre) / temperature), no gradient."""
        dtype = torch.promote_types(scores.dtype, torch.float32)
        return ((scores.detach().to(dtype) - self.value.to(dtype)) / temperature).softmax(1)

    @torch.no_grad()
    def update(self, scores: Tensor) -> None:
        """Moves the centre towards the mean of these scores (B, K), after they have been sharpened with the old one.

        Ranks may pass different numbers of rows, and where none has one the centre stays.
        """
        rows = scores.new_full((1,), float(len(scores)), dtype=self.value.dtype)
        total = reduce(torch.cat([scores.to(self.value.dtype).sum(0), rows]))  # (K + 1,)
        mean = total[:-1] / total[-1].clamp_min(1)
        self.value.lerp_(mean, (1 - self.momentum) * total[-1].clamp_max(1))


class SinkhornCenter(nn.Module):
    """DINOv2's centring (Oquab et al. 2023, section 4, https://arxiv.org/abs/2304.07193): no memory, equal shares.

    Args:
        dim: K, how many scores.
        iterations: of Sinkhorn-Knopp.
    """

    def __init__(self, dim: int, iterations: int = 3) -> None:
        super().__init__()
        if iterations < 1:
            raise UserError(f"Sinkhorn-Knopp got iterations={iterations}; it takes 1 or more (3 is DINOv2's)")
        self.iterations = iterations

    def sharpen(self, scores: Tensor, temperature: float) -> Tensor:
        """The teacher's scores (B, K) -> answers (B, K) that use each prototype equally often; no gradient."""
        return sinkhorn(scores, temperature, self.iterations)

    def update(self, scores: Tensor) -> None:
        """There is nothing to remember."""
