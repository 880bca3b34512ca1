"""A modality of a user's own goes through the real stages, and the rooms that know no modality mention none."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning import load_backbone
from ssl_lightning.__main__ import main
from ssl_lightning.core.batch import Padded
from ssl_lightning.core.errors import UserError
from ssl_lightning.data import base, loader, sampler
from ssl_lightning.data.batch import RawBatch
from tests.contracts import series

CONF = Path(__file__).parent / "conf"
OWN = ["--config-dir", str(CONF), "trusted_packages=[tests]"]
SMALL = [
    "method.projector.hidden_dim=16",
    "method.projector.out_dim=8",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
]
IMAGES = r"image|pixel|channel|\bmean\b|\bstd\b|normali|uint8|jpe?g|\bPIL\b|decod|resiz|colou?r|height|width"


@pytest.mark.parametrize("module", [base, loader, sampler])
def test_what_is_shared_knows_no_images(module: object) -> None:
    text = Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]
    assert re.findall(IMAGES, text, re.IGNORECASE) == []


def test_a_modality_is_small_and_edits_nothing() -> None:
    assert len(Path(series.__file__).read_text().splitlines()) < 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run; each stage on it has its own folder below."""
    folder = tmp_path_factory.mktemp("series")
    assert main([*OWN, "data=series", "name=run", f"runs_dir={folder}", *SMALL]) == 0
    return folder


def results(folder: Path) -> dict[str, object]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def test_it_is_pretrained_on_and_judged_beside_its_own_naive_baseline(runs: Path) -> None:
    found = results(runs / "run")
    assert {"knn_top1", "linear_top1", "quality", "samples_per_second"} <= found.keys()
    assert set(found["baselines"]) == {"random_init", "naive"}  # type: ignore[call-overload]
    assert "images_per_second" not in found
    assert found["quality"]["alignment"] is not None  # type: ignore[index]
    assert not (runs / "run" / "views.png").exists()  # it draws no pictures


@pytest.mark.parametrize(
    ("stage", "key"),
    [("knn", "knn_top1"), ("linear", "linear_top1"), ("embed", "samples"), ("export", "out_dim")],
)
def test_each_stage_takes_it(stage: str, key: str, runs: Path) -> None:
    assert main([*OWN, f"stage={stage}", f"ckpt={runs}/run", "data=series", f"name={stage}", f"runs_dir={runs}"]) == 0
    assert key in results(runs / stage)


def test_a_model_of_ones_own_modality_is_told_from_its_test_set(runs: Path) -> None:
    """There is no way from a file to an input: `stage=predict` reads the data module, and a batch goes in as it is."""
    words = [*OWN, "data=series", f"runs_dir={runs}", "trainer=cpu"]
    assert main([*words, "stage=linear", f"ckpt={runs}/run", "name=probed", "stage.probe.epochs=5"]) == 0
    assert main([*words, "stage=predict", f"ckpt={runs}/probed", "name=said"]) == 0
    found, told = (json.loads((runs / name / "results.json").read_text()) for name in ("probed", "said"))
    assert told["predict_top1"] == found["linear_top1"]
    with open(runs / "said" / "predictions.csv") as file:
        assert len(file.readlines()) == 1 + told["predicted"]


@pytest.mark.parametrize("more", [["stage=finetune"], ["stage=linear", "stage.augmented=true"]])
def test_it_is_trained_on_with_labels(more: list[str], runs: Path) -> None:
    name = more[0].removeprefix("stage=") + "-trained"
    short = ["stage.epochs=2", f"name={name}", f"runs_dir={runs}"]
    assert main([*OWN, *more, f"ckpt={runs}/run", "data=series", "trainer.log_every_n_steps=1", *short]) == 0
    assert results(runs / name)["labels"] == 64


def test_its_backbone_is_loaded_and_its_card_says_the_modality(runs: Path) -> None:
    net = load_backbone(str(runs / "run"), trusted=["tests"])
    assert net(Padded(torch.zeros(2, 9, 1), torch.tensor([9, 4]))).shape == (2, 8)
    from ssl_lightning.runs.checkpoint import resolve_ckpt

    assert (resolve_ckpt(runs / "run").card or {})["modality"] == "series"


def test_a_network_of_another_modality_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"ckpt={runs}/run", "stage=knn", "data=shapes", "data.size=64", "data.test_size=32", f"runs_dir={runs}"]
    assert main([*OWN, *words, "name=refused"]) == 2
    assert "was trained on series and the data is image" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_exactly(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within the second epoch: the weights and the curves are those of the run without a stop."""
    words = [*OWN, "data=series", f"runs_dir={runs}", *SMALL, "stage.judge=false"]
    often = [*words, "callbacks.checkpoint.every_n_steps=1"]
    assert main([*often, "name=whole"]) == 0
    step = series.SeriesData.training_views
    seen = []

    def dies(self: series.SeriesData, raw: object) -> base.Drawn:
        seen.append(raw)
        if len(seen) == 7:
            raise RuntimeError("stopped here")
        return step(self, raw)

    monkeypatch.setattr(series.SeriesData, "training_views", dies)
    with pytest.raises(RuntimeError, match="stopped here"):
        main([*often, "name=cut"])
    assert (runs / "cut" / "checkpoints" / "last.ckpt").exists()
    monkeypatch.setattr(series.SeriesData, "training_views", step)
    assert main([*often, "name=cut"]) == 0
    one, other = (load_backbone(str(runs / name), trusted=["tests"]).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    shutil.rmtree(runs / "cut")


def test_two_ranks_are_dealt_the_batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(rank: int, world: int) -> list[list[list[int]]]:
        monkeypatch.setattr("ssl_lightning.core.distributed.rank", lambda: rank)
        monkeypatch.setattr("ssl_lightning.core.distributed.world_size", lambda: world)
        data = series.SeriesData(size=44, views=series.CropAndNoise(), batch_size=8 // world)
        loaders = [data.train_dataloader(), *data.val_dataloader()]
        batches = [[data.on_after_batch_transfer(raw) for raw in loader] for loader in loaders]
        return [[batch.indices.tolist() for batch in loader] for loader in batches]

    (whole, *judged), (train0, *eval0), (train1, *eval1) = rows(0, 1), rows(0, 2), rows(1, 2)
    for batch, *parts in zip(whole, train0, train1, strict=True):
        assert batch == [row for pair in zip(*parts, strict=True) for row in pair]
    for one, part0, part1 in zip(judged, eval0, eval1, strict=True):
        assert len(part0) == len(part1)
        assert sorted(r for b in part0 + part1 for r in b if r >= 0) == sorted(r for batch in one for r in batch)


@pytest.mark.parametrize(
    ("hook", "purpose"), [("evaluation_views", sampler.EVALUATE), ("training_views", sampler.TRAIN)]
)
@pytest.mark.parametrize("returned", ["items", "list", "string roles"])
def test_a_hook_that_returns_no_views_with_roles_is_named(hook: str, purpose: sampler.Purpose, returned: str) -> None:
    x = torch.zeros(2, 3)
    wrong = {"items": x, "list": [x, x], "string roles": ([x, x], "global")}[returned]

    class Own(series.SeriesData):
        def evaluation_views(self, batch: RawBatch) -> Any:
            return wrong if hook == "evaluation_views" else super().evaluation_views(batch)

        def training_views(self, batch: RawBatch) -> Any:
            return wrong if hook == "training_views" else super().training_views(batch)

    data = Own()
    raw = RawBatch(x, torch.zeros(2), torch.arange(2), 0, torch.arange(0), purpose)
    with pytest.raises(UserError, match=rf"Own\.{hook} returned .*; return \(\[view, \.\.\.\], roles\)"):
        data.on_after_batch_transfer(raw)


def refused(words: list[str], runs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused and leaves nothing."""
    before = sorted(path.name for path in runs.iterdir())
    capsys.readouterr()
    assert main([*OWN, *words, "name=misfit", f"runs_dir={runs}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in said) == 1
    assert sorted(path.name for path in runs.iterdir()) == before
    return said[-1].removeprefix("error: ")


@pytest.mark.parametrize(
    ("net", "why"),
    [
        ("Channels", r"Given groups=1, weight of size \[8, 2, 5\], expected input\[\d+, 1, 24\] to have 2 channels"),
        (
            "Length",
            r"(addmm: )?mat1 and mat2 shapes cannot be multiplied \(\d+x24 and 17x8\) \(misfits\.py, line \d+\)",
        ),
        ("Plain", r"linear\(\): argument 'input' \(position 1\) must be Tensor, not Padded \(misfits\.py, line \d+\)"),
        ("Bytes", r"Input type \(long int\) and bias type \(float\) should be the same"),
        ("Unpacks", r"not enough values to unpack \(expected 4, got 3\) \(misfits\.py, line \d+\)"),
    ],
)
def test_a_network_that_does_not_take_the_views_is_one_line(
    net: str, why: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found in the first step of a training, or where the first step is watched."""
    words = ["data=series", f"backbone._target_=tests.contracts.misfits.{net}", *SMALL]
    said = refused(words + ([] if net == "Channels" else ["callbacks=minimal"]), runs, capsys)
    view = r"\(Padded, shape \(24, 1\), float32\)"
    assert re.match(rf"the network {net} does not take the views of SeriesData {view}: {why}", said)
    assert said.endswith("; choose another backbone=, or change the views that SeriesData gives")


@pytest.mark.parametrize("more", [["knn"], ["linear"], ["linear", "stage.augmented=true"], ["finetune"], ["embed"]])
def test_so_are_other_views_than_those_of_the_training(
    more: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"stage={more[0]}", *more[1:], f"ckpt={runs}/run", "data=series", "trainer.log_every_n_steps=1"]
    said = refused([*words, "data._target_=tests.contracts.misfits.TwoNumbers"], runs, capsys)
    start = "the network Net does not take the views of TwoNumbers (Padded, shape (24, 2), float32): Given groups=1, "
    assert said.startswith(start)


@pytest.mark.parametrize(("net", "error"), [("Broken", RuntimeError), ("Misspelt", AttributeError)])
def test_other_mistakes_of_a_network_keep_their_traceback(net: str, error: type[Exception], runs: Path) -> None:
    with pytest.raises(error):
        main([*OWN, "data=series", f"backbone._target_=tests.contracts.misfits.{net}", *SMALL, f"runs_dir={runs}"])
