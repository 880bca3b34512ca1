"""Two processes: small evaluation sets, stages that judge, and another number on resume."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.data.sampler import DealtSampler
from ssl_lightning.evaluation.features import extract
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.stages import embed, export, finetune, knn, linear
from ssl_lightning.stages.training import LabelledData, crop_and_flip
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from tests.gloo import run_two
from tests.methods.harness import SmoothBackbone
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged
from tests.two_ranks import BATCH, data_for, fit, method_for, state_of, trainer_of

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")]
RESUMED = ("simclr", "moco", "dino", "mae")
SAVED_AT = 4  # a step in the middle of the second epoch
SMALL_SETS = (1, 3, 9)  # evaluation images, in batches of four on two ranks
TIMES = ("seconds", "peak_memory_mb", "images_per_second", "samples_per_second")


def validated(ranks: int, test: int) -> dict[str, float]:
    """kNN and probe during a training, on `test` queries and as many bank images."""
    method = method_for("simclr")
    data = data_for(method, "simclr", BATCH // ranks, test=test, bank_size=test)
    watching = [OnlineKNN(k=1), OnlineProbe(every_n_steps=1)]
    trainer = trainer_of(ranks, callbacks=watching, precision="64-true")
    trainer.fit(method, datamodule=data)
    return {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}


def picked(ranks: int, held: int) -> dict[str, Any]:
    """Fine-tuning in float64 that is judged on `held` images."""
    torch.manual_seed(0)
    recipe = OptimizerRecipe(torch.optim.SGD, 1.0, 0.0, WarmupCosine(0))
    module = Finetuner(SmoothBackbone(), Classify.of(3), recipe).double()
    source = data_for(method_for("simclr"), "simclr", BATCH // ranks)
    every = torch.arange(len(source.train_set))
    parts = every[:BATCH], every[BATCH : BATCH + held]
    data = LabelledData(source, *parts, crop_and_flip(4, (0.5, 1.0)), BATCH // ranks)
    data.on_after_batch_transfer = source.on_after_batch_transfer  # type: ignore[method-assign]
    source._device_views = data.drawn._device_views  # type: ignore[attr-defined]  # float64 views, of one crop
    trainer_of(ranks, precision="64-true").fit(module, datamodule=data)
    return {"picking": list(module.picking), "state": state_of(module)}


def stages(rank: int, ranks: int, folder: Path, test: int) -> dict[str, Any]:
    """The results of each stage that judges, on `test` images; rank 0 alone writes."""
    out, run = folder / f"{ranks}-{test}", str(folder / "run")
    trainer = a_trainer(out)
    found = {}
    for name, stage in (("knn", knn), ("linear", linear), ("embed", embed), ("export", export)):
        data = TinyData(train=50, test=test, batch_size=8)
        needed = {"data": data, "trainer": trainer, "run": a_folder(out / f"{name}-{rank}"), "seed": 0}
        taken = stage.run.__code__.co_varnames[: stage.run.__code__.co_argcount]
        found[name] = stage.run(judged(run), **{key: needed[key] for key in taken if key in needed})
    return found


def trained_stages(rank: int, folder: Path) -> dict[str, Any]:
    """The stages that train, on two ranks, with one image to pick on and one to test on."""

    def trainer(callbacks: Any = None, subfolder: str | None = None, **overrides: Any) -> Any:
        return trainer_of(2, callbacks=callbacks or [], **{"enable_checkpointing": bool(callbacks), **overrides})

    data = TinyData(train=6, test=1, batch_size=8, num_workers=0)
    run, place = judged(str(folder / "run")), folder / "trained"
    tuned, probed = (place / name for name in ("finetune", "linear"))
    shared = [a_folder(path) if rank == 0 else _opened(path) for path in (tuned, probed)]
    return {
        "finetune": finetune.run(run, data, trainer, shared[0], 0, epochs=2, batch_size=2, warmup_epochs=0),
        "linear": linear.run(run, data, trainer, shared[1], 0, augmented=True, epochs=2, batch_size=2),
    }


def _opened(path: Path) -> Any:
    from ssl_lightning.runs.folder import RunFolder

    return RunFolder(path)


def on_two(rank: int, ranks: int, folder: str) -> dict[str, Any]:
    """All that needs two processes, in one start of them."""
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    place = Path(folder)
    return {
        "validated": {n: validated(ranks, n) for n in SMALL_SETS},
        "picked": {n: picked(ranks, n) for n in SMALL_SETS},
        "whole": {name: fit(name, ranks, 4, place / f"{name}-2.ckpt", SAVED_AT) for name in RESUMED},
        "resumed": {name: fit(name, ranks, 4, ckpt=place / f"{name}-1.ckpt") for name in RESUMED},
        "stages": {n: stages(rank, ranks, place, n) for n in (1, 21)},
        "trained": trained_stages(rank, place),
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process; saves what the two go on from."""
    folder = tmp_path_factory.mktemp("devices")
    a_run(folder / "run")
    whole = {name: fit(name, 1, 8, folder / f"{name}-1.ckpt", SAVED_AT) for name in RESUMED}
    return {"folder": folder, "whole": whole}


@pytest.fixture(scope="module")
def two(one: dict[str, Any]) -> list[dict[str, Any]]:
    return run_two(on_two, str(one["folder"]))


# ---- small evaluation sets


@pytest.mark.parametrize("images", SMALL_SETS)
def test_a_small_validation_equals_that_of_one_process(images: int, two: list[dict[str, Any]]) -> None:
    alone = validated(1, images)
    assert set(alone) == {"val/knn_top1", "val/probe_top1"}
    for rank in two:
        assert rank["validated"][images] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("held", SMALL_SETS)
def test_a_small_picking_split_equals_that_of_one_process(held: int, two: list[dict[str, Any]]) -> None:
    alone = picked(1, held)
    for rank in two:
        assert rank["picked"][held]["picking"] == pytest.approx(alone["picking"], abs=1e-6)  # losses are float32
        for key, value in alone["state"].items():
            torch.testing.assert_close(rank["picked"][held]["state"][key], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("test", [1, 21])
def test_judging_stages_give_what_one_process_gives(test: int, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    alone = stages(0, 1, one["folder"], test)
    for rank, found in enumerate(two):
        for name, results in found["stages"][test].items():
            for key, value in alone[name].items():
                if key not in (*TIMES, "files"):
                    assert results[key] == value, (rank, name, key)
    written = {p.name for p in (one["folder"] / f"2-{test}" / "embed-0").iterdir()}
    assert written == {"features_train.npz", "features_test.npz", "report.npz"}
    assert not list((one["folder"] / f"2-{test}" / "embed-1").iterdir())


def test_training_stages_agree_on_both_ranks(two: list[dict[str, Any]]) -> None:
    left, right = (json.loads(json.dumps(rank["trained"])) for rank in two)
    for found in (left, right):
        for results in found.values():
            for key in TIMES:
                results.pop(key, None)
    assert left == right
    assert left["finetune"]["finetune_top1"] in (0.0, 1.0)  # one image


def test_every_rank_gets_as_many_batches_and_each_row_once() -> None:
    for count in range(12):
        wanted = torch.arange(count) + 5
        for ranks in (1, 2, 3, 5):
            dealt = [DealtSampler(wanted, 2, r, ranks, even=True) for r in range(ranks)]
            batches = [[request.rows.tolist() for request in sampler] for sampler in dealt]
            assert len({len(sampler) for sampler in dealt}) == 1
            assert [len(sampler) for sampler in dealt] == [len(b) for b in batches]
            assert sorted(row for part in batches for batch in part for row in batch) == wanted.tolist()
            whole = [batch.tolist() for batch in wanted.split(2)] if count else []
            assert all(batch in whole for part in batches for batch in part if batch)


def test_features_do_not_depend_on_the_number_of_ranks_by_one_bit() -> None:
    data = TinyData(train=30, test=30, batch_size=7)
    net = judged_net()
    whole = extract(net, data.eval_loader("test"))
    parts = []
    for rank in range(2):
        loader = data.eval_loader("test", shared=False)
        loader.requests = DealtSampler(torch.arange(30), 7, rank, 2)
        parts.append(extract(net, loader))
    order = torch.cat([part.indices for part in parts]).argsort()
    assert torch.equal(torch.cat([part.x for part in parts])[order], whole.x)


def judged_net() -> nn.Module:
    from ssl_lightning.models.convnet import ConvNetSmall

    torch.manual_seed(1)
    return ConvNetSmall(4)


# ---- another number of devices


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_with_another_number_of_devices(
    name: str, one: dict[str, Any], two: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = one["whole"][name]
    fewer = fit(name, 1, 4, ckpt=one["folder"] / f"{name}-2.ckpt")  # two ranks of 4 -> one of 8
    assert "made with 8 images a step on 2 devices; now each of 1 takes 8" in capsys.readouterr().out
    assert fewer["batch_size"] == 8
    assert fewer["rows"] == whole["rows"][SAVED_AT:]
    assert all(rank["whole"][name]["sent"] == [] for rank in two)  # there is no BatchNorm in it
    begun = method_for(name).state_dict()
    assert max((whole["state"][key] - value).abs().max() for key, value in begun.items()) > 1e-3  # it has learned
    more = [rank["resumed"][name] for rank in two]  # one rank of 8 -> two of 4
    shared = [sorted(a + b) for a, b in zip(*(rank["rows"] for rank in more), strict=True)]
    assert shared == [sorted(step) for step in whole["rows"][SAVED_AT:]]
    for found in (fewer, *more, *(rank["whole"][name] for rank in two)):
        for key, value in whole["state"].items():
            if key.startswith("queue."):  # the ranks' keys enter in another order
                continue
            torch.testing.assert_close(found["state"][key], value, rtol=0, atol=1e-9)
