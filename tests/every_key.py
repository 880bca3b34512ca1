"""Wrong values for every key of a composed config, and what becomes of each: a line for the user, or worse."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_lightning.cli import run as build
from ssl_lightning.cli.run import Config, Parts
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import RunFolder, flatten

WRONG: tuple[Any, ...] = (None, 0, -1, 1.5, 10**30, 1e30, math.nan, "abc", "", [], [1], {}, {"a": 1}, True)
GIVEN = ("name", "runs_dir", "resume", "recipe", "choices")  # of the run, not of what is built


def wrong_values(config: Config) -> Iterator[tuple[str, Any, Config]]:
    """(key, wrong value, the config with it) for each leaf of a config but the names of classes."""
    for key, old in flatten(config.values).items():
        if key.split(".")[0] not in GIVEN and not key.endswith(("_target_", "_partial_")):
            for value in WRONG:
                if value != old or type(value) is not type(old):
                    yield key, value, with_value(config, key, value)


def with_value(config: Config, key: str, value: Any) -> Config:
    values = copy.deepcopy(config.values)
    *above, last = key.split(".")
    node = values
    for step in above:
        node = node[step]
    node[last] = value
    return replace(config, values=values)


def build_part(config: Config, key: str, folder: Path) -> None:
    """Build the part that the key belongs to, as far as it can be built without training."""
    from ssl_lightning.cli.trainers import TrainerFactory

    part, parts = key.split(".")[0], Parts(config, RunFolder(folder))
    if part in ("method", "backbone", "optimizer", "scheduler"):
        _ = parts.method
    elif part in ("views", "data"):
        _ = parts.data
    elif part in ("trainer", "callbacks", "logger"):
        TrainerFactory(config.values, folder)(callbacks=None if part != "trainer" else [])


def outcome(config: Config, key: str, folder: Path) -> str:
    """ "refused", "built", or what was raised that is no line for a user."""
    try:
        build.check(config)
        build_part(config, key, folder)
    except UserError as error:
        text = str(error)
        return "refused" if "\n" not in text and len(text) < 700 else f"a long line: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "built"
