"""Sweeps: which jobs there are, what survives, what is written."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ssl_lightning.cli import sweep
from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.compose import compose
from ssl_lightning.cli.ledger import Ledger
from ssl_lightning.core import signals
from ssl_lightning.core.errors import Interrupted, UserError
from ssl_lightning.core.signals import WATCH, status_of_process
from ssl_lightning.runs import places
from tests.test_cli import BASE, CONF, STOPS

START = [*BASE, "stage=standin"]


class Jobs:
    """Stands in for processes: notes each command, and writes the results a job would write."""

    def __init__(self, scores: dict[str, float | int]) -> None:
        self.scores, self.commands = scores, []  # type: ignore[var-annotated]

    def __call__(self, command: list[str]) -> int:
        self.commands.append(command)
        name = command[-1].removeprefix("name=").strip("'")
        score = next(value for key, value in self.scores.items() if key in name)
        if isinstance(score, int):
            return score
        folder = Path("runs", name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"knn_top1": score, "linear_top1": 0.1}))
        return 0

    @property
    def names(self) -> list[str]:
        return [command[-1].removeprefix("name=").strip("'") for command in self.commands]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(jobs: Jobs, *overrides: str) -> int:
    return sweep.main(parse([*START, "-m", *overrides]), jobs)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_with_table_and_heat_map(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs({"0.1,": 0.3, "0.2,data.batch_size=8": 0.9, "0.2": 0.5})
    assert run(jobs, "stage.boost=0.1,0.2", "data.batch_size=8,16", "seed=3") == 0
    folder = here / "runs" / "simclr-blank-sweep"
    grid = [f"stage.boost={b},data.batch_size={s}" for b in (0.1, 0.2) for s in (8, 16)]
    assert jobs.names == [f"simclr-blank-sweep/{job}" for job in grid]
    for command, job in zip(jobs.commands, grid):
        assert command[:3] == [sys.executable, "-m", "ssl_lightning"]
        assert set(command) >= {*START, "seed=3", *job.split(",")}
        assert "-m" not in command[3:]
    found = rows(folder)
    assert [row["knn_top1"] for row in found] == ["0.9", "0.5", "0.3", "0.3"]
    assert list(found[0]) == ["job", "stage.boost", "data.batch_size", "status", "knn_top1", "linear_top1"]
    assert found[0]["stage.boost"] == "0.2"
    assert found[0]["data.batch_size"] == "8"
    assert (folder / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert out.index("90.0 %") < out.index("50.0 %") < out.index("30.0 %")
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["heatmap.png", "sweep.csv"]
    assert [p.name for p in here.iterdir()] == ["runs"]  # no outputs/ or multirun/


def test_a_failing_job_is_survived_and_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs({"0.1": 1, "0.2": 0.5, "0.3": 0.6})
    assert run(jobs, "stage.boost=0.1,0.2,0.3") == 1
    assert len(jobs.commands) == 3
    found = rows(here / "runs" / "simclr-blank-sweep")
    assert [row["stage.boost"] for row in found] == ["0.3", "0.2", "0.1"]
    assert [row["status"] for row in found] == ["done", "done", "failed (1)"]
    assert found[-1]["knn_top1"] == ""
    assert "failed: stage.boost=0.1" in capsys.readouterr().err
    assert not (here / "runs" / "simclr-blank-sweep" / "heatmap.png").exists()  # one key was swept


def test_old_results_do_not_pass_for_those_of_a_failed_job(here: Path) -> None:
    assert run(Jobs({"0.": 0.5}), "stage.boost=0.1,0.2") == 0
    assert run(Jobs({"0.1": 2, "0.2": 0.5}), "stage.boost=0.1,0.2") == 1
    assert [row["status"] for row in rows(here / "runs" / "simclr-blank-sweep")] == ["done", "failed (2)"]


@pytest.mark.parametrize(("code", "told"), [(130, 130), (-signal.SIGUSR1, 75)])
def test_an_interrupted_job_ends_the_sweep(
    code: int, told: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs({"0.1": 0.5, "0.2": code, "0.3": 0.5})
    assert run(jobs, "stage.boost=0.1,0.2,0.3") == told
    assert len(jobs.commands) == 2
    assert len(rows(here / "runs" / "simclr-blank-sweep")) == 1
    assert "Go on with:" in capsys.readouterr().err


def test_names_are_stable_and_say_what_is_swept(here: Path) -> None:
    jobs = Jobs({"": 0.5})
    assert run(jobs, "method=simclr,byol", "seed=range(1,2)") == 0
    assert jobs.names == [f"simclr+byol-blank-sweep/method={method},seed=1" for method in ("simclr", "byol")]
    again = Jobs({"": 0.5})
    assert run(again, "method=glob(by*)", "name=mine") == 0
    assert again.names == ["mine/method=byol"]


@pytest.mark.parametrize(
    ("label", "safe"),
    [("data.batch_size=128,seed=1", True), ("data.root=/a/b", False), ("x=" + "y" * 300, False), ("a='b c'", False)],
)
def test_folder_names(label: str, safe: bool) -> None:
    name = sweep.folder_name(label)
    assert (name == label) == safe
    assert "/" not in name
    assert len(name) <= 150
    assert sweep.folder_name(label) == name
    assert sweep.folder_name(label + "1") != name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=1"], "needs a key with several values"),
        (["method=simclr,mocco"], "Did you mean 'moco'"),
        (["data.batchsize=1,2"], "Did you mean 'data.batch_size'"),
        (["stage.boost=0.1,high"], "stage.boost wants a number, not 'high'"),
        (["stage.boost=0.1,0.2", "seed=x"], "seed wants an integer"),
    ],
)
def test_a_mistake_in_any_value_stops_the_sweep_at_once(overrides: list[str], message: str, here: Path) -> None:
    jobs = Jobs({"": 0.5})
    with pytest.raises(UserError, match=message):
        run(jobs, *overrides)
    assert jobs.commands == []
    assert list(here.iterdir()) == []


def test_a_sweep_with_other_settings_is_refused_and_nothing_is_lost(here: Path) -> None:
    folder = here / "runs" / "simclr-blank-sweep"
    assert run(Jobs({"0.": 0.5}), "stage.boost=0.1,0.2") == 0
    for boost in (0.1, 0.2):  # what the real jobs leave
        config = compose([*START[2:], f"stage.boost={boost}", "seed=5"], CONF).stored
        (folder / f"stage.boost={boost}" / "config.yaml").write_text(yaml.safe_dump(config))
    before = (folder / "sweep.csv").read_bytes()
    jobs = Jobs({"": 0.9})
    with pytest.raises(UserError, match="seed: 5 -> 0"):
        run(jobs, "stage.boost=0.1,0.2")
    assert jobs.commands == []
    assert (folder / "sweep.csv").read_bytes() == before


def test_ranking_puts_unscored_jobs_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for job, results in (("a", {"linear_top1": 0.2}), ("b", None), ("c", {"knn_top1": 0.0, "linear_top1": 1.0})):
        ledger.add(job, {"k": job}, 0 if results else 1, results)
    assert [row["job"] for row in ledger.ranked()] == ["a", "c", "b"]


def test_which_ends_of_a_job_end_the_sweep() -> None:
    """A job may be told before it can handle a signal; one that was killed or that failed is survived."""
    for number, code in STOPS:
        assert status_of_process(-number) == status_of_process(code) == code
    assert [status_of_process(code) for code in (0, 1, 2, 143, -signal.SIGKILL, -signal.SIGSEGV)] == [None] * 6


def test_a_signal_between_two_jobs_ends_the_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Told(Jobs):
        def __call__(self, command: list[str]) -> int:
            code = super().__call__(command)
            os.kill(os.getpid(), signal.SIGUSR1)
            return code

    jobs = Told({"": 0.5})
    assert run(jobs, "stage.boost=0.1,0.2") == 75
    assert len(jobs.commands) == 1
    assert "finished jobs are kept. Go on with:" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_signal_is_passed_on_to_the_job(number: int, code: int, tmp_path: Path) -> None:
    """The very signal, be it while the job works or before the sweep has looked at it; then the job's end awaited."""
    program = f"""
import os, pathlib, signal, sys
def told(number, _):
    pathlib.Path({str(tmp_path / "told")!r}).write_text(str(int(number)))
    sys.exit(7)
signal.signal({int(number)}, told)
os.kill(os.getppid(), {int(number)})
signal.pause()
"""
    with WATCH, pytest.raises(Interrupted) as caught:
        sweep.run_process([sys.executable, "-c", program])
    assert caught.value.code == code
    assert (tmp_path / "told").read_text() == str(int(number))


def test_a_second_signal_is_passed_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE", 0.01)
    program = """
import os, signal, sys, time
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
for told in (1, 2):
    os.kill(os.getppid(), signal.SIGTERM)
    while len(seen) < told:
        time.sleep(0.01)
    time.sleep(0.1)
sys.exit(5)
"""
    with WATCH, pytest.raises(Interrupted):
        sweep.run_process([sys.executable, "-c", program])


# ---- keys that only some jobs read, or that only the run of a ckpt has


def sweep_of(*overrides: str) -> list[list[str]]:
    """The words that each job of a sweep is given, `name=` aside."""
    jobs = Jobs({"": 0.5})
    assert sweep.main(parse(["-m", *overrides]), jobs) == 0
    return [command[3:-1] for command in jobs.commands]


def test_a_job_is_given_what_it_reads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep_of("stage.judge=true,false", "stage.k=5") == [["stage.k=5", "stage.judge=True"], ["stage.judge=False"]]
    told = "job 2: stage.judge=False, without 'stage.k=5': stage=pretrain reads stage.k only with stage.judge=true\n"
    assert told in capsys.readouterr().out
    found = sweep_of("stage.judge=false,true", "stage.k=5,6", "seed=1")
    assert found == [["seed=1", "stage.judge=False"]] * 2 + [
        ["seed=1", "stage.judge=True", f"stage.k={k}"] for k in "56"
    ]


@pytest.mark.long
def test_two_settings_that_only_a_job_not_looked_at_first_has(here: Path) -> None:
    found = sweep_of("callbacks=minimal,default", "trainer.limit_val_batches=0,1.0", "data.bank_size=9")
    assert [job for job in found if "data.bank_size=9" in job] == [found[3]]
    assert found[3] == ["data.bank_size=9", "callbacks=default", "trainer.limit_val_batches=1.0"]


@pytest.mark.parametrize(
    "words",
    [
        ["stage.judge=false", "stage.k=5,6"],
        ["stage.judge=false", "stage.k=5", "data.batch_size=8,16"],
    ],
)
def test_a_key_that_no_job_reads_stops_the_sweep(words: list[str], here: Path) -> None:
    with pytest.raises(UserError, match=r"'stage\.k=5': stage=pretrain reads stage\.k only with stage\.judge=true"):
        sweep_of(*words)
    assert list(here.iterdir()) == []


def test_keys_that_only_the_data_of_the_run_have(here: Path) -> None:
    stored = compose(["data=folder", "data.root=photos"]).stored
    (here / "runs" / "a").mkdir(parents=True)
    (here / "runs" / "a" / "config.yaml").write_text(places.HEADER + yaml.safe_dump(stored))
    fixed = ["stage=knn", "ckpt=runs/a", "data.labels=true"]
    found = sweep_of(*fixed, "data.test_fraction=0.1,0.2", "+data.worker_timeout=8,9")
    swept = [f"data.test_fraction={f} +data.worker_timeout={t}".split() for f in (0.1, 0.2) for t in (8, 9)]
    assert found == [[*fixed, *words] for words in swept]
    folders = {path.name for path in (here / "runs" / "unknown-folder-sweep").parent.glob("*-sweep/*=*")}
    assert folders == {f"data.test_fraction={f},data.worker_timeout={t}" for f in (0.1, 0.2) for t in (8, 9)}
    with pytest.raises(UserError, match=r"there is no 'data\.test_fracton'.*Did you mean 'data\.test_fraction'"):
        sweep_of("stage=knn", "ckpt=runs/a", "data.test_fracton=0.1,0.2")


@pytest.mark.long
def test_real_processes_fail_resume_and_finish(here: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "ssl_lightning", *START, "-m", "stage.fail=false,true"]
    folder = here / "runs" / "simclr-blank-sweep"
    for repetition in (1, 2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert "RuntimeError: this job fails" in done.stderr
        assert "failed: stage.fail=True" in done.stderr
        assert [row["status"] for row in rows(folder)] == ["done", "failed (1)"]
        calls = {p.parent.name: len(p.read_text().splitlines()) for p in folder.glob("*/calls.txt")}
        assert calls == {"stage.fail=False": 1, "stage.fail=True": repetition}  # what has finished is not run again


def test_what_the_data_pick_is_no_part_of_a_job(here: Path) -> None:
    """Network and views of audio are picked by each job itself: nobody typed them."""
    jobs = Jobs({"seed": 0.3})
    assert sweep.main(parse(["data=tones", "-m", "seed=0,1"]), jobs) == 0
    assert [command[3:5] for command in jobs.commands] == [["data=tones", "seed=0"], ["data=tones", "seed=1"]]


def test_jobs_of_other_tasks_are_ranked_by_their_main_metric(tmp_path: Path) -> None:
    for main in ("r2", "map"):
        ledger = Ledger(tmp_path)
        for job, value in (("a", -0.2), ("b", 0.4)):
            ledger.add(job, {"k": job}, 0, {f"linear_{main}": value, "linear_other": 9.0})
        assert [row["job"] for row in ledger.ranked()] == ["b", "a"]
        assert ledger.columns() == ["k", "status", f"linear_{main}"]


def test_a_metric_of_an_own_task_ranks_by_its_own_direction(tmp_path: Path) -> None:
    """results.json names the main metric, and whether more of it is better."""
    ledger = Ledger(tmp_path)
    told = {"metric": {"name": "mae", "higher_is_better": False}}
    values = {("1", "x"): 3.0, ("1", "y"): 2.0, ("2", "x"): 0.5, ("2", "y"): 4.0}
    for (a, b), value in values.items():
        found = {**told, "finetune_mae": value, "finetune_r2": 0.9, "seconds": 1.0}
        assert ledger.add(f"a={a},b={b}", {"a": a, "b": b}, 0, found) == value
    ledger.add("a=3,b=x", {"a": "3", "b": "x"}, 0, {"metric": {"name": "macro_f1"}, "knn_macro_f1": None})
    ledger.add("a=3,b=y", {"a": "3", "b": "y"}, 1, {**told, "finetune_mae": 0.1})
    assert [row["job"] for row in ledger.ranked()][:4] == ["a=2,b=x", "a=1,b=y", "a=1,b=x", "a=2,b=y"]
    assert ledger.columns() == ["a", "b", "status", "finetune_mae", "seconds"]
    assert [row["finetune_mae"] for row in rows(tmp_path)] == ["0.5", "2.0", "3.0", "4.0", "", ""]
    ledger.show()
    assert (tmp_path / "heatmap.png").stat().st_size > 1000


@pytest.mark.parametrize(("name", "scale"), [("linear_top1", 100.0), ("linear_r2", 1.0), ("finetune_cer", 100.0)])
def test_the_heat_map_tells_shares_in_percent_and_others_as_they_are(
    name: str, scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn = []
    plain = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, x, **more: drawn.append(x) or plain(self, x, **more))
    ledger = Ledger(tmp_path)
    for a in "12":
        main = name.partition("_")[2]
        found = {
            name: 0.25 * int(a),
            **({} if main == "top1" else {"metric": {"name": main, "higher_is_better": True}}),
        }
        ledger.add(a, {"a": a, "b": "x"}, 0, found)
    ledger.show()
    assert drawn == [[[0.25 * scale], [0.5 * scale]]]


def test_what_probes_find_stands_beside(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for k, value in (("5", 0.4), ("20", 0.6)):
        probes = {"speaker": {"knn_top1": 1 - value, "baselines": {}}, "sex": {"knn_top1": None}}
        ledger.add(f"k={k}", {"k": k}, 0, {"knn_top1": value, "probes": probes})
    assert ledger.columns() == ["k", "status", "knn_top1", "probes.speaker.knn_top1"]
    assert [row["probes.speaker.knn_top1"] for row in rows(tmp_path)] == ["0.4", "0.6"]
    ledger.add("k=1", {"k": "1"}, 1, None)
    assert rows(tmp_path)[-1]["probes.speaker.knn_top1"] == ""


def test_probes_may_be_swept(here: Path) -> None:
    """A value with commas and "=" of its own is one value."""
    probes = ["{a:{label_column:sex},b:{label_column:'x=1'}}", "{a:{label_column:sex},b:{label_column:'y=2'}}"]
    jobs = Jobs({"x=1": 0.3, "y=2": 0.4})
    words = ["stage=knn", "ckpt=timm:resnet18", "data=folder", "data.root=r", "data.labels=r.csv"]
    assert sweep.main(parse([*words, "-m", f"probes={','.join(probes)}"]), jobs) == 0
    (folder,) = Path("runs").iterdir()
    assert [row["stage.probes"] for row in rows(folder)] == [probes[1], probes[0]]
