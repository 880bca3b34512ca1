"""Supervised training of a pretrained backbone: the whole network layer by layer, or a linear layer on frozen features.

Layer-wise rate decay: BEiT (https://arxiv.org/abs/2106.08254). The linear layer behind a BatchNorm without scale: MAE,
appendix A.1 (https://arxiv.org/abs/2111.06377). Mixup and CutMix: `mixing`.
"""

from math import isfinite
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.distributed import gather_rows
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import out_dim
from ssl_lightning.core.task import Task, computed
from ssl_lightning.optim.param_groups import decayed_names, layer_decay, spared_names
from ssl_lightning.optim.recipe import OptimizerRecipe, accumulated, share_of_window, steps_of
from ssl_lightning.parts import drop_path as paths
from ssl_lightning.runs.adopted import adopted
from ssl_lightning.tasks.freezing import batch_norms, freeze_below, still_modules
from ssl_lightning.tasks.mixing import mixed


def exact(device: torch.device) -> torch.dtype:
    """float64; Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Finetuner(LightningModule):
    """Items -> the outputs of a task, of images (B, 3, H, W) -> (B, K), trained on labels.

    Args:
        backbone: items -> features (B, D), with `out_dim`.
        task: prepared: head, loss and metrics.
        optimizer: the recipe; its rate is that of the head.
        layer_decay: each block of the backbone learns this many times slower than the next one; 1 = all alike.
        mixup: alpha of the Beta distribution of the mixing share; 0 = no mixup.
        label_smoothing: share of the target spread over all classes, for a task that has some.
        frozen: the backbone stays as it is, in evaluation mode, and only a linear layer is trained, on features that a
            BatchNorm makes alike in scale.
        cutmix: as mixup, of CutMix; with both each batch is mixed by one of them.
        last_blocks: only so many of the backbone's last blocks learn, the others are in evaluation mode; None: all.
        keep_norms: BatchNorm keeps the statistics that it has; its scale and shift learn.
        drop_path: rate of stochastic depth in the last block, rising from 0 in the first.
        class_weights: what the task's `weights` gave; None: all items count alike.
        seed: of what is drawn for items: mixing and dropped paths.

    Raises:
        UserError: a number out of its range, a network without what an option needs, a task that cannot be mixed.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        task: Task,
        optimizer: OptimizerRecipe,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
        label_smoothing: float = 0.0,
        frozen: bool = False,
        cutmix: float = 0.0,
        last_blocks: int | None = None,
        keep_norms: bool = False,
        drop_path: float = 0.0,
        class_weights: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mixup < 0 or cutmix < 0 or not 0 <= label_smoothing < 1:
            numbers = f"mixup={mixup} and cutmix={cutmix} must be 0 or more"
            raise UserError(f"{numbers}, and label_smoothing={label_smoothing} in [0, 1)")
        if (mixup or cutmix) and task.whole_items:
            raise UserError(
                "stage.mixup and stage.cutmix mix classes or numbers, and this task has texts; leave them out"
            )
        self.backbone = adopted(backbone).requires_grad_(not frozen)
        if last_blocks is not None:
            freeze_below(self.backbone, last_blocks)
        if drop_path:
            paths.give_drop_path(self.backbone, drop_path)
        dim = out_dim(backbone)
        # Features of frozen networks differ in scale by orders of magnitude; normalised, one rate suits all.
        self.norm = nn.BatchNorm1d(dim, affine=False) if frozen else nn.Identity()
        self.shorter = (
            1.0 if task.bounded or not frozen else dim**-0.5
        )  # features of length 1: any rate up to 1 is stable
        self.task = task
        self.head = task.head_of(backbone)
        self.recipe, self.layer_decay = optimizer, layer_decay
        self._still = [*still_modules(self.backbone, frozen), *(batch_norms(self.backbone) if keep_norms else [])]
        self.frozen = bool(self._still)  # some of it, see `HasFrozen`
        self.all_frozen = not any(p.requires_grad for p in self.backbone.parameters())
        self.mixup, self.cutmix, self.label_smoothing = mixup, cutmix, label_smoothing
        self.drop_path, self.seed = drop_path, seed
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._decayed: frozenset[str] | None = None  # of the backbone's parameters
        self._seen: list[Tensor] = []  # of a validation: (summed loss, items) of each batch
        self._metrics: Any = None  # of a validation
        self.title = ""  # of this training, for the lines on its progress
        self.picking = (0.0, 0.0)  # of the last validation: (the main metric, -loss), the higher the better

    def setup(self, stage: str) -> None:
        """Who has weight decay goes by names that are fixed here, before a strategy that shards makes tensors flat."""
        self._decayed = decayed_names(self.backbone.named_parameters(), not_decayed=spared_names(self.backbone))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["task"] = self.task.described()
        if self._decayed is not None:
            checkpoint["decayed"] = sorted(self._decayed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run goes on with the weight decay it began with: older ones decided by the shape alone."""
        names = checkpoint.get("decayed")
        shapes = decayed_names(self.backbone.named_parameters())
        self._decayed = shapes if names is None else frozenset(map(str, names))

    def train(self, mode: bool = True) -> "Finetuner":
        """What is frozen never trains: not after a validation, and not where a run goes on amid an epoch."""
        super().train(mode)
        for module in self._still:
            module.training = False
        return self

    def forward(self, x: Any) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.all_frozen):
            features = self.task.features(self.backbone, x)  # (B, D)
        if isinstance(features, Tensor):
            features = self.norm(features)
            features = features * self.shorter if self.shorter != 1 else features
        return self.head(features)  # (B, K)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, labels = batch.views[0], batch.labels
        if self.drop_path:
            paths.tell(self.backbone, self.seed, self.current_epoch, batch.indices)
        if not (self.mixup or self.cutmix):
            return self._loss(self(x), labels)
        drawn_by = self.seed, self.current_epoch, batch_idx
        x, others, share = mixed(x, labels, batch.indices, *drawn_by, self.mixup, self.cutmix)
        outputs = self(x)
        return share * self._loss(outputs, labels) + (1 - share) * self._loss(outputs, others)

    def _loss(self, outputs: Any, labels: Any) -> Tensor:
        weighted: dict[str, Any] = {} if self.class_weights is None else {"weights": self.class_weights}
        return self.task.loss(outputs, labels, self.label_smoothing, **weighted)

    # ---- the split on which the checkpoint is picked

    def on_validation_epoch_start(self) -> None:
        self._seen = []
        object.__setattr__(self, "_metrics", self.task.metrics())  # no part of the network

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs, keep = self(batch.views[0]), self.task.known(batch.labels)
        if not bool(keep.any()):  # a batch that only makes the ranks even (see DealtSampler)
            return
        outputs, targets = outputs[keep], batch.labels[keep]
        outputs = outputs.float() if isinstance(outputs, Tensor) else outputs
        loss = self.task.loss(outputs, targets, reduction="sum")
        self._seen.append(torch.stack([x.to(exact(loss.device)) for x in (loss, keep.sum())]))
        self._metrics.update(*self.task.measurable(outputs.to("cpu"), targets.to("cpu")))

    def on_validation_epoch_end(self) -> None:
        none = torch.zeros(2, dtype=exact(self.device), device=self.device)  # a rank may hold no item of a small split
        loss, items = gather_rows(torch.stack([*self._seen, none]).sum(dim=0)[None]).sum(dim=0).tolist()
        score = computed(self._metrics, together=True)[self.task.main]
        score = score if isfinite(score) else self.task.worst
        self.log_dict({f"val/{self.task.main}": score, "val/loss": loss / items}, sync_dist=True)
        self.picking = (score if self.task.higher else -score, -loss / items)  # of equal ones the lower loss is better

    def progress_words(self) -> list[str]:
        """The main metric of the last validation, for a person."""
        if self._metrics is None:
            return []
        return [f"picking split {self.task.word(self.picking[0] if self.task.higher else -self.picking[0])}"]

    def configure_optimizers(self) -> Any:
        steps = steps_of(self.trainer)
        batch_size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        global_batch = batch_size * self.trainer.world_size * accumulated(self.trainer)
        rate, decay = self.recipe.lr(global_batch), self.recipe.weight_decay
        groups = layer_decay(self.backbone, self.head, rate, self.layer_decay, decay, self._decayed)
        return self.recipe.build_groups(groups, global_batch, *steps)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        share = share_of_window(self.trainer)
        super().backward(loss if share == 1 else loss * share, *args, **kwargs)
