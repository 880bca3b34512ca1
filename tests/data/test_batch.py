"""The raw batch: that Lightning can move it; and which roles the data module and a plain loader give to views."""

import torch
from lightning.fabric.utilities import move_data_to_device

from ssl_lightning.core import batch as core
from ssl_lightning.data.batch import Batch, RawBatch
from ssl_lightning.methods.plain import batch_of
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages
from ssl_lightning.modalities.image.views import LocalView, View, Views


def test_the_old_path_leads_to_the_same_class() -> None:
    assert Batch is core.Batch


def test_a_raw_batch_moves_as_a_whole() -> None:
    raw = RawBatch([torch.zeros(2, 4, 4, 3, dtype=torch.uint8)], torch.zeros(2), torch.arange(2), 7, torch.empty(0))
    moved = move_data_to_device(raw, torch.device("meta"))
    assert isinstance(moved, RawBatch)
    assert moved.images[0].device.type == moved.indices.device.type == "meta"
    assert moved.epoch == 7


class Noise(DataModule):
    def load(self) -> Loaded:
        images = ArrayImages(torch.randint(256, (8, 12, 12, 3), dtype=torch.uint8), torch.arange(8) % 2, ["a", "b"])
        return images, images


def test_roles_are_the_names_of_the_views_not_their_sizes() -> None:
    views = Views(View(12, count=2), View(8), local=View(12, count=2))
    assert views.roles() == ("global",) * 3 + ("local",) * 2
    for engine in ("device", "worker"):
        data = Noise(views, batch_size=4, image_size=12, num_workers=0, engine=engine)  # type: ignore[arg-type]
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
        assert batch.roles == views.roles()
        assert [view.shape[-1] for view in batch.global_views] == [12, 12, 8]
        assert [view.shape[-1] for view in batch.local_views] == [12, 12]
    one = next(iter(data.eval_loader("test")))
    assert one.roles == ()
    assert len(one.global_views) == 1


def test_a_multi_crop_yaml_gives_two_roles() -> None:
    assert Views(View(12, count=2), local=LocalView(12, count=3)).roles() == ("global",) * 2 + ("local",) * 3


def test_a_plain_batch_gets_its_roles_by_size_once() -> None:
    found = batch_of(([torch.zeros(2, 3, s, s) for s in (32, 32, 16, 40)], torch.zeros(2).long()), 0)
    assert found.roles == ("global", "global", "global", "local")
    assert [view.shape[-1] for view in found.views] == [32, 32, 40, 16]
    assert batch_of(found, 1) is found
