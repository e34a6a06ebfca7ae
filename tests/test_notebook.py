"""The tour runs from its first cell to its last, and ends with maps that are better than those it began with."""

import re

import nbformat
import pytest
from imports import ROOT
from nbclient import NotebookClient

TOUR = ROOT / "notebooks/tour.ipynb"
SECONDS = 900  # of a cell; what a busy machine may take


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)


def test_the_tour_that_is_shown_has_its_pictures_and_no_path_of_a_machine() -> None:
    notebook = nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]
    assert pictures(notebook) == 5
    assert not any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "/tmp" not in TOUR.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tour_runs() -> None:
    notebook = nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    assert pictures(notebook) == 5
    table = notebook.cells[-2].outputs[-1].data["text/plain"]
    pxap = {name: float(value) for name, value in re.findall(r"^(teacher|PixelCAM)\s+([\d.]+)", table, re.MULTILINE)}
    assert pxap["PixelCAM"] > pxap["teacher"]
