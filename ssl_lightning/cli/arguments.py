"""The command line taken apart: a few flags, and `key=value` overrides that Hydra will read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ssl_lightning.core.errors import UserError, nearest

FLAGS = ("--help", "-h", "--version", "--cfg", "--resolve", "--config-dir", "--multirun", "-m")

SHORT = re.compile(r"^([+~]{0,2})(probes[.=])")  # keys of a stage that are typed without its name


@dataclass
class Arguments:
    """What was asked for on the command line."""

    overrides: list[str] = field(default_factory=list)
    help: bool = False
    version: bool = False
    cfg: bool = False
    resolve: bool = False
    config_dir: Path | None = None
    multirun: bool = False


def parse(argv: list[str]) -> Arguments:
    """Read the command line. Raises UserError for a flag that does not exist or lacks its value."""
    found, rest = Arguments(), list(argv)
    while rest:
        word = rest.pop(0)
        flag, _, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if flag in ("--help", "-h"):
            found.help = True
        elif flag == "--version":
            found.version = True
        elif flag == "--resolve":
            found.resolve = True
        elif flag in ("--multirun", "-m"):
            found.multirun = True
        elif flag == "--cfg":
            value = value or (rest.pop(0) if rest else "")
            if value != "job":
                raise UserError("--cfg takes the word job: --cfg job [--resolve]")
            found.cfg = True
        elif flag == "--config-dir":
            found.config_dir = _folder(value or (rest.pop(0) if rest else ""))
        elif word.startswith("-"):
            near = nearest(flag, FLAGS, cutoff=0.75)
            value = value or next((word for word in rest[:1] if "=" not in word and not word.startswith("-")), "")
            from ssl_lightning.cli import slips  # it brings yaml, which --help does without

            hint = f"Did you mean '{near}'?" if near else f"{slips.flag(flag, value)}; see --help"
            raise UserError(f"there is no flag '{flag}'. {hint}")
        elif "=" not in word and not word.startswith("~"):
            raise UserError(f"'{word}' has no value: write key=value, for example method=moco. See --help.")
        else:
            found.overrides.append(SHORT.sub(r"\1stage.\2", word))
    if "stage=report" in found.overrides:  # the run of a page is what other stages call their ckpt=
        found.overrides = [re.sub(r"^stage\.run=", "ckpt=", word) for word in found.overrides]
    return found


def _folder(text: str) -> Path:
    if not text or not Path(text).expanduser().is_dir():
        raise UserError(f"--config-dir takes a folder of your own yamls, and '{text}' is not a folder.")
    return Path(text).expanduser().resolve()
