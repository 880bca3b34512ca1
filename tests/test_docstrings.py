"""Every public name says what it takes, gives and raises, with an example; the examples run."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import ssl_lightning

NAMES = [name for name in ssl_lightning.__all__ if not name.startswith("__")]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(ssl_lightning, name))]


@pytest.mark.parametrize("name", NAMES)
def test_its_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    thing = getattr(ssl_lightning, name)
    assert ">>>" in (thing.__doc__ or ""), f"{name} has no example"
    scope: dict[str, Any] = dict(vars(importlib.import_module(thing.__module__)))
    scope["torch"] = importlib.import_module("torch")
    told: list[str] = []
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs=scope):
        doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(test, out=told.append)
    assert told == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_says_what_it_takes_and_gives(name: str) -> None:
    function = getattr(ssl_lightning, name)
    text = inspect.getdoc(function) or ""
    parts = dict(re.findall(r"^(Args|Returns|Raises):\n((?:(?:    .*)?\n)+)", text + "\n", flags=re.M))
    signature = inspect.signature(function)
    for parameter in signature.parameters:
        assert re.search(rf"^    [\w*, ]*\b{parameter}\b[\w, ]*:", parts["Args"], flags=re.M), f"{name}: {parameter}"
    assert ("Returns" in parts) == (str(signature.return_annotation) not in ("None", "<class 'NoneType'>"))
    assert "UserError" in parts.get("Raises", "") or name in ("concat", "chunk", "gather")
