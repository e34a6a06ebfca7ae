"""The pages against the project: what they link to, name and draw is there."""

import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import metadata, version
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from imports import ROOT

from pipeline.metrics.classification import Calibration
from pipeline.metrics.localization import BoxScores, RegionScores
from pipeline.metrics.published import PublishedRegion, PublishedScores
from pipeline.metrics.scores import Scores
from pipeline.params.config import load_params

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


def experiments(page: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield of each printed `dvc exp run` the params it starts from, the domains added to them, and what -S changes."""
    for section in re.split(r"^#+ ", TEXTS[page], flags=re.MULTILINE):
        preset = re.search(r"cp (presets/\w+\.yaml) params\.yaml", section)
        domains = "".join(re.findall(r"^```yaml\n(  .*?)^```", section, flags=re.MULTILINE | re.DOTALL))
        for command in re.findall(r"dvc exp run([^`\n]*)", section):
            words = shlex.shlex(command.replace("$n", "1"), posix=True, punctuation_chars=True)
            words.whitespace_split = True
            given = list(takewhile(lambda word: word not in (";", "&&"), words))
            changes = [value for flag, value in pairwise(given) if flag == "-S"]
            yield preset[1] if preset else "params.yaml", domains, changes


@each_page
def test_a_page_prints_experiments_whose_params_fit_together(page: Path, tmp_path: Path) -> None:
    for start, domains, changes in experiments(page):
        for number, swept in enumerate(get_hydra_sweeps({"params.yaml": changes})):
            path = tmp_path / f"{number}.yaml"
            values = yaml.safe_load((ROOT / start).read_text(encoding="utf-8"))
            values["domains"] |= yaml.safe_load(domains) or {}
            path.write_text(yaml.safe_dump(values), encoding="utf-8")
            apply_overrides(path, swept["params.yaml"])
            load_params(path)


def test_adapting_is_left_out_by_a_change_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())  # with its comments
    apply_overrides(path, ["~adaptation.lymph_node", "target_domains=[colon]"])
    assert load_params(path).adaptation == {}  # with a comment behind `adaptation:` DVC would write no YAML


@each_page
def test_a_page_opens_with_what_it_is_for(page: Path) -> None:
    title, blank, opening = TEXTS[page].split("\n", 2)
    assert title.startswith("# ")
    assert blank == ""
    assert re.match(r"[A-Z`*][^|#]{40}", opening), "a sentence comes first, before any table"


def test_what_is_to_be_cited_is_the_version_there_is() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version("pixelcam")
    assert citation["license"] == metadata("pixelcam")["License-Expression"]


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
