"""A linear classifier trained beside the run on detached features: is what is being learned of use, and since when?

It only looks: features are detached, its weights start at zero and its gradient is written out, so it draws no random
number, builds no graph, and the run is the same with and without it.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.callbacks.labels import has_labels, unique_rows
from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core.distributed import gather_rows, is_active, reduce
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.watched import QUERIES, Watched, watched

SLOWEST = 0.1  # weight of the newest batch in the running statistics once they have settled


class OnlineProbe(Watcher):
    """Softmax regression on standardised features: one AdamW step on the first view of every n-th batch.

    Features are standardised by running mean and variance, a plain average at first and an exponential one later, so
    that one learning rate fits every backbone. A batch is standardised by the statistics from before it, so that its
    gradient and its own statistics travel over the ranks in a single all-reduce; every rank then holds the same probe,
    that of one process on the global batch.

    It learns from what it is judged on: where a step's features are not those of `embed` (the network saw masked images
    or tiles, or its teacher is judged), it asks `embed` itself, in evaluation mode.

    Logs `train/probe_loss`, `train/probe_top1` (rank 0's last batch, before its update) and `val/probe_top1` (on the
    queries). Images labelled -1 are ignored; when the data has no labels it switches itself off.

    Args:
        lr: learning rate, constant.
        weight_decay: decoupled.
        every_n_steps: optimizer steps of the run from one step of the probe to the next.
    """

    def __init__(self, lr: float = 1e-2, weight_decay: float = 0.0, every_n_steps: int = 8) -> None:
        self.lr = lr
        self.weight_decay = weight_decay
        self.every_n_steps = every_n_steps
        self.on = True
        self._steps = 0
        self._looked_at = 0  # the run's step of the last update; set anew at each start
        # weight (C, D + 1) with the bias as last column, its two moments, and the features' mean (D,) and variance (D,)
        self._state: dict[str, Tensor] = {}
        self._one_hot = torch.empty(0)  # (C, C + 1), the last column zeros, for label -1; empty until the first batch
        self._last: tuple[Tensor, Tensor] | None = None  # logits (C, B), labels (B,)
        self._said: dict[str, Tensor] = {}  # what a restored run had to say of it
        self._hits: list[Tensor] = []
        self._indices: list[Tensor] = []

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        tensors = self._state | {f"train/{name}": value.detach() for name, value in self._metrics().items()}
        return {"steps": self._steps, **{name: value.clone() for name, value in tensors.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._steps = state.pop("steps")
        said = [name for name in state if name.startswith("train/")]
        self._said = {name.removeprefix("train/"): state.pop(name) for name in said}
        self._state = state

    def prepare(self, num_classes: int, dim: int, device: torch.device) -> None:
        """Makes the probe, or moves a restored one, when the features' size and device are known."""
        if not self._state:
            for name in ("weight", "first_moment", "second_moment"):
                self._state[name] = torch.zeros(num_classes, dim + 1)
            self._state |= {"mean": torch.zeros(dim), "variance": torch.ones(dim)}
        classes, columns = self._state["weight"].shape
        if (classes, columns - 1) != (num_classes, dim):
            sizes = f"{columns - 1} features and {classes} classes, this run {dim} and {num_classes}"
            raise UserError(f"the checkpoint's online probe has {sizes}; choose another name=")
        self._state = {name: value.to(device) for name, value in self._state.items()}
        self._one_hot = torch.eye(num_classes, num_classes + 1, device=device)

    # ---- training

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on = has_labels(trainer, "the online probe", train_set=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked_at = trainer.global_step
        if self.on and self._state:  # restored: it may be asked at a validation before its next step
            dim = self._state["weight"].shape[1] - 1
            self.prepare(trainer.datamodule.num_classes, dim, pl_module.device)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self.on or step == self._looked_at or (step % self.every_n_steps and step != 1):
            return
        self._looked_at = step
        if getattr(pl_module, "features_are_readout", True):
            features = outputs["features"][: len(batch.labels)].float()  # (B, D), the first view
        else:
            features = readout(trainer, watched(pl_module), batch.views[0]).float()
        if not len(self._one_hot) or features.shape[1] != self._state["weight"].shape[1] - 1:
            num_classes = trainer.datamodule.num_classes  # type: ignore[attr-defined]
            self.prepare(num_classes, features.shape[1], features.device)
        self.step(features, batch.labels)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor) -> None:
        """One update on features (B, D) and labels (B,).

        Few and small operations, for this runs beside every method: the standardisation is folded into the weights, as
        ((f - mean) scale) W^T = f (W scale)^T - (W scale) mean; and unlabelled rows are multiplied by zero, since to
        select the others a device would first have to say how many they are.
        """
        mean, variance = self._state["mean"], self._state["variance"]
        logits, scale = self._logits(features)  # (C, B): classes first, for a softmax of short rows is slow
        self._last = (logits, labels)
        known = (labels >= 0).float()  # (B,)
        error = logits.softmax(0).sub_(self._one_hot[:, labels]).mul_(known)  # gradient of the summed cross-entropy
        bias_grad = error.sum(1)  # (C,)
        grad = torch.addr(error @ features, bias_grad, mean, alpha=-1).mul_(scale)  # (C, D)
        ones = torch.ones_like(known)
        count, rows = known.sum(), ones.sum()
        parts = [torch.cat([grad, bias_grad[:, None]], 1), ones @ features, ones @ features.square(), count, rows]
        grad, total, square, count, rows = _sum_over_ranks(parts)
        self._adamw(grad.div_(count.clamp_min_(1)))
        share = max(1 / self._steps, SLOWEST)
        batch_mean = total.div_(rows)
        mean.lerp_(batch_mean, share)
        variance.lerp_(square.div_(rows).addcmul_(batch_mean, batch_mean, value=-1).clamp_min_(0), share)

    def _adamw(self, grad: Tensor, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        """Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2; torch's own costs more to call."""
        self._steps += 1
        weight, first, second = (self._state[name] for name in ("weight", "first_moment", "second_moment"))
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        bias1, bias2 = 1 - beta1**self._steps, 1 - beta2**self._steps
        if self.weight_decay:
            weight.mul_(1 - self.lr * self.weight_decay)
        weight.addcdiv_(first, second.sqrt().div_(bias2**0.5).add_(eps), value=-self.lr / bias1)

    def _logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) -> logits (C, N), and the scale (D,) of the standardisation."""
        weight = self._state["weight"]
        scale = (self._state["variance"] + 1e-6).rsqrt_()
        scaled = weight[:, :-1] * scale  # (C, D)
        bias = torch.addmv(weight[:, -1], scaled, self._state["mean"], alpha=-1)
        return torch.addmm(bias[:, None], scaled, features.t()), scale

    def step_metrics(self, trainer: Trainer) -> dict[str, Tensor | float]:
        """For the StepLogger: loss and accuracy on the last training batch."""
        return dict(self._metrics()) if self.on else {}

    def _metrics(self) -> dict[str, Tensor]:
        if self._last is None:
            return self._said
        logits, labels = self._last
        count = (labels >= 0).sum().clamp_min(1)
        loss = F.cross_entropy(logits[None], labels[None], ignore_index=-1, reduction="sum") / count
        return {"probe_loss": loss, "probe_top1": (logits.argmax(0) == labels).sum() / count}

    # ---- validation

    def predict(self, features: Tensor) -> Tensor:
        """Classes (N,) of features (N, D)."""
        return self._logits(features.float())[0].argmax(0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx != QUERIES or not self.on or not len(self._one_hot) or trainer.sanity_checking:
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


@torch.no_grad()
def readout(trainer: Trainer, method: Watched, x: Tensor) -> Tensor:
    """What a validation step would see of images (B, 3, H, W): (B, D). The method is left as it was."""
    training = [module for module in method.modules() if module.training]
    method.eval()
    try:
        with trainer.precision_plugin.val_step_context():
            return method.embed(x)
    finally:
        for module in training:
            module.training = True


def _sum_over_ranks(parts: list[Tensor]) -> list[Tensor]:
    """Each tensor summed over the ranks, in one collective."""
    if not is_active():
        return parts
    flat = reduce(torch.cat([part.flatten() for part in parts]))
    pieces = flat.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
