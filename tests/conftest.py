"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tiny tensors gain nothing from threads, and test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from browsers import start_browser
from exported_nets import THRESHOLD, images  # torch reads the variable when it is imported
from playwright.sync_api import Browser, Playwright, sync_playwright
from tiny import Run, finish_run, start_run

from pipeline.export.onnx_file import Exported, export_onnx
from pipeline.params.config import load_params


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every stage has run on two tiny domains; tests read this and never write to it."""
    run = start_run(tmp_path_factory.mktemp("finished"))
    finish_run(run)
    return run


@pytest.fixture(scope="session")
def exported(finished: Run) -> Exported:
    """The finished run's PixelCAM as ONNX; tests that need it are skipped where ONNX's packages are missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    params = load_params(finished.params)
    return export_onnx(finished.pixelcam, params=params, images=images(), threshold=THRESHOLD)


@pytest.fixture
def converted(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every export of the finished run's PixelCAM takes the network as it was converted once, which takes seconds."""
    model = pytest.importorskip("onnx").load_from_string(exported.model)
    monkeypatch.setattr("pipeline.export.onnx_file.to_onnx", lambda _: model)


@pytest.fixture(scope="module")  # no longer: while it runs, nothing else may start an event loop
def playwright() -> Iterator[Playwright]:
    """What starts browsers."""
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser for the tests of a module that need one; see `needs_browser`."""
    found = start_browser(playwright)
    yield found
    found.close()


@pytest.fixture
def started(tmp_path: Path) -> Run:
    """Raw data and params of a run whose stages the test calls."""
    return start_run(tmp_path)
