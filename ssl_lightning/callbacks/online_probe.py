"""A linear classifier trained beside the run on detached features: is what is being learned of use, and since when?

It only looks: features are detached, its weights start at zero and its gradient is written out, so it draws no random
number, builds no graph, and the run is the same with and without it.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.labels import has_labels, unique_rows
from ssl_lightning.distributed import gather_rows, is_active
from ssl_lightning.errors import UserError

SLOWEST = 0.02  # weight of the newest batch in the running statistics once they have settled


class OnlineProbe(Callback):
    """Softmax regression on standardised features, one AdamW or SGD step per training batch.

    Features are standardised by running mean and variance, a plain average at first and an exponential one later, so
    that one learning rate fits every backbone. A batch is standardised by the statistics from before it, so that its
    gradient and its own statistics travel over the ranks in a single all-reduce; every rank then holds the same probe,
    that of one process on the global batch.

    Logs `train/probe_loss`, `train/probe_top1` (rank 0's batch, before the update) and `val/probe_top1` (on the
    queries, validation loader 1). Images labelled -1 are ignored; when the data has no labels it switches itself off.

    Args:
        lr: learning rate, constant.
        weight_decay: decoupled for "adamw", L2 for "sgd".
        optimizer: "adamw" or "sgd" (momentum 0.9).
    """

    def __init__(self, lr: float = 1e-3, weight_decay: float = 0.0, optimizer: str = "adamw") -> None:
        if optimizer not in ("adamw", "sgd"):
            raise UserError(f"the online probe has no optimizer '{optimizer}'; choose 'adamw' or 'sgd'")
        self.lr = lr
        self.weight_decay = weight_decay
        self.optimizer_name = optimizer
        self.on = True
        self._state: dict[str, Tensor] = {}  # weight (C, D), bias (C,), mean (D,), variance (D,), batches ()
        self._optimizer: torch.optim.Optimizer | None = None
        self._restored: dict[str, Any] = {}  # optimizer state read from a checkpoint, until the device is known
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # logits, labels, rows per label
        self._hits: list[Tensor] = []
        self._indices: list[Tensor] = []

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        if not self._state:
            return {}
        optimizer = self._optimizer.state_dict() if self._optimizer else self._restored
        return {**{name: value.clone() for name, value in self._state.items()}, "optimizer": optimizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = {name: value for name, value in state_dict.items() if name != "optimizer"}
        self._restored = state_dict.get("optimizer", {})
        self._optimizer = None

    def _ready(self, num_classes: int, dim: int, device: torch.device) -> None:
        """Makes the probe at the first batch, when the features' size and device are known."""
        if not self._state:
            self._state = {
                "weight": torch.zeros(num_classes, dim),
                "bias": torch.zeros(num_classes),
                "mean": torch.zeros(dim),
                "variance": torch.ones(dim),
                "batches": torch.zeros(()),
            }
        if self._state["weight"].shape != (num_classes, dim):
            seen = tuple(self._state["weight"].shape)
            raise UserError(
                f"the checkpoint's online probe is {seen}, this run needs {(num_classes, dim)}; use another name="
            )
        self._state = {name: value.to(device) for name, value in self._state.items()}
        weights = [self._state["weight"], self._state["bias"]]
        if self.optimizer_name == "adamw":
            self._optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=self.weight_decay, fused=True)
        else:
            self._optimizer = torch.optim.SGD(weights, self.lr, 0.9, weight_decay=self.weight_decay, fused=True)
        if self._restored:
            self._optimizer.load_state_dict(self._restored)

    # ---- training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on = has_labels(trainer, "the online probe", train_set=True)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.on:
            return
        features = outputs["features"].float()  # (V*B, D)
        if self._optimizer is None:
            self._ready(trainer.datamodule.num_classes, features.shape[1], features.device)  # type: ignore[attr-defined]
        self.step(features, batch.labels)

    def step(self, features: Tensor, labels: Tensor) -> None:
        """One update on features (V*B, D), views stacked in order, and labels (B,)."""
        assert self._optimizer is not None
        state = self._state
        labels = labels.repeat(features.shape[0] // labels.shape[0])  # (V*B,)
        known = (labels >= 0).float()  # (V*B,): a mask, not a selection, whose size the device would have to tell us
        x = (features - state["mean"]) * (state["variance"] + 1e-6).rsqrt()
        logits = torch.addmm(state["bias"], x, state["weight"].t())  # (V*B, C)
        self._last = (logits, labels, known)
        error = logits.softmax(1)
        error.scatter_add_(1, labels.clamp_min(0)[:, None], error.new_full((len(labels), 1), -1.0))
        error *= known[:, None]  # the gradient of the summed cross-entropy by the logits

        size = torch.stack([known.sum(), known.new_tensor(float(len(features)))])
        parts = [error.t() @ x, error.sum(0), features.sum(0), features.square().sum(0), size]
        weight_grad, bias_grad, total, square, size = _sum_over_ranks(parts)
        state["weight"].grad = weight_grad / size[0].clamp_min(1)
        state["bias"].grad = bias_grad / size[0].clamp_min(1)
        self._optimizer.step()

        mean = total / size[1]
        share = (1 / (state["batches"] + 1)).clamp_min(SLOWEST)
        variance = (square / size[1] - mean.square()).clamp_min(0)
        state["mean"].lerp_(mean, share)
        state["variance"].lerp_(variance, share)
        state["batches"] += 1

    def step_metrics(self, trainer: Trainer) -> dict[str, Tensor | float]:
        """For the StepLogger: loss and accuracy on the last training batch."""
        if not self.on or self._last is None:
            return {}
        logits, labels, known = self._last
        count = known.sum().clamp_min(1)
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / count
        return {"probe_loss": loss, "probe_top1": (logits.argmax(1) == labels).sum() / count}

    # ---- validation

    def predict(self, features: Tensor) -> Tensor:
        """Classes (N,) of features (N, D)."""
        state = self._state
        x = (features.float() - state["mean"]) * (state["variance"] + 1e-6).rsqrt()
        return torch.addmm(state["bias"], x, state["weight"].t()).argmax(1)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx != 1 or not self.on or self._optimizer is None or trainer.sanity_checking:
            return
        known = outputs["labels"] >= 0
        self._hits.append((self.predict(outputs["features"]) == outputs["labels"])[known])
        self._indices.append(outputs["indices"][known])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._hits:
            return
        hits, indices = gather_rows(torch.cat(self._hits)), gather_rows(torch.cat(self._indices))
        self._hits, self._indices = [], []
        if len(indices):
            top1 = hits[unique_rows(indices)].float().mean()
            pl_module.log("val/probe_top1", top1, sync_dist=True, add_dataloader_idx=False)


def _sum_over_ranks(parts: list[Tensor]) -> list[Tensor]:
    """Each tensor summed over the ranks, in one collective."""
    if not is_active():
        return parts
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    pieces = flat.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
