"""What MAE and SimMIM are scored by: the distance between predicted and true pixels of the hidden patches alone.

He et al. 2022 (MAE), section 3 and appendix A, https://arxiv.org/abs/2111.06377: mean squared error, each patch's
pixels normalised by their own mean and variance. Xie et al. 2022 (SimMIM), section 3.4,
https://arxiv.org/abs/2111.09886: mean absolute error of the plain pixels.
"""

from typing import Literal

from torch import Tensor, nn

from ssl_lightning.core.forms import widen


class MaskedPixelLoss(nn.Module):
    """Mean over hidden patches of the mean error of a patch's values.

    Args:
        norm_target: score against each patch normalised by its own mean and standard deviation.
        error: "squared" or "absolute".
    """

    def __init__(self, norm_target: bool = True, error: Literal["squared", "absolute"] = "squared") -> None:
        super().__init__()
        self.norm_target, self.error = norm_target, error

    def target(self, patches: Tensor) -> Tensor:
        """Patches (B, N, C) -> what is to be predicted. The variance is the unbiased one, as in MAE's code."""
        if not self.norm_target:
            return patches
        mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def forward(self, prediction: Tensor, patches: Tensor, mask: Tensor) -> Tensor:
        """Prediction and true patches (B, N, C), mask (B, N) bool, True = hidden -> scalar."""
        difference = widen(prediction) - self.target(widen(patches))
        errors = difference.square() if self.error == "squared" else difference.abs()
        return (errors.mean(-1) * mask).sum() / mask.sum()
