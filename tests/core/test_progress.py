"""Progress outside of a training: silent until it is asked for; a line at once, then now and then."""

import io
import sys
from collections.abc import Iterator

import pytest

from ssl_lightning.core import progress


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    progress.watched(True)
    yield
    progress.watched(False)
    progress._State.told_at = 0.0


def test_silent_until_it_is_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    progress.watched(False)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    progress.say("a")
    assert list(progress.steps(range(3), "b")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress.say("evaluating")
    with progress.phase("features"):
        for _ in progress.steps(range(8)):
            now[0] += 10
    with progress.phase("kNN"):
        pass
    assert capsys.readouterr().out.splitlines() == [
        "evaluating", "features  3/8  0:50 left", "features  6/8  0:20 left",
    ]  # fmt: skip
    now[0] += 20
    with progress.phase("probe"), progress.phase("grid"):
        pass
    assert capsys.readouterr().out.splitlines() == ["probe"]


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "is_main_process", lambda: False)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    progress.say("a")
    assert list(progress.steps(iter("ab"), "c")) == ["a", "b"]
    assert capsys.readouterr().out == ""


def test_a_bar_in_a_terminal_ends_clean_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())

    def work() -> None:
        with progress.phase("features of [x]"):
            for i in progress.steps(range(5)):
                if i == 3:
                    raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert progress._State.bar is None
    assert progress._State.names == []
    assert "features of [x]" in sys.stdout.getvalue()  # type: ignore[attr-defined]


def test_generators_are_passed_through() -> None:
    with progress.phase("x"):
        found = progress.steps(i for i in range(3))
        assert next(found) == 0
        found.close()  # type: ignore[attr-defined]
    assert list(progress.steps([])) == []
