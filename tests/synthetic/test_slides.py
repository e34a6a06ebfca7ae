"""Rendered slides: the same on every call, annotated as painted, and with metastases that only their texture tells."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
from scipy import ndimage
from skimage.draw import polygon
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.synthetic.frame import FloatMap
from pipeline.synthetic.slide_plan import MPP, STEP, SlidePlan, plan_slide
from pipeline.synthetic.slides import render_slide

SIZE = 2048
SMALL = 640
INSIDE = 15.0  # micrometres from an outline


@dataclass(frozen=True, eq=False)
class Rendered:
    path: Path
    image: npt.NDArray[np.uint8]  # (SIZE, SIZE, 3)
    plan: SlidePlan

    def at_pixels(self, values: FloatMap) -> FloatMap:
        """Return a map of the plan at every pixel."""
        axis = (np.arange(SIZE) + 0.5) / STEP
        return ndimage.map_coordinates(values, np.meshgrid(axis, axis, indexing="ij"), order=1, output=np.float32)


def rendered(folder: Path, *, metastatic: bool) -> Rendered:
    path = folder / f"{metastatic}.tif"
    render_slide(path, path.with_suffix(".xml"), size=SIZE, metastatic=metastatic, seed=0, index=0)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.dimensions == (SIZE, SIZE)
        assert slide.level_downsamples == (1, 4, 16)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    return Rendered(path, image, plan_slide(size=SIZE, metastatic=metastatic, seed=0, index=0))


@pytest.fixture(scope="module")
def tumour(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return rendered(tmp_path_factory.mktemp("tumour"), metastatic=True)


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return rendered(tmp_path_factory.mktemp("normal"), metastatic=False)


def polygons(path: Path, group: str) -> list[npt.NDArray[np.float64]]:
    """Return the corners of a group's polygons, x and y."""
    annotations = ET.parse(path.with_suffix(".xml")).getroot().iter("Annotation")
    return [
        np.array([(float(corner.attrib["X"]), float(corner.attrib["Y"])) for corner in annotation.iter("Coordinate")])
        for annotation in annotations
        if annotation.get("PartOfGroup") == group
    ]


def rasterized(rings: list[npt.NDArray[np.float64]], size: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((size, size), dtype=bool)
    for ring in rings:
        mask[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, mask.shape)] = True  # type: ignore[no-untyped-call]
    return mask


def test_annotation_agrees_with_what_is_painted(tumour: Rendered) -> None:
    lesions, holes = polygons(tumour.path, "_0"), polygons(tumour.path, "_2")
    assert 1 <= len(lesions) <= 6
    assert len(holes) == 1
    corners = np.concatenate(lesions + holes)
    assert corners.min() >= 0
    assert corners.max() <= SIZE
    assert max(map(len, lesions)) < 400
    outer, spared = rasterized(lesions, SIZE), rasterized(holes, SIZE)
    assert (outer & spared).sum() == spared.sum() > 0
    marked, painted = outer & ~spared, tumour.at_pixels(tumour.plan.lesion) > 0
    assert (marked & painted).sum() / (marked | painted).sum() >= 0.97
    assert (tumour.at_pixels(tumour.plan.tissue)[painted] > 0).all()
    assert (tumour.at_pixels(tumour.plan.fat)[painted] < 0).all()


def test_a_normal_slide_has_no_lesion(normal: Rendered, tumour: Rendered) -> None:
    assert polygons(normal.path, "_0") == polygons(normal.path, "_2") == []
    assert (normal.plan.lesion < 0).all()
    assert (normal.image != tumour.image).any()


@pytest.mark.parametrize("metastatic", [False, True])
def test_glass_is_bright_and_tissue_is_dark_and_coloured(
    tumour: Rendered, normal: Rendered, *, metastatic: bool
) -> None:
    slide = tumour if metastatic else normal
    values = slide.image.astype(np.float64)
    saturation = np.ptp(values, axis=-1) / values.max(axis=-1)
    tissue, fat = slide.at_pixels(slide.plan.tissue), slide.at_pixels(slide.plan.fat)
    ink = slide.at_pixels(slide.plan.ink)
    glass, node = (tissue < -INSIDE) & (ink < -INSIDE), (tissue > INSIDE) & (fat < -INSIDE)
    assert values[glass].mean() > 225
    assert saturation[glass].mean() < 0.1
    assert values[node].mean() < 175
    assert saturation[node].mean() > 0.25
    assert values[fat > INSIDE].mean() > values[node].mean() + 30
    drawn = (ink > INSIDE) & (tissue < -INSIDE)
    assert drawn.any()
    assert values[drawn].mean() < 130


def described(image: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return, for squares of 64 pixels that are all chosen, the spread of red at several scales: no mean of colour."""
    red = image[..., 0].astype(np.float64)  # haematoxylin takes the red light
    smooth = [red, *(ndimage.gaussian_filter(red, sigma) for sigma in (1.0, 2.0, 3.0, 4.5, 7.0))]
    bands = [fine - coarse for fine, coarse in pairwise(smooth)]
    squares = [band.reshape(SIZE // 64, 64, SIZE // 64, 64).std(axis=(1, 3)) for band in bands]
    whole = chosen.reshape(SIZE // 64, 64, SIZE // 64, 64).all(axis=(1, 3))
    return np.asarray(np.log(np.stack(squares, axis=-1)[whole]), dtype=np.float64)


def test_texture_tells_metastases_and_colour_hardly_does(tumour: Rendered) -> None:
    tissue, fat = tumour.at_pixels(tumour.plan.tissue), tumour.at_pixels(tumour.plan.fat)
    lesion = tumour.at_pixels(tumour.plan.lesion)
    ill, healthy = lesion > 0, (lesion < -INSIDE) & (tissue > INSIDE) & (fat < -INSIDE)
    features = [described(tumour.image, where) for where in (ill, healthy)]
    target = np.repeat([1, 0], [len(part) for part in features])
    assert min(map(len, features)) >= 20
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(classifier, np.concatenate(features), target, cv=5, method="predict_proba")[:, 1]
    assert roc_auc_score(target, scores) > 0.9
    colours = [tumour.image[where].mean(axis=0) for where in (ill, healthy)]
    assert np.abs(colours[0] - colours[1]).max() < 25


def test_same_arguments_give_the_same_bytes_in_more_threads_too_and_others_give_others(tmp_path: Path) -> None:
    one, same, seed, index = (tmp_path / name for name in ("one.tif", "same.tif", "seed.tif", "index.tif"))
    render_slide(one, one.with_suffix(".xml"), size=SMALL, metastatic=True, seed=0, index=0)
    with threadpool_limits(2):
        render_slide(same, same.with_suffix(".xml"), size=SMALL, metastatic=True, seed=0, index=0)
    render_slide(seed, None, size=SMALL, metastatic=True, seed=1, index=0)
    render_slide(index, None, size=SMALL, metastatic=True, seed=0, index=1)
    assert one.read_bytes() == same.read_bytes()
    assert one.with_suffix(".xml").read_bytes() == same.with_suffix(".xml").read_bytes()
    assert len({path.read_bytes() for path in (one, seed, index)}) == 3
    assert len(list(tmp_path.iterdir())) == 6, "no annotation where none is asked for, and nothing left over"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1024, 2500])
def test_what_is_drawn_has_its_place(size: int, seed: int) -> None:
    plan = plan_slide(size=size, metastatic=True, seed=seed, index=0)
    nodes = -(-size // STEP)
    tissue = plan.tissue[:nodes, :nodes] > 0
    assert 0.25 < tissue.mean() < 0.40
    assert not np.concatenate([tissue[[0, -1]].ravel(), tissue[:, [0, -1]].ravel()]).any()
    assert (plan.tissue[plan.lesion > 0] > 0).all()
    assert (plan.ink > 0).mean() > 0.005
    assert ((plan.fold > 0) & (plan.tissue > 0)).any()
    assert 2 <= len(plan.lesions) <= 6
    assert len(plan.holes) == 1
    lengths = [MPP * np.hypot(*np.ptp(ring, axis=0)) for ring in plan.lesions]
    assert lengths[0] == max(lengths)
    assert min(lengths) < 200
