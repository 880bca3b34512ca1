"""Config nodes: what may be named, what fits, what is built."""

import functools
import inspect
import math
import subprocess
import sys
from typing import Any

import pytest

from ssl_lightning.config import allowed, signatures
from ssl_lightning.config import instantiate as building
from ssl_lightning.config.allowed import ANYWHERE
from ssl_lightning.config.instantiate import load, signature_of
from ssl_lightning.config.slots import slot_for
from ssl_lightning.core.errors import UserError

HERE = "tests.standin"
TAKES = (*ANYWHERE, slot_for(f"{HERE}.Base"), slot_for(f"{HERE}.Point"))


def node(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **arguments}


def build(config: Any, **extra: Any) -> Any:
    return building.instantiate(config, ("tests",), TAKES, **extra)


def check(config: Any, trusted: tuple[str, ...] = (), where: str = "", injected: tuple[str, ...] = ()) -> None:
    building.check(config, trusted, where, injected, TAKES)


# ---- the allow-list ------------------------------------------------------------------------------------------------


def test_a_known_package_is_no_slip_of_another() -> None:
    with pytest.raises(UserError, match=r"'torchvision' cannot be trusted either: write a class of your own$"):
        building.check(
            {"_target_": "torchvision.models.resnet18"}, where="backbone", takes=(slot_for("torch.nn.Module"),)
        )


@pytest.mark.parametrize(
    "target",
    ["torch.nn.Linear", "torch.optim.SGD", "lightning.pytorch.callbacks.Timer", "timm.optim.Lamb"],
)
def test_known_homes_are_allowed(target: str) -> None:
    assert allowed.listed(target, ANYWHERE)
    assert inspect.isclass(load(target))


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "urllib.request.urlretrieve",
        "lightning.fabric.utilities.cloud_io._load",
        "timm.create_model",
        "lightning.Trainer",
        "lightning.pytorch.callbacks.LambdaCallback",
        "torch.nn_other.Thing",
        "tests.standin.Base",
        "ssl_lightning.cli.sweep.run_process",
        "ssl_lightning.cli.command.main",
        "torch.nn.Linear.__init__.__globals__",
    ],
)
def test_all_else_is_refused(target: str) -> None:
    for attempt in (check, building.instantiate, lambda n: load(n["_target_"])):
        with pytest.raises(UserError, match="may not be named"):
            attempt({"_target_": target})


@pytest.mark.parametrize(
    ("target", "trusted"),
    [
        ("torch.nn.functional.torch.load", ()),  # through a module that an allowed module imports
        ("ssl_lightning.runs.checkpoint.torch.load", ()),
        ("ssl_lightning.runs.folder.os.remove", ()),
        ("tests.standin.urlretrieve", ("tests",)),  # through a function that a trusted module imports
        ("tests.standin.os.system", ("tests",)),
    ],
)
def test_no_way_around_through_what_allowed_modules_import(target: str, trusted: tuple[str, ...]) -> None:
    for attempt in (lambda: check({"_target_": target}, trusted), lambda: load(target, trusted)):
        with pytest.raises(UserError, match=r"may not be named|does not exist|no module"):
            attempt()


def test_trusted_packages_are_whole_names() -> None:
    assert allowed.listed("tests.standin.Base", ANYWHERE, ["tests"])
    assert not allowed.listed("testsuite.Base", ANYWHERE, ["tests"])


def test_hint_for_a_package_of_ones_own() -> None:
    with pytest.raises(UserError, match=r"trusted_packages=\[photos\]"):
        check({"_target_": "photos.Loader"})
    with pytest.raises(UserError, match="Did you mean 'ssl_lightning'"):
        check({"_target_": "ssl_lightnin.models.resnet.resnet"})
    with pytest.raises(UserError, match=r"Of torch these may: classes of torch\.nn, classes of torch\.optim"):
        check({"_target_": "torch.load"})


@pytest.mark.parametrize("target", [f"{HERE}.Engine", f"{HERE}.made_by_call"])
def test_only_classes_and_functions(target: str) -> None:
    with pytest.raises(UserError, match="neither a class nor a function"):
        build({"_target_": target, "x": 1})


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("ssl_lightning.losses.nt_xent.NTXnt", "NTXent"),
        ("ssl_lightning.losses.nt_xnt.NTXent", "nt_xent"),
        ("torch.nn.Linea", "Linear"),
        ("tests.standin.Bse", "Base"),
    ],
)
def test_misspelt_target(target: str, right: str) -> None:
    with pytest.raises(UserError, match=f"does not exist.*Did you mean '{right}'"):
        check({"_target_": target}, ("tests",))


def test_a_place_takes_its_own_classes_alone() -> None:
    for takes, right, wrong in (
        ("backbone", "torch.nn.Flatten", "torch.optim.SGD"),
        ("scheduler", "ssl_lightning.optim.schedules.Constant", "torch.nn.Flatten"),
        ("callbacks", "lightning.pytorch.callbacks.ModelSummary", "ssl_lightning.losses.koleo.KoLeo"),
        ("stage", "ssl_lightning.stages.knn.run", "ssl_lightning.models.resnet.resnet"),
    ):
        assert load(right, (), allowed.PLACES[takes]) is load(right)
        for attempt in (
            lambda wrong=wrong, takes=takes: load(wrong, (), allowed.PLACES[takes]),
            lambda wrong=wrong, takes=takes: building.check({"_target_": wrong}, takes=allowed.PLACES[takes]),
        ):
            with pytest.raises(UserError, match=r"may not be named|which this place takes"):
                attempt()


def test_a_deeper_place_takes_what_its_annotation_says() -> None:
    teacher = {"_target_": "ssl_lightning.parts.ema_teacher.EMATeacher", "momentum": 0.99}
    linear = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
    method = {"_target_": "ssl_lightning.methods.byol.BYOL", "_partial_": True, "teacher": teacher}
    check(method)
    for wrong in ({"teacher": linear}, {"projector": teacher}):
        with pytest.raises(UserError, match=r"may not be named|is no Module"):
            check(method | wrong)
        with pytest.raises(UserError, match=r"may not be named|is no Module"):
            building.instantiate(method | wrong)


def test_a_base_that_only_importing_tells_is_looked_at_when_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check from sources may not know all bases; the one at build is what holds."""
    monkeypatch.setattr("ssl_lightning.config.slots.may_fit", lambda *args: True)
    check({"_target_": f"{HERE}.Point", "x": 1}, ("tests",))
    with pytest.raises(UserError, match="which this place takes"):
        building.instantiate({"_target_": f"{HERE}.Point", "x": 1}, ("tests",))


def test_a_base_that_sources_tell_is_looked_at_before_any_import() -> None:
    with pytest.raises(UserError, match="which this place takes"):
        building.check({"_target_": f"{HERE}.Point", "x": 1}, ("tests",))


def test_a_function_is_looked_at_when_it_is_imported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_lightning.config.names._is_builder", lambda *args: True)
    assert load(f"{HERE}.twice", ("tests",), TAKES)
    for wrong in (f"{HERE}.runs", "ssl_lightning.callbacks.view_mosaic.show", "timm.optim.create_optimizer_v2"):
        with pytest.raises(UserError, match="is a function"):
            load(wrong, ("tests",), TAKES)


# ---- argument names ------------------------------------------------------------------------------------------------


def test_wrong_argument_is_answered_with_the_nearest() -> None:
    message = r"^method\.head: standin.Base takes no argument 'widht'. Did you mean 'width'\?$"
    with pytest.raises(UserError, match=message):
        check({"head": node("Base", widht=3)}, ("tests",), "method")


def test_names_are_followed_up_while_kwargs_are_passed_on() -> None:
    check(node("Child", width=3, ratio=0.5, engine="worker"), ("tests",))
    with pytest.raises(UserError, match="Did you mean 'ratio'"):
        check(node("Child", width=3, rato=0.5), ("tests",))
    assert set(signature_of(f"{HERE}.Child", ("tests",)).params) == {
        "width",
        "ratio",
        "flag",
        "name",
        "part",
        "engine",
        "betas",
    }


def test_a_missing_argument_is_named_unless_it_is_injected_or_the_node_partial() -> None:
    with pytest.raises(UserError, match=r"needs 'width'; add \+part.width=\.\.\."):
        check(node("Base"), ("tests",), "part")
    check(node("Base"), ("tests",), "part", injected=("width",))
    check(node("Base", _partial_=True), ("tests",), "part")


def test_a_module_without_own_arguments_takes_none() -> None:
    with pytest.raises(UserError, match="takes no argument 'size'"):
        check({"_target_": "torch.nn.Flatten", "size": 3})


@pytest.mark.parametrize(
    "target",
    [
        *(f"{HERE}.{n}" for n in ("Base", "Child", "Point", "stage")),
        "torch.nn.Linear",
        "torch.optim.AdamW",
        "lightning.pytorch.callbacks.ModelCheckpoint",
    ],
)
def test_source_and_import_tell_the_same_signature(target: str) -> None:
    """The reader of sources against `inspect` on the imported thing."""
    thing = load(target, ("tests",), TAKES)
    found = signatures.read(target)
    assert found is not None
    listed = {p.name: p for p in inspect.signature(thing).parameters.values() if p.kind is not p.VAR_KEYWORD}
    assert listed.keys() <= found.params.keys()
    needed = {name for name, param in listed.items() if param.default is param.empty}
    assert {name for name in listed if found.params[name].required} == needed


def test_a_constructor_of_its_own_is_read_without_its_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(module: str, base: object) -> None:
        raise AssertionError(f"{module}: a base was read")

    monkeypatch.setattr(signatures, "_of_base", never)
    signatures.read.cache_clear()
    found = signatures.read("ssl_lightning.methods.base.SSLMethod")
    assert found is not None
    assert "backbone" in found.params


def test_checks_import_nothing_heavy() -> None:
    program = """
import sys
from ssl_lightning.config.instantiate import check, check_arguments
check_arguments("lightning.Trainer", {"max_epochs": 3, "precision": "bf16-mixed"}, (), "trainer")
check({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1})
check({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 4})
check({"_target_": "timm.optim.Lamb", "_partial_": True})
check({"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/probe_top1"})
check({"_target_": "ssl_lightning.models.resnet.resnet", "name": "resnet18"})
assert not {"torch", "lightning", "timm", "torchvision"} & set(sys.modules), "something heavy came in"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- values --------------------------------------------------------------------------------------------------------


def test_a_list_of_choices_names_them() -> None:
    for stage, kinds in (("embed", "npz, parquet, csv"), ("export", "safetensors")):
        with pytest.raises(UserError, match=rf"formats wants a list of any of {kinds}.*, not \['xlsx'\]"):
            check({"_target_": f"ssl_lightning.stages.{stage}.run", "_partial_": True, "formats": ["xlsx"]})
    with pytest.raises(UserError, match=r"lines wants a list of any of finetune, linear, .*, not \['foo'\]"):
        check({"_target_": "ssl_lightning.stages.label_curve.run", "_partial_": True, "lines": ["foo"]})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (node("Base", width="big"), "width wants an integer, not 'big'"),
        (node("Base", width=1.5), "width wants an integer, not 1.5"),
        (node("Base", width=True), "width wants an integer, not True"),
        (node("Base", width=None), "width wants an integer, not null"),
        (node("Base", width=1, ratio="1,5"), "ratio wants a number"),
        (node("Base", width=1, flag=1), "flag wants true or false, not 1"),
        (node("Base", width=1, name=[1]), "name wants text or null"),
        (node("Child", width=1, engine="devise"), "one of device, worker, not 'devise'. Did you mean 'device'?"),
        (node("Child", width=1, betas=[0.9]), "betas wants a list of 2"),
        (node("Child", width=1, betas=0.9), "betas wants a list of 2"),
        (node("Point", x=1, sizes=[1, "a"]), "sizes wants a list"),
        (node("Point", x=1, y="high"), "y wants a number or null"),
        (node("Point", x=1, make=3), "make wants a node with a _target_ or null"),
    ],
)
def test_wrong_values(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(config, ("tests",))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_become_what_the_annotation_says() -> None:
    child = build(node("Child", width=3, ratio=2, betas=[1, 0.5], name=7))
    assert (child.width, child.ratio, child.betas, child.name) == (3, 2.0, (1.0, 0.5), "7")
    assert isinstance(child.ratio, float)
    point = build(node("Point", x=1, y=None, sizes=[1, 2, 3], either=1))
    assert (point.x, point.y, point.sizes) == (1.0, None, (1, 2, 3))
    assert type(point.either) is int  # int | float: 1 batch is not all of them
    assert type(build(node("Point", x=1, either=1.0)).either) is float


# ---- building ------------------------------------------------------------------------------------------------------


def test_nested_nodes_lists_partials_and_extras() -> None:
    parts = [node("Base", width=1), {"plain": [1, node("Base", width=2)]}]
    child = build(node("Child", part=parts, name="a"), width=9)
    assert child.width == 9
    assert child.part[0].width == 1
    assert child.part[1]["plain"][1].width == 2
    maker = build(node("Base", _partial_=True, ratio=3))
    assert isinstance(maker, functools.partial)
    assert maker(width=4).ratio == 3.0
    assert build(node("Point", x=1, make=node("Base", _partial_=True))).make(5).width == 5
    assert build(node("twice", x=2, other=1)).width == 4
    assert build({"a": 1, "b": [None, "c"]}) == {"a": 1, "b": [None, "c"]}
    assert build(None) is None


def test_errors_inside_a_constructor_keep_their_own_kind() -> None:
    with pytest.raises(ZeroDivisionError):
        build(node("broken"))


def test_nan_and_infinity_are_numbers() -> None:
    assert math.isinf(build(node("Point", x=math.inf)).x)


def test_a_package_of_ones_own_that_is_not_found_is_said_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"there is no module 'nowhere_mine'\. Start from the folder .* PYTHONPATH\.$"):
        load("nowhere_mine.Net", ["nowhere_mine"])
    with pytest.raises(UserError, match=r"there is no module 'tests\.nowhere'\.$"):
        load("tests.nowhere.Net", ["tests"])
