"""What labels are worth, and accuracies class by class, on a page: whole, short, and nothing of a name runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.reports import labelled, pages, read

EVIL = "<script>alert(1)</script>"


def page(folder: Path, **results: Any) -> str:
    (folder / "results.json").write_text(json.dumps(results))
    assert pages.write(folder) is not None
    return (folder / "report.html").read_text()


def row(**changed: Any) -> dict[str, Any]:
    return {"line": "finetune", "name": EVIL, "labels": 1500, "metric": "top1", "mean": 0.5, "low": 0.25, "high": 0.75,
            "seeds": 3, "values": [0.5], **changed}  # fmt: skip


def test_the_table_of_a_label_curve(tmp_path: Path) -> None:
    text = page(tmp_path, stage="label_curve", verdict="Worth it.", table=[row(), row(low=None, high=None, labels=7)])
    assert "What labels are worth" in text
    assert "25.0 % to 75.0 %" in text
    assert "1,500" in text
    assert EVIL not in text
    assert "&lt;script&gt;" in text


def test_bars_of_classes_the_lowest_first_and_of_many_both_ends(tmp_path: Path) -> None:
    few = page(tmp_path, stage="finetune", finetune_top1=0.5, per_class={EVIL: 0.9, "cat": 0.125})
    assert "Class by class" in few
    assert few.index("12.5 %") < few.index("90.0 %")
    assert EVIL not in few
    (tmp_path / "many").mkdir()
    many = page(tmp_path / "many", stage="finetune", per_class={f"class{i}": i / 100 for i in range(90)})
    assert "The 20 lowest and highest of 90." in many
    assert many.count('class="name"') == labelled.MOST


def test_the_bars_are_of_the_metric_of_the_task(tmp_path: Path) -> None:
    assert "Accuracy on each class" in page(tmp_path, stage="finetune", per_class={"cat": 0.1})
    found = page(tmp_path, stage="segment", metric={"name": "miou", "higher_is_better": True}, per_class={"cat": 0.1})
    assert "mIoU on each class" in found
    assert "Accuracy on each class" not in found


@pytest.mark.parametrize("results", [{"table": 3}, {"table": ["x"]}, {"per_class": [1]}, {"per_class": {"a": "b"}}])
def test_results_that_somebody_else_wrote(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"stage": "label_curve", **results}))
    run = read.run(tmp_path)
    assert labelled.section(run) == labelled.classes(run) == ""
