"""KoLeo: embeddings spread evenly, each kept away from its nearest neighbour.

Sablayrolles et al. 2019, "Spreading vectors for similarity search", https://arxiv.org/abs/1806.03198, as DINOv2 has it
(Oquab et al. 2023, section 4, https://arxiv.org/abs/2304.07193).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen


class KoLeo(nn.Module):
    """Minus the mean logarithm of each unit vector's distance to its nearest neighbour in the global batch.

    Who is nearest has no gradient, the distance has one into both. DINOv2's code looks at each rank's batch by itself.

    Args:
        eps: added to the distance, so that equal vectors give a finite number.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if not eps > 0:
            raise UserError(f"eps is {eps}; it must be above 0 (1e-8 is DINOv2's)")
        self.eps = eps

    def forward(self, z: Tensor) -> Tensor:
        """z (B, P), more than one row over all ranks -> scalar."""
        with full_precision(z):
            z = gather(normalize(widen(z), dim=1))  # (BW, P)
            with torch.no_grad():
                nearest = (z @ z.T).fill_diagonal_(-2).argmax(1)  # (BW,)
            apart = (z - z[nearest]).square().sum(1)  # (BW,)
            # The root of zero has no gradient: equal vectors stay where they are until another force parts them.
            distance = torch.where(apart > 0, apart.clamp_min(1e-30), self.eps**2).sqrt()
            return -(distance + self.eps).log().mean()
