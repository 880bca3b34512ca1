"""What the losses share: full precision inside autocast, and checks that answer a wrong argument in words."""

from typing import Literal, get_args

import torch
from torch import Tensor

from ssl_lightning.core.errors import UserError

Form = Literal["streamed", "matrix"]


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast: a softmax over thousands of bfloat16 similarities loses the small ones."""
    return torch.autocast(x.device.type, enabled=False)


def widen(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_contrastive(temperature: float, form: str = "matrix") -> None:
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0 (0.1 to 0.5 is usual)")
    if form not in get_args(Form):
        raise UserError(f"form is '{form}'; choose one of {', '.join(get_args(Form))}")


def same_shape(**tensors: Tensor) -> None:
    """All (B, P), equal; a broadcast would pass in silence and be wrong."""
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"expected equal shapes (B, P), got {shapes}")
