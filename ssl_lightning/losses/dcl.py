"""The decoupled contrastive loss: eq. 6 of Yeh et al. 2022, https://arxiv.org/abs/2110.06848, and its weighted form."""

from torch import Tensor

from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.candidates import CandidateLoss, Candidates


class DCL(CandidateLoss):
    """NT-Xent or InfoNCE without the positive in the denominator, which makes small batches learn slowly there.

    Args:
        temperature: t > 0; 0.1 in the paper.
        sigma: None for DCL. A number weighs positives by the von Mises-Fisher weight of DCLW (section 3.2),
            2 - exp(cos / sigma) / mean exp(cos / sigma): pairs that already agree pull less. 0.5 in the paper.

    >>> import torch
    >>> z = torch.eye(2)
    >>> DCL(temperature=1.0)(z, z)  # -1 + log(2 e^0)
    tensor(-0.3069)
    """

    def __init__(self, temperature: float = 0.1, sigma: float | None = None) -> None:
        super().__init__(temperature)
        if sigma is not None and not sigma > 0:
            raise UserError(f"sigma is {sigma}; it must be above 0 (0.5 in the paper), or null for no weights")
        self.sigma = sigma

    def score(self, found: Candidates) -> Tensor:
        attraction = found.positive
        if self.sigma is not None:
            # Shifted by 1, for cosines end there: a small sigma must not overflow.
            mean = ((found.pairs - 1) / self.sigma).exp().mean()
            attraction = attraction * (2 - ((found.positive - 1) / self.sigma).exp() / mean)
        return ((found.negatives / self.temperature).logsumexp(1) - attraction / self.temperature).mean()
