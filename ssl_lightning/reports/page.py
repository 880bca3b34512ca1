"""The page of a run, from top to bottom: what came out, is it sound, what was run, how it went, what it learned."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.core import words
from ssl_lightning.core.finding import BAD, OK, WATCH, Finding
from ssl_lightning.core.words import is_share
from ssl_lightning.reports import gallery, health, html, items, labelled, measured, names, predicted, told
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.curves import charts
from ssl_lightning.reports.html import attribute, escape, section
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.read import Run

LARGEST = 1_500_000  # bytes of pictures, of each kind; earlier states are left out beyond it
QUALITY = {
    "rankme": ("RankMe", "how many directions the features use (Garrido et al. 2023); higher is better"),
    "alignment": ("Alignment", "squared distance of two views of an item (Wang & Isola 2020); lower is better"),
    "uniformity": ("Uniformity", "how evenly the features cover the sphere (the same paper); lower is better"),
    "feature_std": ("Spread", "0 where all features point the same way, 1 where they point everywhere alike"),
}

QUALITY_SHORT = {"rankme": "directions in use", "feature_std": "1 is uniform"}


def html_of(run: Run) -> str:
    """The whole page, a pure function of what lies in the run's folder but for the dates of its files."""
    look = Look(run.rows, run.results, run.config, run.kept.about)
    found = health.findings(run.rows, run.results, run.config, run.kept.about) if run.rows else []
    title = title_of(run)
    parts = [
        ("result", "", top(run, title, found)),
        ("labels", "What labels are worth", labelled.section(run)),
        ("health", "Health", health_of(found)),
        ("classes", "Class by class", labelled.classes(run)),
        ("run", "What was run", told.what(run, look)),
        ("curves", "Curves", curves(run, look)),
        ("pictures", "Pictures", pictures(run)),
        ("predictions", "What it predicts", predicted.section(run.kept)),
        ("measured", "What was measured", measured.html_of(run.results)),
        ("retrieved", "What was retrieved", gallery.html_of(run.kept)),
        ("features", "What it learned", features(run)),
        ("quality", "Quality of the features", quality(run)),
        ("next", "What to do next", told.after(run)),
        ("config", "The whole config", config(run)),
    ]
    shown = [(name, heading, body) for name, heading, body in parts if body]
    body = "".join(body if not heading else section(name, heading, body) for name, heading, body in shown)
    made = f"Made by ssl_lightning {run.kept.about.get('versions', {}).get('ssl_lightning', '')}".rstrip()
    links = [(name, heading) for name, heading, _ in shown if heading and name != "config"]
    return html.document(title, f"{body}<footer>{escape(made)} on {date(time.time())}.</footer>", links)


NOT_GOOD = ("no better", "nothing", "worse", "no metrics")  # how a verdict begins that is no success


def title_of(run: Run) -> str:
    """ "SimCLR on shapes", with the stage before it where it is not pretraining."""
    choices = run.choices
    method = run.results.get("method") or choices.get("method") or ""
    data = run.results.get("data") or choices.get("data") or ""
    what = f"{words.method(method)} on {data}".strip() if method or data else run.folder.name
    stage = str(run.results.get("stage") or choices.get("stage") or "pretrain")
    return what if stage == "pretrain" else f"{words.STAGES.get(stage, stage)}: {what}"


# ---- the top -------------------------------------------------------------------------------------------------------


def top(run: Run, title: str, found: list[Finding]) -> str:
    """Title, state, tiles, verdict."""
    status = "done" if run.done else "unfinished"
    begun, ended = (modified(run.folder / name) for name in ("config.yaml", "results.json"))
    when = f"{begun} to {ended}" if begun and ended else f"begun {begun}" if begun else ""
    meta = f'<p class="meta"><span class="status {status}">{status}</span>{escape(names.home(run.config))}'
    meta += f" &middot; {escape(when)}</p>" if when else "</p>"
    level = BAD if any(f.level == BAD for f in found) else WATCH if any(f.level == WATCH for f in found) else OK
    words = str(run.results.get("verdict") or "").rstrip(". ")
    if not words and not run.done:
        words = "still training, or stopped; the verdict comes at the end"
    if level == OK and words.lower().startswith(NOT_GOOD):
        level = WATCH
    verdict = f'<p class="verdict {level}">{escape(words[:1].upper() + words[1:])}.</p>' if words else ""
    return (
        f'<div id="result"><h1>{escape(title)}</h1>{meta}<div class="tiles">{"".join(tiles(run))}</div>{verdict}</div>'
    )


def tiles(run: Run) -> list[str]:
    """The few numbers that matter."""
    found, baselines = [], run.results.get("baselines")
    baselines = baselines if isinstance(baselines, Mapping) else {}
    random = baselines.get("random_init") or baselines.get("from_scratch") or {}
    keys = main_keys(run.results)
    for key in keys:
        found.append(_result(run, key, random, "from_scratch" if "from_scratch" in baselines else "random_init"))
    for name, scores in baselines.items() if keys else ():
        shown = {key: scores[key] for key in keys if isinstance(scores, Mapping) and key in scores}
        if shown:
            (key, score), *rest = shown.items()
            told = [_kind(key), *(f"{_kind(other).lower()} {names.value(other, value)}" for other, value in rest)]
            if scores is not random and is_share(key) and isinstance(random.get(key), int | float):
                told.append(f"{100 * (score - random[key]):+.1f} points over random")
            found.append(tile(words.headed(words.named_baseline(str(name))), names.value(key, score), ", ".join(told)))
    if not keys:
        found += running(run)
        measured = run.results.get("quality")
        measured = measured if isinstance(measured, Mapping) else {}
        for key, short in QUALITY_SHORT.items():
            if isinstance(measured.get(key), int | float):
                found.append(tile(QUALITY[key][0], number(measured[key]), short))
    if (seconds := run.results.get("seconds")) is not None and isinstance(seconds, int | float):
        rate = run.results.get("samples_per_second") or run.results.get("images_per_second")
        noun = run.kept.about.get("noun") or "item"
        found.append(tile("Time", duration(seconds), f"{number(rate)} {noun}s a second" if rate else ""))
    return found


def main_keys(results: Mapping[str, Any]) -> list[str]:
    """The main metric of each readout: `knn_top1`, `linear_top1`."""
    found: dict[str, str] = {}
    for key, value in results.items():
        kind, _, metric = key.partition("_")
        if kind in words.KINDS and metric and isinstance(value, int | float) and kind not in found:
            found[kind] = key
    return list(found.values())


def _kind(key: str) -> str:
    kind, _, metric = key.partition("_")
    return words.headed(words.KINDS.get(kind, kind)) + ("" if metric == "top1" else f" {metric.upper()}")


def _result(run: Run, key: str, random: Mapping[str, Any], name: str) -> str:
    mine, other = run.results[key], random.get(key)
    beside, way = "", ""
    if isinstance(other, int | float):
        gain, share = mine - other, is_share(key)
        size = f"{100 * abs(gain):.1f} points" if share else f"{abs(gain):.3g}"
        word = f"{'+' if gain >= 0 else '-'}{size} {'over' if gain >= 0 else 'against'}"
        beside = f"{word} {words.named_baseline(name)}"
        way = ("" if abs(gain) < 5e-4 else "up" if gain > 0 else "down") if share else ""
    return tile(_kind(key), names.value(key, mine), beside, way, main=True)


def running(run: Run) -> list[str]:
    """What can be said before there are results."""
    look, found = Look(run.rows, {}, run.config, run.kept.about), []
    for name, title in (("val/knn_top1", "kNN"), ("val/probe_top1", "Online probe")):
        if (value := look.last(name)) is not None:
            curve = look.curve(name)
            change = f"{100 * (value - curve[-2]):+.1f} points since the last epoch" if len(curve) > 1 else ""
            found.append(tile(title, number(value, True), change, main=True))
    if look.loss:
        found.append(tile("Loss", number(look.loss[-1]), f"{number(look.loss[0])} at first"))
    if run.rows:
        of = look.number("trainer", "max_epochs")
        epoch = max((row.get("epoch", 0.0) for row in run.rows), default=0.0)
        found.append(tile("Epoch", f"{epoch + 1:.0f}", f"of {of:.0f}" if of and of > 0 else ""))
    return found


def tile(what: str, value: str, beside: str | None = "", way: str = "", main: bool = False) -> str:
    """One number with its name; plain text."""
    parts = [("what", what), ("value", value), (f"beside {way}".strip(), beside)]
    drawn = "".join(f'<div class="{kind}">{escape(text)}</div>' for kind, text in parts if text)
    return f'<div class="{"tile main" if main else "tile"}">{drawn}</div>'


# ---- the rest ------------------------------------------------------------------------------------------------------


def health_of(found: list[Finding]) -> str:
    """The findings, the worst first."""
    words = {OK: "fine", WATCH: "watch", BAD: "problem"}
    shown = []
    for f in found:
        lines = [("says", f.says), ("normal", f.normal and f"Normal: {f.normal}")]
        lines.append(("fix", f"Try: {f.fix}" if f.fix and f.level != OK else f.fix))
        text = "".join(f'<p class="{kind}">{escape(line)}</p>' for kind, line in lines if line)
        level = f'<span class="level {f.level}">{words[f.level]}</span>'
        shown.append(f'<li class="finding" data-kind="{attribute(f.kind)}">{level}<div>{text}</div></li>')
    return f'<ul class="findings">{"".join(shown)}</ul>' if shown else ""


def curves(run: Run, look: Look) -> str:
    """All charts; those past the first nine are folded away."""
    drawn, once = charts(run, look)
    shown, more = drawn[:9], drawn[9:]
    hidden = html.details(f"{len(more)} more", f'<div class="grid3">{"".join(more)}</div>') if more else ""
    return (f'<div class="grid3">{"".join(shown)}</div>{hidden}' if shown else "") + once


def pictures(run: Run) -> str:
    """What the network was shown, and what it makes of it, epoch by epoch."""
    parts = []
    for name in sorted(run.pictures.keys() - {labelled.FIGURE}, key=lambda name: (name != "views", name)):
        states, room = list[tuple[str, str]](), LARGEST
        for epoch, file in reversed(run.pictures[name]):
            data = file.read_bytes()
            room -= len(data)
            if room < 0 and states:
                break
            drawn = f'<div class="scroll">{html.picture(data, name)}</div>'
            states.append(("newest" if epoch is None else f"epoch {epoch}", drawn))
        caption = name.replace("_", " ").capitalize()
        if states:
            parts.append((caption, f'<figure class="shot">{html.steps(states[::-1])}</figure>'))
    return f'<div class="card">{html.tabs(parts)}</div>' if parts else ""


def features(run: Run) -> str:
    """The map, neighbours, typical items, duplicates and classes; or how to get them."""
    its = items.Items(run.kept)
    if its.count < 3:
        if not run.done or str(run.results.get("stage")) not in ("pretrain", "knn", "linear", "embed"):
            return ""
        words = "This folder holds no features. Make the page again with them:"
        return (
            f'<p class="note">{words}</p>{html.code(names.command(["stage=report", f"ckpt={names.home(run.config)}"]))}'
        )
    noun = str(run.kept.about.get("noun") or "item")
    about = f"{its.count} test {noun}s"
    if its.number("test_items") > its.count:
        about += f" of {its.number('test_items')}"
    where = "training" if run.kept.about.get("bank") == "train" else "other test"
    dots = f"Each dot is one of {about}; near ones have similar features. Point at a dot to see it."
    near = f"A test {noun} and the {where} {noun}s nearest to it, with their cosine."
    near += " Red: another class." if its.labelled else ""
    odd = f"By mean cosine to the {its.number('k')} nearest {where} {noun}s."
    twins = f"Pairs with nearly equal features and nearly equal values, among {about}."
    blocks = [
        ("", dots, items.map_of_features(its)),
        ("By class", "", items.by_class(its)),
        ("Nearest neighbours", near, items.neighbours(its)),
        ("Typical and odd", odd, items.typical(its)),
        ("Near-duplicates", twins, items.duplicates(its)),
    ]
    drawn = "".join(
        (f"<h3>{escape(title)}</h3>" if title else "") + (f'<p class="note">{escape(note)}</p>' if note else "") + body
        for title, note, body in blocks
        if body
    )
    return its.sheets() + drawn


def quality(run: Run) -> str:
    """The label-free figures, each with what it means."""
    found = run.results.get("quality")
    if not isinstance(found, Mapping):
        return ""
    rows = "".join(
        f"<tr><th>{escape(QUALITY.get(key, (key, ''))[0])}</th><td>{number(value)}</td>"
        f"<td>{escape(QUALITY.get(key, ('', ''))[1])}</td></tr>"
        for key, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    )
    return f'<div class="card"><table class="facts">{rows}</table></div>' if rows else ""


def config(run: Run) -> str:
    """config.yaml and results.json as they stand, secrets masked."""
    if not run.config:
        return ""
    text = yaml.safe_dump(dict(run.config), sort_keys=False)
    parts = html.details("config.yaml", f"<pre>{escape(text)}</pre>")
    if run.results:
        results = yaml.safe_dump(dict(run.results), sort_keys=False)
        parts += html.details("results.json", f"<pre>{escape(results)}</pre>")
    return f'<div class="card">{parts}</div>'


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def modified(file: Path) -> str:
    """When a file was written, or nothing where it is not there."""
    return date(file.stat().st_mtime) if file.is_file() else ""


def date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
