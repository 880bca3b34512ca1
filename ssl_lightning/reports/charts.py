"""Charts as inline SVG: pure functions from numbers to text, no library, no randomness.

Colours are CSS variables of `palette`; `html.document` brings them, the fonts, and the script that shows the values at
the pointer. All text is escaped here. Without the script the charts are whole, too: they carry axes and a legend.
"""

import json
import math
from collections.abc import Sequence

from ssl_lightning.reports.axes import Axis, axis, number
from ssl_lightning.reports.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Points,
    Series,
    across,
    along,
    band_of,
    colored,
    cut,
    frame,
    legend,
    legend_rows,
    path,
    short,
    shown,
    svg,
    text,
    text_width,
)
from ssl_lightning.reports.html import attribute, escape
from ssl_lightning.reports.palette import color

__all__ = ["Bar", "Points", "Series", "bar_chart", "heat_map", "line_chart", "scatter"]


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str = "",
    y_label: str = "",
    percent: bool = False,
    log: bool = False,
    band: tuple[float, float, str] | None = None,
) -> str:
    """Lines over a common axis. With one series no legend; with several a legend under the title.

    Args:
        percent: shares are shown in percent.
        log: the upright axis is logarithmic; values of 0 and less are left out.
        band: (low, high, what it is): a range that is marked behind the lines, for instance a baseline and its noise.
    """
    kept = [shown(one, log) for one in series]
    told = legend([(one.name, colored(one, i)) for i, one in enumerate(series)]) if len(series) > 1 else ""
    top = TOP + (16 * legend_rows(series) if told else 0)
    xs = along([v for one in kept for v in one.x])
    spread = [v for one in kept for side in (one.y, one.low or (), one.high or ()) for v in side]
    ys = axis([*spread, *(band[:2] if band else ())], HEIGHT - BOTTOM, top, log)
    marked = [across(band, ys)] if band else []
    for i, one in enumerate(kept):
        marked += [band_of(one, xs, ys, colored(series[i], i)), path(one, xs, ys, colored(series[i], i))]
    values = {
        "x": [xs.low, xs.high, xs.start, xs.end],
        "y": [ys.low, ys.high, ys.start, ys.end, int(log)],
        "p": int(percent),
        "l": x_label,
        "s": [
            {"n": one.name, "c": colored(series[i], i), "x": [short(v) for v in one.x], "y": [short(v) for v in one.y]}
            for i, one in enumerate(kept)
        ],
    }
    inside = frame(xs, ys, x_label, y_label, percent) + "".join(marked) + told
    data = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return svg(title, inside, HEIGHT, f' data-lines="{attribute(data)}"')


def bar_chart(
    bars: Sequence[Bar],
    title: str,
    x_label: str = "",
    percent: bool = False,
    reference: tuple[float, str] | None = None,
) -> str:
    """Lying bars from 0, one under the other, each with its name and value.

    Args:
        reference: (value, what it is): an upright line across all bars, for instance chance.
    """
    wide = min(170, 14 + max((text_width(bar.name) for bar in bars), default=0))
    height = TOP + 26 * max(len(bars), 1) + 34
    ends = [v for bar in bars for v in (bar.value, bar.low, bar.high) if v is not None]
    xs = axis([*ends, *([reference[0]] if reference else [])], wide, WIDTH - 58, zero=True)
    drawn = [_bar(bar, TOP + 26 * i, wide, xs, percent) for i, bar in enumerate(bars)]
    bottom = TOP + 26 * max(len(bars), 1)
    if reference:
        x = xs.place(reference[0])
        said = f"{reference[1]}: {number(reference[0], percent)}"
        line = f'<path class="reference" d="M{x:.1f} {TOP - 4}V{bottom}"><title>{escape(said)}</title></path>'
        drawn.append(line + text(reference[1], x, bottom + 13, anchor="middle"))
    if x_label:
        drawn.append(text(x_label, (wide + WIDTH) / 2, height - 5, "label", "middle"))
    return svg(title, "".join(drawn), height)


def _bar(bar: Bar, y: int, wide: float, xs: Axis, percent: bool) -> str:
    value = number(bar.value, percent)
    zero, end = xs.place(0.0), xs.place(bar.value) if math.isfinite(bar.value) else xs.place(0.0)
    drawn = text(cut(bar.name, wide - 10), wide - 8, y + 15, "name", "end") + (
        f'<rect x="{min(zero, end):.1f}" y="{y + 3}" width="{abs(end - zero):.1f}" height="17" rx="2" '
        f'style="fill:{attribute(bar.color or color(0))}"><title>{escape(bar.name)}: {value}</title></rect>'
    )
    if bar.low is not None and bar.high is not None:
        low, end = xs.place(bar.low), max(end, xs.place(bar.high))
        high = xs.place(bar.high)
        drawn += f'<path class="error" d="M{low:.1f} {y + 11.5}H{high:.1f}M{low:.1f} {y + 8}v7M{high:.1f} {y + 8}v7"/>'
    return drawn + text(value, end + 5, y + 16, "value")


def scatter(
    groups: Sequence[Points],
    title: str,
    x_label: str = "",
    y_label: str = "",
    percent_x: bool = False,
    percent_y: bool = False,
    log_x: bool = False,
    names: bool = False,
) -> str:
    """Points in groups, coloured alike.

    Args:
        names: each point's label is written beside it; only for few points.
    """
    told = legend([(one.name, one.color or color(i)) for i, one in enumerate(groups)]) if len(groups) > 1 else ""
    top = TOP + (16 * legend_rows(groups) if told else 0)
    xs = axis((v for one in groups for v in one.x), LEFT, WIDTH - RIGHT, log_x)
    ys = axis((v for one in groups for v in one.y), HEIGHT - BOTTOM, top)
    drawn = []
    for i, one in enumerate(groups):
        dots = []
        for j, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            said = one.labels[j] if j < len(one.labels) else one.name
            value = f"{said}: {number(x, percent_x)}, {number(y, percent_y)}"
            cx, cy = xs.place(x), ys.place(y)
            dots.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4"><title>{escape(value)}</title></circle>')
            if names:
                beyond = cx > WIDTH - 110
                dots.append(text(said, cx + (-7 if beyond else 7), cy + 4, anchor="end" if beyond else ""))
        drawn.append(f'<g class="dots" style="fill:{attribute(one.color or color(i))}">{"".join(dots)}</g>')
    inside = frame(xs, ys, x_label, y_label, percent_y, percent_x) + "".join(drawn) + told
    return svg(title, inside, HEIGHT)


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_label: str = "",
    column_label: str = "",
    percent: bool = False,
    numbers: bool | None = None,
    scale: tuple[float, float] | None = None,
) -> str:
    """A table of values >= 0 as cells of one colour, darker where larger; what is not finite is left blank.

    Args:
        scale: the values of the lightest and of the darkest cell; None: 0 and the largest.
        numbers: the value stands in each cell; None: where there are 12 columns or fewer.
    """
    numbers = len(columns) <= 12 if numbers is None else numbers
    wide = min(130, 12 + max((text_width(name) for name in rows), default=0)) + (14 if row_label else 0)
    slant = 0.72 * min(text_width(columns[-1]), 105) if columns else 0.0  # of the last name, beyond its cell
    cell = min(46.0, (WIDTH - wide - slant) / max(len(columns), 1))
    tall = min(cell, 30.0)
    head = (
        TOP + (16 if column_label else 0) + min(88, 8 + max((text_width(name) for name in columns), default=0) * 0.72)
    )
    finite = [v for row in values for v in row if math.isfinite(v)]
    least, most = scale or (0.0, max(finite, default=1.0) or 1.0)
    drawn = []
    if row_label:
        drawn.append(text(row_label, 10, head + tall * len(rows) / 2, "label", "middle", -90))
    if column_label:
        drawn.append(text(column_label, wide + cell * len(columns) / 2, TOP + 8, "label", "middle"))
    drawn += [text(cut(name, 105), wide + cell * (j + 0.5) + 3, head - 5, turned=-45) for j, name in enumerate(columns)]
    for i, name in enumerate(rows):
        y = head + tall * i
        drawn.append(text(cut(name, wide - 8), wide - 6, y + tall / 2 + 4, anchor="end"))
        for j, value in enumerate(values[i]):
            if math.isfinite(value):
                place = (wide + cell * j, y, cell, tall)
                share = min(1.0, max(0.0, (value - least) / ((most - least) or 1.0)))
                drawn.append(_cell(value, share, f"{name} / {columns[j]}", place, percent, numbers))
    return svg(title, "".join(drawn), math.ceil(head + tall * len(rows) + 8))


def _cell(
    value: float, share: float, name: str, place: tuple[float, float, float, float], percent: bool, written: bool
) -> str:
    x, y, cell, tall = place
    drawn = (
        f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{tall - 1:.1f}" '
        f'style="fill:rgba(var(--heat),{0.04 + 0.92 * share:.2f})"><title>{escape(name)}: {number(value, percent)}'
        "</title></rect>"
    )
    if written and value:
        kind = "in strong" if share > 0.55 else "in"
        said = f"{100 * value:.0f}" if percent else number(value)
        drawn += text(said, x + cell / 2, y + tall / 2 + 4, kind, "middle")
    return drawn
