"""Charts: repeatable text that an HTML page can hold, with the page's own colours."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.report.charts import Axis, Line, draw_lines


def draw(*, points: int = 20, name: str = "loss") -> str:
    x = np.arange(points, dtype=np.float64)
    lines = [
        Line(x=x, y=np.sqrt(x), css_colour="var(--teacher)", dashed=True),
        Line(x=x, y=x / 4, css_colour="var(--pixelcam)", dashed=False),
    ]
    return draw_lines(
        lines, x=Axis(title="epoch", limits=None, whole=True), y=Axis(title="", limits=(0, 5)), inches=(4, 3), name=name
    )


def test_is_the_same_every_time() -> None:
    assert draw() == draw()


def test_is_one_well_formed_element_that_fills_its_place() -> None:
    root = ElementTree.fromstring(draw())
    assert root.tag == "svg"
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & root.attrib.keys()


def test_takes_colours_and_fonts_from_the_page() -> None:
    svg = draw()
    assert "stroke: var(--teacher)" in svg
    assert "stroke: var(--pixelcam)" in svg
    assert "fill: currentColor" in svg
    assert set(re.findall(r"font-family: ([^;\"]*)", svg)) == {"inherit"}
    assert not re.search(r"#0[ab][0-9a-f]{4}\b", svg), "a stand-in colour is left"


def test_brings_no_style_for_the_rest_of_the_page_and_no_address() -> None:
    assert "<style" not in draw()
    assert "http" not in draw()


def test_ids_are_the_chart_s_own() -> None:
    first, second = (set(re.findall(r'id="([^"]*)"', draw(name=name))) for name in ("first", "second"))
    assert first
    assert not first & second


@pytest.mark.parametrize(("points", "marked"), [(1, True), (2, False)])
def test_a_single_point_shows(points: int, marked: bool) -> None:
    assert ("<use" in draw(points=points)) == marked


def test_dots_are_as_large_as_they_are_told() -> None:
    x = np.array([0.0, 1.0])
    line = Line(x=x, y=x, css_colour="var(--teacher)", dashed=False, dots=np.array([16.0, 64.0]))
    axis = Axis(title="", limits=None)
    svg = draw_lines([line], x=axis, y=axis, inches=(4, 3), name="dots")
    circles = re.findall(r'd="([^"]*)"[^>]*style="fill: var\(--teacher\)', svg)
    columns = [np.array(re.findall(r"[\d.]+", circle), dtype=np.float64)[::2] for circle in circles]
    assert [np.ptp(column) for column in columns] == pytest.approx([4, 8])


def test_lines_end_where_the_data_end() -> None:
    line = Line(x=np.array([0.0, 1.0]), y=np.array([0.0, 1.0]), css_colour="red", dashed=False)
    unit = Axis(title="", limits=(0, 1))
    (path,) = re.findall(
        r'<path d="([^"]*)"[^>]*style="[^"]*stroke: red', draw_lines([line], x=unit, y=unit, inches=(4, 3), name="a")
    )
    (x0, y0), (x1, y1) = ((float(a), float(b)) for a, b in re.findall(r"([\d.]+) ([\d.]+)", path))
    assert x0 < x1
    assert y0 > y1  # SVG counts downwards
