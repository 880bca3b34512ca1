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


def branching(
    part: Any, flag: bool, other: bool, a: int = 0, b: int = 0, c: int = 0, d: bool = False, e: int = 0
) -> Any:
    if flag:
        with open(str(a)):
            return part.x + b
    found = c if other else part.z
    if not flag and other:
        found = c
    d = bool(e)
    return part.y if d else found


class Holding:
    def __init__(self, two: int = 0, loose: int = 0) -> None:
        self.base, self.loose, self.nothing = two, loose, 1


class Holder(Holding):
    def __init__(self, plain: int = 0, one: int = 0, second: int = 0, **others: Any) -> None:
        super().__init__(two=second, **others)
        local = plain + one
        self.plain, self.both = plain, [one, second]
        self.by_local = local
        if one:
            self.conditional = second

    @property
    def asked(self) -> int:
        return self.plain

    def method(self) -> Any:
        return self.both

    def set_later(self) -> None:
        self.later = self.plain + self.base

    def handed_on(self) -> Any:
        return print(self)
