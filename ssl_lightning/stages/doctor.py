"""stage=doctor: before a training starts, what will go wrong, how long it takes, and what to try."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_lightning.callbacks.step_logger import peak_memory_mb
from ssl_lightning.core.distributed import barrier, is_main, world_size
from ssl_lightning.core.errors import UserError, plain
from ssl_lightning.core.files import write_atomic
from ssl_lightning.core.finding import BAD, MARKS, OK, WATCH, Finding, Level
from ssl_lightning.core.task import Task
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.loader import automatic_workers
from ssl_lightning.evaluation.features import evaluating
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.reports.pages import quietly
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import doctor_data, doctor_method, doctor_views
from ssl_lightning.stages.common import MakeTrainer, Start, Stopwatch, device_of
from ssl_lightning.stages.pretrain import check

WARM_UP, STEPS = 1, 8  # steps that are not timed, and at most so many that are
LONG, LONG_ON_CPU = 48, 3  # hours, of which a longer run has a warning
GIB = 2**30
LONGEST_STEP = 60.0  # seconds: a step that takes longer is told by a guess and not made
LOOK = 4  # items of which the forward pass is timed for that
WIDTH = 100  # of the page
SIGNS: dict[Level, str] = {OK: "ok  ", WATCH: "WARN", BAD: "BAD "}


def run(
    method: SSLMethod,
    data: DataModule,
    trainer: MakeTrainer,
    run: RunFolder,
    method_name: str,
    data_name: str,
    seconds: float = 20.0,
    task: Task | None = None,
    start: Start | None = None,
) -> dict[str, Any]:
    """Looks at the machine, the data and the method, times a few real steps, and says what it found.

    Prints a page, writes `doctor.json` with every line of it, and trains nothing that is kept.

    Args:
        seconds: about so long the files are looked at, and at most so long steps are timed.
        task: what labels mean.
        start: the weights that the training begins with, where a `ckpt` gives them.
    """
    watch = Stopwatch()
    found = list(machine(data))
    try:
        check(method, data, task)
    except UserError as error:
        found.append(Finding("method", "bad", str(error)))
    found += doctor_data.look(data, seconds) if is_main() else []
    barrier()
    plan = _plan(data, trainer)
    found += doctor_method.look(method, data, plan)
    if not any(line.level == BAD for line in found):
        with quietly("what views do to labels"):
            found += doctor_views.look(method, data, seconds, start is not None)
    if is_main():  # a slow machine is minutes at the steps below
        print(page(found, f"{method_name} on {data_name}"), flush=True)
    cost: dict[str, Any] = {}
    if not any(line.level == BAD and line.kind == "method" for line in found):
        lines, cost = _cost(method, data, trainer, plan, seconds, run.path)
        found += lines
        if is_main():
            print(page(lines), flush=True)
    counts = {MARKS[level]: sum(line.level == level for line in found) for level in SIGNS}
    if is_main():
        text = json.dumps({"findings": [line.plain() for line in found], **counts, **cost}, indent=2)
        write_atomic(run.path / "doctor.json", text + "\n")
    words = f"{counts['bad']} bad, {counts['warn']} to look at, {counts['ok']} fine"
    return {"verdict": words, **cost, "files": [str(run.path / "doctor.json")], "seconds": round(watch.seconds, 1)}


# ---- the page -------------------------------------------------------------------------------------------------------


def page(found: Iterable[Finding], title: str = "") -> str:
    """The findings as text, by what they are about; names in them are written out, whatever they are."""
    lines, about = [plain(title), ""] if title else [], ""
    for line in found:
        if line.kind != about:
            lines += ["", line.kind] if about else [line.kind]
            about = line.kind
        lines += _wrapped(f"  {SIGNS[line.level]}  ", plain(line.says))
        if line.fix:
            lines += _wrapped("        -> ", plain(line.fix))
    return "\n".join([*lines, ""])


def _wrapped(head: str, text: str) -> list[str]:
    width = max(40, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH))
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
                         break_on_hyphens=False) or [head]  # fmt: skip


# ---- the machine ----------------------------------------------------------------------------------------------------


def machine(data: DataModule) -> Iterable[Finding]:
    """Versions, devices, threads, shared memory."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__}"
    yield Finding("machine", "ok", f"{versions}, {platform.system()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, whole = torch.cuda.mem_get_info(i)
            name = torch.cuda.get_device_name(i)
            mark: Level = OK if free > 0.8 * whole else WATCH
            fix = "" if mark == "ok" else "another process uses this GPU"
            yield Finding("machine", mark, f"GPU {i}: {name}, {free / GIB:.0f} of {whole / GIB:.0f} GiB free", fix)
    elif torch.accelerator.is_available():
        yield Finding("machine", "ok", f"accelerator: {torch.accelerator.current_accelerator()}")
    else:
        fix = "small networks and images: backbone=convnet_small data.image_size=64 experiment=cpu"
        what = f"no GPU, {cores} CPU cores: minutes where a GPU takes seconds"
        yield Finding("machine", "watch", what, fix)
    threads = torch.get_num_threads()
    if threads < cores and not torch.accelerator.is_available():
        told = os.environ.get("OMP_NUM_THREADS")
        fix = f"OMP_NUM_THREADS={told} says so; unset it" if told else "torch.set_num_threads, or fewer other programs"
        yield Finding("machine", "watch", f"torch computes with {threads} of {cores} cores", fix)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 1.5 * cores:
        what = f"other programs are at work (a load of {load:.0f} on {cores} cores): times below are too long"
        yield Finding("machine", "watch", what, "look again when they are done")
    workers = data.num_workers if data.num_workers is not None else automatic_workers()
    if workers > 2 * cores:
        yield Finding("machine", "watch", f"data.num_workers={workers} on {cores} cores", f"data.num_workers={cores}")
    shared = Path("/dev/shm")
    if shared.is_dir() and workers:
        free = shutil.disk_usage(shared).free
        if free < GIB // 4:
            what = f"shared memory has {free / 2**20:.0f} MiB free, through which {workers} workers send batches"
            yield Finding("machine", "watch", what, "docker run --shm-size=8g, or data.num_workers=0")


# ---- the cost -------------------------------------------------------------------------------------------------------


def _plan(data: DataModule, trainer: MakeTrainer) -> doctor_method.Length:
    """How long the configured training is."""
    whole = trainer(callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    items, together = len(data.train_set), data.batch_size * world_size()
    steps = items // together // max(1, whole.accumulate_grad_batches)
    epochs = whole.max_epochs if whole.max_epochs and whole.max_epochs > 0 else None
    total = whole.max_steps if whole.max_steps and whole.max_steps > 0 else None
    if epochs is not None:
        total = min(total or epochs * steps, epochs * steps)
    return doctor_method.Length(items, data.batch_size, together, steps, epochs, total)


class Timer(Callback):
    """The times at which steps end; stops the training where the seconds are used up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ends = seconds, list[float]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.ends:
            self.ends.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        trainer.should_stop = self.ends[-1] - self.ends[0] > self.seconds

    @property
    def step(self) -> float | None:
        """Seconds of one step; the first is left out where there are others."""
        kept = self.ends[WARM_UP:] if len(self.ends) > WARM_UP + 1 else self.ends
        return (kept[-1] - kept[0]) / (len(kept) - 1) if len(kept) > 1 else None


def _cost(
    method: SSLMethod, data: DataModule, trainer: MakeTrainer, plan: doctor_method.Length, seconds: float, place: Path
) -> tuple[list[Finding], dict[str, Any]]:
    """A few real steps, and what the whole run takes by them: time, memory, disk."""
    guess = expected(method, data, plan) if device_of(trainer).type == "cpu" else 0.0
    if guess > max(LONGEST_STEP, seconds):
        what = (
            f"about {words(guess)} a step of {plan.together} {data.noun}s, by a forward pass of {LOOK}; none was made"
        )
        fix = "a smaller data.batch_size, data.image_size or backbone=, or a GPU"
        return [Finding("cost", WATCH, what, fix), _disk(method, place)], {"seconds_per_step": round(guess, 1)}
    timer = Timer(seconds)
    batches = max(1, min(plan.steps or 1, WARM_UP + STEPS))
    short: dict[str, Any] = {"max_epochs": 1, "max_steps": -1, "limit_train_batches": batches, "limit_val_batches": 0}
    fit = trainer(callbacks=[], logger=False, enable_checkpointing=False, enable_progress_bar=False, **short)
    fit.callbacks.append(timer)  # type: ignore[attr-defined]  # alone: a signal is to save nothing
    try:
        fit.fit(method, datamodule=data)
    except (UserError, torch.OutOfMemoryError) as error:
        fix = "a smaller data.batch_size" if isinstance(error, torch.OutOfMemoryError) else ""
        return [Finding("cost", "bad", f"a training step fails: {str(error).splitlines()[0]}", fix)], {}
    finally:
        data.teardown("predict")
    device = fit.strategy.root_device
    memory = peak_memory_mb(device)
    lines = [Finding("cost", "ok", f"memory: {memory / 1024:.1f} GiB of the {device.type} at the most, so far")]
    found: dict[str, Any] = {"peak_memory_mb": round(memory, 1), "steps": plan.total}
    if timer.step is not None and plan.steps:
        epoch = timer.step * plan.steps
        found |= {"seconds_per_step": round(timer.step, 4), "seconds_per_epoch": round(epoch, 1)}
        what = (
            f"{words(timer.step)} a step of {plan.together} {data.noun}s, {words(epoch)} an epoch of {plan.steps} steps"
        )
        if plan.total:
            hours = timer.step * plan.total / 3600
            found["hours"] = round(hours, 3)
            long = hours > (LONG_ON_CPU if device.type == "cpu" else LONG)
            fix = "a smaller data.image_size or backbone=, fewer trainer.max_epochs, or a GPU" if long else ""
            what += f", {words(3600 * hours)} the {plan.total:,} steps of the run, without its evaluations"
            lines.append(Finding("cost", "watch" if long else "ok", what, fix))
        else:
            lines.append(Finding("cost", "watch", f"{what}; this run has no end", "trainer.max_epochs=..."))
    return [*lines, _disk(method, place)], found


def expected(method: SSLMethod, data: DataModule, plan: doctor_method.Length) -> float:
    """Seconds that a step may take on a CPU, by a forward pass of few items: backward costs twice as much again."""
    rows = torch.arange(min(LOOK, len(data.test_set)))
    forward = 0.0
    with (
        contextlib.suppress(UserError, StopIteration),
        evaluating(method.backbone),
        torch.no_grad(),
    ):  # the step says it
        x = next(iter(data.eval_loader("test", rows))).views[0]
        began = time.perf_counter()
        method.backbone(x)
        forward = (time.perf_counter() - began) / len(rows)
    data.teardown("predict")
    return 3 * forward * data.batch_size * max(1, data.global_count)


def _disk(method: SSLMethod, place: Path) -> Finding:
    """A checkpoint holds the weights and, for those that learn, two more numbers each; two checkpoints are kept."""
    weights = sum(t.numel() * t.element_size() for t in method.state_dict().values())
    needed = 2 * (weights + 2 * sum(p.numel() * 4 for p in method.parameters() if p.requires_grad))
    free = shutil.disk_usage(place).free
    what = f"disk: checkpoints take about {_size(needed)}, and {_size(free)} are free in {place.parent}"
    if free < 1.5 * needed:  # a new one is written before the old one goes
        return Finding("cost", "bad", what, "free some space, or runs_dir= on another disk")
    return Finding("cost", "watch" if free < 5 * needed else "ok", what)


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count > GIB else f"{count / 2**20:.0f} MiB"


def words(seconds: float) -> str:
    """
    >>> words(12), words(300), words(9000), words(300000)
    ('12 s', '5 min', '2.5 hours', '3.5 days')
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} hours" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
