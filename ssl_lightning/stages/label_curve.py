"""stage=label_curve: how many labels a pretrained network saves: linear probe and fine-tuning beside training from
scratch, by the number of labels, over seeds.

Each training is a job in a folder of its own, `jobs/<line>-<size>-seed<n>/`: one that is done is never run again, and
one that was stopped goes on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_lightning.core import files, progress
from ssl_lightning.core.distributed import is_main, world_size
from ssl_lightning.core.one_line import text
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
from ssl_lightning.stages.label_jobs import (
    NAMES,
    Job,
    check_lists,
    distinct,
    jobs_of,
    keep,
    kept,
    options_of,
    rows_of,
    sizes_of,
    tidy,
)
from ssl_lightning.stages.probes import OtherData
from ssl_lightning.stages.training import share_of

Line = Literal["finetune", "linear", "scratch", "naive"]
OpenJudged = Callable[[str | None, int], Judged]


def run(
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    data_name: str,
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
    sizes = distinct(data, sizes, seeds[0])
    jobs = jobs_of(lines, sizes, seeds, second is not None)
    device, settings = device_of(trainer), probe or ProbeSettings()
    own = Probed(data, judged, task, device, settings, rows_of(data, sizes, seeds))
    theirs = Probed(second[1], second[0], task, device, settings, own.rows) if second else None
    done: list[dict[str, Any]] = []
    for place, job in enumerate(jobs, start=1):
        folder = run.path / "jobs" / job.name
        found = kept(folder)
        if found is None:
            progress.say(f"job {place} of {len(jobs)}: {job.words}")
            given = copy.deepcopy(task), folder, options, steps
            if job.probes:
                found = (theirs if job.second else own)(job)  # type: ignore[misc]
            elif job.second and second is not None:
                found = made_of(job, open_judged(other, job.seed), second[1], trainer, *given)
            else:
                found = made_of(job, open_judged(None, job.seed), data, trainer, *given)
            found = keep(folder, {**job.told, **found})
        tidy(folder)
        done.append(found)
    names = {**NAMES, "naive": f"{data.naive_name.replace('_', ' ')}, linear"}
    told = results_of(done, task, names, len(data.classes) if per_class else 0)
    written = write(run.path, done, task, names, f"{judged.method} on {data_name}")
    return report(
        judged, watch,
        **told,
        labels=max(job["labels"] for job in done),
        protocol=protocol(options, steps, settings, seeds, lines),
        files=written,
    )  # fmt: skip


# ---- what is asked for


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


# ---- one job


def made_of(
    job: Job,
    judged: Judged,
    data: DataModule,
    trainer: MakeTrainer,
    task: Task,
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
    kept = max(1, labels - round(labels * share_of(options.get("picking"), labels, options.get("patience"))))
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
        "verdict": told[0] if told else "",
    }


def write(
    folder: Path, jobs: Sequence[Mapping[str, Any]], task: Task, names: Mapping[str, str], about: str
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
        picture = curve.figure(found, names, about, metric, task.main)
        files.write_atomic(folder / "label_curve.png", picture)
        written.append(str(folder / "label_curve.png"))
    except Exception as error:
        say(f"label_curve.png was not drawn: {text(error)}")
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
    of = {"finetune": {"finetune", "scratch"}, "linear": {"linear", "naive"}}
    return {key: words for key, words in given.items() if key not in of or of[key] & set(lines)}
