"""The pages against the project: what they link to, name and draw is there."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from imports import ROOT

from pipeline.metrics.classification import Calibration
from pipeline.metrics.localization import BoxScores, RegionScores
from pipeline.metrics.published import PublishedRegion, PublishedScores
from pipeline.metrics.scores import Scores

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def anchors(page: Path) -> set[str]:
    """Return what may be linked to within a page: its headings, as forges write them."""
    headings = re.findall(r"^#+ (.*)$", TEXTS[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_a_page_links_to_what_is_there(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", TEXTS[page]):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


@each_page
def test_a_page_names_tests_and_files_that_are_there(page: Path) -> None:
    for file, name in re.findall(r"([\w/]+\.py)?(?:::|`)(test_\w+)`", TEXTS[page]):
        if name not in ("test_time", "test_fraction"):  # parameters
            where = [text for path, text in TESTS.items() if path.as_posix().endswith(file)]
            assert any(f"def {name}(" in text for text in where), f"{file}::{name}"
    for path in re.findall(r"`((?:pipeline|stages|tests|benchmarks|presets|notebooks|docs)/[\w/.]+)`", TEXTS[page]):
        # Pages about tests name them from the folder of the tests; NAME stands for a name.
        assert "NAME" in path or (ROOT / path).exists() or (ROOT / "tests" / path).exists(), path


@each_page
def test_a_page_opens_with_what_it_is_for(page: Path) -> None:
    title, blank, opening = TEXTS[page].split("\n", 2)
    assert title.startswith("# ")
    assert blank == ""
    assert re.match(r"[A-Z`*][^|#]{40}", opening), "a sentence comes first, before any table"


def test_the_packages_are_drawn_as_they_import() -> None:
    script = runpy.run_path(str(ROOT / "docs/draw_packages.py"))
    drawn = (ROOT / "docs/packages.svg").read_text(encoding="utf-8")
    assert drawn == script["draw"](script["read_imports"]()), "run python docs/draw_packages.py"


def test_every_score_is_defined_on_its_page() -> None:
    page = TEXTS[ROOT / "docs/evaluation.md"]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    kinds = (Scores, RegionScores, BoxScores, Calibration, PublishedRegion, PublishedScores)
    scores = {field.name for kind in kinds for field in fields(kind)}
    assert sorted(scores - named) == []


def test_the_protocols_differ_as_their_page_says() -> None:
    script = runpy.run_path(str(ROOT / "docs/compare_protocols.py"))
    page = TEXTS[ROOT / "docs/evaluation.md"]
    assert f"{script['BEGIN']}\n{script['table']()}\n{script['END']}" in page, "run python docs/compare_protocols.py"
