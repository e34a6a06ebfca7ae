"""The command `pixelcam adapt`: a model for images of one's own, and refusals that leave nothing behind."""

import shutil
from pathlib import Path

import pytest
import yaml
from tiny import ROOT, Run, adapting, digests, write_params
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
        (("--like", "moon"), "expected a section 'moon' in the params, which says how to adapt (there are: away)"),
        (("--background-class", "moon"), "expected one of the model's classes (benign, malignant), got 'moon'"),
        ((), "evidence: 'pixels' tells images with foreground from those without"),
        (("--settings", "missing.yaml"), "missing.yaml: cannot be read"),
        (("--settings", "missing.yaml", "--like", "away"), "--settings, --like: both say how to adapt"),
    ],
)
def test_what_cannot_be_is_refused(project: Run, finished: Run, more: tuple[str, ...], fault: str) -> None:
    before = digests(project.root)
    result = _adapt(project, finished, *more)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert fault in result.stderr
    assert digests(project.root) == before


def test_evidence_may_be_another(project: Run, finished: Run) -> None:
    result = _adapt(project, finished, "--evidence", "image_head")
    assert result.exit_code == 0, result.output


def test_params_that_adapt_to_nothing_need_a_file_that_says_how(project: Run, finished: Run) -> None:
    write_params(project, {"adaptation": {}})
    assert "say it by --settings presets/adaptation.yaml" in _adapt(project, finished).stderr
    section = yaml.safe_load((ROOT / "presets/adaptation.yaml").read_text(encoding="utf-8")) | {
        "steps": 2,
        "batch_size": 2,
    }
    settings = project.root / "settings.yaml"
    settings.write_text(yaml.safe_dump(section), encoding="utf-8")
    result = _adapt(project, finished, "--settings", settings)
    assert result.exit_code == 0, result.output
    assert "adapted by self_training to 4 images" in result.stdout


def test_one_image_is_too_few(project: Run, finished: Run) -> None:
    result = _adapt(project, finished, images=project.root / "raw/away/images/test_0.png")
    assert result.exit_code == 1
    assert "has 1 image(s) to adapt to, and 4 are the least" in result.stderr


def test_an_output_that_exists_is_kept(project: Run, finished: Run) -> None:
    (project.root / "out/adapted").mkdir(parents=True)
    result = _adapt(project, finished)
    assert result.exit_code == 1
    assert "exists already; give another --output" in result.stderr
