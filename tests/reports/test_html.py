"""The shell of a page: whole, quiet on the network, and one script that may run."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from ssl_lightning.reports import html

EVIL = "<script>alert(1)</script>\"'"
NAMES = {"id", "class", "type", "role", "hidden", "src", "alt", "data-name", "aria-selected"}
NAMES |= {"min", "max", "value", "step"}
VOID = {"meta", "link", "img", "input", "br"}


class Checked(HTMLParser):
    """Fails for a tag that is closed in the wrong place; counts the rest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.names: set[str] = set()  # of attributes
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "action", "data", "poster")]
        self.names |= {key for key, _ in attrs}
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def is_quiet(text: str) -> None:
    """A page that asks the network for nothing, and runs no script but ours."""
    page = Checked(text)
    assert page.tags.count("script") == 1
    assert not page.handlers
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "@import" not in text
    assert all(found.startswith("data:") for found in re.findall(r"url\(([^)]*)", text))


def test_a_page_asks_for_nothing_and_lets_one_script_run() -> None:
    text = html.document(EVIL, html.section(EVIL, EVIL, "<p>x</p>", EVIL), [(EVIL, EVIL)])
    is_quiet(text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert script
    assert policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")


def test_every_helper_escapes() -> None:
    made = [
        html.escape(EVIL),
        html.code(EVIL),
        html.details(EVIL, ""),
        html.facts([(EVIL, EVIL)]),
        html.tabs([(EVIL, ""), (EVIL, "")]),
        html.steps([(EVIL, ""), (EVIL, "")]),
        html.picture(b"x", EVIL),
        html.section(EVIL, EVIL, "", EVIL),
    ]
    for text in made:
        page = Checked(text)
        assert "script" not in page.tags
        assert not page.names - NAMES


def test_one_tab_needs_no_tabs_and_none_is_nothing() -> None:
    assert html.tabs([("a", "<p>x</p>")]) == "<p>x</p>"
    assert html.tabs([]) == html.steps([]) == html.facts([("a", None)]) == ""
    assert html.steps([("1", "a"), ("2", "b")]).count("hidden") == 1  # the last is shown
