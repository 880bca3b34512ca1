"""The batch types: what is global, what is local, and that Lightning can move them."""

import torch
from lightning.fabric.utilities import move_data_to_device

from ssl_lightning.data.batch import Batch, RawBatch


def test_views_as_large_as_the_first_are_global() -> None:
    sizes = (32, 32, 16, 16, 16)
    batch = Batch([torch.zeros(2, 3, s, s) for s in sizes], torch.zeros(2), torch.zeros(2))
    assert [v.shape[-1] for v in batch.global_views] == [32, 32]
    assert [v.shape[-1] for v in batch.local_views] == [16, 16, 16]


def test_a_raw_batch_moves_as_a_whole() -> None:
    raw = RawBatch([torch.zeros(2, 4, 4, 3, dtype=torch.uint8)], torch.zeros(2), torch.arange(2), 7, torch.empty(0))
    moved = move_data_to_device(raw, torch.device("meta"))
    assert isinstance(moved, RawBatch)
    assert moved.images[0].device.type == moved.indices.device.type == "meta"
    assert moved.epoch == 7
