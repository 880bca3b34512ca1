"""stage=finetune: few labels, the checkpoint picked without the test set, scratch beside it."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.linear_probe import ProbeSettings, probe_grid
from ssl_lightning.modalities.image.images import FileImages
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import finetune, training
from ssl_lightning.tasks.classify import Classify
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def go(tmp_path: Path, data: TinyData, **arguments: object) -> dict[str, object]:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    given = {"epochs": 12, "batch_size": 16, "base_lr": 0.1, "warmup_epochs": 1, "picking": 0.2, **arguments}
    return finetune.run(judged(run), data, a_trainer(tmp_path), folder, 0, **given)


def test_finetune_learns_from_few_labels(tmp_path: Path) -> None:
    found = go(tmp_path, TinyData(labels_per_class=20), mixup=0.2, label_smoothing=0.1)
    assert found["finetune_top1"] > 0.8  # chance is 0.33
    assert found["labels"] == 60
    naive = finetune.beside_naive(TinyData(labels_per_class=20), Classify.of(3))["raw_pixels"]["linear_top1"]
    assert found["baselines"]["from_scratch"]["finetune_top1"] == scored(tmp_path / "out" / "from_scratch")
    assert found["baselines"]["raw_pixels"]["linear_top1"] == naive
    assert "picked on 12 of the labels, tested once" in found["protocol"]["finetune"]
    assert found["steps"] == 12 * (48 // 16)


def scored(folder: Path) -> float:
    """The accuracy on the test set of a training's best checkpoint."""
    net = training.Finetuner(ConvNetSmall(4), Classify.of(3), optimizer=None)  # type: ignore[arg-type]
    net.load_state_dict(torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"])
    features = training.extract(net, TinyData().eval_loader("test"))
    return (features.x.argmax(dim=1) == features.labels).double().mean().item()


def test_from_scratch_all_layers_learn_at_the_full_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline is not to be held back by what only a pretrained network needs, and starts from the random twin."""
    seen: dict[str, tuple[float, bool]] = {}
    twin = judged(a_run(tmp_path / "run")).random.state_dict()

    def trained(module: training.Finetuner, data: object, trainer: object, folder: Path, *args: object) -> object:
        state = module.backbone.state_dict()
        seen[folder.name] = module.layer_decay, all(torch.equal(value, state[key]) for key, value in twin.items())
        return training.Trained({"top1": 0.5}, 1, 1, 1.0)

    monkeypatch.setattr(finetune, "train_and_test", trained)
    go(tmp_path, TinyData(labels_per_class=20), layer_decay=0.6)
    assert seen == {"finetune": (0.6, False), "from_scratch": (1.0, True)}


def test_the_best_checkpoint_of_the_split_is_tested(tmp_path: Path) -> None:
    data = TinyData(labels_per_class=20)
    found = go(tmp_path, data, epochs=6)
    best, last = (
        torch.load(tmp_path / f"out/finetune/checkpoints/{n}.ckpt", weights_only=True) for n in ("best", "last")
    )
    net = training.Finetuner(ConvNetSmall(4), Classify.of(3), optimizer=None)  # type: ignore[arg-type]
    rows, held = training.picking_split(data, 0.2)

    def top1(checkpoint: dict[str, dict[str, torch.Tensor]], split: str, indices: torch.Tensor | None) -> float:
        net.load_state_dict(checkpoint["state_dict"])
        features = training.extract(net, data.eval_loader(split, indices))  # type: ignore[arg-type]
        return (features.x.argmax(dim=1) == features.labels).double().mean().item()

    assert found["finetune_top1"] == top1(best, "test", None)
    assert top1(best, "train", held) >= top1(last, "train", held)
    assert not set(rows.tolist()) & set(held.tolist())
    assert best["state_dict"].keys() == net.state_dict().keys()


def test_an_interrupted_finetune_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = TinyData(labels_per_class=20, num_workers=0)
    rows, held = training.picking_split(data, 0.2)
    views = training.crop_and_flip(16, (0.3, 1.0))
    recipe = training_recipe()

    def train(folder: Path, stop_after: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = training.Finetuner(ConvNetSmall(4), Classify.of(3), recipe, layer_decay=0.8, mixup=0.3)
        labelled = training.LabelledData(data, rows, held, views, 16)
        plain = a_trainer(tmp_path)

        def factory(callbacks: list[object], **overrides: object) -> object:
            return plain(callbacks=[*callbacks, *([StopAfter(stop_after)] if stop_after else [])], **overrides)

        if stop_after:
            with pytest.raises(KeyError, match="stopped here"):
                training.train_and_test(module, labelled, factory, folder, 4, 0)
        else:
            training.train_and_test(module, labelled, factory, folder, 4, 0)
        return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    straight = train(tmp_path / "a", None)
    train(tmp_path / "b", stop_after=8)
    resumed = train(tmp_path / "b", None)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def training_recipe() -> object:
    from functools import partial

    from torch.optim import AdamW

    from ssl_lightning.optim.recipe import OptimizerRecipe
    from ssl_lightning.optim.schedules import WarmupCosine

    return OptimizerRecipe(partial(AdamW), 0.1, 0.05, WarmupCosine(1))


class StopAfter(training.Callback):
    """Fails in the middle of an epoch, as a crash would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: object, *args: object) -> None:
        if trainer.global_step == self.steps:  # type: ignore[attr-defined]
            raise KeyError("stopped here")


def test_the_picking_split_is_seen_as_the_test_set_is() -> None:
    source = TinyData(labels_per_class=10, eval_resize=24)
    rows, held = training.picking_split(source, 0.2)
    data = training.LabelledData(source, rows, held, training.crop_and_flip(16, (0.3, 1.0)), 16)
    assert (data.drawn.eval_view.size, data.drawn.eval_view.resize) == (16, 24)
    seen = data.on_after_batch_transfer(next(iter(data.val_dataloader()[0]))).views[0][0]
    wanted = next(iter(source.eval_loader("train", held[:1]))).views[0][0]
    assert torch.equal(seen, wanted)


def test_label_subsets_are_nested_and_stratified() -> None:
    small = set(TinyData(labels_per_class=2).labelled_indices().tolist())
    large = set(TinyData(labels_per_class=10).labelled_indices().tolist())
    assert small < large
    data = TinyData(labels_per_class=10)
    rows, held = training.picking_split(data, 0.2)
    labels = data.probe_set.labels
    assert labels[rows].bincount().tolist() == [8, 8, 8]
    assert labels[held].bincount().tolist() == [2, 2, 2]
    one_each, none = training.picking_split(TinyData(labels_per_class=1), 0.2)
    assert (len(one_each), len(none)) == (3, 0)


class TinyFiles(TinyData):
    """The same images as files, of which one is no image."""

    def __init__(self, folder: Path, **loading: object) -> None:
        super().__init__(train=150, **loading)
        self.folder = folder

    def load(self) -> tuple[FileImages, FileImages]:
        sets = []
        for split, arrays in zip(("train", "test"), super().load()):
            (self.folder / split).mkdir(parents=True)
            paths = [str(self.folder / split / f"{i}.png") for i in range(len(arrays))]
            for path, image in zip(paths, arrays.images):
                Image.fromarray(image.numpy()).save(path)
            sets.append(FileImages(paths, arrays.labels, arrays.classes))
        (self.folder / "train" / "4.png").write_text("not an image")
        return sets[0], sets[1]


def test_a_broken_file_among_few_labels_is_left_out(tmp_path: Path) -> None:
    data = TinyFiles(tmp_path / "photos", num_workers=0)
    rows, held = training.picking_split(data, 0.2)
    assert 4 not in torch.cat([rows, held]).tolist()
    assert len(rows) + len(held) == 149
    found = go(tmp_path, data, epochs=1)
    assert found["labels"] == 149


def test_the_head_begins_as_a_probe_on_the_rows_it_is_trained_on(tmp_path: Path) -> None:
    data = TinyData(labels_per_class=20)
    rows, _ = training.picking_split(data, 0.2)
    backbone = load_backbone(a_run(tmp_path / "run"))
    module = training.Finetuner(backbone, Classify.of(3), optimizer=None)  # type: ignore[arg-type]
    finetune.begin_with_probe(module, data, rows, torch.device("cpu"))
    train = training.extract(backbone, data.eval_loader("train", rows))
    probe = probe_grid(train.x, train.labels, train.x, train.labels, Classify.of(3), ProbeSettings(batch_size=48))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(module.eval()(x), backbone(x) @ probe.weight.T + probe.bias)


def test_of_few_labels_none_is_held_out_unless_one_asks(tmp_path: Path) -> None:
    """A tenth of a hundred cannot tell one checkpoint from the next, and is missed in training."""
    data = TinyData(train=1200)
    sizes = {n: [len(part) for part in training.picking_split(TinyData(train=1200, label_fraction=n / 1200), None)]
             for n in (60, 999, 1200)}  # fmt: skip
    assert sizes == {60: [60, 0], 999: [999, 0], 1200: [960, 240]}
    few = TinyData(labels_per_class=20)
    assert [len(part) for part in training.picking_split(few, None, patience=3)] == [48, 12]
    assert [len(part) for part in training.picking_split(data, 0.0)] == [1200, 0]
    found = go(tmp_path, few, epochs=1, picking=None)
    assert "last checkpoint, tested once" in found["protocol"]["finetune"]


def test_one_label_per_class_takes_the_last_checkpoint(tmp_path: Path) -> None:
    found = go(tmp_path, TinyData(labels_per_class=1), epochs=2)
    assert "last checkpoint, tested once" in found["protocol"]["finetune"]
    assert not (tmp_path / "out/finetune/checkpoints/best.ckpt").exists()


def test_finetune_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data has no labels, and stage=finetune"):
        go(tmp_path, TinyData(labelled=False))
