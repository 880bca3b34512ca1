"""The run's seed reaches whatever is drawn: another seed gives other draws, the same seed the same ones."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssl_lightning.callbacks.reseed import step_seed
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.evaluation.quality import uniformity
from ssl_lightning.methods.deepcluster_v2 import DeepClusterV2
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import judging
from tests.methods.harness import CONF, METHODS, batch_for, config_of, step, tiny_method
from tests.stages.tiny_run import TinyData, two_views

PACKAGE = Path(__file__).parents[1] / "ssl_lightning"
DRAWING = [name for name in METHODS if "seed" in config_of(name)["method"]]
# A draw that nobody can hand a seed: torch's own is set from the run's at its start and before each step (Reseed).
FIXED = re.compile(r"manual_seed\((\d+|step|epoch)\)|default_rng\(\d*\)|random\.seed")


def first_loss(name: str, seed: int) -> float:
    """Of one step with the very same weights and images: what differs is drawn by the method."""
    method = tiny_method(name, seed=seed)
    batch = batch_for(name)
    if isinstance(method, DeepClusterV2):
        method.remember(batch.indices, *torch.nn.functional.normalize(torch.randn(2, 8, 5).double(), dim=2))
        method.cluster()
        return float(method.centroids.double().abs().sum())
    return step(method, batch)["loss"].item()


@pytest.mark.parametrize("name", DRAWING)
def test_what_a_method_draws_follows_the_seed(name: str) -> None:
    losses = [first_loss(name, seed) for seed in (0, 0, 1, 2, 3)]
    assert losses[0] == losses[1]
    assert len(set(losses[2:])) > 1, "three seeds, one loss"
    assert any(loss != losses[0] for loss in losses[2:])


def test_methods_that_draw_are_handed_the_seed() -> None:
    """Whoever uses one of the ways to draw has a `seed`, and its yaml passes on the run's."""
    assert {"lejepa", "deepcluster_v2", "mae", "jigsaw", "ibot"} <= set(DRAWING)
    for name in METHODS:
        source = PACKAGE.parent / (config_of(name)["method"]["_target_"].rsplit(".", 1)[0].replace(".", "/") + ".py")
        draws = re.search(r"Generator\(|\buniform\(|self\.draw(_for)?\(", source.read_text())
        assert bool(draws) == (name in DRAWING), name
        if draws:
            assert yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())["method"]["seed"] == "${seed}"


def test_no_draw_has_a_seed_of_its_own() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert not FIXED.search(file.read_text()), f"{file} draws the same whatever the run's seed is"


def test_the_verdict_draws_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches of the linear probe and the images that stand for all are those of the data's seed."""
    seen: dict[str, Any] = {}

    def judge(train: Any, test: Any, task: Any, k: int, t: float, probe: ProbeSettings, *rest: Any) -> Any:
        seen["probe"] = probe.seed
        return {"protocol": {}}

    def quality(features: Any, pairs: Any = None, seed: int = 0) -> dict[str, float]:
        seen["quality"] = seed
        return {}

    for name, fake in (("judge", judge), ("quality", quality), ("baselines", lambda *args: {})):
        monkeypatch.setattr(judging, name, fake)
    data = TinyData(views=two_views(), seed=7, num_workers=0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4))
    judging.judge_backbone(net, net, data, torch.device("cpu"))
    assert seen == {"probe": 7, "quality": 7}


def test_measures_and_steps_follow_the_seed() -> None:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    assert uniformity(x, max_rows=10, seed=1) == uniformity(x, max_rows=10, seed=1)
    assert uniformity(x, max_rows=10, seed=1) != uniformity(x, max_rows=10, seed=2)
    assert len({step_seed(seed, 0, 5) for seed in range(20)}) == 20


@pytest.mark.parametrize(("seed", "accepted"), [(0, True), (1, False)])
def test_a_run_from_before_its_method_had_a_seed_is_gone_on_with(tmp_path: Path, seed: int, accepted: bool) -> None:
    """The seed that a method was not handed then is the run's own, not another one."""
    old: dict[str, Any] = {"seed": 0, "method": {"_target_": "x.LeJEPA", "weight": 0.02}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    (tmp_path / "metrics.csv").write_text("")
    new = {"seed": 0, "method": {**old["method"], "seed": seed}}
    assert (RunFolder(tmp_path).refusal(new) is None) == accepted
