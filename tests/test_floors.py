"""Imports only go down. Read from the sources, imports inside functions and for type checking alone aside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ssl_lightning"

# From the top. Rooms on one floor do not import each other, except a floor of small files that are one room together.
FLOORS = [
    ["__main__"],
    ["api"],
    ["cli"],
    ["stages"],
    ["methods"],
    ["tasks"],
    ["callbacks"],
    ["reports"],
    ["modalities"],
    ["evaluation"],
    ["models"],
    ["losses"],
    ["parts"],
    ["optim"],
    ["data"],
    ["runs"],
    ["config"],
    ["core"],
]
FLOOR_OF = {name: i for i, floor in enumerate(FLOORS) for room in floor for name in room.split()}
ROOM_OF = {name: room for floor in FLOORS for room in floor for name in room.split()}
ONLY_THERE = {
    "hydra": {"__main__", "cli", "picks"},
    "omegaconf": {"__main__", "command", "cli", "picks"} | {"retarget", "cli"},
    "wandb": {"callbacks"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(node: ast.AST, top_only: bool = False) -> Iterator[str]:
    """Absolute names of what a module imports; `top_only`: what importing it imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not (top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imports(child, top_only)


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def named(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_imports_go_down(file: Path) -> None:
    here = room(file)
    if here == "__init__":
        return
    assert here in FLOOR_OF, f"{here} has no floor: add it to FLOORS"
    for name in imports(tree(file)):
        top, _, rest = name.partition(".")
        there = rest.split(".")[0]
        if top != "ssl_lightning" or there in ("", "__version__"):
            continue
        assert there in FLOOR_OF, f"{name} has no floor: add it to FLOORS"
        if ROOM_OF[there] != ROOM_OF[here]:
            assert FLOOR_OF[there] > FLOOR_OF[here], f"{here} may not import {there}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_some_packages_are_known_to_few(file: Path) -> None:
    for name in imports(tree(file)):
        allowed = ONLY_THERE.get(name.split(".")[0])
        assert allowed is None or room(file) in allowed, f"{named(file)} may not import {name}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_wandb_comes_with_its_logger_alone(file: Path) -> None:
    top = {name.split(".")[0] for name in imports(tree(file), top_only=True)}
    assert "wandb" not in top or file.stem == "wandb_logger"


def test_what_answers_before_torch_does_not_import_it() -> None:
    """Everything a mistake or `--help` passes through."""
    entry = (
        "__init__",
        "__main__",
        "cli/command",
        "cli/arguments",
        "cli/help",
        "cli/sweep",
        "cli/ledger",
        "runs/devices",
        "cli/config_loader",
    )
    light: tuple[str, ...] = (
        "cli/run",
        "cli/compose",
        "core/errors",
        "config/instantiate",
        "runs/folder",
        "config/signatures",
        "config/typecheck",
    )
    for stem in (
        *entry,
        *light,
        "config/allowed",
        "cli/run_parts",
        "config/names",
        "config/slots",
        "core/launch",
        "core/crew",
        "core/hub",
        "core/member",
        "cli/ranks",
        "core/signals",
        "runs/earlier",
        "runs/places",
        "core/secrets",
        "config/ranges",
        "core/one_line",
        "cli/slips",
        "config/__init__",
        "config/aliases",
        "config/shims",
    ):
        top = {name.split(".")[0] for name in imports(tree(PACKAGE / f"{stem}.py"), top_only=True)}
        assert not top & {"torch", "lightning", "torchvision", "timm", "matplotlib"}, stem


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_file_says_what_it_is_for_and_stays_short(file: Path) -> None:
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{named(file)} has no docstring"
    assert len(text.splitlines()) <= 300, f"{named(file)} is too long: split it"
