"""Parallel coordinates: one upright axis for each key, a line for each group, coloured by its figure."""

from collections.abc import Sequence

from ssl_lightning.reports.axes import number
from ssl_lightning.reports.drawing import BOTTOM, TOP, WIDTH, cut, svg, text
from ssl_lightning.reports.gathered import as_numbers, in_order
from ssl_lightning.reports.html import attribute, escape

HEIGHT = 300
EDGE = 46
HALO = "paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round"  # words can be read across lines


def parallel(
    rows: Sequence[Sequence[str]],
    scores: Sequence[float],
    keys: Sequence[str],
    measure: str,
    title: str,
    scale: tuple[float, float],
    percent: bool,
    lower: bool = False,
) -> str:
    """The drawing as SVG.

    Args:
        rows: of each group its value of each key.
        scores: of each group its figure, finite; the last axis.
        scale: the figures of the faintest and of the strongest line.
        lower: less is better, and stands at the top of the last axis.
    """
    top, bottom, last = TOP + 14, HEIGHT - BOTTOM, len(keys)
    step = (WIDTH - 2 * EDGE) / max(last, 1)
    places = [_places([row[i] for row in rows], top, bottom) for i in range(last)]
    low, high = scale
    drawn = []
    for i, key in enumerate([*keys, measure]):
        x = EDGE + step * i
        drawn.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        anchor = "start" if i == 0 else "end" if i == last else "middle"
        drawn.append(text(cut(key, step * 0.95), x, bottom + 20 + 12 * (i % 2), "label", anchor))
    order = sorted(range(len(rows)), key=lambda i: scores[i], reverse=lower)
    for i in order:  # the best last, above the others
        share = _share(scores[i], low, high, lower)
        points = [(EDGE + step * j, places[j][value]) for j, value in enumerate(rows[i])]
        points.append((WIDTH - EDGE, bottom - share * (bottom - top)))
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        told = ", ".join(f"{key}={value}" for key, value in zip(keys, rows[i], strict=True))
        drawn.append(
            f'<path d="M{path}" fill="none" style="stroke:rgba(var(--heat),{0.15 + 0.8 * share:.2f});'
            f'stroke-width:{1.2 + 1.6 * share:.1f}px">'
            f"<title>{escape(told)}: {number(scores[i], percent)}</title></path>"
        )
    drawn.append(f'<g style="{HALO}">')
    for j, own in enumerate(places):
        x = EDGE + step * j
        for value, y in own.items():
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" style="fill:{attribute("var(--soft)")}"/>')
            drawn.append(text(cut(value, step * 0.8), x + (-6 if j else 6), y - 5, "tick", "end" if j else ""))
    ends = ((high, top), (low, bottom)) if not lower else ((low, top), (high, bottom))
    drawn += [text(number(value, percent), WIDTH - EDGE + 4, y + 4) for value, y in ends]
    return svg(title, "".join([*drawn, "</g>"]), HEIGHT)


def _share(score: float, low: float, high: float, lower: bool) -> float:
    """Where a figure stands between the worst and the best end of the scale, 0 to 1."""
    share = min(1.0, max(0.0, (score - low) / (high - low))) if high > low else 0.5
    return 1 - share if lower else share


def _places(values: Sequence[str], top: float, bottom: float) -> dict[str, float]:
    """The height of each value on its axis, evenly, numbers in their order from below."""
    known = in_order(values)
    if as_numbers(known) is None:
        known = known[::-1]  # the first at the top
    gap = (bottom - top) / (len(known) + 1)
    return {value: bottom - gap * (i + 1) for i, value in enumerate(known)}
