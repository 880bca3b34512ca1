"""What tasks of places (detection, segmentation) share, and the module that trains them, the fine-tuner's."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.task import Task
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.tasks.finetuner import Finetuner, exact


class DenseTask(Task):
    """A task whose head reads the maps of a backbone, and whose targets say where things are in an image.

    Attributes:
        word_of: what a target is called in messages.
        view: an example of the network's input (1, C, S, S), known after `seeing`.
    """

    word_of: ClassVar[str]
    view: Tensor | None = None

    def known(self, targets: Tensor) -> Tensor:
        """Every image has a target: one without any box, too."""
        return torch.ones(len(targets), dtype=torch.bool)

    def seeing(self, view: Tensor) -> Self:
        """Take an example of what the network is given: anchors and strides go by its size."""
        self.view = view.detach().cpu()
        return self

    def answers(self, outputs: Any) -> Tensor:
        """What a head says in evaluation, as one tensor (B, ...) that is kept of every test item."""
        found: Tensor = outputs
        return found

    def losses(self, head: nn.Module, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The parts of a training step's loss, the mean over images each."""
        raise NotImplementedError

    def picking_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The summed loss of a validation batch, by which checkpoints of equal metrics are told apart; here none."""
        return torch.zeros((), device=targets.device)

    def per_class(self, answers: Tensor, targets: Tensor) -> dict[str, float]:
        """The main metric of each class that some test item has."""
        raise NotImplementedError


class DenseTuner(Finetuner):
    """Images (B, C, S, S) -> boxes or classes of pixels: a backbone and torchvision's head on its maps.

    Args:
        backbone: with a map.
        task: prepared, and `seeing` a view.
        optimizer: the recipe.
        layer_decay: see `Finetuner`.
        frozen: the backbone does not learn.
        frozen_statistics: its BatchNorms keep the statistics they have: those of a few images say little.
        seed: of what is drawn for an image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        task: DenseTask,
        optimizer: OptimizerRecipe,
        layer_decay: float = 1.0,
        frozen: bool = False,
        frozen_statistics: bool = True,
        seed: int = 0,
    ) -> None:
        self.frozen_statistics = frozen_statistics
        super().__init__(backbone, task, optimizer, layer_decay, frozen=frozen)
        self.norm = nn.Identity()
        self.seed = seed

    def train(self, mode: bool = True) -> DenseTuner:
        super().train(mode)
        if self.frozen_statistics:
            for part in self.backbone.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.task.answers(self.head(x))  # type: ignore[operator]
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.head.draw_for(self.seed, self.current_epoch, batch.indices)  # type: ignore[operator]
        losses = self.task.losses(self.head, batch.views[0], batch.labels)  # type: ignore[operator]
        return torch.stack(list(losses.values())).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if bool((batch.indices < 0).all()):  # a batch that only makes the ranks even (see DealtSampler)
            return
        outputs, task = self.head(batch.views[0]), self.task
        loss = task.picking_loss(outputs, batch.labels)  # type: ignore[operator]
        count = torch.tensor(len(batch.indices), device=loss.device)
        self._seen.append(torch.stack([x.to(exact(loss.device)) for x in (loss, count)]))
        answers = task.answers(outputs)  # type: ignore[operator]
        self._metrics.update(*task.measurable(answers.to("cpu"), batch.labels.to("cpu")))
