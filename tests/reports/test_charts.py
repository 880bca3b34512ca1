"""Charts: well-formed, escaped, true to their numbers; and whole where there are none."""

import json
import math
import re
from xml.etree import ElementTree

import pytest

from ssl_lightning.reports.axes import Axis, axis, log_ticks, number, thinned, tick_text, ticks
from ssl_lightning.reports.charts import Bar, Points, Series, bar_chart, heat_map, line_chart, scatter
from ssl_lightning.reports.palette import DARK, LIGHT, SERIES_DARK, SERIES_LIGHT, color, css

EVIL = "<script>alert('x')</script>\" onload=\"y"
CHARTS = {
    "lines": line_chart([Series(EVIL, [1, 2], [3, 4], [2, 3], [4, 5])] * 2, EVIL, EVIL, EVIL, band=(1, 2, EVIL)),
    "bars": bar_chart([Bar(EVIL, 0.5, 0.4, 0.6, EVIL)], EVIL, EVIL, True, (0.1, EVIL)),
    "scatter": scatter([Points(EVIL, [1, 2], [3, math.nan], [EVIL], EVIL)] * 2, EVIL, EVIL, EVIL, names=True),
    "heat": heat_map([[1.0, math.nan]], [EVIL], [EVIL, "b"], EVIL, EVIL, EVIL),
    "no lines": line_chart([], "none"),
    "no values": line_chart([Series("a", [1], [math.nan])], "none", log=True),
    "no bars": bar_chart([], "none"),
    "no points": scatter([], "none"),
    "no cells": heat_map([], [], [], "none"),
    "one point": line_chart([Series("a", [3], [7])], "one"),
    "all equal": line_chart([Series("a", [1, 2, 3], [5, 5, 5])], "equal"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_and_nothing_in_it_runs(name: str) -> None:
    tree = ElementTree.fromstring(CHARTS[name])
    assert tree.tag == "svg"
    for node in tree.iter():
        assert node.tag in {"svg", "text", "path", "rect", "circle", "g", "title"}
        assert not any(key.startswith("on") for key in node.attrib)
    assert "NaN" not in CHARTS[name]
    assert "nan" not in CHARTS[name].lower().replace("data-lines", "")


def test_no_values_are_said() -> None:
    assert "no values yet" in CHARTS["no lines"]
    assert "no values yet" in CHARTS["no values"]
    assert "no values yet" not in CHARTS["one point"]


def test_a_line_goes_through_its_values() -> None:
    drawn = ElementTree.fromstring(line_chart([Series("a", [0, 10], [0.0, 1.0])], "t"))
    path = next(node.attrib["d"] for node in drawn.iter() if node.attrib.get("class") == "line")
    places = [tuple(map(float, place.split())) for place in path.removeprefix("M").split("L")]
    data = json.loads(drawn.attrib["data-lines"])
    for (x, y), (at_x, at_y) in zip([(0, 0.0), (10, 1.0)], places, strict=True):
        low, high, start, end = data["x"]
        assert at_x == pytest.approx(start + (x - low) / (high - low) * (end - start), abs=0.06)
        low, high, start, end, _ = data["y"]
        assert at_y == pytest.approx(start + (y - low) / (high - low) * (end - start), abs=0.06)
    assert data["s"][0]["y"] == [0.0, 1.0]  # what the pointer shows


def test_bars_are_as_long_as_their_values() -> None:
    drawn = ElementTree.fromstring(bar_chart([Bar("a", 0.2), Bar("b", 0.6)], "t"))
    first, second = (float(node.attrib["width"]) for node in drawn.iter("rect"))
    assert second == pytest.approx(3 * first, rel=0.01)


def test_a_cell_is_darker_where_the_value_is_larger() -> None:
    shades = re.findall(r"var\(--heat\),([\d.]+)\)", heat_map([[0.0, 1.0, 0.5]], ["r"], ["a", "b", "c"], "t"))
    assert float(shades[0]) < float(shades[2]) < float(shades[1])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3.6, 5.1, [4.0, 4.5, 5.0]), (-20, 30, [-20, -10, 0, 10, 20, 30])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_steps_and_epochs_have_whole_ticks() -> None:
    drawn = line_chart([Series("a", [1, 2, 3], [0.1, 0.2, 0.3])], "t", "epoch")
    below = [float(node.text or "") for node in ElementTree.fromstring(drawn).iter("text") if node.get("y") == "228.0"]
    assert below == [1, 2, 3]
    single = line_chart([Series("a", [4], [0.1])], "t", "epoch")
    below = [node.text for node in ElementTree.fromstring(single).iter("text") if node.get("y") == "228.0"]
    assert below == ["4"]


def test_ticks_of_logarithms() -> None:
    assert log_ticks(1e-4, 1.0) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert log_ticks(0.9, 12) == pytest.approx([1, 2, 5, 10])
    assert len(log_ticks(2.1, 5.5)) >= 3  # within a decade: round values
    assert ticks(1, 1) == []


def test_numbers_as_people_write_them() -> None:
    assert [number(v) for v in (0, 0.12345, 12.345, 1234.5, 12345, 2.5e6, 1e-5, None, math.nan)] == [
        "0", "0.1235", "12.35", "1234", "12.3k", "2.5M", "1e-5", "-", "-",
    ]  # fmt: skip
    assert number(0.123, True) == "12.3 %"
    assert [tick_text(v, 0.5) for v in (0, 0.5, 1.0)] == ["0", "0.5", "1.0"]
    assert tick_text(0.25, 0.05, True) == "25 %"


def test_thinning_keeps_the_ends_and_the_extremes() -> None:
    y = [0.0] * 5000
    y[1234], y[4321] = 9.0, -9.0
    kept = thinned(range(5000), y, 100)
    assert {0, 4999, 1234, 4321} <= set(kept)
    assert len(kept) <= 102
    assert kept == sorted(kept)


def test_an_axis_shows_all_values_and_a_logarithmic_one_none_below_0() -> None:
    found = axis([2.0, 5.0], 0, 100)
    assert found.low < 2 < 5 < found.high
    assert axis([0.0, 1.0], 0, 100).low == 0.0  # nothing below 0 where no value is
    assert Axis(1, 100, 0, 10, True).place(10) == pytest.approx(5)
    assert Axis(1, 100, 0, 10, True).place(-3) == 0.0


def test_light_and_dark_have_the_same_names_and_readable_colours() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(SERIES_LIGHT) == len(SERIES_DARK)
    for theme, series in ((LIGHT, SERIES_LIGHT), (DARK, SERIES_DARK)):
        assert contrast(theme["ink"], theme["card"]) > 10
        assert contrast(theme["soft"], theme["card"]) > 4.5  # WCAG AA for text
        for name in ("ok", "watch", "bad"):
            assert contrast(theme[name], theme[f"{name}-bg"]) > 4.5
        assert all(contrast(one, theme["card"]) > 2 for one in series)
    text = css()
    assert text.count("--c12:") == 3
    assert color(0) == "var(--c1)"
    assert color(30).startswith("hsl(")


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio of two colours."""

    def luminance(hexed: str) -> float:
        values = [int(hexed[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
