"""The page in a real browser, where there is one: no console errors, no sideways scrolling, the hover, light and dark.

A copy of the page gets a second script, which does what a reader would and writes down what it sees; the copy's policy
is widened for it. The page itself is opened as it is, too.
"""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.cli.run import compose, run
from ssl_lightning.reports.html import document
from tests.reports.test_page import SMALL

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed"), pytest.mark.slow]

READER = """
addEventListener("load", function () {
  var seen = {}, root = document.documentElement, tip = document.getElementById("tip");
  seen.wide = root.scrollWidth; seen.window = root.clientWidth;
  seen.background = getComputedStyle(document.body).backgroundColor;
  function at(node, kind) {
    var box = node.getBoundingClientRect();
    var x = box.left + box.width / 2, y = box.top + box.height / 2;
    node.dispatchEvent(new PointerEvent(kind, {bubbles: true, clientX: x, clientY: y}));
  }
  var chart = document.querySelector("svg[data-lines]");
  if (chart) { at(chart, "pointermove"); seen.chart = tip.hidden ? "" : tip.textContent; at(chart, "pointerleave"); }
  var dot = document.querySelector(".map circle");
  if (dot) {
    at(dot, "pointerover");
    seen.hover = tip.hidden ? "" : tip.textContent;
    var canvas = tip.querySelector("canvas");
    var bytes = canvas ? Array.from(canvas.getContext("2d").getImageData(8, 8, 32, 32).data) : [];
    seen.thumbnail = bytes.filter(function (v, i) { return i % 4 < 3 && v > 0; }).length;
    at(dot, "pointerout"); seen.hidden = tip.hidden;
  }
  var legend = document.querySelector(".legend button");
  if (legend) { legend.click(); seen.off = document.querySelectorAll(".map g.off").length; }
  document.getElementById("theme").click();
  seen.other = getComputedStyle(document.body).backgroundColor;
  var note = document.createElement("pre");
  note.id = "seen"; note.textContent = JSON.stringify(seen);
  document.body.appendChild(note);
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(compose([*SMALL.split(), f"runs_dir={runs}"]))
    return runs / "made/report.html"


def opened(file: Path, width: int, dark: bool, profile: Path) -> tuple[str, list[str]]:
    """(the document as it is after a while, what the console says)."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=4000"]
    words += [f"--window-size={width},900", f"--user-data-dir={profile}", "--dump-dom"]
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([str(BROWSER), *words, file.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def read(file: Path, width: int, dark: bool, folder: Path) -> dict[str, Any]:
    """What a reader sees on the page."""
    text = file.read_text()
    digest = base64.b64encode(hashlib.sha256(READER.encode()).digest()).decode()
    copy = folder / "copy.html"
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{READER}</script></body>"
    )
    copy.write_text(text)
    dom, console = opened(copy, width, dark, folder / "profile")
    assert not console
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-500:]
    seen = json.loads(html.unescape(found[1]))
    assert isinstance(seen, dict)
    return seen


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_sees_it_whole(page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    seen = read(page, width, dark, tmp_path)
    assert seen["wide"] <= seen["window"]  # nothing to scroll sideways
    light, night = "rgb(246, 247, 249)", "rgb(18, 22, 28)"
    assert (seen["background"], seen["other"]) == ((night, light) if dark else (light, night))
    assert "step" in seen["chart"]
    assert re.search(r"item \d+", seen["hover"])
    assert seen["thumbnail"] > 500  # bytes of a picture, not of an empty canvas
    assert seen["hidden"]
    assert seen["off"] == 1  # a class that was clicked in the legend


def test_the_console_stays_empty(page: Path, tmp_path: Path) -> None:
    dom, console = opened(page, 1280, False, tmp_path / "profile")
    assert "<h1>" in dom
    assert not console


def test_a_script_that_got_in_would_not_run(tmp_path: Path) -> None:
    file = tmp_path / "evil.html"
    evil = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    file.write_text(document("sound", evil))
    dom, console = opened(file, 800, False, tmp_path / "profile")
    assert "<title>sound</title>" in dom
    assert console  # the browser says what it refused
