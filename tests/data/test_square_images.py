"""Images as squares: what is kept in memory equals what is read from disk, and a changed file is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import noise_images, write_images

from pipeline.data import image_store
from pipeline.data.image_store import SquareImages, SquareReader, squash
from pipeline.data.manifest import Manifest
from pipeline.data.pixels import check_unchanged
from pipeline.params.errors import PixelCAMError


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of prepared images."""
    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def keep_on_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(image_store, "KEPT_BYTES", 0)


def test_memory_disk_and_files_give_the_same(tmp_path: Path, keep_on_disk: Callable[[], None]) -> None:
    manifest = write_images(tmp_path, noise_images(5, size=9))
    in_memory = SquareImages(manifest, size=6)
    keep_on_disk()
    on_disk, reader = SquareImages(manifest, size=6), SquareReader(manifest, size=6)
    assert len(in_memory) == len(on_disk) == len(reader) == 5
    for index in range(5):
        expected = reader[index]
        (tmp_path / f"{index}.png").unlink()  # is needed no more
        for images in (in_memory, on_disk):
            assert images[index].shape == (6, 6, 3)
            assert images[index].dtype == np.uint8
            assert np.array_equal(images[index], expected)


def test_the_limit_counts_the_bytes_of_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stores: Path
) -> None:
    manifest = write_images(tmp_path, noise_images(2))
    for limit, on_disk in ((2 * 4 * 4 * 3, False), (2 * 4 * 4 * 3 - 1, True)):
        monkeypatch.setattr(image_store, "KEPT_BYTES", limit)
        SquareImages(manifest, size=4)
        assert stores.exists() is on_disk


def test_of_images_in_memory_those_that_are_wanted_are_read(tmp_path: Path) -> None:
    images = noise_images(4)
    manifest = write_images(tmp_path, images)
    (tmp_path / "1.png").unlink()
    some = SquareImages(manifest, size=8, only=[3, 0])
    assert len(some) == 4
    assert all(np.array_equal(some[index], images[index]) for index in (0, 3))


def test_images_stand_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    images = noise_images(20, size=4)
    manifest = write_images(tmp_path, images)
    turned = SquareImages(Manifest(manifest.rows[::-1], tmp_path), size=4)
    assert all(np.array_equal(turned[19 - index], image) for index, image in enumerate(images))


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = noise_images(1, size=5)[0]
    assert squash(image, 5) is image


def test_a_wide_image_is_squashed_not_cropped() -> None:
    # 2x6: the left, middle and right thirds are 10, 20, 30 in both rows.
    wide = np.repeat(np.array([[10, 10, 20, 20, 30, 30]] * 2, dtype=np.uint8)[..., None], 3, axis=2)
    square = squash(wide, 3)
    assert square.shape == (3, 3, 3)
    assert (square[:, 1] == 20).all()
    assert (square[:, 0] < 15).all()
    assert (square[:, 2] > 25).all()
    assert np.array_equal(squash(wide.transpose(1, 0, 2), 3), square.transpose(1, 0, 2))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert abs(squash(stripes, 8).astype(int) - 100).max() <= 5


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_changed_file_stops_the_reading_of_all(
    tmp_path: Path, on_disk: bool, keep_on_disk: Callable[[], None], stores: Path
) -> None:
    manifest = write_images(tmp_path, noise_images(3))
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    if on_disk:
        keep_on_disk()
    with pytest.raises(PixelCAMError, match=r"2\.png: has changed since it was prepared; run the prepare stage"):
        SquareImages(manifest, size=8)
    assert list(stores.glob("*")) == []


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    manifest = write_images(tmp_path, noise_images(2))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(PixelCAMError, match=r"1\.png"):
        SquareImages(manifest, size=8)


def test_no_images_at_all(tmp_path: Path) -> None:
    assert len(SquareImages(Manifest((), tmp_path), size=8)) == 0


def test_check_unchanged_compares_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # SHA-256 of "abc", from FIPS 180-2.
    check_unchanged(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(PixelCAMError, match="file: has changed"):
        check_unchanged(path, "0" * 64)


def test_a_full_disk_costs_time_alone(
    tmp_path: Path,
    keep_on_disk: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = write_images(tmp_path, noise_images(2))
    kept = SquareImages(manifest, size=6)
    keep_on_disk()
    monkeypatch.setattr(image_store, "LEFT_FREE", 1 << 60)
    images = SquareImages(manifest, size=6)
    assert "cannot be prepared: No space left on device" in capsys.readouterr().err
    assert np.array_equal(images[1], kept[1])
    (tmp_path / "1.png").unlink()
    with pytest.raises(PixelCAMError, match=r"1\.png: does not exist"):
        images[1]


def test_a_reader_reads_anew(tmp_path: Path) -> None:
    manifest = write_images(tmp_path, noise_images(2, size=9))
    reader = SquareReader(manifest, size=6)
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    with pytest.raises(PixelCAMError, match=r"1\.png: has changed"):
        reader[1]
