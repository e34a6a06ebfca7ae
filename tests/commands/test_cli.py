"""The command: what it prints, what it writes, exit code 1 and one message where something is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Run, start_run
from typer.testing import CliRunner, Result

from pipeline.commands.cli import app


def _call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def _refused(result: Result) -> str:
    """Return the one message of a refusal."""
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    return result.stderr


def test_help_lists_every_command() -> None:
    starts = {line.strip("│ ").split(" ")[0] for line in _call("--help").stdout.splitlines()}
    models = {"adapt", "predict", "slide", "score", "export", "push-to-hub"}
    assert models | {"labels", "export-ome", "doctor", "results", "view"} <= starts


def test_predict_writes_overlay_and_array_of_the_images_size(finished: Run, tmp_path: Path) -> None:
    image = finished.root / "raw/home/images/test_0.png"
    result = _call("predict", image, "--model", finished.pixelcam, "--output", tmp_path / "maps")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{image}: benign 0.")
    probabilities = [float(word.rstrip(",;")) for word in result.stdout.split() if word.startswith("0.")]
    assert sum(probabilities) == pytest.approx(1, abs=0.002)
    assert np.load(tmp_path / "maps/test_0_map.npy").shape == (60, 72)
    assert Image.open(tmp_path / "maps/test_0_overlay.png").size == (72, 60)
    assert str(tmp_path / "maps/test_0_overlay.png") in result.stdout


def test_predict_refuses_two_images_of_one_name(finished: Run, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "test_0.png")
    images = (finished.root / "raw/home/images/test_0.png", tmp_path / "test_0.png")
    message = _refused(_call("predict", *images, "--model", finished.pixelcam, "--output", tmp_path / "maps"))
    assert "would write the same files" in message


def test_predict_names_an_unreadable_image(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image", encoding="utf-8")
    arguments = ("--model", finished.pixelcam, "--output", tmp_path / "maps")
    assert "broken.png: is no image" in _refused(_call("predict", tmp_path / "broken.png", *arguments))
    assert "gone.png: is no file" in _refused(_call("predict", tmp_path / "gone.png", *arguments))


def test_predict_names_a_missing_model(finished: Run, tmp_path: Path) -> None:
    image = finished.root / "raw/home/images/test_0.png"
    assert "nowhere/model.json: " in _refused(_call("predict", image, "--model", tmp_path / "nowhere"))


def test_predict_takes_the_test_images_of_a_domain_and_a_teacher_and_score_reads_its_maps(
    finished: Run, tmp_path: Path
) -> None:
    maps, masks = tmp_path / "maps", tmp_path / "masks"
    result = _call(
        *("predict", "--domain", "home", "--prepared", finished.prepared, "--params", finished.params),
        *("--model", finished.teacher, "--output", maps, "--format", "zarr", "--maps-only", "--batch-size", 2),
    )
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        str(finished.root / f"raw/home/images/test_{number}.png") for number in range(3)
    ]
    assert result.stdout.splitlines()[0].endswith(f"; {maps}/heatmaps.zarr/test_0.png")
    assert [path.name for path in maps.iterdir()] == ["heatmaps.zarr"]
    masks.mkdir()
    for number in range(3):
        shutil.copy(finished.root / f"raw/home/masks/test_{number}.png", masks)
    scores = json.loads(_call("score", maps / "heatmaps.zarr", masks, "--json").stdout)
    assert scores["images"] == 3
    assert 0 < scores["pxap"] < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected image files, or --domain"),
        (["a.png", "--domain", "home", "--params", "PARAMS"], "expected image files, or --domain"),
        (["--domain", "home"], "add --params params.yaml"),
        (["--domain", "moon", "--params", "PARAMS"], "there is no 'moon'"),
    ],
)
def test_predict_says_which_images_it_wants(finished: Run, arguments: list[str], message: str) -> None:
    given = [str(finished.params) if argument == "PARAMS" else argument for argument in arguments]
    assert message in _refused(_call("predict", *given, "--model", finished.pixelcam))


def test_export_ome_writes_a_few_images_and_says_how_to_look(finished: Run, tmp_path: Path) -> None:
    project = ("--prepared", finished.prepared, "--params", finished.params)
    result = _call("export-ome", finished.store, tmp_path / "out", *project, "--count", 2)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"2 of 6 images: {tmp_path}/out/**/*.ome.zarr; ")
    assert f"napari {tmp_path}/out/images/train_0.png.ome.zarr {tmp_path}/out/images/train_0.png.cam" in result.stdout
    written = sorted(path.name for path in (tmp_path / "out/images").iterdir())
    assert written == [f"train_{number}.png.{end}" for number in (0, 5) for end in ("cam.ome.zarr", "ome.zarr")]
    assert "exists already" in _refused(_call("export-ome", finished.store, tmp_path / "out", *project))
    one = _call("export-ome", finished.store, tmp_path / "one", *project, "--image", "images/train_3.png")
    assert one.stdout.startswith("1 of 6 images: ")
    both = _call("export-ome", finished.store, tmp_path / "two", *project, "--image", "a.png", "--count", 1)
    assert "expected --image or --count, got both" in _refused(both)


def test_export_ome_asks_for_the_domain_of_the_store(finished: Run, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    shutil.copytree(finished.store, store)
    text = (store / "zarr.json").read_text(encoding="utf-8")
    (store / "zarr.json").write_text(text.replace('"domain"', '"was_domain"'), encoding="utf-8")
    message = _refused(_call("export-ome", store, tmp_path / "out", "--params", finished.params))
    assert "store.zarr: lacks the attribute domain" in message


def test_labels_describes_the_store_and_writes_the_sheet(finished: Run, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = _call("labels", finished.store, "--sheet", sheet, "--images", finished.root / "raw/home", "--count", 2)
    assert result.exit_code == 0
    for said in ("test_efficientnet", "layercam", "labels, malignant (3 images)", "every label agrees", str(sheet)):
        assert said in result.stdout.replace("\n", " ") or said in result.stdout
    assert "--images" not in result.stdout
    assert Image.open(sheet).width > 3 * 72


def test_labels_tells_how_to_see_the_images(finished: Run, tmp_path: Path) -> None:
    result = _call("labels", finished.store, "--sheet", tmp_path / "sheet.png")
    assert "add --images with their root, such as data/prepared/home" in result.stdout


def test_labels_keeps_the_checksum_whole_on_a_narrow_terminal(finished: Run) -> None:
    digest = json.loads((finished.store / "zarr.json").read_text())["attributes"]["teacher_sha256"]
    arguments = ["labels", str(finished.store)]
    narrow = CliRunner().invoke(app, arguments, env={"COLUMNS": "50"}).stdout
    assert max(len(line) for line in narrow.splitlines()) <= 50
    assert digest in "".join(narrow.split())


def test_labels_reports_damage(finished: Run, tmp_path: Path) -> None:
    assert "nowhere: cannot be opened" in _refused(_call("labels", tmp_path / "nowhere"))
    store = tmp_path / "store.zarr"
    for path in finished.store.rglob("*"):
        if path.is_file() and "labels/c" not in path.as_posix():
            copy = store / path.relative_to(finished.store)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert "were written" in _refused(_call("labels", store))


def test_doctor_marks_what_to_mend(tmp_path: Path) -> None:
    run = start_run(tmp_path, {"domains.away.root": "/no/such/folder"})
    result = _call("doctor", "--params", run.params)
    assert "not ready" in _refused(result)
    lines = result.stdout.splitlines()
    marked = lines.index("MEND  domain away: /no/such/folder is missing")
    assert lines[marked + 1] == "      set domains.away.root in the params file"
    assert any(line.startswith("ok    Python: 3.") for line in lines)


def test_doctor_indents_every_line_of_a_remedy(tmp_path: Path) -> None:
    run = start_run(tmp_path, {"seed": -1, "source": 3})
    lines = _call("doctor", "--params", run.params).stdout.splitlines()
    assert all(line.startswith(("ok    ", "MEND  ", "      ")) for line in lines)
    assert any("seed: " in line for line in lines)


def test_results_prints_scores_and_places(finished: Run) -> None:
    result = _call("results", "--scores", finished.scores, "--report", finished.report)
    assert result.exit_code == 0
    scores = json.loads(finished.scores.read_text(encoding="utf-8"))
    for domain, models in scores.items():
        for model, values in models.items():
            (line,) = (line for line in result.stdout.splitlines() if domain in line and f" {model} " in line)
            assert f"{values['pxap']:.3f}" in line
            assert f"{values['accuracy']:.3f}" in line
    order = [line.split("│")[2].strip() for line in result.stdout.splitlines() if line.startswith("│")]
    assert order == ["teacher", "pixelcam"] * 2
    assert finished.report.resolve().as_uri() in result.stdout


def test_results_show_a_dash_for_what_is_unknown(tmp_path: Path) -> None:
    unknown = {"pxap": None, "dice": None, "accuracy": 0.5}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"glas": {"teacher": unknown, "pixelcam": unknown}}), encoding="utf-8")
    lines = [line for line in _call("results", "--scores", path).stdout.splitlines() if "glas" in line]
    assert len(lines) == 2
    assert all(line.split("│")[3].strip() == "-" and "0.500" in line for line in lines)


def test_results_show_adapted_models_below_the_others(tmp_path: Path) -> None:
    scores = {"pxap": 0.25, "dice": None, "accuracy": 0.5}
    (tmp_path / "scores.json").write_text(json.dumps({"far": {"teacher": scores, "pixelcam": scores}}), "utf-8")
    adapted = {"method": "shot", "transductive": True, "models": {"pixelcam": {"adapted": scores | {"accuracy": 0.75}}}}
    (tmp_path / "adaptation.json").write_text(json.dumps({"far": adapted}), encoding="utf-8")
    lines = [
        line for line in _call("results", "--scores", tmp_path / "scores.json").stdout.splitlines() if "far" in line
    ]
    assert len(lines) == 3
    assert "pixelcam, adapted (shot, transductive)" in lines[2]
    assert "0.750" in lines[2]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"glas": 3}', '{"glas": {"teacher": {}}}'])
def test_results_that_cannot_be_read_are_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "scores.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    message = _refused(_call("results", "--scores", path))
    assert "scores.json: cannot be read" in message
    assert "make repro" in message
