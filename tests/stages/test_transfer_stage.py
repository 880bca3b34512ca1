"""stage=transfer: a row for each data set, equal to what stage=knn and stage=linear measure there."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.stages.transferred import settled, words
from tests.stages.tiny_run import a_run

QUICK = ["stage.probe.lrs=[0.1]", "stage.probe.weight_decays=[0.0]", "stage.probe.epochs=4", "trainer=cpu"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("test", 4)):
        for label, name in enumerate(("red", "green")):
            folder = Path("photos") / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 150, (16, 16, 3), generator=generator)
                pixels[:, :, label] += 90
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i}.png")
    rows = [
        f"{split}/{name}/{i}.png,{i % 2},{(i // 2) % 2}"
        for split, n in (("train", 6), ("test", 4))
        for name in ("red", "green")
        for i in range(n)
    ]
    Path("photos/labels.csv").write_text("\n".join(["path,odd,high", *rows]))
    a_run(Path("runs/a"))


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs", name, "results.json").read_text())
    return found


@pytest.mark.long
def test_each_row_is_what_the_stages_of_one_data_set_measure(photos: None, capsys: pytest.CaptureFixture[str]) -> None:
    several = "{root: photos, labels: photos/labels.csv, task: multilabel}"
    sets = f"{{photos: {{root: photos}}, shapes: {{size: 40, test_size: 20}}, several: {several}}}"
    assert main(["stage=transfer", "ckpt=runs/a", f"stage.sets={sets}", "name=t", *QUICK]) == 0
    found = results("t")
    assert found["data"] == "photos, shapes, several"
    rows = {row["data"]: row for row in found["rows"]}
    assert (rows["photos"]["items"], rows["photos"]["test_items"], rows["photos"]["outputs"]) == (12, 8, 2)
    assert [row["metric"] for row in rows.values()] == ["top1", "top1", "map"]
    alone = ["ckpt=runs/a", "data=folder", "data.root=photos", "trainer=cpu"]
    assert main(["stage=linear", *alone, "name=l", *QUICK]) == 0
    assert main(["stage=knn", *alone, "name=k"]) == 0
    linear, knn = results("l"), results("k")
    assert rows["photos"]["linear"] == linear["linear_top1"]
    assert rows["photos"]["random_init_linear"] == linear["baselines"]["random_init"]["linear_top1"]
    assert rows["photos"]["knn"] == knn["knn_top1"]
    assert rows["photos"]["raw_pixels_knn"] == knn["baselines"]["raw_pixels"]["knn_top1"]
    with open("runs/t/transfer.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["data"] for row in written] == list(rows)
    assert float(written[0]["linear"]) == rows["photos"]["linear"]
    assert Path("runs/t/transfer.png").read_bytes()[:4] == b"\x89PNG"
    assert "What was measured" in Path("runs/t/report.html").read_text()
    assert "of 3 data sets" in found["verdict"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("null", "stage.sets: name the data sets"),
        ("[nowhere]", "stage.sets, nowhere: there is no folder or file 'nowhere'"),
        ("{a: {root: photos, image_sise: 3}}", "Did you mean 'data.image_size'"),
        ("[photos,photos]", "names photos twice"),
        ("[3]", "stage.sets"),
        ("{a: {root: photos, _target_: os.system}}", "'os.system' may not be named in a config"),
        ("[tones]", "stage.sets, tones: this backbone was trained on image and the data is audio"),
        ("{a: {root: photos, task: regres}}", "Did you mean 'regress'"),
    ],
)
def test_a_wrong_set_is_one_line_before_anything_is_computed(
    photos: None, sets: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stage=transfer", "ckpt=runs/a", f"stage.sets={sets}", "name=t", *QUICK]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert not Path("runs/t").exists()


def test_what_is_asked_for() -> None:
    assert settled(["cifar10", "data/birds"]) == {
        "cifar10": ("cifar10", {}, "classify"),
        "birds": ("data/birds", {}, "classify"),
    }
    found = settled({"one": {"root": "x", "labels": "y"}, "two": {"data": "shapes", "size": 3, "task": "regress"}})
    assert found == {"one": ("x", {"labels": "y"}, "classify"), "two": ("shapes", {"size": 3}, "regress")}
    with pytest.raises(UserError, match="is no data set"):
        settled({"a": 3})  # type: ignore[dict-item]
    told = words([{"data": "a", "beside_random": "better"}, {"data": "b", "beside_random": "within chance"}])
    assert told == "The linear probe beats random weights on 1 of 2 data sets. Not on b (within chance)."
