"""stage=label_curve: nested labels, jobs that are done once, killed runs that end as others do, words of worth."""

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_lightning.cli import run as build
from ssl_lightning.cli.compose import compose
from ssl_lightning.core.errors import Interrupted, UserError
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.reports import label_curve as curve
from ssl_lightning.stages import label_curve, label_jobs
from ssl_lightning.stages.common import open_backbone
from ssl_lightning.stages.finetune import run as finetuned
from ssl_lightning.stages.training import extract
from ssl_lightning.tasks.classify import Classify
from tests.equal_runs import assert_equal_runs
from tests.stages.tiny_run import NODE, TinyData, a_folder, a_run, a_trainer, judged
from tests.test_exact import told_at

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

OPTIONS = {"epochs": 2, "batch_size": 8, "base_lr": 0.1, "warmup_epochs": 1}
PROBE = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=3)


def opener(ref: Path) -> Callable[..., Any]:
    return lambda other, seed: open_backbone(other or ref, NODE, False, seed)


def go(tmp_path: Path, data: Any = None, trainer: Any = None, **arguments: Any) -> dict[str, Any]:
    ref, path = tmp_path / "run", tmp_path / "out"
    if not ref.exists():
        a_run(ref)
    folder = label_curve.RunFolder(path) if path.exists() else a_folder(path)
    given: dict[str, Any] = {"per_class": (2, 6), "seeds": (0, 1), "steps": 0, "probe": PROBE, **arguments}
    options = partial(finetuned, **{**OPTIONS, **given.pop("options", {})})
    return label_curve.run(
        judged(ref), data or TinyData(), trainer or a_trainer(path), folder, "tiny", opener(ref), lambda _: TinyData(),
        options, **given,
    )  # fmt: skip


def job(tmp_path: Path, name: str) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "jobs" / name / "results.json").read_text())


def test_a_curve_over_sizes_seeds_and_lines(tmp_path: Path) -> None:
    found = go(tmp_path)
    rows = {(row["line"], row["labels"]): row for row in found["table"]}
    assert set(rows) == {(line, n) for line in ("finetune", "linear", "scratch", "naive") for n in (6, 18)}
    for (line, labels), row in rows.items():
        scores = [job(tmp_path, f"{line}-{labels // 3}-a-class-seed{seed}")["score"] for seed in (0, 1)]
        assert row["values"] == scores
        assert row["mean"] == pytest.approx(sum(scores) / 2)
        half = 12.7062 * abs(scores[0] - scores[1]) / 2  # of two: t x deviation / sqrt 2
        assert row["high"] - row["mean"] == pytest.approx(half)
    assert not list((tmp_path / "out").rglob("*.ckpt"))  # nothing of the trainings but their curves
    with open(tmp_path / "out" / "label_curve.csv") as file:
        assert [float(row["mean"]) for row in csv.DictReader(file)] == [row["mean"] for row in found["table"]]
    with Image.open(tmp_path / "out" / "label_curve.png") as picture:
        assert picture.size == (1440, 900)
    assert found["labels"] == 18
    assert "worth" in found["verdict"] or "no gain" in found["verdict"] or "do not reach" in found["verdict"]


def test_a_job_is_what_the_stages_find_with_these_labels(tmp_path: Path) -> None:
    go(tmp_path, per_class=(6,), seeds=(1,))
    ref = tmp_path / "run"
    alone = finetuned(
        open_backbone(ref, NODE, False, 1), TinyData(labels_per_class=6, seed=1), a_trainer(tmp_path / "alone"),
        a_folder(tmp_path / "alone"), 1, **OPTIONS,
    )  # fmt: skip
    assert job(tmp_path, "finetune-6-a-class-seed1")["score"] == alone["finetune_top1"]
    assert job(tmp_path, "scratch-6-a-class-seed1")["score"] == alone["baselines"]["from_scratch"]["finetune_top1"]
    data = TinyData(labels_per_class=6, seed=1)
    train = extract(judged(ref).backbone, data.eval_loader("train", data.labelled_indices()))
    test = extract(judged(ref).backbone, data.eval_loader("test"))
    settings = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=3, batch_size=18, seed=1)
    probe = probe_grid(train.x, train.labels, test.x, test.labels, Classify.of(3), settings)
    assert job(tmp_path, "linear-6-a-class-seed1")["score"] == probe.top1


def test_labels_are_nested_in_a_seed_and_stratified() -> None:
    data = TinyData()
    sizes = label_jobs.sizes_of((1.0, 0.1, 0.4), None)
    assert [size.fraction for size in sizes] == [0.1, 0.4, 1.0]
    for seed in (0, 1):
        rows = [set(label_jobs.rows_at(data, size, seed).tolist()) for size in sizes]
        assert rows[0] < rows[1] < rows[2]
        for some in rows:
            counts = data.probe_set.labels[sorted(some)].bincount()
            assert counts.min() == counts.max()
    assert label_jobs.rows_at(data, sizes[0], 0).tolist() != label_jobs.rows_at(data, sizes[0], 1).tolist()
    assert data.labels_per_class is None
    assert data.label_fraction is None


@pytest.mark.parametrize(
    ("labels", "steps", "epochs"),
    [(10, 0, 60), (10, 1000, 1000), (100, 1000, 1000), (1000, 1000, 84), (10_000, 1000, 60)],
)
def test_few_labels_get_more_epochs_and_a_warm_up_of_the_same_share(labels: int, steps: int, epochs: int) -> None:
    found = label_curve.lengthened({"epochs": 60, "batch_size": 64, "picking": 0.2, "warmup_epochs": 5}, labels, steps)
    assert found == {"epochs": epochs, "warmup_epochs": pytest.approx(5 * epochs / 60)}


# ---- stopped and taken up again


def test_jobs_that_are_done_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go(tmp_path, lines=("scratch", "finetune"), per_class=(6,))
    monkeypatch.setattr(label_curve, "finetuned", lambda *_, **__: pytest.fail("a job was run again"))
    again = go(tmp_path, lines=("scratch", "finetune"), per_class=(6,))
    assert again["table"] == first["table"]
    (tmp_path / "out/jobs/scratch-6-a-class-seed1/results.json").unlink()
    monkeypatch.setattr(label_curve, "finetuned", finetuned)
    assert go(tmp_path, lines=("scratch", "finetune"), per_class=(6,))["table"] == first["table"]


@pytest.mark.long
def test_stopped_in_any_batch_it_ends_as_an_undisturbed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_lightning.callbacks.interrupt import Interrupt

    given: dict[str, Any] = {"per_class": (6,), "seeds": (0, 1), "lines": ("finetune", "scratch")}

    def trained(folder: Path) -> dict[str, Any]:
        plain = a_trainer(folder / "out")

        def factory(callbacks: list[Any] | None = None, **overrides: Any) -> Any:
            return plain(callbacks=[*(callbacks or []), *([Interrupt()] if callbacks else [])], **overrides)

        return go(folder, TinyData(num_workers=0), factory, **given)

    whole = trained(tmp_path / "whole")
    for batch in (1, 3, 5, 6):  # of 4 trainings, each of 2 epochs of one batch
        with told_at(batch, monkeypatch), pytest.raises(Interrupted):
            trained(tmp_path / str(batch))
        assert label_curve.RunFolder(tmp_path / str(batch) / "out").saved
        again = trained(tmp_path / str(batch))
        assert again["table"] == whole["table"]
        assert_equal_runs(tmp_path / "whole" / "out", tmp_path / str(batch) / "out")


# ---- a second backbone, other tasks


def test_a_second_backbone_has_lines_of_its_own(tmp_path: Path) -> None:
    other = a_run(tmp_path / "other", width=8, seed=9)
    found = go(tmp_path, per_class=(6,), seeds=(0,), other=str(other), lines=("finetune", "linear"))
    assert [row["line"] for row in found["table"]] == ["finetune", "linear", "other_finetune", "other_linear"]
    data = TinyData(labels_per_class=6)
    backbone = judged(other, width=8).backbone
    train = extract(backbone, data.eval_loader("train", data.labelled_indices()))
    test = extract(backbone, data.eval_loader("test"))
    settings = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=3, batch_size=18)
    probe = probe_grid(train.x, train.labels, test.x, test.labels, Classify.of(3), settings)
    assert found["table"][3]["mean"] == probe.top1
    assert found["verdict"] == ""  # nothing to compare with


def small(tmp_path: Path, *words: str) -> dict[str, Any]:
    config = compose([*words, f"runs_dir={tmp_path}", "trainer=cpu", "data.num_workers=0"])
    build.check(config)
    return build.run(config, tables=False)


SMALL = ("stage.seeds=[0,1]", "stage.steps=0", "stage.finetune.epochs=1", "stage.probe.epochs=2")
SMALL += ("stage.finetune.warmup_epochs=0.5",)


@pytest.mark.slow
def test_of_recordings_with_no_code_of_its_own(tmp_path: Path) -> None:
    small(tmp_path, "method=simclr", "data=tones", "data.size=60", "data.test_size=30", "backbone.width=4",
          "trainer.max_epochs=1", "stage.judge=false", "name=t", "data.batch_size=20")  # fmt: skip
    found = small(tmp_path, "stage=label_curve", f"ckpt={tmp_path}/t", "stage.fractions=[0.3,0.8]", *SMALL, "name=c")
    assert {row["line"] for row in found["table"]} == {"finetune", "linear", "scratch", "naive"}
    page = (tmp_path / "c" / "report.html").read_text()
    assert "python -m ssl_lightning" in page
    assert "not on record" not in page
    assert "What labels are worth" in page
    assert page.count("data:image/png") == 1
    again = small(tmp_path, "stage=label_curve", f"ckpt={tmp_path}/t", "stage.fractions=[0.3,0.8]", *SMALL, "name=c")
    assert again["table"] == found["table"]


# ---- words, table and figure


def at(line: str, *pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"line": line, "labels": n, "score": s + d} for n, s in pairs for d in (-0.001, 0.001)]


JOBS = [*at("finetune", (10, 0.5), (100, 0.6), (1000, 0.7)), *at("scratch", (10, 0.3), (100, 0.5), (1000, 0.7))]


def test_worth_is_read_off_the_curve_from_scratch() -> None:
    found = curve.worth(curve.points(JOBS), "finetune")
    assert [row["scratch_labels"] for row in found] == pytest.approx([100, 10**2.5, 1000], rel=1e-6)
    assert found[0]["times"] == pytest.approx(10)
    higher = curve.points([*at("finetune", (10, 0.9), (20, 0.2)), *at("scratch", (10, 0.3), (20, 0.5))])
    assert [row["scratch_labels"] for row in curve.worth(higher, "finetune")] == [None, 0.0]
    errors = curve.points([*at("finetune", (10, 0.5)), *at("scratch", (10, 0.7), (100, 0.5))])
    assert curve.worth(errors, "finetune", higher=False)[0]["scratch_labels"] == pytest.approx(100)
    falls = curve.points([*at("finetune", (10, 0.5)), *at("scratch", (10, 0.4), (20, 0.3), (40, 0.6))])
    assert 20 < curve.worth(falls, "finetune")[0]["scratch_labels"] < 40


def test_the_verdict_in_words() -> None:
    word = Classify.of(3).word
    told = curve.sentence(curve.points(JOBS), "finetune", True, word, classes=10)
    assert told == (
        "Fine-tuned from this run, 1 label a class gives 50.0 %, from scratch 30.0 %. They are worth about 10 labels a "
        "class from scratch, 10 times as many."
    )
    told = curve.sentence(curve.points([*at("linear", (10, 0.9)), *at("scratch", (10, 0.3))]), "linear", True, word)
    assert told.endswith("From scratch, 10 labels do not reach that.")
    few = [{"line": "finetune", "labels": 10, "score": s} for s in (0.3, 0.5)]
    told = curve.sentence(curve.points([*few, *at("scratch", (10, 0.3))]), "finetune", True, word)
    assert told.endswith("do not reach that. The seeds differ by as much, so this may be chance: give more of them.")
    one = [{"line": line, "labels": 10, "score": s} for line, s in (("finetune", 0.9), ("scratch", 0.3))]
    told = curve.sentence(curve.points(one), "finetune", True, word)
    assert told.endswith("do not reach that. With one seed this may be chance: give more of them.")
    worse = curve.points([*at("finetune", (10, 0.3)), *at("scratch", (10, 0.31))])
    told = curve.sentence(worse, "finetune", True, word)
    assert told.startswith("Pretraining shows no gain over training from scratch")
    assert "30.0 % against 31.0 % with 10 labels" in told


def test_t_quantiles() -> None:
    """As tables have them, to four places; the expansion agrees with the table where they meet."""
    for freedom, wanted in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (11, 2.201), (20, 2.086), (60, 2.000)):
        assert curve.t_quantile(freedom) == pytest.approx(wanted, abs=6e-4)


def test_names_that_could_be_formulas_or_markup(tmp_path: Path) -> None:
    found = curve.points(JOBS)
    names = dict.fromkeys(curve.LOOKS, "=cmd|' /C calc'!A0 $x$ <script>")
    rows = list(csv.DictReader(curve.csv_of(curve.table(found, "top1", names)).splitlines()))
    assert rows[0]["name"].startswith("'=")
    assert curve.figure(found, names, "a $b$ on <c>", "accuracy", "top1").startswith(b"\x89PNG")


@pytest.mark.parametrize(("words", "line"), [("no room\non two lines", "no room on two lines"), ("", "ValueError")])
def test_a_figure_that_fails_ends_no_run(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> bytes:
        raise ValueError(words)

    monkeypatch.setattr(curve, "figure", fails)
    found = go(tmp_path, per_class=(6,), seeds=(0,), lines=("linear",))
    assert [Path(file).name for file in found["files"]] == ["label_curve.csv"]
    told = capsys.readouterr()
    assert (told.out + told.err).count(f"label_curve.png was not drawn: {line}\n") == 1
    assert found["protocol"].keys() == {"linear", "labels", "band"}  # of nothing that was not done


# ---- what makes no sense

WRONG = [
    ("stage.fractions=[]", "stage.fractions=[] leaves nothing to train"),
    ("stage.seeds=[]", "stage.seeds=[] leaves nothing"),
    ("stage.lines=[]", "stage.lines=[] leaves nothing"),
    ("stage.seeds=[1,1]", "names a seed twice"),
]


@pytest.mark.parametrize(("word", "said"), WRONG)
def test_lists_that_leave_nothing(word: str, said: str) -> None:
    node = compose(["stage=label_curve", "ckpt=x.pt", word]).values["stage"]
    sizes = label_jobs.sizes_of(node["fractions"], node["per_class"])
    with pytest.raises(UserError) as refused:
        label_jobs.check_lists(sizes, node["seeds"], node["lines"])
    assert said in str(refused.value)


OUT_OF_RANGE = ["fractions=[0]", "fractions=[2]", "per_class=[0]", "seeds=[-1]", "steps=-1", "lines=[knn]"]
OUT_OF_RANGE += ["finetune.epochs=0", "finetune.cutmix=-1", "finetune.epoch=3", "probe.epochs=0", "fractions=0.1"]


@pytest.mark.parametrize("word", OUT_OF_RANGE)
def test_a_wrong_value_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as refused:
        build.check(compose(["stage=label_curve", "ckpt=x.pt", f"stage.{word}"]))
    assert word.partition("=")[0].split(".")[-1] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_curve_varies_itself() -> None:
    with pytest.raises(UserError, match=r"sets data\.label_fraction itself"):
        build.check(compose(["stage=label_curve", "ckpt=x.pt", "data.label_fraction=0.1"]))
    with pytest.raises(UserError, match=r"stage\.finetune\.naive: what is trained is chosen by stage\.lines"):
        label_jobs.options_of(partial(finetuned, naive=False))


def test_sizes_that_are_the_same_labels_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = label_jobs.sizes_of((0.01, 0.02, 0.5), None)
    found = label_jobs.distinct(TinyData(train=30), sizes, 0)
    assert [size.fraction for size in found] == [0.01, 0.5]
    told = capsys.readouterr()
    assert "0.01 and 0.02 are both 3 labels of these data" in told.out + told.err


@pytest.mark.parametrize(("count", "said"), [(1, "1 label a class"), (5, "5 labels a class")])
def test_a_job_in_words(count: int, said: str) -> None:
    (job, *_) = label_jobs.jobs_of(("linear",), [label_jobs.Size(per_class=count)], (0,), second=False)
    assert job.words == f"this run, linear, {said}, seed 0"


def test_another_seed_begins_with_other_random_weights(tmp_path: Path) -> None:
    opened = opener(a_run(tmp_path / "run"))
    one, two = (opened(None, seed) for seed in (0, 1))
    assert torch.equal(one.backbone.conv1[0].weight, two.backbone.conv1[0].weight)
    assert not torch.equal(one.random.conv1[0].weight, two.random.conv1[0].weight)
