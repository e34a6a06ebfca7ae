"""The local page in a real browser: by keyboard and by clicking, sliders, a phone, and names that are markup."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from browsers import DESK, PHONE, needs_browser, until, watch
from playwright.sync_api import Browser, Page, Response, expect

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from local_page import TOKEN, site_of, write_prepared
from tiny import Run

from pipeline.viewer.app import create_app
from pipeline.viewer.server import listen, make_server
from pipeline.viewer.site import Site

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=alert(1)>.png"


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve a site on a free port, in a thread, and yield its address without the token."""
    with listen(0) as listening:
        port = listening.getsockname()[1]
        server = make_server(create_app(site, port=port, token=TOKEN))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def site(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_of(finished, tmp_path_factory.mktemp("browsed"))


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    with served(site) as found:
        yield found


@contextmanager
def opened(browser: Browser, address: str, *, size: tuple[int, int] = DESK) -> Iterator[Page]:
    """Open the page with its token; a word on the console, an error, or a request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, base_url=address)
    context.set_default_timeout(20_000)
    page = context.new_page()
    said, requested = watch(page)
    page.goto(f"/?token={TOKEN}")
    expect(page.get_by_role("heading", level=1)).to_have_text("A run, image by image")
    assert TOKEN not in page.url
    yield page
    context.close()
    assert said == []
    assert [url for url in requested if not url.startswith((address, "blob:", "data:"))] == []


@pytest.fixture
def page(browser: Browser, address: str, site: Site) -> Iterator[Page]:
    site.files.review.unlink(missing_ok=True)
    with opened(browser, address) as found:
        yield found


def reviewed(site: Site) -> list[str]:
    """Return the rows of the table of what is set aside."""
    return site.files.review.read_text(encoding="utf-8").splitlines()[1:]


def arrive(page: Page, title: str) -> None:
    """Wait until a page of this title is there, and its scripts run."""
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    page.wait_for_load_state()


def is_written(response: Response) -> bool:
    return response.url.endswith("/api/review") and response.ok


def test_images_are_walked_through_and_set_aside_by_keys_alone(page: Page, site: Site) -> None:
    page.goto("/images/labels")
    page.locator(".cell a").first.press("Enter")
    arrive(page, "images/train_0.png")
    page.keyboard.press("ArrowRight")
    arrive(page, "images/train_1.png")
    page.keyboard.press("x")
    expect(page.locator("#now")).to_have_text("left out")
    assert reviewed(site) == ["home,images/train_1.png,leave_out,,"]
    page.keyboard.press("c")
    expect(page.locator("#now")).to_have_text("corrected to benign")
    expect(page.locator('[data-count="/review"]')).to_have_text("1")
    note = page.get_by_label("Note")
    note.fill("x, as the pathologist said")
    with page.expect_response(is_written):
        note.press("Enter")
    assert reviewed(site) == ['home,images/train_1.png,corrected,benign,"x, as the pathologist said"']
    page.keyboard.press("u")
    expect(page.locator("#now")).to_have_text("not set aside")
    assert reviewed(site) == []
    page.keyboard.press("ArrowLeft")
    arrive(page, "images/train_0.png")
    page.keyboard.press("Escape")
    arrive(page, "home, training")


def test_what_is_asked_for_last_is_what_stays_however_long_the_first_takes(page: Page, site: Site) -> None:
    page.goto("/image?in=labels&image=images/train_0.png")
    page.evaluate(
        "() => { const fetched = fetch; let wait = 500; window.sent = 0; window.fetch = async (...all) => {"
        " const now = wait; wait = 0; await new Promise((done) => setTimeout(done, now));"
        " const answer = await fetched(...all); window.sent += 1; return answer; } }"
    )
    page.keyboard.press("x")
    page.keyboard.press("c")
    page.wait_for_function("() => window.sent >= 2")
    expect(page.locator("#now")).to_have_text("corrected to malignant")
    assert reviewed(site) == ["home,images/train_0.png,corrected,malignant,"]


def test_a_click_in_the_grid_sets_aside_and_the_table_takes_back(page: Page, site: Site) -> None:
    page.goto("/images/test-home?order=name")
    page.get_by_role("button", name="Set images/test_1.png aside").click()
    expect(page.locator(".cell.aside .verdict")).to_have_text("left out")
    assert reviewed(site) == ["home,images/test_1.png,leave_out,,"]
    page.get_by_role("combobox", name="Set aside", exact=True).select_option("left out")
    expect(page.locator(".cell")).to_have_count(1)
    page.get_by_role("link", name="Set aside").click()
    arrive(page, "Set aside")
    page.get_by_role("button", name="Take images/test_1.png back").click()
    expect(page.locator("[data-verdict]")).to_have_text("taken back")
    assert reviewed(site) == []


def test_a_slider_recuts_labels_while_it_moves_and_is_kept_for_the_next_image(page: Page) -> None:
    page.goto("/image?in=labels&image=images/train_0.png")
    share = page.locator('#quality [data-label="background"] td').first
    expect(share).to_have_text(re.compile(r"^30\.\d %$"))
    before = page.locator("#picture-labels").get_attribute("src")
    slider = page.get_by_role("slider", name="Background: lowest share")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(share).to_have_text(re.compile(r"^40\.\d %$"))
    expect(page.locator("#changed")).to_contain_text("-S extract_pseudo_labels.background_fraction=0.4")
    assert page.locator("#picture-labels").get_attribute("src") != before
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    arrive(page, "images/train_1.png")
    expect(share).to_have_text(re.compile(r"^40\.\d %$"))
    page.get_by_role("button", name="As in the run").click()
    expect(share).to_have_text(re.compile(r"^30\.\d %$"))


def test_layers_are_switched_and_faded_and_stay_so(page: Page) -> None:
    page.goto("/image?in=test-home&image=images/test_0.png")
    heat = page.locator("#picture-pixelcam")
    expect(heat).to_be_visible()
    until(page, "document.getElementById('picture-pixelcam').naturalWidth === 72")
    page.keyboard.press("4")
    expect(heat).to_be_hidden()
    page.keyboard.press("2")
    cam = page.locator("#picture-cam")
    expect(cam).to_be_visible()
    opacity = page.get_by_role("slider", name="Opacity of Teacher's CAM, in per cent")
    opacity.focus()
    page.keyboard.press("Home")
    expect(cam).to_have_css("opacity", "0")
    stage, grey = page.locator("#stage"), re.compile(r"\bgrey\b")
    expect(stage).to_have_class(grey)
    page.keyboard.press("2")
    expect(stage, "without colours on it the image has its own").not_to_have_class(grey)
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("checkbox", name="PixelCAM's map")).not_to_be_checked()
    expect(page.locator("#picture-image")).to_be_visible()


def test_all_is_reached_by_tab_and_has_a_name(page: Page) -> None:
    page.goto("/image?in=labels&image=images/train_1.png")
    expect(page.locator("#quality-said")).to_contain_text("Against the mask")
    page.get_by_role("link", name="Next").focus()
    name = "(({ name, ariaLabel, id, textContent }) => name || ariaLabel || id || textContent)(document.activeElement)"
    names = []
    for _ in range(17):
        page.keyboard.press("Tab")
        names.append(page.evaluate(name))
    assert names == [
        *("image", "Opacity of Image, in per cent", "cam", "labels", "Opacity of Pseudo-labels, in per cent"),
        *("pixelcam", "mask", "Opacity of Mask's outline, in per cent", "grey"),
        *("foreground_threshold", "background_fraction", "As in the run", "How they are cut"),
        *("Leave out x", "other", "Correct c", "note"),
    ]
    for path in ("/images/labels", "/image?in=labels&image=images/train_1.png"):
        page.goto(path)
        nameless = page.evaluate(
            "[...document.querySelectorAll('input, select, button, a, img')].filter(each => !(each.labels?.length || "
            "each.ariaLabel || each.alt || each.textContent.trim() || each.querySelector('img')))"
            ".map(each => each.outerHTML)"
        )
        assert nameless == []


def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, address: str) -> None:
    with opened(browser, address, size=PHONE) as page:
        for path in ("/", "/images/test-away", "/image?in=labels&image=images/train_0.png", "/review"):
            page.goto(path)
            page.wait_for_load_state("networkidle")
            too_wide = page.evaluate(
                "[document.documentElement, ...document.querySelectorAll('table, .card, form, .stage')]"
                ".filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.className || each.tagName)"
            )
            assert too_wide == [], path


def test_markup_in_a_name_stays_text(browser: Browser, tmp_path: Path) -> None:
    site = write_prepared(tmp_path, [HOSTILE])
    with served(site) as address, opened(browser, address) as page:
        page.goto("/images/test-home")
        expect(page.locator(".name")).to_have_text(HOSTILE)
        page.get_by_role("button", name="Set").click()
        expect(page.locator(".cell .verdict")).to_have_text("left out")
        page.goto("/review")
        expect(page.locator("tbody th")).to_have_text(HOSTILE)
        page.get_by_role("button", name="Take").click()
        expect(page.locator("[data-verdict]")).to_have_text("taken back")
