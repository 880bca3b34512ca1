"""Where a run may write: what a name may look like, and which folders are ours."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ssl_lightning.config import aliases
from ssl_lightning.core import plain_yaml, secrets
from ssl_lightning.core.errors import UserError, nearest

# What a run, its callbacks and its stages write into its folder, besides the folders of stages.
FILES = (
    r"config\.yaml|results\.json|metrics\.csv|(backbone|model|detector|segmenter)\.(safetensors|json)|wandb_id\.txt|[\w-]+\.png|last\.ckpt|report\.(html|npz)",
    r"features_\w+\.(npz|parquet|csv)|sweep\.csv|multirun\.yaml|optimization_results\.yaml|.*\.prof|[\w.-]*trace\.json(\.gz)?",
    r"(compare|invariance)\.(html|csv)|(texts|predictions|neighbours|near_duplicates|quality|transfer|label_curve)\.csv",
    r"\..*\.tmp|\.writable|\..*\.lock|.*\.csv\.tmp",
)
FOLDERS = r"checkpoints|pictures|wandb|tensorboard|lightning_logs|\.submitit"
FOLDERS += r"|finetune|detect|segment|from_scratch|linear|random_init|raw_pixels"
WEIGHTS = ("checkpoints/*.ckpt", "*/checkpoints/*.ckpt", "backbone.safetensors", "results.json")
KEPT = ("*.ckpt", "*.safetensors", "results.json", "features_*")  # what no refused command leaves
HEADER = "# ssl_lightning made this folder for a run.\n"  # the first line of config.yaml
KEYS = {"name", "seed", "resume", "data", "trainer"}  # that every config of a run has had


def check_name(name: str, what: str = "name") -> None:
    """Raise a UserError for a name that is not that of a folder below `runs_dir`."""
    parts = name.split("/")
    why = None
    if not name.strip():
        why = "is empty"
    elif name.startswith(("/", "~")) or "\\" in name:
        why = "is not a name inside of runs_dir"
    elif not {"", ".", ".."}.isdisjoint(parts):
        why = "has an empty part, '.' or '..' between its slashes"
    elif any(part != part.strip() for part in parts) or not name.isprintable():
        why = "holds characters that a folder's name should not have, or begins or ends with a space"
    elif any(len(part.encode()) > 200 for part in parts):
        why = "has a part longer than 200 bytes"
    elif secrets.hide(name) != name:
        why = "holds a secret"
    if why:
        raise UserError(
            f"{what}={secrets.hide(name)!r} {why}; give a plain name such as {what}=my-run or {what}=study/my-run"
        )


def check_text(path: str, what: str) -> None:
    """Raise a UserError for a path that no file system takes."""
    if not path or not path.isprintable() or secrets.hide(path) != path:
        raise UserError(
            f"{what}={secrets.hide(path)!r} may not be the path of a folder; give a path, for example {what}=runs"
        )


def inside(base: Path, name: str) -> Path:
    """`base/name`. Raises UserError where links lead out of `base`, or through a folder on the way that is not ours."""
    path = base / name
    try:
        if not path.resolve().is_relative_to(base.resolve()):
            raise UserError(f"{path} leads out of {base} through a link; give another name=, or runs_dir=DIR")
        for folder in list(path.parents)[: name.count("/")]:
            if folder.is_dir() and not (is_run(folder) or is_shelf(folder)):
                raise UserError(f"{folder} is not a folder of runs, and nothing is written into it; give another name=")
    except (RuntimeError, OSError) as error:  # a loop of links, a folder that may not be read
        raise UserError(f"{path} cannot be looked into ({error}); give another name=, or runs_dir=DIR") from error
    return path


def is_config(stored: Any) -> bool:
    """Is this the config of a run, as we write it?"""
    return isinstance(stored, Mapping) and stored.keys() >= KEYS and isinstance(stored["trainer"], Mapping)


def config_of(folder: Path) -> dict[str, Any]:
    """What the folder's config.yaml says, with the present names of classes; nothing where there is none.

    Raises UserError where it cannot be read.
    """
    file = folder / "config.yaml"
    try:
        stored = plain_yaml.read(file) if file.is_file() else {}
    except UserError as error:
        raise UserError(f"{error}; move it away or give this run another name=") from error
    return aliases.resolved(stored) if isinstance(stored, dict) else {}


def find_run(ref: str | None) -> Path | None:
    """The run folder that a `ckpt=` lies in (the folder itself, or a file in it or its checkpoints/), or None."""
    if not ref:
        return None
    path = Path(ref).expanduser()
    return next((folder for folder in (path, *list(path.parents)[:2]) if (folder / "config.yaml").is_file()), None)


def is_run(folder: Path) -> bool:
    """Does the folder hold a config.yaml of ours?"""
    try:
        return is_config(config_of(folder))
    except UserError:
        return False


def is_shelf(folder: Path) -> bool:
    """Does the folder hold a sweep's table; or runs, and nothing else?"""
    table = folder / "sweep.csv"
    if table.is_file() and table.read_bytes()[:4] == b"job,":
        return True
    return all(_belongs(entry) or (entry.is_dir() and (is_run(entry) or is_shelf(entry))) for entry in folder.iterdir())


def check_sweep(folder: Path) -> None:
    """Raise a UserError where a sweep may not write: into a folder that is neither a run's nor one of runs."""
    if folder.exists() and not (folder.is_dir() and (is_run(folder) or is_shelf(folder))):
        raise UserError(f"{folder} holds files that no sweep wrote, so nothing is written into it; give another name=")


def check_run(folder: Path) -> None:
    """Raise a UserError unless the folder is a run's of ours, or not there, or empty.

    Ours: it holds a config.yaml of ours, and a checkpoint, weights or results. Of a run stopped before it had any:
    a config.yaml that says so, or, of an older version, nothing besides what a run writes. Nothing in it may lead
    elsewhere or be no file: it would be written to.
    """
    if not folder.is_dir():
        return
    entries = sorted(folder.iterdir())
    ours = is_config(config_of(folder))
    # Of what W&B has made nothing is written again.
    deep = [entry for entry in sorted(folder.rglob("*")) if entry.relative_to(folder).parts[0] != "wandb"]
    strange = [entry for entry in [*entries, *deep] if not _stays(entry, folder)]
    if strange:
        raise UserError(
            f"{strange[0]} is a link that leads out of its run, or not a regular file; remove it, or give another name="
        )
    if ours and (says_so(folder) or any(next(folder.glob(pattern), None) for pattern in WEIGHTS)):
        return
    others = [entry for entry in entries if not _belongs(entry) and not (entry.is_dir() and is_run(entry))]
    if others or (entries and not ours and not all(_passing(entry) for entry in entries)):
        what = f"it holds {others[0].name}, which no run wrote" if others else "it holds no config.yaml of a run"
        raise UserError(
            f"{folder} is not a run's folder: {what}; nothing is written there. Give another name= or runs_dir="
        )


def says_so(folder: Path) -> bool:
    """Was the folder new or empty when a run began in it? Then whatever lies there now came with the run."""
    with open(folder / "config.yaml") as file:
        return file.readline() == HEADER


def missing(path: Path) -> list[Path]:
    """The folders, from `path` upwards, that are not there."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove what a command made and left empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or never made
            folder.rmdir()


def remove_unused(folder: Path, new: bool = False) -> None:
    """Remove the folder of a run that was refused before it had anything but its config.

    `new`: the refused command has made it, so that all there is in it came with that command: pictures, a logger's
    files. It stays where there is anything of a training in it.
    """
    if new and folder.is_dir() and not any(next(folder.rglob(pattern), None) for pattern in KEPT):
        table = folder / "metrics.csv"
        if not table.is_file() or table.read_bytes().count(b"\n") < 2:
            shutil.rmtree(folder, ignore_errors=True)
    elif folder.is_dir() and [entry.name for entry in folder.iterdir()] == ["config.yaml"]:
        (folder / "config.yaml").unlink()
        remove_empty([folder])


def _belongs(entry: Path) -> bool:
    """Is this named as what a run or a sweep writes?"""
    if entry.is_dir():
        return re.fullmatch(FOLDERS, entry.name) is not None or not any(entry.iterdir())
    return re.fullmatch("|".join(FILES), entry.name) is not None


def _passing(entry: Path) -> bool:
    """Does the name say that a write was cut short, or that a process works beside?"""
    return re.fullmatch(FILES[-1], entry.name) is not None


def _stays(entry: Path, folder: Path) -> bool:
    if not (entry.is_file() or entry.is_dir()):
        return False
    return not entry.is_symlink() or entry.resolve().is_relative_to(folder.resolve())


def nowhere(path: Path) -> str:
    """That nothing is there, and the name beside it that is most like the one asked for."""
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = sorted(other.name for other in islice(path.parent.iterdir(), 1000) if not other.name.startswith("."))
    best = nearest(path.name, beside)
    hint = f". Did you mean '{path.parent / best}'?" if best else ""
    return f"no checkpoint at {path}; give a run folder or a checkpoint file that exists{hint}"
