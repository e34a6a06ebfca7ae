"""Prediction: maps of the image's own size, the probabilities of the model, and refusals before any work."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Run, digests

from pipeline.errors import PixelCAMError
from pipeline.images import read_image
from pipeline.pixelcam import load_pixelcam
from pipeline.predicting import predict
from pipeline.square_images import squash


def test_maps_have_the_images_size_and_probabilities_are_the_models(finished: Run, tmp_path: Path) -> None:
    images = [finished.root / f"raw/home/images/test_{number}.png" for number in range(2)]
    predictions = list(predict(images, model=finished.pixelcam, output=tmp_path / "maps"))
    assert [prediction.image for prediction in predictions] == images
    model, _ = load_pixelcam(finished.pixelcam)
    for prediction in predictions:
        pixels = torch.from_numpy(squash(read_image(prediction.image), 64)).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            output = model(pixels.unsqueeze(0))
        probabilities = output.image_logits.softmax(dim=1)[0].tolist()
        assert prediction.probabilities == pytest.approx(dict(zip(("benign", "malignant"), probabilities, strict=True)))
        heat = np.load(prediction.map, allow_pickle=False)
        assert heat.shape == (60, 72)
        assert heat.dtype == np.float32
        assert 0 <= heat.min() < heat.max() <= 1
        # The centre of feature cell (1, 2) of 4x4 is pixel (22.5, 45) in the image: between the pixels around it.
        cell = output.pixel_logits.softmax(dim=1)[0, 1, 1, 2].item()
        assert heat[21:24, 44:46].mean() == pytest.approx(cell, abs=0.01)
        assert Image.open(prediction.overlay).size == (72, 60)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["test_0_map.npy", "test_0_overlay.png", "test_1_map.npy", "test_1_overlay.png"]


def test_predicting_twice_gives_the_same_files(finished: Run, tmp_path: Path) -> None:
    images = [finished.root / "raw/home/images/test_0.png"]
    for folder in ("1", "2"):
        list(predict(images, model=finished.pixelcam, output=tmp_path / folder))
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_an_image_does_not_depend_on_its_company(finished: Run, tmp_path: Path) -> None:
    images = [finished.root / f"raw/home/images/test_{number}.png" for number in range(3)]
    together = [prediction.probabilities for prediction in predict(images, model=finished.pixelcam, output=tmp_path)]
    (alone,) = predict(images[2:], model=finished.pixelcam, output=tmp_path / "alone")
    assert alone.probabilities == together[2]


def test_grey_and_one_pixel_images_are_fine(finished: Run, tmp_path: Path) -> None:
    Image.new("L", (1, 1), 128).save(tmp_path / "dot.png")
    (prediction,) = predict([tmp_path / "dot.png"], model=finished.pixelcam, output=tmp_path / "maps")
    assert np.load(prediction.map).shape == (1, 1)


@pytest.mark.parametrize("other", ["b/same.png", "a/same.bmp"])
def test_two_images_of_one_name_are_refused_before_any_work(finished: Run, tmp_path: Path, other: str) -> None:
    images = [tmp_path / "a/same.png", tmp_path / other]
    for image in images:
        image.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(image)
    with pytest.raises(PixelCAMError, match=rf"{other}: would write the same files as .*a/same\.png"):
        list(predict(images, model=finished.pixelcam, output=tmp_path / "maps"))
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["nowhere.png", "."])
def test_what_is_no_file_is_refused_before_any_work(finished: Run, tmp_path: Path, name: str) -> None:
    good = finished.root / "raw/home/images/test_0.png"
    with pytest.raises(PixelCAMError, match="is no file; give image files"):
        list(predict([good, tmp_path / name], model=finished.pixelcam, output=tmp_path / "maps"))
    assert not (tmp_path / "maps").exists()


def test_an_unreadable_image_is_named_and_leaves_nothing_half_written(finished: Run, tmp_path: Path) -> None:
    good, broken = finished.root / "raw/home/images/test_0.png", tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:200])
    with pytest.raises(PixelCAMError, match=r"broken\.png: "):
        list(predict([good, broken], model=finished.pixelcam, output=tmp_path / "maps"))
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["test_0_map.npy", "test_0_overlay.png"]


def test_a_teachers_folder_is_refused_with_a_hint(finished: Run, tmp_path: Path) -> None:
    image = finished.root / "raw/home/images/test_0.png"
    with pytest.raises(PixelCAMError, match="give the folder of a PixelCAM model"):
        list(predict([image], model=finished.teacher, output=tmp_path / "maps"))
