"""`stage.probes`: further labels told from the same features, each as if it were a stage's own."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.cli.arguments import parse
from ssl_lightning.cli.run import check, compose
from ssl_lightning.cli.run_parts import changed
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.runs.folder import RunFolder
from ssl_lightning.stages import knn, linear, pretrain
from ssl_lightning.stages.common import open_backbone
from tests.stages.test_pretrain_stage import a_method
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged, two_views

# Lightning itself uses what newer torch versions warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

FEW = ProbeSettings(lrs=(0.1,), weight_decays=(0.0,), epochs=2)


class Halves(TinyData):
    """The same images; what is told is whether they are among the first half."""

    def load(self) -> Any:
        for images in (found := super().load()):
            images.labels = (torch.arange(len(images.labels)) * 2 < len(images.labels)).long()
            images.classes = ["late", "early"]
        return found


def other_data(changes: Any) -> TinyData:
    return Halves(60, 30) if changes["labels"] else TinyData(60, 30, labelled=False)


def one(stage: str, data: TinyData, path: Path, **more: Any) -> dict[str, Any]:
    run = judged(a_run(path / "run"), seed=3)
    if stage == "knn":
        return knn.run(run, data, a_trainer(path), k=7, **more)
    return linear.run(run, data, a_trainer(path), RunFolder(path), 0, FEW, **more)


@pytest.mark.parametrize("stage", ["knn", "linear"])
def test_a_probe_finds_what_a_stage_of_its_own_finds(stage: str, tmp_path: Path) -> None:
    probes = {"half": {"labels": True}}
    found = one(stage, TinyData(60, 30), tmp_path, probes=probes, other_data=other_data)
    alone, plain = one(stage, Halves(60, 30), tmp_path), one(stage, TinyData(60, 30), tmp_path)
    key = f"{stage}_top1"
    assert set(found["probes"]) == {"half"}
    assert found["probes"]["half"] == {
        **{name: alone[name] for name in (key, "baselines")},
        **({"linear_top5": alone["linear_top5"]} if "linear_top5" in alone else {}),
        "classes": 2,
    }
    assert {name: found[name] for name in (key, "baselines", "protocol")} == {
        name: plain[name] for name in (key, "baselines", "protocol")
    }
    assert "probes" not in plain
    assert found[key] != found["probes"]["half"][key]


def pretrained(path: Path, data: TinyData, **more: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(the results of a pretraining, its weights)."""
    method, folder = a_method("simclr"), a_folder(path / "run")
    trainer = partial(a_trainer(path), max_epochs=1, limit_val_batches=0)
    found = pretrain.run(method, data, trainer, folder, "some", "tiny", k=7, **more)
    return found, method.state_dict()


def test_a_pretraining_ends_with_its_probes(tmp_path: Path) -> None:
    """Its own data may have no labels; what is trained is the same with them and without."""
    loading = {"views": two_views(), "num_workers": 0}
    probes = {"half": {"labels": True}}
    found, weights = pretrained(tmp_path / "a", TinyData(60, 30, **loading), probes=probes, other_data=other_data)
    plain, same = pretrained(tmp_path / "b", TinyData(60, 30, **loading))
    assert all(torch.equal(weights[key], value) for key, value in same.items())
    assert {key: found[key] for key in ("knn_top1", "linear_top1", "quality", "baselines", "protocol")} == {
        key: plain[key] for key in ("knn_top1", "linear_top1", "quality", "baselines", "protocol")
    }
    half = found["probes"]["half"]
    assert set(half) == {"knn_top1", "linear_top1", "baselines", "classes"}
    assert set(half["baselines"]) == {"random_init", "raw_pixels"}
    run = open_backbone(tmp_path / "a" / "run", {}, seed=3)
    alone = knn.run(run, Halves(60, 30), a_trainer(tmp_path), k=7)
    assert half["knn_top1"] == alone["knn_top1"]
    assert half["baselines"]["raw_pixels"] == alone["baselines"]["raw_pixels"]
    bare = TinyData(60, 30, labelled=False, **loading)
    found, _ = pretrained(tmp_path / "c", bare, probes=probes, other_data=other_data)
    assert "knn_top1" not in found
    assert found["probes"]["half"] == half


def test_a_wrong_probe_stops_a_pretraining_before_it_begins(tmp_path: Path) -> None:
    data = TinyData(60, 30, views=two_views(), num_workers=0)
    with pytest.raises(UserError, match=r"^stage\.probes\.half: data has no labels, and stage=pretrain"):
        pretrained(tmp_path, data, probes={"half": {"labels": False}}, other_data=other_data)
    assert not (tmp_path / "run" / "checkpoints").exists()
    words = ["method=simclr", "stage.judge=false", "stage.probes={other:{image_seed:3}}"]
    with pytest.raises(UserError, match=r"reads stage\.probes only with stage\.judge=true"):
        check(compose(words))


def test_a_pretraining_of_no_numbers_ends_without_its_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = pretrain.train

    def broken(method: Any, *rest: Any) -> Any:
        done = train(method, *rest)
        next(method.backbone.parameters()).data.fill_(torch.nan)
        return done

    monkeypatch.setattr(pretrain, "train", broken)
    data = TinyData(60, 30, views=two_views(), num_workers=0)
    found, _ = pretrained(tmp_path, data, probes={"half": {"labels": True}}, other_data=other_data)
    assert "not finite" in found["verdict"]
    assert "probes" not in found


def test_a_probe_without_labels_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^stage\.probes\.half: data has no labels, and stage=knn"):
        one("knn", TinyData(60, 30), tmp_path, probes={"half": {"labels": False}}, other_data=other_data)
    with pytest.raises(UserError, match=r"leave out stage\.augmented=true"):
        one("linear", TinyData(6, 3), tmp_path, probes={"a": {"labels": True}}, other_data=other_data, augmented=True)


def test_what_was_held_out_by_the_names_goes_with_their_pattern() -> None:
    data = {"labels": "{label}_{group}_*", "group": None, "held_out": ["jackson"], "seed": 1}
    speaker = {"labels": "*_{label}_*"}
    assert changed(data, speaker) == {**data, **speaker, "held_out": None}
    assert changed(data, {**speaker, "held_out": "x"})["held_out"] == "x"
    patients = {"labels": "table.csv", "label_column": "sex", "group": "patient", "held_out": ["p7"]}
    assert changed(patients, {"label_column": "age"}) == {**patients, "label_column": "age"}
    assert changed(patients, {"labels": "other.csv"})["held_out"] == ["p7"]


def test_it_is_typed_with_or_without_its_stage(tmp_path: Path) -> None:
    words = ["stage=knn", "data=shapes", f"ckpt={a_run(tmp_path / 'run')}", "probes={other:{image_seed:3}}"]
    typed = parse(words).overrides
    assert typed[-1] == "stage.probes={other:{image_seed:3}}"
    config = compose(typed)
    check(config)
    assert config.values["stage"]["probes"] == {"other": {"image_seed": 3}}


@pytest.mark.parametrize(
    ("probes", "line"),
    [
        (
            "{other:{image_sed:3}}",
            r"stage.probes.other: .*Shapes takes no argument 'image_sed'. Did you mean 'image_se",
        ),
        ("{other:{size:-1}}", r"stage.probes.other.size=-1 is out of range"),
        ("{other:3}", "stage.probes.other must be a mapping of the data keys to change"),
        ("{other:{_target_:os.system}}", r"'os.system' may not be named in a config"),
        ("{other:{_target_:torch.nn.Identity}}", "changes keys of the data, not their class"),
        ("3", "stage.probes wants a mapping"),
    ],
)
def test_what_is_no_change_of_the_data_is_a_line(probes: str, line: str, tmp_path: Path) -> None:
    words = ["stage=linear", "data=shapes", f"ckpt={a_run(tmp_path / 'run')}", f"stage.probes={probes}"]
    with pytest.raises(UserError, match=line):
        check(compose(words))
