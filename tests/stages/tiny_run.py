"""What the stage tests share: images that a small net tells apart in seconds, a pretrained run, a trainer factory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor

from ssl_lightning.modalities.image.data import DataModule
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.modalities.image.views import View, Views
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages.common import Judged, open_backbone

NODE = {"_target_": "ssl_lightning.models.convnet.ConvNetSmall", "width": 4}
CLASSES = ["red", "green", "blue"]


def draw(count: int, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """Noise with a little of one colour: uint8 (N, size, size, 3) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    images = torch.randint(0, 180, (count, size, size, 3), generator=generator)
    images[torch.arange(count), :, :, labels] += 60
    return images.to(torch.uint8), labels


class TinyData(DataModule):
    """Three classes of coloured noise."""

    def __init__(self, train: int = 90, test: int = 60, labelled: bool = True, **loading: Any) -> None:
        super().__init__(**{"batch_size": 32, "image_size": 16, "mean": (0.4,) * 3, "std": (0.3,) * 3, **loading})
        self.counts, self.labelled = (train, test), labelled

    def load(self) -> tuple[ImageSet, ImageSet]:
        drawn = [draw(count, seed) for seed, count in enumerate(self.counts)]
        train, test = (ArrayImages(x, y if self.labelled else None, CLASSES if self.labelled else ()) for x, y in drawn)
        return train, test


def two_views(size: int = 16) -> Views:
    return Views(View(size, count=2))


def a_run(folder: Path, width: int = 4, seed: int = 5) -> Path:
    """A finished pretraining run, as far as the judging stages look at it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ConvNetSmall(width)
    node = NODE | {"width": width}
    save_backbone(net, node, folder, image_size=16, mean=[0.4] * 3, std=[0.3] * 3, method="simclr", data="tiny")
    (folder / "config.yaml").write_text(yaml.safe_dump({"backbone": node}))
    return folder


def judged(ref: Path | str | None, width: int = 4, chosen: bool = False, seed: int = 0) -> Judged:
    """What a stage gets to judge, where `width` is that of the configured backbone."""
    return open_backbone(ref, NODE | {"width": width}, chosen, seed)


def a_folder(path: Path) -> RunFolder:
    """The folder that a stage writes to."""
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.config = {"backbone": NODE}
    return run


def a_trainer(root: Path) -> Callable[..., Trainer]:
    """A factory as build makes it: the configured arguments, those of the stage on top."""

    def make(callbacks: list[Any] | None = None, subfolder: str | None = None, **overrides: Any) -> Trainer:
        arguments = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": root / (subfolder or ""),
        }
        return Trainer(**{**arguments, "callbacks": callbacks or [], **overrides})

    return make
