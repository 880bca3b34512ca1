"""MetricsCSV: append-only, columns that grow, and a resume that neither loses nor doubles a row."""

import csv
from pathlib import Path

from ssl_lightning.callbacks.checkpoint import Checkpoint
from ssl_lightning.callbacks.metrics_csv import MetricsCSV
from ssl_lightning.callbacks.online_knn import OnlineKNN
from ssl_lightning.callbacks.step_logger import StepLogger
from tests.callbacks.toy import ToyMethod, fit
from tests.parts.test_ema_teacher import StopAfter


def read(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_is_on_disk_at_once_and_columns_grow(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, 0)
    assert read(tmp_path) == [{"step": "0", "epoch": "0", "train/loss": "1.5"}]
    logger.log_metrics({"epoch": 0, "val/knn_top1": 0.25}, 9)
    logger.log_metrics({"train/loss": 1 / 3}, 10)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,epoch,train/loss,val/knn_top1",
        "0,0,1.5,",
        "9,0,,0.25",
        "10,,0.3333333,",
    ]


def test_resume_keeps_earlier_rows_and_drops_later_ones(tmp_path: Path) -> None:
    killed = MetricsCSV(tmp_path)
    for step in range(6):
        killed.log_metrics({"train/loss": step}, step)
    killed.log_metrics({"val/knn_top1": 0.5}, 5)
    resumed = MetricsCSV(tmp_path)
    resumed.log_metrics({"train/loss": 30}, 3)
    assert [(r["step"], r["train/loss"]) for r in read(tmp_path)] == [("0", "0"), ("1", "1"), ("2", "2"), ("3", "30")]
    assert "val/knn_top1" in read(tmp_path)[0]


def test_first_row_of_the_same_step_replaces_its_like_only(tmp_path: Path) -> None:
    killed = MetricsCSV(tmp_path)
    killed.log_metrics({"train/loss": 1.0}, 4)
    killed.log_metrics({"val/knn_top1": 0.5}, 4)
    MetricsCSV(tmp_path).log_metrics({"val/knn_top1": 0.6}, 4)
    assert [(r["train/loss"], r["val/knn_top1"]) for r in read(tmp_path)] == [("1", ""), ("", "0.6")]


def test_a_row_cut_short_by_a_power_failure_is_dropped(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    for step in range(3):
        logger.log_metrics({"train/loss": step, "train/lr": 0.1}, step)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text().rstrip()[:-6])
    MetricsCSV(tmp_path).log_metrics({"train/loss": 7, "train/lr": 0.1}, 3)
    assert [r["step"] for r in read(tmp_path)] == ["0", "1", "3"]


def test_an_interrupted_run_leaves_the_table_of_a_whole_one(tmp_path: Path) -> None:
    clocks = {"train/images_per_second", "train/memory_mb"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def train(folder: Path, *extra, **settings) -> None:
        callbacks = [OnlineKNN(), StepLogger(2), *extra]
        fit(ToyMethod(), folder, callbacks, logger=MetricsCSV(folder), max_epochs=3, **settings)

    train(whole)
    train(cut, StopAfter(2), Checkpoint(cut, every_n_epochs=99, every_n_steps=7))
    last = cut / "checkpoints/last.ckpt"
    assert len(read(cut)) == 8
    train(cut, ckpt_path=last)
    tables = [[{k: v for k, v in row.items() if k not in clocks} for row in read(f)] for f in (whole, cut)]
    assert tables[0] == tables[1]
    assert [row["step"] for row in tables[0] if row["val/knn_top1"]] == ["4", "9", "14"]
