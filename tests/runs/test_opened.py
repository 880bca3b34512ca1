"""A run as one's own code reads it: whatever its files hold, showing it neither fails nor runs anything."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.opened import Run, opened

CONFIG = {"name": "x", "seed": 0, "resume": "auto", "data": {}, "trainer": {}}


def run_at(path: Path, **results: Any) -> Run:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    if results:
        (path / "results.json").write_text(json.dumps(results))
    return opened(path)


def test_names_from_files_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = "<script>alert(1)</script>"
    run = run_at(tmp_path / bad.replace("/", "_"), verdict=bad, **{bad: 0.5}, baselines={bad: {bad: 0.25}})
    page = run._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "\x1b" not in repr(run_at(tmp_path / "b", verdict="\x1b[31mred"))


def test_the_numbers_are_those_that_a_baseline_has(tmp_path: Path) -> None:
    others = {"random_init": {"knn_top1": 0.25, "r2": -0.5}, "raw_pixels": {"knn_top1": 0.125, "variant": "centered"}}
    run = run_at(tmp_path / "a", knn_top1=0.5, r2=0.75, seed=0, epochs=3, steps=1200, seconds=1.5, baselines=others)
    assert repr(run).splitlines()[0].endswith("a', knn_top1 50.0 %, r2 0.75)")
    page = run._repr_html_()
    assert "<tr><td>knn_top1</td><td>50.0 %</td><td>25.0 %</td><td>12.5 %</td></tr>" in page
    assert "<tr><td>r2</td><td>0.75</td><td>-0.5</td><td></td></tr>" in page
    assert "epochs 3, steps 1,200, seconds 1.5" in page


@pytest.mark.parametrize(
    "results",
    [{"baselines": 3}, {"baselines": {"a": 3}}, {"verdict": 3}, {"knn_top1": "x"}, {"knn_top1": None}, {"seconds": []}],
    ids=str,
)
def test_strange_results_are_shown(results: dict[str, Any], tmp_path: Path) -> None:
    run = run_at(tmp_path / "a", **results)
    assert "a" in repr(run)
    assert run._repr_html_().startswith("<p><b>")


def test_damaged_files_are_named_and_still_shown(tmp_path: Path) -> None:
    run = run_at(tmp_path / "a", knn_top1=0.5)
    (run.path / "views.png").write_bytes(b"no picture")
    assert "<img" not in run._repr_html_()
    Image.new("RGB", (3000, 20)).save(run.path / "views.png")
    assert "<img" in run._repr_html_()
    (run.path / "results.json").write_text("{")
    assert "cannot be read as json" in repr(run)
    assert "cannot be read as json" in run._repr_html_()
    with pytest.raises(UserError, match="cannot be read as json"):
        _ = run.results


def test_curves(tmp_path: Path) -> None:
    run = run_at(tmp_path / "a")
    assert (run.metrics, run.report, run.views) == ({}, None, None)
    (run.path / "metrics.csv").write_text("step,epoch,train/loss,val/knn_top1\n")
    assert {name: len(column) for name, column in run.metrics.items()}["train/loss"] == 0
    (run.path / "metrics.csv").write_text("step,epoch,train/loss,val/knn_top1\n0,0,1.5,\n1,0,,0.25\n2,1,nan,x\n")
    assert [x.tolist() for x in run.curve("train/loss")] == [[0.0], [1.5]]
    assert [x.tolist() for x in run.curve("val/knn_top1", "epoch")] == [[0.0], [0.25]]
    (run.path / "report.html").touch()
    assert run.report == run.path / "report.html"


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    run_at(tmp_path / "runs" / "simclr-shapes")
    with pytest.raises(UserError, match=r"Did you mean 'simclr-shapes'\?"):
        opened(tmp_path / "runs" / "simclr-shape")
    with pytest.raises(UserError, match="it holds the runs simclr-shapes"):
        opened(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"it holds no config\.yaml of one"):
        opened(tmp_path / "empty")


@pytest.mark.parametrize("stage", ["finetune", "detect", "segment"])
def test_a_backbone_that_was_trained_on_is_not_taken_for_the_one_before(stage: str, tmp_path: Path) -> None:
    """`results.json` names the weights that it began with; what it trained lies in a file of its own kind."""
    (tmp_path / stage).mkdir()
    (tmp_path / "results.json").write_text('{"ckpt": "runs/before"}')
    with pytest.raises(UserError, match="the one before fine-tuning is in runs/before"):
        _ = Run(tmp_path).backbone
