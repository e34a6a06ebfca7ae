"""What a notebook imports: few names, loaded late, each documented by a program that runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT
from tiny import Run

import pipeline

PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
PROGRAM = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))


def test_few_names_are_exported_and_the_page_has_them_all() -> None:
    assert 0 < len(pipeline.__all__) <= 10
    assert sorted(pipeline.__all__) == sorted(dir(pipeline))
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert [name for name in pipeline.__all__ if f"`{name}" not in table] == []
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
        assert re.search(rf"import .*\b{name}\b", PROGRAM), f"{name} is not shown at work"


def test_importing_the_package_loads_neither_torch_nor_timm() -> None:
    program = "import sys, pipeline; print([name for name in ('torch', 'timm', 'zarr') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        pipeline.no_such_name  # noqa: B018 - asking for it is the test


@pytest.fixture
def project(finished: Run, tmp_path: Path) -> Path:
    """A folder as `make repro` leaves it, with the tiny domain `home` in the place of `colon`."""
    for name in ("images", "masks"):
        shutil.copytree(finished.root / "raw/home" / name, tmp_path / "data/prepared/colon" / name)
    for path in (finished.models, finished.store, finished.params):
        (tmp_path / path.relative_to(finished.root)).symlink_to(path)
    return tmp_path


def test_the_program_of_the_page_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    names: dict[str, object] = {}
    exec(compile(PROGRAM, "docs/api.md", "exec"), names)
    said = capsys.readouterr().out
    assert re.search(r"^test_\d+\.png (benign|malignant) \{'benign': ", said, flags=re.MULTILINE)
    assert "models/nowhere" in said, "the error is told"
    assert isinstance(names["scores"], dict)
    assert 0 < names["scores"]["pxap"] < 1
    assert all((project / name).is_file() for name in ("cam.png", "labels.png"))
