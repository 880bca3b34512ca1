"""Progress: plain lines without a terminal, a bar with one, and next to nothing per step."""

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from rich.console import Console

from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.core.words import clock
from tests.callbacks.toy import ToyMethod, fit

LINE = r"loss -?\d+\.\d{3}  kNN \d+\.\d %  [\d,]+ images/s"


def test_one_line_per_epoch_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(ToyMethod(), tmp_path, [OnlineKNN(), Progress()], max_epochs=3)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 3
    for epoch, line in enumerate(lines, start=1):
        left = r"  \d+:\d\d left" if epoch < 3 else ""
        assert re.fullmatch(rf"epoch {epoch}/3  {LINE}{left}", line), line


def test_long_epochs_get_lines_in_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(ToyMethod(), tmp_path, [Progress(line_seconds=0)], max_epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[:5]] == [f"{i}/5" for i in range(1, 6)]


def test_bar_in_a_terminal_shows_the_same_and_ends_clean(tmp_path: Path) -> None:
    text = io.StringIO()
    progress = Progress(refresh_seconds=0)
    progress.console = Console(file=text, force_terminal=True, width=140)
    fit(ToyMethod(), tmp_path, [OnlineKNN(), progress], max_epochs=2)
    shown = text.getvalue()
    assert "validating" in shown
    assert "3/5" in shown
    assert "images/s" in shown
    assert progress._bar is None

    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("stop")

    progress.console = Console(file=text, force_terminal=True, width=140)
    with pytest.raises(RuntimeError):
        fit(ToyMethod(), tmp_path, [progress, Fails()], max_epochs=1)
    assert progress._bar is None


def test_a_step_between_refreshes_neither_reads_the_loss_nor_prints(capsys: pytest.CaptureFixture[str]) -> None:
    class Unread(torch.Tensor):
        def item(self) -> float:
            raise AssertionError("reading makes an accelerator wait")

    progress = Progress(refresh_seconds=1e9, line_seconds=1e9)
    trainer: Any = SimpleNamespace(is_global_zero=True)
    progress._start_epoch()
    batch, outputs = SimpleNamespace(labels=torch.zeros(256)), {"loss": Unread(())}
    for i in range(100):
        progress.on_train_batch_end(trainer, None, outputs, batch, i)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def test_the_first_line_of_a_long_epoch_comes_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a step takes 2 seconds: after 6, and then every 30. The first step, which took 60, is not counted."""
    now = [0.0]
    monkeypatch.setattr("ssl_lightning.callbacks.progress.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            now[0] += 60 if now[0] == 0 else 2

    progress = Progress()
    fit(ToyMethod(), tmp_path, [Slow(), progress], max_epochs=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split("  ")[1] for line in lines] == ["1/5", lines[1].split("  ")[1]]
    progress._batches, progress._timed, progress._loss = 3, 60.0, torch.zeros(())
    now[0] = 64.0
    trainer: Any = SimpleNamespace(
        accumulate_grad_batches=1, callback_metrics={}, world_size=1, estimated_stepping_batches=13, global_step=3,
        lightning_module=None,
    )  # fmt: skip
    assert progress._text(trainer).endswith("  0:20 left")  # 10 steps of 2 seconds


def test_a_titled_training_tells_epochs_with_a_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = ToyMethod()
    method.title, method.progress_words = "from scratch", lambda: ["picking split 50.0 %"]  # type: ignore[assignment]
    fit(method, tmp_path, [Progress()], max_epochs=5, check_val_every_n_epoch=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert [line.split("  ")[:2] for line in lines] == [["from scratch", f"epoch {i}/5"] for i in (2, 4, 5)]
    assert all("  picking split 50.0 %  " in line for line in lines)


def test_clock() -> None:
    assert [clock(s) for s in (0, 12.4, 61, 3700)] == ["0:00", "0:12", "1:01", "1:01:40"]
