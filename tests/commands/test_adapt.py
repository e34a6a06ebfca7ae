"""The command `pixelcam adapt`: a model for images of one's own, and refusals that leave nothing behind."""

import shutil
from pathlib import Path

import pytest
from tiny import Run, adapting, digests, write_params
from typer.testing import CliRunner, Result

from pipeline.commands.cli import app


@pytest.fixture
def project(finished: Run, tmp_path: Path) -> Run:
    """A run whose params say how to adapt, with images in a folder of their own."""
    run = Run(tmp_path)
    shutil.copytree(finished.root / "raw", run.root / "raw")
    write_params(run, {**adapting(), "domains.away.background_class": "benign"})
    return run


def _adapt(run: Run, finished: Run, *more: object, images: Path | None = None) -> Result:
    arguments = [finished.pixelcam, images or run.root / "raw/away/images", "--params", run.params]
    given = [*arguments, "--output", run.root / "out/adapted", *more]
    return CliRunner().invoke(app, ["adapt", *map(str, given)], env={"COLUMNS": "200"})


def test_a_folder_of_images_gives_a_model_that_predicts(project: Run, finished: Run) -> None:
    result = _adapt(project, finished, "--background-class", "benign")
    assert result.exit_code == 0, result.output
    assert "adapted by self_training to 4 images" in result.stdout
    image, model = project.root / "raw/away/images/test_0.png", project.root / "out/adapted"
    maps = project.root / "maps"
    predicted = CliRunner().invoke(app, ["predict", str(image), "--model", str(model), "--output", str(maps)])
    assert predicted.exit_code == 0, predicted.output
    assert [path.name for path in (project.root / "out").iterdir()] == ["adapted"]


def test_another_method_may_be_asked_for(project: Run, finished: Run) -> None:
    result = _adapt(project, finished, "--method", "batch_norm")
    assert "adapted by batch_norm" in result.stdout, result.output


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (("--like", "moon"), "expected a section 'moon', which says how to adapt (there are: away)"),
        (("--background-class", "moon"), "expected one of the model's classes (benign, malignant), got 'moon'"),
        ((), "evidence: 'pixels' tells images with foreground from those without"),
    ],
)
def test_what_cannot_be_is_refused(project: Run, finished: Run, more: tuple[str, ...], fault: str) -> None:
    before = digests(project.root)
    result = _adapt(project, finished, *more)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert fault in result.stderr
    assert digests(project.root) == before


def test_one_image_is_too_few(project: Run, finished: Run) -> None:
    result = _adapt(project, finished, images=project.root / "raw/away/images/test_0.png")
    assert result.exit_code == 1
    assert "has 1 image(s) to adapt to, and 4 are the least" in result.stderr


def test_an_output_that_exists_is_kept(project: Run, finished: Run) -> None:
    (project.root / "out/adapted").mkdir(parents=True)
    result = _adapt(project, finished)
    assert result.exit_code == 1
    assert "exists already; give another --output" in result.stderr
