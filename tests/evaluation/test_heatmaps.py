"""Maps as files: 16 bits lose no more than half a step, and what cannot be written is refused before it is tried."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from pipeline.evaluation.map_files import quantize, writing_maps
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import MapFormat

HEAT = np.array([[0, 1, 0.5], [1 / 65535, 0.4 / 65535, 0.6 / 65535]], dtype=np.float32)
STEPS = [[0, 65535, 32768], [1, 0, 1]]  # 32767.5 is rounded to even


def test_values_are_rounded_to_the_nearest_of_65536_steps() -> None:
    assert quantize(HEAT).tolist() == STEPS
    many = np.random.default_rng(0).random((200, 200), dtype=np.float32)
    assert np.abs(quantize(many) / 65535 - many).max() <= 0.5 / 65535 + 1e-7


def test_a_picture_has_16_bits_of_grey(tmp_path: Path) -> None:
    with writing_maps(tmp_path, MapFormat.PNG, image_ids=["a.tif"], ending="_map", attributes={}) as write:
        path = write("a.tif", HEAT, {})
    assert path == tmp_path / "a_map.png"
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
        assert np.asarray(picture).tolist() == STEPS


def test_a_group_holds_arrays_of_their_own_size_by_the_name_of_the_file(tmp_path: Path) -> None:
    names = ["zarr.json.png", "007", "b c.tif"]
    attributes = {"map_of": "pixelcam"}
    with writing_maps(tmp_path, MapFormat.ZARR, image_ids=names, ending="", attributes=attributes) as write:
        paths = [write(name, HEAT[:, : number + 1], {"number": number}) for number, name in enumerate(names)]
        assert not (tmp_path / "heatmaps.zarr").exists()
    group = zarr.open_group(tmp_path / "heatmaps.zarr", mode="r")
    assert dict(group.attrs) == {"map_of": "pixelcam", "image_ids": names}
    for number, (name, path) in enumerate(zip(names, paths, strict=True)):
        array = zarr.open_array(path, mode="r")
        assert np.asarray(array[...]).tolist() == [row[: number + 1] for row in STEPS]
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names == ("y", "x")
        assert dict(array.attrs) == {"number": number, "scale_factor": 1 / 65535}
        assert path.name == name


def test_a_name_that_zarr_keeps_for_itself_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(PixelCAMError, match=r"__a\.png: Zarr keeps names with __ for itself; rename the image"),
        writing_maps(tmp_path, MapFormat.ZARR, image_ids=["__a.png"], ending="", attributes={}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
