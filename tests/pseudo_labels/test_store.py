"""The store of pseudo-labels: the schema that others rely on, identical bytes, and damage that never goes unnoticed."""

import json
import pickle
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from tiny import digests

from pipeline.params.errors import PixelCAMError
from pipeline.pseudo_labels import store
from pipeline.pseudo_labels.store import (
    IMAGES_PER_SHARD,
    PseudoLabelStore,
    StoredImage,
    _write_shard,
    count_labels,
    write_store,
)

LABEL_SIZE, CAM_SIZE = (12, 10), (3, 2)
ARRAYS = ["labels", "cam", "class_idx", "counts"]
COUNT = IMAGES_PER_SHARD + 6  # not a multiple of a shard


def make_images(count: int) -> list[StoredImage]:
    generator = np.random.default_rng(0)
    choices = np.array([0, 1, 255], dtype=np.uint8)
    return [
        StoredImage(
            labels=generator.choice(choices, LABEL_SIZE),
            cam=generator.random(CAM_SIZE).astype(np.float16),
            class_idx=number % 2,
        )
        for number in range(count)
    ]


def ids(count: int) -> list[str]:
    return [f"images/{number}.png" for number in range(count)]


def write(path: Path, images: Iterable[StoredImage], *, count: int | None = None, **attributes: Any) -> Path:  # noqa: ANN401 - any JSON
    if count is None:
        images = list(images)
        count = len(images)
    described = {"image_ids": ids(count), "domain": "colon", "classes": ["benign", "malignant"], **attributes}
    write_store(path, images, image_count=count, label_size=LABEL_SIZE, cam_size=CAM_SIZE, attributes=described)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests read and never change."""
    return write(tmp_path_factory.mktemp("store") / "labels.zarr", make_images(COUNT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that a test may damage."""
    return write(tmp_path / "labels.zarr", make_images(COUNT))


def metadata(path: Path, array: str = "") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((path / array / "zarr.json").read_text(encoding="utf-8"))
    return values


def change_metadata(path: Path, array: str, change: Callable[[dict[str, Any]], object]) -> None:
    values = metadata(path, array)
    change(values)
    (path / array / "zarr.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "dimensions", "fill"),
    [
        ("labels", "uint8", (COUNT, 12, 10), ["image", "y", "x"], 255),
        ("cam", "float16", (COUNT, 3, 2), ["image", "cam_y", "cam_x"], "NaN"),
        ("class_idx", "int64", (COUNT,), ["image"], -1),
        ("counts", "int64", (COUNT, 3), ["image", "pixel_label"], -1),
    ],
)
def test_schema_as_written_in_the_files(
    name: str, dtype: str, shape: tuple[int, ...], dimensions: list[str], fill: object, written: Path
) -> None:
    found = metadata(written, name)
    assert found["zarr_format"] == 3
    assert found["data_type"] == dtype
    assert tuple(found["shape"]) == shape
    assert found["dimension_names"] == dimensions
    assert found["fill_value"] == fill


@pytest.mark.parametrize(("name", "size"), [("labels", LABEL_SIZE), ("cam", CAM_SIZE)])
def test_images_are_chunks_of_shards_with_checksums(name: str, size: tuple[int, int], written: Path) -> None:
    found = metadata(written, name)
    assert found["chunk_grid"]["configuration"]["chunk_shape"] == [IMAGES_PER_SHARD, *size]
    (sharding,) = found["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [1, *size]
    assert sharding["configuration"]["codecs"][-1] == {"name": "zstd", "configuration": {"level": 4, "checksum": True}}
    assert sharding["configuration"]["index_codecs"][-1]["name"] == "crc32c"
    assert [file.name for file in sorted((written / name / "c").iterdir())] == ["0", "1"]


@pytest.mark.parametrize("name", ["class_idx", "counts"])
def test_numbers_have_checksums_too(name: str, written: Path) -> None:
    assert metadata(written, name)["codecs"][-1]["configuration"]["checksum"] is True


def test_attributes_are_sorted_and_complete(written: Path) -> None:
    attributes = metadata(written)["attributes"]
    assert list(attributes) == ["classes", "domain", "ignore_index", "image_ids", "pixel_classes", "schema_version"]
    assert attributes["schema_version"] == 2
    assert attributes["pixel_classes"] == ["background", "foreground"]
    assert attributes["ignore_index"] == 255
    assert attributes["image_ids"] == ids(COUNT)


def test_anyone_can_open_it(written: Path) -> None:
    group = zarr.open_group(written)
    assert sorted(group.array_keys()) == sorted(ARRAYS)
    images = make_images(COUNT)
    for name, expected in (
        ("labels", np.stack([image.labels for image in images])),
        ("cam", np.stack([image.cam for image in images])),
        ("class_idx", np.array([image.class_idx for image in images])),
    ):
        np.testing.assert_array_equal(np.asarray(group[name]), expected)
    labels = np.asarray(group["labels"])
    counts = [[int((row == value).sum()) for value in (0, 1, 255)] for row in labels]
    np.testing.assert_array_equal(np.asarray(group["counts"]), counts)


def test_two_writings_are_identical_whatever_the_order_of_the_attributes(tmp_path: Path) -> None:
    images = make_images(5)
    first = digests(write(tmp_path / "first", images, alpha=1, beta=[1.5, None]))
    assert first == digests(write(tmp_path / "second", images, beta=[1.5, None], alpha=1))
    assert first != digests(write(tmp_path / "third", images, alpha=2, beta=[1.5, None]))


def test_reader_gives_back_what_was_written(written: Path) -> None:
    store = PseudoLabelStore(written)
    store.verify()
    assert len(store) == COUNT
    assert store.image_ids == tuple(ids(COUNT))
    assert store.attributes["domain"] == "colon"
    images = make_images(COUNT)
    for number in (0, 1, IMAGES_PER_SHARD - 1, IMAGES_PER_SHARD, COUNT - 1):
        found = store.read(f"images/{number}.png")
        np.testing.assert_array_equal(found.labels, images[number].labels)
        np.testing.assert_array_equal(found.cam, images[number].cam)
        assert found.labels.dtype == np.uint8
        assert found.cam.dtype == np.float16
        assert found.class_idx == number % 2
    np.testing.assert_array_equal(store.class_idx(), np.arange(COUNT) % 2)
    counts = [[(image.labels == value).sum() for value in (0, 1, 255)] for image in images]
    np.testing.assert_array_equal(store.counts(), counts)


def test_labels_are_counted_by_hand() -> None:
    assert count_labels(np.array([[0, 0, 1], [255, 255, 255]], dtype=np.uint8)) == (2, 1, 3)


def test_reader_can_be_sent_to_another_process(written: Path) -> None:
    store = PseudoLabelStore(written)
    expected = store.read("images/3.png")
    sent: PseudoLabelStore = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(sent.read("images/3.png").labels, expected.labels)
    assert sent.image_ids == store.image_ids


@pytest.mark.parametrize("count", [1, IMAGES_PER_SHARD - 1, IMAGES_PER_SHARD, 2 * IMAGES_PER_SHARD])
def test_any_number_of_images(count: int, tmp_path: Path) -> None:
    store = PseudoLabelStore(write(tmp_path / "store", make_images(count)))
    store.verify()
    np.testing.assert_array_equal(store.read(ids(count)[-1]).labels, make_images(count)[-1].labels)


def test_images_without_any_label_are_no_damage(tmp_path: Path) -> None:
    # All values of `labels` are its fill value, so that no file is written for them.
    ignored = StoredImage(np.full(LABEL_SIZE, 255, np.uint8), np.zeros(CAM_SIZE, np.float16), 0)
    store = PseudoLabelStore(write(tmp_path / "store", [ignored] * 3))
    store.verify()
    assert store.counts().tolist() == [[0, 0, 120]] * 3
    assert not store.read("images/1.png").cam.any()


def test_unknown_image_is_named(written: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"labels\.zarr: holds no image 'other\.png'; run the extract"):
        PseudoLabelStore(written).read("other.png")


def data_files(path: Path, name: str) -> list[Path]:
    return sorted(file for file in (path / name / "c").rglob("*") if file.is_file())


def stored_values(path: Path, name: str) -> npt.NDArray[Any]:
    array = zarr.open_group(path, mode="r")[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def complaint(store: PseudoLabelStore) -> str:
    """Return what verifying a store complains of, nothing where it does not."""
    try:
        store.verify()
    except PixelCAMError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ARRAYS)
def test_a_flipped_bit_is_detected_wherever_it_changes_a_value(name: str, path: Path) -> None:
    file = data_files(path, name)[0]
    intact, values = file.read_bytes(), stored_values(path, name)
    store, detected = PseudoLabelStore(path), 0
    for position in np.linspace(0, len(intact) - 1, 12).astype(int).tolist():
        damaged = bytearray(intact)
        damaged[position] ^= 1 << (position % 8)
        file.write_bytes(damaged)
        said = complaint(store)
        if said:
            assert re.search(rf"array '{name}' is damaged .*run the extract_pseudo_labels stage", said)
            detected += 1
        else:  # a few bits of a frame's header mean nothing for what is in it
            np.testing.assert_array_equal(stored_values(path, name), values)
    assert detected >= 10
    file.write_bytes(intact)
    store.verify()


@pytest.mark.parametrize("name", ARRAYS)
def test_a_deleted_file_is_detected(name: str, path: Path) -> None:
    for file in data_files(path, name):
        intact = file.read_bytes()
        file.unlink()
        with pytest.raises(PixelCAMError, match="run the extract_pseudo_labels stage"):
            PseudoLabelStore(path).verify()
        file.write_bytes(intact)
    PseudoLabelStore(path).verify()


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_detected(name: str, share: float, path: Path) -> None:
    file = data_files(path, name)[-1]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(PixelCAMError, match=rf"array '{name}' is damaged"):
        PseudoLabelStore(path).verify()


def test_exchanged_labels_are_detected_and_the_image_named(path: Path) -> None:
    labels = zarr.open_group(path, mode="r+")["labels"]
    assert isinstance(labels, zarr.Array)
    labels[7] = np.zeros(LABEL_SIZE, np.uint8)
    with pytest.raises(PixelCAMError, match=r"'images/7\.png' has \(120, 0, 0\) background, .* were written"):
        PseudoLabelStore(path).verify()


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_array_or_description_is_named(name: str, path: Path) -> None:
    description = path / name / "zarr.json"
    text = description.read_text(encoding="utf-8")
    for damage in (lambda: description.write_text(text[:50], encoding="utf-8"), description.unlink):
        damage()
        with pytest.raises(PixelCAMError, match=rf"lacks the array '{name}'"):
            PseudoLabelStore(path)


@pytest.mark.parametrize("name", ARRAYS)
def test_array_of_another_length_than_the_image_ids_is_named(name: str, path: Path) -> None:
    change_metadata(path, name, lambda values: values["shape"].__setitem__(0, COUNT - 1))
    with pytest.raises(PixelCAMError, match=rf"'{name}' has {COUNT - 1} rows for {COUNT} image_ids"):
        PseudoLabelStore(path)


@pytest.mark.parametrize(("dtype", "more"), [("int32", ()), ("int64", (1,))])
def test_an_array_of_another_type_or_of_more_dimensions_is_named(dtype: str, more: tuple[int, ...], path: Path) -> None:
    group = zarr.open_group(path, mode="r+")
    group.create_array("class_idx", shape=(COUNT, *more), dtype=dtype, overwrite=True)
    expected = rf"'class_idx' must be int64 of 1 dimensions, got {dtype} of {1 + len(more)}; run the extract"
    with pytest.raises(PixelCAMError, match=expected):
        PseudoLabelStore(path)


@pytest.mark.parametrize("version", [3, 0, "1", True, None])
def test_another_schema_is_refused(version: object, path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].update(schema_version=version))
    with pytest.raises(
        PixelCAMError, match=rf"schema_version is {version}, this version reads 1 and 2; run the extract"
    ):
        PseudoLabelStore(path)


def test_store_without_image_ids_is_refused(path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].pop("image_ids"))
    with pytest.raises(PixelCAMError, match="lacks the attribute image_ids"):
        PseudoLabelStore(path)


@pytest.mark.parametrize("image_ids", ["images", list(range(COUNT)), [*ids(COUNT - 1), 1]])
def test_image_ids_that_are_no_names_are_refused(image_ids: object, path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].update(image_ids=image_ids))
    with pytest.raises(PixelCAMError, match="image_ids must be a list of names"):
        PseudoLabelStore(path)


def test_an_image_that_is_there_twice_is_refused(path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].update(image_ids=[*ids(COUNT - 1), ids(COUNT)[0]]))
    with pytest.raises(PixelCAMError, match="image_ids must differ from each other"):
        PseudoLabelStore(path)


def test_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    for text in (None, "{", "[]"):
        if text:
            (tmp_path / "zarr.json").write_text(text, encoding="utf-8")
        with pytest.raises(PixelCAMError, match="cannot be opened as a Zarr group"):
            PseudoLabelStore(tmp_path)
    with pytest.raises(PixelCAMError, match="cannot be opened as a Zarr group"):
        PseudoLabelStore(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: replace(image, labels=image.labels.astype(np.int64)), r"labels must be uint8 .* got int64"),
        (lambda image: replace(image, labels=image.labels.T), r"labels must be uint8 \(12, 10\), got uint8 \(10, 12\)"),
        (lambda image: replace(image, labels=image.labels | 2), r"labels must be 0 to 1 or 255, got \[2, 3\]"),
        (lambda image: replace(image, cam=image.cam.astype(np.float32)), r"cam must be float16 .* got float32"),
        (lambda image: replace(image, cam=image.cam[:2]), r"cam must be float16 \(3, 2\), got float16 \(2, 2\)"),
        (lambda image: replace(image, cam=image.cam + np.float16(1)), r"a CAM must lie in \[0, 1\]"),
        (lambda image: replace(image, cam=image.cam - np.float16(1)), r"a CAM must lie in \[0, 1\]"),
        (lambda image: replace(image, cam=image.cam * np.float16(np.nan)), r"a CAM must lie in \[0, 1\]"),
    ],
)
def test_unfit_row_is_refused_and_named(
    change: Callable[[StoredImage], StoredImage], words: str, tmp_path: Path
) -> None:
    images = make_images(COUNT)
    images[IMAGES_PER_SHARD + 1] = change(images[IMAGES_PER_SHARD + 1])
    with pytest.raises(PixelCAMError, match=rf"row {IMAGES_PER_SHARD + 1}: {words}"):
        write(tmp_path / "store", images)


@pytest.mark.parametrize(("given", "expected"), [(2, 3), (0, 1), (2, 1), (70, 64), (63, 64), (200, 70)])
def test_another_number_of_rows_is_refused(given: int, expected: int, tmp_path: Path) -> None:
    found = "more" if given > expected else str(given)
    with pytest.raises(PixelCAMError, match=rf"expected {expected} rows, got {found}"):
        write(tmp_path / "store", make_images(given), count=expected)


def test_another_number_of_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match="image_ids must name 3 rows, got 2"):
        write(tmp_path / "store", make_images(3), image_ids=ids(2))


# --- written beside what makes the rows -----------------------------------------------------------------------------


def test_a_shard_is_written_while_the_rows_of_the_next_one_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, next_was_asked_for, met = make_images(COUNT), threading.Event(), []

    def rows() -> Iterator[StoredImage]:
        yield from images[:IMAGES_PER_SHARD]
        next_was_asked_for.set()
        yield from images[IMAGES_PER_SHARD:]

    def write_shard(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - of another function
        met.append(next_was_asked_for.wait(timeout=60))
        return _write_shard(*arguments, **options)

    monkeypatch.setattr(store, "_write_shard", write_shard)
    write(tmp_path / "store", rows(), count=COUNT)
    assert met == [True, True]


def test_two_shards_are_in_memory_at_most(tmp_path: Path) -> None:
    made = 5 * IMAGES_PER_SHARD
    gone: list[int] = []
    alive: list[int] = []

    def rows() -> Iterator[StoredImage]:
        for number, image in enumerate(make_images(made)):
            row = replace(image)
            weakref.finalize(row, gone.append, number)
            alive.append(number + 1 - len(gone))
            yield row
            del row

    write(tmp_path / "store", rows(), count=made)
    assert IMAGES_PER_SHARD < max(alive) <= 2 * IMAGES_PER_SHARD
    assert len(gone) == made


def test_nothing_is_left_running_where_rows_or_writing_fail(tmp_path: Path) -> None:
    write(tmp_path / "first", make_images(1))  # zarr has threads of its own, which stay
    before = set(threading.enumerate())

    def rows(images: Sequence[StoredImage]) -> Iterator[StoredImage]:
        yield from images
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write(tmp_path / "store", rows(make_images(IMAGES_PER_SHARD)), count=COUNT)
    unfit = [replace(image, labels=image.labels | np.uint8(2)) for image in make_images(3 * IMAGES_PER_SHARD)]
    with pytest.raises(PixelCAMError, match="row 0: labels must be"):
        write(tmp_path / "store", rows(unfit), count=len(unfit))
    assert set(threading.enumerate()) - before == set()


# --- labels that say which class; and stores of the first schema ----------------------------------------------------

CLASSES = ("background", "benign", "malignant", "adenoma")


def classed_images() -> list[StoredImage]:
    """Return three images of three classes, whose foreground is 1 + their class."""
    images = make_images(3)
    return [
        replace(image, class_idx=index, labels=np.where(image.labels == 1, np.uint8(1 + index), image.labels))
        for index, image in enumerate(images)
    ]


def test_labels_of_classes_are_counted_by_class(tmp_path: Path) -> None:
    images = classed_images()
    path = tmp_path / "labels.zarr"
    sizes = {"image_count": 3, "label_size": LABEL_SIZE, "cam_size": CAM_SIZE}
    write_store(path, images, attributes={"image_ids": ids(3)}, pixel_classes=CLASSES, **sizes)  # type: ignore[arg-type]
    opened = PseudoLabelStore(path)
    opened.verify()
    assert opened.pixel_classes == CLASSES
    assert opened.attributes["pixel_classes"] == list(CLASSES)
    labels = np.stack([image.labels for image in images])
    expected = [[int((row == value).sum()) for value in (0, 1, 2, 3, 255)] for row in labels]
    assert opened.counts().tolist() == expected
    assert [row[1 + index] > 0 for index, row in enumerate(expected)] == [True] * 3
    np.testing.assert_array_equal(opened.read("images/2.png").labels, labels[2])


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    sizes = {"image_count": 3, "label_size": LABEL_SIZE, "cam_size": CAM_SIZE}
    with pytest.raises(PixelCAMError, match=r"row 2: labels must be 0 to 2 or 255, got \[3\]"):
        write_store(
            tmp_path / "labels.zarr",
            classed_images(),
            attributes={"image_ids": ids(3)},
            pixel_classes=CLASSES[:3],
            **sizes,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("names", [None, "gland", [], ["background"], ["background", 1], ["x"] * 256])
def test_a_store_that_does_not_say_what_its_labels_mean_is_refused(names: object, path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].update(pixel_classes=names))
    with pytest.raises(PixelCAMError, match=r"pixel_classes must be .*; run the extract_pseudo_labels stage again"):
        PseudoLabelStore(path)


def test_a_store_with_too_few_counts_is_refused(path: Path) -> None:
    change_metadata(path, "", lambda values: values["attributes"].update(pixel_classes=list(CLASSES)))
    with pytest.raises(PixelCAMError, match="'counts' has 3 columns where background, benign, malignant, adenoma and"):
        PseudoLabelStore(path)


def write_first_schema(path: Path, images: Sequence[StoredImage]) -> None:
    """Write a store as the first schema had it, with zarr alone."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"schema_version": 1, "ignore_index": 255, "image_ids": ids(len(images)), "classes": ["a", "b"]})
    labels = np.stack([image.labels for image in images])
    group.create_array("labels", data=labels, chunks=(1, *LABEL_SIZE), shards=labels.shape)
    cams = np.stack([image.cam for image in images])
    group.create_array("cam", data=cams, chunks=(1, *CAM_SIZE), shards=cams.shape)
    group.create_array("class_idx", data=np.array([image.class_idx for image in images], dtype=np.int64))
    counts = [[int((row == value).sum()) for value in (0, 1, 255)] for row in labels]
    group.create_array("counts", data=np.array(counts, dtype=np.int64))


def test_a_store_of_the_first_schema_is_read(tmp_path: Path) -> None:
    images = make_images(4)
    write_first_schema(tmp_path / "old.zarr", images)
    opened = PseudoLabelStore(tmp_path / "old.zarr")
    opened.verify()
    assert opened.pixel_classes == ("background", "foreground")
    np.testing.assert_array_equal(opened.read("images/3.png").labels, images[3].labels)
    np.testing.assert_array_equal(opened.read("images/3.png").cam, images[3].cam)
    assert opened.read("images/3.png").class_idx == 1
