"""From the features that an evaluation has made to what `report.npz` keeps of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.core.distributed import is_main
from ssl_lightning.evaluation.features import Features
from ssl_lightning.reports import facts, kept, thumbnails

log = logging.getLogger("ssl_lightning")

ITEMS = 1000  # test items that are kept
AXES = 64
BANK_VALUES = 50_000 * 512  # of the training features that are searched
QUERIES, NEAREST = 24, 6  # of the gallery
TYPICAL = 12  # most and least typical items that are shown large
CANDIDATES, PAIRS = 120, 24  # pairs whose items are compared; that are shown
CLOSE = 0.98  # cosine of the features of two items from which on the items themselves are compared
SAME = 0.995  # correlation of the items from which on they are near-duplicates
SIDE, LARGE = 48, 96  # px; multiples of 16, the squares that JPEG works on


class Keeper:
    """Writes `report.npz` from the features of an evaluation; rank 0 alone, and without ever ending a run."""

    def __init__(
        self,
        folder: Path,
        data: Any,
        network: Any = None,
        command: Sequence[str] = (),
        k: int = 20,
        temperature: float = 0.07,
    ) -> None:
        """
        Args:
            folder: the run's.
            data: where the items come from.
            network: whose features these are; None: unknown.
            command: the words of the command line.
            k, temperature: of the kNN.
        """
        self.folder, self.network, self.command, self.k, self.temperature = folder, network, command, k, temperature
        self.data = data

    def __call__(self, train: Features | None, test: Features) -> None:
        """`train`: None where there are features of the test split alone."""
        if not is_main():
            return
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), one_thread():
                about, arrays = reduced(self.data, train, test, self.k, self.temperature)
                about |= facts.of_data(self.data) | facts.of_network(self.network) | facts.of_versions()
                about |= facts.of_command(self.command)
                kept.add(self.folder, about, arrays)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            log.warning("the page gets no map of features: %s", why)


@contextmanager
def one_thread() -> Iterator[None]:
    """A thousand small pictures are drawn several times faster so: threads would wait for each other at each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def chosen(test: Features, most: int = ITEMS) -> Features:
    """At most so many test items, the same in each run of these data: spread evenly over the split."""
    if len(test) <= most:
        return test
    rows = torch.linspace(0, len(test) - 1, most).round().long()
    return Features(test.x[rows], test.labels[rows], test.indices[rows])


def reduced(
    data: Any, train: Features | None, test: Features, k: int = 20, temperature: float = 0.07
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(about, arrays) of `kept`, from features (N, D) of the test and the training split."""
    few = chosen(test)
    x = normalize(few.x.float(), dim=1)  # (N, D)
    classes = few.labels.ndim == 1
    labels = few.labels if classes else torch.full((len(few),), -1)
    arrays = {"features": axes(x).half(), "labels": labels, "indices": few.indices}
    bank = bank_of(train)
    split = "test" if bank is None else "train"
    cosines, rows = nearest(x, None if bank is None else normalize(bank.x.float(), dim=1), k)  # (N, k)
    there = few if bank is None else bank
    arrays["typical"] = cosines.mean(1)
    if classes and bank is not None:
        arrays["found"] = voted(cosines, bank.labels[rows], temperature)
    places = queries(labels, QUERIES)
    arrays |= {"queries": places, "nearest": there.indices[rows[places, :NEAREST]]}
    arrays["nearest_cosines"] = cosines[places, :NEAREST]
    arrays["nearest_labels"] = (
        there.labels[rows[places, :NEAREST]] if classes else torch.full_like(arrays["nearest"], -1)
    )
    about: dict[str, Any] = {"bank": split, "bank_items": len(there), "items": len(few), "test_items": len(test)}
    about |= {"k": min(k, cosines.shape[1]), "dimensions": x.shape[1]}
    more, pictures = shown(data, few, arrays, (cosines[:, 0], there.indices[rows[:, 0]]), split, x)
    found = {name: value.cpu().numpy() for name, value in arrays.items()}
    return about | more, found | pictures


def axes(x: Tensor, most: int = AXES) -> Tensor:
    """Rows (N, D) on their largest principal axes (N, R), the largest first, signs fixed."""
    x = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x if x.shape[1] <= len(x) else x @ x.T)
    most = min(most, len(values))
    values, vectors = values.flip(0)[:most].clamp(min=0), vectors.flip(1)[:, :most]
    places = x @ vectors if x.shape[1] <= len(x) else vectors * values.sqrt()
    signs = places.gather(0, places.abs().argmax(0, keepdim=True)).sign()
    return (places * torch.where(signs == 0, 1.0, signs)).float()


def bank_of(train: Features | None) -> Features | None:
    """The training items that are searched: all, or of many so many that it takes no longer than seconds."""
    if train is None or not len(train):
        return None
    most = max(1000, BANK_VALUES // max(train.x.shape[1], 1))
    return chosen(train, most)


def nearest(x: Tensor, bank: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and rows (N, k) of the nearest in the bank; without one, of the other rows of x."""
    others = x if bank is None else bank
    k = max(1, min(k, len(others) - (bank is None)))
    found = []
    for start in range(0, len(x), 256):
        cosines = x[start : start + 256] @ others.T
        if bank is None and len(others) > 1:
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -2.0
        found.append(cosines.topk(min(k, cosines.shape[1]), dim=1))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def voted(cosines: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The class (N,) that neighbours (N, k) vote for, as in the kNN; -1 where none of them has a label."""
    known = labels >= 0
    weights = torch.where(known, ((cosines - cosines[:, :1]) / temperature).exp(), 0.0)
    votes = torch.zeros(len(labels), int(labels.max().clamp(min=0)) + 1)
    votes.scatter_add_(1, labels.clamp(min=0), weights)
    return torch.where(known.any(1), votes.argmax(1), -1)


def queries(labels: Tensor, wanted: int) -> Tensor:
    """Rows of the gallery: as many of each class as can be, spread over the items."""
    groups = [torch.nonzero(labels == label)[:, 0] for label in labels.unique()]
    if len(groups) > wanted:
        groups = [groups[i * len(groups) // wanted] for i in range(wanted)]
    share = -(-wanted // max(len(groups), 1))
    spread = [g[torch.linspace(0, len(g) - 1, min(share, len(g))).round().long()] for g in groups if len(g)]
    turns = [g[turn] for turn in range(share) for g in spread if turn < len(g)]
    return torch.stack(turns[:wanted]).sort().values if turns else torch.zeros(0, dtype=torch.int64)


def shown(
    data: Any, few: Features, arrays: Mapping[str, Tensor], closest: tuple[Tensor, Tensor], split: str, x: Tensor
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Pictures of the items, and the near-duplicates among them, for which the items are looked at anyway."""
    mine = thumbnails.views_of(data, "test", few.indices.tolist())
    wanted = [(0, int(few.indices[place])) for place in arrays["queries"]]
    wanted += [(int(split == "train"), int(i)) for i in arrays["nearest"].flatten()]
    order = arrays["typical"].argsort()
    wanted += [(0, int(few.indices[place])) for place in (*order[:TYPICAL], *order.flip(0)[:TYPICAL])]
    candidates = close_pairs(few, closest, split, x)
    theirs = {i for s, i in wanted if s} | {i for s, _, i, _ in candidates if s}
    others = thumbnails.views_of(data, "train", sorted(theirs))
    pairs = [
        (s, i, j, cosine)
        for s, i, j, cosine in candidates
        if i in mine and j in (others if s else mine) and thumbnails.alike(mine[i], (others if s else mine)[j]) >= SAME
    ]
    wanted += [place for s, i, j, _ in pairs[:PAIRS] for place in ((0, i), (s, j))]
    about: dict[str, Any] = {"leaks": sum(s for s, *_ in pairs), "twins": sum(not s for s, *_ in pairs)}
    about |= {"compared": len(candidates), "input_mean": None, "input_std": None} | facts.of_inputs(mine.values())
    found: dict[str, np.ndarray] = {
        "pairs": np.array([(i, j) for _, i, j, _ in pairs[:PAIRS]], np.int64).reshape(-1, 2),
        "pair_splits": np.array([s for s, *_ in pairs[:PAIRS]], np.int64),
        "pair_cosines": np.array([cosine for *_, cosine in pairs[:PAIRS]], np.float32),
    }
    small = thumbnails.drawn(data, mine, SIDE)
    if not small:
        return about, found
    places = list(dict.fromkeys(wanted))
    large = thumbnails.drawn(data, {i: mine[i] for s, i in places if not s and i in mine}, LARGE)
    large_train = thumbnails.drawn(data, {i: others[i] for s, i in places if s and i in others}, LARGE)
    pictures = [(large_train if s else large).get(i) for s, i in places]
    found["sheet"] = thumbnails.sheet([small.get(int(i)) for i in few.indices], SIDE)
    found["large"] = thumbnails.sheet(pictures, LARGE)
    found["large_splits"] = np.array([s for s, _ in places], np.int64)
    found["large_indices"] = np.array([i for _, i in places], np.int64)
    return about | {"side": SIDE, "large_side": LARGE, "across": thumbnails.ACROSS}, found


def close_pairs(
    few: Features, closest: tuple[Tensor, Tensor], split: str, x: Tensor
) -> list[tuple[int, int, int, float]]:
    """(0 test or 1 train, test index, other index, cosine) of items with nearly equal features, the closest first."""
    cosines, indices = closest
    found = []
    if split == "train":
        rows = torch.nonzero(cosines >= CLOSE)[:, 0]
        found = [(1, int(few.indices[i]), int(indices[i]), float(cosines[i])) for i in rows]
    inside, rows = nearest(x, None, 1)
    for i, (cosine, j) in enumerate(zip(inside[:, 0].tolist(), rows[:, 0].tolist(), strict=True)):
        if cosine >= CLOSE and (i < j or int(rows[j, 0]) != i):
            found.append((0, int(few.indices[i]), int(few.indices[j]), cosine))
    by_split = [sorted((f for f in found if f[0] == s), key=lambda f: (-f[3], f[1])) for s in (1, 0)]
    return [*by_split[0][:CANDIDATES], *by_split[1][:CANDIDATES]]


def on_the_map(features: Tensor, labels: Tensor, indices: Tensor) -> dict[str, np.ndarray]:
    """The arrays of a map alone, from features (N, D) of items in training."""
    labels = labels if labels.ndim == 1 else torch.full((len(labels),), -1)
    x = axes(normalize(features.float(), dim=1)).half()
    return {"features": x.numpy(), "labels": labels.numpy(), "indices": indices.numpy()}
