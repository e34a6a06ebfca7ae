"""Images as squares: what is kept in memory equals what is read from disk, and a changed file is named."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import noise_images, write_images

from pipeline import square_images
from pipeline.errors import PixelCAMError
from pipeline.manifest import Manifest
from pipeline.square_images import SquareImages, SquareReader, check_unchanged, squash


@pytest.fixture
def read_from_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forget() -> None:
        monkeypatch.setattr(square_images, "KEPT_BYTES", 0)

    return forget


def test_memory_and_disk_give_the_same(tmp_path: Path, read_from_disk: Callable[[], None]) -> None:
    manifest = write_images(tmp_path, noise_images(5, size=9))
    kept = SquareImages(manifest, size=6)
    read_from_disk()
    read = SquareImages(manifest, size=6)
    (tmp_path / "3.png").unlink()
    assert len(kept) == len(read) == 5
    for index in (0, 1, 2, 4):
        assert kept[index].shape == (6, 6, 3)
        assert kept[index].dtype == read[index].dtype == np.uint8
        assert np.array_equal(kept[index], read[index])
    assert kept[3].shape == (6, 6, 3), "a kept image needs its file no more"
    with pytest.raises(PixelCAMError, match=r"3\.png: does not exist"):
        read[3]


def test_the_limit_counts_the_bytes_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_images(tmp_path, noise_images(2))
    for limit, kept in ((2 * 4 * 4 * 3, True), (2 * 4 * 4 * 3 - 1, False)):
        monkeypatch.setattr(square_images, "KEPT_BYTES", limit)
        images = SquareImages(manifest, size=4)
        (tmp_path / "1.png").rename(tmp_path / "away.png")
        if kept:
            assert images[1].shape == (4, 4, 3)
        else:
            with pytest.raises(PixelCAMError, match=r"1\.png"):
                images[1]
        (tmp_path / "away.png").rename(tmp_path / "1.png")


def test_images_stand_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    images = noise_images(20, size=4)
    manifest = write_images(tmp_path, images)
    turned = SquareImages(Manifest(manifest.rows[::-1], tmp_path), size=4)
    assert all(np.array_equal(turned[19 - index], image) for index, image in enumerate(images))


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = noise_images(1, size=5)[0]
    assert np.array_equal(squash(image, 5), image)


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


def test_a_file_changed_since_it_was_prepared_is_named(tmp_path: Path, read_from_disk: Callable[[], None]) -> None:
    manifest = write_images(tmp_path, noise_images(3))
    read_from_disk()
    lazy = SquareImages(manifest, size=8)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    assert lazy[0].shape == lazy[2].shape == (8, 8, 3)
    with pytest.raises(PixelCAMError, match=r"1\.png: has changed since it was prepared; run the prepare stage"):
        lazy[1]


def test_a_changed_file_stops_the_reading_of_all(tmp_path: Path) -> None:
    manifest = write_images(tmp_path, noise_images(3))
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    with pytest.raises(PixelCAMError, match=r"2\.png: has changed"):
        SquareImages(manifest, size=8)


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


class TestOnDisk:
    def test_each_image_is_decoded_once(self, tmp_path: Path, read_from_disk: Callable[[], None]) -> None:
        manifest = write_images(tmp_path, noise_images(3, size=9))
        kept = SquareImages(manifest, size=6)
        expected = [kept[index] for index in range(3)]
        read_from_disk()
        images = SquareImages(manifest, size=6)
        first = images[1].copy()
        (tmp_path / "1.png").unlink()
        assert np.array_equal(images[1], first)
        assert all(np.array_equal(images[index], expected[index]) for index in range(3))

    def test_a_full_disk_costs_time_alone(
        self,
        tmp_path: Path,
        read_from_disk: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def refuse(*_: int) -> None:
            raise OSError(28, "No space left on device")

        manifest = write_images(tmp_path, noise_images(2))
        kept = SquareImages(manifest, size=6)
        read_from_disk()
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        images = SquareImages(manifest, size=6)
        assert "no room for 0.0 GB of decoded images" in capsys.readouterr().err
        assert np.array_equal(images[1], kept[1])
        (tmp_path / "1.png").unlink()
        with pytest.raises(PixelCAMError, match=r"1\.png: does not exist"):
            images[1]


def test_a_reader_reads_anew(tmp_path: Path) -> None:
    manifest = write_images(tmp_path, noise_images(2, size=9))
    reader = SquareReader(manifest, size=6)
    assert len(reader) == 2
    assert np.array_equal(reader[1], SquareImages(manifest, size=6)[1])
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    with pytest.raises(PixelCAMError, match=r"1\.png: has changed"):
        reader[1]
