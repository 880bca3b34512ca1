#!/usr/bin/env python3
# ruff: noqa
"""The mechanical move of files into rooms: python .ci/rooms/move.py CHECKOUT .ci/rooms/rooms.txt [--dry] [--report]

To be used once, when the files move, and removed with that change. Files made since are to be added to rooms.txt.

rooms.txt: lines "old new", files below ssl_lightning/. For each pair that differs: `git mv`, every import and dotted
or slashed path in code, tests, conf, docs, notebooks, benchmarks and pyproject rewritten, the mirrored test moved too,
missing __init__.py made, and an entry in config/aliases.py MODULES. --report only lists imports that point up, of the
checkout as it is (run it after the move). Run `ruff check --fix` and `ruff format` after it: it sorts imports.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FLOORS = """__init__ __main__ / api / cli / stages / methods / tasks / callbacks / reports / modalities / evaluation / models /
losses / parts / optim / data / runs / config / core"""
ORDER = {room: i for i, floor in enumerate(FLOORS.split("/")) for room in floor.split()}
TEXT = (".py", ".yaml", ".yml", ".md", ".ipynb", ".toml", ".txt", ".cfg", "Makefile")
KEEP = ("tests/fixtures/", "CHANGELOG.md", "docs/log.md", "ssl_lightning/config/aliases.py")
DOCS = {
    "api": "The Python entry.",
    "cli": "From words on the command line to a run.",
    "tasks": "What labels mean: head, loss, metric.",
    "runs": "A run's folder: its config, checkpoints, cards and weights.",
    "core": "What every room stands on.",
    "modalities": "What an item is: one folder for each modality.",
    "image": "Images: sources, views, decoding, evaluation view.",
}


def git(root, *words):
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


def dotted(file):
    return ".".join(["ssl_lightning", *Path(file).with_suffix("").parts]).removesuffix(".__init__")


def read_mapping(path):
    pairs = [line.split() for line in Path(path).read_text().splitlines() if line.strip() and not line.startswith("#")]
    return {old: new for old, new in pairs if old != new}


def files_of(root):
    for name in git(root, "ls-files").splitlines():
        if name.endswith(TEXT) and not name.startswith(KEEP) and (root / name).is_file():
            yield name


# ---- rewriting -----------------------------------------------------------------------------------------------------


def rewrite(text, modules, files):
    """Imports by name of a package first (`from ssl_lightning import build`), then every dotted and slashed path."""
    packages = sorted({old.rpartition(".")[0] for old in modules}, key=len, reverse=True)
    for package in packages:
        names = {old.rpartition(".")[2]: new for old, new in modules.items() if old.rpartition(".")[0] == package}
        pattern = (
            rf"(?m)^(?P<pad>[ \t]*(?:>>> |\"|')?)from {re.escape(package)} import (?P<names>\([^)]*\)|[^\n(;#\\\"']+)"
        )
        text = re.sub(pattern, lambda m: _from_package(m, package, names), text)
        inline = rf"(?<=[;\"'])(?P<pad>\s*)from {re.escape(package)} import (?P<names>[\w, ]+)(?=[;\"'])"
        text = re.sub(inline, lambda m: _from_package(m, package, names, "; "), text)
    longest = sorted(modules, key=len, reverse=True)
    text = re.sub(
        r"(?<![\w.])(" + "|".join(map(re.escape, longest)) + r")(?![\w])(?!/)",
        lambda m: modules[m[1]],
        text,
    )
    text = re.sub(
        r"(?<![\w])(" + "|".join(map(re.escape, sorted(files, key=len, reverse=True))) + r")(?![\w])",
        lambda m: files[m[1]],
        text,
    )
    return text


def _from_package(match, package, moved, joint="\n"):
    items = [item.strip() for item in match["names"].strip("()").replace("\n", " ").split(",") if item.strip()]
    found = defaultdict(list)
    for item in items:
        name, _, alias = item.partition(" as ")
        name = name.strip()
        if name not in moved:
            found[package].append(item)
            continue
        home, _, last = moved[name].rpartition(".")
        alias = alias.strip() or (name if last != name else "")
        found[home].append(f"{last} as {alias}" if alias and alias != last else last)
    if list(found) == [package]:
        return match[0]
    pad = match["pad"]
    rest = re.sub(r"[\"'>]", "", pad)
    lines = [f"from {home} import {', '.join(sorted(names))}" for home, names in sorted(found.items())]
    return pad + (joint + rest if joint == "\n" else joint).join(lines)


# ---- the move ------------------------------------------------------------------------------------------------------


def mirrored(root, mapping):
    """tests/<room>/test_x.py of a moved <room>/x.py -> its new room; tests whose target exists already stay."""
    found = {}
    for old, new in mapping.items():
        source, target = Path(old), Path(new)
        here = root / "tests" / source.parent / f"test_{source.stem}.py"
        there = root / "tests" / target.parent / f"test_{target.stem}.py"
        if here.is_file() and not there.exists():
            found[here.relative_to(root).as_posix()] = there.relative_to(root).as_posix()
    return found


def move(root, mapping, dry):
    package = root / "ssl_lightning"
    mapping = {old: new for old, new in mapping.items() if (package / old).is_file()}
    modules = {dotted(old): dotted(new) for old, new in mapping.items()}
    files = {f"ssl_lightning/{old}": f"ssl_lightning/{new}" for old, new in mapping.items()}
    tests = mirrored(root, mapping)
    clash = [new for new in mapping.values() if (package / new).exists() and new not in mapping]
    if clash:
        sys.exit(f"there already: {', '.join(clash)}")
    print(f"{len(mapping)} files and {len(tests)} tests to move")
    if dry:
        return
    for old, new in {**files, **tests}.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        git(root, "mv", old, new)
    for new in mapping.values():
        for parent in list(Path(new).parents)[:-1]:
            init = package / parent / "__init__.py"
            if not init.exists():
                init.write_text(f'"""{DOCS.get(parent.name, parent.name.capitalize())}"""\n')
                git(root, "add", str(init))
    paths = {**files, **tests}
    modules_too = {**modules, **{_module(old): _module(new) for old, new in tests.items()}}
    changed = 0
    for name in files_of(root):
        text = (root / name).read_text()
        new = rewrite(text, modules_too, paths)
        if new != text:
            (root / name).write_text(new)
            changed += 1
    for old, new in tests.items():  # a test that lies deeper looks further up for the root
        deeper = new.count("/") - old.count("/")
        lines = (root / new).read_text().splitlines(keepends=True)
        lines = [
            re.sub(r"(__file__\)(?:\.resolve\(\))?\.parents\[)(\d)", lambda m: f"{m[1]}{int(m[2]) + deeper}", x)
            for x in lines
        ]
        if deeper:
            lines = [
                re.sub(r"(__file__\)(?:\.resolve\(\))?)\.parent\b(?!s)", rf"\1.parents[{deeper}]", x) for x in lines
            ]
        (root / new).write_text("".join(lines))
    for name, old, new in FIXES:
        file = root / name
        if file.is_file() and old in file.read_text():
            file.write_text(file.read_text().replace(old, new))
            changed += 1
    floors(root / "tests" / "test_floors.py", modules)
    print(f"{changed} files rewritten")
    add_aliases(package / "config" / "aliases.py", modules)
    for name in files_of(root):  # what no rewriting can know
        for number, line in enumerate((root / name).read_text().splitlines(), 1):
            other = re.search(r"\w\.__file__", line) and name.startswith("tests/")
            if other or ("__file__" in line and name.startswith("ssl_lightning/")):
                print(f"look: {name}:{number}: {line.strip()}")


def _module(file):
    return file.removesuffix(".py").replace("/", ".")


def floors(file, modules):
    """The floors of the rooms in place of those of the files, and the light files at their new places."""
    text = file.read_text()
    start, end = text.index("FLOORS = ["), text.index("\n]", text.index("FLOORS = ["))
    rows = [f'    ["{floor.strip()}"],' for floor in FLOORS.replace("\n", " ").replace("__init__ ", "").split("/")]
    text = text[:start] + "FLOORS = [\n" + "\n".join(rows) + text[end:]
    begin = text.index("def test_what_answers_before_torch")
    head, body = text[:begin], text[begin:]
    for old, new in modules.items():
        stem, path = old.removeprefix("ssl_lightning."), new.removeprefix("ssl_lightning.").replace(".", "/")
        body = re.sub(rf'"{re.escape(stem)}"', f'"{path}"', body)
    rooms = {
        "build": "cli",
        "compose": "cli",
        "conditions": "cli",
        "config_loader": "cli",
        "words": "cli",
        "inherit": "cli",
        "references": "cli",
        "sweep": "cli",
    }
    for old, new in rooms.items():
        a, b = head.index("ONLY_THERE"), head.index("\n}", head.index("ONLY_THERE"))
        head = head[:a] + head[a:b].replace(f'"{old}"', f'"{new}"') + head[b:]
    file.write_text(head + body)


FIXES = (
    ("tests/config/test_ranges.py", '"parts", "stages")', '"parts", "stages", "tasks", "modalities")'),
    ("ssl_lightning/cli/help.py", "Path(__file__).resolve().parent\n", "Path(__file__).resolve().parents[1]\n"),
    ("ssl_lightning/core/one_line.py", "{Path(__file__).parent}{os.sep}", "{Path(__file__).parents[1]}{os.sep}"),
)


def add_aliases(file, modules):
    text = file.read_text()
    start = text.index("MODULES: dict[str, str] = {") + len("MODULES: dict[str, str] = {\n")
    end = text.index("\n}", start)
    known = dict(re.findall(r'"([\w.]+)": "([\w.]+)"', text[start:end]))
    known |= {old: new for old, new in modules.items() if not old.endswith(".__init__")}
    # a package whose modules all moved to one place is one entry
    body = "".join(f'    "{old}": "{new}",\n' for old, new in sorted(known.items()))
    file.write_text(text[:start] + body.rstrip("\n") + text[end:])


# ---- what points up ------------------------------------------------------------------------------------------------


def report(root):
    """Imports (those inside functions too) from a lower to a higher room, and between files of rooms without a floor."""
    package, up = root / "ssl_lightning", []
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        here = name.with_suffix("").parts[0]
        if here == "__init__":
            continue
        for node, kind in _imports(ast.parse(file.read_text())):
            there = node.split(".")[1] if "." in node else "__init__"
            if not node.startswith("ssl_lightning.") or there == here or node == "ssl_lightning.__version__":
                continue
            if there not in ORDER or here not in ORDER:
                up.append(f"{name}: {node} (no floor)")
            elif ORDER[there] <= ORDER[here]:
                up.append(f"{name} -> {node}{kind}")
    print(f"{len(up)} imports point up")
    print(*up, sep="\n")


def _imports(tree, kind=""):
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.ImportFrom):
            yield from ((f"{child.module}.{alias.name}", kind) for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from ((alias.name, kind) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, " (in a function)")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        else:
            yield from _imports(child, kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("rooms", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    root = asked.checkout.resolve()
    if not asked.report:
        move(root, read_mapping(asked.rooms), asked.dry)
    if not asked.dry:
        report(root)
