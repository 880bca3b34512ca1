"""Reseed: what a step draws depends on (seed, rank, batch number) alone."""

from pathlib import Path
from types import SimpleNamespace

import torch
from lightning.pytorch import Callback

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.reseed import Reseed, step_seed
from tests.callbacks.toy import ToyMethod, fit
from tests.parts.test_ema_teacher import StopAfter


class Draws(Callback):
    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen[trainer.global_step] = torch.rand(()).item()


def test_draws_are_the_same_after_a_resume_and_differ_from_step_to_step(tmp_path: Path) -> None:
    whole, first, second = Draws(), Draws(), Draws()
    fit(ToyMethod(), tmp_path, [Reseed(3), whole], max_epochs=3)
    fit(ToyMethod(), tmp_path, [Reseed(3), first, StopAfter(1), Checkpoint(tmp_path)], max_epochs=3)
    torch.rand(17)
    fit(ToyMethod(), tmp_path, [Reseed(3), second], ckpt_path=tmp_path / "checkpoints/last.ckpt", max_epochs=3)
    assert len(whole.seen) == 15
    assert len(set(whole.seen.values())) == 15
    assert first.seen | second.seen == whole.seen
    assert set(first.seen) & set(second.seen) == set()


def test_ranks_draw_differently() -> None:
    """Dropout alike on all ranks would be dropout of a smaller batch."""

    def drawn(rank: int, ready: int) -> float:
        progress = SimpleNamespace(total=SimpleNamespace(ready=ready))
        trainer = SimpleNamespace(
            global_rank=rank, fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        )
        Reseed(3).on_train_batch_start(trainer, SimpleNamespace(device=torch.device("cpu")), None, 0)  # type: ignore[arg-type]
        return torch.rand(()).item()

    seen = [drawn(rank, ready) for rank in range(4) for ready in range(3)]
    assert len(set(seen)) == 12
    assert drawn(2, 1) == seen[2 * 3 + 1]


def test_micro_batches_of_one_step_draw_differently(tmp_path: Path) -> None:
    class All(Draws):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen[batch_idx] = torch.rand(()).item()

    draws = All()
    fit(ToyMethod(), tmp_path, [Reseed(3), draws], max_epochs=1, accumulate_grad_batches=5)
    assert len(set(draws.seen.values())) == 5


def test_seeds_of_neighbours_are_far_apart() -> None:
    seeds = {step_seed(seed, rank, step) for seed in range(3) for rank in range(4) for step in range(200)}
    assert len(seeds) == 3 * 4 * 200
    assert all(0 <= s < 2**63 for s in seeds)
    bits = torch.tensor([[(s >> b) & 1 for b in range(63)] for s in seeds], dtype=torch.float64)
    assert (bits.mean(0) - 0.5).abs().max() < 0.05
