"""The running centre that DINO takes off its teacher's scores, so that no prototype wins for every image."""

import torch
from torch import Tensor, nn

from ssl_lightning.distributed import reduce, world_size
from ssl_lightning.errors import UserError


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
        """Moves the centre towards the mean of these scores (B, K), after they have been sharpened with the old one."""
        mean = reduce(scores.to(self.value.dtype).mean(0)) / world_size()
        self.value.lerp_(mean, 1 - self.momentum)
