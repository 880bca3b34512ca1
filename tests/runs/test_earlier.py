"""A run that was begun with an earlier version goes on with what it had, whatever recipes say today."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_lightning.__main__ import main
from ssl_lightning.cli.compose import Config
from ssl_lightning.evaluation.linear_probe import ProbeSettings
from ssl_lightning.losses.sup_con import SupConLoss
from ssl_lightning.modalities.image.data import DataModule
from ssl_lightning.modalities.image.draw import View
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.models.decoder import MAEDecoder
from ssl_lightning.models.heads import MLP
from ssl_lightning.models.predictor import TokenPredictor
from ssl_lightning.models.vit import ViT
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.runs import earlier
from ssl_lightning.runs.earlier import CORRECTED, LATER, WITHIN, as_begun
from ssl_lightning.runs.folder import RunFolder, differences
from ssl_lightning.stages import export, finetune, knn
from tests.recipes import NAMES, composed

PUBLISHED = [name for name in NAMES if name.startswith("imagenet")]
WHOSE = [
    DataModule,
    Folder,
    Folder,
    OptimizerRecipe,
    View,
    SupConLoss,
    MAEDecoder,
    TokenPredictor,
    MLP,
    ViT,
    knn.run,
    export.run,
    *[finetune.run] * 9,
    knn.run,
    ProbeSettings,
]


def without(node: Any, pattern: list[str]) -> Any:
    """A mapping without the keys that a pattern stands for."""
    if not isinstance(node, dict):
        return node
    hit = [key for key in node if pattern[0] in ("*", key)]
    if len(pattern) == 1:
        return {key: value for key, value in node.items() if key not in hit}
    return {key: without(value, pattern[1:]) if key in hit else value for key, value in node.items()}


def stored_before(config: Config) -> dict[str, Any]:
    """What the config.yaml of a run says that was begun before all of this."""
    node: Any = dict(config.stored)
    for pattern in LATER:
        part, _, rest = pattern.partition(".")
        for place in (pattern, f"{WITHIN[part]}.{rest}") if part in WITHIN else (pattern,):
            node = without(node, place.split("."))
    for key, (before, now) in CORRECTED.get(config.choices["experiment"], {}).items():
        part, _, rest = key.partition(".")
        for place in (key, f"{WITHIN[part]}.{rest}") if part in WITHIN else (key,):
            *above, last = place.split(".")
            inner = node = yaml.safe_load(yaml.safe_dump(node))
            for word in above:
                inner = inner[word]
            assert inner[last] == now
            inner[last] = before
    return node


def test_what_came_later_has_the_former_value_as_its_default() -> None:
    """So a config without the key builds what it built."""
    for (pattern, before), owner in zip(LATER.items(), WHOSE, strict=True):
        default = inspect.signature(owner).parameters[pattern.rpartition(".")[2]].default
        assert (list(default) if isinstance(default, tuple) else default) == before, pattern


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_run_goes_on_as_it_was_begun(name: str) -> None:
    config = composed(name)
    old = stored_before(config)
    found, _ = as_begun(old, config.stored)
    assert found == old
    again, said = as_begun(config.stored, config.stored)
    assert (again, said) == (config.stored, [])


def test_a_command_line_is_taken_at_its_word(tmp_path: Path) -> None:
    name, typed = "imagenet100/simclr", "data.batch_size=256"
    folder = RunFolder(tmp_path, [typed])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored_before(composed(name))))
    (tmp_path / "metrics.csv").write_text("step\n")
    assert RunFolder(tmp_path).refusal(composed(name).stored) is None
    assert "data.batch_size: 128 -> 256" in str(folder.refusal(composed(name, typed).stored))
    half = composed(name, "data.batch_size=128").stored  # of a run of today, by a word that is missing this time
    assert differences(as_begun(half, composed(name).stored)[0], half)
    more = "data.eval_resize=300"
    assert "eval_resize: (absent) -> 300" in str(RunFolder(tmp_path, [more]).refusal(composed(name, more).stored))
    other = composed(name, "optimizer.base_lr=0.7")
    assert differences(as_begun(stored_before(composed(name)), other.stored)[0], other.stored)


def test_the_run_itself_is_built_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only compared: the values of the stored config reach what is built."""
    small = ["data.size=64", "data.test_size=32", "backbone.width=4", "data.batch_size=16", "stage.judge=false"]
    words = [*small, "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "name=a", f"runs_dir={tmp_path}"]
    assert main(words) == 0
    content = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    content["scheduler"]["warmup_epochs"] = content["optimizer"]["scheduler"]["warmup_epochs"] = 3
    content["choices"]["experiment"] = "toy"  # its present recipe has 10
    del content["data"]["eval_resize"]
    (tmp_path / "a" / "config.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "a" / "results.json").unlink()
    monkeypatch.setitem(earlier.CORRECTED, "toy", {"scheduler.warmup_epochs": (3, 10)})
    built: list[Any] = []

    def watched(self: OptimizerRecipe, *args: Any) -> Any:
        built.append(self.scheduler)
        return build(self, *args)

    build = OptimizerRecipe.build
    monkeypatch.setattr(OptimizerRecipe, "build", watched)
    assert main(words) == 0
    assert [scheduler.warmup_epochs for scheduler in built] == [3]
    assert "kept as this run was started: scheduler.warmup_epochs=3" in capsys.readouterr().out


def test_an_export_from_before_there_were_formats_is_done(tmp_path: Path) -> None:
    now = {"stage": {"_target_": "ssl_lightning.stages.export.run", "formats": ["safetensors"]}}
    old = {"stage": {"_target_": "ssl_lightning.stages.export.run"}}
    assert as_begun(old, now) == (old, [])
    more = {"stage": {**now["stage"], "formats": ["onnx"]}}
    assert differences(as_begun(old, more, ["stage.formats=[onnx]"])[0], old)
