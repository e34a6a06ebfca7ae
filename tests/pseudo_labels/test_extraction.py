"""From teacher to store: each row recomputed from its image, quality recounted from masks, failures leave nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu
from tiny import Run, digests, tiny_params
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.data import image_store
from pipeline.data.image_store import squash
from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import Manifest, PreparedDomain, read_domain
from pipeline.data.maps import EvaluationBatch, resize_map
from pipeline.models.files import weights_sha256
from pipeline.models.loading import TeacherLocalizer
from pipeline.models.teacher import load_teacher
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ForegroundRule
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.quality import LabelQuality
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.pseudo_labels.thresholding import make_pseudo_labels


def _home(run: Run, *, background: int | None = None) -> PreparedDomain:
    home = read_domain("home", load_params(run.params), run.prepared / "home")
    return replace(home, background_class_idx=background)


def _extract(
    run: Run, output: Path, changes: Mapping[str, object] | None = None, *, source: PreparedDomain | None = None
) -> PseudoLabelStore:
    params = tiny_params(run.root / "raw", changes)
    extract_pseudo_labels(source or _home(run), teacher=run.teacher, params=params, output=output)
    return PseudoLabelStore(output)


def test_every_training_image_has_the_cam_of_its_class(finished: Run) -> None:
    store, params = PseudoLabelStore(finished.store), load_params(finished.params)
    teacher, _ = load_teacher(finished.teacher)
    localizer = TeacherLocalizer(teacher, params.cam)
    root = finished.root / "raw/home"
    assert store.image_ids == tuple(f"images/train_{number}.png" for number in range(6))
    assert store.class_idx().tolist() == [0, 1, 0, 1, 0, 1]
    for number, image_id in enumerate(store.image_ids):
        pixels = torch.from_numpy(squash(read_image(root / image_id), 64))
        image = pixels.permute(2, 0, 1).float().div(255).unsqueeze(0)
        cam = localizer(image, torch.tensor([number % 2])).maps[0].numpy()
        stored = store.read(image_id)
        assert stored.class_idx == number % 2
        assert np.allclose(stored.cam, cam, atol=2e-3)
        enlarged = interpolate(torch.from_numpy(cam)[None, None], size=(64, 64), mode="bilinear").numpy()[0, 0]
        certain = abs(enlarged - 0.5) > 0.01
        assert np.array_equal((stored.labels == 1)[certain], (enlarged >= 0.5)[certain])
        background = stored.labels == 0
        assert 0.28 < background.mean() < 0.5
        assert enlarged[background].max() <= enlarged[stored.labels == 255].min() + 1e-3


def test_the_store_says_where_it_comes_from(finished: Run) -> None:
    attributes = dict(zarr.open_group(finished.store, mode="r").attrs)
    assert attributes.pop("image_ids") == [f"images/train_{number}.png" for number in range(6)]
    assert attributes == {
        "schema_version": 2,
        "pixel_classes": ["background", "foreground"],
        "ignore_index": 255,
        "background_class": None,
        "background_fraction": 0.3,
        "foreground_fraction": 0.2,
        "foreground_rule": "threshold",
        "foreground_threshold": 0.5,
        "erosion": 0,
        "cam_method": "layercam",
        "cam_layers": [-1],
        "cam_scales": [1.0],
        "cam_symmetries": 2,
        "cam_margin": 0.0,
        "classes": ["benign", "malignant"],
        "domain": "home",
        "encoder": "test_efficientnet",
        "precision": "32-true",
        "teacher_sha256": weights_sha256(finished.teacher),
    }


def test_the_quality_is_recounted_from_store_and_masks(finished: Run) -> None:
    store = PseudoLabelStore(finished.store)
    labels = np.stack([store.read(image_id).labels for image_id in store.image_ids])
    rows, columns = ((np.arange(64) + 0.5) * side / 64 for side in (60, 72))
    masks = np.stack(
        [
            read_mask(finished.root / "raw/home" / image_id.replace("images", "masks"))[
                np.ix_(rows.astype(int), columns.astype(int))
            ]
            for image_id in store.image_ids
        ]
    )
    summary = json.loads(finished.quality.read_text(encoding="utf-8"))
    assert set(summary) == {"all", "benign", "malignant"}
    for name, chosen in (("all", slice(None)), ("benign", slice(0, None, 2)), ("malignant", slice(1, None, 2))):
        found, truth = labels[chosen], masks[chosen]
        for label, value in (("background", 0), ("foreground", 1), ("ignore", 255)):
            assert summary[name]["share"][label] == pytest.approx((found == value).mean(), abs=1e-6)
        precision = summary[name]["precision"]
        assert precision["foreground"] == pytest.approx(truth[found == 1].mean(), abs=1e-6)
        assert precision["background"] == pytest.approx(1 - truth[found == 0].mean(), abs=1e-6)
        recall = summary[name]["recall"]
        assert recall["foreground"] == pytest.approx((found[truth] == 1).mean(), abs=1e-6)
        assert recall["background"] == pytest.approx((found[~truth] == 0).mean(), abs=1e-6)


def test_images_of_the_background_class_are_all_background(finished: Run, tmp_path: Path) -> None:
    store = _extract(finished, tmp_path / "store", source=_home(finished, background=1))
    for image_id, class_idx in zip(store.image_ids, store.class_idx(), strict=True):
        values = set(np.unique(store.read(image_id).labels).tolist())
        assert values == ({0} if class_idx == 1 else {0, 1, 255})
    assert store.attributes["background_class"] == "malignant"


@pytest.mark.parametrize("model", ["teacher", "pixelcam"])
def test_with_image_classes_labels_carry_the_class_and_the_quality_stays(
    finished: Run, tmp_path: Path, model: str
) -> None:
    found: dict[str, tuple[PseudoLabelStore, dict[str, Any]]] = {}
    for name in ("foreground", "image_classes"):
        params = tiny_params(finished.root / "raw", {"model.pixel_classes": name})
        source, output = _home(finished, background=0), tmp_path / name
        quality = extract_pseudo_labels(source, teacher=finished.models / model, params=params, output=output)
        found[name] = PseudoLabelStore(output), quality
    (plain, plain_quality), (classed, quality) = found.values()
    classed.verify()
    assert plain_quality == quality
    assert classed.pixel_classes == ("background", "benign", "malignant")
    for image_id, class_idx in zip(plain.image_ids, plain.class_idx().tolist(), strict=True):
        before, after = plain.read(image_id), classed.read(image_id)
        assert np.array_equal(after.cam, before.cam)
        assert np.array_equal(after.labels, np.where(before.labels == 1, 1 + class_idx, before.labels))
    counts = classed.counts().sum(axis=0).tolist()
    assert (counts[1], counts[2]) == (0, plain.counts()[:, 1].sum()), "benign is the class without a region"
    assert counts[2] > 0


@pytest.mark.parametrize(
    ("changes", "label", "rises"),
    [
        ({"extract_pseudo_labels.foreground_threshold": 0.8}, 1, False),
        ({"extract_pseudo_labels.background_fraction": 0.6}, 0, True),
        ({"extract_pseudo_labels.erosion": 3}, 1, False),
        ({"extract_pseudo_labels.erosion": 3}, 0, False),
    ],
)
def test_thresholds_do_what_they_say(
    finished: Run, tmp_path: Path, changes: dict[str, object], label: int, rises: bool
) -> None:
    before = PseudoLabelStore(finished.store).counts().sum(axis=0)
    after = _extract(finished, tmp_path / "store", changes).counts().sum(axis=0)
    assert (after[label] > before[label]) == rises
    assert after[label] != before[label]


@pytest.mark.parametrize("rule", ["otsu", "percentile"])
def test_other_rules_are_written_to_a_store_of_the_same_schema(finished: Run, tmp_path: Path, rule: str) -> None:
    changes: dict[str, object] = {"foreground_rule": rule, "foreground_fraction": 0.125, "erosion": 1}
    changes = {f"extract_pseudo_labels.{name}": value for name, value in changes.items()}
    store = _extract(finished, tmp_path / "store", changes)
    first = PseudoLabelStore(finished.store)
    for name in ("schema_version", "foreground_threshold", "background_fraction"):
        assert store.attributes[name] == first.attributes[name]
    assert (store.attributes["foreground_rule"], store.attributes["erosion"]) == (rule, 1)
    assert store.attributes["foreground_fraction"] == 0.125

    def eroded(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return ndimage.binary_erosion(region, np.ones((3, 3), dtype=bool), border_value=1)

    for image_id in store.image_ids:
        stored = store.read(image_id)
        assert np.array_equal(stored.cam, first.read(image_id).cam)
        coarse = torch.from_numpy(stored.cam).float()[None, None]
        cam = interpolate(coarse, size=(64, 64), mode="bilinear").numpy()[0, 0]
        ordered = np.sort(cam, axis=None)
        # Of 4096 pixels an eighth is 512, and 30 % are 1229.
        foreground = cam >= (threshold_otsu(cam) if rule == "otsu" else ordered[-512])  # type: ignore[no-untyped-call]
        background = (cam <= ordered[1228]) & ~foreground
        expected = np.select([eroded(foreground), eroded(background)], [1, 0], 255)
        # The store's CAM is rounded to half precision, which moves a few pixels over a threshold.
        assert (expected == stored.labels).mean() > 0.98
    counts = store.counts()
    assert (counts[:, 1] > 0).all()
    if rule == "percentile":
        assert counts[:, 1].max() <= 512


@pytest.mark.parametrize(
    ("name", "value", "shape"),
    [("method", "gradcam", (4, 4)), ("layers", [-1, 2], (8, 8)), ("symmetries", 1, (4, 4))],
)
def test_the_cam_parameters_are_the_localizers(
    finished: Run, tmp_path: Path, name: str, value: object, shape: tuple[int, int]
) -> None:
    first = PseudoLabelStore(finished.store).read("images/train_0.png").cam
    other = _extract(finished, tmp_path / "store", {f"cam.{name}": value}).read("images/train_0.png").cam
    assert (first.shape, other.shape) == ((4, 4), shape)
    assert not np.array_equal(other, first)


def test_two_runs_give_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    _extract(finished, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(finished.store)


@pytest.mark.parametrize("depth", [1, 3])
def test_batches_in_flight_give_the_same_bytes(finished: Run, tmp_path: Path, depth: int) -> None:
    params = tiny_params(finished.root / "raw", {"extract_pseudo_labels.batch_size": 2})
    store = tmp_path / "again"
    quality = extract_pseudo_labels(_home(finished), teacher=finished.teacher, params=params, output=store, depth=depth)
    assert digests(store) == digests(finished.store)
    assert quality == json.loads(finished.quality.read_text(encoding="utf-8"))


def test_the_model_runs_in_the_precision_of_the_machine(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELCAM_PRECISION", "bf16-mixed")
    half, full = _extract(finished, tmp_path / "half"), PseudoLabelStore(finished.store)
    half.verify()
    rough, fine = (np.stack([store.read(image_id).cam for image_id in full.image_ids]) for store in (half, full))
    assert 0 < abs(rough - fine).mean() < 0.05
    stretched = torch.from_numpy(rough)
    assert (stretched.bfloat16().half() != stretched).any()  # to [0, 1], in single precision


class _AskedBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note what would wait for a GPU, to hand over a value or to count what a mask holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        indices = [index for part in args if isinstance(part, list) for index in part if isinstance(index, Tensor)]
        if name in {"_local_scalar_dense", "nonzero", "masked_select", "equal"} or any(
            index.dtype == torch.bool for index in indices
        ):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", list(ForegroundRule))
def test_nothing_is_asked_back_while_a_batch_is_launched(finished: Run, rule: ForegroundRule) -> None:
    changes = {"foreground_rule": rule, "erosion": 1}
    params = tiny_params(
        finished.root / "raw", {f"extract_pseudo_labels.{name}": value for name, value in changes.items()}
    )
    localizer = TeacherLocalizer(load_teacher(finished.teacher)[0], params.cam)
    batch = EvaluationBatch(
        image_ids=("a", "b"),
        images=torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        class_idx=torch.tensor([0, 1]),
        masks=torch.zeros(2, 64, 64, dtype=torch.bool),
        has_mask=torch.tensor([True, False]),
        ignore=torch.zeros(2, 64, 64, dtype=torch.bool),
    )
    with _AskedBack() as asked:
        maps = localizer(batch.images, batch.class_idx).maps
        labels = make_pseudo_labels(resize_map(maps, (64, 64)), params.extract_pseudo_labels)
        LabelQuality(("benign", "malignant")).update(labels, batch)
        assert asked.names == []
        labels[labels == 1] = 0
        assert int(labels.amax()) == 255
    assert asked.names == ["index_put_", "_local_scalar_dense"]


def test_a_source_without_training_images_is_refused(finished: Run, tmp_path: Path) -> None:
    home = _home(finished)
    with pytest.raises(PixelCAMError, match="no training image"):
        _extract(finished, tmp_path / "store", source=replace(home, manifest=Manifest((), home.manifest.root)))
    assert not (tmp_path / "store").exists()


def test_a_failure_on_the_way_leaves_the_former_store(
    started: Run, monkeypatch: pytest.MonkeyPatch, finished: Run
) -> None:
    home = _home(finished)
    copied = replace(home, manifest=Manifest(home.manifest.rows, started.root / "raw/home"))
    output = started.root / "data" / "store"
    _extract(finished, output, source=copied)
    before = digests(output)
    monkeypatch.setattr(image_store, "KEPT_BYTES", 0)
    Image.new("RGB", (72, 60)).save(started.root / "raw/home/images/train_5.png")
    with pytest.raises(PixelCAMError, match=r"train_5\.png: has changed"):
        _extract(finished, output, source=copied)
    assert digests(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["store"]


def test_a_missing_teacher_is_named(finished: Run, tmp_path: Path) -> None:
    params = load_params(finished.params)
    with pytest.raises(PixelCAMError, match=r"nowhere/model\.json: cannot be read"):
        extract_pseudo_labels(_home(finished), teacher=tmp_path / "nowhere", params=params, output=tmp_path / "store")
