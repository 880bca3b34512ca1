"""stage=predict: a row for each file, figures where labels are there, and a page; and the same from Python."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_lightning as sl
from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.core.task import Task
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.runs.model import Model, save_model
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import NODE, a_run
from tests.tasks.test_task_stages import table

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def a_model(folder: Path, task: Task, names: list[str]) -> Path:
    """A run with a model of random weights, which tells some colours from others."""
    torch.manual_seed(0)
    net = ConvNetSmall(4)
    head = torch.nn.Linear(net.out_dim, len(names))
    torch.nn.init.normal_(head.weight, std=2.0)
    task.prepare(names, torch.randn(20, len(names)))
    model = Model(net.eval(), task, head)
    model.stage = "finetune"
    card = {"backbone": NODE, "image_size": 16, "mean": [0.4] * 3, "std": [0.3] * 3, "method": "simclr", "data": "x"}
    save_model(model, card, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("predict") / "run", Classify(), [*COLORS])


def photo(path: Path, color: str, seed: int = 0, size: tuple[int, int] = (20, 18)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 20, (*size, 3))
    Image.fromarray((np.array(COLORS[color]) + noise).clip(0, 255).astype(np.uint8)).save(path)


def go(run: Path, root: Path, name: str, *words: str) -> int:
    here = [f"ckpt={run}", "data=folder", f"data.root={root}", "trainer=cpu", f"runs_dir={root.parent}", f"name={name}"]
    return main(["stage=predict", *here, *words])


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def test_every_file_gets_a_row(run: Path, tmp_path: Path) -> None:
    """Flat and nested, without labels; the same that the model says of each file alone."""
    for i in range(9):
        photo(tmp_path / "photos" / ("deep/er/" if i % 2 else "") / f"{i}.png", "red", i)
    assert go(run, tmp_path / "photos", "out", "data.batch_size=4") == 0
    found = rows_of(tmp_path / "out")
    assert [*found[0]] == ["path", "class", "probability", "red", "green", "blue"]
    assert [row["path"] for row in found] == sorted(
        str(p.relative_to(tmp_path / "photos")) for p in (tmp_path / "photos").rglob("*.png")
    )
    model = sl.load_model(run)
    for row in found:
        with torch.no_grad():
            shares = model(model.transform(tmp_path / "photos" / row["path"])[None]).double().softmax(1)[0]
        assert row["class"] == model.classes[int(shares.argmax())]
        assert float(row["probability"]) == pytest.approx(float(shares.max()), abs=1e-5)
        assert [float(row[c]) for c in model.classes] == pytest.approx(shares.tolist(), abs=1e-5)
    told = results(tmp_path / "out")
    assert (told["predicted"], told["unreadable"], told["labelled"]) == (9, 0, 0)
    assert "predict_top1" not in told
    assert told["verdict"].startswith("No metrics")


def test_labels_are_matched_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another order, a subset, an unknown class, train/ and test/: the figures are those of the known ones."""
    root = tmp_path / "photos"
    for i, (split, folder) in enumerate(
        [("train", "green"), ("test", "blue"), ("test", "purple"), ("test", "green")] * 4
    ):
        photo(root / split / folder / f"{i}.png", folder if folder in COLORS else "red", i)
    assert go(run, root, "out") == 0
    err = capsys.readouterr().err
    assert "the model does not know these classes: purple" in err
    assert "to train on" not in err  # the split of a training is nobody's business here
    assert "data_fingerprint" not in results(tmp_path / "out")
    found, told = rows_of(tmp_path / "out"), results(tmp_path / "out")
    assert len(found) == 16
    known = [row for row in found if row["label"] in COLORS]
    assert {row["label"] for row in found} == {"green", "blue", "purple"}
    assert told["labelled"] == len(known) == 12
    assert told["predict_top1"] == sum(row["class"] == row["label"] for row in known) / 12
    assert told["baselines"]["majority_class"]["predict_top1"] == 8 / 12
    for name in ("green", "blue"):
        mine = [row for row in known if row["label"] == name]
        assert told["per_class"][name]["items"] == len(mine)
        assert told["per_class"][name]["recall"] == sum(row["class"] == name for row in mine) / len(mine)
    brier = sum(sum((float(row[c]) - (c == row["label"])) ** 2 for c in COLORS) for row in known) / 12
    assert told["brier"] == pytest.approx(brier, abs=1e-4)
    assert 0 <= told["ece"] <= 1
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Who is taken for whom", "Reliability: ECE", "Most confident mistakes", "precision"):
        assert words in page
    assert "mistake_sheet" in np.load(tmp_path / "out" / "report.npz").files


def test_labelled_files_need_no_split(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file of each class could not be split for a training; all are predicted, and nothing is said of a split."""
    for color in COLORS:
        photo(tmp_path / "photos" / color / "only.png", color)
    assert go(run, tmp_path / "photos", "out") == 0
    assert results(tmp_path / "out")["labelled"] == 3
    said = capsys.readouterr()
    assert "held out" not in said.out + said.err
    assert "fingerprint" not in said.out + said.err


def test_a_table_says_the_labels(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i, color in enumerate([*COLORS] * 2):
        photo(root / f"{i}.png", color, i)
    table(tmp_path / "said.csv", ["path", "label"], [[f"{i}.png", color] for i, color in enumerate([*COLORS] * 2)])
    assert go(run, root, "out", f"data.labels={tmp_path}/said.csv") == 0
    assert [row["label"] for row in rows_of(tmp_path / "out")] == [*COLORS] * 2
    assert results(tmp_path / "out")["labelled"] == 6
    assert go(run, root, "plain", "data.labels=false") == 0
    assert "label" not in rows_of(tmp_path / "plain")[0]


def test_a_broken_file_is_a_line_and_an_empty_row(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    for i in range(4):
        photo(root / f"{i}.png", "red", i)
    for name in ("0.png", "2.png"):  # the first one comes before any columns are known
        (root / name).write_bytes(b"no image")
    assert go(run, root, "out") == 0
    assert "2 files cannot be read and get no prediction: 0.png, 2.png." in capsys.readouterr().err
    found = rows_of(tmp_path / "out")
    assert [row["path"] for row in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert [bool(row["class"]) for row in found] == [False, True, False, True]
    assert results(tmp_path / "out")["unreadable"] == 2
    for path in root.iterdir():
        path.write_bytes(b"none")
    assert go(run, root, "none") == 0
    assert results(tmp_path / "none")["predicted"] == 0
    assert [row["path"] for row in rows_of(tmp_path / "none")] == ["0.png", "1.png", "2.png", "3.png"]


def test_names_of_files_and_classes_are_text_alone(tmp_path: Path) -> None:
    """Neither a spreadsheet nor a browser takes them for more; a class may be called as a column."""
    evil = ["<script>alert(1)</script>", "=1+1", "path"]
    run = a_model(tmp_path / "run", Classify(), evil)
    photo(tmp_path / "photos" / "=1+1" / "=cmd.png", "red")
    photo(tmp_path / "photos" / "path" / "<img onerror=x>.png", "blue")
    assert go(run, tmp_path / "photos", "out") == 0
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0].split(",") == ["path", "label", "class", "probability", evil[0], "'=1+1", "class_path"]
    assert lines[1].startswith("'=1+1/=cmd.png,'=1+1,")
    page = (tmp_path / "out" / "report.html").read_text()
    assert evil[0] not in page
    assert "<img onerror" not in page


@pytest.mark.parametrize(("task", "values"), [(MultiLabel(), ("0", "1")), (Regress(), ("0.5", "-2"))])
def test_several_labels_and_numbers(task: Task, values: tuple[str, str], tmp_path: Path) -> None:
    run = a_model(tmp_path / "run", task, ["warm", "bright"])
    for i in range(6):
        photo(tmp_path / "photos" / f"{i}.png", [*COLORS][i % 3], i)
    # another order of columns, and one that the model does not know
    table(tmp_path / "said.csv", ["path", "bright", "odd", "warm"],
          [[f"{i}.png", values[i % 2], values[0], values[(i + 1) % 2]] for i in range(6)])  # fmt: skip
    assert go(run, tmp_path / "photos", "out", f"data.labels={tmp_path}/said.csv") == 0
    found, told = rows_of(tmp_path / "out"), results(tmp_path / "out")
    assert [*found[0]] == ["path", "warm", "bright"]
    model = sl.load_model(run)
    with torch.no_grad():
        outputs = torch.cat([model(model.transform(tmp_path / "photos" / f"{i}.png")[None]) for i in range(6)])
    targets = torch.tensor([[float(values[(i + 1) % 2]), float(values[i % 2])] for i in range(6)])
    for key, value in model.task.measure(outputs, targets).items():
        assert told[f"predict_{key}"] == pytest.approx(value, rel=1e-4)
    expected = outputs.sigmoid() if isinstance(task, MultiLabel) else model.task.numbers(outputs)  # type: ignore[operator]
    assert float(found[3]["warm"]) == pytest.approx(float(expected[3, 0]), rel=1e-4)
    assert "constant" in told["baselines"]


def test_a_run_without_a_head_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "photos" / "a.png", "red")
    assert go(a_run(tmp_path / "pretrained"), tmp_path / "photos", "out") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "stage=finetune" in err
    assert not (tmp_path / "out").exists()
    assert go(tmp_path / "pretrained", tmp_path / "nowhere", "out") == 2


def test_the_same_command_looks_anew(run: Path, tmp_path: Path) -> None:
    """Of files that came later, and of another folder; nothing of the first look is left in the page."""
    photo(tmp_path / "photos" / "red" / "a.png", "green")
    assert go(run, tmp_path / "photos", "out") == 0
    assert "What it predicts" in (tmp_path / "out" / "report.html").read_text()
    photo(tmp_path / "photos" / "red" / "b.png", "green")
    assert go(run, tmp_path / "photos", "out") == 0
    assert len(rows_of(tmp_path / "out")) == 2
    photo(tmp_path / "others" / "c.png", "blue")
    assert go(run, tmp_path / "others", "out") == 0
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["c.png"]
    assert not (tmp_path / "out" / "report.npz").exists()


# ---- from Python -----------------------------------------------------------------------------------------------------


def test_from_python_it_is_the_same_table(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i, color in enumerate([*COLORS] * 2):
        photo(root / f"{i}.png", color, i)
    (root / "2.png").write_bytes(b"none")
    assert go(run, root, "out") == 0
    found = sl.predict(run, root, batch_size=4)
    assert len(found) == 6
    assert found.classes == [*COLORS]
    assert found.probabilities is not None
    assert found.probabilities.shape == (6, 3)
    assert np.isnan(found.probabilities[2]).all()
    assert found.probabilities[[0, 1, 3, 4, 5]].sum(1) == pytest.approx(1)
    assert "cannot be read" in found.rows[2]["error"]
    written = [line.replace(f"{root}/", "") for line in found.to_csv(tmp_path / "mine.csv").read_text().splitlines()]
    stage = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in written] == [line.split(",")[:2] for line in stage]
    for row, there in zip(found.rows, rows_of(tmp_path / "out"), strict=True):
        assert row.get("class", "") == there["class"]
    assert "6 items, 1 of them cannot be read" in repr(found)


def test_what_python_takes(run: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", "red")
    model, image = sl.load_model(run), Image.open(tmp_path / "a.png")
    expected = sl.predict(model, tmp_path / "a.png").rows[0]
    for items in ([image], image, np.asarray(image), [tmp_path / "a.png"], str(tmp_path / "a.png")):
        row = model.predict(items)[0]
        assert row["class"] == expected["class"]
        assert row["probability"] == pytest.approx(expected["probability"], abs=1e-6)
    assert model.predict([image])[0]["path"] == 0
    with pytest.raises(UserError, match="nothing to predict"):
        model.predict([])
    for missing in (tmp_path / "no", str(tmp_path / "no.png")):
        with pytest.raises(UserError, match=r"no(\.png)? is neither a file nor a folder"):
            sl.predict(model, missing)
        assert sl.predict(model, [missing]).rows[0].keys() == {"path", "error"}
    with pytest.raises(UserError, match="item 0"):
        model.predict([np.zeros((4, 4, 9))])
    with pytest.raises(UserError, match="stage=finetune"):
        sl.predict("timm:resnet10t", tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)
