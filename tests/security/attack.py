"""One row of the table in docs/security.md: an attack, what it tried, and how it ends."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.__main__ import main


@dataclass(frozen=True)
class Attack:
    name: str
    tried: str
    refused: str
    data: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def parametrize(attacks: list[Attack]) -> Any:
    return pytest.mark.parametrize("attack", attacks, ids=str)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command line is refused."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    return said.err


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that lies under a folder, with the content of its files: equal before and after means nothing was touched."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
