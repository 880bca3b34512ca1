"""The smallest method and data that keep the contracts callbacks rely on: StepOutput, Batch, two evaluation loaders."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_lightning.core.batch import Batch
from ssl_lightning.parts.ema_teacher import EMATeacher, frozen_copy


class ToySet(torch.utils.data.Dataset):
    """Whole batches as items: images 2x2 around one of three class centres."""

    def __init__(self, batches: int, size: int, seed: int, labelled: bool = True, two_views: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(99)) * 2
        self.labelled = labelled
        self.items: list[Batch] = []
        for b in range(batches):
            labels = torch.randint(3, (size,), generator=generator)
            views = [
                centers[labels] + 0.3 * torch.randn(size, 3, 2, 2, generator=generator) for _ in range(1 + two_views)
            ]
            indices = torch.arange(b * size, (b + 1) * size)
            self.items.append(Batch(views, labels if labelled else torch.full((size,), -1), indices))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Batch:
        return self.items[i]


class ToyData(LightningDataModule):
    BATCHES, SIZE = 5, 16
    num_classes = 3
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

    def __init__(self, labelled: bool = True, batches: int = BATCHES) -> None:
        super().__init__()
        self.has_labels = labelled
        self.train_set = ToySet(batches, self.SIZE, 1, labelled)
        self.bank, self.queries = (ToySet(3, self.SIZE, seed, labelled, two_views=False) for seed in (2, 3))

    def train_dataloader(self) -> Any:
        return DataLoader(self.train_set, batch_size=None)

    def val_dataloader(self) -> Any:
        return [DataLoader(self.bank, batch_size=None), DataLoader(self.queries, batch_size=None)]


class ToyMethod(LightningModule):
    """Pulls two views together and pushes the batch apart; with a teacher, the second view is the teacher's."""

    def __init__(self, teacher: EMATeacher | None = None, dim: int = 6, lr: float = 0.05) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(12, dim))
        generator = torch.Generator().manual_seed(7)
        nn.init.normal_(self.backbone[0].weight, std=0.3, generator=generator)
        nn.init.zeros_(self.backbone[0].bias)
        self.ema = teacher
        self.lr = lr
        if teacher is not None:
            self.teacher = frozen_copy(self.backbone)

    def embed(self, x: Tensor) -> Tensor:
        return self.backbone(x.flatten(1))

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.backbone, self.teacher)] if self.ema is not None else []

    def configure_callbacks(self) -> list[Callback]:
        return [self.ema] if self.ema is not None else []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        x1, x2 = batch.views
        f1 = self.embed(x1)
        f2 = self.teacher(x2.flatten(1)) if self.ema is not None else self.embed(x2)
        loss = (f1 - f2).square().mean() - 0.1 * torch.log(f1.var(0) + 1e-2).mean()
        features = torch.cat([f1, f2]).detach()
        return {"loss": loss, "features": features, "embeddings": features, "watch": {"spread": f1.var().detach()}}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {"features": self.embed(batch.views[0]), "labels": batch.labels, "indices": batch.indices}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.backbone.parameters(), self.lr, momentum=0.9)


def trainer_of(folder: Path, callbacks: list[Callback], **overrides: Any) -> Trainer:
    """A silent trainer on the CPU; without a checkpoint callback among `callbacks` nothing is saved."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=callbacks, **{**settings, **overrides})


def fit(
    method: LightningModule,
    folder: Path,
    callbacks: list[Callback],
    data: LightningDataModule | None = None,
    ckpt_path: Path | None = None,
    **overrides: Any,
) -> Trainer:
    """Trains `method` on the toy data."""
    trainer = trainer_of(folder, callbacks, **overrides)
    trainer.fit(method, data or ToyData(), ckpt_path=ckpt_path)
    return trainer
