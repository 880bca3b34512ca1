"""The Page callback: written at each validation, from what is there; silent where it fails; rank 0's alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from ssl_lightning.callbacks.metrics_csv import MetricsCSV
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.page import Page
from ssl_lightning.callbacks.step_logger import StepLogger
from ssl_lightning.reports import kept
from tests.callbacks.toy import ToyData, ToyMethod, fit


def watched(folder: Path, page: Page, **trainer: Any) -> None:
    callbacks = [OnlineKNN(k=3), StepLogger(every_n_steps=1), page]
    fit(ToyMethod(), folder, callbacks, ToyData(), logger=[MetricsCSV(folder)], **trainer)


def test_the_page_is_there_after_the_first_validation_and_shows_its_metrics(tmp_path: Path) -> None:
    seen: list[str] = []

    class Looking(Page):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_validation_end(trainer, pl_module)
            seen.append((tmp_path / "report.html").read_text())

    watched(tmp_path, Looking(tmp_path), max_epochs=3)
    assert len(seen) == 3
    for epoch, text in enumerate(seen, start=1):
        assert 'class="status unfinished"' in text
        assert 'class="map"' in text  # of the queries' features
        assert f'<div class="what">Epoch</div><div class="value">{epoch}</div>' in text
    assert "since the last epoch" in seen[1]  # the kNN of this validation is in the table already


def test_the_command_is_there_before_the_first_validation(tmp_path: Path) -> None:
    page = Page(tmp_path)
    page.command = ["method=toy", "data.root=photos"]

    class Stopped(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017  # as this Lightning ends it
        fit(ToyMethod(), tmp_path, [page, Stopped()], ToyData(), logger=[MetricsCSV(tmp_path)], max_epochs=1)
    assert kept.read(tmp_path).about == {"command": ["method=toy", "data.root=photos"]}


def test_the_map_is_of_the_queries_in_order(tmp_path: Path) -> None:
    watched(tmp_path, Page(tmp_path, items=20), max_epochs=1)
    found = kept.read(tmp_path)
    assert found.arrays["indices"].tolist() == list(range(20))
    assert found.about["backbone_parameters"] == 12 * 6 + 6
    assert found.about["input_std"] > 0
    assert found.about["device"] == "cpu"


def test_no_map_where_none_is_wanted(tmp_path: Path) -> None:
    watched(tmp_path, Page(tmp_path, items=0), max_epochs=1)
    assert "features" not in kept.read(tmp_path).arrays
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("odd"), RuntimeError("odd")])
def test_what_fails_is_a_line_and_the_training_goes_on(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(folder: Path) -> None:
        raise error

    monkeypatch.setattr("ssl_lightning.reports.pages.write", broken)
    watched(tmp_path, Page(tmp_path), max_epochs=2)
    assert caplog.text.count(f"the page of this run could not be written, and nothing else is lost: {error}") == 2


def test_features_that_are_no_numbers_are_no_map(tmp_path: Path) -> None:
    class Broken(ToyMethod):
        def embed(self, x: Any) -> Any:
            return super().embed(x) * float("nan")

    fit(Broken(), tmp_path, [StepLogger(), Page(tmp_path)], ToyData(), logger=[MetricsCSV(tmp_path)], max_epochs=1)
    assert "features" not in kept.read(tmp_path).arrays
    assert (tmp_path / "report.html").exists()


def test_it_draws_no_random_numbers(tmp_path: Path) -> None:
    states = []

    class Looking(Page):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            before = torch.get_rng_state()
            super().on_validation_end(trainer, pl_module)
            states.append(torch.equal(torch.get_rng_state(), before))

    watched(tmp_path, Looking(tmp_path), max_epochs=2)
    assert states == [True, True]
