"""MSN's loss: masked views are assigned to prototypes as their unmasked view is, and prototypes are used alike.

Assran et al. 2022, "Masked Siamese Networks for Label-Efficient Learning", section 3, https://arxiv.org/abs/2204.07141;
for other use than alike (PMSN): Assran et al. 2023, "The Hidden Uniform Cluster Prior", https://arxiv.org/abs/2210.07277
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core.distributed import gather
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.forms import full_precision, widen
from ssl_lightning.parts.sinkhorn import sinkhorn


class MSNLoss(nn.Module):
    """Cross-entropy of anchors to their targets + weight * KL(mean assignment of all anchors, prior).

    With the even prior the second term is log K minus MSN's entropy. PMSN's prior of prototype k falls as k^-power.

    Args:
        temperature, target_temperature: of anchors and targets.
        weight: of the second term.
        prior_power: 0 for MSN; 0.25 in PMSN, which wants no even use and therefore no `iterations`.
        iterations: of Sinkhorn-Knopp on the sharpened targets, so that they use each prototype equally often; 0 for
            none. MSN's recipes have 3.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        target_temperature: float = 0.025,
        weight: float = 1.0,
        prior_power: float = 0.0,
        iterations: int = 0,
    ) -> None:
        super().__init__()
        if not min(temperature, target_temperature) > 0:
            raise UserError(
                f"temperatures are {temperature} and {target_temperature}; they must be above 0 (MSN has 0.1 and 0.025)"
            )
        self.temperature, self.target_temperature = temperature, target_temperature
        if iterations < 0:
            raise UserError(f"iterations is {iterations}; Sinkhorn-Knopp takes 0 (none) or more")
        self.weight, self.prior_power, self.iterations = weight, prior_power, iterations

    def forward(self, anchors: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        """Anchors (M, B, P) of M masked views, targets (B, P) without gradient, prototypes (K, P) -> scalar."""
        with full_precision(anchors):
            prototypes = normalize(widen(prototypes), dim=1)
            with torch.no_grad():
                cosines = normalize(widen(targets), dim=1) @ prototypes.T  # (B, K)
                sharp = (cosines / self.target_temperature).log_softmax(1)
                # Sinkhorn begins with rows that sum to 1, as in the authors' code: it is few iterations, not a limit.
                sharp = sinkhorn(sharp, 1.0, self.iterations) if self.iterations else sharp.exp()
            logs = (normalize(widen(anchors), dim=2) @ prototypes.T / self.temperature).log_softmax(2)  # (M, B, K)
            entropy = -(sharp * logs).sum(2).mean()
            mean = gather(logs.exp().mean((0, 1))[None]).mean(0)  # (K,), over all ranks
            ranks = torch.arange(1, len(mean) + 1, dtype=mean.dtype, device=mean.device)
            prior = ranks**-self.prior_power
            use = (mean * ((mean.clamp_min(1e-30)).log() - (prior / prior.sum()).log())).sum()
            return entropy + self.weight * use
