"""stage=detect and stage=segment: what they write, that they learn, go on exactly, and do the same on two ranks."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.annotations import Boxes, DenseSet, HeldMasks
from ssl_lightning.modalities.image.data import DataModule, Loaded
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedules import WarmupCosine
from ssl_lightning.stages import detect, segment, training
from ssl_lightning.tasks.classify import Classify
from ssl_lightning.tasks.dense import DenseTask, DenseTuner
from ssl_lightning.tasks.detect import Detect
from ssl_lightning.tasks.segment import Segment
from tests.gloo import free_port
from tests.stages.test_finetune_stage import StopAfter
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*eval mode"),
    pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning"),
]

STAGES: dict[str, Any] = {"detect": detect.run, "segment": segment.run}
TASKS: dict[str, Any] = {
    "detect": partial(Detect, width=8, head_dim=16, samples=16),
    "segment": partial(Segment, width=8),
}


def shapes(**loading: Any) -> Shapes:
    return Shapes(**{"size": 40, "test_size": 12, "image_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, **loading})


def go(tmp_path: Path, stage: str, data: Any, **arguments: Any) -> dict[str, Any]:
    run, folder = a_run(tmp_path / "run"), a_folder(tmp_path / "out")
    given = {"epochs": 2, "batch_size": 10, "base_lr": 0.1, "task": TASKS[stage](), **arguments}
    return STAGES[stage](judged(run), data, a_trainer(tmp_path), folder, 0, **given)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_writes(stage: str, tmp_path: Path) -> None:
    found = go(tmp_path, stage, shapes(label_fraction=0.5))
    main = {"detect": "map", "segment": "miou"}[stage]
    assert 0 <= found[f"{stage}_{main}"] <= 1
    assert set(found["baselines"]["from_scratch"]) == {key for key in found if key.startswith(f"{stage}_")}
    assert found["metric"] == {"name": main, "higher_is_better": True}
    assert found["labels"] == 20
    assert "tested once on whole images" in found["protocol"][stage]
    assert all(0 <= value <= 1 for value in found["per_class"].values())
    if stage == "segment":  # the ground is the most common class: right where there is ground, wrong elsewhere
        masks = shapes()
        masks.read_labels("masks")
        ground = torch.stack([masks.test_set.annotations.at(i) for i in range(12)]) == 0
        assert found["baselines"]["most_common_class"]["miou"] == pytest.approx(
            float(ground.float().mean()) / 11, rel=1e-4
        )
    else:
        assert {"detect_map_50", "detect_map_75"} <= set(found)
    with Image.open(tmp_path / "out" / f"{stage}.png") as picture:
        assert picture.width > 224
        assert picture.convert("L").crop((0, 0, picture.width, 30)).getextrema()[0] < 100  # a title
    name = {"detect": "detector", "segment": "segmenter"}[stage]
    card = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert card["classes"][-1] == "hourglass"
    state = load_file(tmp_path / "out" / f"{name}.safetensors")
    best = torch.load(tmp_path / "out" / stage / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["backbone.body.conv1.0.weight"], best["backbone.conv1.0.weight"])
    assert len(state) == len(best)


class Blocks(DataModule):
    """A red or a green rectangle on grey."""

    annotated = ("boxes", "masks")

    def load(self) -> Loaded:
        return self._part(120, 0), self._part(24, 1)

    def _part(self, count: int, seed: int) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(90, 110, (count, 32, 32, 3), generator=generator).to(torch.uint8)
        masks, boxes = torch.zeros(count, 32, 32, dtype=torch.uint8), []
        for i in range(count):
            x, y, w, h = (int(v) for v in torch.randint(8, 16, (4,), generator=generator))
            images[i, y : y + h, x : x + w, i % 2] = 240
            masks[i, y : y + h, x : x + w] = 1 + i % 2
            boxes.append(torch.tensor([[x, y, x + w, y + h, i % 2, 0]], dtype=torch.float32))
        if self.label_kind == "classes":
            return ArrayImages(images)
        found: Any = Boxes(boxes) if self.label_kind == "boxes" else HeldMasks(masks)
        return DenseSet(
            ArrayImages(images), found, ["red", "green"] if self.label_kind == "boxes" else ["grey", "red", "green"]
        )


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_learns(stage: str, tmp_path: Path) -> None:
    """With a width of 32: an FCN head has a quarter of it, and two channels do not tell three classes apart."""
    data = Blocks(image_size=32, mean=(0.4,) * 3, std=(0.3,) * 3)
    given = {} if stage == "detect" else {"task": Segment(width=32)}
    found = go(tmp_path, stage, data, epochs=8, batch_size=8, base_lr=0.3, picking=0.0, **given)
    assert found[{"detect": "detect_map_50", "segment": "segment_miou"}[stage]] > 0.7, found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_stopped_goes_on_exactly(stage: str, tmp_path: Path) -> None:
    def train(folder: Path, stop_after: int | None) -> dict[str, Tensor]:
        data = shapes(num_workers=0)
        module, labelled = parts(stage, data)
        plain = a_trainer(tmp_path)

        def factory(callbacks: list[Any], **overrides: Any) -> Any:
            return plain(callbacks=[*callbacks, *([StopAfter(stop_after)] if stop_after else [])], **overrides)

        if stop_after:
            with pytest.raises(KeyError, match="stopped here"):
                training.train_and_test(module, labelled, factory, folder, 2, 0)
        else:
            training.train_and_test(module, labelled, factory, folder, 2, 0)
        return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    straight = train(tmp_path / "a", None)
    train(tmp_path / "b", stop_after=5)
    resumed = train(tmp_path / "b", None)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def parts(stage: str, data: Shapes, batch_size: int = 8) -> tuple[DenseTuner, training.LabelledData]:
    """What the stage trains, and on what."""
    task: DenseTask = TASKS[stage]()
    data.read_labels(task.reads)
    task.prepare(data.classes, None).seeing(data.padding_views(torch.device("cpu"))[0])
    rows, held = training.picking_split(data, 0.2)
    torch.manual_seed(0)
    recipe = OptimizerRecipe(partial(AdamW), 0.1, 0.05, WarmupCosine(1))
    module = DenseTuner(ConvNetSmall(4), task, recipe)
    return module, training.LabelledData(data, rows, held, data.dense_views((0.7, 1.4), 0.5), batch_size)


def one_epoch(rank: int, ranks: int, folder: str, port: int) -> None:
    """An epoch of detection on 32 images, in batches of 8 over all ranks."""
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0")
    os.environ.update({"WORLD_SIZE": str(ranks), "RANK": str(rank)} if ranks > 1 else {})
    torch.set_num_threads(1)
    module, labelled = parts("detect", shapes(num_workers=0), 8 // ranks)
    strategy = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    plain = a_trainer(Path(folder))
    made = partial(plain, **strategy, use_distributed_sampler=False)
    training.train_and_test(module, labelled, made, Path(folder) / f"of{ranks}", 1, 0)


@pytest.mark.long
def test_two_ranks_train_as_one_process(tmp_path: Path) -> None:
    import torch.multiprocessing as mp

    for ranks in (1, 2):
        mp.spawn(one_epoch, args=(ranks, str(tmp_path), free_port()), nprocs=ranks, join=True)
    one, two = (
        torch.load(tmp_path / f"of{ranks}" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for ranks in (1, 2)
    )
    assert one.keys() == two.keys()
    for key in one:
        assert torch.allclose(one[key], two[key], rtol=1e-3, atol=2e-5), key


@pytest.mark.parametrize("stage", STAGES)
def test_what_cannot_be_is_one_line(stage: str, tmp_path: Path) -> None:
    word = {"detect": "boxes", "segment": "masks"}[stage]
    with pytest.raises(UserError, match=rf"stage={stage} needs {word}, and these images have none; choose data=voc"):
        go(tmp_path, stage, TinyData())
    other = {"detect": Segment, "segment": Detect}[stage]()
    with pytest.raises(UserError, match=rf"stage={stage} takes task={stage}, not task="):
        STAGES[stage](judged(tmp_path / "run"), shapes(), a_trainer(tmp_path), None, 0, task=other)
    with pytest.raises(UserError, match=rf"takes task={stage}, not task=classify"):
        STAGES[stage](judged(tmp_path / "run"), shapes(), a_trainer(tmp_path), None, 0, task=Classify())


def test_sound_has_no_boxes(tmp_path: Path) -> None:
    from ssl_lightning.modalities.audio.sources import Tones
    from ssl_lightning.stages.dense import need_annotations

    with pytest.raises(UserError, match=r"stage=detect needs boxes, and these .* have none"):
        need_annotations(Tones(size=8, test_size=4), "detect", Detect())


def test_a_picture_that_cannot_be_drawn_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ssl_lightning.stages import dense_files

    def broken(*_: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(dense_files, "grid", broken)
    found = go(tmp_path, "segment", shapes(), epochs=1)
    assert "segment_miou" in found
    assert "segment.png was not drawn: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "segment.png").exists()


def test_a_frozen_backbone_stays_as_it_is(tmp_path: Path) -> None:
    start = torch.load  # the weights of the run, as they were
    found = go(tmp_path, "segment", shapes(), epochs=1, frozen=True)
    assert found["segment_miou"] >= 0
    before = load_file(tmp_path / "run" / "backbone.safetensors")
    after = start(tmp_path / "out" / "segment" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, after[f"backbone.{key}"]) for key, value in before.items())
