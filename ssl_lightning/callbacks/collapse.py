"""Watches for collapse, the silent failure of self-supervised learning, and says in words what is wrong and what helps.

Complete collapse: every image gets the same vector. It comes as one direction for all (the spread falls), or, where a
loss does not normalise, as vectors that shrink to one point (the scale falls; what VICReg's variance term is there
for, https://arxiv.org/abs/2105.04906). Dimensional collapse (Jing et al. 2021, https://arxiv.org/abs/2110.09348): the
vectors differ, but only along a few directions. The spread is that of SimSiam (https://arxiv.org/abs/2011.10566,
figure 2), times the root of the dimensions, so that 1 = uniform on the sphere and 0 = one point.
"""

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_lightning.callbacks.watcher import Watcher
from ssl_lightning.core.distributed import gather_rows, is_main, world_size
from ssl_lightning.core.watched import QUERIES
from ssl_lightning.evaluation.quality import alignment, effective_rank, feature_std, pair_statistics, uniformity
from ssl_lightning.evaluation.verdict import ADVICE, diagnose

log = logging.getLogger("ssl_lightning")

MAX_ROWS = 1024  # images looked at: enough for the statistics, cheap enough to take often
UNIFORM_ROWS = 256  # for uniformity, whose cost grows with their square


class Collapse(Watcher):
    """Measures embeddings every n steps and features at each validation; warns once per event.

    Logs `train/embedding_std` (spread), `train/embedding_scale` (mean standard deviation of a dimension, over that of
    the run's first look), `train/embedding_rank` (effective rank), `train/uniformity`, `train/alignment` and what
    `pair_statistics` tells (of rank 0's batch) through the StepLogger, and `val/feature_std`, `val/feature_rank` of the
    queries.

    Args:
        every_n_steps: optimizer steps from one look at the embeddings to the next.
        min_std: a smaller spread is complete collapse.
        min_rank: a smaller effective rank is dimensional collapse.
        min_scale: a smaller scale is complete collapse, too.
        patience: how many looks in a row must agree before it warns; the first steps of healthy runs look bad, too.
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        min_std: float = 0.1,
        min_rank: float = 2.0,
        min_scale: float = 0.05,
        patience: int = 3,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.min_std = min_std
        self.min_rank = min_rank
        self.min_scale = min_scale
        self.patience = patience
        self._first_scale: float | None = None
        self._looked_at = 0
        self._metrics: dict[str, Tensor | float] = {}
        self._bad: dict[str, tuple[str, int]] = {}  # what was looked at -> (diagnosis, looks in a row)
        self._rows: list[tuple[Tensor, Tensor]] = []  # features and indices of each batch

    def state_dict(self) -> dict[str, Any]:
        return {"first_scale": self._first_scale, "bad": {what: list(seen) for what, seen in self._bad.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first_scale = state_dict["first_scale"]
        self._bad = {what: (found, looks) for what, (found, looks) in state_dict.get("bad", {}).items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._looked_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        self._metrics = {} if step != self._looked_at else self._metrics
        if step == self._looked_at or not (step % self.every_n_steps == 0 or step == 1) or not trainer.is_global_zero:
            return
        self._looked_at = step
        views = outputs["embeddings"].split(len(batch.labels))  # V times (B, P)
        if not all(torch.isfinite(view).all() for view in views):  # NanGuard's to report
            return
        rows = torch.cat(views)[:MAX_ROWS].float()
        if len(rows) < 2:
            return
        std, rank, scale = feature_std(rows), effective_rank(rows), rows.std(0).mean().item()
        self._first_scale = self._first_scale or scale
        scale /= self._first_scale or 1.0
        self._metrics = {"embedding_std": std, "embedding_rank": rank, "embedding_scale": scale}
        self._metrics["uniformity"] = uniformity(rows, max_rows=UNIFORM_ROWS)
        if len(views) > 1 and len(views[0]) > 1:
            first, second = views[0][:MAX_ROWS].float(), views[1][:MAX_ROWS].float()
            self._metrics |= {"alignment": alignment(first, second), **pair_statistics(first, second)}
        self._judge("embeddings", std, rank, rows.shape[1], step, scale)

    def step_metrics(self, trainer: Trainer) -> dict[str, Tensor | float]:
        """For the StepLogger: what was measured at this step, if anything."""
        return self._metrics

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        enough = sum(len(features) for features, _ in self._rows) * world_size() >= MAX_ROWS
        if dataloader_idx == QUERIES and not trainer.sanity_checking and not enough:
            images = outputs["indices"] >= 0  # not what only makes the ranks even
            self._rows.append((outputs["features"][images], outputs["indices"][images]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._rows:
            return
        features, indices = (gather_rows(torch.cat(part)) for part in zip(*self._rows, strict=True))
        features = features[indices.argsort()[:MAX_ROWS]].float()  # (N, D), those of one process
        self._rows = []
        if len(features) < 2 or not torch.isfinite(features).all():
            return
        std, rank = feature_std(features), effective_rank(features)
        pl_module.log_dict({"val/feature_std": std, "val/feature_rank": rank}, sync_dist=True, add_dataloader_idx=False)
        self._judge("features", std, rank, features.shape[1], trainer.global_step)

    def _judge(self, what: str, std: float, rank: float, dim: int, step: int, scale: float = 1.0) -> None:
        """Counts looks with the same bad diagnosis; warns at exactly the `patience`-th, so once until it recovers."""
        found = diagnose(std, rank, scale, self.min_std, self.min_rank, self.min_scale)
        before, looks = self._bad.get(what, ("", 0))
        looks = looks + 1 if found == before else 1
        self._bad[what] = (found, looks)
        if not found or looks != self.patience or not is_main():
            return
        kind, seen = {
            "complete": ("complete", f"all items get nearly the same vector (spread {std:.3f}, where 1 is uniform)"),
            "shrinking": ("complete", f"they shrink to one point (their scale is {scale:.3f} of the first look's)"),
            "dimensional": ("dimensional", f"they vary along few directions (effective rank {rank:.1f} of {dim})"),
        }[found]
        log.warning("%s collapse of the %s at step %d: %s; %s", kind, what, step, seen, ADVICE[found])
