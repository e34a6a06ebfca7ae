"""The command `export`: what it writes and says, and that it writes nothing where something is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Run
from typer.testing import CliRunner

from pipeline.commands.cli import app
from pipeline.data.manifest import Split, read_domain
from pipeline.export import exporting
from pipeline.export.exporting import Request, default_output, export_model
from pipeline.export.onnx_file import session_of
from pipeline.export.real_images import checking_images, pick_images
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ExportFormat

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def request(run: Run, **changes: object) -> Request:
    values: dict[str, object] = {"model": run.pixelcam, "params": load_params(run.params), "prepared": run.prepared}
    return Request(**(values | changes))  # type: ignore[arg-type]


def test_a_model_is_exported_with_the_threshold_of_its_own_reading(finished: Run, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    arguments = ["export", finished.pixelcam, "--params", finished.params, "--prepared", finished.prepared]
    said = CliRunner().invoke(app, [str(each) for each in (*arguments, "--output", output)])
    assert said.exit_code == 0, said.output
    about = json.loads(onnx.load(output).metadata_props[0].value)
    domain = read_domain("home", load_params(finished.params), finished.prepared / "home")
    evaluated = json.loads(finished.scores.read_text(encoding="utf-8"))["home"]["pixelcam"]
    assert about["threshold"] == pytest.approx(evaluated["threshold"], abs=1e-6)
    assert about["threshold_from"] == "validation"
    assert about["check"]["images"] == 4  # both validation images, and the first in two other sizes
    assert f"threshold {about['threshold']:.3f}" in said.output
    (image,) = pick_images(domain.manifest.of_split(Split.TEST), count=1)
    assert session_of(output.read_bytes())(image)["map"].shape == image.shape[:2]


@pytest.mark.usefixtures("converted")
def test_images_of_ones_own_serve_where_the_domain_is_not_here(finished: Run, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    Image.fromarray(np.full((40, 50, 3), 200, dtype=np.uint8)).save(picture)
    asked = request(finished, prepared=tmp_path / "nowhere", images=[picture], threshold=0.25)
    about = export_model(asked, ExportFormat.ONNX, tmp_path / "model.onnx")
    assert (about["threshold"], about["threshold_from"]) == (0.25, "fixed")
    assert about["check"]["sizes"] == ["40x50", "20x33", "80x50"]


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(
    ("form", "name", "changes", "said"),
    [
        (ExportFormat.ONNX, "model.zip", {}, r"model.zip: the format onnx writes a name that ends with .onnx"),
        (ExportFormat.WEB, "page.html", {}, "the format web writes a folder"),
        (ExportFormat.TORCH_EXPORT, "model.pt2", {"int8": True}, "--int8 goes with the formats onnx and web"),
        (ExportFormat.ONNX, "model.onnx", {"prepared": Path("nowhere")}, r"nowhere.home: does not exist.*--image"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    finished: Run, tmp_path: Path, form: ExportFormat, name: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(PixelCAMError, match=said):
        export_model(request(finished, **changes), form, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"), [({"card": Path("none.md"), "authors": ["A"]}, "none.md"), ({"authors": []}, "--author NAME")]
)
def test_what_a_package_lacks_is_said_before_anything_is_converted(
    finished: Run, tmp_path: Path, changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "export_onnx", lambda *_arguments, **_options: pytest.fail("it was converted"))
    monkeypatch.setattr(exporting, "_git_user", tuple)
    with pytest.raises(PixelCAMError, match=said):
        export_model(request(finished, **changes), ExportFormat.BIOIMAGEIO, tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_an_export_is_checked_on_images_of_every_class(finished: Run) -> None:
    domain = read_domain("home", load_params(finished.params), finished.prepared / "home")
    found = checking_images(domain)
    validation = domain.manifest.of_split(Split.VAL)
    assert [image.shape for image in found] == [(60, 72, 3)] * len(validation) + [(30, 48, 3), (120, 72, 3)]
    assert {row.label for row in validation.rows} == {"benign", "malignant"}
    for image, row in zip(found, validation.rows, strict=False):
        assert (image == np.asarray(Image.open(validation.root / row.image))).all()


def test_exports_have_a_place_of_their_own() -> None:
    assert default_output(Path("models/pixelcam"), ExportFormat.BIOIMAGEIO) == Path("exports/pixelcam.zip")
    assert default_output(Path("models/teacher"), ExportFormat.WEB) == Path("exports/teacher_web")
