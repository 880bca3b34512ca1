"""The shell of a page: one HTML file with its style and script inside, which asks the network for nothing.

Everything shown goes through `escape`. Beyond that the page's own policy lets one script run, ours by its hash, and
nothing be fetched: a name that got past the escaping would still be text.
"""

import base64
import hashlib
import html as _html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from ssl_lightning.reports import palette


def escape(value: Any) -> str:
    """Text for between tags."""
    return _html.escape(str(value), quote=False)


def attribute(value: Any) -> str:
    """Text for within a quoted attribute."""
    return _html.escape(str(value), quote=True)


def document(title: str, body: str, links: Sequence[tuple[str, str]] = ()) -> str:
    """A whole page, light or dark as the reader's system is, or as its button was last set.

    Args:
        title: of the window and of the bar at the top; plain text.
        body: HTML, for instance `section`s.
        links: (id of a section, its name) for the bar.
    """
    style, script = palette.css() + _file("page.css"), _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    bar = "".join(f'<a href="#{attribute(name)}">{escape(text)}</a>' for name, text in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n'
        f'<header class="bar"><b>{escape(title)}</b><nav>{bar}</nav>'
        '<button id="theme" type="button" title="light or dark" aria-label="light or dark">&#9680;</button></header>\n'
        f'<main>\n{body}\n</main>\n<div id="tip" hidden></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def section(name: str, title: str, body: str, note: str = "") -> str:
    """A part of the page with a heading. `name` is its id; `note` plain text under the heading; `body` HTML."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section id="{attribute(name)}"><h2>{escape(title)}</h2>{said}{body}</section>\n'


def tabs(parts: Sequence[tuple[str, str]]) -> str:
    """(name, HTML) of parts of which one is shown at a time, the first at once; one part alone has no tabs."""
    if len(parts) < 2:
        return parts[0][1] if parts else ""
    heads = "".join(
        f'<button type="button" role="tab" aria-selected="{"false" if i else "true"}">{escape(name)}</button>'
        for i, (name, _) in enumerate(parts)
    )
    panes = "".join(f'<div role="tabpanel"{" hidden" if i else ""}>{body}</div>' for i, (_, body) in enumerate(parts))
    return f'<div class="tabs"><div class="heads" role="tablist">{heads}</div>{panes}</div>'


def steps(parts: Sequence[tuple[str, str]]) -> str:
    """(name, HTML) of states one after another, with a slider that begins at the last."""
    if len(parts) < 2:
        return f"{parts[0][1]}" if parts else ""
    last = len(parts) - 1
    panes = "".join(
        f'<div class="state" data-name="{attribute(name)}"{"" if i == last else " hidden"}>{body}</div>'
        for i, (name, body) in enumerate(parts)
    )
    return (
        f'<div class="steps"><label><input type="range" min="0" max="{last}" value="{last}" step="1">'
        f"<output>{escape(parts[-1][0])}</output></label>{panes}</div>"
    )


def details(summary: str, body: str) -> str:
    """HTML that is folded away under a line of plain text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def code(text: str) -> str:
    """Text to copy, with a button for it."""
    return f'<div class="code"><pre>{escape(text)}</pre><button type="button" class="copy">copy</button></div>'


def facts(rows: Sequence[tuple[str, Any]]) -> str:
    """(name, value) as a table of two columns; rows without a value are left out."""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows if value not in (None, "")
    )
    return f'<table class="facts">{lines}</table>' if lines else ""


def picture(data: bytes, alt: str, kind: str = "png", classes: str = "") -> str:
    """An image inside the page."""
    encoded = base64.b64encode(data).decode()
    named = f' class="{attribute(classes)}"' if classes else ""
    return f'<img{named} src="data:image/{kind};base64,{encoded}" alt="{attribute(alt)}">'


@cache
def _file(name: str) -> str:
    return resources.files("ssl_lightning.reports").joinpath(name).read_text(encoding="utf-8")
