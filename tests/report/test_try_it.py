"""The section of the report that PixelCAM is tried in: there when it is asked for, and loaded when it is opened."""

import re
from pathlib import Path

import pytest
import yaml
from browsers import needs_browser
from commands import copy_run, refusal_of, run_stage
from playwright.sync_api import Browser, expect
from test_page import Page, content
from tiny import Run

from pipeline.export.web import INDEX
from pipeline.report.page import render_report

PACKAGES = Path(__file__).parents[2] / "node_modules"
ADDRESS = "try_it/index.html"
FRAMED = '<!doctype html><p id="said"></p><script src="beside.js"></script>'
BESIDE = 'document.getElementById("said").textContent = "runs";'


def ask_for_page(run: Run) -> None:
    values = yaml.safe_load(run.params.read_text(encoding="utf-8"))
    values["report"]["web"] = True
    run.params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def test_without_it_the_report_has_no_section_and_the_folder_says_how_to_get_it(finished: Run) -> None:
    html = finished.report.read_text(encoding="utf-8")
    assert "try-it" not in re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    assert "frame-src" not in html
    (note,) = finished.try_it.iterdir()
    assert "report.web: true" in note.read_text(encoding="utf-8")


def test_the_section_links_to_the_page_and_the_policy_allows_its_frame_alone() -> None:
    html = render_report(content(), try_it=ADDRESS)
    page = Page(html)
    assert page.open == []
    assert "#try-it" in page.values("href")
    assert ADDRESS in page.values("href")
    (frame,) = page.of("iframe")
    assert (frame["data-address"], frame.get("src")) == (ADDRESS, None)
    assert re.findall(r"frame-src ([^;\"]*)", html) == ["'self'"]


@needs_browser
def test_the_frame_is_loaded_when_its_fold_is_opened_and_runs_what_lies_beside_it(
    tmp_path: Path, browser: Browser
) -> None:
    report = tmp_path / INDEX
    report.write_text(render_report(content(), try_it=ADDRESS), encoding="utf-8")
    (tmp_path / ADDRESS).parent.mkdir()
    (tmp_path / ADDRESS).write_text(FRAMED, encoding="utf-8")
    (tmp_path / ADDRESS).with_name("beside.js").write_text(BESIDE, encoding="utf-8")
    page = browser.new_page()
    page.goto(report.as_uri())
    assert [frame.url for frame in page.frames] == [report.as_uri(), "about:blank"]
    page.get_by_text("Try it here").press("Enter")  # a click could miss it while images above come into view
    expect(page.frame_locator("iframe.try-it").locator("#said")).to_have_text("runs")
    page.close()


@pytest.mark.slow
@pytest.mark.usefixtures("converted")
@pytest.mark.skipif(not (PACKAGES / "onnxruntime-web").is_dir(), reason="no onnxruntime-web: run 'npm ci'")
def test_the_stage_exports_the_page_beside_the_report(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_run(finished, tmp_path / "run")
    ask_for_page(run)
    monkeypatch.chdir(PACKAGES.parent)
    assert run_stage(run, "report") == 0
    assert (run.try_it / INDEX).is_file()
    assert f'href="{ADDRESS}"' in run.report.read_text(encoding="utf-8")


def test_without_the_package_the_stage_says_so_and_writes_nothing(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copy_run(finished, tmp_path / "run")
    ask_for_page(run)
    monkeypatch.chdir(tmp_path)
    assert "npm ci" in refusal_of(run, "report", capfd)
