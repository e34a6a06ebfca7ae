"""The report in a real browser, by clicking and by keyboard: filters, order, sliders, dark, a phone, no script."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browsers import DESK, PHONE, needs_browser, watch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from test_adapted_section import adapted_content, adapted_domain, adapted_model, scores
from test_page import HOSTILE, content, gallery_image

from pipeline.report.page import render_report
from pipeline.report.parts import DomainReport, GalleryImage

pytestmark = needs_browser


def _image(name: str, *, teacher: float, pixelcam: float, right: bool = True) -> GalleryImage:
    """Return a malignant image with the Dice of both models; the teacher is always wrong about its class."""
    shown = gallery_image(name)
    predicted = "malignant" if right else "benign"
    return replace(
        shown,
        teacher=replace(shown.teacher, dice=teacher),
        pixelcam=replace(shown.pixelcam, dice=pixelcam, predicted_class=predicted),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = content(names=HOSTILE)
    home, away = given.domains
    unmarked = replace(
        _image("clean.png", teacher=0, pixelcam=0), label=HOSTILE, mask=np.zeros((40, 60), dtype=np.bool_)
    )
    clean = replace(unmarked.pixelcam, dice=None, false_positive_share=0.05)
    galleries: list[tuple[DomainReport, list[GalleryImage]]] = [
        (
            home,
            [_image("high.png", teacher=0.7, pixelcam=0.9), _image("low.png", teacher=0.1, pixelcam=0.2, right=False)],
        ),
        (away, [_image("middle.png", teacher=0.9, pixelcam=0.5), replace(unmarked, teacher=clean, pixelcam=clean)]),
    ]
    domains = [replace(domain, gallery=gallery) for domain, gallery in galleries]
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render_report(replace(given, domains=domains)), encoding="utf-8")
    return path


@contextmanager
def opened(
    browser: Browser, file: Path, *, size: tuple[int, int] = DESK, dark: bool = False, script: bool = True
) -> Iterator[Page]:
    """Open the report in a window of its own; any error, and any request but for the file itself, fails the test."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        reduced_motion="reduce",
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    said, requested = watch(page)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [file.as_uri()]


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    with opened(browser, file) as found:
        yield found


def shown(page: Page) -> list[str]:
    """Return the names of the images that the gallery shows, from top to bottom."""
    return page.locator("#cases .case:visible h3").all_text_contents()


def test_filters_leave_the_images_that_were_asked_for(page: Page) -> None:
    everything = ["high.png", "low.png", "middle.png", "clean.png"]
    assert shown(page) == everything
    assert page.locator("#count").inner_text() == "4 of 4 images"
    page.get_by_role("combobox", name="Domain", exact=True).select_option("colon")
    assert shown(page) == ["high.png", "low.png"]
    page.get_by_role("combobox", name="Classified", exact=True).select_option("wrong by PixelCAM")
    assert shown(page) == ["low.png"]
    assert page.locator("#count").inner_text() == "1 of 4 images"
    page.get_by_role("combobox", name="Class", exact=True).select_option(HOSTILE)
    assert shown(page) == []
    assert page.locator("#count").inner_text() == "None of 4 images is like that."
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#count")).to_have_text("4 of 4 images")
    assert shown(page) == everything


def test_order_puts_best_worst_gained_and_lost_first(page: Page) -> None:
    # By PixelCAM 0.9, 0.2, 0.5 and, unmarked but for 5 %, 0.95; on the teacher +0.2, +0.1, -0.4 and 0.
    order = page.get_by_role("combobox", name="Order", exact=True)
    for choice, expected in (
        ("best of PixelCAM first", ["clean.png", "high.png", "middle.png", "low.png"]),
        ("worst of PixelCAM first", ["low.png", "middle.png", "high.png", "clean.png"]),
        ("most gained on the teacher first", ["high.png", "low.png", "clean.png", "middle.png"]),
        ("most lost to the teacher first", ["middle.png", "clean.png", "low.png", "high.png"]),
        ("by domain", ["high.png", "low.png", "middle.png", "clean.png"]),
    ):
        order.select_option(choice)
        assert shown(page) == expected


def test_the_slider_moves_by_keyboard_and_uncovers_the_image(page: Page) -> None:
    case = page.locator("#cases .case").first
    slider, over = case.get_by_role("slider"), case.locator(".over").first
    assert slider.get_attribute("aria-label") == "How much of the maps covers high.png, in per cent"
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "60"
    assert "60%" in over.evaluate("element => getComputedStyle(element).getPropertyValue('--shown')")
    assert "40%" in over.evaluate("element => getComputedStyle(element).clipPath"), "the right of the map is cut off"
    assert slider.evaluate("element => getComputedStyle(element).outlineStyle") == "solid", "focus shows"
    every = page.get_by_role("slider", name="How much of the maps covers all images, in per cent")
    every.focus()
    page.keyboard.press("Home")
    assert {each.input_value() for each in page.locator("#cases").get_by_role("slider").all()} == {"0"}


def test_the_outline_can_be_taken_away_from_every_layer(page: Page) -> None:
    outlines = page.locator("#cases .case").first.locator(".outline")
    assert outlines.count() == 1 + 2 * 2, "over the image, and over and under each map"
    page.get_by_role("checkbox", name="Outline").uncheck()
    visibility = outlines.evaluate_all("all => all.map(one => getComputedStyle(one).visibility)")
    assert visibility == ["hidden"] * 5


def test_all_controls_are_reached_by_tab_in_their_order(page: Page) -> None:
    page.get_by_role("combobox", name="Domain", exact=True).focus()
    names = []
    for _ in range(8):
        names.append(page.evaluate("document.activeElement.name || document.activeElement.type"))
        page.keyboard.press("Tab")
    assert names == ["domain", "label", "judged", "order", "wipe", "outline", "reset", "range"]


def test_dark_changes_the_colours_and_keeps_the_contrast(browser: Browser, file: Path) -> None:
    colours = []
    for dark in (False, True):
        with opened(browser, file, dark=dark) as page:
            style = "getComputedStyle(document.body)"
            both = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
            colours.append([_luminance(colour) for colour in both])
    (light_ink, light_ground), (dark_ink, dark_ground) = colours
    assert (light_ground + 0.05) / (light_ink + 0.05) > 7
    assert (dark_ink + 0.05) / (dark_ground + 0.05) > 7


def _luminance(css: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)` as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in css.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, file: Path) -> None:
    with opened(browser, file, size=PHONE) as page:
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        too_wide = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('table, .scroll, .card, form, .pictures')]"
            ".filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className || one.tagName)"
        )
        assert too_wide == []


def test_without_script_everything_shows_and_nothing_dead_does(browser: Browser, file: Path) -> None:
    with opened(browser, file, script=False) as page:
        assert shown(page) == ["high.png", "low.png", "middle.png", "clean.png"]
        assert page.locator("#cases svg[role=img]:visible").count() == 4 * 3
        assert page.locator("form:visible, input:visible, select:visible, button:visible").count() == 0


def test_a_script_in_a_name_is_text(page: Page) -> None:
    assert page.locator("script").count() == 1
    assert HOSTILE in page.locator("#labels h3").all_text_contents()
    assert HOSTILE in page.get_by_role("combobox", name="Class", exact=True).inner_text()


@pytest.fixture(scope="module")
def adapted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapted") / "index.html"
    models = {name: replace(adapted_model(), supervised=scores(0.75, 0.9)) for name in ("teacher", "pixelcam")}
    given = adapted_content(adapted_domain(transductive=True, models=models))
    path.write_text(render_report(given), encoding="utf-8")
    return path


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_adapted_models_stay_within_the_page(browser: Browser, adapted_file: Path, size: tuple[int, int]) -> None:
    with opened(browser, adapted_file, size=size) as page:
        page.get_by_role("link", name="Adapted", exact=True).click()
        expect(page.get_by_role("heading", name="Adapted to lymph_node")).to_be_in_viewport()
        too_wide = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('table, .scroll, .card, .pictures')]"
            ".filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className || one.tagName)"
        )
        assert too_wide == []


def _drawn(picture: Locator) -> np.ndarray:
    """Return what is seen of a picture in grey, as 64 by 64 means, so that no half pixel matters."""
    return np.asarray(Image.open(BytesIO(picture.screenshot())).convert("L").resize((64, 64), Image.Resampling.BOX))


def test_images_before_and_after_stay_whatever_the_gallery_hides(browser: Browser, adapted_file: Path) -> None:
    with opened(browser, adapted_file) as page:
        picture = page.locator(".adapted .case .plain svg")
        before = _drawn(picture).astype(float)
        page.get_by_role("combobox", name="Domain", exact=True).select_option("colon")
        page.get_by_role("checkbox", name="Outline").uncheck()
        assert shown(page) == ["a.png"]
        assert np.abs(_drawn(picture) - before).mean() < 5
        picture.locator("use").evaluate_all("all => all.forEach(one => one.remove())")
        assert np.abs(_drawn(picture) - before).mean() > 50
