"""Cells of tables for people, which may be opened in a spreadsheet and hold names of anybody's."""

from __future__ import annotations

from typing import Any

from ssl_lightning.core import secrets

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell that begins with for a formula


def cell(value: Any) -> Any:
    """A number, or a text that no spreadsheet takes for a formula, without secrets."""
    if not isinstance(value, str):
        return value
    value = secrets.hide(value)
    return f"'{value}" if value.startswith(FORMULAS) else value
