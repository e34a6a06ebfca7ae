"""Where prepared images go, how much room they need, whose turn it is to write them, and the batch made of some."""

import errno
import fcntl
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny import noise_images, write_images

from pipeline.data import image_store
from pipeline.data.image_store import UInt8Array, images_folder, prepare_images, square_batch
from pipeline.data.manifest import Manifest
from pipeline.params.errors import PixelCAMError

SIZE = 8
IMAGES = noise_images(3, size=SIZE)


class Usage(NamedTuple):
    free: int


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_images(tmp_path / "raw", IMAGES)


def read(index: int) -> UInt8Array:
    return IMAGES[index]


def test_the_folder_is_named_by_the_variable_or_lies_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXELCAM_IMAGES", "")
    assert images_folder() == tmp_path / ".images"
    monkeypatch.setenv("PIXELCAM_IMAGES", "elsewhere")
    assert images_folder() == tmp_path / "elsewhere"


def test_folders_above_are_made_too(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "not/there/yet"))
    store = prepare_images(manifest, size=SIZE, read=read)
    assert store is not None
    assert np.array_equal(store[2], IMAGES[2])


@pytest.mark.parametrize(("missing", "written"), [(0, True), (1, False)])
def test_a_billion_bytes_are_left_free(
    missing: int, written: bool, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "stores"))
    free = Usage(3 * SIZE * SIZE * 3 + 10**9 - missing)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    assert (prepare_images(manifest, size=SIZE, read=read) is not None) is written


def test_what_is_no_fault_of_the_system_is_raised(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PixelCAMError("not so")

    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "stores"))
    monkeypatch.setattr(image_store, "_write", refuse)
    with pytest.raises(PixelCAMError, match="not so"):
        prepare_images(manifest, size=SIZE, read=read)


def test_an_image_that_the_system_cannot_read_is_no_lack_of_room(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_index: int) -> UInt8Array:
        raise OSError(errno.EIO, "input/output error", "0.png")

    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "stores"))
    with pytest.raises(OSError, match=r"input/output error: '0\.png'"):
        prepare_images(manifest, size=SIZE, read=fail)


def test_a_turn_is_not_taken_by_a_lock_that_was_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    lock, taken = tmp_path / ".a.zarr.turn.partial", 0

    def take(*_arguments: object) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            lock.unlink()  # as who held it does at the end

    monkeypatch.setattr(fcntl, "flock", take)
    with image_store._own_turn(path):
        assert lock.exists()
    assert taken == 2
    assert not lock.exists()


def test_a_batch_has_channels_before_rows_and_white_is_one() -> None:
    image = np.array([[[255, 0, 51], [0, 255, 0]], [[0, 0, 255], [102, 0, 0]]], dtype=np.uint8)
    found = square_batch([image, np.full((3, 5, 3), 255, dtype=np.uint8)], 2)
    assert found[0].flatten().tolist() == pytest.approx([1, 0, 0, 0.4, 0, 1, 0, 0, 0.2, 0, 1, 0])
    assert found[1].tolist() == np.ones((3, 2, 2)).tolist()
