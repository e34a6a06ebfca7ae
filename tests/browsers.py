"""A browser for tests that look at pages; they are skipped where there is none."""

import os
import shutil
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

CHROMIUM: Final = os.environ.get("PIXELCAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DESK: Final = (1200, 800)  # of a window, in pixels
PHONE: Final = (390, 800)
PATIENCE: Final = 60  # seconds that a busy machine may take for what takes a quick one less than one
expect.set_options(timeout=1000 * PATIENCE)
needs_browser: Final = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium: install Debian's package, or name a browser with PIXELCAM_CHROMIUM=/path/to/it",
)


def start_browser(playwright: Playwright, *arguments: str) -> Browser:
    """Start a browser, with more of its own options where there are any."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])


def until(page: Page, condition: str) -> None:
    """Wait for a condition; Playwright's own way of it is code from a text, which the pages' policies refuse."""
    for _ in range(20 * PATIENCE):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def watch(page: Page) -> tuple[list[str], list[str]]:
    """Return two lists that fill as the page lives: what it says on its console, errors too, and what it asks for."""
    said: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    return said, requested
