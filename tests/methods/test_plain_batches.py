"""A method in one's own Trainer: a plain DataLoader, one's own optimizer, one's own module."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.cli.run import compose
from ssl_lightning.config.instantiate import instantiate
from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.base import SSLMethod, StepOutput
from ssl_lightning.methods.plain import batch_of
from tests.methods.harness import METHODS, batch_for, config_of, tiny_method

SGD = functools.partial(torch.optim.SGD, lr=1e-3)


class Pairs(Dataset[Any]):
    """([view, view], label) of each image, and its number where that is asked for."""

    def __init__(self, name: str, views: int = 2, numbered: bool = False) -> None:
        self.batch, self.views, self.numbered = batch_for(name), views, numbered

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        views = [self.batch.views[v % 2][i].float() for v in range(self.views)]
        return (views, int(self.batch.labels[i])) + ((i,) if self.numbered else ())


def fit(method: SSLMethod, data: Any, folder: Path, **kwargs: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    quiet |= {"num_sanity_val_steps": 0}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=1,
        default_root_dir=folder,
        log_every_n_steps=1,
        **quiet,
        **kwargs,
    )
    trainer.fit(method, data, data)
    return trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_two_views_and_labels(name: str, tmp_path: Path) -> None:
    method = tiny_method(name, optimizer=SGD).float()
    before = {key: value.clone() for key, value in method.named_parameters() if value.requires_grad}
    size = 8 if name == "wmse" else 4  # it whitens eight rows at once
    loader = DataLoader(Pairs(name, numbered=name == "deepcluster_v2"), batch_size=size)
    assert fit(method, loader, tmp_path).global_step == 16 // size
    assert any(not torch.equal(before[key], value) for key, value in method.named_parameters() if key in before)
    if name == "deepcluster_v2":
        with pytest.raises(UserError, match=r"remembers each image by its number.*indices"):
            fit(tiny_method(name, optimizer=SGD).float(), DataLoader(Pairs(name), batch_size=4), tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_batch_is_the_same_step(name: str) -> None:
    """With the images' numbers, what a loader gives is what a `Batch` is."""
    batch = batch_for(name)
    losses = []
    for given in (batch, ([*batch.views], batch.labels, batch.indices)):
        method = tiny_method(name)
        if name == "deepcluster_v2":
            method.look(batch)  # type: ignore[operator]
            method.on_train_batch_start(batch, 0)
        losses.append(method.training_step(given, 0)["loss"])  # type: ignore[operator]
    assert torch.equal(*losses)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_recipe_reads_the_loaders_batch(tmp_path: Path) -> None:
    recipe = instantiate(compose(["method=simclr", "data=cifar10"]).values["optimizer"])
    method = tiny_method("simclr", optimizer=recipe).float()
    trainer = fit(method, DataLoader(Pairs("simclr"), batch_size=4), tmp_path, accumulate_grad_batches=2)
    assert trainer.global_step == 2
    peak = recipe.lr(4 * 2)
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == pytest.approx(peak)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_module_of_ones_own(tmp_path: Path) -> None:
    """A subclass with its own step and optimizer gets a `Batch`, too."""
    seen: list[Any] = []
    parent: Any = type(tiny_method("simclr"))

    class Mine(parent):  # type: ignore[misc]
        def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
            seen.append(batch)
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    method = tiny_method("simclr").float()
    method.__class__ = Mine
    fit(method, DataLoader(Pairs("simclr"), batch_size=4), tmp_path)
    assert [type(batch) for batch in seen] == [Batch] * 4
    assert [batch.indices.tolist() for batch in seen[:2]] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def parts() -> tuple[list[Tensor], Tensor, Tensor]:
    batch = batch_for("simclr")
    return [view.float() for view in batch.views], torch.arange(8) + 20, torch.arange(8) + 50


@pytest.mark.parametrize(
    "form",
    [
        lambda v, y, i: (v, y, i),
        lambda v, y, i: [tuple(v), y, i],
        lambda v, y, i: (i, v, y),
        lambda v, y, i: (v[0], v[1], y, i),
        lambda v, y, i: {"views": v, "labels": y, "indices": i},
        lambda v, y, i: {"index": i, "views": [{"image": v[0], "label": y}, {"image": v[1], "label": y}]},
        lambda v, y, i: (v, y, ["a.png"] * 8, {"index": i}),
    ],
)
def test_forms_of_a_batch(form: Any) -> None:
    views, labels, indices = parts()
    found = batch_of(form(views, labels, indices), 3)
    assert all(torch.equal(a, b) for a, b in zip(found.views, views, strict=True))
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.indices, indices)


def test_what_a_batch_does_not_say() -> None:
    views, labels, _ = parts()
    found = batch_of(views, 3)
    assert found.labels.tolist() == [-1] * 8
    assert found.indices.tolist() == list(range(24, 32))
    assert batch_of((views[0], labels), 0).views[0] is views[0]
    assert batch_of(found, 0) is found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.arange(3), "type Tensor holds no views"),
        ("text", "type str holds no views"),
        ([torch.zeros(2, 3, 4, 4, dtype=torch.uint8)] * 2, "views are torch.uint8, not yet scaled"),
        ([torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4)], "are of 2, 3 images"),
    ],
)
def test_what_is_no_batch(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        batch_of(given, 0)
    assert "\n" not in str(caught.value)


def test_views_that_a_method_cannot_use() -> None:
    views, labels, _ = parts()
    with pytest.raises(UserError, match="needs two global views and got 1"):
        tiny_method("simclr").float().training_step(([views[0]], labels), 0)  # type: ignore[operator]
    with pytest.raises(UserError, match="supcon learns from labels, and these images have none"):
        tiny_method("supcon").float().training_step(views, 0)  # type: ignore[operator]
    with pytest.raises(UserError, match="built without an optimizer; pass optimizer="):
        tiny_method("simclr").configure_optimizers()
    assert config_of("simclr")
