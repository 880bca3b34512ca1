"""The model that a training on labels leaves: it says of the test set what results.json says, to the item."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ssl_lightning as sl
from ssl_lightning.__main__ import main
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image import Array
from ssl_lightning.runs.model import restored_model
from ssl_lightning.stages import linear
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, draw, judged
from tests.tasks import own
from tests.tasks.test_task_stages import table

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
SHORT = ["stage.epochs=2", "stage.warmup_epochs=0", "stage.batch_size=16", "trainer.log_every_n_steps=1"]
PROBE = ["stage.probe.epochs=10", "stage.probe.lrs=[0.1]", "stage.probe.weight_decays=[0.0]"]
WAYS = {
    "finetune": ["stage=finetune", *SHORT],
    "linear": ["stage=linear", *PROBE],
    "readout": ["stage=linear", *PROBE, "stage.probe.readouts=[last2]"],
    "lbfgs": ["stage=linear", "stage.probe.optimizer=lbfgs"],
    "average": ["stage=finetune", *SHORT, "stage.average=0.5"],
    "head alone": ["stage=finetune", *SHORT, "stage.train=head"],
    "augmented": ["stage=linear", "stage.augmented=true", "stage.epochs=2", "stage.batch_size=16"],
}


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy images in two classes, brightness and redness in tables, a train/ and a test/ folder, and a run."""
    folder = tmp_path_factory.mktemp("models")
    a_run(folder / "run")
    draws, rows = np.random.default_rng(0), []
    for split, count in (("train", 40), ("test", 24)):
        for i in range(count):
            bright, red = draws.uniform(20, 180), draws.uniform(0, 60)
            image = draws.normal(bright, 4, (20, 24, 3))
            image[..., 0] += red
            path = folder / "images" / split / ("dark" if bright < 100 else "light") / f"{split}{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
            rows.append([path.name, bright, red])
    table(folder / "numbers.csv", ["path", "bright", "red"], [[p, f"{b:.3f}", f"{r:.3f}"] for p, b, r in rows])
    table(folder / "flags.csv", ["path", "bright", "red"], [[p, int(b > 100), int(r > 30)] for p, b, r in rows])
    return folder


def go(there: Path, name: str, *words: str) -> int:
    fixed = ["data=folder", f"data.root={there}/images", "data.image_size=16", "trainer=cpu", f"ckpt={there}/run"]
    return main([*fixed, f"runs_dir={there}", f"name={name}", *words])


def said(model: Any, items: list[Any]) -> Tensor:
    """Outputs for items, one by one: a batch is nothing that results hang on."""
    with torch.no_grad():
        return torch.cat([model(model.transform(item)[None]) for item in items])


@pytest.mark.parametrize("way", WAYS)
def test_top1_is_that_of_the_results(there: Path, way: str) -> None:
    assert go(there, way, *WAYS[way]) == 0
    model, found = sl.load_model(there / way), results(there / way)
    files = sorted((there / "images" / "test").rglob("*.png"))
    right = [model.classes[i] == file.parent.name for i, file in zip(said(model, files).argmax(1), files, strict=True)]
    assert sum(right) / len(right) == found[f"{WAYS[way][0].removeprefix('stage=')}_top1"]
    assert model.classes == ["dark", "light"]
    assert not model.training
    assert model.card["image_size"] == 16
    assert model.card["data"] == "folder"
    told = model.predict(files)
    assert [row["class"] == Path(row["path"]).parent.name for row in told] == right


def test_the_backbone_of_a_fine_tuned_run_is_the_fine_tuned_one(there: Path) -> None:
    go(there, "finetune", *WAYS["finetune"])
    net, model, before = (load(there / name) for load, name in (
        (sl.load_backbone, "finetune"), (sl.load_model, "finetune"), (sl.load_backbone, "run"),
    ))  # fmt: skip
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(net(x), model.backbone(x))  # type: ignore[operator]
    assert net(x).shape == (3, net.out_dim)
    assert not torch.equal(net(x), before(x))
    run = sl.load_run(there / "finetune")
    assert torch.equal(run.model(x), model(x))
    assert torch.equal(run.backbone(x), net(x))
    best = torch.load(there / "finetune" / "finetune" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(best[f"backbone.{key}"], value) for key, value in net.state_dict().items())
    assert all(torch.equal(best[f"head.{key}"], value) for key, value in model.head.state_dict().items())


def test_a_stage_takes_the_fine_tuned_backbone(there: Path) -> None:
    """`ckpt=` a fine-tuned run: its features, its data and sizes."""
    go(there, "finetune", *WAYS["finetune"])
    assert main(["stage=knn", f"ckpt={there}/finetune", f"runs_dir={there}", "name=knn", "trainer=cpu"]) == 0
    assert results(there / "knn")["knn_top1"] > 0.5


@pytest.mark.parametrize("stage", ["finetune", "linear"])
@pytest.mark.parametrize(("task", "labels"), [("regress", "numbers.csv"), ("multilabel", "flags.csv")])
def test_other_tasks_are_told_alike(there: Path, stage: str, task: str, labels: str) -> None:
    name = f"{stage}-{task}"
    assert go(there, name, *WAYS[stage], f"task={task}", f"data.labels={there}/{labels}") == 0
    model, found = sl.load_model(there / name), results(there / name)
    rows = {r[0]: r[1:] for r in (line.split(",") for line in (there / labels).read_text().splitlines()[1:])}
    files = sorted((there / "images" / "test").rglob("*.png"))
    targets = torch.tensor([[float(v) for v in rows[file.name]] for file in files])
    outputs = said(model, files)
    scores = model.task.measure(outputs, targets)
    for key, value in scores.items():
        assert found[f"{stage}_{key}"] == pytest.approx(value, abs=1e-5)
    assert model.classes == ["bright", "red"]
    told = model.predict(files[:2])[0]
    assert set(told) == {"path", "bright", "red"}
    if task == "regress":
        assert told["bright"] == pytest.approx(float(model.task.numbers(outputs)[0, 0]), rel=1e-5)  # type: ignore[operator]


def test_a_task_of_ones_own_needs_trust(there: Path) -> None:
    conf = ["--config-dir", str(Path(own.__file__).parent / "conf"), "trusted_packages=[tests]", "task=counts"]
    labels = [f"data.labels={there}/numbers.csv", "data.label_column=[red]"]
    assert go(there, "own", *conf, *labels, *WAYS["finetune"], "stage.picking=0.2") == 0
    with pytest.raises(UserError, match=r"trusted=\('tests',\)"):
        sl.load_model(there / "own")
    model = sl.load_model(there / "own", trusted="tests")
    assert isinstance(model.task, own.Counts)
    files = sorted((there / "images" / "test").rglob("*.png"))
    reds = {
        r[0]: float(r[2]) for r in (line.split(",") for line in (there / "numbers.csv").read_text().splitlines()[1:])
    }
    scores = model.task.measure(said(model, files), torch.tensor([[reds[file.name]] for file in files]))
    assert results(there / "own")["finetune_mae"] == pytest.approx(scores["mae"], rel=1e-5)
    out = [f"data.root={there}/images/test", "stage=predict", f"ckpt={there}/own", "name=said", *labels]
    assert main([*out, "data=folder", f"runs_dir={there}", "trainer=cpu", "trusted_packages=[tests]"]) == 0
    assert results(there / "said")["predict_mae"] == pytest.approx(scores["mae"], rel=1e-5)


@pytest.mark.parametrize("channels", [1, 5])
def test_grey_images_and_many_channels(tmp_path: Path, channels: int) -> None:
    images, labels = draw(60, 0)
    wide = torch.cat([images, images], dim=3)[..., :channels].numpy()
    np.savez(tmp_path / "all.npz", images=wide, labels=labels.numpy())
    words = ["data=array", f"data.root={tmp_path}/all.npz", "data.image_size=16", f"data.channels={channels}"]
    words += [f"runs_dir={tmp_path}", "trainer=cpu"]
    small = ["backbone.width=4", f"backbone.in_channels={channels}", "trainer.max_epochs=1", "data.batch_size=16"]
    small += ["method.projector.hidden_dim=8", "method.projector.out_dim=8"]
    assert main([*words, *small, "name=run"]) == 0
    assert main([f"ckpt={tmp_path}/run", f"runs_dir={tmp_path}", "trainer=cpu", "name=tuned", *WAYS["finetune"]]) == 0
    model = sl.load_model(tmp_path / "tuned")
    assert model.transform.shape == (channels, 16, 16)
    config = sl.load_run(tmp_path / "tuned").config["data"]
    data = Array(**{key: value for key, value in config.items() if key not in ("_target_", "views")})
    test = data.test_set
    outputs = said(model, [image.numpy() for image in test.images])
    top1 = float((outputs.argmax(1) == test.labels).double().mean())
    assert top1 == results(tmp_path / "tuned")["finetune_top1"]


def test_it_is_the_same_file_each_time(tmp_path: Path) -> None:
    """Nothing in it tells when or where it was made, and nothing is drawn for it."""
    a_run(tmp_path / "run")
    written = []
    for name in ("one", "two"):
        folder = a_folder(tmp_path / name)
        linear.run(judged(tmp_path / "run"), TinyData(), a_trainer(tmp_path), folder, 0, data_name="tiny")
        written.append((folder.path / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_random_states_are_left_alone(there: Path) -> None:
    go(there, "finetune", *WAYS["finetune"])
    torch.manual_seed(7)
    before = torch.get_rng_state()
    sl.load_model(there / "finetune")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_holds_no_model_is_refused_in_a_line(there: Path, tmp_path: Path) -> None:
    for ref in (there / "run", there / "run" / "backbone.safetensors", "timm:resnet10t"):
        with pytest.raises(UserError, match="stage=finetune") as refusal:
            restored_model(ref)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="no checkpoint at"):
        restored_model(tmp_path / "nothing")


def test_a_model_may_be_carried_away(there: Path, tmp_path: Path) -> None:
    go(there, "finetune", *WAYS["finetune"])
    file = shutil.copy(there / "finetune" / "model.safetensors", tmp_path / "mine.safetensors")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(sl.load_model(file)(x), sl.load_model(there / "finetune")(x))
    assert torch.equal(sl.load_backbone(file)(x), sl.load_backbone(there / "finetune")(x))
