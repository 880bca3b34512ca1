"""The end of a run on the terminal: the right figures, in words and commands that a person can use as they stand."""

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.cli import summary, table
from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.compose import compose
from ssl_lightning.cli.run import check

PRETRAIN: dict[str, Any] = {
    "stage": "pretrain", "method": "simclr", "data": "shapes", "seed": 0, "knn_top1": 0.7134, "linear_top1": 0.8177,
    "linear_top5": 0.99,
    "baselines": {"random_init": {"knn_top1": 0.279, "linear_top1": 0.2791},
                  "raw_pixels": {"knn_top1": 0.362, "variant": "centered"}},
    "protocol": {"knn": "cosine, k=20", "linear": "a long text " * 20},
    "verdict": "These features beat random weights.", "quality": {"rankme": 33.0, "alignment": None},
    "epochs": 5, "steps": 780, "images_per_second": 683.4, "samples_per_second": 683.4, "seconds": 172.0,
    "peak_memory_mb": 1046.0, "config_sha256": "25d9",
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "stage": "finetune", "method": "simclr", "data": "shapes", "seed": 0, "finetune_top1": 0.145,
    "baselines": {"from_scratch": {"finetune_top1": 0.135}, "raw_pixels": {"linear_top1": 0.165}},
    "labels": 400, "epochs": 2, "steps": 10, "ckpt": "runs/simclr-shapes", "seconds": 3.7, "verdict": "Fine.",
}  # fmt: skip


def lines(results: dict[str, Any], folder: str = "runs/simclr-shapes", *words: str) -> list[str]:
    return summary.lines(results, Path(folder), words)


def figures(found: list[str], name: str) -> list[str]:
    """The cells behind a row's name."""
    (line,) = [line for line in found if line.strip().startswith(f"{name}  ")]
    return [cell.strip() for cell in line.strip().removeprefix(name).split("   ") if cell.strip()]


def test_a_pretraining_beside_its_baselines() -> None:
    found = lines(PRETRAIN)
    assert found[1] == "stage=pretrain, simclr on shapes: 5 epochs, 780 steps, 683 images/s, 2:52"
    assert found[2].split() == ["kNN", "linear", "probe"]
    assert figures(found, "simclr") == ["71.3 %", "81.8 %"]
    assert figures(found, "random weights") == ["27.9 %", "27.9 %"]
    assert figures(found, "raw pixels") == ["36.2 %", "-"]
    assert len({len(line) for line in found[2:6]}) == 1  # aligned to the right
    assert "These features beat random weights." in found
    assert "Written: runs/simclr-shapes/results.json" in found
    assert not [line for line in found if "sha256" in line or "protocol" in line or "top5" in line]


def test_next_commands_can_be_pasted() -> None:
    commands = summary.next_commands(PRETRAIN, Path("runs/simclr-shapes"))
    assert [c.strip() for c in commands] == [
        "python -m ssl_lightning stage=finetune ckpt=runs/simclr-shapes",
        "python -m ssl_lightning stage=linear ckpt=runs/simclr-shapes",
    ]


def test_what_is_worth_training_longer_says_by_which_command() -> None:
    results = PRETRAIN | {"verdict": "No better than random weights (x): train longer (raise trainer.max_epochs)."}
    words = ("method=byol", "trainer.max_epochs=5", "resume=never", "data.root=my photos")
    first, second = summary.next_commands(results, Path("runs/a"), words, ["--config-dir", "my conf"])
    asked = parse(_without_folder(first))
    assert asked.overrides == ["method=byol", "data.root=my photos", "trainer.max_epochs=10"]
    assert "--config-dir 'my conf'" in first
    assert "--config-dir 'my conf' stage=finetune ckpt=runs/a" in second


def _without_folder(line: str) -> list[str]:
    words = shlex.split(line.replace("\\\n", ""))[3:]
    at = words.index("--config-dir")
    return words[:at] + words[at + 2 :]


@pytest.mark.parametrize("stage", ["knn", "linear", "finetune"])
def test_commands_on_a_run_compose(stage: str, old_run: Path) -> None:
    results = {"stage": stage, f"{stage}_top1": 0.5, "ckpt": str(old_run)}
    for line in summary.next_commands(results, old_run / f"{stage}-shapes"):
        check(compose(parse(shlex.split(line.replace("\\\n", ""))[3:]).overrides))


@pytest.fixture
def old_run() -> Path:
    return Path(__file__).parents[1] / "fixtures" / "runs" / "simclr-shapes"


def test_fine_tuning_in_one_column() -> None:
    found = lines(FINETUNE, "runs/simclr-shapes/finetune-shapes")
    assert found[1] == "stage=finetune, simclr on shapes: 2 epochs, 10 steps, 400 labels, 0:04"
    assert found[2].strip() == "accuracy"
    assert figures(found, "simclr, fine-tuned") == ["14.5 %"]
    assert figures(found, "training from scratch") == ["13.5 %"]
    assert figures(found, "raw pixels, linear probe") == ["16.5 %"]


def test_numbers_and_several_labels_and_text_have_their_units() -> None:
    found = lines({
        "stage": "knn", "method": "mae", "data": "folder", "knn_r2": 0.3456, "knn_mae": 12.345, "knn_rmse": 1.0,
        "baselines": {"random_init": {"knn_r2": -2.0, "knn_mae": 30.0}, "train_mean": {"r2": -0.01, "mae": 22.2}},
    })  # fmt: skip
    assert found[2].split() == ["kNN", "R2", "kNN", "MAE"]
    assert figures(found, "mae") == ["0.346", "12.35"]
    assert figures(found, "the training mean") == ["-0.010", "22.2"]
    found = lines({"stage": "knn", "method": "mae", "data": "x", "knn_map": 0.5, "knn_macro_f1": 0.25})
    assert figures(found, "mae") == ["50.0 %", "25.0 %"]
    found = lines({"stage": "finetune", "method": "mae", "data": "x", "finetune_cer": 0.125, "finetune_wer": 1.5})
    assert figures(found, "mae, fine-tuned") == ["12.5 %", "150.0 %"]
    assert found[2].split() == ["CER", "WER"]


def test_probes_have_a_block_each() -> None:
    probe = {"knn_top1": 0.5, "classes": 12, "baselines": {"random_init": {"knn_top1": 0.25}}}
    found = lines({"stage": "knn", "method": "byol", "data": "tones", "knn_top1": 0.9, "probes": {"speaker": probe}})
    at = found.index("probe speaker (12 classes):")
    assert figures(found[at:], "byol") == ["50.0 %"]
    assert figures(found[at:], "random weights") == ["25.0 %"]


def test_what_a_stage_of_ones_own_found_is_shown() -> None:
    found = lines({"stage": "mine", "method": "?", "data": "x", "purity": 0.123456, "note": "a\x1b[31mb", "nested": {}})
    assert figures(found, "purity") == ["0.1235"]
    assert figures(found, "note") == ["a\\x1b[31mb"]
    assert "Next:" not in found


def test_a_task_of_ones_own_shows_its_metric() -> None:
    found = lines({"stage": "linear", "method": "a", "data": "x", "linear_kappa": 0.5, "ckpt": "runs/a"})
    assert found[2].split() == ["linear", "probe", "kappa"]
    assert figures(found, "a") == ["0.5"]


def test_no_line_is_wider_than_100_columns() -> None:
    long = PRETRAIN | {
        "verdict": "word " * 60, "method": "m" * 80, "health": ["sentence " * 40],
        **{f"knn_metric{i}": 0.5 for i in range(30)},
    }  # fmt: skip
    words = ("data.root=" + "x" * 60, "method=byol", *(f"data.key{i}=1" for i in range(20)))
    for results in (long, long | {"verdict": "raise trainer.max_epochs"}):
        for line in "\n".join(lines(results, "runs/a", *words)).splitlines():
            assert len(line) <= 100, line


def test_plain_text_without_boxes_or_colours(capsys: pytest.CaptureFixture[str]) -> None:
    summary.show(PRETRAIN, Path("runs/a"))
    table.show_rows([{"method.loss.temperature": "0.1", "status": "done", "knn_top1": 0.5}], "a sweep")
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["temperature", "status", "knn_top1"], ["0.1", "done", "50.0", "%"],
    ]  # fmt: skip


def test_a_terminal_that_does_not_know_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    summary.show(PRETRAIN | {"data": "größe"}, Path("runs/größe"))
    assert b"simclr on gr\\xf6\\xdfe" in raw.getvalue()


def test_secrets_are_masked_and_shells_are_not_fooled(monkeypatch: pytest.MonkeyPatch) -> None:
    results = PRETRAIN | {"verdict": "raise trainer.max_epochs"}
    text = "\n".join(lines(results, "runs/a", "logger.api_key=abcdefgh1234", "data.root=$(rm -rf x)"))
    assert "abcdefgh1234" not in text
    assert "'data.root=$(rm -rf x)'" in text


def test_findings_that_the_verdict_does_not_say_are_added() -> None:
    health = [
        "ok: No collapse.",
        "bad: The loss jumped. Lower the rate.",
        "watch: Raw pixels: no better than raw pixels.",
    ]
    found = lines(PRETRAIN | {"health": health})
    at = found.index("These features beat random weights.")
    assert found[at + 1 : at + 3] == ["bad: The loss jumped. Lower the rate.", ""]


def test_a_page_is_named_where_there_is_one(tmp_path: Path) -> None:
    assert not [line for line in summary.lines(PRETRAIN, tmp_path) if "Page" in line]
    (tmp_path / "report.html").write_text("")
    assert f"Page: {tmp_path / 'report.html'}" in summary.lines(PRETRAIN, tmp_path)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / "fixtures" / "runs").rglob("results.json")))
def test_results_of_older_versions_are_shown(file: Path) -> None:
    found = summary.lines(json.loads(file.read_text()), file.parent)
    assert any("random weights" in line or "scratch" in line for line in found) or "stage=" in found[1]


def test_an_export_and_an_embedding_say_how_their_files_are_read() -> None:
    folder = Path("runs/a/export-folder")
    for files, line in (
        (["backbone.safetensors", "backbone.onnx"], 'backbone = load_backbone("runs/a/export-folder")'),
        (["hf", "backbone.json"], 'timm.create_model("local-dir:runs/a/export-folder/hf", pretrained=True)'),
        (["backbone.onnx"], 'InferenceSession("runs/a/export-folder/backbone.onnx")'),
        (["features_all.parquet"], 'read_table("runs/a/export-folder/features_all.parquet")'),
        (["features_all.csv"], 'csv.DictReader(open("runs/a/export-folder/features_all.csv", newline=""))'),
    ):
        found = summary.loading(folder, [str(folder / file) for file in files])
        assert line in found[1]
        assert found[0].strip().startswith(("import ", "from "))


def test_the_next_command_of_a_job_is_as_a_person_types_it() -> None:
    """A sweep names its jobs in Hydra's quotes, which a shell would have to quote once more."""
    words = ["method=simclr", "name='my-sweep/method.loss.temperature=0.1,seed=0'", "resume=auto"]
    results = {"stage": "pretrain", "epochs": 2, "knn_top1": 0.5, "verdict": "train longer (raise trainer.max_epochs)"}
    found = summary.next_commands(results, Path("runs/x"), words)[0]
    assert " name=my-sweep/method.loss.temperature=0.1,seed=0 " in found.replace(" \\\n     ", " ")
    assert "'" not in found
    typed = compose(["name=my-sweep/method.loss.temperature=0.1,seed=0"])
    assert typed.path == compose([words[1]]).path == Path("runs/my-sweep/method.loss.temperature=0.1,seed=0")


def test_after_a_doctor_comes_the_training() -> None:
    words = ["stage=doctor", "stage.seconds=5", "method=dino", "data=shapes"]
    found = summary.next_commands({"stage": "doctor"}, Path("runs/x"), words)
    assert [line.strip() for line in found] == ["python -m ssl_lightning method=dino data=shapes"]
