"""The bar of a notebook, with a stand-in for the notebook."""

from typing import Any

import IPython
import IPython.display
import pytest

from ssl_lightning.callbacks import notebook
from ssl_lightning.core.quiet import quiet


class Handle:
    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []
        self.fails = False

    def display(self, data: dict[str, str], **_: Any) -> "Handle":
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], **_: Any) -> None:
        if self.fails:
            raise RuntimeError("the kernel has gone")
        self.shown.append(data)


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    found = Handle()
    monkeypatch.setattr(IPython.display, "display", found.display)
    return found


def test_it_is_redrawn_and_ends_as_lines(handle: Handle) -> None:
    bar = notebook.NotebookBar()
    bar.start()
    assert handle.shown == []  # nothing to show yet
    bar.update(0, description="epoch 1/2", completed=3, total=8, text="loss <1")
    bar.refresh()
    assert handle.shown[-1]["text/html"] == ('<div><progress value="3" max="8"></progress> epoch 1/2  loss &lt;1</div>')
    bar.console.print("epoch 1/2  loss <1", highlight=False, soft_wrap=True)
    bar.stop()
    assert handle.shown[-1] == {"text/html": "<pre>epoch 1/2  loss &lt;1</pre>", "text/plain": "epoch 1/2  loss <1"}
    for i in range(30):
        bar.print(f"line {i}")
    assert handle.shown[-1]["text/plain"].splitlines()[:2] == ["... 11 more", "line 10"]


def test_a_notebook_that_fails_does_not_end_the_run(handle: Handle) -> None:
    bar = notebook.NotebookBar()
    bar.print("one")
    handle.fails = True
    bar.print("two")
    bar.stop()


def test_where_there_is_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel: Any = None

    shell = Shell()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    assert not notebook.in_notebook()  # IPython in a terminal
    shell.kernel = object()
    assert notebook.in_notebook()
    with quiet():
        assert not notebook.in_notebook()
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not notebook.in_notebook()
