"""The charts of the other measures over one swept number."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.reports import compare, swept_measures
from ssl_lightning.reports.gathered import sections
from ssl_lightning.reports.run_files import read
from tests.reports.run_folders import config, make


def a_run(folder: Path, strength: float | str, seed: int = 0, align: float | None = 0.5) -> Path:
    views = {"strength": strength}
    node = config(seed, views=views)
    path = make(folder, {**node, "data": {**node["data"], "views": views}}, 0.3)  # as a config has them: twice
    results: dict[str, Any] = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps(results | {"quality": {"alignment": align}}))
    with open(path / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows([["step", swept_measures.BOUND], *([i, i / 10 + seed] for i in range(20)), [20, ""]])
    return path


def test_the_bound_is_that_of_the_end(tmp_path: Path) -> None:
    run = read(a_run(tmp_path / "a", 1.0))
    assert swept_measures.bound(run) == pytest.approx(1.85)  # of the last two of 20
    assert swept_measures.alignment(run) == 0.5
    assert math.isnan(swept_measures.alignment(read(a_run(tmp_path / "b", 1.0, align=None))))
    (tmp_path / "a" / "metrics.csv").unlink()
    assert math.isnan(swept_measures.bound(run))


def test_a_chart_for_each_measure_on_the_page(tmp_path: Path) -> None:
    paths = [a_run(tmp_path / f"{s}-{seed}", s, seed) for s in (0.25, 1.0, 2.0) for seed in (0, 1)]
    found = sections([read(path) for path in paths])
    page = compare.page(found)
    for title in (
        "kNN by strength",
        "linear probe by strength",
        "alignment of two views",
        "InfoNCE bound of the views",
    ):
        assert title in page
    assert page.count("kNN by strength") <= 2 * page.count("linear probe by strength")  # the main one stands once


def test_words_and_two_keys_have_none(tmp_path: Path) -> None:
    named = [read(a_run(tmp_path / word, word)) for word in ("weak", "sym")]
    assert [swept_measures.charts(part) for part in sections(named)] == [[]]
    bare = [read(make(tmp_path / f"t{t}", config(0, t), 0.1)) for t in (0.1, 0.2)]
    (part,) = sections(bare)
    assert len(swept_measures.charts(part)) == 1  # the linear probe: nothing else was measured
