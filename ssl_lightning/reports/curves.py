"""The curves of a run: a chart for each thing that was measured while it trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_lightning.reports import html
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.charts import Series, line_chart
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.read import Row, Run, column


@dataclass(frozen=True)
class Chart:
    """Metrics that are drawn together.

    Args:
        lines: (metric, what it is called).
        over: the column along the axis.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    over: str = "step"
    percent: bool = False
    log: bool = False


CHARTS = (
    Chart("Loss", (("train/loss", "loss"),)),
    Chart("Accuracy on the test items", (("val/knn_top1", "kNN"), ("val/probe_top1", "online probe")), "epoch", True),
    Chart(
        "Spread of the vectors (0 = collapsed, 1 = uniform)",
        (("train/embedding_std", "embeddings"), ("val/feature_std", "features")),
    ),
    Chart("Effective rank", (("train/embedding_rank", "embeddings"), ("val/feature_rank", "features"))),
    Chart(
        "Cosine of two views",
        (("train/positive_similarity", "of one item"), ("train/negative_similarity", "of different items")),
    ),
    Chart("The other view is the nearest", (("train/positive_top1", "share"),), percent=True),
    Chart("Mutual information of the views, at least (nats)", (("train/mutual_information", "bound"),)),
    Chart("Learning rate", (("train/lr", "rate"),)),
    Chart("Momentum of the teacher", (("train/teacher_momentum", "momentum"),)),
    Chart("Teacher's entropy", (("train/teacher_entropy", "entropy"),)),
    Chart("Norm of the gradient", (("train/grad_norm", "norm"),), log=True),
    Chart("Images a second", (("train/images_per_second", "speed"),)),
    Chart("Items a second", (("train/samples_per_second", "speed"),)),
)
LESS: tuple[str, ...] = ("train/probe_loss", "train/probe_top1", "train/memory_mb", "train/embedding_scale")
LESS += ("train/uniformity", "train/alignment")  # shown last
TITLES = {
    "train/probe_loss": "Loss of the online probe",
    "train/probe_top1": "Online probe on training items",
    "train/memory_mb": "Memory (MB)",
    "train/embedding_scale": "Scale of the embeddings (1 = first look)",
    "train/uniformity": "Uniformity of the embeddings",
    "train/alignment": "Alignment of the embeddings",
}
MANY = 24  # charts of a page


def charts(run: Run, look: Look) -> tuple[list[str], str]:
    """(all charts of a run, the most telling first, metrics of one's own get one each; a table of what is no curve)."""
    if run.parts:
        return _of_parts(run.parts), ""
    found, told = list[str](), set[str]()
    once: list[tuple[str, Series, bool]] = []
    for chart in CHARTS:
        series = [one for name, title in chart.lines if (one := _series(run.rows, name, title, chart.over)).x]
        told |= {name for name, _ in chart.lines}
        if series and all(len(one.x) < 2 for one in series):
            once += [
                (f"{chart.title}: {one.name}" if len(series) > 1 else chart.title, one, chart.percent) for one in series
            ]
        elif series:
            found.append(line_chart(series, chart.title, chart.over, "", chart.percent, chart.log, _band(chart, look)))
    own = [name for name in _names(run.rows) if name not in told]
    for name in sorted(own, key=lambda name: (name in LESS, name)):
        title, share = TITLES.get(name, name), name.endswith("top1")
        series = [_series(run.rows, name, title)]
        if len(series[0].x) < 2:
            once.append((title, series[0], share))
        else:
            found.append(line_chart(series, title, "step", percent=share))
    return found[:MANY], _once(once)


def _once(values: list[tuple[str, Series, bool]]) -> str:
    """What was measured once is no curve: a table."""
    rows = [(title, number(one.y[0], share)) for title, one, share in values]
    table = html.facts(rows)
    return f'<div class="card"><h3>Measured once</h3>{table}</div>' if table else ""


def _of_parts(parts: dict[str, list[Row]]) -> list[str]:
    """Of a stage that trains several networks: a chart for each metric, a line for each network."""
    names = list(dict.fromkeys(name for rows in parts.values() for name in _names(rows)))
    return [
        line_chart(
            [one for part, rows in parts.items() if (one := _series(rows, name, part.replace("_", " "))).x],
            name,
            "step",
            percent=name.endswith(("top1", "top5")),
        )
        for name in sorted(names, key=lambda name: (name in LESS, not name.startswith("val/"), name))
    ][:MANY]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch")))


def _series(rows: list[Row], name: str, title: str, over: str = "step") -> Series:
    x, y = column(rows, name, over)
    return Series(title, [value + 1 for value in x], y)


def _band(chart: Chart, look: Look) -> tuple[float, float, str] | None:
    """What the curve is to be held against: random weights, or the loss of a guess."""
    if chart.percent and chart.over == "epoch":
        random = look.baseline("random_init", "knn_top1")
        return (random, random, "random weights, kNN") if random is not None else None
    if chart.title == "Loss" and look.guess and look.loss and max(look.loss) > 0.6 * look.guess[0]:
        return look.guess[0], look.guess[0], f"a guess: {look.guess[1]}"
    return None
