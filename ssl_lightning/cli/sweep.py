"""`-m`: every combination of the swept values, each job as a fresh process of the same command line, one by one.

Hydra decides which jobs there are, by any of its sweepers. Run by Hydra inside its own process, each rank of a
multi-process job would start the whole sweep again; so what Hydra runs here only starts the job and waits for it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.cli import config_loader, help, ledger, words
from ssl_lightning.cli import run as build
from ssl_lightning.cli.arguments import Arguments
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.core import one_line, secrets
from ssl_lightning.core.errors import Interrupted, UserError
from ssl_lightning.core.signals import CTRL_C, WATCH, announce, status, status_of_process
from ssl_lightning.runs import places
from ssl_lightning.runs.folder import RunFolder

POLL = 0.1  # seconds between two looks at a job
MOST_LOOKS = 100  # jobs that are looked at before a key is refused because none of them reads it
Start = Callable[[list[str]], int]  # runs a command to its end, returns its exit status


def main(asked: Arguments, start: Start | None = None) -> int:
    """Run a sweep; returns 0, 1 when a job failed, 75 or 130 when it was stopped by a signal."""
    try:
        with WATCH:
            sweep = Sweep(asked, start or run_process)
            sweep.run()
    except (Interrupted, KeyboardInterrupt) as stop:
        announce("finished jobs are kept")
        return stop.code if isinstance(stop, Interrupted) else CTRL_C
    sweep.ledger.show()
    show_page(sweep.path)
    failed = [row["job"] for row in sweep.ledger.rows if row["status"] != "done"]
    if failed:
        print(f"failed: {'; '.join(failed)}. Run the same command to try these again.", file=sys.stderr)
    return 1 if failed else 0


def show_page(folder: Path) -> None:
    """Write the page that compares the jobs. Without it a sweep is as good as before."""
    try:
        from ssl_lightning.reports import compare

        page = compare.of_sweep(folder)
    except Exception as error:
        print(f"compare.html was not written: {one_line.text(error)}", file=sys.stderr)
        return
    if page is not None:
        print(f"page: {page}")


def run_process(command: list[str]) -> int:
    """Run a command to its end; signals to this process are passed on, so that the job can save and stop."""
    with WATCH.held():  # else a signal could come between the start of a job and the first look at it
        process, passed = subprocess.Popen(command), False
        while process.returncode is None:
            try:
                if WATCH.told and not passed:
                    passed = True
                    process.send_signal(WATCH.told)
                process.wait(POLL)
            except subprocess.TimeoutExpired:
                pass
            except Interrupted:  # told once more: the job stops at once, too
                process.send_signal(WATCH.told)
    if WATCH.told:
        raise Interrupted(status(WATCH.told))
    return process.returncode


class Sweep:
    """One `-m` command line: what is swept, where its jobs go, and how one is run."""

    def __init__(self, asked: Arguments, start: Start) -> None:
        self.asked, self.start = asked, start
        parsed = _parse(words.as_typed(asked.overrides, asked.config_dir, sweep=True))
        parsed, self.real = without_secrets(parsed)
        self.swept = {o.get_key_element(): list(_values(o)) for o in parsed if o.is_sweep_override()}
        if not self.swept:
            raise UserError("-m needs a key with several values, for example data.batch_size=128,256")
        name = next((str(o.value()) for o in parsed if o.key_or_group == "name"), None)
        if name is not None:
            places.check_name(name)
        self.overrides = for_hydra([o for o in parsed if o.key_or_group != "name"], asked.config_dir)
        self.typed = {o.get_key_element().lstrip("+"): o.get_key_element() for o in parsed}
        self.fixed = {o.get_key_element(): str(o.input_line) for o in parsed if not o.is_sweep_override()}
        self.fixed.pop("name", None)
        configs = self._check_each_value()
        whole = next(iter(configs.values()))
        self.name = name or f"{self._label('method', whole)}-{self._label('data', whole)}-sweep"
        self.path = places.inside(Path(whole.settings.runs_dir).expanduser(), self.name)
        places.check_sweep(self.path)
        self.ledger = ledger.Ledger(self.path)
        for label, config in configs.items():
            reason = RunFolder(self.path / folder_name(label), config.overrides).refusal(config.stored)
            if reason and config.settings.resume != "never":
                raise UserError(reason)

    def _check_each_value(self) -> dict[str, Config]:
        """Compose and check the first job, then again with each further value: a wrong one ends it at once."""
        first = {key: values[0] for key, values in self.swept.items() if values}
        combinations = [first, *({**first, key: v} for key, values in self.swept.items() for v in values[1:])]
        configs, unread = {}, []
        for chosen in combinations:
            config, without = self._checked(list(chosen.values()))
            configs[label_of(list(chosen.values()))] = config
            unread.append(without)
        self._refuse_unread(unread)
        self.partly = any(unread)  # is there a word that some jobs read, and others do not?
        return configs

    def _checked(self, swept: Sequence[str]) -> tuple[Config, dict[str, str]]:
        """A job's config, and the words of the whole sweep that this job would not read, which it is not given."""
        told = self._told([*self.fixed.values(), *swept])
        config = compose(told, self.asked.config_dir)
        unread = dict(build.unread(config))
        if unread:
            config = compose([word for word in told if word not in unread], self.asked.config_dir)
        return config, unread

    def _refuse_unread(self, unread: list[dict[str, str]]) -> None:
        """Raise a UserError for a key that no job would read. One that some of them read may be swept with the rest."""
        nowhere = {_key(word): why for word, why in unread[0].items()}
        grid = product(*(values for values in self.swept.values() if values))
        others = (self._checked(swept)[1] for swept in islice(grid, MOST_LOOKS))
        for found in chain(unread[1:], others):
            if not nowhere:
                return
            nowhere = {key: why for key, why in nowhere.items() if key in map(_key, found)}
        for why in nowhere.values():
            raise UserError(why)

    def _told(self, overrides: Sequence[str]) -> list[str]:
        """The overrides as a job gets them, secrets in their place."""
        return [self.real.get(override, override) for override in overrides]

    def _label(self, group: str, first: Config) -> str:
        values = [override.partition("=")[2] for override in self.swept.get(group, [])]
        return "+".join(values) if values else str(first.choices[group])

    def run(self) -> None:
        """Let Hydra's sweeper name the jobs; it calls this object for each."""
        own = [f"hydra.sweep.dir={words.quoted(str(self.path))}", "hydra/hydra_logging=none", "hydra/job_logging=none"]
        overrides = config_loader.with_folder([*self.overrides, *own], self.asked.config_dir)
        with config_loader.opened() as hydra:
            try:
                hydra.multirun("config", self, overrides, with_log_configuration=False)
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(str(error).strip().splitlines()[0]) from error

    def __call__(self, config: Any) -> float:
        """Run one job; returns its score (nan: failed). A finished one says so itself, and is quick."""
        (self.path / "multirun.yaml").unlink(missing_ok=True)  # Hydra's copy of what each job's config.yaml says
        task = [str(override).lstrip("+").partition("=") for override in HydraConfig.get().overrides.task]
        fixed = {key.lstrip("+") for key in self.fixed}
        swept = [f"{self.typed[key]}={value}" for key, _, value in task if key in self.typed and key not in fixed]
        label, unread = label_of(swept), self._unread(swept)
        less = ", without ".join(["", *(secrets.hide(why.partition(";")[0]) for why in unread.values())])
        print(f"job {len(self.ledger.rows) + 1}: {label}{less}", flush=True)
        flags = ["--config-dir", str(self.asked.config_dir)] if self.asked.config_dir else []
        name = f"name={words.quoted(f'{self.name}/{folder_name(label)}')}"
        told = [word for word in self._told([*self.fixed.values(), *swept]) if word not in unread]
        code = self.start([sys.executable, "-m", "ssl_lightning", *flags, *told, name])
        stopped = status_of_process(code)
        if stopped is not None:
            raise Interrupted(stopped)
        return self.ledger.add(label, _row(swept), code, RunFolder(self.path / folder_name(label)).results())

    def _unread(self, swept: Sequence[str]) -> dict[str, str]:
        """The words that a job would not read."""
        if not self.partly and len(self.swept) < 2:
            return {}  # each job has been looked at
        try:
            return self._checked(swept)[1]
        except UserError:  # the job says so itself
            return {}


def _row(swept: Sequence[str]) -> dict[str, str]:
    """The swept values of a job, by their keys."""
    pairs = [word.lstrip("+").partition("=") for word in swept]
    return {key: value for key, _, value in pairs}


def _parse(overrides: Sequence[str]) -> list[Override]:
    with config_loader.opened() as hydra:
        parser = OverridesParser.create(config_loader=hydra.config_loader)
        try:
            return parser.parse_overrides(list(overrides))
        except HydraException as error:
            raise UserError(str(error).strip().splitlines()[0]) from error


def _key(word: str) -> str:
    return word.partition("=")[0]


def for_hydra(parsed: Sequence[Override], config_dir: Path | None) -> list[str]:
    """The overrides as Hydra needs them to name the jobs. Which keys there are is known here: some come from a `ckpt=`,
    of which Hydra knows nothing, so it is to add what it has not."""
    groups = help.groups((config_dir,) if config_dir else ())
    found = []
    for override in parsed:
        key, word = override.key_or_group, str(override.input_line)
        if key in groups or "/" in key or key.startswith("hydra."):
            found.append(word)
        elif not override.is_delete():
            found.append(f"++{word.lstrip('+')}")
    return found


def _values(override: Override) -> list[str]:
    """`key=value` for each value of a sweep; none for an interval, which only some sweepers understand."""
    if not override.is_discrete_sweep():
        return []
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def without_secrets(parsed: list[Override]) -> tuple[list[Override], dict[str, str]]:
    """The overrides with `hidden1`, `hidden2` for secret values, and the real `key=value` for each that was replaced.

    Labels, folders, tables and Hydra's own notes are made of these; only a job's command line gets the real ones.
    """
    real: dict[str, str] = {}
    words = []
    for override in parsed:
        word, key = str(override.input_line), override.get_key_element()
        values = _values(override) if override.is_sweep_override() else [word]
        if override.key_or_group != "name" and any(secrets.mask_word(value) != value for value in values):
            hidden = [f"hidden{i}" for i in range(1, len(values) + 1)]
            real |= {f"{key}={text}": value for text, value in zip(hidden, values, strict=True)}
            word = f"{key}={','.join(hidden)}"
        words.append(word)
    return _parse(words), real


def label_of(swept: Sequence[str]) -> str:
    """A job's name: what sets it apart from the others."""
    return ",".join(override.lstrip("+") for override in swept)


def folder_name(label: str) -> str:
    """A job's folder: its label, made safe, and cut where a file system would refuse it."""
    safe = re.sub(r"[^\w.,=+@-]+", "_", label.replace("'", "").replace('"', ""))
    if safe == label and len(safe) <= 150:
        return safe
    return f"{safe[:140]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
