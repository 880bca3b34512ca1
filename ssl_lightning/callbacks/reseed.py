"""Random numbers of a training step as a pure function of the step: what dropout draws is the same after a resume."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

_MASK = (1 << 64) - 1


def step_seed(seed: int, rank: int, step: int) -> int:
    """A 63-bit seed from three integers, far apart for neighbouring ones (splitmix64, Steele et al. 2014)."""
    state = 0
    for value in (seed, rank, step):
        state = (state ^ (value & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


class Reseed(Callback):
    """Seeds torch on the CPU and on this rank's device from (seed, rank, batches seen) before each training batch.

    Lightning restores no generator on resume, and even if it did, whatever drew a number between two steps (a probe, a
    validation) would shift the rest of the run. It costs a few microseconds a step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        batches_seen = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        seed = step_seed(self.seed, trainer.global_rank, batches_seen)
        # Not torch.manual_seed, which also queues a call for each kind of device that is absent: 100 times the cost.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
