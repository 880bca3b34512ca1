"""From the arguments of a Python call to the words of a command line."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.cli import help
from ssl_lightning.cli.words import quoted
from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.runs import places
from ssl_lightning.runs.opened import Run

Ref = str | Path | Run  # what a call takes for `ckpt=`
LOOK_AT = 1000  # files of a folder, to see what it holds
GROUPS = ("method", "backbone", "stage", "data")  # whose value is the name of an option


def words_of(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> list[str]:
    """`{"method": "dino", "trainer.max_epochs": 50}` and overrides as one command line; what is None is left out.

    Raises UserError for overrides that are no words, and for a key that is given twice.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides is a list of strings, not one string: overrides=[{overrides!r}]")
    typed = list(overrides)
    given = {key: value for key, value in values.items() if value is not None}
    for override in typed:
        if not isinstance(override, str):
            raise UserError(f"overrides holds {override!r}; give strings, for example 'optimizer.base_lr=0.1'")
        key = re.match(r"[+~]*([\w./]+)", override)
        if key and key[1] in given:
            raise UserError(f"{key[1]} is given twice, in overrides and as an argument; leave one of them out")
    return [*(word(key, value) for key, value in given.items()), *typed]


def word(key: str, value: Any) -> str:
    """One word, such that the command line reads this very value."""
    if key in GROUPS and not isinstance(value, str):
        more = "; a class of your own gets a yaml, see config_dir=" if key != "stage" else ""
        raise UserError(f"{key} is {_short(value)}; give a name, for example {_example(key)}{more}")
    if isinstance(value, list | tuple):
        return f"{key}=[{','.join(_text(str(item)) for item in value)}]"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return f"{key}={_text(value) if isinstance(value, str) else value}"


def _text(text: str) -> str:
    """Text that would be read as something else goes in quotes; a path with ${ in it is no reference."""
    if text in ("null", "true", "false") or text[:1] in "'\"" or "${" in text:
        return quoted(re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text))
    return text


def _example(key: str) -> str:
    examples = {"method": "simclr", "backbone": "resnet18", "stage": "knn", "data": "cifar10"}
    return f'{key}="{examples[key]}"'


def _short(value: Any) -> str:
    text = f"a {type(value).__name__}"
    return "an" + text[1:] if text[2:3].lower() in "aeiou" else text


def data_words(data: Any, config_dir: Path | str | None = None) -> dict[str, Any]:
    """What data a call is for: a folder of images or recordings, an .npz or .npy file, or the name of a data set.

    What is there goes before what is called so. Raises UserError for what is neither.
    """
    if data is None:
        return {}
    if not isinstance(data, str | os.PathLike):
        hint = "; write arrays to a file first: numpy.savez('images.npz', images=..., labels=...)"
        raise UserError(f"data is {_short(data)}; give a path or the name of a data set{hint}")
    text = os.fspath(data)
    path = Path(text).expanduser()
    names = help.options("data", (Path(config_dir).expanduser(),) if config_dir else ())
    if path.is_dir():
        if text in names:
            print(f"{text} is a folder here; for the data set of that name, overrides=['data={text}']")
        return {"data": kind_of(path), "data.root": text}
    if path.is_file():
        if path.suffix not in (".npz", ".npy"):
            raise UserError(f"{text} is one file; give a folder of images or recordings, an .npz or an .npy file")
        return {"data": "array", "data.root": text}
    if text in names and isinstance(data, str):
        return {"data": text}
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside if len(path.parts) > 1 else [*names, *beside])
    if len(path.parts) > 1:
        raise UserError(f"there is no folder or file {text}.{hint}")
    raise UserError(f"there is no folder or file '{text}', and no data set of this name.{hint or _all(names)}")


def _all(names: list[str]) -> str:
    return f" There are: {', '.join(names)}."


def kind_of(folder: Path) -> str:
    """Does a folder hold images or recordings? "folder" or "audio", by the files that are found first."""
    from ssl_lightning.data.folder_scan import IMAGES
    from ssl_lightning.modalities.audio.reading import RECORDINGS

    kinds = dict.fromkeys((*IMAGES.suffixes, IMAGES.fallback), "folder") | dict.fromkeys(RECORDINGS.suffixes, "audio")
    found: Counter[str] = Counter()
    for _, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.update(kind for file in files if (kind := kinds.get(Path(file).suffix.lower())))
        if found.total() >= LOOK_AT:
            break
    if not found:
        raise UserError(f"{folder} holds no image ({IMAGES.examples} ...) and no recording ({RECORDINGS.examples})")
    return found.most_common(1)[0][0]


def place_beside(ref: str | None, root: str) -> dict[str, Any]:
    """A name in the run's own folder for each folder that is embedded; nothing where the weights are of no run."""
    run = places.find_run(ref)
    if run is None or not places.is_run(run):
        return {}
    last = re.sub(r"[^\w.-]+", "-", Path(root).expanduser().resolve().name).strip("-.")
    return {"name": f"{run.name}/embed-{last or 'data'}", "runs_dir": str(run.parent)}


def packages(trusted: Iterable[str]) -> tuple[str, ...]:
    """Names of packages; a text is one of them."""
    return (trusted,) if isinstance(trusted, str) else tuple(trusted)


def trusting(run: Ref, trusted: Iterable[str]) -> tuple[str, ...]:
    """The packages that a call trusts; where it names none, those that its run was opened with."""
    return packages(trusted) or (run.trusted if isinstance(run, Run) else ())


def ref(run: Ref | None) -> str | None:
    """A run as `ckpt=` takes it: written as one would type it."""
    return run.name if isinstance(run, Run) else None if run is None else os.fspath(run)


def on(run: Ref, stage: str, data: Any, config_dir: str | Path | None) -> dict[str, Any]:
    """What a stage is told of the weights and the data that it works on."""
    return {"stage": stage, "ckpt": ref(run), **data_words(data, config_dir)}


def need_npz(overrides: Iterable[str]) -> None:
    """Refuse, before anything is computed, formats of an embedding without the one that arrays are read from."""
    for override in overrides:
        found = re.match(r"\+*stage\.formats=(.*)", override) if isinstance(override, str) else None
        if found and "npz" not in re.split(r"\W+", found[1]):
            others = found[1].strip("[] ")
            more = f"[npz,{others}]" if others else "[npz]"
            raise UserError(f"embed returns the arrays of an npz file: give overrides=['stage.formats={more}']")


def place(name: str | None, runs_dir: str | Path | None) -> dict[str, Any]:
    """Where a run lies."""
    return {"name": name, "runs_dir": runs_dir}
