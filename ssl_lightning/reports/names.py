"""Values and commands of a run as a page shows them; what things are called is in `core.words`."""

import shlex
from collections.abc import Mapping
from typing import Any

from ssl_lightning.core import secrets
from ssl_lightning.core.words import is_share, plain_word
from ssl_lightning.reports.axes import number


def value(key: str, found: Any) -> str:
    """A result for people."""
    return number(float(found), is_share(key)) if isinstance(found, int | float) else str(found)


def command(words: Any) -> str:
    """A command line to paste."""
    return secrets.hide(f"python -m ssl_lightning {shlex.join(plain_word(str(word)) for word in words)}".rstrip())


def home(config: Mapping[str, Any]) -> str:
    """The run's folder as a command line names it."""
    runs_dir, name = str(config.get("runs_dir") or "runs"), str(config.get("name") or "")
    return secrets.hide(f"{runs_dir}/{name}" if name else runs_dir)
