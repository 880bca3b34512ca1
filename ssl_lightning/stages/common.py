"""What evaluating stages share: the backbone of a `ckpt=`, its random twin, the features that count, and the report."""

import copy
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from ssl_lightning.callbacks.step_logger import peak_memory_mb
from ssl_lightning.core import progress
from ssl_lightning.core.distributed import gather_rows, is_main, world_size
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.words import named_baseline
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.sampler import permutation
from ssl_lightning.evaluation import verdict
from ssl_lightning.evaluation.features import Features, evaluating
from ssl_lightning.evaluation.judge import calibrate_batchnorm
from ssl_lightning.runs.checkpoint import (
    build_backbone,
    load_weights,
    no_larger,
    resolve_ckpt,
    restored,
    untrained,
)
from ssl_lightning.stages.kept_features import Cache, features_of

CALIBRATION_ITEMS = 2048
CALIBRATION_BATCH = 128  # whatever data.batch_size is: the statistics depend on it, and are to be those of any stage
IMAGE = "image"
Embed = Callable[[Tensor], Tensor]


class MakeTrainer(Protocol):
    """What a stage is handed to train with: each call makes a trainer, as configured but for what the call says."""

    def __call__(
        self, callbacks: list[Callback] | None = None, subfolder: str | None = None, **overrides: Any
    ) -> Trainer:
        """A new trainer.

        Args:
            callbacks: a stage's own instead of the configured ones (progress and interrupt stay); [] for none at all.
            subfolder: of the run, for a stage that trains several times; or a whole path.
            overrides: arguments of lightning.Trainer that win over the configured ones.
        """


@dataclass(frozen=True)
class Judged:
    """A pretrained backbone, one of the same build with random weights, the card of both, and where they came from."""

    backbone: nn.Module
    random: nn.Module
    card: dict[str, Any]  # `card["backbone"]` is the config node that builds them
    ref: str
    trusted: tuple[str, ...] = ()  # packages of the user's own, for what else the file names

    @property
    def method(self) -> str:
        """The method that trained it, as far as the file tells."""
        return str(self.card.get("method") or "unknown")


def open_backbone(
    ckpt: str | Path | None,
    node: Mapping[str, Any],
    chosen: bool = False,
    seed: int = 0,
    trusted: Iterable[str] = (),
) -> Judged:
    """The backbone that `ckpt` holds, built as its own card says; its random twin depends on `seed` alone.

    The configured `node` builds it where the file has no card (a bare state_dict), or where the user chose one
    (`chosen`): then the weights must fit it. Raises UserError without a ckpt, and for the weights of another backbone.
    """
    if ckpt is None:
        raise UserError("this stage needs weights; give ckpt=runs/<name>, a weights file or timm:<name>")
    checkpoint = resolve_ckpt(ckpt)
    card = checkpoint.card
    if card is None or chosen:
        card = {**(card or {}), "backbone": untrained(node)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = build_backbone(card, trusted, checkpoint.ref, checkpoint.state)
    trusted = tuple(trusted)
    return Judged(restored(replace(checkpoint, card=card), trusted), random, card, checkpoint.ref, trusted)


@dataclass(frozen=True)
class Start:
    """A backbone that a training begins with: with the weights of a `ckpt`, and its twin with random ones.

    loaded: False where a resumed run no longer finds the weights that it began with; its checkpoint holds all it needs.
    """

    backbone: nn.Module
    random: nn.Module
    ref: str
    loaded: bool = True


def begin(
    ckpt: str | Path, node: Mapping[str, Any], build: Callable[[dict[str, Any]], nn.Module], resumed: bool = False
) -> Start:
    """The backbone of a config `node`, made by `build`, with the weights of `ckpt`; raises UserError for a partial fit.

    Its random twin has the weights that the same run would begin with without a `ckpt`.
    """
    plain = untrained(node or {})
    try:
        checkpoint = resolve_ckpt(ckpt)
    except UserError as error:
        if not resumed:
            raise
        if is_main():
            print(f"{error}; going on from the run's own checkpoint", file=sys.stderr)
        backbone = build(plain)
        return Start(backbone, copy.deepcopy(backbone), str(ckpt), loaded=False)
    with no_larger(checkpoint):
        backbone = build(plain)
    random = copy.deepcopy(backbone)
    load_weights(backbone, checkpoint)
    return Start(backbone, random, checkpoint.ref)


def same_items(judged: Judged, data: DataModule) -> None:
    """Feed a network as in its training (an image: of as many channels, scaled by the same range of values).

    Called before any item is read: what the data states itself stays. Raises UserError for data that it cannot take.
    """
    theirs = judged.card.get("modality")  # a card that says none is of images, or of weights that may start anything
    theirs = theirs or (IMAGE if "image_size" in judged.card else None)
    if theirs and data.modality and theirs != data.modality:
        raise UserError(f"this backbone was trained on {theirs} and the data is {data.modality}; choose other data=")
    data.check_network(judged.backbone)
    data.fed_as(judged.card)


def check_batch(method: nn.Module, data: DataModule) -> None:
    """Refuse a batch of one item where a head's BatchNorm has nothing to average over."""
    if data.batch_size == 1 and any(isinstance(m, nn.BatchNorm1d | nn.SyncBatchNorm) for m in method.modules()):
        raise UserError(
            f"a batch of 1 {data.noun} is too few for the BatchNorm of this method; set data.batch_size=2 or more"
        )


def device_of(trainer: MakeTrainer) -> torch.device:
    """The device that the configured trainer would use."""
    quiet = trainer(callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return torch.device(quiet.strategy.root_device)


# ---- features ------------------------------------------------------------------------------------------------------


def split_features(
    embed: Embed, data: DataModule, device: torch.device, of: str = "the network", cache: Cache = None
) -> tuple[Features, Features]:
    """Features of the training images whose labels may be used, and of all test images. `of`: whose they are."""
    rows = data.labelled_indices("train")
    with progress.phase(f"features of {of}, {len(rows):,} training {data.noun}s"):
        train = features_of(embed, data, "train", rows, device, cache)
    with progress.phase(f"features of {of}, {len(data.test_set):,} test {data.noun}s"):
        found = train, features_of(embed, data, "test", None, device, cache)
    data.teardown("predict")  # ends the loaders' processes
    return found


def split_random_features(
    backbone: nn.Module, data: DataModule, device: torch.device, cache: Cache = None
) -> tuple[Features, Features]:
    """The same for a backbone with random weights, its BatchNorm statistics calibrated on training images."""
    calibrated(backbone, data, device)
    return split_features(backbone, data, device, "random weights", cache)


def calibrated(backbone: nn.Module, data: DataModule, device: torch.device) -> nn.Module:
    """The same backbone on the device, the BatchNorm statistics of its random weights set on training images."""
    backbone.to(device)
    with progress.phase("statistics of random weights"):
        calibrate_batchnorm(backbone, (batch.to(device) for batch in calibration_batches(data)))
    return backbone


def calibration_batches(data: DataModule) -> Iterator[Any]:
    """Some training items, seeded, in evaluation view: (B, ...) each; the same on every rank."""
    rows = permutation(len(data.probe_set), "calibration", data.seed)[:CALIBRATION_ITEMS].sort().values
    return (batch.views[0] for batch in data.eval_loader("train", rows, False, CALIBRATION_BATCH))


def naive_features(data: DataModule, train: Features, test: Features) -> tuple[Tensor, Tensor]:
    """The naive baseline of exactly the items these features are of (a broken file has none): (N, P) and (M, P)."""
    with progress.phase(named_baseline(data.naive_name)):
        return data.naive_features("train", train.indices), data.naive_features("test", test.indices)


def positive_pairs(
    embed: Embed, data: DataModule, device: torch.device, images: int = 2048
) -> tuple[Tensor, Tensor] | None:
    """Features (N, D), (N, D) of two training views of the same items; None where data draws fewer than two."""
    if data.global_count < 2:
        return None
    firsts, seconds = [], []
    batches = -(-images // (data.batch_size * world_size()))  # the same number on every rank
    with evaluating(embed), torch.no_grad():
        for raw, _ in zip(data.train_dataloader(), range(batches)):
            batch = data.on_after_batch_transfer(data.transfer_batch_to_device(raw, device, 0))
            first, second = (embed(view.to(device)).float() for view in batch.global_views[:2])  # (B, D)
            firsts.append(gather_rows(first).cpu())
            seconds.append(gather_rows(second).cpu())
    data.teardown("predict")
    return (torch.cat(firsts), torch.cat(seconds)) if firsts else None


def need_finite(*splits: tuple[str, Features], noun: str = "image", error: type[UserError] = UserError) -> None:
    """Stop an evaluating stage before it gives a number for features that are none."""
    for split, features in splits:
        if bad := verdict.not_finite(features.x, split, noun):
            raise error(bad)


# ---- the report ----------------------------------------------------------------------------------------------------


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def speed(data: DataModule, per_second: float) -> dict[str, float]:
    """Items a second for results.json, where the figure of images has a name of its own as well."""
    rate = round(per_second, 1)
    return ({"images_per_second": rate} if data.modality == IMAGE else {}) | {"samples_per_second": rate}


def report(judged: Judged, watch: Stopwatch, **found: Any) -> dict[str, Any]:
    """What an evaluating stage adds to results.json: what was evaluated, what was found, how long it took."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cost = {"seconds": round(watch.seconds, 2), "peak_memory_mb": round(peak_memory_mb(device), 1)}
    return {"method": judged.method, **found, "ckpt": judged.ref, **cost}
