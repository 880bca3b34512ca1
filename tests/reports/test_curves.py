"""The curves of a page: a line needs two points, and what was measured once is told in a table."""

from pathlib import Path

from ssl_lightning.reports.curves import charts
from ssl_lightning.reports.kept import Kept
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.read import Run


def drawn(rows: list[dict[str, float]]) -> tuple[list[str], str]:
    return charts(Run(Path("x"), {}, rows, {}, {}, Kept(), {}), Look(rows, {}, {}, {}))


def test_what_was_measured_once_is_no_chart() -> None:
    rows = [{"step": 0.0, "epoch": 0.0, "train/loss": 2.5, "train/lr": 0.1}, {"step": 2.0, "epoch": 0.0}]
    rows[1] |= {"train/loss": 2.25, "val/knn_top1": 0.094, "own/<b>": 3.0}
    found, once = drawn(rows)
    assert len(found) == 1
    assert "Loss" in found[0]
    assert 'class="line"' in found[0]
    for name, value in (("Accuracy on the test items", "9.4 %"), ("Learning rate", "0.1"), ("own/&lt;b&gt;", "3")):
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in once
    found, once = drawn([*rows, {"step": 5.0, "epoch": 1.0, "val/knn_top1": 0.2, "train/lr": 0.2, "own/<b>": 1.0}])
    assert (len(found), once) == (4, "")
    assert drawn([]) == ([], "")
