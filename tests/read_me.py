"""Functions to be read, not called, by `test_typed.py`."""

from functools import partial
from typing import Any


def direct(part: Any) -> Any:
    return part.a + part.b()


def handed(part: Any) -> Any:
    return direct(part) + part.c


def by_name(part: Any) -> Any:
    return direct(part=part)


def bound(part: Any) -> Any:
    return partial(direct, part)()


class Keeper:
    def __init__(self, x: int, part: Any) -> None:
        self.x, self.part = x, part

    def use(self) -> Any:
        return self.part.d + self.part.e


def kept(part: Any) -> Any:
    return Keeper(1, part).use()


def called(part: Any) -> Any:
    return part(x=[]), part()


def inner(part: Any) -> Any:
    def within() -> Any:
        return part.f

    return within()


def stored(part: Any) -> Any:
    return [part]


def unknown(part: Any) -> Any:
    return inner.__call__(part)


def starred(part: Any) -> Any:
    return direct(*[], part)


def endless(part: Any) -> Any:
    return part.g or endless(part)


def a_stage(data: Any, trainer: Any) -> Any:
    fitter = trainer(max_epochs=3)
    return fitter, data.train_dataloader()
