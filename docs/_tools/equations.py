"""Equations of the pages, set when the site is built: no script and no font is fetched to read them."""

import re

from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

SIZE, MARGIN = 18.0, 3.0
LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}


def drawn(tex: str) -> str:
    """One line of TeX as an inline SVG in the colour of the text around it.

    >>> drawn("x").startswith("<svg")
    True
    """
    with rc_context({"mathtext.fontset": "stix", "text.parse_math": True}):
        outline = TextPath((0, 0), f"${tex}$", size=SIZE, prop=FontProperties(family="STIXGeneral"))
    box = outline.get_extents()
    steps = []
    for points, code in outline.iter_segments(curves=True, simplify=False):
        pairs = [f"{points[i]:.2f} {-points[i + 1]:.2f}" for i in range(0, len(points), 2)]
        steps.append(LETTERS[code] + ("" if code == Outline.CLOSEPOLY else " ".join(pairs)))
    x, y = box.x0 - MARGIN, -box.y1 - MARGIN
    width, height = box.width + 2 * MARGIN, box.height + 2 * MARGIN
    label = tex.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        f'<svg class="equation" role="img" aria-label="{label}" width="{width:.1f}" height="{height:.1f}" '
        f'viewBox="{x:.1f} {y:.1f} {width:.1f} {height:.1f}"><path fill="currentColor" d="{"".join(steps)}"/></svg>'
    )


def set_equations(markdown: str) -> str:
    """Every ```math block, a line an equation, as SVG."""

    def one(found: re.Match[str]) -> str:
        lines = [line.removesuffix(r"\\").strip() for line in found[1].splitlines() if line.strip()]
        return '<div class="equations">' + "".join(drawn(line) for line in lines) + "</div>\n"

    return re.sub(r"^```math\n(.*?)^```\n", one, markdown, flags=re.S | re.M)
