"""The parts that charts are drawn of: series, frame, legend, lines and bands, as text of SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_lightning.reports.axes import Axis, number, thinned, tick_text
from ssl_lightning.reports.html import attribute, escape
from ssl_lightning.reports.palette import color

WIDTH, HEIGHT = 420, 250  # units of a drawing; as many pixels on a phone, so that its letters can be read
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 30, 36


@dataclass(frozen=True)
class Series:
    """One line: `y` over `x`, of one length; what is not finite is a gap.

    Args:
        low, high: the ends of a band around it, for instance over seeds.
        color: CSS; None: by its place.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    color: str | None = None


@dataclass(frozen=True)
class Bar:
    """One bar, with the ends of an error bar where they are known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    color: str | None = None


@dataclass(frozen=True)
class Points:
    """Points of one colour in a scatter; `labels` are shown at the pointer."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    color: str | None = None


def svg(title: str, inside: str, height: int, more: str = "") -> str:
    """The whole drawing."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{attribute(title)}"{more}>'
        f'<text class="title" x="8" y="18">{escape(title)}</text>{inside}</svg>'
    )


def text(words: str, x: float, y: float, kind: str = "tick", anchor: str = "", turned: int = 0) -> str:
    """Words at a place, escaped. `kind` is a class of the style sheet; `turned` degrees, clockwise."""
    place = f'transform="translate({x:.1f} {y:.1f}) rotate({turned})"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" {place}{anchored}>{escape(words)}</text>'


def along(values: Sequence[float]) -> Axis:
    """The lower axis of lines, which begin at its edge; a single value lies in the middle."""
    if not values:
        return Axis(0.0, 1.0, LEFT, WIDTH - RIGHT, known=False)
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    return Axis(low, high, LEFT, WIDTH - RIGHT, whole=all(value == round(value) for value in values))


def frame(xs: Axis, ys: Axis, x_label: str, y_label: str, percent: bool, percent_x: bool = False) -> str:
    """Grid, ticks and the names of the axes."""
    lines, middle = [], (LEFT + WIDTH - RIGHT) / 2
    for side, places, shares in ((ys, ys.ticks(4), percent), (xs, xs.ticks(5), percent_x)):
        step = places[1] - places[0] if len(places) > 1 and not side.log else 0.0
        for value in places:
            words = number(value) if side.log and not shares else tick_text(value, step or abs(value) or 1.0, shares)
            at = side.place(value)
            if side is ys:
                lines.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
                lines.append(text(words, LEFT - 6, at + 4, anchor="end"))
            else:
                lines.append(text(words, at, HEIGHT - BOTTOM + 14, anchor="middle"))
    if not ys.known:
        lines = [text("no values yet", middle, HEIGHT / 2, anchor="middle")]
    lines.append(f'<path class="base" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    if x_label:
        lines.append(text(x_label, middle, HEIGHT - 5, "label", "middle"))
    if y_label:
        lines.append(text(y_label, 11, (HEIGHT - BOTTOM + ys.end) / 2, "label", "middle", -90))
    return "".join(lines)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """(name, colour) of each series, in as many rows as they need."""
    drawn, x, row = [], LEFT, 0
    for name, fill in entries:
        words = cut(name, WIDTH - LEFT - 40)
        wide = 22 + text_width(words)
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, row = LEFT, row + 1
        y = TOP + 16 * row
        drawn.append(
            f'<rect x="{x}" y="{y - 2}" width="10" height="3" rx="1.5" style="fill:{attribute(fill)}"/>'
            + text(words, x + 14, y + 3)
        )
        x += math.ceil(wide)
    return "".join(drawn)


def legend_rows(entries: Sequence[Series] | Sequence[Points]) -> int:
    """How many rows that is."""
    x, rows = float(LEFT), 1
    for entry in entries:
        wide = math.ceil(22 + text_width(cut(entry.name, WIDTH - LEFT - 40)))
        if x > LEFT and x + wide > WIDTH - RIGHT:
            x, rows = LEFT, rows + 1
        x += wide
    return rows


def shown(one: Series, log: bool) -> Series:
    """The points that are drawn: finite, not too many; above 0 where the axis is logarithmic."""
    rows = [i for i, y in enumerate(one.y) if math.isfinite(y) and math.isfinite(one.x[i]) and (y > 0 or not log)]
    rows = [rows[i] for i in thinned([one.x[i] for i in rows], [one.y[i] for i in rows])]
    low, high = ([side[i] for i in rows] if side is not None else None for side in (one.low, one.high))
    return Series(one.name, [one.x[i] for i in rows], [one.y[i] for i in rows], low, high, one.color)


def colored(one: Series, place: int) -> str:
    """The colour of a series."""
    return one.color or color(place)


def path(one: Series, xs: Axis, ys: Axis, stroke: str) -> str:
    """Its line, with a dot for each of few points."""
    places = [f"{xs.place(x):.1f} {ys.place(y):.1f}" for x, y in zip(one.x, one.y, strict=True)]
    if len(places) == 1:
        x, y = places[0].split()
        return f'<circle cx="{x}" cy="{y}" r="3" style="fill:{attribute(stroke)}"/>'
    dots = "".join(f'<circle cx="{p.split()[0]}" cy="{p.split()[1]}" r="2.2"/>' for p in places if len(places) <= 12)
    line = f'<path class="line" d="M{"L".join(places)}" style="stroke:{attribute(stroke)}"/>' if places else ""
    return line + (f'<g style="fill:{attribute(stroke)}">{dots}</g>' if dots else "")


def band_of(one: Series, xs: Axis, ys: Axis, fill: str) -> str:
    """The band around it."""
    if one.low is None or one.high is None or len(one.x) < 2:
        return ""
    there = [f"{xs.place(x):.1f} {ys.place(y):.1f}" for x, y in zip(one.x, one.high, strict=True)]
    back = [f"{xs.place(x):.1f} {ys.place(y):.1f}" for x, y in zip(one.x, one.low, strict=True)]
    return f'<path class="band" d="M{"L".join([*there, *back[::-1]])}Z" style="fill:{attribute(fill)}"/>'


def across(band: tuple[float, float, str], ys: Axis) -> str:
    """A range of values marked across the whole chart."""
    low, high, name = band
    top, bottom = sorted((ys.place(low), ys.place(high)))
    return (
        f'<rect class="across" x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{max(bottom - top, 1):.1f}"><title>{escape(name)}</title></rect>'
        + text(name, WIDTH - RIGHT - 2, top - 3, anchor="end")
    )


def text_width(words: str) -> float:
    """About how wide a text of 11 units is drawn."""
    return 6.6 * len(words)


def cut(words: str, width: float) -> str:
    """Words that fit a width, the rest left out."""
    most = max(3, int(width / 6.6))
    return words if len(words) <= most else f"{words[: most - 1]}…"


def short(value: float) -> float:
    """Five digits: more are not seen."""
    return float(f"{value:.5g}")
