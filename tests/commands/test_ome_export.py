"""OME-Zarr: what its own reader and its own model of the metadata find, and what is refused before anything appears."""

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Node, Reader
from PIL import Image
from tiny import Run, digests, make_row

from pipeline.commands.ome_export import export_ome, spread
from pipeline.data.images import read_image
from pipeline.data.manifest import Manifest, PreparedDomain, read_domain
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage, write_store


def home(run: Run) -> PreparedDomain:
    return read_domain("home", load_params(run.params), run.prepared / "home")


def nodes_of(path: Path) -> list[Node]:
    """Return what ome-zarr finds there, groups without pixels of their own left out."""
    location = parse_url(str(path))
    assert location is not None
    return [node for node in Reader(location)() if node.data]


def check_metadata(path: Path) -> None:
    """Hold a group against the specification; a warning counts as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))
    assert found.ome_zarr_version == "0.5"


def large_store(folder: Path) -> tuple[PseudoLabelStore, PreparedDomain]:
    """Return the store of one image of 600 x 1100 pixels, left half red, and labels 0, 1, 255 in thirds from above."""
    image = np.zeros((600, 1100, 3), dtype=np.uint8)
    image[:, :550] = (255, 0, 0)
    Image.fromarray(image).save(folder / "large.png")
    labels = np.repeat(np.array([0, 1, 255], dtype=np.uint8), 20)[:, None].repeat(60, axis=1)
    cam = np.array([[0, 1], [0, 1]], dtype=np.float16)
    write_store(
        folder / "store.zarr",
        [StoredImage(labels, cam, 0)],
        image_count=1,
        label_size=(60, 60),
        cam_size=(2, 2),
        attributes={"image_ids": ["large.png"], "cam_method": "layercam"},
    )
    row = make_row("large.png", root=folder, width=1100, height=600)
    return PseudoLabelStore(folder / "store.zarr"), PreparedDomain("big", ("benign",), None, Manifest((row,), folder))


@pytest.fixture(scope="module")
def exported(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("ome") / "out"
    export_ome(PseudoLabelStore(finished.store), output, source=home(finished))
    return output


def test_the_reader_finds_image_and_labels_of_one_size(finished: Run, exported: Path) -> None:
    store = PseudoLabelStore(finished.store)
    assert len(store) == 6
    for image_id in store.image_ids:
        image, labels = nodes_of(exported / f"{image_id}.ome.zarr")
        expected = read_image(finished.root / "raw/home" / image_id)
        assert np.asarray(image.data[0]).tolist() == np.moveaxis(expected, -1, 0).tolist()
        assert image.metadata["name"] == image_id
        assert image.metadata["channel_names"] == ["red", "green", "blue"]
        found: NDArray[np.uint8] = np.asarray(labels.data[0])
        assert found.shape == expected.shape[:2] == (60, 72)
        stored = store.read(image_id).labels  # (64, 64)
        for y, x in ((0, 0), (17, 40), (30, 36), (59, 71)):
            assert found[y, x] == stored[int((y + 0.5) * 64 / 60), int((x + 0.5) * 64 / 72)]
        shares = [[(values == value).mean() for value in (0, 1, 255)] for values in (found, stored)]
        assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_the_reader_finds_the_meaning_of_labels_and_ignored_ones_transparent(exported: Path) -> None:
    _, labels = nodes_of(exported / "images/train_0.png.ome.zarr")
    assert labels.metadata["name"] == "pseudo_labels"
    assert labels.metadata["properties"] == {
        0: {"name": "background"},
        1: {"name": "foreground"},
        255: {"name": "ignore"},
    }
    alpha = {value: colour[3] for value, colour in labels.metadata["color"].items()}
    assert alpha[255] == 0
    assert min(alpha[0], alpha[1]) > 0.5
    assert labels.metadata["color"][0] != labels.metadata["color"][1]


def test_the_cam_lies_beside_the_image_at_its_size(finished: Run, exported: Path) -> None:
    (node,) = nodes_of(exported / "images/train_0.png.cam.ome.zarr")
    found: NDArray[np.float32] = np.asarray(node.data[0])
    assert found.shape == (1, 60, 72)
    assert found.dtype == np.float32
    assert node.metadata["contrast_limits"] == [[0, 1]]
    stored = PseudoLabelStore(finished.store).read("images/train_0.png").cam.astype(np.float32)
    assert 0 <= found.min() < found.max() <= stored.max()
    assert found.mean() == pytest.approx(stored.mean(), abs=0.02)


@pytest.mark.parametrize("ending", ["ome.zarr", "cam.ome.zarr"])
def test_the_metadata_is_that_of_the_specification(exported: Path, ending: str) -> None:
    path = exported / f"images/train_0.png.{ending}"
    check_metadata(path)
    about: Mapping[str, Any] = dict(zarr.open_group(path, mode="r").attrs)["pixelcam"]  # type: ignore[assignment]
    assert (about["image_id"], about["class"], about["cam_method"]) == ("images/train_0.png", "benign", "layercam")
    assert "image_ids" not in about


def test_a_large_image_has_smaller_levels_that_lie_where_it_lies(tmp_path: Path) -> None:
    store, source = large_store(tmp_path)
    export_ome(store, tmp_path / "out", source=source)
    for ending in ("ome.zarr", "cam.ome.zarr"):
        check_metadata(tmp_path / f"out/large.png.{ending}")
    image, labels = nodes_of(tmp_path / "out/large.png.ome.zarr")
    assert [level.shape for level in image.data] == [(3, 600, 1100), (3, 300, 550), (3, 150, 275)]
    assert [level.shape for level in labels.data] == [(600, 1100), (300, 550), (150, 275)]
    assert labels.metadata["coordinateTransformations"] == [
        [{"type": "scale", "scale": [1, 1]}],
        [{"type": "scale", "scale": [2, 2]}, {"type": "translation", "translation": [0.5, 0.5]}],
        [{"type": "scale", "scale": [4, 4]}, {"type": "translation", "translation": [1.5, 1.5]}],
    ]
    for level in image.data:
        red: NDArray[np.uint8] = np.asarray(level)[0]
        assert red[:, : red.shape[1] // 2].tolist() == np.full((len(red), red.shape[1] // 2), 255).tolist()
    for level in labels.data:
        thirds: NDArray[np.uint8] = np.asarray(level)
        height = len(thirds) // 3
        assert [set(thirds[row * height : (row + 1) * height].ravel().tolist()) for row in range(3)] == [
            {0},
            {1},
            {255},
        ]
    (cam,) = nodes_of(tmp_path / "out/large.png.cam.ome.zarr")
    assert [float(np.asarray(level)[0, 0, level.shape[2] // 4]) for level in cam.data] == pytest.approx(
        [0] * 3, abs=0.01
    )


def test_exporting_twice_gives_the_same_files(finished: Run, exported: Path, tmp_path: Path) -> None:
    image_id = "images/train_3.png"
    done = export_ome(PseudoLabelStore(finished.store), tmp_path / "a", source=home(finished), image_ids=[image_id] * 2)
    assert done == (image_id,)
    again = digests(tmp_path / "a")
    assert again == {name: digest for name, digest in digests(exported).items() if name.startswith(image_id)}
    assert {name.split("/")[1] for name in again} == {"train_3.png.ome.zarr", "train_3.png.cam.ome.zarr"}


def test_a_few_are_spread_over_the_store() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert spread(names, 3) == ("a", "c", "e")
    assert spread(names, 1) == ("a",)
    assert spread(names, 9) == tuple(names)


class TestRefusals:
    def refused(self, finished: Run, output: Path, message: str, **changes: Any) -> None:  # noqa: ANN401 - arguments
        arguments = {"source": home(finished), **changes}
        store = arguments.pop("store", None) or PseudoLabelStore(finished.store)
        with pytest.raises(PixelCAMError, match=message):
            export_ome(store, output, **arguments)
        assert not [path for path in output.parent.iterdir() if output.name in path.name]

    def test_an_output_that_exists_stays(self, finished: Run, exported: Path) -> None:
        before = digests(exported)
        with pytest.raises(PixelCAMError, match="exists already; remove it, or name"):
            export_ome(PseudoLabelStore(finished.store), exported, source=home(finished))
        assert digests(exported) == before

    def test_an_unknown_image_is_named(self, finished: Run, tmp_path: Path) -> None:
        self.refused(finished, tmp_path / "out", "holds no image 'x.png'; its names are like", image_ids=["x.png"])

    def test_a_store_of_another_domain_is_refused(self, finished: Run, tmp_path: Path) -> None:
        away = read_domain("away", load_params(finished.params), finished.prepared / "away")
        self.refused(finished, tmp_path / "out", r"'images/train_0\.png' is not in the manifest of 'away'", source=away)

    def test_a_damaged_store_is_refused(self, finished: Run, tmp_path: Path) -> None:
        store = tmp_path / "store.zarr"
        shutil.copytree(finished.store, store)
        shutil.rmtree(store / "labels/c")
        message = r"store\.zarr: 'images/train_0\.png' has .* were written"
        self.refused(finished, tmp_path / "out", message, store=PseudoLabelStore(store))

    def test_an_image_that_has_changed_is_refused(self, finished: Run, tmp_path: Path) -> None:
        source = home(finished)
        rows = tuple(replace(row, image_sha256="0" * 64) for row in source.manifest.rows)
        source = replace(source, manifest=replace(source.manifest, rows=rows))
        self.refused(finished, tmp_path / "out", r"train_0\.png: has changed since it was prepared", source=source)
