"""Prepared images: written once for all that want the same, read as they were decoded, and never half of them."""

import json
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from time import sleep

import numpy as np
import pytest
import zarr
from tiny import noise_images, write_images

from pipeline.data import image_store
from pipeline.data.image_store import ImageStore, UInt8Array, prepare_images
from pipeline.data.manifest import Manifest
from pipeline.params.errors import PixelCAMError

SIZE = 8
COUNT = 5


class Reader:
    """Gives images by number and notes which were asked for."""

    def __init__(self, images: list[UInt8Array]) -> None:
        self.images = images
        self.asked: list[int] = []

    def __call__(self, index: int) -> UInt8Array:
        self.asked.append(index)
        return self.images[index]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all stores, of which one has three shards."""
    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "stores"))
    monkeypatch.setattr(image_store, "IMAGES_PER_SHARD", 2)
    return tmp_path / "stores"


@pytest.fixture
def images() -> list[UInt8Array]:
    """Noise, and one image that is black."""
    return [*noise_images(COUNT - 1, size=SIZE), np.zeros((SIZE, SIZE, 3), dtype=np.uint8)]


@pytest.fixture
def manifest(images: list[UInt8Array], tmp_path: Path) -> Manifest:
    return write_images(tmp_path / "raw", images)


def prepare(manifest: Manifest, images: list[UInt8Array]) -> ImageStore:
    store = prepare_images(manifest, size=SIZE, read=Reader(images))
    assert store is not None
    return store


def test_images_are_those_that_were_read_and_are_read_once(
    folder: Path, manifest: Manifest, images: list[UInt8Array], capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(images)
    for _ in range(2):
        store = prepare_images(manifest, size=SIZE, read=reader)
        assert store is not None
        assert len(store) == COUNT
        for index in (4, 0, 3, 1, 2, 4):
            assert store[index].dtype == np.uint8
            assert np.array_equal(store[index], images[index])
        assert sorted(reader.asked) == list(range(COUNT))
    (path,) = folder.iterdir()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: preparing 5 decoded images of 8 pixels, 0.0 GB")
    assert "PIXELCAM_IMAGES names another folder" in line


def test_the_store_says_what_it_holds(manifest: Manifest, images: list[UInt8Array]) -> None:
    store = prepare(manifest, images)
    group = zarr.open_group(store.path, mode="r")
    array = group["images"]
    assert isinstance(array, zarr.Array)
    assert np.array_equal(np.asarray(array[:]), np.stack(images))
    assert array.metadata.dimension_names == ("image", "y", "x", "channel")  # type: ignore[union-attr]
    assert array.shards == (2, SIZE, SIZE, 3)
    attributes = dict(group.attrs)
    assert attributes["size"] == SIZE
    assert attributes["image_names"] == [f"{index}.png" for index in range(COUNT)]
    assert attributes["image_sha256"] == [row.image_sha256 for row in manifest.rows]


def test_shards_of_large_images_hold_fewer(
    manifest: Manifest, images: list[UInt8Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "BYTES_PER_SHARD", 1)  # less than an image takes
    store = prepare(manifest, images)
    assert len([path for path in (store.path / "images/c").rglob("*") if path.is_file()]) == COUNT
    assert all(np.array_equal(store[index], images[index]) for index in range(COUNT))


def test_another_order_size_content_or_decoder_has_another_store(
    folder: Path, manifest: Manifest, images: list[UInt8Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(manifest, images)
    turned = prepare(Manifest(manifest.rows[::-1], manifest.root), images[::-1])
    fewer = prepare(Manifest(manifest.rows[1:], manifest.root), images[1:])
    assert np.array_equal(turned[0], first[COUNT - 1])
    assert np.array_equal(fewer[0], first[1])
    small = prepare_images(manifest, size=1, read=Reader([image[:1, :1] for image in images]))
    assert small is not None
    monkeypatch.setattr(image_store, "SCHEMA_VERSION", 2)
    later = prepare(manifest, images)
    assert len({store.path for store in (first, turned, fewer, small, later)}) == len(list(folder.iterdir())) == 5


def test_the_same_content_under_other_names_has_the_same_store(
    manifest: Manifest, images: list[UInt8Array], tmp_path: Path
) -> None:
    first, unused = prepare(manifest, images), Reader(images)
    moved = Manifest(tuple(replace(row, image=f"moved/{row.image}") for row in manifest.rows), tmp_path / "elsewhere")
    again = prepare_images(moved, size=SIZE, read=unused)
    assert again is not None
    assert again.path == first.path
    assert unused.asked == []


def test_a_store_can_be_sent_and_read_by_many_threads(manifest: Manifest, images: list[UInt8Array]) -> None:
    prepared = prepare(manifest, images)
    prepared[0]
    store = pickle.loads(pickle.dumps(prepared))
    assert len(pickle.dumps(prepared)) < 1000, "what is open is not sent"
    together = Barrier(4)

    def read(number: int) -> bool:
        together.wait()
        return all(
            np.array_equal(store[index], images[index]) for index in [*range(number, COUNT), *range(number)] * 20
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_of_two_writers_at_once_the_second_waits(folder: Path, manifest: Manifest, images: list[UInt8Array]) -> None:
    reader, together = Reader(images), Barrier(2)

    def write(_: int) -> ImageStore | None:
        together.wait()
        return prepare_images(manifest, size=SIZE, read=reader)

    with ThreadPoolExecutor(2) as pool:
        stores = list(pool.map(write, range(2)))
    assert sorted(reader.asked) == list(range(COUNT))
    for store in stores:
        assert store is not None
        assert np.array_equal(store[3], images[3])
    assert len(list(folder.iterdir())) == 1, "no lock is left"


def test_who_waits_says_so(manifest: Manifest, images: list[UInt8Array], capsys: pytest.CaptureFixture[str]) -> None:
    other, said = ThreadPoolExecutor(1), [""]
    waiting = []

    def read(index: int) -> UInt8Array:
        if index == 0:  # while the first one is at work
            waiting.append(other.submit(prepare_images, manifest, size=SIZE, read=Reader([])))
            for _ in range(6000):
                said.append(capsys.readouterr().err)
                if "waits until it has" in said[-1]:
                    break
                sleep(0.01)
        return images[index]

    prepare_images(manifest, size=SIZE, read=read)
    store = waiting[0].result()
    other.shutdown()
    assert "waits until it has" in said[-1]
    assert store is not None
    assert np.array_equal(store[2], images[2])


def test_killed_half_way_it_leaves_no_store(folder: Path, manifest: Manifest, images: list[UInt8Array]) -> None:
    def read(index: int) -> UInt8Array:
        if index == COUNT - 1:
            os._exit(9)  # as suddenly as by SIGKILL
        return images[index]

    process = multiprocessing.get_context("fork").Process(
        target=prepare_images, args=(manifest,), kwargs={"size": SIZE, "read": read}
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    left = list(folder.iterdir())
    assert left
    assert all(path.name.startswith(".") and path.name.endswith(".partial") for path in left)
    assert np.array_equal(prepare(manifest, images)[3], images[3])
    assert len(list(folder.iterdir())) == 1, "what was left is gone"


def test_an_image_that_cannot_be_read_is_what_is_told(folder: Path, manifest: Manifest) -> None:
    def read(_: int) -> UInt8Array:
        raise PixelCAMError("3.png: has changed") from OSError(5, "as a reader's errors may come")

    with pytest.raises(PixelCAMError, match=r"^3\.png: has changed$"):
        prepare_images(manifest, size=SIZE, read=read)
    assert list(folder.iterdir()) == []


def test_without_room_there_is_no_store(
    folder: Path, manifest: Manifest, images: list[UInt8Array], capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))  # the system refuses to write, as on a full disk
    try:
        assert prepare_images(manifest, size=SIZE, read=Reader(images)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be prepared: File too large; raise the limit" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_where_a_file_is_in_the_way_there_is_no_store(
    folder: Path, manifest: Manifest, images: list[UInt8Array], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("not to be lost", encoding="utf-8")
    assert prepare_images(manifest, size=SIZE, read=Reader(images)) is None
    assert "cannot be prepared: File exists; something of another kind has this name" in capsys.readouterr().err


def _change_attributes(path: Path) -> None:
    file = path / "zarr.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described["attributes"]["size"] = SIZE + 1
    file.write_text(json.dumps(described), encoding="utf-8")


def _resize(path: Path, count: int) -> None:
    zarr.open_array(path / "images").resize((count, SIZE, SIZE, 3))


def _flip_a_bit(path: Path) -> None:
    file = path / "images/c/1/0/0/0"
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "another size": _change_attributes,
    "fewer images": lambda path: _resize(path, COUNT - 1),
    "room for more images": lambda path: _resize(path, COUNT + 1),
    "a bit flipped": _flip_a_bit,
    "a shard truncated": lambda path: os.truncate(path / "images/c/1/0/0/0", 100),
    "a shard missing": lambda path: (path / "images/c/1/0/0/0").unlink(),
    "no array": lambda path: shutil.rmtree(path / "images"),
    "no description": lambda path: (path / "zarr.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_named(damage: str, manifest: Manifest, images: list[UInt8Array]) -> None:
    store = prepare(manifest, images)
    assert all(np.array_equal(store[index], images[index]) for index in range(COUNT))
    DAMAGES[damage](store.path)
    with pytest.raises(PixelCAMError, match=r"is damaged at .*; remove this folder, and it is prepared anew") as told:
        [prepare(manifest, images)[index] for index in range(COUNT)]
    assert str(told.value).startswith(f"{store.path}: ")
    shutil.rmtree(store.path)
    assert np.array_equal(prepare(manifest, images)[2], images[2])
