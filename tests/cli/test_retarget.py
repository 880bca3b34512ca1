"""`_target_=` on the command line: arguments of the class before are left out, and what was typed is asked to fit."""

from pathlib import Path

import pytest

from ssl_lightning.cli import arguments, command
from ssl_lightning.cli.compose import Config, compose
from ssl_lightning.cli.run import check
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.folder import flatten

SGD = "optimizer=sgd"
ADAM = "optimizer.optimizer._target_=torch.optim.Adam"


def checked(*words: str) -> Config:
    config = compose(words)
    check(config)
    return config


@pytest.mark.parametrize(
    ("words", "part", "gone", "kept"),
    [
        ([SGD, ADAM], "optimizer.optimizer", {"momentum"}, {"_target_", "_partial_"}),
        (
            ["scheduler._target_=ssl_lightning.optim.schedules.Constant"],
            "scheduler",
            {"min_lr", "warmup_epochs"},
            {"extend"},
        ),
        (["method.loss._target_=ssl_lightning.losses.byol.BYOLLoss"], "method.loss", {"temperature", "form"}, set()),
        (["backbone._target_=ssl_lightning.models.vit.ViT"], "backbone", {"width"}, {"in_channels"}),
        (["backbone._target_=torch.nn.Identity"], "backbone", {"width", "in_channels"}, set()),
        (
            ["data._target_=ssl_lightning.modalities.image.sources.cifar.CIFAR10"],
            "data",
            {"size", "test_size"},
            {"batch_size"},
        ),
    ],
)
def test_what_the_new_class_does_not_take_is_left_out(
    words: list[str], part: str, gone: set[str], kept: set[str]
) -> None:
    config = checked(*words)
    here = {key.removeprefix(f"{part}.") for key in flatten(config.values) if key.startswith(f"{part}.")}
    assert here & gone == set()
    assert kept <= here
    (line,) = config.said
    assert all(f"{part}.{key}" in line for key in gone)
    assert line.startswith("left out: ")


def test_what_is_typed_is_asked_to_fit() -> None:
    with pytest.raises(UserError, match=r"^optimizer\.optimizer: optim\.Adam takes no argument 'momentum'\. It takes "):
        checked(SGD, ADAM, "optimizer.optimizer.momentum=0.5")
    with pytest.raises(UserError, match="takes no argument 'momentum'"):
        checked(SGD, "optimizer.optimizer.momentum=0.5", ADAM)
    checked(SGD, ADAM, "+optimizer.optimizer.amsgrad=true")


def test_what_refers_to_a_key_that_is_left_out_keeps_its_value() -> None:
    words = ["method=byol", "method.projector._target_=torch.nn.Flatten"]
    before, after = compose(words[:1]).values["method"], compose(words).values["method"]
    assert "hidden_dim" not in after["projector"]
    assert after["predictor"] == before["predictor"]


def test_a_class_that_is_not_there_is_said_first() -> None:
    with pytest.raises(UserError, match="Did you mean 'ConvNetSmall'"):
        checked("backbone._target_=ssl_lightning.models.convnet.ConvNetSmal")
    with pytest.raises(UserError, match="may not be named"):
        checked("backbone._target_=os.system")


def test_a_key_that_a_yaml_brings_and_its_class_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "backbone").mkdir()
    text = "defaults: [convnet_small]\n_target_: torch.nn.Identity\n"
    (tmp_path / "backbone" / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        check(compose(["backbone=mine"], tmp_path))
    assert "takes no argument 'width'" in str(refused.value)
    assert str(refused.value).endswith("It comes from a yaml: leave it out with ~backbone.width")
    check(compose(["backbone=mine", "~backbone.width", "~backbone.in_channels"], tmp_path))
    with pytest.raises(UserError, match=r"takes no argument 'size'\. It takes .*[^h]$"):
        check(compose(["+backbone.size=3"]))


def test_the_config_that_is_shown_is_the_one_that_runs() -> None:
    shown = command.show_config(arguments.parse(["--cfg", "job", SGD, ADAM]))
    assert "torch.optim.Adam" in shown
    assert "momentum: 0.9" not in shown.partition("optimizer:")[2].partition("scheduler:")[0]
