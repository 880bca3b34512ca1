"""stage=segment: the class of each pixel, by torchvision's FCN on a pretrained backbone, beside from scratch."""

from typing import Any

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, MakeTrainer
from ssl_lightning.stages.dense import tuned
from ssl_lightning.tasks.segment import Segment


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    seed: int,
    epochs: int = 30,
    batch_size: int = 16,
    base_lr: float = 1.6e-2,
    weight_decay: float = 0.05,
    layer_decay: float = 0.9,
    warmup_epochs: float = 1,
    zoom: tuple[float, float] = (0.8, 1.25),
    flip_p: float = 0.5,
    frozen: bool = False,
    frozen_statistics: bool = True,
    picking: float = 0.1,
    task: Task | None = None,
) -> dict[str, Any]:
    """Fine-tune a backbone for the class of each pixel; mean intersection over union on the test images.

    Args:
        base_lr: of the head at a global batch of 256, as all rates here.
        layer_decay: each block of the pretrained network learns this many times slower than the next one.
        zoom: bounds of the scale that a training image is drawn at; at 1 its longer side is data.image_size.
        frozen: the pretrained backbone does not learn; the head alone does.
        frozen_statistics: its BatchNorms keep the statistics of the pretraining.
        picking: share of the labelled training images that is held out to pick the checkpoint; 0 takes the last one.
        task: Segment; None: with its defaults.
    """
    task = Segment() if task is None else task
    if not isinstance(task, Segment):
        raise UserError(f"stage=segment takes task=segment, not task={type(task).__name__.lower()}; leave task= out")
    return tuned(
        judged, data, trainer, run, seed, task, "segment", epochs, batch_size, base_lr, weight_decay, layer_decay,
        warmup_epochs, zoom, flip_p, frozen, frozen_statistics, picking,
    )  # fmt: skip
