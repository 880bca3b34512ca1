"""The DataModule: batches, evaluation loaders, ranks, and the exact position after an interruption."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_lightning.core import distributed
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.batch import Batch
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.views import EvalView, View, Views

COUNT, SIDE, BATCH = 43, 8, 8  # five full batches an epoch
VIEWS = Views(View(size=SIDE, count=2))


class Noise(DataModule):
    """Noise images with labels; remembers the epoch of each batch."""

    def __init__(self, count: int = COUNT, side: int = SIDE, labelled: bool = True, **loading: Any):
        super().__init__(**{"views": VIEWS, "batch_size": BATCH, "image_size": SIDE, **loading})
        self.count, self.side, self.labelled = count, side, labelled
        self.epoch = -1

    def load(self) -> Loaded:
        return self.part(self.count, 0), self.part(20, 1)

    def part(self, count: int, seed: int) -> ArrayImages:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, self.side, self.side, 3), dtype=torch.uint8, generator=generator)
        return ArrayImages(pixels, torch.arange(count) % 4 if self.labelled else None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        self.epoch = getattr(batch, "epoch", self.epoch)
        return super().on_after_batch_transfer(batch, dataloader_idx)


def test_training_batches_hold_normalised_views_of_the_right_rows() -> None:
    data = Noise(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    loader = data.train_dataloader()
    assert len(loader) == 5
    seen = [data.on_after_batch_transfer(raw) for raw in loader]
    assert len(torch.cat([b.indices for b in seen]).unique()) == 40
    for batch in seen:
        assert isinstance(batch, Batch)
        assert [v.shape for v in batch.views] == [(BATCH, 3, SIDE, SIDE)] * 2
        assert torch.equal(batch.labels, batch.indices % 4)
        assert all(v.dtype == torch.float32 and v.abs().max() <= 2 for v in batch.views)


def test_the_validation_loaders_are_seeded_subsets_seen_as_they_are() -> None:
    data = Noise(bank_size=10, query_size=6, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    bank, queries = ([data.on_after_batch_transfer(raw) for raw in loader] for loader in data.val_dataloader())
    rows = torch.cat([b.indices for b in bank])
    assert len(rows.unique()) == 10
    assert len(torch.cat([b.indices for b in queries]).unique()) == 6
    wanted = data.train_set.images[rows].permute(0, 3, 1, 2) / 255  # type: ignore[attr-defined]
    assert torch.allclose(torch.cat([b.views[0] for b in bank]), wanted, atol=1e-6)
    again = Noise(bank_size=10).val_dataloader()[0]
    assert torch.equal(torch.cat([b.indices for b in again]), rows)


def test_eval_loader_gives_the_wanted_rows_in_order_at_the_evaluation_size() -> None:
    data = Noise(side=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), num_workers=0)
    rows = torch.tensor([9, 2, 30, 4, 5, 6, 7, 8, 1])
    batches = list(data.eval_loader("train", rows))
    assert [len(b.labels) for b in batches] == [8, 1]
    assert torch.equal(torch.cat([b.indices for b in batches]), rows)
    crop = data.eval_view.crop(data.train_set.image(30)).permute(2, 0, 1) / 255
    assert torch.allclose(batches[0].views[0][2], crop, atol=1e-6)
    assert sum(len(b.labels) for b in data.eval_loader("test")) == 20
    with pytest.raises(UserError, match="'validation' is unknown"):
        data.eval_loader("validation")  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [SIDE, 12])
def test_eval_resize_shows_the_middle(side: int) -> None:
    """In features, raw pixels and training's own kNN alike, decoded images of the right size among them."""
    data = Noise(side=side, eval_resize=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), num_workers=0)
    wanted = EvalView(SIDE, (0, 0, 0), (1, 1, 1), 12).crop(data.test_set.image(3)).permute(2, 0, 1) / 255
    batch = next(iter(data.eval_loader("test", torch.tensor([3]))))
    assert torch.allclose(batch.views[0][0], wanted, atol=1e-6)
    raw = data.raw_pixels("test", torch.tensor([3]))
    assert torch.allclose(raw.view(SIDE, SIDE, 3).permute(2, 0, 1), wanted, atol=1e-6)
    queries = data.on_after_batch_transfer(next(iter(data.val_dataloader()[1])))
    assert torch.allclose(queries.views[0][queries.indices.tolist().index(3)], wanted, atol=1e-6)


def test_raw_pixels_are_small_and_in_order() -> None:
    data = Noise()
    got = data.raw_pixels("train", torch.tensor([3, 1]))
    assert torch.equal(got, data.train_set.images[[3, 1]].flatten(1) / 255)  # type: ignore[attr-defined]
    assert Noise(side=80, image_size=64, num_workers=0).raw_pixels("test").shape == (20, 32 * 32 * 3)


def test_labels_are_counted_and_absent_ones_are_known() -> None:
    data = Noise(label_fraction=0.1)
    assert (data.has_labels, data.num_classes, data.classes) == (True, 4, ["0", "1", "2", "3"])
    assert len(data.labelled_indices()) == 4
    assert len(data.labelled_indices("test")) == 20
    bare = Noise(labelled=False)
    assert (bare.has_labels, bare.num_classes) == (False, 0)
    assert bare.labelled_indices().tolist() == []


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"data\.engine=gpu is unknown"):
        Noise(engine="gpu")
    with pytest.raises(UserError, match=r"views=sym"):
        Noise(views=None).train_dataloader()
    with pytest.raises(UserError, match="batch of 44 does not fit 43 training images"):
        Noise(batch_size=44).train_dataloader()


# ---- several ranks


def of_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """The rows each loader gives to one of two ranks, batch by batch."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    data = Noise(batch_size=BATCH // 2)
    loaders = [data.train_dataloader(), *data.val_dataloader(), data.eval_loader("test")]
    return [[raw.indices.tolist() for raw in loader] for loader in loaders]


def test_two_ranks_together_see_the_batches_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [raw.indices.tolist() for raw in Noise().train_dataloader()]
    train0, *evaluation0 = of_rank(0, monkeypatch)
    train1, *evaluation1 = of_rank(1, monkeypatch)
    for batch, part0, part1 in zip(whole, train0, train1, strict=True):
        assert batch == [row for pair in zip(part0, part1, strict=True) for row in pair]
    for part0, part1, count in zip(evaluation0, evaluation1, (COUNT, 20, 20), strict=True):
        assert sorted(row for batch in part0 + part1 for row in batch) == list(range(count))


# ---- where a run was interrupted

# Lightning's own, with torch 2.15
trains = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Seen = list[tuple[int, list[int], float]]  # (epoch, indices, sum of the views) of each batch trained


class Recorder(LightningModule):
    """Trains one number; writes down what it sees."""

    def __init__(self, seen: Seen):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = seen

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total = sum(float(v.double().sum()) for v in batch.views)
        self.seen.append((self.trainer.datamodule.epoch, batch.indices.tolist(), total))  # type: ignore[attr-defined]
        return self.layer(batch.views[0].new_ones(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        assert batch.views[0].shape[1:] == (3, SIDE, SIDE)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0  # makes the loaders early, as schedules do
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interrupted(Exception):
    pass


class SaveAndDie(Callback):
    """After `steps` batches: saves, then stops the run as a signal would; in the middle of the next batch if asked."""

    def __init__(self, path: Path, steps: int, halfway: bool = False):
        self.path, self.steps, self.halfway = path, steps, halfway

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not self.halfway and trainer.fit_loop.total_batch_idx + 1 == self.steps:
            self.die(trainer)

    def on_before_zero_grad(self, trainer: Trainer, *_: Any) -> None:
        if self.halfway and trainer.fit_loop.total_batch_idx == self.steps:
            self.die(trainer)

    def die(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise Interrupted


def fit(data: Noise, callbacks: list[Callback], ckpt: Path | None = None, **options: Any) -> Seen:
    seen: Seen = []
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    trainer = Trainer(callbacks=callbacks, **{**quiet, "max_epochs": 3, **options})  # type: ignore[arg-type]
    try:
        trainer.fit(Recorder(seen), datamodule=data, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
    except Interrupted:
        pass
    finally:
        data.teardown("fit")
    return seen


def workers(count: int) -> dict[str, Any]:
    return {"num_workers": count, "engine": "worker" if count else "device"}


@trains
@pytest.mark.parametrize(
    ("steps", "loading", "options"),
    [
        *((steps, workers(0), {}) for steps in (1, 4, 5, 6, 14)),
        *((steps, workers(2), {}) for steps in (3, 5)),
        (7, workers(0), {"max_epochs": -1, "max_steps": 12}),
        (10, workers(0), {"max_epochs": -1, "max_steps": 12}),
        (4, workers(0), {"accumulate_grad_batches": 2}),
        (7, workers(0), {"accumulate_grad_batches": 2}),
        (4, workers(0), {"limit_train_batches": 3}),
    ],
)
def test_a_resumed_run_sees_exactly_what_is_left(
    tmp_path: Path, steps: int, loading: dict[str, Any], options: dict[str, Any]
) -> None:
    whole = fit(Noise(**loading), [], **options)
    first = fit(Noise(**loading), [SaveAndDie(tmp_path / "x.ckpt", steps)], **options)
    rest = fit(Noise(**loading), [], tmp_path / "x.ckpt", **options)
    assert first == whole[:steps]
    assert rest == whole[steps:]


@trains
def test_a_batch_interrupted_halfway_is_trained_again(tmp_path: Path) -> None:
    whole = fit(Noise(), [])
    assert fit(Noise(), [SaveAndDie(tmp_path / "x.ckpt", 6, halfway=True)])[:6] == whole[:6]
    assert fit(Noise(), [], tmp_path / "x.ckpt") == whole[6:]


@trains
def test_a_resumed_run_can_be_resumed_again(tmp_path: Path) -> None:
    whole = fit(Noise(), [])
    one, two = tmp_path / "1.ckpt", tmp_path / "2.ckpt"
    parts = fit(Noise(), [SaveAndDie(one, 4)]) + fit(Noise(), [SaveAndDie(two, 8)], one) + fit(Noise(), [], two)
    assert parts == whole
    state = torch.load(two, weights_only=True)
    assert state["Noise"] == {"epoch": 1, "images": 24, "images_per_step": 8, "ranks": 1}


@trains
def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    whole = fit(Noise(), [], max_epochs=-1, max_steps=12)
    first = fit(Noise(), [SaveAndDie(tmp_path / "x.ckpt", 8)], max_epochs=-1, max_steps=8)
    assert first + fit(Noise(), [], tmp_path / "x.ckpt", max_epochs=-1, max_steps=12) == whole


@trains
def test_the_same_data_starts_again_at_zero_in_another_run() -> None:
    data = Noise()
    assert fit(data, [], max_epochs=1) == fit(data, [], max_epochs=1)


@trains
def test_overfitting_repeats_the_very_same_batches() -> None:
    seen = fit(Noise(), [], overfit_batches=2)
    assert seen[0] == seen[2] == seen[4]
    assert seen[1] == seen[3] == seen[5] != seen[0]


def test_the_position_without_a_trainer_is_what_was_loaded() -> None:
    data = Noise()
    data.load_state_dict({"epoch": 1, "images": 24, "images_per_step": 8, "ranks": 1})
    assert [raw.epoch for raw in data.train_dataloader()] == [1, 1]
    assert data.state_dict() == {"epoch": 1, "images": 24, "images_per_step": 8, "ranks": 1}


def test_the_position_of_an_older_checkpoint_is_read() -> None:
    data = Noise()
    data.load_state_dict({"epoch": 1, "batch": 3})
    assert [raw.epoch for raw in data.train_dataloader()] == [1, 1]


def state_of(images_per_step: int, ranks: int) -> dict[str, int]:
    return {"epoch": 1, "images": 3 * images_per_step, "images_per_step": images_per_step, "ranks": ranks}


@pytest.mark.parametrize(("ranks", "share"), [(1, 24), (2, 12), (4, 6), (8, 3)])
def test_the_images_of_a_step_are_shared_among_the_ranks_of_today(
    ranks: int, share: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    data = Noise(count=120)
    data.load_state_dict(state_of(24, 3))
    assert data.batch_size == share
    assert data.position() == (1, 3)
    assert capsys.readouterr().out.count(f"24 images a step on 3 devices; now each of {ranks} takes {share}") == 1


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="16 images a step on 1 device, and this run has 8; set batch_size=16"):
        Noise().load_state_dict(state_of(16, 1))
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UserError, match="16 images a step on 2 devices, and 3 devices cannot divide that equally"):
        Noise().load_state_dict(state_of(16, 2))
    data = Noise(batch_size=4)
    data.train_dataloader()
    with pytest.raises(UserError, match="24 images a step on 2 devices; for 3 set batch_size=8"):
        data.load_state_dict(state_of(24, 2))
