"""stage=label_curve: how many labels a pretrained network saves: linear probe and fine-tuning beside training from
scratch, by the number of labels, over seeds.

Each training is a job in a folder of its own, `jobs/<line>-<size>-seed<n>/`: one that is done is never run again, and
one that was stopped goes on.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_lightning.core import files, plain_yaml, progress
from ssl_lightning.core.distributed import broadcast_object, is_main, world_size
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import CLASSES, Task
from ssl_lightning.core.words import METRICS
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.broken import say
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.judge import metric_of
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.reports import label_curve as curve
from ssl_lightning.runs import known
from ssl_lightning.runs.folder import RunFolder, writing
from ssl_lightning.stages.common import (
    Judged,
    MakeTrainer,
    Stopwatch,
    device_of,
    need_finite,
    report,
    same_items,
)
from ssl_lightning.stages.finetune import run as finetuned
from ssl_lightning.stages.judging import need_labels, prepared
from ssl_lightning.stages.probes import OtherData

Line = Literal["finetune", "linear", "scratch", "naive"]
OpenJudged = Callable[..., Judged]
OWN = ("trainings", "naive")  # options of stage=finetune that the lines decide


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    open_judged: OpenJudged,
    other_data: OtherData,
    finetune: Callable[..., Any],
    fractions: tuple[float, ...] | None = (0.01, 0.1, 1.0),
    per_class: tuple[int, ...] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 1000,
    lines: tuple[Line, ...] = ("finetune", "linear", "scratch", "naive"),
    other: str | None = None,
    probe: ProbeSettings | None = None,
    task: Task | None = None,
) -> dict[str, Any]:
    """Trains each line at each number of labels with each seed, and tells what labels pretraining saves.

    The labels of a smaller number lie among those of a larger one of the same seed, each class by its share.

    Args:
        open_judged: opens the backbone anew, or another, with random weights of a seed beside it.
        finetune: options of stage=finetune; `epochs` is what each training has at least.
        fractions: shares of each class's labels.
        per_class: labels of each class, in place of `fractions`.
        seeds: of the labels, the heads, the random weights and the order; the band is over these.
        steps: a training of few labels is made so many epochs long that it has so many steps; 0: all have `epochs`.
        lines: what is trained.
        other: a second backbone, a run or a weights file, for the lines `finetune` and `linear`.
        probe: of the line `linear`.
        task: what labels mean; None: classes.
    """
    watch = Stopwatch()
    options = options_of(finetune)
    sizes = sizes_of(fractions, per_class)
    check_lists(sizes, seeds, lines)
    same_items(judged, data)
    task = need_labels(data, (task.stages if task and task.stages else ("label_curve",))[0], task)
    second = second_of(other, open_judged, other_data, run, task) if other else None
    if task.whole_items:
        lines = tuple(line for line in lines if line in ("finetune", "scratch"))
    jobs = jobs_of(lines, sizes, seeds, second is not None)
    check_sizes(data, sizes, seeds[0])
    device, settings = device_of(trainer), probe or ProbeSettings()
    own = Probed(data, judged, task, device, settings, rows_of(data, sizes, seeds))
    theirs = Probed(second[1], second[0], task, device, settings, own.rows) if second else None
    done = []
    for place, job in enumerate(jobs, start=1):
        folder = run.path / "jobs" / job.name
        found = kept(folder)
        if found is None:
            progress.say(f"job {place} of {len(jobs)}: {job.words}")
            made = partial(made_of, job, task=copy.deepcopy(task), trainer=trainer, folder=folder)
            if job.probes:
                found = (theirs if job.second else own)(job)  # type: ignore[misc]
            elif job.second:
                assert second is not None
                found = made(open_judged(other, job.seed), second[1], options=options, steps=steps)
            else:
                found = made(open_judged(None, job.seed), data, options=options, steps=steps)
            keep(folder, {**job.told, **found})
            found = kept(folder)
        tidy(folder)
        done.append(found)
    names = {line: NAMES[line] for line in curve.LOOKS} | ({"naive": f"{data.naive_name.replace('_', ' ')}, linear"})
    told = results_of(done, task, names, len(data.classes) if per_class else 0)
    written = write(run.path, done, task, names, f"{judged.method}: what labels are worth")
    return report(
        judged, watch,
        **told,
        labels=max(job["labels"] for job in done),
        protocol=protocol(options, steps, settings, seeds, lines),
        files=written,
    )  # fmt: skip


NAMES = {
    "finetune": "this run, fine-tuned",
    "linear": "this run, linear",
    "other_finetune": "other, fine-tuned",
    "other_linear": "other, linear",
    "scratch": "from scratch",
    "naive": "naive features, linear",
}


# ---- what is asked for


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
        size = (
            f"{self.size.per_class} labels a class" if self.size.per_class else f"{self.size.fraction:g} of the labels"
        )
        return f"{NAMES[self.line]}, {size}, seed {self.seed}"

    @property
    def told(self) -> dict[str, Any]:
        """What its results.json begins with."""
        return {"line": self.line, "fraction": self.size.fraction, "per_class": self.size.per_class, "seed": self.seed}


def options_of(finetune: Callable[..., Any]) -> dict[str, Any]:
    """The options of stage=finetune. Raises UserError for those that the lines decide."""
    found = dict(finetune.keywords) if isinstance(finetune, partial) else {}
    for name in OWN:
        default = {"trainings": ("finetune", "from_scratch"), "naive": True}[name]
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


def check_sizes(data: DataModule, sizes: Sequence[Size], seed: int) -> None:
    """Raise a UserError for two sizes that are the same number of labels."""
    counts = {size.words: len(rows_at(data, size, seed)) for size in sizes}
    for first, second in zip(counts, list(counts)[1:]):
        if counts[first] == counts[second]:
            raise UserError(
                f"{first} and {second} are both {counts[first]} labels of these data; leave one of the two out"
            )


def jobs_of(lines: Sequence[str], sizes: Sequence[Size], seeds: Sequence[int], second: bool) -> list[Job]:
    """All jobs: those that take seconds first, then the smallest numbers of labels."""
    every = [
        *dict.fromkeys(lines),
        *(f"other_{line}" for line in dict.fromkeys(lines) if line in ("finetune", "linear")),
    ]
    asked = [line for line in every if second or not line.startswith("other_")]
    found = [Job(line, size, seed) for size in sizes for seed in seeds for line in asked]
    return sorted(found, key=lambda job: not job.probes)


def second_of(
    other: str, open_judged: OpenJudged, other_data: OtherData, run: RunFolder, task: Task
) -> tuple[Judged, DataModule]:
    """The second backbone, and the same items fed to it as in its training."""
    found = open_judged(other, 0)
    node = run.config.get("data")
    asked = node if isinstance(node, Mapping) else {}
    fed = known.of_the_network(found.card, asked)
    changes = {key: found.card[key] for key in fed if found.card.get(key) is not None and key in asked}
    data = other_data({key: value for key, value in changes.items() if asked[key] != value})
    same_items(found, data)
    data.read_labels(task.reads)
    return found, data


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


# ---- one job


def made_of(
    job: Job,
    judged: Judged,
    data: DataModule,
    task: Task,
    trainer: MakeTrainer,
    folder: Path,
    options: Mapping[str, Any],
    steps: int,
) -> dict[str, Any]:
    """A fine-tuning, or a training from scratch, with the labels of a job."""
    data = data.labelled_by(job.size.fraction, job.size.per_class, job.seed)
    training = "from_scratch" if job.line == "scratch" else "finetune"
    length = lengthened(options, len(data.labelled_indices("train")), steps)
    given = {**options, **length, "trainings": (training,), "naive": False}
    found = finetuned(judged, data, trainer, RunFolder(folder), job.seed, task=task, **given)
    scores = found if training == "finetune" else found["baselines"]["from_scratch"]
    figures = {key.removeprefix("finetune_"): value for key, value in scores.items() if key.startswith("finetune_")}
    return {"labels": found["labels"], "score": figures[task.main], "scores": figures, "steps": found["steps"]}


def lengthened(options: Mapping[str, Any], labels: int, steps: int) -> dict[str, Any]:
    """`epochs` so long that a training has at least so many steps; the warm-up keeps its share."""
    epochs, batch = int(options.get("epochs", 60)), int(options.get("batch_size", 64)) * world_size()
    kept = max(1, labels - round(labels * float(options.get("picking", 0.2))))
    longer = max(epochs, math.ceil(steps / max(1, kept // batch)))
    warmup = float(options.get("warmup_epochs", 5)) * longer / epochs
    return {"epochs": longer, "warmup_epochs": warmup}


class Probed:
    """Linear probes on features that are computed once, when the first job asks for them."""

    def __init__(
        self,
        data: DataModule,
        judged: Judged,
        task: Task,
        device: torch.device,
        settings: ProbeSettings,
        rows: Callable[[], Tensor],
    ) -> None:
        self.data, self.judged, self.task, self.device = data, judged, task, device
        self.settings, self.rows = settings, rows
        self._found: tuple[Features, Features] | None = None
        self._naive: tuple[Features, Features] | None = None

    def __call__(self, job: Job) -> dict[str, Any]:
        train, test = self.naive if job.line == "naive" else self.features
        subset = self.data.labelled_by(job.size.fraction, job.size.per_class, job.seed)
        task = prepared(copy.deepcopy(self.task), subset)
        keep = torch.isin(train.indices, subset.labelled_indices("train"))
        x, labels, test_x, test_labels = (
            t.to(self.device) for t in (train.x[keep], train.labels[keep], test.x, test.labels)
        )
        settings = replace(self.settings, seed=job.seed, batch_size=min(self.settings.batch_size, len(x)))
        probe = probe_grid(x, labels, test_x, test_labels, task.to(self.device), settings)
        return {"labels": len(x), "score": probe.scores[task.main], "scores": probe.scores}

    @property
    def features(self) -> tuple[Features, Features]:
        if self._found is None:
            backbone = self.judged.backbone.to(self.device)
            with progress.phase("features of the network"):
                train = extract(backbone, self.data.eval_loader("train", self.rows()), self.device)
                self._found = train.labelled(), extract(backbone, self.data.eval_loader("test"), self.device).labelled()
            need_finite(("train", self._found[0]), ("test", self._found[1]), noun=self.data.noun)
        return self._found

    @property
    def naive(self) -> tuple[Features, Features]:
        if self._naive is None:
            train, test = self.features
            both = self.data.naive_features("train", train.indices), self.data.naive_features("test", test.indices)
            self._naive = replace(train, x=both[0]), replace(test, x=both[1])
        return self._naive


# ---- what is kept of jobs


def kept(folder: Path) -> dict[str, Any] | None:
    """The results of a job that is done, as rank 0 finds them."""
    file = folder / "results.json"
    found = plain_yaml.read_json(file) if is_main() and file.is_file() else None
    found = broadcast_object(found)
    return found if isinstance(found, dict) and "score" in found else None


def keep(folder: Path, found: Mapping[str, Any]) -> None:
    """Write the results of a job, whole or not at all."""
    if is_main():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.write_atomic(folder / "results.json", json.dumps(found, indent=2) + "\n", durable=True)


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a job that is done: tens of trainings would fill a disk."""
    if is_main():
        for place in folder.glob("*/checkpoints"):
            if not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)


# ---- what is told


def results_of(jobs: Sequence[Mapping[str, Any]], task: Task, names: Mapping[str, str], classes: int) -> dict[str, Any]:
    """The table, what labels are worth, and the verdict."""
    found = curve.points(jobs)
    lines = [line for line in ("finetune", "linear") if any(p.line == line for p in found)]
    told = [curve.sentence(found, line, task.higher, task.word, classes) for line in lines]
    worth = {line: rows for line in lines if (rows := curve.worth(found, line, task.higher))}
    return {
        **metric_of(task),
        "table": curve.table(found, task.main, names),
        "worth": worth,
        "verdict": " ".join(filter(None, told[:1])),
    }


def write(
    folder: Path, jobs: Sequence[Mapping[str, Any]], task: Task, names: Mapping[str, str], title: str
) -> list[str]:
    """`label_curve.csv` and `label_curve.png`; rank 0 alone. A figure that fails is one line."""
    if not is_main():
        return []
    found = curve.points(jobs)
    with writing(folder):
        files.write_atomic(folder / "label_curve.csv", curve.csv_of(curve.table(found, task.main, names)))
    written = [str(folder / "label_curve.csv")]
    metric = (METRICS.get(task.main) or "accuracy") if task.reads == CLASSES else METRICS.get(task.main, task.main)
    try:
        picture = curve.figure(found, names, title, metric, task.main)
        files.write_atomic(folder / "label_curve.png", picture)
        written.append(str(folder / "label_curve.png"))
    except Exception as error:
        say(f"label_curve.png was not drawn: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
    return written


def protocol(
    options: Mapping[str, Any], steps: int, probe: ProbeSettings, seeds: Sequence[int], lines: Sequence[str]
) -> dict[str, str]:
    """How each line was made, in words."""
    epochs = options.get("epochs", 60)
    length = f"{epochs} epochs, and where that is less than {steps} steps so many more" if steps else f"{epochs} epochs"
    others = ", ".join(f"{key} {value}" for key, value in options.items() if key != "epochs")
    given = {
        "finetune": f"stage=finetune, {length}, the same for fine-tuning and from scratch; {others}",
        "linear": probe.describe(),
        "labels": f"shares of each class, the smaller number inside the larger one; seeds {', '.join(map(str, seeds))}",
        "band": "95 % of the mean, Student's t over seeds",
    }
    trained = {"finetune", "scratch"} & set(lines)
    return {key: words for key, words in given.items() if key in ("labels", "band") or key in lines or trained}
