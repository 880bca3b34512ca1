"""A run is a folder: its config, checkpoints and results, and the rule by which it is begun, resumed or refused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from ssl_lightning import devices, locks, places, plain_yaml, secrets
from ssl_lightning.crew import clearing
from ssl_lightning.errors import UserError
from ssl_lightning.launch import is_main_process

Status = Literal["new", "resumed", "finished"]
Decide = Callable[[Callable[[], Any]], Any]  # calls its argument on rank 0, returns what it gave on every rank
# What may differ between two commands on the same run: none of it alters the weights or the verdict.
FREE = (
    "name",
    "runs_dir",
    "resume",
    "trusted_packages",
    "choices",
    devices.KEPT,
    "logger",
    "callbacks.progress",
    "data.num_workers",
    "data.worker_timeout",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "rank_timeout",
)
CHECKPOINTS = ("last.ckpt", "previous.ckpt")  # the newest first
# What a process that was killed while it wrote leaves behind; each name ends with its number.
LEFT_OVER = re.compile(r"\..+\.\d+\.tmp|metrics\.csv\.tmp|\.writable")


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists stay whole."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides the result, flattened."""
    return {k: v for k, v in flatten(config).items() if not any(k == f or k.startswith(f"{f}.") for f in FREE)}


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of what decides the result."""
    return hashlib.sha256(json.dumps(decisive(config), sort_keys=True, default=str).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Key by key, `data.batch_size: 128 -> 256`, over what decides the result; a whole part as one."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        place, before, after = f"{prefix}{key}", old.get(key, "(absent)"), new.get(key, "(absent)")
        if place in FREE or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{place}.")
        else:
            found.append(f"{place}: {_short(before)} -> {_short(after)}")
    return found


def with_seed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config with the run's seed for a method that was not handed it when that run began."""
    method = old.get("method")
    if not isinstance(method, Mapping) or "seed" in method or "seed" not in (new.get("method") or {}):
        return dict(old)
    return {**old, "method": {**method, "seed": old.get("seed")}}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("_target_", "{...}")).rsplit(".", 1)[-1]
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def find_run(ref: str | None) -> Path | None:
    """The run folder that a `ckpt=` lies in (the folder itself, or a file in it or its checkpoints/), or None."""
    if not ref:
        return None
    path = Path(ref).expanduser()
    return next((folder for folder in (path, *list(path.parents)[:2]) if (folder / "config.yaml").is_file()), None)


class RunFolder:
    """`runs/<name>/`: config.yaml, checkpoints/, results.json and whatever else the run writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}  # the config that the run was begun with; empty for a new one
        self._moved: Path | None = None  # where an earlier folder of this name was put
        self._told: dict[str, Any] | None = None  # what rank 0 found here

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, or None: the newest, or the one before it. A sharded one is a folder."""
        if self._told is not None:
            return Path(self._told["checkpoint"]) if self._told["checkpoint"] else None
        return next((file for name in CHECKPOINTS if (file := self.path / "checkpoints" / name).exists()), None)

    @property
    def saved(self) -> Path | None:
        """What an interrupted run has kept: its checkpoint, or that of the part a stage of several trainings was in."""
        parts = [file for name in CHECKPOINTS for file in self.path.glob(f"*/checkpoints/{name}")]
        return self.checkpoint or max(parts, key=lambda path: path.stat().st_mtime, default=None)

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    @property
    def begun(self) -> bool:
        """Is there anything to lose? A run that stopped at its first mistake has left its config and nothing else."""
        kept = ("*.ckpt", "metrics.csv", "results.json", "*.safetensors")
        return any(next(self.path.rglob(pattern), None) for pattern in kept)

    def results(self) -> dict[str, Any] | None:
        """What `results.json` says, or None before the run has finished."""
        if self._told is not None and self._told["results"] is not None:
            return dict(self._told["results"])
        return plain_yaml.read_json(self.path / "results.json") if self.finished else None

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        """Why a run with this config may not go on in this folder, or None."""
        stored = with_seed(self._stored(), config)
        changed = differences(stored, devices.as_stored(stored, config)) if stored and self.begun else []
        if not changed:
            return None
        more = f"; and {len(changed) - 8} more" if len(changed) > 8 else ""
        why = f"{'; '.join(changed[:8])}{more}).{devices.why_not(stored, config)}"
        return (
            f"{self.path} was made with other settings ({why} Give this run another name=, or start afresh with "
            f"resume=never (the old folder is then kept as {self._aside().name})"
        )

    def open(self, config: Mapping[str, Any], resume: str = "auto") -> Status:
        """Claim the folder for a run with this (plain, resolved) config.

        "new": nothing to go on from; "resumed": `saved` is; "finished": `results()` are there already.
        Raises UserError when the folder is not ours, holds a run with another config, cannot be written, or holds
        nothing to resume and resume="must". With resume="never" an earlier folder is moved aside, never deleted.
        """
        self.config = dict(config)
        self.origin = {}
        if is_main_process():
            places.check_run(self.path)
        if resume == "never" and is_main_process() and self._stored():
            with writing(self.path):
                self._moved = self.path.rename(self._aside())
        reason = self.refusal(config)
        if reason:
            raise UserError(reason)
        self.origin = self._stored() if self.begun else {}
        if is_main_process() and self._stored():
            self._remove_left_overs()
        if self.finished:
            return "finished"
        if resume == "must" and self.saved is None:
            raise UserError(f"{self.path} holds no checkpoint to resume from; leave resume=must out to begin it")
        if is_main_process():
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                if not self.begun or not self._stored():
                    _write(self.path / "config.yaml", places.HEADER + yaml.safe_dump(dict(config), sort_keys=False))
                _write(self.path / ".writable", "")
                (self.path / ".writable").unlink()
        return "resumed" if self.saved else "new"

    def open_together(self, config: Mapping[str, Any], resume: str, decide: Decide | None) -> Status:
        """`open`, where there are several ranks by rank 0 alone: the others take its word and do not look."""
        if decide is None:
            return self.open(config, resume)

        def look() -> dict[str, Any]:
            status = self.open(config, resume)
            found = {"checkpoint": str(self.checkpoint or ""), "results": self.results(), "origin": self.origin}
            return {"status": status, **found}

        told = decide(look)
        self.config, self.origin, self._told = dict(config), told["origin"], told
        status: Status = told["status"]
        return status

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`, whole or not at all; only the main process does."""
        if is_main_process():
            with writing(self.path):
                text = json.dumps(secrets.mask(dict(results)), indent=2, default=_plain)
                _write(self.path / "results.json", text + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second command out of the folder while this one runs (its own child processes excepted)."""
        if not is_main_process():
            yield
            return
        places.check_run(self.path)
        made = places.missing(self.path)
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.with_name(f".{self.path.name}.lock")
            lock = locks.locked(file, self.path)

        def unlock(refused: bool) -> None:
            if refused:
                places.remove_unused(self.path, new=self.path in made or self._moved is not None)
                if self._moved is not None and not self.path.exists():
                    self._moved.rename(self.path)
            with contextlib.suppress(PermissionError):  # Windows removes no open file
                file.unlink(missing_ok=True)
            os.close(lock)
            places.remove_empty(made)

        with clearing(unlock):
            yield

    def _remove_left_overs(self) -> None:
        """Half-written files of a process that was killed; nobody else is at work here."""
        for file in list(self.path.rglob("*")):
            if LEFT_OVER.fullmatch(file.name) and file.is_file() and not file.is_symlink():
                with contextlib.suppress(OSError):  # a folder that cannot be written is told where that matters
                    file.unlink()

    def _stored(self) -> dict[str, Any]:
        return secrets.mask(places.config_of(self.path))

    def _aside(self) -> Path:
        n = 1
        while self.path.with_name(f"{self.path.name}.old-{n}").exists():
            n += 1
        return self.path.with_name(f"{self.path.name}.old-{n}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a file system says while `path` is written into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full: nothing more can be written to {path}; free some space and run again"
            ) from error
        why = error.strerror or type(error).__name__
        raise UserError(f"cannot write to {path}: {why}; choose another place with runs_dir=DIR") from error


def _write(path: Path, text: str) -> None:
    """The old file or the whole new one, at any moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, and paths, for json."""
    return value.item() if hasattr(value, "item") else str(value)
