"""stage=quality: rows of kept checkpoints, their measures, and whether these order them as kNN does."""

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.core.batch import GLOBAL
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.label_free import alpha_req, lidar, two_nn
from ssl_lightning.evaluation.quality import alignment, rankme
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.modalities.image.views import View, Views
from ssl_lightning.models.audio import MelConvNet
from ssl_lightning.reports import measured as tables
from ssl_lightning.runs.checkpoint import save_backbone
from ssl_lightning.stages.measures import MEASURES, agreement, better, views_of, words
from ssl_lightning.tasks.classify import Classify

CPU = torch.device("cpu")
DATA = ["data.size=120", "data.test_size=60", "data.image_size=16", "data.num_workers=0"]
TRAIN = ["backbone.width=8", "data.batch_size=30", "trainer=cpu", "trainer.max_epochs=3", "stage.judge=false"]
TRAIN += ["callbacks=minimal", "callbacks.checkpoint.keep_every_n_epochs=1"]
FAST = ["trainer=cpu", "data.num_workers=0", "stage.views=3", "stage.items=20", "stage.linear=false"]


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


@pytest.mark.long
def test_checkpoints_of_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, more in (("a", []), ("b", ["method=byol", "seed=1"])):
        assert main([*DATA, *TRAIN, f"name={name}", *more]) == 0
    assert main(["stage=quality", "ckpt=runs/a", "stage.runs=[runs/b]", "name=q", *FAST]) == 0
    found = results("runs/q")
    rows = found["rows"]
    assert [(row["run"], row["method"], row["epoch"]) for row in rows] == [
        ("runs/a", "simclr", 1), ("runs/a", "simclr", 2), ("runs/a", "simclr", None),
        ("runs/b", "byol", 1), ("runs/b", "byol", 2), ("runs/b", "byol", None),
        ("random weights", "", None),
    ]  # fmt: skip
    data = Shapes(size=120, test_size=60, image_size=16, num_workers=0, mean=(0.5,) * 3, std=(0.25,) * 3)
    test = extract(load_backbone("runs/a"), data.eval_loader("test"))
    assert rows[2]["rankme"] == pytest.approx(rankme(test.x), rel=1e-6)
    assert rows[2]["alpha_req"] == pytest.approx(alpha_req(test.x), rel=1e-6)
    assert rows[2]["two_nn"] == pytest.approx(two_nn(test.x), rel=1e-6)
    second = extract(load_backbone("runs/b/checkpoints/epoch-0002.ckpt"), data.eval_loader("test"))
    assert rows[4]["rankme"] == pytest.approx(rankme(second.x), rel=1e-6)
    assert set(MEASURES) <= set(rows[0])
    rho = found["correlations"]["rankme"]["knn_top1"]
    six = [(row["rankme"], row["knn_top1"]) for row in rows[:6]]
    assert rho["n"] == 6
    assert rho["spearman"] == pytest.approx(stats.spearmanr(*zip(*six, strict=True)).statistic)
    with open("runs/q/quality.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["run"] for row in written] == [row["run"] for row in rows]
    assert float(written[3]["lidar"]) == rows[3]["lidar"]
    assert Path("runs/q/quality.png").read_bytes()[:4] == b"\x89PNG"
    page = Path("runs/q/report.html").read_text()
    assert "Rank correlations" in page
    assert "alpha req" in page
    assert "Spearman, n = 6" in found["verdict"]
    assert "random weights" in capsys.readouterr().out

    assert main(["stage=quality", "ckpt=runs/a", "name=few", *FAST]) == 0
    assert "3 checkpoints are too few to say" in results("runs/few")["verdict"]
    assert main([*DATA, *TRAIN, "name=c", "data.image_size=24"]) == 0
    capsys.readouterr()
    assert main(["stage=quality", "ckpt=runs/a", "stage.runs=[runs/c]", "name=other", *FAST]) == 2
    assert "runs/c was trained on other inputs (image_size=24, not 16)" in capsys.readouterr().err
    assert not Path("runs/other").exists()


class Pixels(nn.Module):
    out_dim = 3 * 16 * 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_views_are_grouped_by_item_and_are_those_of_training() -> None:
    views = Views(View(16, count=2))
    data = Shapes(size=40, test_size=10, image_size=16, num_workers=0, batch_size=16, views=views, seed=3)
    state = torch.get_rng_state()
    found = views_of(Pixels(), data, 12, 5, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert found is not None
    assert found.shape == (12, 5, 768)
    drawn: dict[tuple[int, int], list[torch.Tensor]] = {}
    data.setup("fit")
    for epoch in range(3):
        raw = data.train_fetch(data.train_set)[(epoch, torch.arange(40))]  # type: ignore[index]
        batch = data.on_after_batch_transfer(raw)
        assert batch.roles in ((), (GLOBAL, GLOBAL))
        for place in range(40):
            drawn[epoch, place] = [view[place].flatten() for view in batch.global_views]
    rows = [place for place in range(40) if any(torch.equal(drawn[0, place][0], f) for f in found[:, 0])]
    assert len(rows) == 12
    for item, place in zip(found, rows, strict=True):
        wanted = torch.stack([view for epoch in range(3) for view in drawn[epoch, place]])[:5]
        torch.testing.assert_close(item, wanted)
    assert lidar(found) > 1
    one = copy.copy(data)
    one.use_views(None)
    assert views_of(Pixels(), one, 12, 5, CPU) is None
    assert alignment(found[:, 0], found[:, 0]) == pytest.approx(0, abs=1e-9)


def row(name: str, value: float, knn: float) -> dict[str, Any]:
    return {name: value, "knn_top1": knn}


def test_agreement_is_turned_so_that_more_is_better() -> None:
    task = Classify.of(2)
    knn = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    rising = [row("rankme", v, k) | {"alignment": -v, "alpha_req": 1 + 1 / v} for v, k in zip(range(1, 7), knn)]
    found = agreement(rising, task)
    for name in ("rankme", "alignment", "alpha_req"):
        assert found[name]["knn_top1"] == pytest.approx({"spearman": 1, "kendall": 1, "n": 6})
    assert better(1.5, 0) == better(0.5, 0) == -0.5
    assert "lidar" not in found
    told = words(found, task, 6)
    assert told.startswith("As kNN does, the checkpoints are ordered on these data by RankMe (1.00), ")
    falling = agreement([row("rankme", -v, k) for v, k in zip(range(6), knn)], task)
    assert "none of the measures" in words(falling, task, 6)
    assert "the other way round: RankMe (-1.00)" in words(falling, task, 6)
    assert "too few" in words(found, task, 4)
    assert "Without labels" in words({}, None, 6)
    broken = [row("rankme", 1.0, 0.3), {"rankme": None, "knn_top1": 0.2}, row("rankme", 2.0, 0.1)]
    assert agreement(broken, task)["rankme"]["knn_top1"]["n"] == 2


def test_a_table_of_strange_results_is_escaped() -> None:
    text = tables.html_of(
        {"rows": [{"run": "<script>", "rankme": math.nan, "x": True}, 3], "correlations": {"<b>": {"<i>": {"n": 3}}}}
    )
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "<b>" not in text
    assert tables.html_of({"rows": "no"}) == tables.html_of({}) == ""
    assert tables.as_csv([{"a": "=1+1", "b": None}, {"a": 2}]) == "a,b\n'=1+1,\n2,\n"


@pytest.mark.long
def test_of_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    node = {"_target_": "ssl_lightning.models.audio.MelConvNet", "mels": 16, "width": 4, "out_dim": 8}
    shape = {"modality": "audio", "sample_rate": 4000, "length": 2000, "representation": "logmel"}
    mel = {"mels": 16, "window": 0.025, "hop": 0.01, "low": 60.0, "high": None, "mean": [0.0], "std": [1.0]}
    save_backbone(MelConvNet(mels=16, width=4, out_dim=8), node, "net", **shape, **mel, method="byol", data="tones")
    sizes = {"size": 30, "test_size": 20, "sample_rate": 4000, "length": 2000, "mels": 16, "seconds": 0.5}
    words = ["ckpt=net/backbone.safetensors", "trainer=cpu", "data=tones", "data.num_workers=0"]
    words += [f"data.{key}={value}" for key, value in sizes.items()]
    assert main(["stage=quality", *words, "name=q", "stage.views=2", "stage.items=10", "stage.linear=false"]) == 0
    (row, random) = results("runs/q")["rows"]
    assert random["run"] == "random weights"
    assert all(row[name] is not None for name in ("rankme", "alignment", "lidar", "two_nn", "knn_top1"))
    sets = "{tones: " + str(sizes | {"data": "tones"}).replace("'", "") + "}"
    probe = ["stage.probe.epochs=2", "stage.probe.lrs=[0.1]", "stage.probe.readouts=[features,mean]"]
    assert main(["stage=transfer", *words[:2], f"stage.sets={sets}", "name=t", *probe]) == 0
    assert results("runs/t")["rows"][0]["mel_statistics_knn"] is not None
