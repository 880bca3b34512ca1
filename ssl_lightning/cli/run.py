"""From a composed config to a run: check every node, build what the stage asks for, call it, keep its results."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ssl_lightning.cli import photos, ranks, slips, typed
from ssl_lightning.cli.compose import MAIN_GROUPS, Config, Settings, compose, nearest_key
from ssl_lightning.cli.run_parts import Parts, changed, other_kind
from ssl_lightning.config import instantiate as building
from ssl_lightning.config import ranges
from ssl_lightning.config.allowed import PLACES, shown
from ssl_lightning.core import crew as crews
from ssl_lightning.core import launch, missing, one_line, progress
from ssl_lightning.core.errors import Interrupted, UserError
from ssl_lightning.core.launch import Launch, is_main_process
from ssl_lightning.core.signals import WATCH, status, words
from ssl_lightning.runs import devices, earlier, known
from ssl_lightning.runs import folder as run_folder
from ssl_lightning.runs.folder import RunFolder

# Stages that look anew each time, whatever their folder holds.
_ANEW = ("compare", "doctor", "predict", "report", "retrieve", "quality", "invariance")
ANEW = tuple(f"ssl_lightning.stages.{name}.run" for name in _ANEW)
IMAGES = "ssl_lightning.modalities.image."  # which most methods were written for

__all__ = ["Config", "Parts", "check", "compose", "run"]

# What the run itself gives to each part; to a stage any of `Parts`.
GIVEN: dict[str, tuple[str, ...]] = dict.fromkeys(("backbone", "views", "scheduler", "optimizer", "data", "task"), ())
GIVEN |= {"method": ("backbone", "optimizer")}
# Arguments of lightning.Trainer that `TrainerFactory` sets, and one that sends checkpoints away.
OF_THE_TRAINER = ("callbacks", "default_root_dir", "deterministic", "use_distributed_sampler", "model_registry")


class Ended(BaseException):
    """The processes that this one started have ended with an error, and have told it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit status {code}")
        self.code = code


def settle(place: Launch, config: Config) -> tuple[Launch, Config]:
    """This process' place, and the config with trainer.devices and num_nodes as they are."""
    place, trainer = launch.settle(place, config.values["trainer"])
    known = {key: trainer[key] for key in ("devices", "num_nodes") if key in trainer}
    shown = {**config.shown, "trainer": {**config.shown.get("trainer", {}), **known}}
    return place, replace(config, values={**config.values, "trainer": trainer}, shown=shown)


def interrupted(config: Config, error: BaseException, again: str | None = None) -> tuple[int, str]:
    """The exit status of a run that a signal has stopped, and the line that says how to go on, see `signals.words`."""
    saved = RunFolder(config.path).saved
    text = words(f"its state is in {saved}" if saved else "nothing was saved yet", again)
    if isinstance(error, Exception):  # a consequence: the signal may have ended a data worker, too
        text = f"after signal {WATCH.told}: {type(error).__name__}: {error}\n{text}"
    return error.code if isinstance(error, Interrupted) else status(WATCH.told or signal.SIGINT), text


# ---- checks --------------------------------------------------------------------------------------------------------


def check(config: Config) -> None:
    """Check every name, argument and value of a config against the constructors, without importing or building them.

    Raises UserError for the first that is wrong, and for what is typed and not read.
    """
    for _, why in unread(config):
        raise UserError(why)


def unread(config: Config) -> list[tuple[str, str]]:
    """The same check, with (word, why) for each word of the command line that is right, and that nothing would read."""
    line = typed.Line(config.overrides, config.values, config.choices, config.refers)
    try:
        _check_values(config)
    except UserError as error:
        why, data = "", str((config.values.get("data") or {}).get("_target_"))
        if not data.startswith(IMAGES):  # a value may not fit because of the kind of the data: colours have a mean
            with contextlib.suppress(UserError, TypeError):  # what is wrong may be trusted_packages
                why = other_kind(config)  # imports both, and with them torch
        raise UserError(why) if why else typed.of_what_was_typed(error, line) from error
    typed.check_method(line)
    return typed.unread(line)


def _check_values(config: Config) -> None:
    own = f"{Settings.__module__}.Settings"
    values, settings = config.values, building.signature_of(own).params
    for key in values:
        if key in settings:
            building.check_value(values[key], settings[key], key, own)
        elif key not in MAIN_GROUPS:
            places = {*run_folder.flatten(values), *settings, *MAIN_GROUPS}
            hint = slips.hint(key, str(values[key]), places) or nearest_key(key, [*settings, *MAIN_GROUPS])
            raise UserError(f"there is no '{key}' in this config.{hint}")
    trusted = config.settings.trusted_packages
    for group in (*PLACES, "trainer"):
        if not isinstance(values.get(group) or {}, dict):
            raise UserError(f"{group} is {shown(values[group])}; it must be a mapping, as in conf/{group}")
    if "_target_" not in (values.get("stage") or {}):
        raise UserError("stage has no _target_; choose one with stage=<name>, or say which function it is")
    for part, given in (GIVEN | {"stage": tuple(Parts.names())}).items():
        building.check(values.get(part), trusted, part, given, PLACES[part])
    _check_probes(values, trusted)
    building.check_arguments("lightning.Trainer", values["trainer"], trusted, "trainer", OF_THE_TRAINER)
    ranges.check_together(values, config.names)
    for group in ("callbacks", "logger"):
        for name, node in (values.get(group) or {}).items():
            if node is not None and not (isinstance(node, dict) and "_target_" in node):
                raise UserError(f"{group}.{name} has no _target_; say which class it is, or {group}.{name}=null")
            building.check(node, trusted, f"{group}.{name}", ("run_path", *building.ROOTED), PLACES[group])


def _check_probes(values: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """Raise a UserError for a probe of a stage that is no change of these data."""
    probes, data = (values.get("stage") or {}).get("probes") or {}, values.get("data") or {}
    for name, changes in probes.items():
        where = f"stage.probes.{name}"
        if not isinstance(changes, dict) or not changes or not str(name).isidentifier():
            raise UserError(f"{where} must be a mapping of the data keys to change: {{{name}: {{label_column: ...}}}}")
        if "_target_" in changes:
            raise UserError(f"{where} changes keys of the data, not their class; leave _target_ out")
        building.check(changed(data, changes), trusted, where, (), PLACES["data"])


# ---- the run -------------------------------------------------------------------------------------------------------


def run(config: Config, command: Sequence[str] | None = None, tables: bool = True) -> dict[str, Any]:
    """Do what the config says in its run folder, or say that it has been done; returns the results.

    Where the config asks for several processes and no launcher has started them, this one starts them, each with
    `command` (by default the command line of this process), waits, and raises `Ended` if they fail. `tables`: print
    the results, too.
    """
    place, config = settle(launch.here(), config)
    trainer = config.values["trainer"]
    local = launch.wanted(trainer) if not place.kind else 1
    if not place.kind and local * int(trainer.get("num_nodes") or 1) > 1:
        code = ranks.start(local, trainer, command)
        if code:
            raise Ended(code)
        return RunFolder(config.path).results() or {}
    flags = [flag for pair in pairwise(command or ()) if pair[0] == "--config-dir" for flag in pair]
    flags += [word for word in command or () if word.startswith("--config-dir=")]
    with WATCH:
        if place.world == 1:
            return _work(config, None, flags, tables)
        with crews.join(place).at_work(lambda error: interrupted(config, error)) as crew:
            return _work(config, crew, flags, tables)


def _work(config: Config, crew: crews.Crew | None, flags: Sequence[str], tables: bool) -> dict[str, Any]:
    """The run itself, in each of its processes. Rank 0 decides whether there is anything to do, and from where."""
    from ssl_lightning.cli import summary

    folder = RunFolder(config.path, config.overrides)
    with folder.locked():
        chosen = devices.chosen(config.values)
        if config.values["stage"]["_target_"] in ANEW:
            folder.forget(config.values["stage"]["_target_"])
        if config.settings.resume == "never":
            known.check_kept(config.settings.ckpt, folder.path)
        status = folder.open_together(config.stored | chosen, config.settings.resume, crew.decide if crew else None)
        if status == "finished":
            results = folder.results() or {}
            if is_main_process() and tables:
                print(f"{folder.path} is finished; nothing to do. To run it again: another name=, or resume=never")
                summary.show(results, folder.path, config.overrides, flags)
            return results
        first = f"resuming {folder.path} from {folder.saved}" if status == "resumed" else f"run: {folder.path}"
        notes = [first, *photos.lines(config.choices, config.values, config.overrides), *config.said]
        notes += [*ranges.notes(config.values, config.names), *([folder.said] if folder.said else [])]
        values, said = dict(config.values), None
        if folder.origin:  # not from what is stored, in which secrets are masked
            folder.config, _ = earlier.as_begun(folder.origin, folder.config, config.overrides)
            values, kept = earlier.as_begun(folder.origin, config.values, config.overrides)
            notes += [f"kept as this run was started: {', '.join(kept)}"] if kept else []
            values, said = devices.shared_anew(folder.origin, values | chosen)
        notes += [f"{said}: the images of a step stay the same"] if said else []
        config = replace(config, values={key: values[key] for key in config.values if key in values})
        results, parts = _call_stage(config, folder, notes, crew)
        from ssl_lightning.reports import pages

        pages.note_health(folder.path, results)
        folder.write_results(results)
        pages.write_quietly(folder.path, config.overrides)
        _tell_loggers(parts, results)
        if is_main_process() and tables:
            summary.show(results, folder.path, config.overrides, flags)
    return results


def _tell_loggers(parts: Parts, results: dict[str, Any]) -> None:
    """Give the results to the loggers that take them. All is written by now; what fails here is one line."""
    if not is_main_process():
        return
    try:
        for logger in parts.result_loggers():
            logger.log_results(results)  # type: ignore[attr-defined]
    except Exception as error:
        print(
            f"a logger failed to store the results, which are in results.json: {one_line.text(error)}", file=sys.stderr
        )


def _call_stage(
    config: Config, folder: RunFolder, notes: Sequence[str], crew: crews.Crew | None = None
) -> tuple[dict[str, Any], Parts]:
    """Build the parts, tell the `notes`, and call the stage: weights that cannot be read are refused before."""
    settings, node = config.settings, config.values["stage"]
    try:
        from lightning import seed_everything

        stage = building.load(node["_target_"], settings.trusted_packages, PLACES["stage"])
        seed_everything(settings.seed, workers=True, verbose=False)
        shown, callbacks = (
            config.values["trainer"].get("enable_progress_bar", True),
            config.values.get("callbacks") or {},
        )
        progress.watched(bool(shown and callbacks.get("progress")))
        parts = Parts(config, folder)
        if crew is not None:
            parts.trainer.begin_talk(crew, settings.rank_timeout)
        given = parts.of(stage)
        if is_main_process():
            print(*notes, sep="\n", flush=True)
        if given.keys() >= typed.RECORDED and is_main_process():
            parts.own_loggers()  # a package that is missing is named before the work
        found = building.instantiate(node, settings.trusted_packages, PLACES["stage"], **given)
        head = {"stage": config.choices["stage"], "method": parts.method_name, "data": parts.data_name}
        results = head | {"seed": settings.seed} | found
        results |= parts.fingerprint(results)
        results["config_sha256"] = run_folder.fingerprint(folder.origin or config.stored)
        return results, parts
    except Exception as error:
        _explain(error, folder, settings.trusted_packages, str((config.values.get("data") or {}).get("_target_") or ""))
        raise


def _explain(error: Exception, folder: RunFolder, trusted: Sequence[str], data: str) -> None:
    """Raise what an exception means for the user; where it is a bug of a data worker's, name it above its traceback.

    `data`: the path of their class.
    """
    from ssl_lightning.data import workers

    mistake = workers.explain(error)  # torch raises a worker's UserError as one, with a traceback in its text
    if mistake is None and isinstance(error, ModuleNotFoundError) and (absent := missing.line(error)):
        mistake = UserError(absent)
    if mistake is None and not isinstance(error, UserError):
        mistake = one_line.of_run(error, folder.path, trusted)
        if mistake is None and data and not data.startswith("ssl_lightning."):  # ours check their networks themselves
            from ssl_lightning.core import misfit

            mistake = misfit.of_views(error, data.rpartition(".")[2])
    if mistake is not None:
        raise mistake from error
    if workers.named(error):
        print(workers.named(error), file=sys.stderr, flush=True)
