"""Small stand-ins that test configs name: stages without any training, and classes to build."""

import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.request import urlretrieve  # noqa: F401  (what a config must not reach through this module)

from ssl_lightning.runs.folder import RunFolder

Engine = Literal["device", "worker"]


def stage(
    run: RunFolder,
    seed: int,
    method_name: str,
    data_name: str,
    boost: float = 0.0,
    fail: bool = False,
    notes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A stage that measures nothing and leaves a trace of each call."""
    with open(run.path / "calls.txt", "a") as file:
        file.write(f"{seed} {method_name} {data_name} {boost}\n")
    if fail:
        raise RuntimeError("this job fails")
    return {"knn_top1": 0.5 + boost, "nested": {"a": 1.5}}


def stopped(run: RunFolder, number: int = signal.SIGTERM) -> dict[str, Any]:
    """A stage that is told to stop while it works."""
    os.kill(os.getpid(), number)
    signal.pause()
    return {}


def full_disk(run: RunFolder) -> dict[str, Any]:
    """A stage for which there is no room."""
    raise OSError(28, "No space left on device")


class Base:
    def __init__(self, width: int, *, ratio: float = 1.0, flag: bool = False, name: str | None = None) -> None:
        self.width, self.ratio, self.flag, self.name = width, ratio, flag, name


class Child(Base):
    """Passes on what it does not know itself."""

    def __init__(
        self,
        part: "Base | list[Any] | None" = None,
        engine: Engine = "device",
        betas: tuple[float, float] = (0.9, 0.99),
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.part, self.engine, self.betas = part, engine, betas


@dataclass(frozen=True)
class Point:
    x: float
    y: "float | None" = None
    sizes: tuple[int, ...] = ()
    either: int | float = 0
    make: Callable[[int], Base] | None = None


def twice(x: int, **anything: Any) -> Base:
    """A builder: it says what it returns."""
    return Base(width=2 * x)


def broken() -> Base:
    return Base(width=1 // 0)


def runs(x: int) -> int:
    """No builder, so not for a config to name."""
    raise AssertionError("a config called this")


class _Private(Base):
    """A name that begins with an underscore is not for a config."""


made_by_call = functools.partial(twice, x=1)
