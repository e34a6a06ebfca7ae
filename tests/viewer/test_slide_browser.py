"""Whole slides in a real browser: tiles, maps and outlines in their places, and everything by keyboard too."""

from collections.abc import Iterator
from io import BytesIO

import pytest
from browsers import DESK, PHONE, needs_browser, until
from PIL import Image
from playwright.sync_api import Browser, Page, expect

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from slide_site import FOUND, SIZE, write_run
from test_view_browser import opened, served
from tiny import ROOT

pytestmark = [
    needs_browser,
    pytest.mark.skipif(not (ROOT / "node_modules/openseadragon").is_dir(), reason="no OpenSeadragon: run 'npm ci'"),
]
A = "/slide?in=slides-home&slide=a"
CANVAS = ".openseadragon-canvas"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where node_modules is
        with served(write_run(tmp_path_factory.mktemp("slides"), patch)) as found:
            yield found


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    with opened(browser, address, size=request.param) as found:
        found.emulate_media(reduced_motion="reduce")
        found.goto(A)
        expect(found.locator("#deep")).to_have_attribute("data-state", "shown")
        yield found


def settle(page: Page) -> None:
    """Wait until all tiles of the layers that show are there, and drawn where the last movement leads to."""
    until(
        page,
        "(({ world, viewport }) => !world.needsDraw() && viewport.getZoom(true) === viewport.getZoom(false)"
        " && Array.from({ length: world.getItemCount() }, (_, at) => world.getItemAt(at))"
        ".every((item) => item.getOpacity() === 0 || item.getFullyLoaded()))(window.pixelcamSlide)",
    )


def left_top(page: Page, kind: str) -> tuple[float, float]:
    """Return where an outline begins, in pixels of the slide, by where it is on the screen."""
    settle(page)
    found = page.evaluate(
        "([outline, canvas]) => { const slide = window.pixelcamSlide.world.getItemAt(0);"
        " const [inner, around] = [outline, canvas].map((css) => document.querySelector(css).getBoundingClientRect());"
        " const point = new OpenSeadragon.Point(inner.x - around.x, inner.y - around.y);"
        " const at = slide.viewerElementToImageCoordinates(point); return [at.x, at.y]; }",
        [f".deep .shape-{kind}", CANVAS],
    )
    return found[0], found[1]


def colour_at(page: Page, x: float, y: float) -> tuple[int, int, int]:
    """Return the colour that shows at a pixel of the slide."""
    settle(page)
    place = page.evaluate(
        "([x, y]) => { const slide = window.pixelcamSlide.world.getItemAt(0), point = new OpenSeadragon.Point(x, y);"
        " const at = slide.imageToViewerElementCoordinates(point); return [at.x, at.y]; }",
        [x, y],
    )
    with Image.open(BytesIO(page.locator(CANVAS).first.screenshot())) as shown:
        found = shown.convert("RGB").getpixel((round(place[0]), round(place[1])))
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]


def test_outlines_and_maps_lie_where_the_files_say(page: Page) -> None:
    for _ in range(2):
        assert left_top(page, "regions-pixelcam") == pytest.approx(FOUND[0], abs=6)
        page.locator("#in").click()
    page.locator("#whole").click()
    glass, found = colour_at(page, 60, 60), colour_at(page, 420, 400)
    assert glass == pytest.approx((243, 243, 243), abs=3)
    page.get_by_label("Map of PixelCAM", exact=True).uncheck()
    without = colour_at(page, 420, 400)
    assert found[1] > without[1] + 20  # the yellow of probability 1 over pink and violet
    page.get_by_label("Slide", exact=True).uncheck()
    assert colour_at(page, 420, 400) == (255, 255, 255)


def test_a_layer_is_fetched_when_it_is_wanted_and_takes_its_opacity(page: Page) -> None:
    expect(page.locator(".deep .shape-regions-teacher")).to_have_count(0)
    page.get_by_label("Regions of the teacher", exact=True).check()
    expect(page.locator(".deep .shape-regions-teacher")).to_have_count(1)
    page.get_by_label("Opacity of Regions of the teacher, in per cent").fill("40")
    expect(page.locator(".deep g:has(> .shape-regions-teacher)")).to_have_css("opacity", "0.4")
    page.get_by_label("Regions of the teacher", exact=True).uncheck()
    expect(page.locator(".deep g:has(> .shape-regions-teacher)")).to_have_css("opacity", "0")


def test_keys_move_and_zoom_and_a_region_is_gone_to(page: Page) -> None:
    width = "window.pixelcamSlide.viewport.getBounds(false).width"
    page.get_by_role("application").focus()
    whole = page.evaluate(width)
    page.keyboard.press("+")  # a short press too zooms in for nine frames, by a hundredth each
    until(page, f"{width} < {whole} / 1.01 ** 8.5")
    page.keyboard.press("r")
    page.keyboard.press("0")
    until(page, f"Math.abs({width} - {whole}) < 0.02")
    assert page.evaluate("window.pixelcamSlide.viewport.getRotation(false)") == 0
    page.get_by_role("button", name="0.028 mm², up to 1.00").first.press("Enter")
    until(page, f"{width} < {whole}")
    x, y = page.evaluate("(({x, y}) => [x, y])(window.pixelcamSlide.viewport.getCenter(false))")
    assert (x * SIZE[0], y * SIZE[0]) == pytest.approx((FOUND[0][0] + 168, FOUND[0][1] + 168), abs=1)
    expect(page.locator("#length")).to_contain_text("µm")


def test_nothing_is_wider_than_the_screen(page: Page) -> None:
    for path in (A, "/slides/slides-home", "/slides/mapped-slides", "/slide?in=mapped-slides&slide=a"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if "slides/" in path:
            until(page, "Array.from(document.images).every((image) => image.complete && image.naturalWidth)")
