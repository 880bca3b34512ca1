"""A progress bar in a notebook: one output that is redrawn, and that ends as a line for each epoch."""

from __future__ import annotations

import html
import sys
from typing import Any

from ssl_lightning.core.quiet import is_quiet

MOST = 20  # lines that are shown of a long training, the newest


def in_notebook() -> bool:
    """Does this process answer a notebook, and is it to say anything?"""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None and not is_quiet()


class NotebookBar:
    """Has of rich's `Progress` and its console what `callbacks.progress.Progress` uses. Never raises."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.text, self.done = "", 0.0
        self.total: float | None = None
        self._handle: Any = None

    @property
    def console(self) -> NotebookBar:
        return self

    def print(self, line: str, **_: Any) -> None:
        """A line that stays."""
        self.lines.append(line)
        self._draw()

    def add_task(self, *_: Any, **__: Any) -> int:
        return 0

    def start(self) -> None:
        self._draw()

    def stop(self) -> None:
        """The bar goes, the lines stay."""
        self.text, self.total = "", None
        self._draw()

    def update(self, _: Any, description: str, completed: float, total: float | None, text: str) -> None:
        self.text, self.done, self.total = f"{description}  {text}", completed, total

    def refresh(self) -> None:
        self._draw()

    def _draw(self) -> None:
        left_out = [f"... {len(self.lines) - MOST} more"] if len(self.lines) > MOST else []
        shown = [*left_out, *self.lines[-MOST:]]
        value = f'value="{self.done}" max="{self.total}"' if self.total else ""
        bar = f"<div><progress {value}></progress> {html.escape(self.text)}</div>" if self.text else ""
        lines = f"<pre>{html.escape(chr(10).join(shown))}</pre>" if shown else ""
        data = {"text/html": lines + bar, "text/plain": "\n".join([*shown, self.text] if self.text else shown)}
        try:
            if self._handle is not None:
                self._handle.update(data, raw=True)
            elif shown or self.text:
                from IPython.display import display

                self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        except Exception:  # a picture of the work is no part of it
            return
