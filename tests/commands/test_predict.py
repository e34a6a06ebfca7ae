"""Prediction: maps of the image's own size, the probabilities of the model, and refusals before any work."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import Run, digests, tiny_params

from pipeline.commands.predict import PredictedFile, predict, scored_files
from pipeline.data.image_store import squash
from pipeline.data.images import read_image
from pipeline.data.manifest import Manifest, Split, read_domain
from pipeline.data.maps import resize_map
from pipeline.evaluation.map_files import open_maps
from pipeline.models.loading import TeacherLocalizer
from pipeline.models.pixelcam import PixelCAMLocalizer, load_pixelcam
from pipeline.models.teacher import load_teacher
from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import MapFormat
from pipeline.runtime.files import sha256_of


def run_on(
    images: Sequence[Path],
    *,
    model: Path,
    output: Path,
    batch_size: int = 2,
    params: Params | None = None,
    map_format: MapFormat = MapFormat.NPY,
    maps_only: bool = False,
) -> list[PredictedFile]:
    predictions = predict(
        images,
        model=model,
        output=output,
        batch_size=batch_size,
        params=params,
        map_format=map_format,
        maps_only=maps_only,
    )
    return list(predictions)


def some_images(finished: Run, count: int = 3) -> list[Path]:
    return [finished.root / f"raw/home/images/test_{number}.png" for number in range(count)]


def squares(images: Sequence[Path], size: int) -> torch.Tensor:
    """Return images as a batch, float32 (B, 3, size, size) in [0, 1]."""
    pixels = [torch.from_numpy(squash(read_image(image), size)).permute(2, 0, 1) for image in images]
    return torch.stack(pixels).float() / 255


def test_maps_have_the_images_size_and_probabilities_are_the_models(finished: Run, tmp_path: Path) -> None:
    images = some_images(finished, 2)
    predictions = run_on(images, model=finished.pixelcam, output=tmp_path / "maps")
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
        assert prediction.overlay is not None
        assert Image.open(prediction.overlay).size == (72, 60)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["test_0_map.npy", "test_0_overlay.png", "test_1_map.npy", "test_1_overlay.png"]


def test_predicting_twice_gives_the_same_files(finished: Run, tmp_path: Path) -> None:
    images = [finished.root / "raw/home/images/test_0.png"]
    for folder in ("1", "2"):
        run_on(images, model=finished.pixelcam, output=tmp_path / folder)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


@pytest.mark.parametrize("kind", ["pixelcam", "teacher"])
def test_an_image_does_not_depend_on_its_company(finished: Run, tmp_path: Path, kind: str) -> None:
    params = load_params(finished.params)
    found = {
        batch_size: run_on(
            some_images(finished),
            model=finished.models / kind,
            output=tmp_path / str(batch_size),
            batch_size=batch_size,
            params=params,
        )
        for batch_size in (1, 2, 8)
    }
    for alone, in_pairs, together in zip(*found.values(), strict=True):
        assert alone.probabilities == pytest.approx(in_pairs.probabilities, abs=1e-5)
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-5)
        maps = [np.load(each.map) for each in (alone, in_pairs, together)]
        assert np.abs(maps[0] - maps[1]).max() < 1e-4
        assert np.abs(maps[0] - maps[2]).max() < 1e-4
    assert found[1][0].probabilities != found[1][1].probabilities


def test_a_map_is_averaged_over_the_views_of_the_params(finished: Run, tmp_path: Path) -> None:
    params = tiny_params(
        finished.root / "raw", {"pixelcam_map": {"scales": [1.0, 1.5], "symmetries": 2, "margin": 0.0}}
    )
    images = some_images(finished)
    averaged = run_on(images, model=finished.pixelcam, output=tmp_path / "averaged", params=params)
    plain = run_on(images, model=finished.pixelcam, output=tmp_path / "plain")
    localizer = PixelCAMLocalizer(load_pixelcam(finished.pixelcam)[0], params.pixelcam_map, image_scale=1.5)
    expected = resize_map(localizer(squares(images, 96), torch.zeros(3, dtype=torch.int64)).maps, (60, 72))
    for each, once, reference in zip(averaged, plain, expected.numpy(), strict=True):
        assert np.load(each.map) == pytest.approx(reference, abs=1e-5)
        assert np.abs(np.load(once.map) - reference).max() > 1e-3


@pytest.mark.parametrize("swapped", [False, True])
def test_a_teachers_map_is_the_cam_for_the_class_that_it_predicts(
    finished: Run, tmp_path: Path, *, swapped: bool
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(finished.teacher, teacher)
    state = load_file(teacher / "model.safetensors")
    head = {name: values.flip(0).contiguous() for name, values in state.items() if name.startswith("image_head.")}
    save_file(state | (head if swapped else {}), teacher / "model.safetensors")
    images, params = some_images(finished), load_params(finished.params)
    predictions = run_on(images, model=teacher, output=tmp_path / "maps", params=params)
    localizer = TeacherLocalizer(load_teacher(teacher)[0], params.cam)
    cams = [resize_map(localizer(squares(images, 64), torch.full((3,), k)).maps, (60, 72)).numpy() for k in (0, 1)]
    classes = [int(prediction.probabilities["malignant"] > 0.5) for prediction in predictions]
    assert (1 in classes) == swapped  # in one of both cases, another class than the first is asked for
    for index, (prediction, predicted) in enumerate(zip(predictions, classes, strict=True)):
        assert np.load(prediction.map) == pytest.approx(cams[predicted][index], abs=1e-5)
        assert np.abs(cams[0][index] - cams[1][index]).max() > 1e-3


@pytest.mark.parametrize("map_format", MapFormat)
@pytest.mark.parametrize("maps_only", [False, True])
def test_every_form_holds_the_same_map(
    finished: Run, tmp_path: Path, map_format: MapFormat, *, maps_only: bool
) -> None:
    images = some_images(finished, 2)
    exact = [np.load(each.map) for each in run_on(images, model=finished.pixelcam, output=tmp_path / "exact")]
    written = tmp_path / "written"
    predictions = run_on(images, model=finished.pixelcam, output=written, map_format=map_format, maps_only=maps_only)
    ending = "" if maps_only else "_map"
    names = {
        MapFormat.NPY: [f"test_0{ending}.npy", f"test_1{ending}.npy"],
        MapFormat.PNG: [f"test_0{ending}.png", f"test_1{ending}.png"],
        MapFormat.ZARR: ["heatmaps.zarr"],
    }[map_format]
    overlays = [] if maps_only else ["test_0_overlay.png", "test_1_overlay.png"]
    assert sorted(path.name for path in written.iterdir()) == sorted(names + overlays)
    assert all(prediction.map.exists() for prediction in predictions)
    assert [prediction.overlay is None for prediction in predictions] == [maps_only, maps_only]
    if maps_only or map_format is MapFormat.ZARR:
        maps = open_maps(written / "heatmaps.zarr" if map_format is MapFormat.ZARR else written)
        assert maps.names == ("test_0", "test_1")
        for name, expected in zip(maps.names, exact, strict=True):
            assert np.abs(maps.read(name) - expected).max() <= 0.5 / 65535 + 1e-7


def test_the_group_says_where_its_maps_come_from(finished: Run, tmp_path: Path) -> None:
    params = load_params(finished.params)
    (prediction,) = run_on(
        some_images(finished, 1), model=finished.teacher, output=tmp_path, params=params, map_format=MapFormat.ZARR
    )
    attributes = dict(zarr.open_group(tmp_path / "heatmaps.zarr", mode="r").attrs)
    assert attributes["map_of"] == "teacher, for the predicted class"
    assert attributes["model_sha256"] == sha256_of(finished.teacher / "model.safetensors")
    assert attributes["read"] == {
        "method": "layercam",
        "layers": [-1],
        "scales": [1.0],
        "symmetries": 2,
        "margin": 0.0,
    }
    assert attributes["image_ids"] == ["test_0.png"]
    assert dict(zarr.open_array(prediction.map, mode="r").attrs)["probabilities"] == prediction.probabilities


def test_the_test_images_of_a_domain_are_those_of_its_manifest(finished: Run) -> None:
    home = read_domain("home", load_params(finished.params), finished.prepared / "home")
    assert scored_files(home) == some_images(finished)
    changed = tuple(replace(row, image_sha256="0" * 64) for row in home.manifest.rows)
    with pytest.raises(PixelCAMError, match=r"test_0\.png: has changed since it was prepared"):
        scored_files(replace(home, manifest=Manifest(changed, home.manifest.root)))
    with pytest.raises(PixelCAMError, match=r"nowhere/images/test_0\.png: is missing; restore it"):
        scored_files(replace(home, manifest=Manifest(home.manifest.rows, Path("nowhere"))))
    with pytest.raises(PixelCAMError, match="'home' has no test image"):
        scored_files(replace(home, manifest=home.manifest.of_split(Split.TRAIN)))


def test_grey_and_one_pixel_images_are_fine(finished: Run, tmp_path: Path) -> None:
    Image.new("L", (1, 1), 128).save(tmp_path / "dot.png")
    (prediction,) = run_on([tmp_path / "dot.png"], model=finished.pixelcam, output=tmp_path / "maps")
    assert np.load(prediction.map).shape == (1, 1)


@pytest.mark.parametrize("other", ["b/same.png", "a/same.bmp"])
def test_two_images_of_one_name_are_refused_before_any_work(finished: Run, tmp_path: Path, other: str) -> None:
    images = [tmp_path / "a/same.png", tmp_path / other]
    for image in images:
        image.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(image)
    with pytest.raises(PixelCAMError, match=rf"{other}: would write the same files as .*a/same\.png"):
        run_on(images, model=finished.pixelcam, output=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["nowhere.png", "."])
def test_what_is_no_file_is_refused_before_any_work(finished: Run, tmp_path: Path, name: str) -> None:
    good = finished.root / "raw/home/images/test_0.png"
    with pytest.raises(PixelCAMError, match="is no file; give image files"):
        run_on([good, tmp_path / name], model=finished.pixelcam, output=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(("batch_size", "written"), [(1, ["test_0_map.npy", "test_0_overlay.png"]), (2, None)])
def test_an_unreadable_image_is_named_and_leaves_nothing_half_written(
    finished: Run, tmp_path: Path, batch_size: int, written: list[str] | None
) -> None:
    good, broken = finished.root / "raw/home/images/test_0.png", tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:200])
    with pytest.raises(PixelCAMError, match=r"broken\.png: "):
        run_on([good, broken], model=finished.pixelcam, output=tmp_path / "maps", batch_size=batch_size)
    maps = tmp_path / "maps"
    assert (sorted(path.name for path in maps.iterdir()) if maps.exists() else None) == written


def test_a_group_that_is_not_whole_does_not_appear(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    images = [*some_images(finished, 1), tmp_path / "broken.png"]
    with pytest.raises(PixelCAMError, match=r"broken\.png: "):
        run_on(
            images,
            model=finished.pixelcam,
            output=tmp_path / "maps",
            batch_size=1,
            map_format=MapFormat.ZARR,
            maps_only=True,
        )
    assert list((tmp_path / "maps").iterdir()) == []


def test_a_teacher_without_params_is_refused_with_a_hint(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"add --params params\.yaml, or give the folder of a PixelCAM model"):
        run_on(some_images(finished, 1), model=finished.teacher, output=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()
