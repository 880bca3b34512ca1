"""What pages say of the code, read from its source: arguments, their defaults, their meaning, a method's step."""

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.config import signatures

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def definition(target: str) -> tuple[str, Any] | None:
    """(module, class or function) of a dotted name."""
    found = signatures.find(target)
    return found if found and isinstance(found[1], ast.ClassDef | ast.FunctionDef) else None


def meanings(target: str) -> dict[str, str]:
    """What the `Args:` or `Attributes:` of a class (its bases too) or a function say of each argument."""
    found = definition(target)
    if found is None or not target.startswith("ssl_lightning"):
        return {}
    module, node = found
    told: dict[str, str] = {}
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            told |= meanings(f"{module}.{ast.unparse(base)}")
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                told |= _arguments(ast.get_docstring(method) or "")
    return told | _arguments(ast.get_docstring(node) or "")


def _arguments(doc: str) -> dict[str, str]:
    section = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", doc, flags=re.S | re.M)
    told = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(section[1])) if section else ():
        head, _, text = entry.partition(":")
        text = " ".join(text.split())
        for name in head.replace("*", "").split(","):
            told[name.strip()] = text
    return told


def first_line(target: str) -> str:
    found = definition(target)
    return (ast.get_docstring(found[1]) or "").split("\n\n")[0].replace("\n", " ") if found else ""


def parents(group: str, raw: dict[str, Any]) -> list[tuple[str, str]]:
    """(group, name) of the yamls of its own group that a yaml builds on, and of blocks that several share."""
    found = []
    for entry in raw.get("defaults", ()) if group else ():
        for key, name in [("", entry)] if isinstance(entry, str) else entry.items():
            place = f"{group}/{key.split('@')[0]}" if key else group
            if not key and name.startswith(f"/{group}/"):
                name = name.removeprefix(f"/{group}/").split("@")[0]
            if isinstance(name, str) and (CONF / place / f"{name}.yaml").is_file():
                found.append((place, name))
    return found


def read(group: str, name: str) -> dict[str, Any]:
    """A yaml of `conf`, with those of its own group that it builds on; `when` and the like are left out."""
    text = (CONF / group / f"{name}.yaml").read_text()
    raw = yaml.safe_load(text) or {}
    node = raw.get(group, {}) if "# @package _global_" in text else raw
    found: dict[str, Any] = {}
    for parent in parents(group, raw):
        found |= read(*parent)
    return found | {k: v for k, v in (node or {}).items() if k not in ("defaults", "when", "needs", "picks")}


def header(path: Path) -> list[str]:
    """The comment that a yaml begins with, a line an entry."""
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return lines


def remarks(group: str, name: str) -> dict[str, str]:
    """The comments behind the values of a yaml, and of those it builds on, by dotted key."""
    path = CONF / group / f"{name}.yaml"
    raw = yaml.safe_load(path.read_text()) or {}
    found: dict[str, str] = {}
    for parent in parents(group, raw):
        found |= remarks(*parent)
    stack: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        if not (part := re.match(r"^( *)([\w.]+):(.*)$", line)):
            continue
        depth = len(part[1])
        stack = [(d, key) for d, key in stack if d < depth] + [(depth, part[2])]
        keys = [key for _, key in stack]
        if keys[0] == group and "@package _global_" in path.read_text():
            keys = keys[1:]
        if (
            keys
            and keys[0] not in ("when", "defaults", "picks", "needs")
            and (said := re.search(r"\s#\s+(.*)$", part[3]))
        ):
            found[".".join(keys)] = said[1]
    return found


def step(target: str) -> tuple[str, str]:
    """(file, source) of a method's `training_step`, without its indentation."""
    found = definition(target)
    assert found is not None, target
    module, node = found
    file = signatures.module_file(module)
    assert file is not None
    function = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "training_step")
    lines = file.read_text().splitlines()[function.lineno - 1 : function.end_lineno]
    return str(file.relative_to(ROOT)), textwrap.dedent("\n".join(lines))
