"""Health in words, on real small runs with one thing wrong each (benchmarks/sick_runs.py), and on sound ones."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.reports import health
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.rules import RULES

RUNS = Path(__file__).parents[1] / "fixtures/health"
SOUND = ("simclr", "moco", "byol", "simsiam", "vicreg", "barlow_twins", "swav", "rotation", "nnclr", "mae")
# What each sick run must be told, and at which level.
SICK = {
    "sick_collapsed": ("collapsed", "bad"),
    "sick_collapsed_direction": ("collapsed", "bad"),
    "sick_dino": ("collapsed", "bad"),
    "sick_rate": ("rate", "bad"),
    "sick_not_learning": ("at_chance", "bad"),
    "sick_normalisation": ("normalisation", "bad"),
    "sick_strong": ("at_chance", "bad"),
    "sick_same_views": ("same_views", "bad"),
    "sick_leak": ("leak", "bad"),
}
# Plain facts of a training of seconds, which are no alarm.
FACTS = {"not_above_random", "below_naive", "low_rank", "at_chance"}


def kept(name: str) -> dict[str, Any]:
    found = json.loads((RUNS / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def found_in(run: dict[str, Any]) -> list[health.Finding]:
    return health.findings(run["rows"], run["results"], run["config"], run["about"])


@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_is_told_what_is_wrong(name: str) -> None:
    found = {finding.kind: finding for finding in found_in(kept(name))}
    kind, level = SICK[name]
    assert kind in found, list(found)
    assert found[kind].level == level
    assert found[kind].fix
    if kind != "leak":  # of which a run may be sound in all else
        assert "sound" not in found or kind == "at_chance"


@pytest.mark.parametrize("name", SICK)
def test_the_worst_comes_first(name: str) -> None:
    assert found_in(kept(name))[0].level == SICK[name][1]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_run_gets_no_alarm(name: str) -> None:
    found = found_in(kept(name))
    assert not [finding for finding in found if finding.level == "bad"]
    assert {finding.kind for finding in found if finding.level == "watch"} <= FACTS
    assert {"sound", "learning", "rises"} & {finding.kind for finding in found}


@pytest.mark.parametrize("name", SOUND)
def test_a_run_in_training_gets_no_alarm_at_any_moment(name: str) -> None:
    run = kept(name)
    for end in range(len(run["rows"]) + 1):
        found = health.findings(run["rows"][:end], {}, run["config"], run["about"])
        assert not [finding for finding in found if finding.level == "bad"], end


def test_moco_may_rise_first() -> None:
    found = {finding.kind: finding for finding in found_in(kept("moco"))}
    assert found["rises"].level == "ok"
    assert "queue" in found["rises"].normal


def test_no_rows_and_odd_rows_are_no_error() -> None:
    assert health.findings([]) == []
    for rows in ([{}], [{"step": 0.0}], [{"train/loss": 1.0}] * 20):
        health.findings(rows, {"baselines": None, "knn_top1": "x"}, {"data": 3, "method": None}, {"test_count": "x"})


def change(run: dict[str, Any], **metrics: Any) -> dict[str, Any]:
    """A copy with other values of metrics: a function of (place from 0 to 1, value)."""
    run = copy.deepcopy(run)
    for name, function in metrics.items():
        rows = [row for row in run["rows"] if name.replace("__", "/") in row]
        for i, row in enumerate(rows):
            row[name.replace("__", "/")] = function(i / max(len(rows) - 1, 1), row[name.replace("__", "/")])
    return run


def kinds(run: dict[str, Any]) -> dict[str, str]:
    return {finding.kind: finding.level for finding in found_in(run)}


def test_a_loss_that_is_no_number() -> None:
    run = kept("simclr")
    for row in run["rows"][8:]:
        row.pop("train/loss", None)
    assert kinds(run)["not_finite"] == "bad"


def test_a_loss_that_jumps() -> None:
    assert (
        kinds(change(kept("vicreg"), train__loss=lambda at, loss: loss * (20 if at > 0.6 else 1)))["diverged"] == "bad"
    )


def test_a_loss_that_does_not_move() -> None:
    run = change(kept("vicreg"), train__loss=lambda at, loss: 20 + 0.01 * math.sin(50 * at))
    assert kinds(run)["still"] == "watch"


def test_knn_that_falls_while_the_loss_falls() -> None:
    run = change(kept("simclr"), val__knn_top1=lambda at, knn: 0.6 - 0.25 * at, train__loss=lambda at, loss: 5 - 2 * at)
    assert kinds(run)["falling"] == "watch"


def test_dino_that_answers_all_alike() -> None:
    run = kept("sick_dino")
    top = math.log(run["config"]["method"]["projector"]["out_dim"])
    sick = change(run, train__teacher_entropy=lambda at, v: top - 1e-4, train__loss=lambda at, v: top + 1e-4)
    assert kinds(sick)["uniform"] == "bad"
    one = change(run, train__teacher_entropy=lambda at, v: 1e-3)
    assert kinds(one)["collapsed"] == "bad"


def test_a_training_that_slows_down_is_not_in_results() -> None:
    run = change(kept("simclr"), train__images_per_second=lambda at, v: 400.0 if at < 0.6 else 100.0)
    assert kinds(run)["slower"] == "watch"
    found = found_in(run)
    assert any("slowed down" in line for line in health.words(found))
    assert not any("slowed down" in line for line in health.words(found, timed=False))


def test_results_below_what_needs_no_network() -> None:
    run = kept("simclr")
    run["results"] |= {"knn_top1": 0.5, "linear_top1": 0.5}
    run["results"]["baselines"] = {
        "random_init": {"knn_top1": 0.2, "linear_top1": 0.2},
        "raw_pixels": {"knn_top1": 0.7},
    }
    assert kinds(run)["below_naive"] == "watch"
    run["results"]["baselines"]["random_init"] = {"knn_top1": 0.5, "linear_top1": 0.51}
    assert kinds(run)["not_above_random"] == "watch"


def test_the_loss_of_a_guess() -> None:
    run = kept("simclr")
    look = Look(run["rows"], run["results"], run["config"], run["about"])
    assert look.guess == (pytest.approx(math.log(2 * 64 - 1)), "log(127)")
    two = Look(run["rows"], run["results"], run["config"], run["about"] | {"world": 2})
    assert two.guess == (pytest.approx(math.log(4 * 64 - 1)), "log(255)")
    queue = kept("moco")
    look = Look(queue["rows"], queue["results"], queue["config"], queue["about"])
    assert look.guess == (pytest.approx(math.log(1 + queue["config"]["method"]["queue_size"])), "log(4097)")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_says_where_it_comes_from(rule: Any) -> None:
    assert rule.__doc__


def test_words_are_whole_sentences() -> None:
    for name in (*SOUND, *SICK):
        for finding in found_in(kept(name)):
            for text in (finding.says, finding.normal, finding.fix):
                assert not text or (
                    text[-1] == "." and (text[0].isupper() or text[0].isdigit() or text.startswith("kNN"))
                ), text


def test_mild_views_are_no_alarm() -> None:
    run = kept("simclr")
    mild = change(run, train__positive_similarity=lambda at, v: 0.95, train__positive_top1=lambda at, v: 1.0)
    assert "same_views" not in kinds(mild)
