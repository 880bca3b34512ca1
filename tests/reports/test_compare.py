"""Runs compared: the right groups, means and deviations, and a page that cannot be fooled by names."""

import copy
import csv
import io
import json
import math
import re
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from ssl_lightning.__main__ import main
from ssl_lightning.cli import sweep
from ssl_lightning.core.errors import UserError
from ssl_lightning.reports import compare
from ssl_lightning.reports.gathered import Section, sections
from ssl_lightning.reports.run_files import find, read
from tests.reports.run_folders import CHOICES, config, make


def grid(root: Path) -> list[Path]:
    """Two temperatures, two rates, three seeds."""
    paths = []
    for t, base in ((0.1, 0.5), (0.5, 0.3)):
        for lr, more in ((0.01, 0.0), (0.1, 0.1)):
            for seed in range(3):
                folder = root / f"t={t},lr={lr},seed={seed}"
                paths.append(make(folder, config(seed, t, lr), base + more + 0.01 * seed))
    return paths


def of(paths: list[Path]) -> list[Section]:
    return sections([read(path) for path in paths])


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    (part,) = of(grid(tmp_path))
    assert part.keys == ("method.loss.temperature", "optimizer.base_lr")
    assert [group.values for group in part.groups] == [("0.1", "0.1"), ("0.1", "0.01"), ("0.5", "0.1"), ("0.5", "0.01")]
    best = part.groups[0]
    assert len(best.runs) == 3
    assert best.mean("knn_top1") == pytest.approx(0.61)
    assert best.deviation("knn_top1") == pytest.approx(stdev([0.6, 0.61, 0.62]))
    assert part.noise("knn_top1") == pytest.approx(0.01)
    assert best.best("knn_top1").path.name == "t=0.1,lr=0.1,seed=2"
    assert part.main == "knn_top1"


def test_repeats_of_a_seed_are_no_seeds(tmp_path: Path) -> None:
    same = [make(tmp_path / f"{t}-{i}", config(0, t), 0.5 + t / 10) for t in (0.1, 0.5) for i in range(2)]
    (part,) = of(same)
    assert [len(group.runs) for group in part.groups] == [2, 2]
    assert math.isnan(part.noise("knn_top1"))
    assert "One seed each" in compare.conclusion(part)
    judged = [make(tmp_path / f"of-{i}", config(0, 0.1, ckpt="runs/x", ckpt_sha256=str(i)), 0.1 * i) for i in (1, 2)]
    assert [group.of("knn_top1") for group in of(judged)[0].groups] == [[0.1, 0.2]]  # of two pretrainings


def test_files_of_different_folders_stand_apart(tmp_path: Path) -> None:
    paths = []
    for root in ("photos", "<u>\x1bother"):
        for t in (0.1, 0.5):
            node = config(0, t)
            node["data"]["root"] = root
            paths.append(make(tmp_path / f"{root[:3].strip('<>')}-{t}", node, 0.5 + t / 10))
    found = of(paths)
    assert [part.data for part in found] == ["shapes photos", r"shapes <u>\x1bother"]
    assert "<u>" not in compare.page(found)
    assert [part.data for part in of(paths[:2])] == ["shapes"]


def rooted(folder: Path, root: str, sha256: str | None, knn: float, seed: int = 0, t: float = 0.2) -> Path:
    node = config(seed, t)
    node["data"]["root"] = root
    make(folder, node, knn)
    found = json.loads((folder / "results.json").read_text())
    if sha256 is not None:
        found["data_fingerprint"] = {"test": 10, "classes": 2, "items": 50, "sha256": sha256}
    (folder / "results.json").write_text(json.dumps(found))
    return folder


def test_copies_of_the_same_data_are_compared(tmp_path: Path) -> None:
    """Equal but for the place of their data: one group; a run of before there were fingerprints goes by its folder."""
    paths = [rooted(tmp_path / "a", "photos", "1f", 0.5), rooted(tmp_path / "b", "copy", "1f", 0.6, seed=1)]
    (part,) = of(paths)
    assert part.data == "shapes"
    assert part.keys == ()
    assert [len(group.runs) for group in part.groups] == [2]
    paths += [rooted(tmp_path / "c", "photos", None, 0.4, seed=2), rooted(tmp_path / "d", "other", "2e", 0.4)]
    paths += [rooted(tmp_path / "e", "old", None, 0.4)]
    assert [(part.data, len([run for g in part.groups for run in g.runs])) for part in of(paths)] == [
        ("shapes photos", 3), ("shapes other", 1), ("shapes old", 1)
    ]  # fmt: skip


def test_files_that_changed_between_runs_are_told(tmp_path: Path) -> None:
    paths = [rooted(tmp_path / "a", "photos", "1f", 0.5), rooted(tmp_path / "b", "photos", "2e", 0.6, t=0.5)]
    (part,) = of(paths)
    assert compare.conclusion(part).endswith("changed between these runs: their figures are not of the same items.")
    paths[1] = rooted(tmp_path / "c", "photos", "1f", 0.6, t=0.5)
    assert "changed between" not in compare.conclusion(of(paths)[0])
    paths[1] = rooted(tmp_path / "d", "photos", "2e", 0.6, seed=1, t=0.5)  # what a seed leaves out may differ
    assert "changed between" not in compare.conclusion(of(paths)[0])


def test_the_column_of_runs_counts_runs(tmp_path: Path) -> None:
    same = [make(tmp_path / f"{t}-{i}", config(0, t), 0.5 + t / 10) for t in (0.1, 0.5) for i in range(2)]
    page = compare.page(of(same))
    assert "<th>runs</th>" in page  # of one seed
    assert "<th>seeds</th>" not in page


def test_a_tie_is_no_best(tmp_path: Path) -> None:
    tied = [make(tmp_path / f"{t}", config(0, t), 0.5) for t in (0.1, 0.5)]
    said = compare.conclusion(of(tied)[0])
    assert said.startswith("Equally good, kNN 50.0 %: temperature=0.1; temperature=0.5. One seed each")


def test_the_csv_has_means_and_deviations(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(compare.as_csv(compare.table(of(grid(tmp_path)))))))
    assert len(rows) == 4
    assert (rows[0]["method.loss.temperature"], rows[0]["optimizer.base_lr"], rows[0]["runs"]) == ("0.1", "0.1", "3")
    assert float(rows[0]["knn_top1"]) == pytest.approx(0.61)
    assert float(rows[0]["knn_top1_std"]) == pytest.approx(0.01)
    assert float(rows[3]["linear_top1"]) == pytest.approx(0.31 / 2)
    assert rows[0]["run"].endswith("t=0.1,lr=0.1,seed=2")


def test_what_is_within_chance_is_said(tmp_path: Path) -> None:
    close = [
        make(tmp_path / f"{t}-{s}", config(s, t), 0.5 + 0.001 * t + 0.02 * s) for t in (0.1, 0.5) for s in range(2)
    ]
    assert "Not worse by more than chance (deviation over seeds: 1.4 %): temperature=0.1." in compare.conclusion(
        of(close)[0]
    )
    (part,) = of(grid(tmp_path / "grid"))
    said = compare.conclusion(part)
    assert said == (
        "Best: temperature=0.1, base_lr=0.1, kNN 61.0 ± 1.0 %. All others are worse by more than chance (deviation "
        "over seeds: 1.0 %)."
    )
    single = [make(tmp_path / f"one-{t}", config(0, t), 0.5 + t / 10) for t in (0.1, 0.5)]
    assert compare.conclusion(of(single)[0]).startswith("Best: temperature=0.5, kNN 55.0 %. One seed each")


def test_a_method_stands_for_what_comes_with_it(tmp_path: Path) -> None:
    other = config(lr=0.3)
    other["method"] = {"_target_": "ssl_lightning.methods.byol.BYOL", "teacher": {"momentum": 0.99}}
    other["choices"] = {**CHOICES, "method": "byol"}
    paths = [make(tmp_path / "a", config(), 0.5), make(tmp_path / "b", other, 0.4)]
    (part,) = of(paths)
    assert part.keys == ("method",)
    assert part.follows == ("optimizer.base_lr",)
    assert [part.name(group) for group in part.groups] == ["method=simclr", "method=byol"]
    again = copy.deepcopy(other)
    again["method"]["teacher"]["momentum"] = 0.9  # within byol a key of its own counts
    (part,) = of([*paths, make(tmp_path / "c", again, 0.3)])
    assert part.keys == ("method", "method.teacher.momentum")
    assert [group.values for group in part.groups] == [("simclr", "default"), ("byol", "0.99"), ("byol", "0.9")]


def test_choices_that_change_no_result_set_no_run_apart(tmp_path: Path) -> None:
    node = config(1, choices={**CHOICES, "logger": "wandb", "trainer": "gpu", "experiment": "cpu"}, name="y")
    (part,) = of([make(tmp_path / "a", config(), 0.5), make(tmp_path / "b", node, 0.4)])
    assert part.keys == ()
    assert len(part.groups[0].runs) == 2


def test_other_stages_and_data_stand_apart(tmp_path: Path) -> None:
    finetune = config(choices={**CHOICES, "stage": "finetune"})
    cifar = config(choices={**CHOICES, "data": "cifar10"})
    paths = [make(tmp_path / n, c, 0.5) for n, c in (("a", config()), ("b", finetune), ("c", cifar), ("d", config(1)))]
    parts = of(paths)
    assert [(part.stage, part.data, len(part.groups[0].runs)) for part in parts] == [
        ("pretrain", "shapes", 2), ("finetune", "shapes", 1), ("pretrain", "cifar10", 1),
    ]  # fmt: skip
    assert (
        "Of different stages, data or tasks, so they stand apart: pretrain on shapes; finetune on shapes"
        in compare.page(parts)
    )


def test_unfinished_runs_are_shown_as_such_and_counted_into_no_mean(tmp_path: Path) -> None:
    paths = [make(tmp_path / f"{s}", config(s), knn, (0.1, 0.9)) for s, knn in enumerate((0.5, 0.6, None))]
    paths.append(make(tmp_path / "alone", config(0, 0.7), None, (0.1, 0.2, 0.95)))
    (part,) = of(paths)
    first, last = part.groups
    assert first.mean("knn_top1") == pytest.approx(0.55)
    assert compare.status(first) == "1 of 3 unfinished"
    assert compare.status(last) == "unfinished, epoch 3 of 5"
    assert last.mean("knn_top1") == 0.95  # what it has, and yet it stands last
    assert "Best: temperature=0.2" in compare.conclusion(part)


def test_less_is_better_for_errors(tmp_path: Path) -> None:
    for name, t, cer in (("a", 0.1, 0.4), ("b", 0.2, 0.1)):
        make(tmp_path / name, config(0, t), 0.5)
        (tmp_path / name / "results.json").write_text(f'{{"finetune_cer": {cer}, "finetune_wer": 0.9}}')
    (part,) = of([tmp_path / "a", tmp_path / "b"])
    assert [group.values for group in part.groups] == [("0.2",), ("0.1",)]
    assert "fine-tuned CER 10.0 %" in compare.conclusion(part)


def test_the_metric_of_a_task_of_ones_own_ranks_by_its_own_direction(tmp_path: Path) -> None:
    for name, t, loss in (("a", 0.1, 4.0), ("b", 0.2, 1.0)):
        make(tmp_path / name, config(0, t), 0.5)
        told = '"metric": {"name": "my_loss", "higher_is_better": false}'
        (tmp_path / name / "results.json").write_text(f'{{"knn_other": 0.5, "knn_my_loss": {loss}, {told}}}')
    (part,) = of([tmp_path / "a", tmp_path / "b"])
    assert part.main == "knn_my_loss"
    assert [group.values for group in part.groups] == [("0.2",), ("0.1",)]
    assert "Best: temperature=0.2, kNN my_loss 1." in compare.conclusion(part)


@pytest.mark.parametrize(("keys", "sign"), [(1, "data-lines"), (2, 'class="cell"'), (3, "rgba(var(--heat)")])
def test_the_picture_is_by_how_many_keys_were_swept(keys: int, sign: str, tmp_path: Path) -> None:
    paths = []
    for i, (t, lr, size) in enumerate([(t, lr, b) for t in (0.1, 0.2) for lr in (0.1, 0.3) for b in (8, 16)]):
        node = config(0, t, lr if keys > 1 else 0.1)
        node["data"]["batch_size"] = size if keys > 2 else 8
        paths.append(make(tmp_path / str(i), node, 0.1 * i))
    (part,) = of(paths)
    assert len(part.keys) == keys
    assert sign in compare.swept(part)


def test_colours_span_the_noise_and_not_the_range_alone(tmp_path: Path) -> None:
    """Means that differ by less than seeds do are not drawn as light and dark."""
    paths = []
    for i, (t, lr) in enumerate([(t, lr) for t in (0.1, 0.2) for lr in (0.1, 0.3)]):
        paths += [make(tmp_path / f"{i}-{s}", config(s, t, lr), 0.5 + 0.001 * i + 0.1 * s) for s in range(2)]
    (part,) = of(paths)
    means = [group.mean("knn_top1") for group in part.groups]
    low, high = compare.scale_of(part, means)
    assert high - low == pytest.approx(4 * 0.1 / math.sqrt(2))
    shades = [float(a) for a in re.findall(r"rgba\(var\(--heat\),([\d.]+)\)", compare.swept(part))]
    assert len(shades) == 4
    assert max(shades) - min(shades) < 0.02
    low, high = compare.scale_of(of(grid(tmp_path / "grid"))[0], [0.3, 0.6])
    assert (low, high) == (0.3, 0.6)


def test_curves_are_means_with_a_band(tmp_path: Path) -> None:
    paths = [make(tmp_path / str(s), config(s), 0.5, (0.2 + 0.1 * s, 0.6)) for s in range(2)]
    drawn = compare.curves(of(paths)[0], "val/knn_top1")
    assert "0.25,0.6" in drawn.replace("&quot;", '"')
    assert 'class="band"' in drawn


EVIL = "<script>alert(1)</script>\"'&"


def test_names_run_nothing_and_secrets_are_masked(tmp_path: Path) -> None:
    for i, name in enumerate((EVIL, "plain")):
        node = config(0, 0.1 + i, choices={**CHOICES, "data": EVIL, "method": name})
        node["method"]["api_key"] = "abcdefghijkl123456"
        make(tmp_path / f"a{i}", node, 0.5)
    page = compare.page(of([tmp_path / "a0", tmp_path / "a1"]))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "abcdefghijkl123456" not in page


def test_damaged_results_count_as_none(tmp_path: Path) -> None:
    paths = grid(tmp_path)[:2]
    (paths[0] / "results.json").write_text("{")
    (paths[0] / "metrics.csv").write_bytes(b"step,epoch\n1,\xff\n")
    runs = [read(path) for path in paths]
    assert [run.status for run in runs] == ["unfinished", "done"]
    compare.page(sections(runs))


def test_runs_with_a_page_are_linked_from_where_the_comparison_lies(tmp_path: Path) -> None:
    paths = grid(tmp_path / "runs" / "a b<c>")[:6]
    (paths[2] / "report.html").write_text("")
    page = compare.page(of(paths), tmp_path / "runs" / "compare")
    assert '<a href="./../a%20b%3Cc%3E/t%3D0.1%2Clr%3D0.01%2Cseed%3D2/report.html">t=0.1,lr=0.01,seed=2</a>' in page
    assert page.count('<a href="./') == 1


def test_a_sweep_leaves_a_page_and_never_fails_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.csv").write_text("job,\n")
    sweep.show_page(tmp_path / "sweep")
    assert capsys.readouterr().out == f"page: {tmp_path / 'sweep' / 'compare.html'}\n"
    assert "12 runs compared" in (tmp_path / "sweep" / "compare.html").read_text()
    sweep.show_page(tmp_path / "nowhere")
    assert capsys.readouterr().err.startswith("compare.html was not written: ")
    make(tmp_path / "few" / "one", config(), 0.5)
    sweep.show_page(tmp_path / "few")
    assert not (tmp_path / "few" / "compare.html").exists()


# ---- which runs are meant ------------------------------------------------------------------------------------------


def test_runs_folders_of_runs_and_patterns_are_found(tmp_path: Path) -> None:
    paths = grid(tmp_path / "sweep")
    assert find(str(tmp_path / "sweep")) == sorted(paths)
    assert find([str(paths[1]), str(paths[0]), str(paths[1])]) == [paths[1], paths[0]]
    assert find(str(tmp_path / "sweep" / "*seed=0")) == sorted(path for path in paths if path.name.endswith("seed=0"))
    assert find(str(tmp_path / "sw*")) == sorted(paths)


@pytest.mark.parametrize(
    ("asked", "line"),
    [("nowhere", "nowhere is no run's folder and holds none"), ("one", "one is the only run; give two or more"),
     (["one", "no*"], "no* is no run's folder")],
)  # fmt: skip
def test_what_is_no_run_is_a_line(asked: Any, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "one", config(), 0.5)
    with pytest.raises(UserError, match=re.escape(line)):
        find(asked)


# ---- the stage -----------------------------------------------------------------------------------------------------


def test_the_stage_writes_page_and_table_and_does_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = grid(tmp_path / "runs" / "sweep")
    command = ["stage=compare", "stage.runs=runs/sweep"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "stage=compare, simclr on shapes" in out
    assert "61.0 +- 1.0 %" in out
    folder = tmp_path / "runs" / "compare"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.csv",
        "compare.html",
        "config.yaml",
        "results.json",
    ]
    first = (folder / "compare.html").read_text()
    (paths[0] / "results.json").write_text('{"knn_top1": 0.99}')
    assert main(command) == 0  # not "finished; nothing to do"
    assert (folder / "compare.html").read_text() != first
    assert main(["stage=compare", f"stage.runs=['runs/sweep/{paths[0].name}','runs/sweep/{paths[1].name}']"]) == 0
    assert len((folder / "compare.csv").read_text().splitlines()) == 2  # one group


def test_the_stage_takes_the_place_of_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = grid(tmp_path / "runs" / "sweep")
    before = (paths[0] / "results.json").read_bytes()
    assert main(["stage=compare", "stage.runs=runs/sweep", f"name='sweep/{paths[0].name}'"]) == 2
    assert (paths[0] / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "line"),
    [([], "stage.runs: name the runs to compare"), (["stage.runs=nowhere"], "nowhere is no run's folder"),
     (["stage.runs=5"], "stage.runs"), (["stage.runs=[]"], "stage.runs")],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stage=compare", *words]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
