"""Options of stage=finetune: the frozen keeps its bits, the average is what is tested, patience ends a training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.callbacks.average import share_kept
from ssl_lightning.callbacks.interrupt import Interrupt
from ssl_lightning.cli.compose import compose
from ssl_lightning.cli.run import check
from ssl_lightning.core.errors import Interrupted, UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.vit import ViT
from ssl_lightning.stages import finetune, training
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.finetuner import Finetuner
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.equal_runs import assert_equal_runs
from tests.stages.test_finetune_stage import go, training_recipe
from tests.stages.tiny_run import TinyData, a_run, a_trainer
from tests.test_exact import told_at

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def kept(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return torch.load(folder / "finetune" / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def beginning(tmp_path: Path) -> dict[str, Tensor]:
    from ssl_lightning import load_backbone

    return load_backbone(a_run(tmp_path / "begun")).state_dict()


# ---- what is frozen


@pytest.mark.parametrize(("train", "learns"), [("head", []), (1, ["block"]), (2, ["conv3", "block"])])
def test_what_is_frozen_keeps_its_bits_and_its_statistics(tmp_path: Path, train: Any, learns: list[str]) -> None:
    found = go(tmp_path, TinyData(labels_per_class=20), epochs=3, train=train, trainings=("finetune",), naive=False)
    before, after = beginning(tmp_path), kept(tmp_path / "out")
    for name, value in before.items():
        same = torch.equal(value, after[f"backbone.{name}"])
        assert same == (name.partition(".")[0] not in learns), name
    words = "head alone" if train == "head" else f"last {train} blocks and head"
    assert words in found["protocol"]["finetune"]
    assert found["baselines"] == {}


def test_from_scratch_all_of_it_learns_whatever_is_frozen_otherwise(tmp_path: Path) -> None:
    go(tmp_path, TinyData(labels_per_class=20), epochs=1, train="head", norm="keep", trainings=("from_scratch",))
    state = torch.load(tmp_path / "out/from_scratch/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    from tests.stages.tiny_run import judged

    for name, value in judged(a_run(tmp_path / "again")).random.state_dict().items():
        assert not torch.equal(value, state[f"backbone.{name}"]), name


def test_a_vit_learns_in_its_last_block() -> None:
    torch.manual_seed(0)
    module = Finetuner(ViT(8, 4, dim=8, depth=3, heads=2), Classify.of(3), None, last_blocks=1)  # type: ignore[arg-type]
    learn = {name for name, p in module.backbone.named_parameters() if p.requires_grad}
    assert all(name.startswith(("blocks.2.", "norm.")) for name in learn)
    assert any(name.startswith("blocks.2.") for name in learn)
    module.train()
    blocks: Any = module.backbone.blocks
    assert [block.training for block in blocks] == [False, False, True]
    with pytest.raises(UserError, match=r"stage.train=9: ViT has \d+ blocks; give fewer, or all"):
        Finetuner(ViT(8, 4, dim=8, depth=3, heads=2), Classify.of(3), None, last_blocks=9)  # type: ignore[arg-type]


# ---- statistics


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("backbone."): value for name, value in state.items() if "running" in name}


def test_statistics_that_are_kept_measured_anew_or_those_of_each_batch(tmp_path: Path) -> None:
    before, seen = statistics(beginning(tmp_path)), {}
    for norm in ("keep", "recalibrate", "fresh"):
        folder = tmp_path / norm
        folder.mkdir()
        go(folder, TinyData(labels_per_class=20), epochs=2, norm=norm, trainings=("finetune",), naive=False)
        seen[norm] = statistics(kept(folder / "out"))
    assert all(torch.equal(before[name], seen["keep"][name]) for name in before)
    assert not any(torch.equal(before[name], seen[norm][name]) for name in before for norm in ("recalibrate", "fresh"))
    assert not any(torch.equal(seen["recalibrate"][name], seen["fresh"][name]) for name in before)
    first = measured(tmp_path)  # the mean over all training items of the first layer's outputs, by hand
    torch.testing.assert_close(seen["recalibrate"]["conv1.1.running_mean"], first, rtol=1e-4, atol=1e-5)


def measured(tmp_path: Path) -> Tensor:
    from ssl_lightning import load_backbone

    network, data = load_backbone(a_run(tmp_path / "once_more")), TinyData()
    outs = [network.conv1[0](batch.views[0]).mean(dim=(0, 2, 3)) for batch in data.eval_loader("train", batch_size=128)]  # type: ignore[index,operator]
    return torch.stack(outs).mean(dim=0).detach()  # of batches, as torch's own running mean


def test_scale_and_shift_learn_where_statistics_are_kept() -> None:
    module = Finetuner(ConvNetSmall(4), Classify.of(3), None, keep_norms=True).train()  # type: ignore[arg-type]
    norms = [m for m in module.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(p.requires_grad for norm in norms for p in norm.parameters())
    assert module.backbone.conv1.training  # type: ignore[union-attr]


# ---- the average of the weights


def recorded(folder: Path, average: float, epochs: int = 2, picking: float = 0.2, stop: int | None = None) -> Any:
    """A training of 3 batches an epoch; the weights after each step."""
    data = TinyData(labels_per_class=20, num_workers=0)
    rows, held = training.picking_split(data, picking)
    rows = rows[:48]
    torch.manual_seed(0)
    module = Finetuner(ConvNetSmall(4), Classify.of(3), training_recipe(), layer_decay=0.8, mixup=0.3)  # type: ignore[arg-type]
    labelled = training.LabelledData(data, rows, held, training.crop_and_flip(16, (0.3, 1.0)), 16)
    plain, steps = a_trainer(folder.parent), list[dict[str, Tensor]]()

    class Record(training.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            steps.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def factory(callbacks: list[Any], **overrides: Any) -> Any:
        return plain(callbacks=[Record(), *callbacks, Interrupt()], **overrides)

    found = training.train_and_test(module, labelled, factory, folder, epochs, 0, average=average, patience=stop)
    return found, steps, module


def naive_average(steps: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    mean = {name: value.double() for name, value in steps[0].items()}
    for n, step in enumerate(steps[1:], start=1):
        stays = min(decay, (1 + n) / (10 + n))
        for name, value in step.items():
            floats = value.is_floating_point()
            mean[name] = stays * mean[name] + (1 - stays) * value.double() if floats else value.double()
    return mean


@pytest.mark.parametrize("picking", [0.2, 0.0])
def test_the_average_is_what_is_picked_and_tested(tmp_path: Path, picking: float) -> None:
    found, steps, module = recorded(tmp_path / "part", 0.5, picking=picking)
    assert len(steps) == 6
    name = "best" if picking else "last"
    saved = torch.load(tmp_path / f"part/checkpoints/{name}.ckpt", weights_only=True)
    ended = saved["global_step"]
    wanted = naive_average(steps[:ended], 0.5)
    assert saved["state_dict"].keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(saved["state_dict"][key].double(), value, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved["state_dict"][key], module.state_dict()[key])  # which is the one that was tested
    assert any(not torch.allclose(saved["state_dict"][key], steps[ended - 1][key]) for key in wanted)
    outputs = training.extract(module, TinyData().eval_loader("test"))
    assert found.scores["top1"] == Classify.of(3).measure(outputs.x, outputs.labels)["top1"]


def test_a_short_training_s_average_has_left_its_start() -> None:
    weight = 1.0  # of the first step's weights
    for n in range(1, 60):
        weight *= share_kept(0.999, n)
    assert weight < 1e-6
    assert share_kept(0.999, 10**5) == 0.999


def test_a_strategy_that_shards_has_no_average(tmp_path: Path) -> None:
    from ssl_lightning.callbacks.average import Average

    class Sharded:
        strategy = type("FSDPStrategy", (), {})()

    with pytest.raises(UserError, match=r"stage\.average keeps a copy of all weights, and FSDPStrategy shards them"):
        Average(0.9).setup(Sharded(), nn.Identity(), "fit")  # type: ignore[arg-type]


# ---- patience


def test_patience_ends_a_training_and_the_best_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9])
    monkeypatch.setattr(Finetuner, "on_validation_epoch_end", lambda self: setattr(self, "picking", (next(looks), 0.0)))
    found, steps, _ = recorded(tmp_path / "part", 0.0, epochs=8, stop=3)
    assert found.epochs == 5  # the second was the best, three more were no better
    assert found.steps == len(steps) == 15
    saved = torch.load(tmp_path / "part/checkpoints/best.ckpt", weights_only=True)
    assert saved["global_step"] == 6


def best_at_epoch_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a patience of one epoch ends a training with the third."""

    def look(self: Finetuner) -> None:
        self.picking = (-abs(self.current_epoch - 1), 0.0)

    monkeypatch.setattr(Finetuner, "on_validation_epoch_end", look)


@pytest.mark.long
@pytest.mark.parametrize(("average", "stop"), [(0.6, None), (0.6, 1), (0.0, 1)])
def test_a_signal_in_any_batch(
    average: float, stop: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"average": average, "epochs": 4, "stop": stop}
    if stop:
        best_at_epoch_1(monkeypatch)
    whole, steps, _ = recorded(tmp_path / "whole" / "part", **given)  # type: ignore[arg-type]
    assert whole.epochs == (3 if stop else 4)
    for batch in range(1, len(steps) + 1):
        folder = tmp_path / str(batch) / "part"
        with told_at(batch, monkeypatch), pytest.raises(Interrupted):
            recorded(folder, **given)  # type: ignore[arg-type]
        again, _, _ = recorded(folder, **given)  # type: ignore[arg-type]
        same = (again.scores, again.steps, again.images, again.epochs, again.per_class)
        assert same == (whole.scores, whole.steps, whole.images, whole.epochs, whole.per_class), batch
        assert_equal_runs(tmp_path / "whole", tmp_path / str(batch))


def test_a_training_that_patience_ended_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its end, before it was tested: the same figures, and not a batch more."""
    best_at_epoch_1(monkeypatch)
    whole, steps, _ = recorded(tmp_path / "part", 0.0, epochs=8, stop=1)
    assert (whole.epochs, len(steps)) == (3, 9)
    again, more, _ = recorded(tmp_path / "part", 0.0, epochs=8, stop=1)
    assert more == []
    assert (again.scores, again.steps, again.epochs) == (whole.scores, whole.steps, whole.epochs)


# ---- weights of classes


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    task, targets = Classify.of(4), torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = task.weights(targets)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 0.0, 10 / 3]))
    assert float(weights[targets].mean()) == pytest.approx(1)
    outputs = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    loss = task.loss(outputs, targets, 0.1, weights=weights)
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(outputs, targets.tolist(), strict=True):
        wanted = torch.full((4,), 0.1 / 4, dtype=torch.float64)
        wanted[target] += 0.9
        total = total - weights[target].double() * (wanted * row.log_softmax(dim=0)).sum() / 10
    torch.testing.assert_close(loss, total, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(t, outputs)[0] for t in (loss, total)), rtol=1e-10, atol=1e-14)


def test_of_several_labels_having_one_counts_as_much_as_not() -> None:
    task = MultiLabel().prepare("abc", torch.zeros(1, 3))
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    weights = task.weights(targets)
    assert weights.tolist() == [3.0, 1.0, 1.0]
    outputs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for label in range(3):
            p, y = outputs[i, label].sigmoid(), targets[i, label].double()
            total = total - (weights[label].double() * y * p.log() + (1 - y) * (1 - p).log()) / 12
    loss = task.loss(outputs, targets, weights=weights)
    torch.testing.assert_close(loss, total, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(t, outputs)[0] for t in (loss, total)), rtol=1e-10, atol=1e-14)


# ---- what makes no sense

WRONG = [
    ("stage.patience=3 stage.picking=0", "stage.patience looks at the picking split"),
    ("stage.train=head stage.drop_path=0.1", "stage.drop_path drops paths of what learns"),
    ("stage.trainings=[]", "stage.trainings=[] trains nothing"),
]
OUT_OF_RANGE = ["cutmix=-1", "drop_path=1", "average=1", "patience=0", "train=0", "train=some", "norm=none"]
OUT_OF_RANGE += ["class_weights=yes", "trainings=[scratch]", "cutmix=many", "average=-0.1", "naive=3"]


@pytest.mark.parametrize("word", OUT_OF_RANGE)
def test_a_wrong_value_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as refused:
        check(compose(["stage=finetune", "ckpt=x.pt", f"stage.{word}"]))
    assert str(refused.value).startswith(f"stage.{word.partition('=')[0]}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_options_that_contradict_each_other(words: str, said: str) -> None:
    node = compose(["stage=finetune", "ckpt=x.pt", *words.split()]).values["stage"]
    given = {key: node[key] for key in ("picking", "patience", "train", "drop_path", "trainings")}
    with pytest.raises(UserError, match=said.replace("[", r"\[").replace("]", r"\]")):
        finetune.check_asked(**given)


def test_networks_and_tasks_without_what_an_option_needs() -> None:
    with pytest.raises(UserError, match=r"stage\.norm=keep: ViT has no BatchNorm"):
        finetune.check_norms(ViT(8, 4, dim=8, depth=1, heads=2), "keep")
    with pytest.raises(UserError, match="class_weights=balanced is of classes, and task=regress has none"):
        finetune.weights_of(Regress(), torch.zeros(3, 1))


# ---- figures of a test

Figures = Callable[[Tensor, Tensor], dict[str, float]]


def test_figures_of_classes_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(60, 5, generator=generator), torch.arange(60) ** 2 % 7 % 4  # nobody has class 3
    task = Classify.of(5)
    found, best = task.details(outputs, targets), outputs.argmax(dim=1).tolist()
    present = sorted(set(targets.tolist()))
    assert 0 < len(present) < 5
    recalls, scores, areas = [], [], []
    for label in present:
        mine = [i for i in range(60) if targets[i] == label]
        others = [i for i in range(60) if targets[i] != label]
        right = sum(best[i] == label for i in mine)
        recalls.append(right / len(mine))
        scores.append(2 * right / (len(mine) + best.count(label)))
        share = outputs.double().softmax(dim=1)[:, label].tolist()
        areas.append(sum((share[i] > share[j]) + (share[i] == share[j]) / 2 for i in mine for j in others))
        areas[-1] /= len(mine) * len(others)
    assert found["balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls), rel=1e-12)
    assert found["macro_f1"] == pytest.approx(sum(scores) / len(scores), rel=1e-6)
    assert found["auroc"] == pytest.approx(sum(areas) / len(areas), rel=1e-6)
    assert list(task.per_class(outputs, targets).values()) == pytest.approx(recalls)


def test_figures_of_one_class_alone() -> None:
    found = Classify.of(3).details(torch.eye(3), torch.zeros(3, dtype=torch.long))
    assert math.isnan(found["auroc"])
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)


def test_they_stand_in_the_results(tmp_path: Path) -> None:
    found = go(tmp_path, TinyData(labels_per_class=20), epochs=1)
    assert set(found["per_class"]) == {"red", "green", "blue"}
    for scores in (found, found["baselines"]["from_scratch"]):
        assert {f"finetune_{name}" for name in ("top1", "balanced_accuracy", "macro_f1", "auroc")} <= set(scores)
    assert found["finetune_balanced_accuracy"] == pytest.approx(sum(found["per_class"].values()) / 3)
