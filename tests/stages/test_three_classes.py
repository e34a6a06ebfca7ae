"""Three classes through every stage, with a map for each: stored, trained, scored, shown, predicted and exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image
from tiny import Run, finish_run, start_run, tiny_params

from pipeline.commands.ome_export import export_ome
from pipeline.commands.predict import predict
from pipeline.data.manifest import read_domain
from pipeline.evaluation.prediction import load_model
from pipeline.models.pixelcam import load_pixelcam
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelClasses
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.report.overlays import describe_store, write_label_sheet

CLASSES = ("benign", "malignant", "adenoma")
COLOURS = {0: (68, 1, 84), 1: (253, 231, 37), 2: (86, 180, 233), 3: (213, 94, 0)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every stage has run on two domains of three classes; in one of them the first has no region of interest."""
    changes = {"model.pixel_classes": PixelClasses.IMAGE_CLASSES.value, "cam.method": "cam"}
    run = start_run(tmp_path_factory.mktemp("three"), changes, classes=CLASSES)
    finish_run(run)
    return run


def scores_of(run: Run, domain: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(run.scores.read_text(encoding="utf-8"))[domain]
    return found


def test_labels_carry_the_class_of_their_image(run: Run) -> None:
    store = PseudoLabelStore(run.store)
    assert store.pixel_classes == ("background", *CLASSES)
    assert sorted(set(store.class_idx().tolist())) == [0, 1, 2]
    for image_id, class_idx in zip(store.image_ids, store.class_idx().tolist(), strict=True):
        assert set(np.unique(store.read(image_id).labels).tolist()) == {0, 1 + class_idx, 255}


def test_the_model_has_an_output_for_each_class_and_one_for_background(run: Run) -> None:
    net, info = load_pixelcam(run.pixelcam)
    assert info.pixel_classes is PixelClasses.IMAGE_CLASSES
    assert net.pixel_head.state_dict()["convolution.bias"].shape == (4,)


@pytest.mark.parametrize("domain", ["home", "away"])
def test_every_score_of_three_classes_is_there(run: Run, domain: str) -> None:
    teacher, pixelcam = (scores_of(run, domain)[model] for model in ("teacher", "pixelcam"))
    assert set(pixelcam["class_iou"]) == {*CLASSES, "background"}
    assert (pixelcam["class_iou"]["benign"] is None) == (domain == "away"), "of the class without a region"
    defined = [value for value in pixelcam["class_iou"].values() if value is not None]
    assert pixelcam["mean_iou_over_classes"] == pytest.approx(np.mean(defined), abs=1e-5)
    assert teacher["mean_iou_over_classes"] is not None
    assert teacher["accuracy_by_pixels"] is None
    assert 0 <= pixelcam["accuracy_by_pixels"] <= 1
    assert sum(sum(row.values()) for row in pixelcam["confusion"].values()) == pixelcam["images"]
    assert set(pixelcam["f1"]) == set(CLASSES)


def test_the_class_by_pixels_stands_beside_the_image_heads(run: Run) -> None:
    table = pd.read_csv(run.per_image)
    rows = table[(table["model"] == "pixelcam") & (table["domain"] == "home")]
    right = (rows["class_by_pixels"] == rows["label"]).mean()
    assert right == pytest.approx(scores_of(run, "home")["pixelcam"]["accuracy_by_pixels"], abs=1e-6)
    assert table[table["model"] == "teacher"]["class_by_pixels"].isna().all()


def test_the_page_shows_classes(run: Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    assert "pixel labels: benign, malignant, adenoma, background, ignored (bare grey)" in page
    assert "PixelCAM's class of each pixel: benign, malignant, adenoma, background" in page.replace("&#39;", "'")
    assert "Accuracy, images classified by their pixels" in page
    assert "IoU of the pixels of adenoma" in page
    assert "rgb(213, 94, 0)" in page


def test_a_prediction_holds_a_map_for_each_class_and_the_command_writes_the_one_asked_for(
    run: Run, tmp_path: Path
) -> None:
    image = run.root / "raw/home/images/test_2.png"
    (found,) = load_model(run.pixelcam).predict([image])
    assert tuple(found.class_maps) == CLASSES
    np.testing.assert_allclose(sum(found.class_maps.values()), found.map, atol=1e-6)
    (written,) = predict([image], model=run.pixelcam, output=tmp_path, batch_size=1, map_of="adenoma")
    np.testing.assert_array_equal(np.load(written.map), found.class_maps["adenoma"])
    assert written.overlay is not None
    with pytest.raises(PixelCAMError, match=r"as has benign, malignant, adenoma, got 'polyp'; name one that has"):
        list(predict([image], model=run.pixelcam, output=tmp_path, batch_size=1, map_of="polyp"))


def test_a_model_of_foreground_has_no_map_of_a_class(finished: Run, tmp_path: Path) -> None:
    image = finished.root / "raw/home/images/test_0.png"
    assert load_model(finished.pixelcam).predict([image])[0].class_maps == {}
    with pytest.raises(PixelCAMError, match=r"as has no class, got 'benign'; .*model\.pixel_classes: image_classes"):
        list(predict([image], model=finished.pixelcam, output=tmp_path, batch_size=1, map_of="benign"))


def test_labels_of_classes_are_described_drawn_and_exported(run: Run, tmp_path: Path) -> None:
    store = PseudoLabelStore(run.store)
    described = dict(describe_store(store))
    assert described["labels, adenoma (2 images)"].startswith("background 3")
    assert ", benign 0.0%, malignant 0.0%, adenoma " in described["labels, adenoma (2 images)"]
    write_label_sheet(store, tmp_path / "sheet.png", count=6, images=None)
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(tmp_path / "sheet.png")).reshape(-1, 3).tolist()}
    for label, own in COLOURS.items():  # on white, three quarters of the colour
        near = [round(0.75 * channel + 0.25 * 255) for channel in own]
        assert any(max(abs(a - b) for a, b in zip(near, colour, strict=True)) <= 1 for colour in colours), label
    params = tiny_params(run.root / "raw", {"domains.home.classes": list(CLASSES), "target_domains": ["home"]})
    export_ome(store, tmp_path / "ome", source=read_domain("home", params, run.prepared / "home"))
    labels = zarr.open_group(tmp_path / "ome/images/train_2.png.ome.zarr/labels/pseudo_labels", mode="r")
    about: Any = labels.attrs["ome"]
    names = {each["label-value"]: each["name"] for each in about["image-label"]["properties"]}
    assert names == {0: "background", 1: "benign", 2: "malignant", 3: "adenoma", 255: "ignore"}
    drawn = {each["label-value"]: tuple(each["rgba"][:3]) for each in about["image-label"]["colors"]}
    assert {label: drawn[label] for label in (1, 2, 3)} == {label: COLOURS[label] for label in (1, 2, 3)}
