"""More epochs under the same name: what is refused, what is kept, and which value each schedule has at which step."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from ssl_lightning.__main__ import main
from ssl_lightning.cli import sweep
from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.compose import compose
from ssl_lightning.core.errors import UserError
from ssl_lightning.optim.recipe import OptimizerRecipe, plan_of
from ssl_lightning.optim.schedules import Plan, WarmupCosine, cosine
from ssl_lightning.parts.ema_teacher import EMATeacher
from ssl_lightning.runs import extension
from ssl_lightning.runs.folder import RunFolder
from tests.launching import TINY

PRETRAIN = {"_target_": "ssl_lightning.stages.pretrain.run"}
CONFIG: dict[str, Any] = {
    "name": "a", "seed": 0, "resume": "auto", "data": {"batch_size": 8}, "stage": PRETRAIN,
    "trainer": {"max_epochs": 5, "max_steps": -1, "max_time": None},
    "scheduler": {"_target_": "ssl_lightning.optim.schedules.WarmupCosine", "min_lr": 0.0, "extend": "stretch"},
}  # fmt: skip


def asked(seed: int = 0, **trainer: Any) -> dict[str, Any]:
    extend = trainer.pop("extend", "stretch")
    scheduler = {**CONFIG["scheduler"], "extend": extend}
    return {**CONFIG, "seed": seed, "trainer": {**CONFIG["trainer"], **trainer}, "scheduler": scheduler}


def begun(folder: Path, finished: bool = True, **trainer: Any) -> Path:
    run = RunFolder(folder / "a")
    run.open(asked(**trainer))
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last.ckpt").write_bytes(b"x")
    if finished:
        run.write_results({"epochs": 5})
    return run.path


# ---- the folder


def test_a_finished_run_goes_on_and_its_results_stay_until_the_new_end(tmp_path: Path) -> None:
    path = begun(tmp_path)
    assert RunFolder(path).open(asked()) == "finished"
    longer = RunFolder(path)
    assert longer.open(asked(max_epochs=8)) == "resumed"
    assert longer.said is not None
    assert longer.said.startswith("5 epochs -> 8 epochs: with scheduler.extend=stretch (the default) the schedules")
    assert json.loads((path / "results.json").read_text()) == {"epochs": 5}
    again = RunFolder(path)  # stopped on the way, and begun again
    assert again.open(asked(max_epochs=8)) == "resumed"
    assert again.said is None
    assert extension.entries(again.origin) == extension.entries(longer.origin)
    assert RunFolder(path).open(asked()) == "finished"  # the earlier end: its results are there
    again.write_results({"epochs": 8})
    assert RunFolder(path).open(asked(max_epochs=8)) == "finished"
    assert RunFolder(path).results() == {"epochs": 8}
    with pytest.raises(UserError, match="is a run of 8 epochs, and 5 epochs is shorter"):
        RunFolder(path).open(asked())
    assert RunFolder(path).open(asked(max_epochs=9)) == "resumed"
    assert [entry["max_epochs"] for entry in extension.entries(RunFolder(path)._stored())] == [5, 8]


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ({}, {"max_epochs": 6}, "resumed"),
        ({}, {"max_epochs": -1}, "resumed"),
        ({"max_steps": 10}, {"max_steps": 12}, "resumed"),
        ({"max_steps": 10}, {}, "resumed"),
        ({"max_time": "00:00:01:00"}, {"max_time": "00:01:00:00"}, "resumed"),
        ({"max_time": {"minutes": 1}}, {"max_time": None}, "resumed"),
        ({}, {"max_epochs": 4}, "is a run of 5 epochs, and 4 epochs is shorter"),
        ({}, {"max_steps": 10}, "and 5 epochs, 10 steps is shorter"),
        ({"max_steps": 10}, {"max_steps": 9, "max_epochs": 9}, "9 steps is shorter"),
        ({"max_time": "00:01:00:00"}, {"max_time": "00:00:01:00"}, "max_time=00:00:01:00 is shorter"),
        ({}, {"max_epochs": 6, "seed": 1}, r"other settings \(seed: 0 -> 1\)"),
        ({}, {"max_epochs": 6, "accelerator": "gpu"}, r"trainer.accelerator: \(absent\) -> gpu"),
        (
            {},
            {"max_epochs": 6, "extend": "hold"},
            "scheduler.extend=hold keeps the learning rate of the last step, which is 0",
        ),
        ({}, {"extend": "rewarm"}, "finished"),  # decides nothing yet
    ],
)
def test_what_is_longer(before: dict[str, Any], after: dict[str, Any], status: str, tmp_path: Path) -> None:
    path = begun(tmp_path, **before)
    files = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    if status in ("resumed", "finished"):
        assert RunFolder(path).open(asked(**after)) == status
        return
    with pytest.raises(UserError, match=status) as refused:
        RunFolder(path).open(asked(**after))
    assert "\n" not in str(refused.value)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


def test_the_way_to_go_on_is_part_of_a_run_that_goes_on(tmp_path: Path) -> None:
    path = begun(tmp_path, finished=False)
    assert RunFolder(path).open(asked(max_epochs=8, extend="rewarm")) == "resumed"
    with pytest.raises(UserError, match=r"scheduler\.extend: rewarm -> stretch"):
        RunFolder(path).open(asked(max_epochs=8))
    assert RunFolder(path).open(asked(max_epochs=9)) == "resumed"
    ways = [entry["extend"] for entry in extension.entries(RunFolder(path)._stored())]
    assert ways == ["rewarm", "stretch"]


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    path = begun(tmp_path)
    (path / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"has no checkpoint to continue from"):
        RunFolder(path).open(asked(max_epochs=8))


def test_a_stage_that_judges_has_no_epochs_to_add(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "b")
    knn = {**CONFIG, "stage": {"_target_": "ssl_lightning.stages.knn.run"}}
    run.open(knn)
    run.write_results({})
    with pytest.raises(UserError, match=r"trainer\.max_epochs: 5 -> 8"):
        RunFolder(run.path).open({**knn, "trainer": {"max_epochs": 8}})


def test_arguments_that_came_later_make_no_other_run(tmp_path: Path) -> None:
    """A stored config without a key, or with one that a yaml has ceased to repeat: it has the constructor's default."""
    path = begun(tmp_path, finished=False)
    stored = yaml.safe_load((path / "config.yaml").read_text())
    del stored["scheduler"]["extend"]
    stored["scheduler"]["warmup_epochs"] = 10  # the default
    stored["trainer"]["accumulate_grad_batches"] = 1
    stored["deterministic"] = False
    (path / "config.yaml").write_text(yaml.safe_dump(stored))
    assert RunFolder(path).open(asked()) == "resumed"
    stored["scheduler"]["warmup_epochs"] = 11
    (path / "config.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(UserError, match=r"scheduler\.warmup_epochs: 11 -> \(absent\)"):
        RunFolder(path).open(asked())


# ---- the schedules


def test_where_a_schedule_is_read() -> None:
    plan = Plan.of(30, [(10, "stretch"), (20, "hold")])
    assert [plan.place(step) for step in (0, 9, 10, 19, 20, 29)] == [
        (0, 10), (9, 10), (10, 20), (19, 20), (19, 20), (19, 20),
    ]  # fmt: skip
    plan = Plan.of(30, [(10, "hold"), (20, "rewarm")])
    assert [plan.place(step) for step in (9, 10, 19, 20, 29)] == [(9, 10), (9, 10), (9, 10), (0, 10), (9, 10)]
    assert Plan.of(10, [(10, "hold"), (20, "rewarm")]) == Plan((10,))  # more time alone adds no step
    assert Plan.of(20, [(10, "hold"), (10, "rewarm")]) == Plan((10, 20), ("rewarm",))


def a_trainer(total: int, per_epoch: int = 5, **earlier: Any) -> Any:
    found = SimpleNamespace(estimated_stepping_batches=total, num_training_batches=per_epoch, accumulate_grad_batches=1)
    found.earlier_ends = [{"max_epochs": 2, "max_steps": -1, **earlier}] if earlier else []
    return found


@pytest.mark.parametrize("extend", ["stretch", "hold", "rewarm"])
def test_rate_decay_and_momentum_after_the_first_end(extend: str) -> None:
    """10 steps, then 20: each value against the equation of the paper, written out."""
    plan = plan_of(a_trainer(20, extend=extend))
    assert plan == Plan((10, 20), (extend,))
    weights = nn.Linear(2, 2)
    made = OptimizerRecipe(torch.optim.SGD, 0.5, 0.1, WarmupCosine(0, min_lr=0.05), final_weight_decay=0.3)
    built = made.build(weights, 256, 20, 5, plan=plan)
    teacher = EMATeacher(0.9, 1.0)
    rows = []
    for step in range(20):
        group = built["optimizer"].param_groups[0]
        rows.append((group["lr"], group["weight_decay"], teacher.current(*plan.place(step))))
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()

    def half(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    for step, found in enumerate(rows):
        at, total = step, 10
        if step >= 10:
            at, total = {"stretch": (step, 20), "hold": (9, 10), "rewarm": (step - 10, 10)}[extend]
        last = at / (total - 1)
        expected = (half(0.5, 0.05, last), half(0.1, 0.3, last), half(0.9, 1.0, at / total))
        assert found == pytest.approx(expected, abs=1e-12), step
    if extend == "hold":
        assert rows[9:] == [rows[9]] * 11
        assert rows[9][:2] == pytest.approx((0.05, 0.3))
        assert rows[10][2] < 1  # a teacher at momentum 1 would never move again
    if extend == "stretch":
        straight = OptimizerRecipe(torch.optim.SGD, 0.5, 0.1, WarmupCosine(0, min_lr=0.05))
        rates = [straight.scheduler.factor(step, 20, 5, 0.5) * 0.5 for step in range(10, 20)]
        assert [row[0] for row in rows[10:]] == rates


def test_the_teacher_moves_and_tells_by_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, trainer, moved = EMATeacher(0.9, 1.0), a_trainer(20, extend="rewarm"), list[float]()
    module: Any = SimpleNamespace(teacher_pairs=lambda: [])
    monkeypatch.setattr(EMATeacher, "move", lambda self, momentum: moved.append(momentum))
    trainer.global_step = 9
    teacher.on_train_start(trainer, module)
    for trainer.global_step in (10, 11, 20):
        teacher.on_train_batch_end(trainer, module, None, None, 0)
        assert teacher.step_metrics(trainer) == {"teacher_momentum": moved[-1]}
    assert moved == [cosine(0.9, 1.0, 9, 10), 0.9, cosine(0.9, 1.0, 9, 10)]


def test_a_new_warm_up_is_a_tenth_of_what_is_added() -> None:
    plan, schedule = Plan((100, 300), ("rewarm",)), WarmupCosine(50, warmup_start_lr=0.1)
    places = [plan.place(step) for step in (100, 110, 120)]
    found = [schedule.factor(step, int(total), 10, 1.0) for step, total in places]
    assert found == pytest.approx([0.1, 0.55, 1.0])


def test_a_loaded_state_has_the_rate_of_its_step_in_the_longer_run() -> None:
    """The first step after the old end is made at the new rate, not at the one that was saved for it."""
    made = OptimizerRecipe(torch.optim.SGD, 0.5, 0.1, WarmupCosine(0), final_weight_decay=0.3)
    short = made.build(nn.Linear(2, 2), 256, 10, 5)
    for _ in range(10):
        short["optimizer"].step()
        short["lr_scheduler"]["scheduler"].step()
    assert short["optimizer"].param_groups[0]["lr"] == 0
    longer = made.build(nn.Linear(2, 2), 256, 20, 5, plan=Plan((10, 20), ("stretch",)))
    longer["optimizer"].load_state_dict(short["optimizer"].state_dict())
    longer["lr_scheduler"]["scheduler"].load_state_dict(short["lr_scheduler"]["scheduler"].state_dict())
    group = longer["optimizer"].param_groups[0]
    assert group["lr"] == 0.5 * WarmupCosine(0).factor(10, 20, 5, 0.5) > 0.2
    assert group["weight_decay"] == cosine(0.1, 0.3, 10, 19)


def test_no_schedule_asks_for_the_length_itself() -> None:
    """A schedule over the run goes through `plan_of`. Those by epochs (temperatures, frozen epochs) know no length."""
    package = Path(extension.__file__).parents[1]
    rooms = ("methods", "losses", "models", "parts", "callbacks", "optim")
    files = [file for room in rooms for file in (package / room).glob("*.py")]
    found = {f.stem for f in files if "max_epochs" in f.read_text() or "estimated_stepping" in f.read_text()}
    assert found == {"recipe", "progress", "ema_teacher"}  # the last in a message, progress to show what is left
    assert "trainer.max_epochs" in next(f for f in files if f.stem == "ema_teacher").read_text()


def test_a_sweep_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        folder = RunFolder(tmp_path / "runs" / "sw" / f"seed={seed}")
        folder.open(compose([*TINY, f"seed={seed}", f"name=sw/seed={seed}"]).stored)
        (folder.path / "checkpoints").mkdir()
        (folder.path / "checkpoints" / "last.ckpt").write_bytes(b"x")
    told: list[list[str]] = []
    asked = parse(["-m", *TINY, "name=sw", "seed=1,2"])
    asked.overrides = [word.replace("max_epochs=2", "max_epochs=3") for word in asked.overrides]
    assert sweep.main(asked, lambda command: told.append(command) or 1) == 1  # type: ignore[func-returns-value]
    assert len(told) == 2
    asked.overrides = [word.replace("max_epochs=3", "max_epochs=1") for word in asked.overrides]
    assert sweep_refusal(asked) == "is a run of 2 epochs, and 1 epoch is shorter"


def sweep_refusal(asked: Any) -> str:
    with pytest.raises(UserError) as refused:
        sweep.main(asked, lambda command: 0)
    return str(refused.value).partition("; ")[0].partition(" ")[2]


# ---- whole runs

SMALL = [*(word for word in TINY if "max_epochs" not in word), "trainer.log_every_n_steps=1"]


def state(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path / "checkpoints" / "last.ckpt", weights_only=False)
    return found


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_under_a_constant_rate_a_longer_run_is_that_run_from_its_start(here: Path) -> None:
    words = [*SMALL, "method=simclr", "scheduler=constant"]
    assert main([*words, "name=a", "trainer.max_epochs=1"]) == 0
    first = (here / "a" / "backbone.safetensors").read_bytes()
    assert main([*words, "name=a", "trainer.max_epochs=2"]) == 0
    assert main([*words, "name=b", "trainer.max_epochs=2"]) == 0
    long, straight = state(here / "a"), state(here / "b")
    assert equal(long["state_dict"], straight["state_dict"])
    assert equal(long["optimizer_states"], straight["optimizer_states"])
    assert (here / "a" / "backbone.safetensors").read_bytes() == (here / "b" / "backbone.safetensors").read_bytes()
    assert (here / "a" / "backbone.safetensors").read_bytes() != first
    assert json.loads((here / "a" / "results.json").read_text())["epochs"] == 2
    table = [(here / name / "metrics.csv").read_text().count("\n") for name in "ab"]
    assert table[0] == table[1]


def test_a_run_stopped_within_its_extension_goes_on_exactly(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SMALL, "method=byol", "callbacks.checkpoint.every_n_steps=1"]
    for name in "ab":
        assert main([*words, f"name={name}", "trainer.max_epochs=1"]) == 0
    old = {file: (here / "b" / file).read_bytes() for file in ("results.json", "backbone.safetensors")}
    assert main([*words, "name=a", "trainer.max_epochs=2", "scheduler.extend=rewarm"]) == 0
    moved = EMATeacher.move

    def stops(self: EMATeacher, momentum: float) -> None:
        self.__dict__["moves"] = self.__dict__.get("moves", 0) + 1
        if self.__dict__["moves"] == 4:
            raise RuntimeError("the lights go out")
        moved(self, momentum)

    with monkeypatch.context() as patch:
        patch.setattr(EMATeacher, "move", stops)
        with pytest.raises(RuntimeError, match="lights"):
            main([*words, "name=b", "trainer.max_epochs=2", "scheduler.extend=rewarm"])
    reached, peak = state(here / "b"), 3e-3 * 16 / 256
    assert reached["global_step"] == 9  # 6 of the first epoch, 3 of the second
    rate = reached["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(peak * WarmupCosine().factor(3, 6, 6, peak), rel=1e-12)
    assert rate > 0
    assert {file: (here / "b" / file).read_bytes() for file in old} == old
    assert main([*words, "name=b", "trainer.max_epochs=2", "scheduler.extend=rewarm"]) == 0
    whole, stopped = state(here / "a"), state(here / "b")
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(whole[part], stopped[part]), part
    assert whole["global_step"] == 12
    assert (here / "b" / "results.json").read_bytes() != old["results.json"]
