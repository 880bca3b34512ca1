"""The page of a run: what stands on it, for whole, running, sick, old and damaged folders; it never ends a run."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ssl_lightning.cli.run import compose, run
from ssl_lightning.config import allowed
from ssl_lightning.core import words
from ssl_lightning.reports import kept, names, pages, read, told
from ssl_lightning.reports import page as report_page
from tests.reports.test_html import Checked, is_quiet

SMALL = """data=shapes data.size=200 data.test_size=120 data.batch_size=50 backbone.width=8 method=simclr trainer=cpu
method.projector.hidden_dim=16 method.projector.out_dim=8 trainer.max_epochs=2 trainer.log_every_n_steps=1
trainer.enable_progress_bar=false name=made"""
EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its page."""
    runs = tmp_path_factory.mktemp("runs")
    run(compose([*SMALL.split(), f"runs_dir={runs}"]))
    return runs / "made"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def page(folder: Path) -> str:
    path = pages.write(folder)
    assert path is not None
    text = path.read_text()
    is_quiet(text)
    return text


def test_a_finished_run_has_a_page_with_everything_on_it(made: Path) -> None:
    text, results = (made / "report.html").read_text(), json.loads((made / "results.json").read_text())
    is_quiet(text)
    for part in ("result", "health", "run", "curves", "pictures", "features", "quality", "next", "config"):
        assert f'id="{part}"' in text, part
    assert "SimCLR on shapes" in text
    assert f"{100 * results['knn_top1']:.1f} %" in text
    gain = 100 * (results["knn_top1"] - results["baselines"]["random_init"]["knn_top1"])
    word = "over" if gain >= 0 else "against"
    assert f"{gain:+.1f} points {word} random weights" in text
    assert results["verdict"][1:] in text
    assert f"{results['verdict'][1:].rstrip('.')}.</p>" in text  # one full stop
    assert "python -m ssl_lightning data=shapes data.size=200" in text  # the command that repeats it
    assert f"stage=linear ckpt={made}" in text
    assert "disc, ring, square" in text
    assert 'class="map"' in text
    assert text.count('class="nearest"') > 10
    assert len(text) < 2_000_000


def test_the_order_is_that_of_the_questions(made: Path) -> None:
    text = (made / "report.html").read_text()
    places = [
        text.index(f'id="{part}"') for part in ("result", "health", "run", "curves", "pictures", "features", "next")
    ]
    assert places == sorted(places)


def test_health_is_in_results_and_on_the_page(made: Path) -> None:
    lines = json.loads((made / "results.json").read_text())["health"]
    assert lines
    assert all(line.split(": ")[0] in ("ok", "watch", "bad") for line in lines)
    assert lines[0].split(": ", 1)[1].split(" Try")[0][:40] in (made / "report.html").read_text()


def test_it_is_a_pure_function_of_the_folder(folder: Path, made: Path) -> None:
    def without_times(text: str) -> str:
        return text[: text.index("<footer>")].split("</h1>")[1].split("</p>", 1)[1]

    first = page(folder)
    assert without_times(first) == without_times(page(folder))
    assert without_times(first) == without_times((made / "report.html").read_text())


def test_a_running_one_says_so_and_shows_its_curves(folder: Path) -> None:
    (folder / "results.json").unlink()
    text = page(folder)
    assert 'class="status unfinished"' in text
    assert "Still training, or stopped" in text
    assert "of 2" in text  # epochs
    assert "goes on where it stopped" in text


def test_no_command_is_made_up(folder: Path) -> None:
    (folder / "report.npz").unlink()  # which has the command
    (folder / "results.json").unlink()
    text = page(folder)
    assert "The command of this run is not on record" in text
    assert "goes on where it stopped" in text
    assert "python -m ssl_lightning method=" not in text
    assert "python -m ssl_lightning name=" not in text


def test_a_folder_of_an_older_version_says_how_to_get_the_map(folder: Path) -> None:
    (folder / "report.npz").unlink()
    text = page(folder)
    assert "stage=report ckpt=" in text
    assert 'class="map"' not in text


def test_nothing_to_show_is_no_page(tmp_path: Path) -> None:
    assert pages.write(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_names_of_others_are_text_and_secrets_are_not_told(folder: Path) -> None:
    found = kept.read(folder)
    about = found.about | {"classes": [EVIL] * 10, "noun": EVIL, "device": EVIL, "modality": EVIL, "command": [EVIL]}
    about |= {"versions": {EVIL: EVIL}, "world": EVIL}
    kept.write(folder, about, found.arrays)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"name": EVIL, "choices": dict.fromkeys(config["choices"], EVIL)}
    config["logger"]["api_key"] = "tell-nobody-0123456789"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = json.loads((folder / "results.json").read_text())
    results |= {"verdict": EVIL, "method": EVIL, "data": EVIL, "stage": EVIL, "ckpt": EVIL, "protocol": {EVIL: EVIL}}
    results["baselines"][EVIL] = {"knn_top1": 0.1}
    results["quality"][EVIL] = 1.0
    (folder / "results.json").write_text(json.dumps(results))
    table = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join([f'{table[0]},"{EVIL}"', *(f"{row},1" for row in table[1:])]))
    (folder / f"{EVIL.replace('/', '')}.png").write_bytes((folder / "views.png").read_bytes())
    text = page(folder)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "tell-nobody" not in text
    assert Checked(text).tags.count("script") == 1


@pytest.mark.parametrize("name", ["metrics.csv", "results.json", "config.yaml", "report.npz", "views.png"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_costs_its_part_and_no_more(folder: Path, name: str, damage: str) -> None:
    whole = (folder / name).read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8).tobytes()
    (folder / name).write_bytes({"cut": whole[: len(whole) // 3], "noise": noise, "empty": b""}[damage])
    assert "<h1>" in page(folder)


@pytest.mark.parametrize(
    "arrays",
    [
        {"features": np.zeros((4, 1), np.float16)},
        {"features": np.full((4, 3), np.nan, np.float16)},
        {"labels": np.zeros(3, np.int64)},
        {"queries": np.array([10**6]), "nearest": np.array([[5]])},
        {"nearest_labels": np.zeros((0, 6), np.int64)},
        {"large_indices": np.zeros(0, np.int64)},
        {"map_umap": np.zeros((2, 2))},
    ],
)
def test_arrays_that_do_not_fit_are_left_out(folder: Path, arrays: dict[str, Any]) -> None:
    kept.add(folder, {"across": 0} if "large_indices" in arrays else {}, arrays)
    assert "<h1>" in page(folder)


def test_what_fails_is_one_line_and_the_run_ends_well(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on this disk")

    monkeypatch.setattr(pages, "write", broken)
    monkeypatch.setattr("ssl_lightning.reports.keep.reduced", broken)
    with caplog.at_level(logging.WARNING, "ssl_lightning"):
        run(compose([*SMALL.split(), f"runs_dir={tmp_path}"]))
    assert not (tmp_path / "made/report.html").exists()
    lines = [record.message for record in caplog.records if "no space left" in record.message]
    assert len(lines) == 4  # at each of two validations, of the features, at the end
    mine, others = (json.loads((one / "results.json").read_text()) for one in (tmp_path / "made", made))
    times = ("seconds", "images_per_second", "samples_per_second", "peak_memory_mb")
    assert {k: v for k, v in mine.items() if k not in times and k != "health"} == {
        k: v for k, v in others.items() if k not in times and k != "health"
    }


def test_the_page_changes_nothing_of_a_training(tmp_path: Path, made: Path) -> None:
    run(compose([*SMALL.split(), f"runs_dir={tmp_path}", "~callbacks.page"]))
    states = [
        torch.load(one / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for one in (tmp_path / "made", made)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert (tmp_path / "made/report.html").exists()  # made at the end all the same


def test_pictures_are_told_by_epoch(folder: Path) -> None:
    states = read.pictures_of(folder)["views"]
    assert [epoch for epoch, _ in states] == [1]
    dated = folder / "pictures/epoch_007"
    dated.mkdir(parents=True)
    shutil.copy(folder / "views.png", dated / "own.png")
    shutil.copy(folder / "views.png", folder / "own.png")
    text = page(folder)
    assert "epoch 7" in text
    assert 'type="range"' in text


def test_a_stage_on_a_run_has_a_page_of_its_own(made: Path) -> None:
    run(compose(["stage=knn", f"ckpt={made}", "trainer=cpu"]))
    text = (made / "knn-shapes/report.html").read_text()
    is_quiet(text)
    assert "kNN: SimCLR on shapes" in text
    assert 'class="map"' in text


@pytest.mark.parametrize(
    ("verdict", "level"),
    [
        ("Better than training from scratch: 30.0 % against 20.0 %.", "ok"),
        ("No better than training from scratch: 20.1 % against 20.0 %.", "watch"),
        ("nothing learned that shows: not above random weights", "watch"),
    ],
)
def test_a_verdict_that_is_no_success_is_not_shown_as_one(verdict: str, level: str) -> None:
    results = {"stage": "finetune", "verdict": verdict}
    run = read.Run(Path("runs/x"), {"name": "x"}, [], {}, results, kept.Kept(), {})
    assert f'<p class="verdict {level}">' in report_page.top(run, "x", [])


@pytest.mark.parametrize(("modality", "data"), [("image", "folder"), ("audio", "audio")])
@pytest.mark.parametrize("stage", ["finetune", "predict"])
def test_the_next_prediction_names_data_that_have_a_folder(stage: str, modality: str, data: str) -> None:
    """A model of `shapes` or of a downloaded set would be asked for a folder that its own data do not read."""
    results = {"stage": stage, "ckpt": "runs/x"}
    run = read.Run(Path("runs/x"), {"name": "x"}, [], {}, results, kept.Kept({"modality": modality}), {})
    assert f"stage=predict ckpt=runs/x data={data} data.root=FOLDER" in told.after(run)


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n0,1,nan\n1,inf,x\n,3,4\n2,5,6\n")
    assert read.metrics_of(tmp_path) == [{"step": 0.0, "a": 1.0}, {"step": 1.0}, {"step": 2.0, "a": 5.0, "b": 6.0}]


def test_many_classes_are_told_by_their_extremes_and_are_text(folder: Path) -> None:
    count = len(kept.read(folder).arrays["labels"])
    labels = np.arange(count) % 30
    names = [f"{EVIL}{number}" for number in range(30)]
    kept.add(folder, {"classes": names}, {"labels": labels, "found": np.roll(labels, 1)})
    text = page(folder)
    assert "the best and worst of 30" in text
    assert "Most frequent mix-ups" in text
    assert EVIL not in text


def test_shares_are_those_of_the_terminal() -> None:
    assert names.value("finetune_cer", 0.432) == "43.2 %"
    assert names.value("linear_r2", 0.5) == "0.5"


def test_each_stage_with_a_page_has_a_heading() -> None:
    without = {"export", "compare", "doctor", "report"}
    assert words.STAGES.keys() == set(allowed._STAGES) - without
