"""GeoJSON: by the rules of RFC 7946 and by what QuPath reads of it."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AnnotationRole
from pipeline.slides.annotations import read_annotation
from pipeline.slides.geojson import write_geojson
from pipeline.slides.heat import Heat
from pipeline.slides.regions import Region, find_regions

COLOUR = (213, 94, 0)
RING_IN_RING = np.pad(np.pad(np.pad(np.ones((3, 3), dtype=np.bool_), 2), 1, constant_values=True), 1)
RING_IN_RING[5, 5] = False


def regions_of(mask: NDArray[np.bool_], *, stride: float = 16.3, smallest_mm2: float = 0) -> list[Region]:
    heat = Heat(np.where(mask, 201, 3).astype(np.uint8), stride, 0.25)
    return find_regions(heat, threshold=0.5, smallest_mm2=smallest_mm2)


def write(path: Path, regions: list[Region]) -> list[dict[str, Any]]:
    """Write regions and return the features, after a look at what all files must be."""
    write_geojson(path, regions, name="tumour", colour=COLOUR)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = content["features"]
    assert len(features) == len(regions)
    for feature in features:
        check_rules(feature)
    ids = [feature["id"] for feature in features]
    assert len(set(ids)) == len(ids)
    return features


def check_rules(feature: dict[str, Any]) -> None:
    """Hold a feature against RFC 7946, sections 3.1.6 and 3.2, with an area of its own."""
    assert feature["type"] == "Feature"
    geometry = feature["geometry"]
    assert geometry["type"] == "Polygon"
    for number, ring in enumerate(geometry["coordinates"]):
        assert len(ring) >= 4
        assert ring[0] == ring[-1]
        assert all(len(position) == 2 for position in ring)
        (x, y), (next_x, next_y) = np.transpose(ring[:-1]), np.transpose(ring[1:])
        assert (np.sum(x * next_y - next_x * y) > 0) == (number == 0), "the outline counter-clockwise, holes not"
    assert shapely.is_valid(shapely.geometry.shape(geometry))


@pytest.mark.parametrize(
    ("mask", "rings"),
    [
        (np.zeros((3, 4), dtype=np.bool_), []),
        (np.ones((3, 4), dtype=np.bool_), [1]),
        (np.ones((1, 1), dtype=np.bool_), [1]),
        (np.eye(5, dtype=np.bool_), [1]),
        (~np.eye(5, dtype=np.bool_), [4]),
        (RING_IN_RING, [2, 2]),
    ],
    ids=["nothing", "everything", "one pixel", "touching corners", "touching holes", "a ring within a ring"],
)
def test_it_is_geojson(tmp_path: Path, mask: NDArray[np.bool_], rings: list[int]) -> None:
    features = write(tmp_path / "a.geojson", regions_of(mask))
    assert [len(feature["geometry"]["coordinates"]) for feature in features] == rings


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.sampled_from([1.0, 16.0, 33.127]))
def test_so_it_is_for_any_mask(
    tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.bool_], stride: float
) -> None:
    write(tmp_path_factory.mktemp("any") / "a.geojson", regions_of(mask, stride=stride))


def test_qupath_finds_class_colour_and_measurements(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[3:6, 4:9] = True
    (feature,) = write(tmp_path / "a.geojson", regions_of(mask, stride=16))
    assert UUID(feature["id"]).version == 5
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "tumour", "color": [213, 94, 0]},
        "measurements": {
            "area mm2": 0.00024,
            "mean probability": round(201 / 254, 6),
            "maximum probability": round(201 / 254, 6),
            "diameter mm": round(float(np.hypot(5, 2)) * 4e-3, 6),
        },
    }
    assert shapely.geometry.shape(feature["geometry"]).bounds == (64, 48, 144, 96)


def test_it_is_read_as_an_annotation(tmp_path: Path) -> None:
    regions = regions_of(RING_IN_RING)
    write(tmp_path / "a.geojson", regions)
    read = read_annotation(tmp_path / "a.geojson", groups={"tumour": AnnotationRole.LESION}, size=(1000, 1000))
    assert read.remarks == ()
    whole = shapely.union_all([region.polygon for region in regions])
    assert shapely.symmetric_difference(read.lesions, whole).area < 1e-3 * whole.area


def test_the_same_regions_make_the_same_bytes(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((60, 60)) < 0.4
    for name in ("a", "b"):
        write(tmp_path / f"{name}.geojson", regions_of(mask))
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write(path, regions_of(np.ones((3, 3), dtype=np.bool_)))
    before = path.read_bytes()
    (region,) = regions_of(np.ones((2, 2), dtype=np.bool_))
    broken = Region(**{**vars(region), "mean": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_geojson(path, [region, broken], name="tumour", colour=COLOUR)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").mkdir()
    with pytest.raises(PixelCAMError, match=r"a\.geojson: cannot be written"):
        write_geojson(tmp_path / "a.geojson", [], name="tumour", colour=COLOUR)
