"""Tasks from the command line, on images with tables of labels: stages, wrong pairings, a task of one's own."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.__main__ import main
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import a_run
from tests.tasks import own

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
QUICK = ["stage.probe.epochs=10", "stage.probe.lrs=[0.1]", "stage.probe.weight_decays=[0.0]"]
SHORT = ["stage.epochs=2", "stage.warmup_epochs=0", "stage.batch_size=16", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 noisy images of some brightness and redness in two class folders, tables of both, and a run to judge."""
    folder = tmp_path_factory.mktemp("tasks")
    a_run(folder / "run")
    draws = np.random.default_rng(0)
    rows = []
    for i in range(48):
        bright, red = draws.uniform(20, 180), draws.uniform(0, 60)
        image = draws.normal(bright, 4, (16, 16, 3))
        image[..., 0] += red
        path = folder / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
        rows.append((f"{i}.png", bright, red))
    table(folder / "numbers.csv", ["path", "bright", "red"], [[p, f"{b:.3f}", f"{r:.3f}"] for p, b, r in rows])
    table(folder / "flags.csv", ["path", "bright", "red"], [[p, int(b > 100), int(r > 30)] for p, b, r in rows])
    words = [[p, "|".join([*(["bright"] if b > 100 else []), *(["red"] if r > 30 else [])])] for p, b, r in rows]
    table(folder / "words.csv", ["path", "labels"], words)
    return folder


def table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def go(there: Path, name: str, *words: str) -> int:
    fixed = ["data=folder", f"data.root={there}/images", "data.image_size=16", "trainer=cpu", f"ckpt={there}/run"]
    return main([*fixed, f"runs_dir={there}", f"name={name}", *words])


def results(there: Path, name: str) -> dict[str, Any]:
    return json.loads((there / name / "results.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("task", "labels", "keys"),
    [
        ("regress", "numbers.csv", ("r2", "mae", "rmse")),
        ("multilabel", "flags.csv", ("map", "macro_f1")),
        ("multilabel", "words.csv", ("map", "macro_f1")),
    ],
)
def test_linear_and_knn_take_each_task(there: Path, task: str, labels: str, keys: tuple[str, ...]) -> None:
    words = [f"task={task}", f"data.labels={there}/{labels}"]
    constant = {"regress": "train_mean", "multilabel": "class_frequencies"}[task]
    for stage, more in (("linear", QUICK), ("knn", [])):
        name = f"{stage}-{labels}"
        assert go(there, name, f"stage={stage}", *words, *more) == 0
        found = results(there, name)
        for baseline in (found, found["baselines"]["random_init"], found["baselines"]["raw_pixels"]):
            assert {key for key in baseline if key.startswith(stage)} == {f"{stage}_{key}" for key in keys}
        assert set(found["baselines"][constant]) == set(keys)
        assert found[f"{stage}_{keys[0]}"] > found["baselines"][constant][keys[0]]
        assert "random weights" in found["verdict"].lower() or "Collapsed" in found["verdict"]


@pytest.mark.parametrize(("task", "labels"), [("regress", "numbers.csv"), ("multilabel", "words.csv")])
def test_finetune_takes_each_task_and_leaves_what_loads_it(there: Path, task: str, labels: str) -> None:
    name = f"finetune-{task}"
    words = [f"task={task}", f"data.labels={there}/{labels}", "data.label_fraction=0.5", "stage.picking=0.2"]
    assert go(there, name, "stage=finetune", *words, *SHORT) == 0
    found, main_key = results(there, name), {"regress": "r2", "multilabel": "map"}[task]
    assert found["labels"] == 22  # half of the 43 that are not held out
    assert f"finetune_{main_key}" in found["baselines"]["from_scratch"]
    assert f"linear_{main_key}" in found["baselines"]["raw_pixels"]
    assert "training from scratch" in found["verdict"]
    state = torch.load(there / name / "finetune" / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["task"]["node"]["_target_"].startswith(f"ssl_lightning.tasks.{task}.")
    assert state["task"]["names"] == ["bright", "red"]
    if task == "regress":
        loaded = Finetuner(ConvNetSmall(4), Regress().restore(state["task"]), optimizer=None)  # type: ignore[arg-type]
        loaded.load_state_dict(state["state_dict"])
        (row,) = loaded.task.predict(loaded.eval()(torch.zeros(1, 3, 16, 16)).detach())
        assert -500 < row["bright"] < 500


def test_linear_on_augmented_views_of_numbers(there: Path) -> None:
    words = ["task=regress", f"data.labels={there}/numbers.csv", "data.label_column=bright"]
    augmented = ["stage.augmented=true", "stage.epochs=2", "stage.batch_size=16", "trainer.log_every_n_steps=1"]
    assert go(there, "augmented", "stage=linear", *words, *augmented) == 0
    found = results(there, "augmented")
    assert -2 < found["linear_r2"] <= 1
    assert found["metric"] == {"name": "r2", "higher_is_better": True}
    assert set(found["baselines"]["train_mean"]) == {"r2", "mae", "rmse"}
    assert found["baselines"]["train_mean"]["r2"] == pytest.approx(0, abs=0.5)
    least = found["baselines"]["train_mean"]["r2"]
    constant = "no better than the same answer for all (the training mean" in found["verdict"]
    assert constant == (found["linear_r2"] <= least)


def test_a_network_that_learns_nothing_is_no_better_than_the_same_answer_for_all(there: Path) -> None:
    """At a rate of next to nothing fine-tuning from random heads and from scratch are both worse than the mean."""
    words = ["task=regress", f"data.labels={there}/numbers.csv", "data.label_column=bright"]
    still = ["stage.base_lr=1e-9", "stage.probe_first=false"]
    assert go(there, "still", "stage=finetune", *words, *SHORT, *still) == 0
    assert results(there, "still")["verdict"].startswith(
        "Nothing useful learned: no better than the same answer for all (the training mean: R2 "
    )
    augmented = ["stage.augmented=true", "stage.epochs=1", "stage.base_lr=1e-9", "trainer.log_every_n_steps=1"]
    assert go(there, "still-linear", "stage=linear", *words, *augmented) == 0
    assert "the same answer for all (the training mean: R2 " in results(there, "still-linear")["verdict"]
    assert "random weights: R2" in results(there, "still-linear")["verdict"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task=regress"], "task=regress takes numbers per image, and the data has one of 2 classes: leave task= out"),
        (["task=multilabel"], "task=multilabel takes several labels per image, and the data has one of 2 classes"),
        (["data.labels={there}/words.csv"], "stage=linear takes one label per image, and the data has 2: add task=mul"),
        (["data.labels={there}/numbers.csv", "data.label_column=red"], "nearly all of them different"),
        (["data.labels={there}/numbers.csv"], "leave only columns of 0 and 1; task=regress reads numbers"),
        (["task=regress", "data.labels={there}/words.csv"], "task=regress reads numbers, and column 'labels' has"),
        (
            ["task=regress", "data.labels={there}/numbers.csv", "data.labels_per_class=3"],
            "set data.label_fraction instead",
        ),
        (
            ["task=regress", "data.labels={there}/numbers.csv", "data.label_column=blue"],
            "so there is no data.label_column=blue",
        ),
    ],
)
def test_a_wrong_pairing_is_one_line(
    there: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(there, "wrong", "stage=linear", *(word.format(there=there) for word in words)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert line in said


def test_a_stage_that_reads_no_labels_refuses_a_task(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage=export", f"ckpt={there}/run", "task=regress"]) == 2
    assert "stage=export reads no labels; leave it out" in capsys.readouterr().err


def test_a_task_of_ones_own_needs_no_edit_of_the_package(there: Path) -> None:
    conf = ["--config-dir", str(Path(own.__file__).parent / "conf"), "trusted_packages=[tests]", "task=counts"]
    labels = [f"data.labels={there}/numbers.csv", "data.label_column=[red]"]
    assert go(there, "own", *conf, *labels, "stage=finetune", *SHORT) == 0
    found = results(there, "own")
    assert found["finetune_mae"] >= 0
    assert found["metric"] == {"name": "mae", "higher_is_better": False}
    assert set(found["baselines"]) == {"from_scratch", "raw_pixels"}
    assert len(Path(own.__file__).read_text().splitlines()) < 25


def test_pretraining_ends_with_the_verdict_of_the_task(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=folder", f"data.root={there}/images", "data.image_size=16", "data.batch_size=16", "trainer=cpu"]
    words += ["task=regress", f"data.labels={there}/numbers.csv", "trainer.max_epochs=1", "backbone.width=4"]
    words += [
        "method.projector.hidden_dim=8",
        "method.projector.out_dim=8",
        "callbacks=minimal",
        "trainer.log_every_n_steps=1",
    ]
    assert main([*words, f"runs_dir={there}", "name=pretrained"]) == 0
    found = results(there, "pretrained")
    assert {"knn_r2", "linear_r2", "linear_mae", "quality"} <= found.keys()
    assert {"knn_r2", "linear_r2"} <= found["baselines"]["random_init"].keys()


def test_a_label_curve_of_numbers_draws_their_own_metric(there: Path) -> None:
    words = ["stage=label_curve", "task=regress", f"data.labels={there}/numbers.csv", "stage.fractions=[0.4,0.9]"]
    words += ["stage.seeds=[0]", "stage.steps=0", "stage.finetune.epochs=1", "stage.finetune.warmup_epochs=0"]
    assert go(there, "curve-regress", *words, "stage.probe.epochs=1") == 0
    found = results(there, "curve-regress")
    assert {row["metric"] for row in found["table"]} == {"r2"}
    assert {row["line"] for row in found["table"]} == {"finetune", "linear", "scratch", "naive"}
    assert found["metric"] == {"name": "r2", "higher_is_better": True}
    assert (there / "curve-regress" / "label_curve.png").is_file()
