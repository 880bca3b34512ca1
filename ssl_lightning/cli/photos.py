"""`experiment=photos`: network, method, epochs, batch and image size by the photos, and by whether there is a GPU.

The choices are words of a command line, as those of `picks.py`: whatever the user says of a key stands. They depend on
the folder, on how many photos it holds and how large these are, and on one question to the machine: with a GPU or
without. A run that was begun goes on as it was begun, wherever it is.

Where they are from: published runs of lightly and solo-learn with ResNet-18 give 84.8 % kNN on CIFAR-10's 50,000
images in 200 epochs at a batch of 512, 77 to 80 % linear on ImageNet-100's 127,000 in 400, and 87 to 90 % kNN on 9,500
images of Imagenette at 128 px in 800; in short ones docs/results.md has the order of the methods. Fewer images need
more epochs for as many steps. Without a GPU the network and the images are small: by stage=doctor, November 2026, one
thread of a busy CPU learned from about 6 images a second with resnet18 at 128 px, and from 75 with convnet_small at 64.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import places

NAME = "photos"
SIDES = (32, 64, 96, 128, 224)  # pixels that images are brought to
LOOKED_AT = 64  # headers, evenly spread
SIDE_ON_CPU = 64
PER_SECOND = 75  # images of 64 px on a CPU core, see above
OF_DEBUG = ("data.batch_size", "trainer.max_epochs")  # what debug= decides
HOURS, CORES = 3, 4  # about so long a training takes at the most on so many
EPOCHS = (300, 200, 100, 50, 20)
DEFAULT_NETWORK = "convnet_small"  # of conf/config.yaml: one that no method has chosen


@dataclass(frozen=True)
class Photos:
    """How many there are to train on, and the shorter side that nine in ten of them have at least."""

    count: int
    side: int


class Choice(NamedTuple):
    """A word of the command line and why."""

    key: str
    value: Any
    why: str

    @property
    def word(self) -> str:
        return f"{self.key}={self.value}"


def added(typed: Sequence[Override], chosen: Callable[[Sequence[str]], Mapping[str, Any]]) -> list[str]:
    """The words that `experiment=photos` adds to a command line; mostly none."""
    single = {o.key_or_group: o for o in typed if not o.is_sweep_override()}
    if "experiment" not in single or single["experiment"].value() != NAME:
        return []
    root = single["data.root"].value() if "data.root" in single else None
    photos = counted(str(root)) if root is not None else None
    if photos is None:
        return []
    keys = {o.key_or_group for o in typed}
    words = [str(o.input_line) for key, o in single.items() if key in ("experiment", "method", "backbone", "data")]
    network = str(chosen(words).get("backbone"))  # of a method that has one of its own, too
    here = gpu_here({key: o.value() for key, o in single.items() if key.startswith("trainer")})
    free = {gpu: [c for c in choices(photos, gpu) if not _said(c.key, keys)] for gpu in (here, not here)}
    gpu = here if _begun(single, free[here]) or not _begun(single, free[not here]) else not here
    return [c.word for c in free[gpu] if _fits(c.key, network, keys)]


def gpu_here(trainer: Mapping[str, Any]) -> bool:
    """Will this be trained on a GPU? By the `trainer` words of a command line, else by what the machine has."""
    asked = str(trainer.get("trainer.accelerator") or trainer.get("trainer") or "auto")
    if asked in ("cpu", "ddp_cpu"):
        return False
    if asked in ("gpu", "cuda", "mps", "ddp"):
        return True
    import torch

    return torch.accelerator.is_available()


def _begun(single: Mapping[str, Override], wanted: Sequence[Choice]) -> bool:
    """Has a run of this command begun with these choices?"""
    words = {choice.key: str(choice.value) for choice in wanted} | {key: str(o.value()) for key, o in single.items()}
    if words.get("resume") == "never":
        return False
    ends = f"-{words['debug']}" if "debug" in words else ""
    name = words.get("name") or f"{words.get('method', 'simclr')}-{words.get('data', 'folder')}{ends}"
    try:
        stored = places.config_of(Path(words.get("runs_dir", "runs")).expanduser() / name)
    except UserError:
        return False
    chosen = stored.get("choices")
    if not isinstance(chosen, Mapping) or chosen.get("experiment") != NAME:
        return False
    return all(_stands(c, chosen, stored) for c in wanted if c.key in ("data.image_size", "trainer.max_epochs"))


def lines(chosen: Mapping[str, Any], values: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """Why each of these words was added, a line each; `chosen`: the option of each group."""
    root = (values.get("data") or {}).get("root")
    photos = counted(str(root)) if chosen.get("experiment") == NAME and root else None
    if photos is None:
        return []
    keys = {word.partition("=")[0].lstrip("+") for word in typed}
    here = gpu_here({"trainer.accelerator": (values.get("trainer") or {}).get("accelerator")})
    plans = {
        gpu: [c for c in choices(photos, gpu) if not _said(c.key, keys) and _stands(c, chosen, values)]
        for gpu in (here, not here)
    }
    gpu = max(plans, key=lambda gpu: len(plans[gpu]))  # the first of equals
    kept = plans[gpu]
    few = ["  few to learn from: start from pretrained weights, ckpt=timm:resnet18.a1_in1k"] * (photos.count < 500)
    head = (
        f"{photos.count:,} photos to train on, shorter side {photos.side} px or more, {'a GPU' if gpu else 'no GPU'}:"
    )
    if gpu != here:
        head = f"as this run was begun, {'with' if gpu else 'without'} a GPU: {head}"
    return [head, *(f"  {choice.word}: {choice.why}" for choice in kept), *few] if kept else []


def choices(photos: Photos, gpu: bool = True) -> list[Choice]:
    """What is chosen for so many photos of such a size, to be trained on a GPU or without one.

    >>> [choice.word for choice in choices(Photos(1200, 300))][:3]
    ['backbone=resnet18', 'method=simclr', 'data.image_size=128']
    >>> [choice.word for choice in choices(Photos(1200, 300), gpu=False)][:3]
    ['backbone=convnet_small', 'method=simclr', 'data.image_size=64']
    """
    return _on_gpu(photos) if gpu else _on_cpu(photos)


def _batch(count: int) -> int:
    batch = 256 if count >= 5_000 else 128 if count >= 1_000 else 64
    return min(batch, max(2, 2 ** (max(count // 4, 1).bit_length() - 1)))


def _on_cpu(photos: Photos) -> list[Choice]:
    count, side = photos.count, photos.side
    size = max([s for s in SIDES if s <= min(side, SIDE_ON_CPU)], default=max(16, side // 8 * 8))
    batch, rate = _batch(count), PER_SECOND * (SIDE_ON_CPU / size) ** 2 * CORES
    seconds = {epochs: epochs * count / rate for epochs in EPOCHS}
    epochs = next((n for n in EPOCHS if seconds[n] <= HOURS * 3600), EPOCHS[-1])
    steps, hours = epochs * (count // batch), seconds[epochs] / 3600
    long = f"{hours:.0f} hours" if hours >= 2 else f"{max(1, round(60 * hours))} min"
    found = [
        Choice(
            "backbone", DEFAULT_NETWORK, "no GPU: resnet18 at 128 px learns from about 6 images a second and CPU core"
        ),
        Choice("method", "simclr", "one of the methods that learn most in few steps (docs/results.md)"),
        Choice(
            "data.image_size", size, "as large as the photos" if size > side - 16 else "no GPU: 4 times as fast as 128"
        ),
        Choice("data.batch_size", batch, f"{count // batch} steps an epoch"),
        Choice("trainer.max_epochs", epochs, f"{steps:,} steps, about {long} on {CORES} CPU cores; see stage=doctor"),
    ]
    return [*found, *_views(steps)]


def _views(steps: int) -> list[Choice]:
    return [Choice("views", "sym", "long enough for the strong views of the paper")] if steps >= 10_000 else []


def _on_gpu(photos: Photos) -> list[Choice]:
    count, side = photos.count, photos.side
    size = max([s for s in SIDES if s <= min(side, 224 if count >= 10_000 else 128)], default=max(16, side // 8 * 8))
    batch = _batch(count)
    epochs = 300 if count < 2_000 else 200 if count < 50_000 else 100
    steps = epochs * (count // batch)
    if count < 100_000:
        found = [Choice("backbone", "resnet18", "a larger one is worth it from 100,000 photos on")]
    else:
        found = [Choice("backbone", "resnet50", "enough photos for a larger network")]
    if size <= 64:
        found.append(Choice("backbone.stem", "cifar", f"images of {size} px keep their resolution"))
    if count < 20_000:
        found.append(Choice("method", "simclr", "one of the methods that learn most in few steps (docs/results.md)"))
    else:
        found.append(
            Choice("method", "moco", "better than simclr in long published runs (92.9 against 90.7 % on CIFAR-10)")
        )
    why = "a third of the time of 224, and enough for so few" if size == 128 else "the usual size"
    found.append(Choice("data.image_size", size, "as large as the photos" if size > side - 16 else why))
    found.append(Choice("data.batch_size", batch, f"{count // batch} steps an epoch"))
    found.append(Choice("trainer.max_epochs", epochs, f"{steps:,} steps; stage=doctor says how long this takes here"))
    return [*found, *_views(steps)]


@lru_cache(maxsize=8)
def counted(root: str) -> Photos | None:
    """The photos under a folder; None where there are none, which the run says itself."""
    from ssl_lightning.data import layout
    from ssl_lightning.data.folder_scan import list_images
    from ssl_lightning.modalities.image.pixels import BROKEN, opened

    with contextlib.redirect_stderr(io.StringIO()):  # what there is to say of the folder the run says
        try:
            listing = list_images(Path(root).expanduser())
            train = layout.find_splits(listing).train
        except (UserError, OSError, RuntimeError):
            return None
    paths = (train or listing).paths()
    sides = []
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        with contextlib.suppress(*BROKEN), opened(path) as image:
            sides.append(min(image.size))
    if not sides:
        return None
    return Photos(len(paths) if train else max(1, len(paths) * 9 // 10), sorted(sides)[len(sides) // 10])


def _said(key: str, keys: set[str]) -> bool:
    """Does the command line set this key, or what it lies in?"""
    if "debug" in keys and key in OF_DEBUG:
        return True
    return key in keys or key.split(".")[0] in keys - {"data", "trainer"}


def _fits(key: str, network: str, keys: set[str]) -> bool:
    """A method's own network stands, and a stem is of the one that is chosen here."""
    if key == "backbone":
        return network == DEFAULT_NETWORK
    return key != "backbone.stem" or network == DEFAULT_NETWORK


def _stands(choice: Choice, chosen: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Is the config as this choice has it?"""
    group, _, key = choice.key.partition(".")
    if not key:
        return str(chosen.get(group)) == choice.value
    return (values.get(group) or {}).get(key) == choice.value
