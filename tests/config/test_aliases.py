"""Former names of classes and modules: read as those of today, in every place that names one, and never a way round."""

import ast
import importlib
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ssl_lightning
from ssl_lightning import load_backbone
from ssl_lightning.cli.compose import compose
from ssl_lightning.config import aliases, allowed, shims, signatures
from ssl_lightning.config.aliases import MODULES, NAMES, old_targets, resolve, resolved
from ssl_lightning.config.allowed import MODULE
from ssl_lightning.config.instantiate import check, instantiate, load
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.parts.queue import Queue
from ssl_lightning.runs import card, inert, places, torch_files
from ssl_lightning.runs.folder import RunFolder

FIXTURES = Path(__file__).parents[1] / "fixtures"
ENTRIES = {**MODULES, **NAMES}
FORMER = "ssl_lightning.models.small.Net"  # of no table but those of these tests


def found(dotted: str) -> Any:
    """What an importer gets for a dotted name: a module, or a name of one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module(dotted)
        except ModuleNotFoundError:
            module, _, name = dotted.rpartition(".")
            return getattr(importlib.import_module(module), name)


# ---- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", sorted(ENTRIES))
def test_an_entry_leads_to_something_that_is_there(old: str) -> None:
    new = resolve(old)
    assert new != old
    assert resolve(new) == new, "a circle"
    assert new.startswith("ssl_lightning.")
    assert found(old) is found(new)


def test_no_former_name_is_in_use_again() -> None:
    for old in MODULES:
        place = Path(ssl_lightning.__file__).parent.joinpath(*old.split(".")[1:])
        assert not place.with_suffix(".py").exists(), old
        assert not (place / "__init__.py").exists(), old


def test_what_a_config_could_name_can_still_be_named() -> None:
    """Each class, builder and stage that a config of November 2026 could name."""
    for path in (FIXTURES / "class_paths.txt").read_text().split():
        assert callable(load(path)), path
        assert signatures.read(path) is not None, path


def test_what_users_import_can_still_be_imported() -> None:
    for path in (FIXTURES / "imports.txt").read_text().split():
        assert found(path) is not None, path


def test_names_are_resolved_by_their_longest_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "ssl_lightning.a": "ssl_lightning.b",
        "ssl_lightning.b.c": "ssl_lightning.d",
        "ssl_lightning.ab": "ssl_lightning.x",
    }
    monkeypatch.setattr(aliases, "MODULES", entries)
    monkeypatch.setattr(
        aliases, "NAMES", {"ssl_lightning.a.m.Old": "ssl_lightning.a.m.New", "ssl_lightning.y": "ssl_lightning.y"}
    )
    assert resolve("ssl_lightning.a.m.Thing") == "ssl_lightning.b.m.Thing"
    assert resolve("ssl_lightning.a.c.Thing") == "ssl_lightning.d.Thing"  # a move of a move
    assert resolve("ssl_lightning.a.m.Old") == "ssl_lightning.b.m.New"  # renamed, then moved
    assert resolve("ssl_lightning.abc.Thing") == "ssl_lightning.abc.Thing"  # whole words only
    assert resolve("ssl_lightning.y") == "ssl_lightning.y"
    for other in ("other.a.m.Old", "ssl_lightning", "", "ssl_lightning.", "a", "xssl_lightning.a", "ssl_lightning..a"):
        assert resolve(other) == other
    monkeypatch.setattr(
        aliases, "MODULES", {"ssl_lightning.a": "ssl_lightning.b", "ssl_lightning.b": "ssl_lightning.a"}
    )
    resolve("ssl_lightning.a.X")  # a circle ends


def test_only_targets_change() -> None:
    old, new = "ssl_lightning.models.queue.Queue", "ssl_lightning.parts.queue.Queue"
    node = {"_target_": old, "text": old, "inner": [{"_target_": old}, {"x": ({"_target_": 3},)}], "_target": old}
    assert resolved(node) == {
        "_target_": new,
        "text": old,
        "inner": [{"_target_": new}, {"x": ({"_target_": 3},)}],
        "_target": old,
    }
    assert node["_target_"] == old  # a copy
    assert old_targets(node, "a") == {"a._target_": new, "a.inner.0._target_": new}


# ---- a table of our own, with modules that exist for these tests alone ----------------------------------------------

SOURCE = '''"""A module that moved."""
from torch import nn
from ssl_lightning.models.convnet import ConvNetSmall
class Kept(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width
class Renamed(ConvNetSmall):
    def __init__(self, width: int = 48, in_channels: int = 3) -> None:
        super().__init__(width, in_channels)
def helper() -> int:
    return 7
'''
NEW = "ssl_lightning.now_room"
WHOLE = {"ssl_lightning.former_room": NEW, "ssl_lightning.models.former_mod": f"{NEW}.inner"}
SINGLE = {
    "ssl_lightning.models.former_mod.Gone": f"{NEW}.inner.Renamed",
    "ssl_lightning.staying_room.inner.Left": f"{NEW}.inner.Kept",
    "ssl_lightning.scattered.One": f"{NEW}.inner.Kept",
    "ssl_lightning.scattered.two": f"{NEW}.inner.helper",
}
WORDS = ("former_room", "now_room", "staying_room", "scattered", "former_mod")


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package and a module that moved, a module that stays and lacks a class, one whose names went several ways."""
    for room in ("now_room", "staying_room"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f'"""{room}"""')
        (tmp_path / room / "inner.py").write_text(SOURCE)
    homes = {**MODULE.homes, f"{NEW}.": allowed.ALL}
    paths, before = ssl_lightning.__path__, MODULE.homes
    paths.append(str(tmp_path))
    object.__setattr__(MODULE, "homes", homes)
    monkeypatch.setattr(aliases, "MODULES", {**MODULES, **WHOLE})
    monkeypatch.setattr(aliases, "NAMES", {**NAMES, **SINGLE})
    signatures.module_file.cache_clear()
    yield
    paths.remove(str(tmp_path))
    object.__setattr__(MODULE, "homes", before)
    for cached in (signatures.module_file, signatures.names, signatures.read):
        cached.cache_clear()
    for name in [name for name in sys.modules if any(word in name for word in WORDS)]:
        del sys.modules[name]
    for word in WORDS:
        vars(ssl_lightning).pop(word, None)
        vars(ssl_lightning.models).pop(word, None)


def imported(module: str) -> Any:
    return importlib.import_module(f"ssl_lightning.{module}")


@pytest.mark.usefixtures("moved")
def test_a_moved_module_is_the_one_at_its_new_place() -> None:
    with pytest.warns(DeprecationWarning, match=r"ssl_lightning.former_room is now ssl_lightning.now_room") as told:
        import ssl_lightning.former_room.inner
    assert told[0].filename == __file__  # the line that imports
    old, new = sys.modules["ssl_lightning.former_room.inner"], imported("now_room.inner")
    assert old is new
    assert old is ssl_lightning.former_room.inner  # type: ignore[attr-defined]
    assert new.__spec__.name == new.__name__ == f"{NEW}.inner"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported("former_room.inner")  # said once
    with pytest.raises(ModuleNotFoundError):
        imported("former_room.nothing")
    with pytest.raises(ModuleNotFoundError):
        imported("former_nothing")


@pytest.mark.usefixtures("moved")
def test_names_that_moved_by_themselves() -> None:
    new = imported("now_room.inner")
    former = found("ssl_lightning.models.former_mod")
    with pytest.warns(DeprecationWarning, match=r"former_mod.Gone is now ssl_lightning.now_room.inner.Renamed"):
        assert former.Gone is new.Renamed
    assert former.Kept is new.Kept
    staying = imported("staying_room.inner")
    with pytest.warns(DeprecationWarning, match=r"staying_room.inner.Left is now"):
        assert staying.Left is new.Kept
    assert staying.Kept is not new.Kept  # the module that stays has its own
    assert staying.__file__.endswith("inner.py")
    scattered = imported("scattered")
    with pytest.warns(DeprecationWarning, match="scattered.two is now"):
        assert scattered.two() == 7
    for module in (former, staying, scattered):
        with pytest.raises(AttributeError, match="has no attribute 'Neither'"):
            _ = module.Neither
    assert {"Gone", "Kept"} <= set(former.__all__)
    assert scattered.__all__ == ["One", "two"]


@pytest.mark.usefixtures("moved")
def test_a_config_may_name_what_it_named() -> None:
    for old, arguments in (("former_room.inner.Kept", {"width": 5}), ("models.former_mod.Gone", {"width": 4})):
        node = {"_target_": f"ssl_lightning.{old}", **arguments}
        check(node, takes=(MODULE,))
        assert type(instantiate(node, takes=(MODULE,))).__module__ == f"{NEW}.inner"
        with pytest.raises(UserError, match="takes no argument 'widht'"):
            check({**node, "widht": 3}, takes=(MODULE,))
    with pytest.raises(UserError, match="is a function"):
        check({"_target_": "ssl_lightning.scattered.two"}, takes=(MODULE,))


@pytest.mark.usefixtures("moved")
def test_a_pickle_of_a_moved_class(tmp_path: Path) -> None:
    """Ours is read without any class; a user's own torch.load finds the class at its new place."""
    module = imported("now_room.inner")
    net = module.Renamed(4)
    torch.save({"state_dict": net.state_dict(), "net": net}, tmp_path / "now.pt")
    old, new = b"ssl_lightning.former_room.inner", b"ssl_lightning.now_room.inner"
    with zipfile.ZipFile(tmp_path / "now.pt") as now, zipfile.ZipFile(tmp_path / "old.pt", "w") as before:
        for name in now.namelist():
            content = now.read(name)
            if name.endswith("data.pkl"):  # a text of a pickle has its length before it
                content = content.replace(b"c" + new + b"\n", b"c" + old + b"\n")
                assert old in content
            before.writestr(name, content)
    with open(tmp_path / "old.pt", "rb") as file:
        content = torch_files.read(file)
    assert torch.equal(content["state_dict"]["conv1.0.weight"], net.conv1[0].weight)
    assert isinstance(content["net"], inert.Thing)
    with pytest.warns(DeprecationWarning, match="former_room is now"):
        assert type(torch.load(tmp_path / "old.pt", weights_only=False)["net"]) is module.Renamed


# ---- where names come in ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("moved")
def test_a_card_and_a_config_with_former_names(tmp_path: Path) -> None:
    from ssl_lightning.runs.checkpoint import save_backbone
    from ssl_lightning.runs.known import of

    node = {"_target_": "ssl_lightning.former_room.inner.Kept"}
    told = card.described({"backbone": node}, "x")
    assert told["backbone"]["_target_"] == "ssl_lightning.now_room.inner.Kept"
    with pytest.raises(UserError, match="is no encoder of ours"):  # a name that has moved is no way round the list
        card.backbone_of({"backbone": node})
    run = tmp_path / "a_run"
    save_backbone(ConvNetSmall(4), {**node, "width": 4}, run, image_size=16)
    config = {
        "name": "a",
        "seed": 0,
        "resume": "auto",
        "data": {"_target_": "ssl_lightning.former_room.inner.Gone"},
        "trainer": {},
        "backbone": node,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert places.config_of(run)["backbone"]["_target_"] == "ssl_lightning.now_room.inner.Kept"
    known = of(str(run))
    assert known is not None
    assert known.card["backbone"]["_target_"] == "ssl_lightning.now_room.inner.Kept"
    assert known.data["_target_"] == "ssl_lightning.now_room.inner.Gone"
    with pytest.raises(UserError, match="is no encoder of ours"):
        load_backbone(run)


def test_an_encoder_that_moved_is_built_from_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_lightning.runs.checkpoint import save_backbone

    monkeypatch.setattr(aliases, "NAMES", {FORMER: "ssl_lightning.models.convnet.ConvNetSmall"})
    node = {"_target_": FORMER, "width": 4}
    save_backbone(ConvNetSmall(4), node, tmp_path, image_size=16)
    assert type(load_backbone(tmp_path)) is ConvNetSmall


def test_a_users_yaml_and_words_with_former_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "NAMES", {FORMER: "ssl_lightning.models.convnet.ConvNetSmall"})
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text(f"_target_: {FORMER}\nwidth: 4\n")
    for words, folder in ((["backbone=mine"], tmp_path), ([f"backbone._target_={FORMER}"], None)):
        config = compose(words, folder)
        assert config.values["backbone"]["_target_"] == "ssl_lightning.models.convnet.ConvNetSmall"
        assert config.stored["backbone"] == config.values["backbone"]


def test_a_run_of_a_former_name_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["backbone.width=4"]).stored
    old = yaml.safe_load(yaml.safe_dump(config))
    old["backbone"]["_target_"] = FORMER
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    (tmp_path / "metrics.csv").write_text("step\n")
    assert "backbone._target_" in str(RunFolder(tmp_path).refusal(config))
    monkeypatch.setattr(aliases, "NAMES", {FORMER: "ssl_lightning.models.convnet.ConvNetSmall"})
    assert RunFolder(tmp_path).refusal(config) is None
    old["backbone"]["width"] = 8
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert "backbone.width: 8 -> 4" in str(RunFolder(tmp_path).refusal(config))


def test_an_alias_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it stands for is asked about: a table that led astray would still open no module that is not listed."""
    for new in (
        "os.system",
        "ssl_lightning.runs.saving.load",
        "ssl_lightning.models.queue._private",
        "ssl_lightning.runs.checkpoint.Pretrained",
    ):
        monkeypatch.setattr(aliases, "NAMES", {FORMER: new})
        for ask in (check, instantiate):
            with pytest.raises(UserError, match="may not be named in a config"):
                ask({"_target_": FORMER}, takes=(MODULE,))
        with pytest.raises(UserError, match="may not be named in a config"):
            load(FORMER, takes=(MODULE,))
    for strange in (3, None, ["x"], {"a": 1}):
        with pytest.raises(UserError):
            check({"_target_": strange}, takes=(MODULE,))


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_the_finder_is_light_and_there_once() -> None:
    code = """
import sys, ssl_lightning
ssl_lightning.shims.install()
heavy = ("torch", "lightning", "hydra", "yaml", "inspect")
finders = [type(finder).__name__ for finder in sys.meta_path]
print(finders.count("Finder"), *(name for name in heavy if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_the_table_needs_nothing_of_ours() -> None:
    for module in (aliases, shims):
        text = ast.parse(Path(module.__file__).read_text())
        ours = [
            node.module
            for node in ast.walk(text)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ssl_lightning")
        ]
        assert set(ours) <= {"ssl_lightning.config"}


def test_the_first_move() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ssl_lightning.models.queue import Queue as former
    assert former is Queue
    assert type(instantiate({"_target_": "ssl_lightning.models.queue.Queue", "size": 4, "dim": 2})) is Queue
