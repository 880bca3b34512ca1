"""What makes a backbone useful on its own: `.transform` from a file to its input, `.card`, and `.embed` for many files.

A modality gives the transform: its folder has `transform.of_card(card)`, which returns a callable from one item to the
network's input with a `kind`, the files that it reads, and the `shape` of an input; None where the card says too
little.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.folder_scan import list_files
from ssl_lightning.data.loader import automatic_workers
from ssl_lightning.evaluation.features import evaluating

MODALITIES = ("image", "audio")  # that give a transform
MANY = 512  # items from which on progress is shown


class NoTransform:
    """Stands where a card does not say how items become inputs; `why` is told to whoever asks for one."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, *items: Any) -> NoReturn:
        raise UserError(self.why)

    def __repr__(self) -> str:
        return f"NoTransform({self.why!r})"


def transform_of(card: Mapping[str, Any]) -> Any:
    """From one item to the input of the network with this card: what its modality gives, or a `NoTransform`."""
    modality = card.get("modality") or "image"  # cards of images have no word for it
    if modality not in MODALITIES:
        return NoTransform(
            f"data of the modality '{modality}' have no transform from a file to an input; feed the backbone batches "
            "as your data module's evaluation_views gives them"
        )
    try:
        found = import_module(f"ssl_lightning.modalities.{modality}.transform").of_card(card)
    except Exception as error:  # somebody else's card, of sizes that do not go together: the network loads all the same
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return NoTransform(f"the card of this backbone does not say how an item becomes its input: {why}")
    return found or NoTransform(
        "the card of this backbone does not say how an item becomes its input (image_size, mean, std); save it with "
        "save_backbone(..., image_size=, mean=, std=)"
    )


class Embed:
    """`backbone.embed(items)`: the features of files, in evaluation mode and without gradient."""

    def __init__(self, backbone: nn.Module, transform: Any) -> None:
        self.backbone, self.transform = backbone, transform

    def __call__(self, items: Any, batch_size: int = 64, device: str | torch.device | None = None) -> Tensor:
        """float32 (N, D) on the CPU, one row for each item, in order.

        Args:
            items: a file; a folder, of which every file that can be read is taken at any depth, in the order of
                `sorted` paths; or a list of whatever `.transform` takes.
            batch_size: items at a time.
            device: to compute on, where the backbone is moved for this call; None: where it is.

        Raises:
            UserError: there is no such folder or nothing in it; a file that cannot be read, by its name.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is not a number of items; give 1 or more")
        found = chosen(self.transform, items)
        like = next(self.backbone.parameters(), torch.empty(0))
        place = like.device if device is None else torch.device(device)
        rows = []
        try:
            if place != like.device:
                self.backbone.to(place)
            with evaluating(self.backbone), torch.no_grad():
                for jobs in read_ahead(self.transform, found, batch_size):
                    batch = torch.stack([job.result() for job in jobs])
                    rows.append(self.backbone(batch.to(place, like.dtype)).float().cpu())
        finally:
            if place != like.device:
                self.backbone.to(like.device)
        return torch.cat(rows)


def chosen(transform: Any, items: Any, what: str = "embed") -> list[Any]:
    """One item, a folder or several as a list of what the transform takes. Raises UserError where there is nothing."""
    if isinstance(transform, NoTransform):
        transform()
    if isinstance(items, str | os.PathLike):
        path = Path(items).expanduser()
        if not path.exists():  # in a list of files it costs its own row
            raise UserError(f"{items} is neither a file nor a folder; give the path of one")
        return list_files(path, transform.kind).paths() if path.is_dir() else [path]
    pair = isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int)  # a wave and its rate
    one = pair or (hasattr(items, "ndim") and items.ndim <= 3) or not isinstance(items, Iterable)
    found = [items] if one else list(items)
    if not found:
        raise UserError(f"there is nothing to {what}; give a folder, files or images")
    return found


def read_ahead(
    transform: Any, items: Sequence[Any], batch_size: int, title: str = "embedding"
) -> Iterator[list[Future[Tensor]]]:
    """The inputs of items, a batch at a time, read by threads while the network computes; `result()` may raise."""
    from rich.console import Console
    from rich.progress import track

    starts = range(0, len(items), batch_size)
    shown = track(starts, title, console=Console(stderr=True), disable=len(items) < MANY, transient=True)
    with ThreadPoolExecutor(max(1, automatic_workers())) as pool:
        ahead = [pool.submit(_input, transform, i, item) for i, item in enumerate(items[: 2 * batch_size])]
        try:
            for start in shown:
                batch, ahead = ahead[:batch_size], ahead[batch_size:]
                begun = start + 2 * batch_size
                more = enumerate(items[begun : begun + batch_size], begun)
                ahead += [pool.submit(_input, transform, i, item) for i, item in more]
                yield batch
        finally:
            for job in ahead:
                job.cancel()


def _input(transform: Any, place: int, item: Any) -> Tensor:
    try:
        found: Tensor = transform(item)
        return found
    except UserError as error:
        named = isinstance(item, str | os.PathLike)
        raise error if named else UserError(f"item {place}: {error}") from error


def attach(backbone: nn.Module, card: Mapping[str, Any]) -> nn.Module:
    """Give a backbone its `.card`, `.transform` and `.embed`, in place; what it has under such a name stays.

    They are plain attributes: the state_dict has no new keys, and copies and pickles carry them along.
    """
    transform = transform_of(card)
    extras = {"card": copy.deepcopy(dict(card)), "transform": transform, "embed": Embed(backbone, transform)}
    for name, value in extras.items():
        if not hasattr(backbone, name):
            setattr(backbone, name, value)
    return backbone
