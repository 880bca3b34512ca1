"""Evaluation features of a split, from the cache where they have been computed before.

The key is a digest of all that they depend on: the network (its weights, its settings, the sources of its classes), the
evaluation view, the items and their labels, the rows, the batch size, the device and the versions. Where any of these
cannot be told, nothing is kept.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_lightning.core.distributed import gather_objects, is_main, world_size
from ssl_lightning.data import digests
from ssl_lightning.data.base import DataModule, Split
from ssl_lightning.data.sampler import rows_of
from ssl_lightning.evaluation.feature_cache import FeatureCache
from ssl_lightning.evaluation.features import Features, extract, extract_parts

Cache = Literal["auto"] | None  # a stage's key: features are kept in the cache folder, or nowhere
FORMAT = 1  # raise when features come out otherwise
ROWS = 8192  # that are in memory at a time while they are written
LIBRARIES = ("torch", "torchvision", "timm")  # whose versions count, and not the sources of each class


def features_of(
    embed: Callable[[Tensor], Tensor],
    data: DataModule,
    split: Split,
    rows: Tensor | None,
    device: torch.device,
    cache: Cache = None,
) -> Features:
    """The features of these rows (M,) of a split, None for all; the same with and without `cache`, to the bit.

    From the cache they are mapped: rows that are not looked at are not in memory. Every rank calls this.
    """
    found = _kept(embed, data, split, rows, device, cache)
    return found if found is not None else extract(embed, data.eval_loader(split, rows), device)


def parts_kept(
    embed: Callable[[Tensor], Tensor], data: DataModule, split: Split, device: torch.device, cache: Cache, rows: int
) -> Iterator[Features]:
    """The features of a split by increasing index, about so many rows at a time, whether they could be kept or not."""
    found = _kept(embed, data, split, None, device, cache) if world_size() == 1 else None
    if found is None:
        yield from extract_parts(embed, data.eval_loader(split), device, rows // data.batch_size)
        return
    for start in range(0, len(found), rows):
        some = slice(start, start + rows)
        yield Features(found.x[some], found.labels[some], found.indices[some])


def _kept(
    embed: Callable[[Tensor], Tensor],
    data: DataModule,
    split: Split,
    rows: Tensor | None,
    device: torch.device,
    cache: Cache,
) -> Features | None:
    """The features from the cache, put there before if need be; None where they cannot be kept."""
    key = key_of(embed, data, split, rows, device) if cache else None
    if key is None or None in gather_objects(key):
        return None
    store = FeatureCache()
    found = store.read(key)
    if all(gather_objects(found is not None)) and found is not None:
        return found
    if world_size() > 1:
        whole = extract(embed, data.eval_loader(split, rows), device)
        if is_main():
            store.write(key, [whole], 4 * whole.x.numel())
        return whole
    items, width = data.probe_set if split == "train" else data.test_set, getattr(embed, "out_dim", 0)
    parts = extract_parts(embed, data.eval_loader(split, rows), device, ROWS // data.batch_size)
    size = 4 * len(rows_of(items, rows)) * (width if isinstance(width, int) else 0)
    written = store.write(key, parts, size)
    return store.read(key) if written else None


def key_of(
    embed: Callable[[Tensor], Tensor], data: DataModule, split: Split, rows: Tensor | None, device: torch.device
) -> str | None:
    """The name that these features are kept under; None where something that they depend on cannot be told."""
    if not isinstance(embed, nn.Module):
        return None
    items = data.probe_set if split == "train" else data.test_set
    chosen = rows_of(items, rows)
    parts = digests.of_items(items, chosen), digests.of_view(data.__class__, data.card()), network_digest(embed)
    if None in parts:
        return None
    told = {
        "format": FORMAT,
        "items, view, network": parts,
        "labels": digests.of_tensor(data.targets(split, chosen)),
        "split": split,
        "batch": (data.batch_size, world_size()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()),
        "versions": [importlib.metadata.version(name) for name in LIBRARIES],
    }
    return digests.of_mapping(told)


def network_digest(network: nn.Module) -> str | None:
    """Of weights and buffers, of the plain settings of each module, and of the source files of their classes."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):  # a state of its own
            return None
        digest.update(f"{name} {digests.of_tensor(tensor)}".encode())
    files = set[str]()
    for name, module in network.named_modules():
        own = {key: value for key, value in vars(module).items() if key != "training" and not key.startswith("__")}
        settings = {key: value for key, value in own.items() if digests.plain(value)}
        loose = {key: digests.of_tensor(value) for key, value in own.items() if isinstance(value, Tensor)}
        digest.update(f"{name} {type(module).__qualname__} {sorted((settings | loose).items())!r}".encode())
        if type(module).__module__.partition(".")[0] not in LIBRARIES:
            for base in type(module).__mro__:
                source = _source(base)
                if source is None:
                    return None
                files.add(source)
    for file in sorted(files - {""}):
        digest.update(_digest(file, Path(file).stat().st_mtime_ns).encode())
    return digest.hexdigest()


@functools.cache
def _digest(file: str, changed: int) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _source(kind: type[Any]) -> str | None:
    """The file that a class is written in; "" of one that a library's version tells of; None where there is none."""
    if kind.__module__.partition(".")[0] in (*LIBRARIES, "builtins", "typing", "abc"):
        return ""
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:
        return None
    return file if file and Path(file).is_file() else None  # a notebook's cell is none
