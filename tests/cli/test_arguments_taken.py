"""Any argument of a constructor is typed without a plus; what no constructor takes is still a mistake with a hint."""

import pytest

from ssl_lightning.cli.run import check, compose
from ssl_lightning.core.errors import UserError


@pytest.mark.parametrize(
    "words",
    [
        ["method.projector.bias=true"],
        ["data.worker_timeout=60"],
        ["trainer.val_check_interval=2"],
        ["optimizer.optimizer.eps=1e-5", "data.worker_timeout=60"],
        ["backbone=timm", "backbone.name=resnet10t", "backbone.drop_rate=0.1"],
        ["data=folder", "data.root=x", "data.worker_timeout=60"],
        ["optimizer.optimizer._target_=torch.optim.Adam", "optimizer.optimizer.amsgrad=true"],  # of the typed class
    ],
    ids=" ".join,
)
def test_an_argument_that_no_yaml_states_is_typed_like_others(words: list[str]) -> None:
    config = compose(words)
    check(config)
    assert config.overrides == tuple(words)
    key, _, value = words[-1].partition("=")
    assert compose([*words[:-1], f"++{key}={value}"]).values == config.values


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.projector.biass=true", "there is no 'method.projector.biass'"),
        ("method.backbone=3", "there is no 'method.backbone'"),  # given by the run
        ("method.optimizer=3", "there is no 'method.optimizer'"),
        ("stage.trainer=3", "there is no 'stage.trainer'"),
        ("trainer.callbacks=[]", "there is no 'trainer.callbacks'"),
        ("trainer.devises=2", "Did you mean 'trainer.devices'"),
        ("method.teacher.every=2", "there is no 'method.teacher.every'"),  # SimCLR has no teacher
        ("method.projector._target_x=2", "there is no"),
        ("data.worker_timeout=soon", "data.worker_timeout"),  # known, and of another type
    ],
)
def test_what_no_constructor_takes_is_a_mistake(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(compose([word]))


def test_of_a_typed_class_its_own_arguments_count() -> None:
    """`dampening` is SGD's, the class that stood there; Adam's `amsgrad` is not known before its class is typed."""
    sgd = ["optimizer=sgd", "optimizer.optimizer._target_=torch.optim.Adam"]
    with pytest.raises(UserError, match=r"there is no 'optimizer.optimizer.dampening'"):
        check(compose([*sgd, "optimizer.optimizer.dampening=0.1"]))
    with pytest.raises(UserError, match=r"there is no 'optimizer.optimizer.amsgrad'"):
        check(compose(["optimizer=sgd", "optimizer.optimizer.amsgrad=true"]))
