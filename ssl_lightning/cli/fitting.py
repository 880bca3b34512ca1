"""Which options of a group go with the chosen data: told by the keys of the data that their yamls refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.cli import help
from ssl_lightning.cli.picks import PICKS

REFERS = re.compile(r"\$\{(?:oc\.select:\s*)?data\.(\w+)")  # what is looked up where it is there counts, too
MOST = 8  # options named; of more than these a reader chooses nothing
BANDS = "mels"  # the key of the data for them
FORMS = 5  # a yaml on a yaml on a yaml


def lacking(error: Exception, choices: Mapping[str, Any], data: Any, folder: Path | None) -> str:
    """A line on a part that asks for a key which the chosen data do not have, with the options that ask for none such.

    `error`: of a config that does not resolve; `choices`: the option of each group; `data`: the keys of the data;
    `folder`: of `--config-dir`. "" where the error is another one.
    """
    key = re.search(r"full_key: (\w+)", str(error))
    lacks, asking = re.search(r"'(data\.\w+)' not found", str(error)), key[1] if key else ""
    if not lacks or asking == "data" or asking not in choices:
        return ""
    if choices["data"] not in help.options("data", (folder,) if folder else ()):  # those of a run, from its yaml
        return (
            f"there is no data={choices['data']} here, which the run was made with; give its folder: --config-dir DIR"
        )
    asked = f"{asking}={choices[asking]} asks for {lacks[1]}, which data={choices['data']} does not have"
    found = fitting(asking, str(choices["data"]), data, folder)
    named = f" ({', '.join(found)})" if 0 < len(found) <= MOST else ""
    return f"{asked}; choose another {asking}={named}, or other data"


def fitting(group: str, choice: str, data: Any, folder: Path | None = None) -> list[str]:
    """The options of a group that refer to no key which `data` lack; those that the data themselves pick come first.

    Of sound a network is for log-mels where it asks for their bands, and for waves where it does not.
    """
    folders, keys = (folder,) if folder else (), set(data) if isinstance(data, Mapping) else set()
    picked = _read("data", choice, folders).get(PICKS)
    chosen = picked.get(group) if isinstance(picked, dict) else None
    first = list(dict.fromkeys(map(str, chosen.values()))) if isinstance(chosen, dict) else []
    form = data.get("representation") if isinstance(data, Mapping) and group == "backbone" else None
    found = []
    for name in dict.fromkeys([*first, *help.options(group, folders)]):
        asked = set(_asked(group, name, folders))
        if (name in first or asked <= keys) and (form is None or (form == "logmel") == (BANDS in asked)):
            found.append(name)
    return found


def _asked(group: str, option: str, folders: tuple[Path, ...], deep: int = FORMS) -> Iterator[str]:
    """The keys of the data that an option's yaml refers to, and those that it is built on."""
    written = _read(group, option, folders)
    yield from REFERS.findall(repr(written))
    bases = written.get("defaults")
    for base in bases if deep and isinstance(bases, list) else ():
        if isinstance(base, str) and base != "_self_" and "/" not in base:
            yield from _asked(group, base, folders, deep - 1)


def _read(group: str, option: str, folders: tuple[Path, ...]) -> dict[Any, Any]:
    """A yaml as it is written; nothing where there is none, or it cannot be read."""
    for folder in (help.conf_dir(), *folders):
        try:
            found = yaml.safe_load((folder / group / f"{option}.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(found, dict):
            return found
    return {}
