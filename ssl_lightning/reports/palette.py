"""The colours of pages: one set of CSS variables for light and one for dark; charts name the variables alone.

The first seven series colours are those of Okabe & Ito (2008, https://jfly.uni-koeln.de/color/), yellow darkened so
that it shows on white; the next come from Paul Tol's schemes (https://personal.sron.nl/~pault/). Both sets are made for
readers who are colour-blind.
"""

SERIES_LIGHT = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a8960c", "#666666", "#332288", "#882255",
    "#44aa99", "#999933",
)  # fmt: skip
SERIES_DARK = (
    "#4ba3e3", "#f0813a", "#2fc497", "#e39bc4", "#f2b134", "#8bd0f7", "#d8c84a", "#a8a8a8", "#9a8cf0", "#d9779f",
    "#7fd8c8", "#c8c86a",
)  # fmt: skip
LIGHT = {
    "bg": "#f6f7f9", "card": "#ffffff", "ink": "#1b2330", "soft": "#5b6675", "line": "#e2e6ec", "grid": "#eceff3",
    "accent": "#0b62a8", "ok": "#0a7d57", "ok-bg": "#e6f5ef", "watch": "#8a5a00", "watch-bg": "#fdf3dc",
    "bad": "#b3261e", "bad-bg": "#fdeceb", "code": "#f1f3f6", "heat": "0,114,178",
}  # fmt: skip
DARK = {
    "bg": "#12161c", "card": "#1a2028", "ink": "#e6eaf0", "soft": "#9aa6b5", "line": "#2b333e", "grid": "#262e38",
    "accent": "#6bb5f2", "ok": "#4fd1a1", "ok-bg": "#132b24", "watch": "#f0c05a", "watch-bg": "#30270f",
    "bad": "#ff8a80", "bad-bg": "#381a19", "code": "#222a34", "heat": "75,163,227",
}  # fmt: skip


def color(place: int) -> str:
    """The colour of series or class number `place`, from 0, as CSS: a variable, and past twelve a hue of its own."""
    if place < len(SERIES_LIGHT):
        return f"var(--c{place + 1})"
    return f"hsl({round(place * 137.508) % 360} 55% 52%)"  # the golden angle: neighbours in number are far apart in hue


def css() -> str:
    """The variables: light by default, dark where the reader's system or the page's own button says so."""
    dark = _variables(DARK, SERIES_DARK)
    return (
        f":root{{color-scheme:light;{_variables(LIGHT, SERIES_LIGHT)}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )


def _variables(named: dict[str, str], series: tuple[str, ...]) -> str:
    numbered = {f"c{i}": value for i, value in enumerate(series, start=1)}
    return "".join(f"--{name}:{value};" for name, value in {**named, **numbered}.items())
