"""Maps refined by edges: PAMR against loops over pixels, walks and votes by hand, and a store that says so."""

from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from tiny import Run, tiny_params
from torch import Tensor

from pipeline.data.manifest import read_domain
from pipeline.params.config import ExtractionParams
from pipeline.params.vocabulary import ForegroundRule, Refinement
from pipeline.pseudo_labels import refinement
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.refinement import pamr, refine_cams, vote, walk
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.report.overlays import describe_rule

METHODS = [method for method in Refinement if method is not Refinement.NONE]
# PAMR as published, the others as scikit-image advises.
STORED_PARAMETERS: dict[Refinement, dict[str, Any]] = {
    Refinement.PAMR: {"dilations": [1, 2, 4, 8, 12, 24], "iterations": 10, "sharpness": 0.1},
    Refinement.RANDOM_WALK: {"beta": 130.0},
    Refinement.SLIC: {"superpixels": 400, "compactness": 10.0},
}


def section(refine: Refinement) -> ExtractionParams:
    return ExtractionParams(
        batch_size=1,
        refine=refine,
        foreground_rule=ForegroundRule.THRESHOLD,
        foreground_threshold=0.9,
        foreground_fraction=0.2,
        background_fraction=0.2,
        erosion=0,
    )


def pamr_by_loops(cam: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = cam.shape
    moves = [(y * d, x * d) for d in (1, 2, 4, 8, 12, 24) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]

    def near(values: NDArray[np.float64], row: int, column: int) -> list[float]:
        """Return the neighbours' values; beyond the border those of the border."""
        at = [(min(max(row + y, 0), height - 1), min(max(column + x, 0), width - 1)) for y, x in moves]
        return [float(values[place]) for place in at]

    weights = {}
    for row in range(height):
        for column in range(width):
            scores = np.zeros(len(moves))
            for channel in image:
                values, own = near(channel, row, column), float(channel[row, column])
                spread = np.std([*values, own], ddof=1)
                scores -= np.array([abs(value - own) / (1e-8 + 0.1 * spread) for value in values])
            likeness = [exp(score / len(image)) for score in scores]
            weights[row, column] = np.array(likeness) / sum(likeness)
    for _ in range(10):
        cam = np.array([[weights[y, x] @ near(cam, y, x) for x in range(width)] for y in range(height)])
    return cam


def test_pamr_is_what_loops_over_pixels_give() -> None:
    generator = np.random.default_rng(0)
    cams, images = generator.random((2, 5, 6)), generator.random((2, 3, 5, 6))
    found = pamr(torch.from_numpy(cams).float(), torch.from_numpy(images).float())
    expected = np.stack([pamr_by_loops(cam, image) for cam, image in zip(cams, images, strict=True)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def halves(size: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image whose left third is dark, noise over it; a blurred map of that third; and where it is."""
    region = torch.zeros(size, size, dtype=torch.bool)
    region[:, : size // 3] = True
    noise = 0.05 * torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    image = torch.where(region, 0.2, 0.8).expand(3, -1, -1) + noise
    columns = torch.arange(size).float()
    cam = (1 - (columns - size / 6).abs() / size).clamp(0, 1).expand(size, -1)
    return cam.unsqueeze(0), image.unsqueeze(0), region


@pytest.mark.parametrize("method", METHODS)
def test_a_refined_map_ends_where_the_image_has_its_edge(method: Refinement) -> None:
    cam, image, region = halves()
    refined = refine_cams(cam, image, section(method))[0]

    def error(heat: Tensor) -> float:
        """Return the share of pixels on the wrong side of the best threshold."""
        return min(float(((heat >= threshold) != region).float().mean()) for threshold in np.linspace(0, 1, 101))

    blurred = cam[0] + 0.02 * torch.rand(cam[0].shape, generator=torch.Generator().manual_seed(1))
    assert refined.dtype == torch.float32
    assert (float(refined.min()), float(refined.max())) == (0, 1)
    assert error(refined) <= 0.02
    assert error(blurred) > error(refined)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_what_single_images_give(method: Refinement) -> None:
    cam, image, _ = halves(24)
    cams, images = torch.cat([cam, cam.flip(2) ** 2]), torch.cat([image, image.flip(3)])
    together = refine_cams(cams, images, section(method))
    alone = [refine_cams(cams[k : k + 1], images[k : k + 1], section(method))[0] for k in range(2)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_without_a_choice_a_map_comes_back_as_it_is() -> None:
    cam, image, _ = halves(24)
    assert refine_cams(cam, image, section(Refinement.NONE)) is cam


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_map_says_nothing_afterwards_either(method: Refinement) -> None:
    _, image, _ = halves(24)
    assert not refine_cams(torch.full((1, 24, 24), 0.5), image, section(method)).any()


def test_images_of_another_size_are_brought_to_that_of_the_maps() -> None:
    cam, image, _ = halves(24)
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="nearest-exact")
    small = torch.nn.functional.interpolate(large, size=(24, 24), mode="bilinear", antialias=True)
    found = refine_cams(cam, large, section(Refinement.PAMR))
    torch.testing.assert_close(found, refine_cams(cam, small, section(Refinement.PAMR)))


def test_a_walk_needs_a_label_of_each_kind() -> None:
    image, labels = np.full((6, 8, 3), 0.5, dtype=np.float32), np.full((6, 8), 255, dtype=np.uint8)
    image[:, ::2] += 1e-3
    assert walk(image, labels) is None
    labels[:, 0] = 1
    assert walk(image, labels) is None
    labels[:, -1] = 0
    chances = walk(image, labels)
    assert chances is not None
    # Each step is as hard as every other, so that the chance falls evenly from one side to the other.
    np.testing.assert_allclose(chances, np.tile(np.linspace(1, 0, 8), (6, 1)), atol=0.01)
    assert walk(image * 0, labels) is None


def test_a_walk_starts_from_the_labels_that_are_made_of_the_map_itself() -> None:
    cam, image, _ = halves(24)
    # The map is 1 - |column - 4| / 24: at least 0.9 within two columns of its peak, and a fifth lies lowest in five.
    labels = np.full((24, 24), 255, dtype=np.uint8)
    labels[:, 2:7] = 1
    labels[:, 19:] = 0
    chances = walk(image[0].permute(1, 2, 0).numpy(), labels)
    assert chances is not None
    expected = (chances - chances.min()) / np.ptp(chances)
    np.testing.assert_allclose(refine_cams(cam, image, section(Refinement.RANDOM_WALK))[0].numpy(), expected, atol=1e-5)


def test_superpixels_vote_by_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "SUPERPIXELS", 2)
    image = np.zeros((8, 16, 3), dtype=np.float32)
    image[:, 8:] = 1
    cam = np.arange(128, dtype=np.float32).reshape(8, 16)
    found = vote(image, cam)
    assert np.unique(found[:, :8]) == pytest.approx([cam[:, :8].mean()])
    assert np.unique(found[:, 8:]) == pytest.approx([cam[:, 8:].mean()])


@pytest.mark.parametrize("method", Refinement)
def test_a_store_says_how_its_maps_were_refined(method: Refinement, finished: Run, tmp_path: Path) -> None:
    params = tiny_params(finished.root / "raw", {"extract_pseudo_labels.refine": method.value})
    source = read_domain("home", params, finished.prepared / "home")
    extract_pseudo_labels(source, teacher=finished.teacher, params=params, output=tmp_path / "store")
    store, plain = PseudoLabelStore(tmp_path / "store"), PseudoLabelStore(finished.store)
    same = [np.array_equal(store.read(name).labels, plain.read(name).labels) for name in store.image_ids]
    attributes = dict(zarr.open_group(tmp_path / "store", mode="r").attrs)
    assert all(np.array_equal(store.read(name).cam, plain.read(name).cam) for name in store.image_ids)
    if method is Refinement.NONE:
        assert all(same)
        assert not {"refine", "refine_parameters"} & attributes.keys()
        assert "refined" not in describe_rule(attributes)
    else:
        assert not all(same)
        assert (attributes["refine"], attributes["refine_parameters"]) == (method.value, STORED_PARAMETERS[method])
        assert f"maps were refined by {method}" in describe_rule(attributes)
