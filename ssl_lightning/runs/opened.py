"""A run as a user's own code reads it: its results, curves, backbone and pages, each read when it is asked for."""

from __future__ import annotations

import base64
import contextlib
import csv
import html
import io
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lightning.core.errors import UserError, did_you_mean, plain
from ssl_lightning.runs import places
from ssl_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ssl_lightning.runs.model import Model

SHARES = ("top1", "top5", "accuracy")  # fractions, shown in percent
OWN_WEIGHTS = ("backbone.safetensors", "model.safetensors", "checkpoints/*.ckpt")
TUNING = ("finetune", "detect", "segment")  # stages that train the backbone, each in a folder of its name
PICTURE = 480  # px, the longer side of the picture in a notebook


class Run:
    """A run's folder, as `pretrain`, `evaluate`, `finetune` and `load_run` return it.

    A notebook shows it as a table of the results beside the baselines, the verdict and the views it was trained on.

    Args:
        path: the run's folder.
        trusted: your own packages, where the backbone's class lives in one.
        load: makes the backbone of a reference.
        load_model: makes the model of one.

    Attributes:
        path: the folder, absolute.
        name: the folder as it is best written from the current one, such as "runs/simclr-shapes".

    Example:
        >>> run = load_run("runs/simclr-shapes")  # doctest: +SKIP
        >>> run.results["knn_top1"], run.backbone.out_dim  # doctest: +SKIP
        (0.713, 256)
    """

    def __init__(
        self,
        path: str | Path,
        trusted: Iterable[str] = (),
        load: Callable[[str | Path, Iterable[str]], nn.Module] | None = None,
        load_model: Callable[[str | Path, Iterable[str]], Model] | None = None,
    ) -> None:
        self.path = Path.cwd() / Path(path).expanduser()
        self.trusted = tuple(trusted)
        self._load, self._load_model = load, load_model

    @property
    def name(self) -> str:
        with contextlib.suppress(ValueError, OSError):  # not below the current folder, or that is gone
            return self.path.relative_to(Path.cwd()).as_posix()
        return str(self.path)

    @property
    def finished(self) -> bool:
        """Are there results? A run that was stopped has none, and the call that began it goes on with it."""
        return RunFolder(self.path).finished

    @property
    def results(self) -> dict[str, Any]:
        """What results.json holds; {} while there is none. Raises UserError where it cannot be read."""
        return RunFolder(self.path).results() or {}

    @property
    def config(self) -> dict[str, Any]:
        """The composed config, secrets masked. Raises UserError where it cannot be read."""
        return dict(places.config_of(self.path))

    @property
    def metrics(self) -> dict[str, np.ndarray[Any, Any]]:
        """metrics.csv by columns: float64 (R,) each, NaN where a row has no value. See `curve` for one without gaps."""
        import numpy as np

        file = self.path / "metrics.csv"
        if not file.is_file():
            return {}
        with open(file, newline="") as opened:
            header, *rows = csv.reader(opened)
        columns = zip(header, zip(*rows, strict=True) if rows else ((),) * len(header), strict=True)
        return {name: np.array([_number(cell) for cell in cells]) for name, cells in columns}

    def curve(self, name: str, x: str = "step") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """One metric as it changed, `plot(*run.curve("train/loss"))`.

        Args:
            name: the metric, a column of metrics.csv.
            x: "step" (of the optimizer) or "epoch".

        Returns:
            Two float64 arrays (R,): where, and what.

        Raises:
            UserError: there is no such metric.
        """
        found = self.metrics
        for key in (name, x):
            if key not in found:
                hint = did_you_mean(key, found) or did_you_mean(f"train/{key}", found)
                raise UserError(f"{self.name} has no metric '{key}'.{hint}")
        there = found[name] == found[name]  # not NaN
        return found[x][there], found[name][there]

    @property
    def report(self) -> Path | None:
        """The page that shows the run in a browser, where there is one."""
        file = self.path / "report.html"
        return file if file.is_file() else None

    @property
    def views(self) -> Path | None:
        """The picture of the views it was trained on, one image a row, where there is one."""
        file = self.path / "views.png"
        return file if file.is_file() else None

    @cached_property
    def backbone(self) -> nn.Module:
        """The pretrained network in eval mode, loaded once: items (B, ...) -> features (B, .out_dim).

        Of an evaluation, which has no weights of its own, it is the network that was evaluated. Raises UserError as
        `load_backbone` does.
        """
        own = any(next(self.path.glob(pattern), None) for pattern in OWN_WEIGHTS)
        judged = None if own else self.results.get("ckpt")
        if judged and any((self.path / stage).is_dir() for stage in TUNING):
            raise UserError(f"{self.name} stores no backbone of its own; the one before fine-tuning is in {judged}")
        ref = judged or self.path
        if self._load is not None:
            return self._load(ref, self.trusted)
        from ssl_lightning.runs.checkpoint import restored

        return restored(ref, self.trusted)

    @cached_property
    def model(self) -> Model:
        """What a training on labels left, in eval mode, loaded once: inputs (B, ...) -> outputs (B, K).

        Raises UserError where the run trained on no labels.
        """
        if self._load_model is not None:
            return self._load_model(self.path, self.trusted)
        from ssl_lightning.runs.model import restored_model

        return restored_model(self.path, self.trusted)

    # ---- shown

    def __repr__(self) -> str:
        try:
            results = self.results
        except UserError as error:
            return f"Run({self.name!r}): {error}"
        if not results:
            return f"Run({self.name!r}): not finished"
        numbers = "".join(f", {key} {_shown(key, value)}" for key, value in _main(results).items())
        words = f"\n{plain(str(results['verdict']))}" if results.get("verdict") else ""
        return f"Run({self.name!r}{plain(numbers)}){words}"

    def _repr_html_(self) -> str:
        try:
            results = self.results
        except UserError as error:
            return f"<p>{html.escape(f'{self.name}: {error}')}</p>"
        head = f"<p><b>{html.escape(self.name)}</b>{'' if results else ': not finished'}</p>"
        facts = [
            f"{name} {results[name]:,}" for name in ("epochs", "steps", "seconds") if _is_number(results.get(name))
        ]
        words = [str(results["verdict"])] if results.get("verdict") else []
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in [*words, ", ".join(facts)] if line)
        return f"{head}{_table(results)}{lines}{_picture(self.views)}"


def opened(path: str | Path, **given: Any) -> Run:
    """The run in a folder; raises UserError where there is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        beside = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
        raise UserError(f"there is no run {path}.{did_you_mean(folder.name, beside)}")
    if not places.is_run(folder):
        inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and places.is_run(entry))
        hint = f"; it holds the runs {', '.join(inside[:8])}" if inside else "; it holds no config.yaml of one"
        raise UserError(f"{path} is not the folder of a run{hint}")
    return Run(folder, **given)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(key: str, value: Any) -> str:
    if not _is_number(value):
        return ""
    return f"{100 * value:.1f} %" if key.endswith(SHARES) else f"{value:.4g}"


def _baselines(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = results.get("baselines")
    return {str(k): v for k, v in found.items() if isinstance(v, Mapping)} if isinstance(found, Mapping) else {}


def _main(results: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that say how good the features are: those that a baseline has, too."""
    others = _baselines(results)
    return {k: v for k, v in results.items() if _is_number(v) and any(k in other for other in others.values())}


def _table(results: Mapping[str, Any]) -> str:
    """The main numbers, a row each, beside those of the baselines."""
    rows, others = _main(results), _baselines(results)
    if not rows:
        return ""
    names = ["", "this run", *(name.replace("_", " ") for name in others)]
    lines = [
        [key, _shown(key, value), *(_shown(key, o.get(key)) for o in others.values())] for key, value in rows.items()
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _picture(file: Path | None) -> str:
    """A picture within the page, so that a stored notebook shows it; nothing where it cannot be read."""
    if file is None:
        return ""
    from PIL import Image

    try:
        with Image.open(file) as stored:
            wide, high = stored.size  # one image a row: of a tall picture the first rows
            small, buffer = stored.crop((0, 0, wide, min(high, 2 * wide))).convert("RGB"), io.BytesIO()
            small.thumbnail((PICTURE, PICTURE))
            small.save(buffer, "PNG", optimize=True)
    except Exception:  # a damaged or endless picture is no reason to fail where something is only shown
        return ""
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(os.path.splitext(file.name)[0])}" src="data:image/png;base64,{data}">'
