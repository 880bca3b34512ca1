"""The end of a run on the terminal: the figures that matter beside their baselines, the verdict, the next commands.

All of it comes from `results.json`, which holds more; a finished run shows the same again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.cli import table
from ssl_lightning.core import secrets
from ssl_lightning.core.errors import plain
from ssl_lightning.core.words import KINDS, METRICS, SECOND, clock, counted, measure, named_baseline, of_row, plain_word

# What the rest of this file shows, or what belongs to the file: whatever else a stage found gets a line of its own.
TOLD = "stage method data seed verdict baselines protocol quality probes health files ckpt epochs steps labels seconds"
TOLD += " images_per_second samples_per_second peak_memory_mb config_sha256 images samples out_dim parameters classes"
TOLD += " runs groups table worth per_class metric rows correlations"
NOT_RANKED = ("stage", "data", "task", "run", "samples_per_second")  # of a comparison: in compare.csv
OF_THE_VERDICT = ("random weights", "raw pixels")
PROGRAM = ("python", "-m", "ssl_lightning")
TUNED = ("finetune", "detect", "segment")  # stages that train the network beside one from scratch
LONGER = "trainer.max_epochs"  # a verdict that names it says: train longer


def show(results: Mapping[str, Any], folder: Path, overrides: Sequence[str] = (), flags: Sequence[str] = ()) -> None:
    """Print what a run has found.

    Args:
        overrides: the words of the run's own command line, for the command that trains longer.
        flags: what each next command needs as well, such as --config-dir DIR.
    """
    table.say(lines(results, folder, overrides, flags))


def lines(
    results: Mapping[str, Any], folder: Path, overrides: Sequence[str] = (), flags: Sequence[str] = ()
) -> list[str]:
    """The same, as lines without a line break."""
    found = [
        "",
        *table.wrapped(headline(results)),
        *_ranking(results),
        *_curve(results),
        *scores(results),
        *_of_probes(results),
    ]
    found += _rows(results)
    found += _others(results)
    for sentence in (results.get("verdict"), *_findings(results)):
        found += table.wrapped(secrets.hide(str(sentence))) if sentence else []
    commands = next_commands(results, folder, overrides, flags)
    found += ["", "Next:", *commands, ""] if commands else [""]
    files = [str(folder / "results.json"), *map(str, results.get("files") or ())]
    page = folder / "report.html"
    return found + [f"Page: {plain(str(page))}"] * page.is_file() + [f"Written: {plain(file)}" for file in files]


# ---- figures -------------------------------------------------------------------------------------------------------


def headline(results: Mapping[str, Any]) -> str:
    """`stage=pretrain, simclr on shapes: 5 epochs, 780 steps, 683 images/s, 2:52`."""
    noun = "images" if "images_per_second" in results else "samples"
    rate = results.get("samples_per_second") or results.get("images_per_second")
    counts: Any = results.get("images") or results.get("samples")
    parts = [
        counted(results[key], key[:-1]) for key in ("epochs", "steps", "labels") if isinstance(results.get(key), int)
    ]
    if isinstance(counts, Mapping):
        noun = "images" if "images" in results else "items"
        parts.append(f"features of {' and '.join(f'{n:,} {split}' for split, n in counts.items())} {noun}")
    if isinstance(results.get("out_dim"), int):
        parts.append(f"{results['out_dim']} numbers each")
    if isinstance(results.get("parameters"), int):
        parts.append(f"{results['parameters'] / 1e6:.2f} million parameters")
    parts += [f"{rate:,.0f} {noun}/s"] if isinstance(rate, int | float) and rate else []
    parts += [clock(results["seconds"])] if isinstance(results.get("seconds"), int | float) else []
    head = f"stage={results.get('stage', '?')}, {results.get('method', '?')} on {results.get('data', '?')}"
    return f"{head}: {', '.join(parts)}" if parts else head


def scores(results: Mapping[str, Any], indent: str = "") -> list[str]:
    """What was measured, a row for the run and for each baseline; no line where nothing was."""
    baselines = {key: value for key, value in (results.get("baselines") or {}).items() if isinstance(value, Mapping)}
    cells = [(kind, metric) for metric in METRICS for kind in KINDS if f"{kind}_{metric}" in results]
    cells += [pair for pair in _own(results) if pair not in cells]  # metrics of a user's own task
    if not cells:
        return _quality(results)
    alone = len({kind for kind, _ in cells}) == 1 and cells[0][0] in TUNED
    rows = [["", *(_heading(kind, metric, alone) for kind, metric in cells)]]
    mine = plain(str(results.get("method", "this run"))) + (", fine-tuned" if alone else "")
    rows.append([mine, *(table.text(m, results.get(f"{k}_{m}")) or "-" for k, m in cells)])
    for name, its in baselines.items():
        other = "linear" if alone and not any(key.startswith(f"{cells[0][0]}_") for key in its) else ""
        told = [its.get(f"{other or kind}_{metric}", its.get(metric)) for kind, metric in cells]
        if any(value is not None for value in told):
            called = named_baseline(name) + (", linear probe" if other and f"linear_{cells[0][1]}" in its else "")
            figures = (table.text(metric, value) or "-" for (_, metric), value in zip(cells, told, strict=True))
            rows.append([plain(called), *figures])
    return table.columns(rows, indent)


def _own(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, metric) of each figure, in their order."""
    pairs = [(kind, key.removeprefix(f"{kind}_")) for key in results for kind in KINDS if key.startswith(f"{kind}_")]
    return [
        (kind, metric) for kind, metric in pairs if metric not in SECOND and _is_figure(results[f"{kind}_{metric}"])
    ]


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _heading(kind: str, metric: str, alone: bool) -> str:
    return METRICS.get(metric, metric) or "accuracy" if alone else measure(kind, metric)


def _ranking(results: Mapping[str, Any]) -> list[str]:
    """The groups of `stage=compare`, best first; of several sections one table each."""
    rows = [row for row in results.get("groups") or () if isinstance(row, Mapping)]
    found: list[str] = []
    for kind in dict.fromkeys((row.get("stage"), row.get("data"), row.get("task")) for row in rows):
        some = [row for row in rows if (row.get("stage"), row.get("data"), row.get("task")) == kind]
        keys = [key for key in some[0] if key not in NOT_RANKED and not key.endswith("_std")]
        keys = [key for key in keys if any(row.get(key) is not None for row in some)]
        cells = [[_mean(row, key) for key in keys] for row in some]
        found += [f"{kind[0]} on {kind[1]}", *table.columns([table.short(keys), *cells], "  ")]
    return found


def _curve(results: Mapping[str, Any]) -> list[str]:
    """The lines of `stage=label_curve`, a column for each number of labels."""
    rows = [row for row in results.get("table") or () if isinstance(row, Mapping)]
    sizes = sorted({row.get("labels", 0) for row in rows})
    found = [["labels", *(f"{size:,}" for size in sizes)]]
    for line in dict.fromkeys(row.get("line") for row in rows):
        mine = {row.get("labels"): row for row in rows if row.get("line") == line}
        cells = [_within(mine[size]) if size in mine else "-" for size in sizes]
        found.append([plain(str(next(iter(mine.values())).get("name"))), *cells])
    return table.columns(found) if rows else []


def _within(row: Mapping[str, Any]) -> str:
    """A mean, with half of its band."""
    key, mean, high = str(row.get("metric")), row.get("mean"), row.get("high")
    value = table.text(key, mean)
    if not isinstance(mean, int | float) or not isinstance(high, int | float):
        return value
    return f"{value.removesuffix(' %')} +- {table.text(key, high - mean)}"


def _rows(results: Mapping[str, Any]) -> list[str]:
    """What was measured of each checkpoint or data set, a row each; of a path its last word."""
    rows = [row for row in results.get("rows") or () if isinstance(row, Mapping)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    keys = [key for key in keys if any(row.get(key) not in (None, "") for row in rows)]
    named = [[of_row(key, row.get("metric")) for key in keys] for row in rows]
    cells = [
        [table.text(n, row.get(key)).rsplit("/", 1)[-1] for n, key in zip(ns, keys)] for ns, row in zip(named, rows)
    ]
    return table.columns([keys, *cells]) if cells else []


def _mean(row: Mapping[str, Any], key: str) -> str:
    """A cell: a mean, with the deviation over seeds where there is one."""
    value, deviation = table.text(key, row.get(key)), row.get(f"{key}_std")
    return value if deviation is None else f"{value.removesuffix(' %')} +- {table.text(key, deviation)}"


def _quality(results: Mapping[str, Any]) -> list[str]:
    """Without labels: the measures that need none."""
    found = {key: value for key, value in (results.get("quality") or {}).items() if isinstance(value, int | float)}
    return [", ".join(f"{key} {table.text(key, value)}" for key, value in found.items())] if found else []


def _of_probes(results: Mapping[str, Any]) -> list[str]:
    """A block for each of `probes=`."""
    found = []
    for name, its in (results.get("probes") or {}).items():
        many = f" ({its['classes']} classes)" if "classes" in its else ""
        found += [f"probe {plain(str(name))}{many}:", *scores({"method": results.get("method", "?"), **its}, "  ")]
    return found


def _others(results: Mapping[str, Any]) -> list[str]:
    """What a stage of the user's own has found."""
    known = set(TOLD.split())
    rest = {
        key: value
        for key, value in results.items()
        if key not in known and not key.startswith(tuple(f"{k}_" for k in KINDS))
    }
    return table.columns([[plain(key), table.text(key, value)] for key, value in rest.items() if _is_plain(value)])


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _findings(results: Mapping[str, Any]) -> list[str]:
    """What is wrong with a run's health, as far as the verdict has not said it."""
    found = [str(sentence) for sentence in results.get("health") or ()]
    return [one for one in found if not one.startswith("ok") and not any(word in one for word in OF_THE_VERDICT)][:3]


# ---- what to do next -----------------------------------------------------------------------------------------------


def next_commands(
    results: Mapping[str, Any], folder: Path, overrides: Sequence[str] = (), flags: Sequence[str] = ()
) -> list[str]:
    """At most two commands, to be pasted as they are."""
    stage = results.get("stage")
    ckpt = f"ckpt={folder if stage == 'pretrain' else results.get('ckpt')}"
    labelled = any(key.startswith(("knn_", "linear_")) for key in results)
    own = [word for word in overrides if word.startswith("trusted_packages=")]

    def on(stage: str, *more: str) -> str:
        return command([*flags, f"stage={stage}", ckpt, *more, *own])

    if stage == "pretrain":
        longer = isinstance(results.get("epochs"), int) and LONGER in str(results.get("verdict"))
        again = [word for word in overrides if not word.lstrip("+").startswith((f"{LONGER}=", "resume="))]
        first = [command([*flags, *again, f"{LONGER}={2 * results['epochs']}"])] if longer else []
        return [*first, *([on("finetune"), on("linear")] if labelled else [on("embed"), on("export")])][:2]
    if stage in ("knn", "linear"):
        return [on("linear" if stage == "knn" else "finetune"), on("export" if stage == "linear" else "finetune")]
    if stage == "label_curve":
        return [on("finetune")]
    if stage == "finetune":
        ckpt = f"ckpt={folder}"  # the model that it has left
        return [on("predict"), on("export")]
    if stage in TUNED:
        own += [word for word in overrides if word.startswith("runs_dir=")]
        return [on(str(stage), "data.label_fraction=0.1", f"name={folder.name}-tenth"), on("export")]
    if stage == "doctor":
        return [command([*flags, *(word for word in overrides if not word.startswith(("stage=", "stage.")))])]
    return loading(folder, map(str, results.get("files") or ())) if stage in ("export", "embed") else []


LOADS = {  # what reads a file of an export or an embedding, by how its name ends; the first that is there is shown
    "model.safetensors": ("from ssl_lightning import load_model", 'model = load_model("{folder}")'),
    ".safetensors": ("from ssl_lightning import load_backbone", 'backbone = load_backbone("{folder}")'),
    "/hf": ("import timm", 'backbone = timm.create_model("local-dir:{file}", pretrained=True)'),
    ".onnx": ("import onnxruntime", 'session = onnxruntime.InferenceSession("{file}")'),
    ".npz": ("import numpy", 'features = numpy.load("{file}")["features"]'),
    ".parquet": ("import pyarrow.parquet", 'table = pyarrow.parquet.read_table("{file}")'),
    ".csv": ("import csv", 'rows = list(csv.DictReader(open("{file}", newline="")))'),
}


def loading(folder: Path, files: Iterable[str]) -> list[str]:
    """Two lines of Python that read what a stage has written."""
    there = list(files)
    for end, (first, second) in LOADS.items():
        if file := next((file for file in there if file.endswith(end)), None):
            return [f"  {first}", f"  {second.format(folder=plain(str(folder)), file=plain(file))}"]
    return []


def command(words: Iterable[str]) -> str:
    """A command line for a shell, its secrets masked; one that is too long goes on in the next line."""
    quoted = [shlex.quote(plain_word(word)) for word in (*PROGRAM, *secrets.mask_words(words))]
    found, width = " ", 1
    for word in quoted:
        if width + 1 + len(word) > table.WIDTH - 2 and width > 1:
            found, width = f"{found} \\\n     ", 5
        found, width = f"{found} {word}", width + 1 + len(word)
    return found
