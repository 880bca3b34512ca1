"""A run is a folder: its config, checkpoints and results, and the rule by which it is begun, resumed or refused."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from ssl_lightning.core import files, plain_yaml, secrets
from ssl_lightning.core.crew import clearing
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.launch import is_main_process
from ssl_lightning.runs import devices, earlier, extension, locks, places
from ssl_lightning.runs.comparison import FREE, decisive, differences, fingerprint, flatten, with_seed
from ssl_lightning.runs.places import find_run

__all__ = ["FREE", "RunFolder", "decisive", "differences", "find_run", "fingerprint", "flatten", "with_seed", "writing"]

Status = Literal["new", "resumed", "finished"]
Decide = Callable[[Callable[[], Any]], Any]  # calls its argument on rank 0, returns what it gave on every rank
CHECKPOINTS = ("last.ckpt", "previous.ckpt")  # the newest first
# What a process that was killed while it wrote leaves behind; each name ends with its number.
LEFT_OVER = re.compile(r"\..+\.\d+\.tmp|metrics\.csv\.tmp|\.writable")


class RunFolder:
    """`runs/<name>/`: config.yaml, checkpoints/, results.json and whatever else the run writes."""

    def __init__(self, path: str | Path, overrides: Sequence[str] = ()) -> None:
        """`overrides`: the command line's own words."""
        self.path, self.overrides = Path(path), tuple(overrides)
        self.config: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}  # the config that the run was begun with; empty for a new one
        self.said: str | None = None  # what is to be said of a run that is made longer
        self._moved: Path | None = None  # where an earlier folder of this name was put
        self._told: dict[str, Any] | None = None  # what rank 0 found here
        self._back = False  # asked for the end that it had before it was made longer

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, or None: the newest, or the one before it. A sharded one is a folder."""
        if self._told is not None:
            return Path(self._told["checkpoint"]) if self._told["checkpoint"] else None
        return next((file for name in CHECKPOINTS if (file := self.path / "checkpoints" / name).exists()), None)

    @property
    def saved(self) -> Path | None:
        """What an interrupted run has kept: its checkpoint, or that of the part a stage of several trainings was in."""
        parts = [file for name in CHECKPOINTS for file in self.path.glob(f"**/checkpoints/{name}")]
        return self.checkpoint or max(parts, key=lambda path: path.stat().st_mtime, default=None)

    @property
    def finished(self) -> bool:
        """Are there results, and not those of an earlier end while the run goes on to another?"""
        file = self.path / "results.json"
        if not file.is_file() or self._back:
            return self._back
        stored: dict[str, Any] = {}
        with contextlib.suppress(UserError):  # a damaged config.yaml is named where it matters
            stored = self._stored()
        return not extension.outrun(stored, file)

    @property
    def lengths(self) -> list[dict[str, Any]]:
        """The lengths that this run had before it was made longer, oldest first."""
        return extension.entries(self.origin)

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
        config, _ = earlier.as_begun(stored, config, self.overrides)
        if not stored or not self.begun:
            return None
        change = extension.change(stored, config)
        if change == "shorter" and not extension.back(stored, config, self.path / "results.json"):
            return (
                f"{self.path} is a run of {extension.told(stored)}, and {extension.told(config)} is shorter; set that "
                f"or more, give this run another name=, or start again with resume=never"
            )
        changed = differences(*extension.compared(stored, devices.as_stored(stored, config)))
        if not changed:
            return extension.hindrance(config) if change == "longer" else None
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
        config, _ = earlier.as_begun(self.origin, config, self.overrides)
        if is_main_process() and self._stored():
            self._remove_left_overs()
        self._back = bool(self.origin) and extension.back(self.origin, config, self.path / "results.json")
        if not self._back and self.origin and extension.change(self.origin, config) == "longer":
            self._extend(config)
        if self.finished:
            return "finished"
        if resume == "must" and self.saved is None:
            raise UserError(f"{self.path} holds no checkpoint to resume from; leave out resume=must to start it")
        if is_main_process():
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                if not self.begun or not self._stored():
                    self._write("config.yaml", places.HEADER + yaml.safe_dump(dict(config), sort_keys=False))
                self._write(".writable", "")
                (self.path / ".writable").unlink()
        return "resumed" if self.saved else "new"

    def _extend(self, config: Mapping[str, Any]) -> None:
        """Note in config.yaml that the run goes on to a later end; a UserError without a checkpoint to go on from."""
        file = self.path / "results.json"
        if self.saved is None and file.is_file():
            raise UserError(
                f"{self.path} is finished and has no checkpoint to continue from; give the longer run another name="
            )
        self.said = extension.line(self.origin, config)
        self.origin = extension.extended(self.origin, config, file)
        if is_main_process():
            head = places.HEADER if places.says_so(self.path) else ""
            with writing(self.path):
                self._write("config.yaml", head + yaml.safe_dump(self.origin, sort_keys=False))

    def forget(self, stage: str) -> None:
        """Take away the results of an earlier look of the same stage, so that it looks anew."""
        stored = self._stored().get("stage") if is_main_process() else None
        if isinstance(stored, dict) and stored.get("_target_") == stage:
            with writing(self.path):
                (self.path / "results.json").unlink(missing_ok=True)

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
                text = json.dumps(numbers_or_null(secrets.mask(dict(results))), indent=2, default=_plain)
                self._write("results.json", text + "\n")

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

    def _write(self, name: str, text: str) -> None:
        files.write_atomic(self.path / name, text, durable=True)

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


def numbers_or_null(value: Any) -> Any:
    """None for what is no number (NaN) or endless: JSON has no word for these, and a measure may be absent."""
    if isinstance(value, Mapping):
        return {key: numbers_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [numbers_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, and paths, for json."""
    return value.item() if hasattr(value, "item") else str(value)
