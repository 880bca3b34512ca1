"""LARS: layer-wise adaptive rates for large batches, You et al. 2017, https://arxiv.org/abs/1708.03888."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_lightning.core.errors import UserError


class LARS(Optimizer):
    """SGD with momentum whose step is, for each parameter tensor, in proportion to that tensor's own norm.

        u = grad + weight_decay * w
        q = eta * |w| / |u|             (1 where either norm is 0), with `clip` at most lr: q = min(q / lr, 1)
        v = momentum * v + q * u
        w = w - lr * v

    As in SimCLR and BYOL, the weight decay is part of u before the norm is taken. The rate stands outside of v, so that
    without adaptation this is torch's SGD, step by step. `clip` is that of LARC: never more than SGD would move.

    Args:
        params: parameters or groups. A group with `adapt=False` has q = 1, as recipes have it for biases and norms.
        lr: global rate, with a schedule from outside.
        momentum: 0 to 1.
        weight_decay: >= 0.
        eta: trust coefficient; 0.02 in the CIFAR recipes, 0.001 in the papers' ImageNet runs without clip.
        clip: whether `lr` is an upper bound of the local rate.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.02,
        clip: bool = False,
    ) -> None:
        if lr < 0 or weight_decay < 0 or eta <= 0 or not 0 <= momentum < 1:
            raise UserError(
                f"LARS got lr={lr}, momentum={momentum}, weight_decay={weight_decay}, eta={eta}; "
                "none may be negative, eta must be above 0 and momentum below 1"
            )
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "clip": clip}
        super().__init__(params, {**defaults, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every parameter that has a gradient. Returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        update = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if group["adapt"]:
            torch._foreach_mul_(update, _trust(params, update, group["eta"], group["lr"] if group["clip"] else None))
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, update)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])


def _trust(params: list[Tensor], update: list[Tensor], eta: float, cap: float | None) -> list[Tensor]:
    """q of each parameter, as 0-dim tensors: nothing leaves the device."""
    w_norm = torch.stack(torch._foreach_norm(params))  # (number of tensors,)
    u_norm = torch.stack(torch._foreach_norm(update))
    q = eta * w_norm / u_norm
    q = torch.where((w_norm > 0) & (u_norm > 0), q, 1.0)
    if cap is not None:
        q = (q / cap).clamp(max=1) if cap > 0 else torch.ones_like(q)  # at lr 0 nothing moves, and 1 is the limit
    return list(q.unbind())
