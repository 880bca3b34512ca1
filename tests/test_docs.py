"""The documentation site: it builds strictly, fetches nothing from elsewhere, has no broken link, and names what the
code has: each method, its paper and recipes, each key."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from benchmarks import method_chart
from tests.reports.test_browser import BROWSER

ROOT = Path(__file__).parents[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")  # keepachangelog.com
DOCS, CONF = ROOT / "docs", ROOT / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
GROUPS = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {".", "method"})
GROUPS = [group for group in GROUPS if not group.startswith("experiment")]  # on the methods' pages
ARXIV = re.compile(r"https://arxiv\.org/abs/\d+\.\d+")


class Reader(HTMLParser):
    """What a page links to, what it fetches by itself, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(found["href"])
        if tag in ("script", "img", "iframe", "source", "video") and "src" in found:
            self.fetched.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**_environment()})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Reader]:
    return {path.relative_to(site).as_posix(): Reader(path.read_text()) for path in sorted(site.rglob("*.html"))}


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Reader]) -> None:
    outside = {(path, url) for path, page in pages.items() for url in page.fetched if re.match(r"(\w+:)?//", url)}
    assert not outside
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_links_lead_somewhere(site: Path, pages: dict[str, Reader]) -> None:
    broken = []
    for path, page in pages.items():
        if path == "404.html":  # its addresses begin at the site's root
            continue
        for url in [*page.links, *page.fetched]:
            if re.match(r"\w+:", url):
                continue
            target, _, anchor = unquote(url).partition("#")
            file = (site / path).parent / target if target else site / path
            name = file.resolve().relative_to(site.resolve()).as_posix()
            if not file.is_file() or (anchor and name in pages and anchor not in pages[name].anchors):
                broken.append((path, url))
    assert not broken


@pytest.mark.slow
def test_every_page_of_docs_and_of_the_code_is_there(pages: dict[str, Reader]) -> None:
    written = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    made = {f"reference/config/{group.replace('/', '_')}.html" for group in GROUPS}
    assert made == {f"reference/config/{g.name}" for g in map(Path, pages) if g.parts[:2] == ("reference", "config")}
    assert written | made | {"reference/index.html", "reference/api.html", "contributing.html"} <= set(pages)


@pytest.mark.slow
def test_every_key_is_in_the_reference(site: Path) -> None:
    missing = []
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.parent.relative_to(CONF).as_posix()
        raw = yaml.safe_load(file.read_text()) or {}
        if group not in (*GROUPS, "method"):
            continue
        node = raw.get(group, {}) if "# @package _global_" in file.read_text() else raw
        page = f"methods/{file.stem}" if group == "method" else f"reference/config/{group.replace('/', '_')}"
        text = (site / f"{page}.html").read_text()
        place = group.replace("/", ".")
        missing += [f"{file.name}: {key}" for key in _keys(node, place) if f"<code>{key}</code>" not in text]
    assert not missing
    views = (site / "reference" / "config" / "views.html").read_text()  # what the constructor alone sets
    assert "<code>views.global_1.flip_p</code>" in views
    top = yaml.safe_load((CONF / "config.yaml").read_text())
    index = (site / "reference" / "index.html").read_text()
    assert not [key for key in top if key not in ("defaults", "hydra") and f"<code>{key}</code>" not in index]


@pytest.mark.slow
def test_every_key_has_a_meaning(site: Path) -> None:
    silent = []
    for path in [*(site / "reference" / "config").glob("*.html"), *(site / "methods").glob("*.html")]:
        for row in re.findall(r"<tr>\s*<td><code>(?:[\w/]+\.)+\w+</code></td>.*?</tr>", path.read_text(), flags=re.S):
            cells = re.findall(r"<td>(.*?)</td>", row, flags=re.S)
            silent += [(path.name, cells[0])] if len(cells) == 4 and not cells[3].strip() else []
    assert not silent


def test_the_chart_is_that_of_the_results_on_record() -> None:
    """python -m benchmarks.method_chart docs/methods_cifar10.svg"""
    assert (DOCS / "methods_cifar10.svg").read_text() == method_chart.chart()


def _keys(node: Any, place: str) -> list[str]:
    found = []
    for key, value in (node or {}).items():
        if key in ("_target_", "_partial_", "defaults", "when", "needs", "picks"):
            continue
        found.append(f"{place}.{key}")
        if isinstance(value, dict) and "_target_" in value:
            found += _keys(value, f"{place}.{key}")
    return found


@pytest.mark.slow
def test_no_marker_is_left(site: Path) -> None:
    """Equations are drawn, and what pages take from the code has been put in."""
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert "<!-- s" not in text, path
        assert "language-math" not in text, path
    for name in METHODS:
        text = (site / "methods" / f"{name}.html").read_text()
        assert 'class="equation"' in text
        assert 'class="diagram"' in text
        assert "training_step" in text


@pytest.mark.slow
def test_search_works_without_a_server(site: Path) -> None:
    assert (site / "search" / "search_index.js").read_text().startswith("var __index")
    assert (site / "assets" / "iframe-worker.js").is_file()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
@pytest.mark.parametrize(
    ("page", "asked", "wanted"),
    [("index.html", "collapse", "methods/"), ("methods/moco.html", "wandb", "guides/wandb.html")],
)
def test_a_page_that_is_opened_as_a_file_finds_words(
    page: str, asked: str, wanted: str, site: Path, tmp_path: Path
) -> None:
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=15000",
        f"--user-data-dir={tmp_path}",
    ]
    address = f"{(site / page).as_uri()}?q={asked}"
    done = subprocess.run([str(BROWSER), *words, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert re.search(r'md-search-result__meta">\d+ matching documents<', done.stdout)
    found = re.findall(r'href="([^"]*)" class="md-search-result__link"', done.stdout)
    assert any(wanted in link and link.startswith("file://") for link in found)


def test_a_page_for_each_method() -> None:
    assert sorted(path.stem for path in (DOCS / "methods").glob("*.md")) == sorted([*METHODS, "index"])


@pytest.mark.parametrize("name", METHODS)
def test_method_page(name: str) -> None:
    """It names the paper that the method's yaml and class name, all its recipes, and says what health looks like."""
    text = (DOCS / "methods" / f"{name}.md").read_text()
    recipe = (CONF / "method" / f"{name}.yaml").read_text()
    module = re.search(r"^  _target_: ([\w.]+)\.\w+$", recipe, flags=re.M)
    assert module is not None
    source = (ROOT / (module[1].replace(".", "/") + ".py")).read_text()
    of_yaml, of_class = ARXIV.findall(recipe), ARXIV.findall(source.split('"""')[1])
    assert of_yaml[0] in text
    if of_class[0] == of_yaml[0]:  # not where the class is another method's (dcl, vicreg, wmse, dinov2)
        assert of_class[0] in text
    for file in (CONF / "experiment").glob(f"*/{name}.yaml"):
        assert f"experiment={file.parent.name}/{name}" in text
    assert f"method={name}" in text
    for part in ("## Loss", "```math", "## A training step", "## What it needs", "## Run it", "Healthy:", "Sick:"):
        assert part in text, part


def test_changelog_has_the_form_of_keep_a_changelog() -> None:
    """Versions, newest first and dated; the six kinds in their order; each change is one line under its kind."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    assert any("keepachangelog.com" in line for line in lines[:6])
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    body = lines[lines.index(versions[0]) :]
    kinds: list[str] = []
    for line in body:
        if line.startswith("## "):
            kinds = []
        elif line.startswith("### "):
            kinds.append(line.removeprefix("### "))
            assert kinds == [kind for kind in KINDS if kind in kinds], line
        elif line.startswith("- "):
            assert kinds, f"a change belongs under one of {KINDS}: {line}"
            assert len(line) <= 200, f"one short line per change: {line}"
        elif line and kinds:
            assert re.match(r"#### \w", line), f"a change is one line: {line}"
