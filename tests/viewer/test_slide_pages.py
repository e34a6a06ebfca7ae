"""Whole slides on the local page: tiles are the slide's pixels, maps lie over them, and no address leads elsewhere."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from local_page import ORIGIN, PORT, TOKEN, client_of
from slide_site import FOUND, LESION, SIZE, heat, picture, write_map, write_run
from starlette.testclient import TestClient

from pipeline.params.errors import PixelCAMError
from pipeline.viewer.app import create_app
from pipeline.viewer.site import Site
from pipeline.viewer.slide_pages import PACKAGE, SCRIPT
from pipeline.viewer.slide_sets import read_slide_sets
from pipeline.viewer.slide_tiles import Grid

A: dict[str, str | int] = {"in": "slides-home", "slide": "a"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        yield write_run(tmp_path_factory.mktemp("slides"), patch)


@pytest.fixture
def client(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The pages as they are where 'npm ci' was run, whether it was here or not."""
    script = tmp_path / "node_modules" / PACKAGE / SCRIPT
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.chdir(tmp_path)
    return client_of(Site(site.params, site.files))


def pixels(client: TestClient, path: str, **named: str | int) -> NDArray[np.uint8]:
    answer = client.get(path, params=A | named)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(BytesIO(answer.content)))


def shift_of(tile: NDArray[np.uint8], expected: NDArray[np.float64]) -> tuple[int, int]:
    """Return by how many pixels, down and to the right, a tile is off; JPEG changes values, but no places."""
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    off = {shift: float(abs(tile - np.roll(expected, shift, axis=(0, 1))).mean()) for shift in shifts}
    found = min(shifts, key=off.__getitem__)
    assert off[found] < 5
    return found


def test_tiles_by_hand() -> None:
    grid = Grid((1200, 700), 1)
    assert (grid.lowest, grid.highest) == (9, 11)  # 300 x 175, 600 x 350 and 1200 x 700
    assert grid.box((9, 0, 0)) == (0, 0, 300, 175)
    assert grid.box((11, 0, 0)) == (0, 0, 511, 511)
    assert grid.box((11, 1, 0)) == (509, 0, 1021, 511)
    assert grid.box((11, 2, 1)) == (1019, 509, 1200, 700)
    for part in ((8, 0, 0), (12, 0, 0), (11, 3, 0), (11, 0, 2), (9, 1, 0)):
        assert grid.box(part) is None


def test_a_tile_is_a_part_of_the_slide_at_its_resolution(client: TestClient) -> None:
    whole = picture().astype(float)
    near = pixels(client, "/api/slide/tile", level=11, x=1, y=0)
    assert near.shape == (511, 512, 3)
    assert shift_of(near, whole[:511, 509:1021]) == (0, 0)
    far = pixels(client, "/api/slide/tile", level=9, x=0, y=0)
    assert far.shape == (SIZE[1] // 4, SIZE[0] // 4, 3)
    assert shift_of(far, whole.reshape(256, 4, 288, 4, 3).mean(axis=(1, 3))) == (0, 0)
    again = pixels(client, "/api/slide/tile", level=9, x=0, y=0)  # from the cache
    assert (again == far).all()


def test_a_map_lies_over_the_slide_and_is_clear_where_nothing_was_found_or_looked_at(client: TestClient) -> None:
    tile = pixels(client, "/api/slide/heat", model="pixelcam", level=8, x=0, y=0)
    seen, sure = heat().seen, heat().values == 254
    assert tile.shape == (*seen.shape, 4)
    assert (tile[..., 3] == np.where(sure, 255, 0)).all()
    assert (tile[sure][:, :3] == (253, 231, 37)).all()
    page = client.get("/slide", params=A).text
    assert 'data-width="144" data-height="128" data-overlap="0" data-lowest="8" data-highest="8"' in page
    assert 'data-extent="1152.0"' in page


def test_outlines_are_those_of_the_files(client: TestClient) -> None:
    found = client.get("/api/slide/regions", params=A | {"model": "teacher"}).json()["shapes"]
    assert {tuple(point) for point in found[0][0]} == set(FOUND)
    drawn = client.get("/api/slide/annotation", params=A).json()["shapes"]
    assert {tuple(point) for point in drawn[0][0]} == set(LESION)
    assert client.get("/api/slide/annotation", params=A | {"slide": "b"}).json() == {"shapes": []}  # normal: none


@pytest.mark.parametrize(
    "changes",
    [
        {"slide": "../a"},
        {"slide": "a.tif"},
        {"slide": ""},
        {"in": "slides-other"},
        {"level": "12"},
        {"level": "-1"},
        {"level": "9" * 400},
        {"x": "99"},
        {"y": "1.0"},
        {"y": "٣"},
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, changes: dict[str, str | int]) -> None:
    answer = client.get("/api/slide/tile", params=A | {"level": "11", "x": "0", "y": "0"} | changes)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("there is no such")


def test_maps_that_are_not_there_are_not_found(client: TestClient) -> None:
    for what in ("heat", "regions", "overview"):
        for model in ("other", "../pixelcam", ""):
            address = f"/api/slide/{what}"
            assert client.get(address, params=A | {"model": model, "level": 8, "x": 0, "y": 0}).status_code == 404
        assert client.get(f"/api/slide/{what}", params=A | {"slide": "b", "model": "pixelcam"}).status_code == 404


def test_slides_are_for_those_who_have_the_token(site: Site) -> None:
    stranger = TestClient(create_app(Site(site.params, site.files), port=PORT, token=TOKEN), base_url=ORIGIN)
    for path in ("/slides/slides-home", "/slide", "/api/slide/tile", "/static/openseadragon.js"):
        assert stranger.get(path, params=A | {"level": 11, "x": 0, "y": 0}).status_code == 403


def test_a_page_says_what_is_known_of_slides(client: TestClient) -> None:
    many = client.get("/slides/slides-home").text
    assert "2 slides" in many
    assert pixels(client, "/api/slide/thumbnail").shape == (256, 288, 3)  # of the picture beside a map
    of_file = pixels(client, "/api/slide/thumbnail", slide="b")
    assert of_file.shape == (284, 320, 3)
    one = client.get("/slide", params=A).text
    assert "tumour, test, 1152 × 1024 pixels of 0.5 µm" in one
    assert "1 region above 0.375, 16.4 % of the tissue" in one
    assert 'data-box="264.0 240.0 336.0 336.0"' in one
    assert "No model has mapped this slide" in client.get("/slide", params=A | {"slide": "b"}).text


def test_what_is_lacking_is_said_with_the_remedy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = client_of(Site(site.params, site.files))
    assert "run &#39;npm ci&#39;" in client.get("/slide", params=A).text
    assert client.get("/static/openseadragon.js").status_code == 422
    moved = client_of(Site(site.params, replace(site.files, slide_files=None)))
    page = moved.get("/slide", params={"in": "mapped-slides", "slide": "a"}).text
    assert "name its folder with --slide-files" in page
    assert "/api/slide/overview" in page
    tile = moved.get("/api/slide/tile", params={"in": "mapped-slides", "slide": "a", "level": 11, "x": 0, "y": 0})
    assert (tile.status_code, "--slide-files" in tile.json()["error"]) == (422, True)


def test_another_file_than_was_mapped_is_not_shown(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes((site.params.domain("home").root / "b.tif").read_bytes())  # type: ignore[union-attr]
    client = client_of(Site(site.params, replace(site.files, slide_files=tmp_path)))
    tile = client.get("/api/slide/tile", params={"in": "mapped-slides", "slide": "a", "level": 11, "x": 0, "y": 0})
    assert tile.status_code == 422
    assert "a.tif: has changed" in tile.json()["error"]


def test_a_map_names_no_file_elsewhere_and_its_name_stays_text(site: Site, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    write_map(tmp_path / "maps" / hostile, model="pixelcam", sha256="0" * 64, slide="../secret.tif")
    shutil.copy(site.params.domain("home").root / "a.tif", tmp_path / "secret.tif")  # type: ignore[union-attr]
    (tmp_path / "files").mkdir()
    files = replace(site.files, slide_maps=tmp_path / "maps", slide_files=tmp_path / "files")
    (mapped,) = [each for each in read_slide_sets(site.params, files) if each.key == "mapped-slides"]
    assert [slide.file for slide in mapped.slides.values()] == [None]
    client = client_of(Site(site.params, files))
    for page in ("/slides/mapped-slides", "/slide"):
        text = client.get(page, params={"in": "mapped-slides", "slide": hostile}).text
        assert "&lt;img src=x onerror" in text
        assert hostile not in text


@pytest.mark.parametrize(
    "change", [{"width": -1}, {"mpp": "0.5"}, {"scores": {}}, {"model": {"map_of": 3}}, {"threshold": None}]
)
def test_a_damaged_description_is_named(site: Site, tmp_path: Path, change: dict[str, object]) -> None:
    write_map(tmp_path / "maps/a", model="pixelcam", sha256="0" * 64)
    path = tmp_path / "maps/a/slide.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(PixelCAMError, match=r"slide\.json: cannot be read .* map the slide again"):
        read_slide_sets(site.params, replace(site.files, slide_maps=tmp_path / "maps"))


def test_damaged_regions_are_named(site: Site, tmp_path: Path) -> None:
    write_map(tmp_path / "maps/a", model="pixelcam", sha256="0" * 64)
    (tmp_path / "maps/a/regions.geojson").write_text('{"features": [{"geometry": {"coordinates": [[[0, NaN]]]}}]}')
    client = client_of(Site(site.params, replace(site.files, slide_maps=tmp_path / "maps")))
    answer = client.get("/slide", params={"in": "mapped-slides", "slide": "a"})
    assert answer.status_code == 422
    assert "regions.geojson: cannot be read as regions" in answer.text
