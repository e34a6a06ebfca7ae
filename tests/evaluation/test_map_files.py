"""Maps from files and from Zarr: what each format's values mean, how maps get their names, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from pipeline.evaluation.map_files import files_by_stem, open_maps
from pipeline.params.errors import PixelCAMError

HEAT = np.array([[0.0, 0.25, 0.5], [0.75, 1.0, 0.125]], dtype=np.float32)


def write_array(
    path: Path, *, ids: list[str] | None, shape: tuple[int, ...] = (2, 2, 3), dtype: str = "float16"
) -> None:
    group = zarr.open_group(path, mode="w")
    array = group.create_array("cam", shape=shape, dtype=dtype)
    array[...] = 0.5 if dtype == "float16" else 0
    if ids is not None:
        group.attrs["image_ids"] = list(ids)


class TestFolder:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_numpy_maps_are_taken_as_they_are(self, tmp_path: Path, dtype: str) -> None:
        np.save(tmp_path / "a.npy", HEAT.astype(dtype))
        read = open_maps(tmp_path).read("a")
        assert read.dtype == np.float32
        assert read.tolist() == HEAT.tolist()

    def test_a_boolean_map_is_zero_and_one(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", HEAT > 0.3)
        assert open_maps(tmp_path).read("a").tolist() == [[0, 0, 1], [1, 1, 0]]

    @pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
    @pytest.mark.parametrize(("dtype", "maximum"), [(np.uint8, 255), (np.uint16, 65535)])
    def test_pictures_are_scaled_by_their_depth(self, tmp_path: Path, suffix: str, dtype: type, maximum: int) -> None:
        Image.fromarray(np.array([[0, 1, maximum]]).astype(dtype)).save(tmp_path / f"a.{suffix}")
        assert open_maps(tmp_path).read("a").tolist() == [[0.0, pytest.approx(1 / maximum), 1.0]]

    def test_floating_point_tiff(self, tmp_path: Path) -> None:
        Image.fromarray(HEAT).save(tmp_path / "a.tif")
        assert open_maps(tmp_path).read("a").tolist() == HEAT.tolist()

    def test_names_are_sorted_and_lack_their_suffix(self, tmp_path: Path) -> None:
        for name in ("b.npy", "a.1.npy"):
            np.save(tmp_path / name, HEAT)
        (tmp_path / "notes.txt").write_text("no map")
        (tmp_path / ".hidden.npy").write_text("no map")
        assert open_maps(tmp_path).names == ("a.1", "b")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (HEAT * 255, r"a\.npy: map values must lie in \[0, 1\], got 0\.0 to 255\.0; scale"),
            (-HEAT, "got -1.0 to"),
            (np.array([[np.nan, 0.5]]), "got nan to nan"),
            (HEAT[None], r"shape \(H, W\), got \(1, 2, 3\)"),
            (np.zeros((0, 3)), r"got \(0, 3\)"),
            (np.array([["a"]]), "expected numbers"),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path: Path, values: np.ndarray, message: str) -> None:
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(PixelCAMError, match=message):
            open_maps(tmp_path).read("a")

    def test_a_picture_in_colours_is_refused(self, tmp_path: Path) -> None:
        Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
        with pytest.raises(PixelCAMError, match=r"a\.png: expected one channel.*RGB.*colours"):
            open_maps(tmp_path).read("a")

    @pytest.mark.parametrize("name", ["a.npy", "a.png"])
    def test_a_broken_file_is_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"broken")
        with pytest.raises(PixelCAMError, match=rf"{name}: cannot be read"):
            open_maps(tmp_path).read("a")

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PixelCAMError, match=r"holds no file \(\.npy"):
            open_maps(tmp_path)

    def test_a_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PixelCAMError, match="is no folder"):
            open_maps(tmp_path / "none")

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path) -> None:
        for name in ("a.npy", "a.png"):
            (tmp_path / name).touch()
        with pytest.raises(PixelCAMError, match="two are called 'a'"):
            files_by_stem(tmp_path)


class TestZarr:
    def test_an_array_of_a_group_takes_its_names_from_there(self, tmp_path: Path) -> None:
        write_array(tmp_path / "s.zarr", ids=["images/b.png", "images/a.png"])
        zarr.open_array(tmp_path / "s.zarr/cam")[1] = 0.25
        maps = open_maps(tmp_path / "s.zarr/cam")
        assert maps.names == ("a", "b")
        assert maps.read("a").tolist() == [[0.25] * 3] * 2
        assert maps.read("b").dtype == np.float32

    def test_an_array_alone_may_have_names_of_its_own(self, tmp_path: Path) -> None:
        array = zarr.create_array(
            tmp_path / "a.zarr", shape=(1, 2, 2), dtype="float32", attributes={"image_ids": ["x"]}
        )
        array[...] = 1.0
        assert open_maps(tmp_path / "a.zarr").read("x").tolist() == [[1.0, 1.0]] * 2

    def test_a_group_is_refused(self, tmp_path: Path) -> None:
        write_array(tmp_path / "s.zarr", ids=["a", "b"])
        with pytest.raises(PixelCAMError, match="is a Zarr group"):
            open_maps(tmp_path / "s.zarr")

    def test_rows_without_names_are_refused(self, tmp_path: Path) -> None:
        write_array(tmp_path / "s.zarr", ids=None)
        with pytest.raises(PixelCAMError, match="image_ids"):
            open_maps(tmp_path / "s.zarr/cam")

    @pytest.mark.parametrize("shape", [(3, 2, 2), (2, 4)])
    def test_another_shape_is_refused(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        write_array(tmp_path / "s.zarr", ids=["a", "b"], shape=shape)
        with pytest.raises(PixelCAMError, match="expected 2 maps"):
            open_maps(tmp_path / "s.zarr/cam")

    def test_damaged_metadata_is_named(self, tmp_path: Path) -> None:
        write_array(tmp_path / "s.zarr", ids=["a", "b"])
        (tmp_path / "s.zarr/cam/zarr.json").write_text("{")
        with pytest.raises(PixelCAMError, match="cannot be opened as Zarr"):
            open_maps(tmp_path / "s.zarr/cam")

    def test_whole_numbers_have_a_scale(self, tmp_path: Path) -> None:
        write_array(tmp_path / "s.zarr", ids=["a", "b"], dtype="uint16")
        array = zarr.open_array(tmp_path / "s.zarr/cam")
        array.attrs["scale_factor"] = 1 / 65535
        array[0] = [[0, 1, 32768], [65535, 65534, 2]]
        expected = [[0, 1 / 65535, 32768 / 65535], [1, 65534 / 65535, 2 / 65535]]
        assert open_maps(tmp_path / "s.zarr/cam").read("a") == pytest.approx(np.array(expected), abs=1e-7)
        array.attrs["scale_factor"] = "1/65535"
        with pytest.raises(PixelCAMError, match=r"s\.zarr/cam, a: scale_factor must be a number, got '1/65535'"):
            open_maps(tmp_path / "s.zarr/cam").read("a")
        del array.attrs["scale_factor"]
        with pytest.raises(PixelCAMError, match=r"must lie in \[0, 1\], got 0 to 65535"):
            open_maps(tmp_path / "s.zarr/cam").read("a")


class TestGroup:
    def group(self, path: Path, ids: list[str]) -> "zarr.Group":
        group = zarr.open_group(path, mode="w", attributes={"image_ids": ids})
        for number, image_id in enumerate(ids, 1):
            group.create_array(image_id, data=np.full((number, 2), 1 / number, dtype=np.float32))
        return group

    def test_arrays_named_by_image_ids_may_differ_in_size(self, tmp_path: Path) -> None:
        self.group(tmp_path / "m.zarr", ["b.png", "a.1.tif"])
        maps = open_maps(tmp_path / "m.zarr")
        assert maps.names == ("a.1", "b")
        assert maps.read("b").tolist() == [[1, 1]]
        assert maps.read("a.1").tolist() == [[0.5, 0.5], [0.5, 0.5]]

    def test_what_it_lacks_or_what_is_damaged_is_named(self, tmp_path: Path) -> None:
        group = self.group(tmp_path / "m.zarr", ["a.png", "b.png", "c.png"])
        del group["b.png"]
        chunk = tmp_path / "m.zarr/c.png/c/0/0"
        chunk.write_bytes(chunk.read_bytes()[:9])
        maps = open_maps(tmp_path / "m.zarr")
        with pytest.raises(PixelCAMError, match=r"m\.zarr, b: image_ids names it, but there is no such array"):
            maps.read("b")
        with pytest.raises(PixelCAMError, match=r"m\.zarr, c: is damaged .*; write the maps again"):
            maps.read("c")

    def test_two_images_of_one_name_are_refused(self, tmp_path: Path) -> None:
        self.group(tmp_path / "m.zarr", ["a.png", "a.tif"])
        with pytest.raises(PixelCAMError, match="two are called 'a'"):
            open_maps(tmp_path / "m.zarr")
