"""From a composed config to a run: check every node, build what the stage asks for, call it, keep its results."""

from __future__ import annotations

import errno
import inspect
import shlex
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from ssl_lightning import compose as composing
from ssl_lightning import instantiate as building
from ssl_lightning import run_folder, secrets
from ssl_lightning.arguments import Arguments
from ssl_lightning.compose import MAIN_GROUPS, Config, Settings, compose, nearest_key
from ssl_lightning.errors import Interrupted, UserError
from ssl_lightning.run_folder import RunFolder, is_main_process

__all__ = ["Config", "check", "compose", "main", "run"]

# What a stage's `run` may name besides its own arguments.
INJECTED = ("method", "judged", "data", "trainer", "run", "seed", "method_name", "data_name")


def main(asked: Arguments) -> int:
    """Run one command line, or show its config; returns the exit status."""
    if asked.cfg:
        print(show_config(asked), end="")
        return 0
    config = compose(asked.overrides, asked.config_dir)
    check(config)
    try:
        run(config)
    except (Interrupted, KeyboardInterrupt) as stop:
        if not is_main_process():
            return 0  # Lightning kills all ranks when one exits with another status before the first has
        again = shlex.join(secrets.mask_words(word for word in sys.argv[1:] if not word.startswith("resume=")))
        saved = RunFolder(config.path).saved
        where = f"its state is in {saved}" if saved else "nothing was saved yet"
        print(f"interrupted; {where}. Go on with: {program()} {again}".rstrip(), file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else 130
    return 0


def program() -> str:
    """How this program was called."""
    return "ssl-lightning" if sys.argv[0].endswith("ssl-lightning") else "python -m ssl_lightning"


def show_config(asked: Arguments) -> str:
    """The whole config as yaml, resolved or as written."""
    from omegaconf import OmegaConf

    if asked.resolve:
        return OmegaConf.to_yaml(compose(asked.overrides, asked.config_dir).shown)
    raw = composing.compose_raw(asked.overrides, asked.config_dir)
    node = OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])
    return OmegaConf.to_yaml(OmegaConf.create(secrets.mask(OmegaConf.to_container(node))))


# ---- checks --------------------------------------------------------------------------------------------------------


def check(config: Config) -> None:
    """Check every name, argument and value of a config against the constructors, without importing or building them.

    Raises UserError for the first that is wrong.
    """
    values, settings = config.values, building.signature_of(f"{Settings.__module__}.Settings").params
    for key in values:
        if key in settings:
            building.check_value(values[key], settings[key], key)
        elif key not in MAIN_GROUPS:
            raise UserError(f"there is no '{key}' in this config.{nearest_key(key, [*settings, *MAIN_GROUPS])}")
    trusted = config.settings.trusted_packages
    for part in ("backbone", "views", "scheduler", "optimizer", "data"):
        building.check(values.get(part), trusted, part)
    building.check(values.get("method"), trusted, "method", injected=("backbone", "optimizer"))
    building.check({"_target_": "lightning.Trainer", **values["trainer"]}, trusted, "trainer")
    for group in ("callbacks", "logger"):
        for name, node in (values.get(group) or {}).items():
            building.check(node, trusted, f"{group}.{name}", injected=("run_path",))
    building.check(values.get("stage"), trusted, "stage", injected=INJECTED)


# ---- the run -------------------------------------------------------------------------------------------------------


class Parts:
    """Builds each object a stage may name, once, and only when it is asked for."""

    def __init__(self, config: Config, folder: RunFolder) -> None:
        self.config, self.folder = config, folder
        self.built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.built:
            self.built[name] = getattr(self, f"_{name}")()
        return self.built[name]

    def _node(self, part: str, **extra: Any) -> Any:
        return building.instantiate(self.config.values[part], self.config.settings.trusted_packages, **extra)

    def _method(self) -> Any:
        return self._node("method", backbone=self._node("backbone"), optimizer=self._node("optimizer"))

    def _judged(self) -> Any:
        from ssl_lightning.stages.common import open_backbone

        settings, chosen = self.config.settings, self.config.names("backbone")
        node, trusted = self.config.values["backbone"], settings.trusted_packages
        return open_backbone(settings.ckpt, node, chosen, settings.seed, trusted)

    def _data(self) -> Any:
        return self._node("data")

    def _trainer(self) -> Any:
        from ssl_lightning.trainers import TrainerFactory

        return TrainerFactory(self.config.values, self.folder.path)

    def _run(self) -> RunFolder:
        return self.folder

    def _seed(self) -> int:
        return self.config.settings.seed

    def _method_name(self) -> str:
        return str(self.config.choices["method"])

    def _data_name(self) -> str:
        return str(self.config.choices["data"])


def run(config: Config) -> dict[str, Any]:
    """Do what the config says in its run folder, or say that it has been done; returns the results."""
    from ssl_lightning import table

    folder = RunFolder(config.path)
    with folder.locked():
        status = folder.open(config.stored, config.settings.resume)
        if status == "finished":
            results = folder.results() or {}
            print(f"{folder.path} is finished; nothing to do. To run it again: another name=, or resume=never")
            table.show_results(results, str(folder.path))
            return results
        if is_main_process():
            print(f"resuming {folder.path} from {folder.saved}" if status == "resumed" else f"run: {folder.path}")
        results = _call_stage(config, folder)
        folder.write_results(results)
        if is_main_process():
            table.show_results(results, str(folder.path))
    return results


def _call_stage(config: Config, folder: RunFolder) -> dict[str, Any]:
    settings, node = config.settings, config.values["stage"]
    # Lightning ends the process by itself on a KeyboardInterrupt, without a word on how to go on.
    previous = {number: signal.signal(number, terminated) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        from lightning import seed_everything

        stage = building.load(node["_target_"], settings.trusted_packages)
        seed_everything(settings.seed, workers=True, verbose=False)
        parts = Parts(config, folder)
        wanted = [name for name in INJECTED if name in inspect.signature(stage).parameters]
        found = building.instantiate(node, settings.trusted_packages, **{name: parts[name] for name in wanted})
        head = {"stage": config.choices["stage"], "method": parts["method_name"], "data": parts["data_name"]}
        results = head | {"seed": settings.seed} | found
        results["config_sha256"] = run_folder.fingerprint(config.stored)
        for logger in parts.built["trainer"].loggers if "trainer" in parts.built else ():
            if hasattr(logger, "log_results"):
                logger.log_results(results)
        return results
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk of {folder.path} is full; free some space, then run the same command") from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Handler of signals outside of training: stop here, and say how to go on."""
    raise Interrupted(128 + number)
