import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from slide_files import square, write_asap

from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AnnotationRole
from pipeline.slides.annotations import Annotation, read_annotation
from pipeline.slides.masks import covered_shares, rasterize

GROUPS = {"Tumor": AnnotationRole.LESION, "_0": AnnotationRole.LESION, "_2": AnnotationRole.HOLE}


def read(path: Path, size: tuple[int, int] = (1000, 1000)) -> Annotation:
    return read_annotation(path, groups=GROUPS, size=size)


def write_geojson(path: Path, *features: tuple[str, dict[str, Any]]) -> Path:
    content = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
            for name, geometry in features
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def ring(*corners: tuple[float, float]) -> list[list[float]]:
    return [list(corner) for corner in (*corners, corners[0])]


def test_holes_are_cut_out_of_lesions(tmp_path: Path) -> None:
    path = write_asap(
        tmp_path / "a.xml",
        {"_0": [square(100, 100, 200)], "Tumor": [square(500, 500, 10)], "_2": [square(150, 150, 50)]},
    )
    annotation = read(path)
    assert annotation.lesions.area == 200**2 + 10**2 - 50**2
    assert len(annotation.lesions.geoms) == 2
    assert annotation.remarks == ()


def test_coordinates_come_in_their_order(tmp_path: Path) -> None:
    path = write_asap(tmp_path / "a.xml", {"_0": [square(0, 0, 10)]})
    text = path.read_text(encoding="utf-8")
    first, second = '<Coordinate Order="1" X="10" Y="0" />', '<Coordinate Order="2" X="10" Y="10" />'
    path.write_text(text.replace(first + second, second + first), encoding="utf-8")
    assert read(path).lesions.area == 100


def test_geojson_of_qupath_is_read_alike(tmp_path: Path) -> None:
    lesion = {"type": "Polygon", "coordinates": [ring(*square(100, 100, 200)), ring(*square(150, 150, 50))]}
    two = {"type": "MultiPolygon", "coordinates": [[ring(*square(500, 0, 10))], [ring(*square(600, 0, 10))]]}
    point = {"type": "Point", "coordinates": [3, 4]}
    path = write_geojson(tmp_path / "a.geojson", ("Tumor", lesion), ("Tumor", two), ("", point))
    assert read(path).lesions.area == 200**2 - 50**2 + 2 * 10**2


def test_a_group_that_nobody_explained_is_refused(tmp_path: Path) -> None:
    path = write_asap(tmp_path / "a.xml", {"Necrosis": [square(0, 0, 10)]})
    with pytest.raises(PixelCAMError, match=r"Annotation 0.*'Necrosis'.*annotation_groups"):
        read(path)


def test_an_annotation_of_another_slide_is_refused(tmp_path: Path) -> None:
    path = write_asap(tmp_path / "a.xml", {"_0": [square(0, 0, 10), square(5000, 100, 10)]})
    with pytest.raises(PixelCAMError, match="1 of 2 polygons lie off the slide of 1000x1000"):
        read(path)


def test_what_reaches_beyond_the_slide_is_cut_and_said(tmp_path: Path) -> None:
    annotation = read(write_asap(tmp_path / "a.xml", {"_0": [square(990, 0, 20)]}))
    assert annotation.lesions.area == 10 * 20
    assert "reaches beyond the slide" in annotation.remarks[0]


def test_a_polygon_that_crosses_itself_is_mended_and_said(tmp_path: Path) -> None:
    bow = [(0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)]
    annotation = read(write_asap(tmp_path / "a.xml", {"_0": [bow]}))
    assert annotation.lesions.is_valid
    assert annotation.lesions.area == 50
    assert "crosses itself and is mended" in annotation.remarks[0]


def test_an_open_ring_is_closed(tmp_path: Path) -> None:
    geometry = {"type": "Polygon", "coordinates": [[list(corner) for corner in square(0, 0, 10)]]}
    assert read(write_geojson(tmp_path / "a.geojson", ("Tumor", geometry))).lesions.area == 100


def test_two_corners_are_no_area(tmp_path: Path) -> None:
    annotation = read(write_asap(tmp_path / "a.xml", {"_0": [[(0, 0), (5, 5)], square(0, 0, 10)]}))
    assert annotation.lesions.area == 100
    assert "fewer than three corners" in annotation.remarks[0]


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><ASAP_Annotations>&b;</ASAP_Annotations>'


@pytest.mark.parametrize("text", [BOMB, EXTERNAL])
def test_entities_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match="may be an attack"):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xml", "<a>", "is no XML"),
        ("a.xml", "<a></a>", "expected ASAP_Annotations"),
        ("a.xml", "", "is no XML"),
        ("a.geojson", "{", "is no GeoJSON"),
        ("a.geojson", "3", "is no GeoJSON"),
        ("a.geojson", '{"features": [{}]}', "is no GeoJSON"),
        (
            "a.geojson",
            '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[["x", 1]]]}}]}',
            "is no GeoJSON",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=said):
        read(path)


def test_corners_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    path = write_asap(tmp_path / "a.xml", {"_0": [square(0, 0, 10)]})
    text = path.read_text(encoding="utf-8")
    for value in ("ten", "nan"):
        path.write_text(text.replace('X="10"', f'X="{value}"'), encoding="utf-8")
        with pytest.raises(PixelCAMError, match="Annotation 0"):
            read(path)


def test_a_missing_annotation_is_named(tmp_path: Path) -> None:
    for name in ("a.xml", "a.geojson"):
        with pytest.raises(PixelCAMError, match="cannot be read"):
            read(tmp_path / name)


def test_pixels_are_in_a_lesion_where_their_centre_is() -> None:
    lesions = shapely.MultiPolygon([shapely.Polygon(square(10, 20, 8), [square(12, 22, 2)])])
    mask = rasterize(lesions, corner=(8, 16), size=(12, 14), downsample=1.0)
    expected = np.zeros((14, 12), dtype=np.bool_)
    expected[4:12, 2:10] = True
    expected[6:8, 4:6] = False
    assert np.array_equal(mask, expected)
    coarse = rasterize(lesions, corner=(8, 16), size=(6, 7), downsample=2.0)
    assert coarse.sum() * 4 == 64 - 4


def test_an_island_in_a_hole_is_kept() -> None:
    around = shapely.Polygon(square(0, 0, 30), [square(5, 5, 20)])
    island = shapely.Polygon(square(10, 10, 5))
    for order in ([around, island], [island, around]):
        mask = rasterize(shapely.MultiPolygon(order), corner=(0, 0), size=(30, 30), downsample=1.0)
        assert mask.sum() == 900 - 400 + 25
        assert mask[12, 12]


def test_a_part_within_a_lesion_is_all_lesion() -> None:
    lesions = shapely.MultiPolygon([shapely.Polygon(square(0, 0, 1000))])
    assert rasterize(lesions, corner=(300, 300), size=(20, 20), downsample=3.0).all()
    assert not rasterize(lesions, corner=(2000, 300), size=(20, 20), downsample=3.0).any()


def test_shares_of_squares_are_exact() -> None:
    lesions = shapely.MultiPolygon([shapely.Polygon(square(0, 0, 15)), shapely.Polygon(square(100, 100, 5))])
    corners = np.array([[0, 0], [10, 0], [10, 10], [20, 20], [95, 95]])
    assert covered_shares(lesions, corners, side=10).tolist() == [1.0, 0.5, 0.25, 0.0, 0.25]
    assert covered_shares(shapely.MultiPolygon(), corners, side=10).tolist() == [0.0] * 5
