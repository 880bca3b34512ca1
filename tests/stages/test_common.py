"""Which backbone a stage judges, its random twin, and the whole verdict."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.judge import quality
from ssl_lightning.evaluation.knn import knn_top1
from ssl_lightning.evaluation.quality import alignment
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import common, judging
from tests.gloo import run_two
from tests.stages.tiny_run import TinyData, a_run, a_trainer, judged, two_views

CPU = torch.device("cpu")


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_the_run_s_own_backbone_wins_over_the_configured_default(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", width=6)
    net = judged(run, seed=1)
    assert same(net.backbone, load_backbone(run))
    assert net.backbone.out_dim == net.random.out_dim == 24
    assert net.method == "simclr"
    assert not same(net.random, net.backbone)


def test_the_random_twin_depends_on_the_seed_alone_and_leaves_the_generator(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    before = torch.random.get_rng_state()
    one = judged(run, seed=1).random
    torch.random.set_rng_state(before)
    torch.rand(3)
    again = judged(run, seed=1).random
    assert same(one, again)
    assert not same(one, judged(run, seed=2).random)


def test_a_backbone_chosen_on_the_command_line_must_fit(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", width=6)
    with pytest.raises(UserError, match="another backbone"):
        judged(run, chosen=True)
    assert same(judged(run, width=6, chosen=True).backbone, load_backbone(run))


def test_weights_without_a_card_go_into_the_configured_backbone(tmp_path: Path) -> None:
    torch.manual_seed(9)
    source = ConvNetSmall(4)
    torch.save(source.state_dict(), tmp_path / "x.pt")
    net = judged(tmp_path / "x.pt")
    assert same(net.backbone, source)
    assert not same(net.random, source)
    assert net.method == "unknown"
    with pytest.raises(UserError, match="another backbone"):
        judged(tmp_path / "x.pt", width=5)


def test_a_stage_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs weights; give ckpt=runs/"):
        judged(None)


def test_device_of_asks_the_configured_trainer(tmp_path: Path) -> None:
    assert common.device_of(a_trainer(tmp_path)) == CPU


def test_the_whole_verdict(tmp_path: Path) -> None:
    data = TinyData(views=two_views(), labels_per_class=20)
    net = judged(a_run(tmp_path / "run"))
    found = judging.judge_backbone(net.backbone, net.random, data, CPU, k=5, temperature=0.1)
    assert set(found["baselines"]) == {"random_init", "raw_pixels"}
    assert found["protocol"]["knn"] == "cosine, k=5, T=0.1, bank 60"
    train, test = (
        extract(net.backbone, data.eval_loader(split, data.labelled_indices(split))) for split in ("train", "test")
    )
    assert found["knn_top1"] == knn_top1(train.x, train.labels, test.x, test.labels, 5, 0.1)
    assert found["quality"]["rankme"] == quality(test)["rankme"]
    pairs = common.positive_pairs(net.backbone, data, CPU)
    assert pairs is not None
    assert found["quality"]["alignment"] == alignment(*pairs)


def test_random_weights_are_judged_alike_whatever_the_batch(tmp_path: Path) -> None:
    """A stage on a run may have another data.batch_size than the training: the statistics of BatchNorm are the same."""
    run, found = a_run(tmp_path / "run"), []
    for batch_size in (32, 50, 90):
        random = judged(run).random
        features = common.split_random_features(random, TinyData(train=300, batch_size=batch_size), CPU)
        found.append((random.state_dict(), features[1].x))
    for state, x in found[1:]:
        assert all(torch.equal(state[key], found[0][0][key]) for key in state)
        torch.testing.assert_close(x, found[0][1], rtol=1e-5, atol=1e-6)


def test_alignment_is_that_of_two_views_of_the_same_images() -> None:
    data = TinyData(views=two_views())

    def embed(x: Tensor) -> Tensor:
        return x.flatten(1)

    pairs = common.positive_pairs(embed, data, CPU, images=64)
    assert pairs is not None
    batches = [data.on_after_batch_transfer(raw) for raw in data.train_dataloader()]
    first, second = (torch.cat([batch.views[v].flatten(1) for batch in batches]) for v in (0, 1))
    assert alignment(*pairs) == alignment(first, second)
    assert common.positive_pairs(embed, TinyData(), CPU) is None


def test_without_labels_only_quality_is_told(tmp_path: Path) -> None:
    net = judged(a_run(tmp_path / "run"))
    found = judging.judge_backbone(net.backbone, net.random, TinyData(labelled=False), CPU)
    assert set(found) == {"quality", "verdict"}
    with pytest.raises(UserError, match="data has no labels, and stage=knn"):
        judging.need_labels(TinyData(labelled=False), "knn")


def judge_on(rank: int, world_size: int, run: str) -> dict[str, object]:
    net = judged(run)
    data = TinyData(batch_size=30 // world_size, views=two_views())
    found = judging.judge_backbone(net.backbone, nn.Flatten(), data, CPU)
    return {"knn": found["knn_top1"], "linear": found["linear_top1"], **found["quality"]}


@pytest.mark.long
def test_two_ranks_reach_the_verdict_of_one_process(tmp_path: Path) -> None:
    run = str(a_run(tmp_path / "run"))
    one = judge_on(0, 1, run)
    for found in run_two(judge_on, run):
        assert found == pytest.approx(one, rel=1e-4)
