"""The jobs of `stage=label_curve`: which there are, which labels each has, and what is kept of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.core import files, plain_yaml
from ssl_lightning.core.distributed import broadcast_object, is_main
from ssl_lightning.core.errors import UserError
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import counted, say
from ssl_lightning.runs.folder import writing

OWN = {"trainings": ("finetune", "from_scratch"), "naive": True}  # options of stage=finetune that the lines decide
NAMES = {
    "finetune": "this run, fine-tuned",
    "linear": "this run, linear",
    "other_finetune": "other, fine-tuned",
    "other_linear": "other, linear",
    "scratch": "from scratch",
    "naive": "naive features, linear",
}


@dataclass(frozen=True)
class Size:
    """How many labels: a share of each class, or so many of each."""

    fraction: float | None = None
    per_class: int | None = None

    @property
    def words(self) -> str:
        return f"{self.per_class}-a-class" if self.per_class is not None else f"{self.fraction:g}"


@dataclass(frozen=True)
class Job:
    """One training: a line at one number of labels with one seed."""

    line: str
    size: Size
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.line}-{self.size.words}-seed{self.seed}"

    @property
    def second(self) -> bool:
        """Is it of the other backbone?"""
        return self.line.startswith("other_")

    @property
    def probes(self) -> bool:
        """Is nothing trained but a linear layer on features that are computed once?"""
        return self.line.removeprefix("other_") in ("linear", "naive")

    @property
    def words(self) -> str:
        count = self.size.per_class
        size = f"{counted(count, 'label')} a class" if count else f"{self.size.fraction:g} of the labels"
        return f"{NAMES[self.line]}, {size}, seed {self.seed}"

    @property
    def told(self) -> dict[str, Any]:
        """What its results.json begins with."""
        return {"line": self.line, "fraction": self.size.fraction, "per_class": self.size.per_class, "seed": self.seed}


def options_of(finetune: Callable[..., Any]) -> dict[str, Any]:
    """The options of stage=finetune. Raises UserError for those that the lines decide."""
    found = dict(finetune.keywords) if isinstance(finetune, partial) else {}
    for name, default in OWN.items():
        if found.pop(name, default) != default:
            raise UserError(f"stage.finetune.{name}: what is trained is chosen by stage.lines here; leave it out")
    return found


def sizes_of(fractions: Sequence[float] | None, per_class: Sequence[int] | None) -> list[Size]:
    """The numbers of labels, the fewest first."""
    if per_class:
        return [Size(per_class=count) for count in sorted(set(per_class))]
    return [Size(fraction=share) for share in sorted(set(fractions or ()))]


def check_lists(sizes: Sequence[Size], seeds: Sequence[int], lines: Sequence[str]) -> None:
    """Raise a UserError for a list that leaves nothing to do."""
    for name, found in (("fractions", sizes), ("seeds", seeds), ("lines", lines)):
        if not found:
            raise UserError(f"stage.{name}=[] leaves nothing to train; name one or more")
    if len(set(seeds)) < len(seeds):
        raise UserError("stage.seeds names a seed twice, which would count it twice; leave one out")


def distinct(data: DataModule, sizes: Sequence[Size], seed: int) -> list[Size]:
    """The sizes without those that are no more labels of these data than the one before; a line says which."""
    found: list[tuple[int, Size]] = []
    for size in sizes:
        count = len(rows_at(data, size, seed))
        if found and count <= found[-1][0]:
            say(f"{found[-1][1].words} and {size.words} are both {count} labels of these data: once is enough.")
            continue
        found.append((count, size))
    return [size for _, size in found]


def jobs_of(lines: Sequence[str], sizes: Sequence[Size], seeds: Sequence[int], second: bool) -> list[Job]:
    """All jobs: those that take seconds first, then the smallest numbers of labels."""
    every = [
        *dict.fromkeys(lines),
        *(f"other_{line}" for line in dict.fromkeys(lines) if line in ("finetune", "linear")),
    ]
    asked = [line for line in every if second or not line.startswith("other_")]
    found = [Job(line, size, seed) for size in sizes for seed in seeds for line in asked]
    return sorted(found, key=lambda job: not job.probes)


# ---- the labels of a job


def rows_at(data: DataModule, size: Size, seed: int) -> Tensor:
    """Training rows (M,) whose labels a job has."""
    data = data.labelled_by(size.fraction, size.per_class, seed)
    return data.labelled_indices("train")


def rows_of(data: DataModule, sizes: Sequence[Size], seeds: Sequence[int]) -> Callable[[], Tensor]:
    """Gives the rows of all jobs, sorted."""

    @cache
    def found() -> Tensor:
        return torch.cat([rows_at(data, size, seed) for size in sizes for seed in seeds]).unique()

    return found


# ---- what is kept of jobs


def kept(folder: Path) -> dict[str, Any] | None:
    """The results of a job that is done, as rank 0 finds them."""
    file = folder / "results.json"
    found = plain_yaml.read_json(file) if is_main() and file.is_file() else None
    found = broadcast_object(found)
    return found if isinstance(found, dict) and "score" in found else None


def keep(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write the results of a job, whole or not at all; returns what rank 0 has."""
    if is_main():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.write_atomic(folder / "results.json", json.dumps(found, indent=2) + "\n", durable=True)
    return dict(broadcast_object(dict(found)))


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a job that is done: tens of trainings would fill a disk."""
    if is_main():
        for place in folder.glob("*/checkpoints"):
            if not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
