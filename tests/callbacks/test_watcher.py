"""A watcher that fails says so once, and the run goes on."""

import logging
from typing import Any

import pytest

from ssl_lightning.callbacks import watcher
from ssl_lightning.callbacks.collapse import Collapse
from ssl_lightning.callbacks.method_pictures import MethodPictures
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.view_mosaic import ViewMosaic
from ssl_lightning.callbacks.watcher import Watcher


class Failing(Watcher):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def on_train_batch_end(self, *args: Any) -> None:
        raise self.error

    def step_metrics(self, trainer: Any) -> dict[str, Any]:
        raise self.error


def test_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(IndexError("no such row\nand more"))
    with caplog.at_level(logging.WARNING, "ssl_lightning"):
        for _ in range(3):
            failing.on_train_batch_end(None, None, None, None, 0)
            assert failing.step_metrics(None) == {}
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Failing measures nothing here, and the run goes on: no such row"] * 2


def test_a_full_disk_and_waiting_ranks_are_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="full"):
        Failing(OSError("full")).step_metrics(None)
    Failing(RuntimeError("shapes")).step_metrics(None)
    monkeypatch.setattr(watcher, "world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="shapes"):
        Failing(RuntimeError("shapes")).step_metrics(None)
    assert Failing(ValueError("odd")).step_metrics(None) == {}


def test_all_that_look_on_are_watchers() -> None:
    for kind in (Collapse, MethodPictures, OnlineKNN, OnlineProbe, ViewMosaic):
        assert issubclass(kind, Watcher)
