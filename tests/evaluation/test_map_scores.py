"""`pixelcam score`: the figures of scikit-learn from files of any kind, and one message where files do not fit."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score
from typer.testing import CliRunner, Result

from pipeline.commands.cli import app
from pipeline.evaluation.map_scores import score_map_files, score_maps
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.curves import average_precisions
from pipeline.metrics.localization import LocalizationTally, count_maps, measure_maps
from pipeline.metrics.pixel_histogram import HistogramRows
from pipeline.params.errors import PixelCAMError

NAMES = ("a", "b", "empty")
Floats = npt.NDArray[np.float32]


class Files:
    """A folder of maps and one of masks, the last of which has no region of interest."""

    def __init__(self, root: Path) -> None:
        self.maps, self.masks, self.ignore = root / "maps", root / "masks", root / "ignore"
        generator = np.random.default_rng(0)
        self.truth = {name: generator.random((12, 10)) < (0.3 if name != "empty" else 0) for name in NAMES}
        self.heat = {
            name: (np.round((generator.random((12, 10)) + self.truth[name]) * 500) / 1000).astype(np.float32)
            for name in NAMES
        }
        for folder in (self.maps, self.masks, self.ignore):
            folder.mkdir()
        for name in NAMES:
            np.save(self.maps / f"{name}.npy", self.heat[name])
            Image.fromarray(self.truth[name]).save(self.masks / f"{name}.png")

    def pooled(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        return tuple(np.concatenate([part[name].ravel() for name in NAMES]) for part in (self.heat, self.truth))  # type: ignore[return-value]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["score", *(str(argument) for argument in arguments)], env={"COLUMNS": "100"})


def scores_of(files: Files, *, threshold: float | None = None, ignore: Path | None = None) -> dict[str, object]:
    return score_map_files(files.maps, files.masks, ignore=ignore, threshold=threshold, at_map_size=False)


def test_figures_are_those_of_scikit_learn(files: Files) -> None:
    result = call(files.maps, files.masks, "--json", "--threshold", 0.3)
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    values, truth = files.pooled()
    assert scores["pxap"] == pytest.approx(average_precision_score(truth, values), abs=1e-6)
    assert scores["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-6)
    aps = [average_precision_score(files.truth[name].ravel(), files.heat[name].ravel()) for name in ("a", "b")]
    assert scores["image_ap"] == pytest.approx(np.mean(aps), abs=1e-6)
    assert scores["foreground_share"] == pytest.approx(truth.mean(), abs=1e-6)
    assert list(scores["regions"]) == ["validation", "half", "oracle"]
    for name, region in scores["regions"].items():
        positive = values >= np.float32(region["threshold"])
        assert region["dice"] == pytest.approx(f1_score(truth, positive), abs=1e-6)
        background, foreground = jaccard_score(truth, positive, average=None, labels=[False, True])
        assert [region["iou"], region["background_iou"]] == pytest.approx([foreground, background], abs=1e-6)
        assert region["mean_iou"] == pytest.approx((foreground + background) / 2, abs=1e-6)
        empty = files.heat["empty"] >= np.float32(region["threshold"])
        assert region["false_positive_share"] == pytest.approx(empty.mean(), abs=1e-6)
        assert region["dice"] <= scores["regions"]["oracle"]["dice"], name
    assert (scores["images"], scores["images_without_roi"]) == (3, 1)
    assert set(scores["boxes"]) == {"max_box_acc_v2", "iou_30", "iou_50", "iou_70"}


def test_a_table_says_the_same(files: Files) -> None:
    result = call(files.maps, files.masks)
    assert result.exit_code == 0, result.output
    assert f"{scores_of(files)['pxap']:.3f}" in result.stdout
    for title in ("PxAP", "MaxBoxAccV2", "oracle, chosen on these masks", "fixed"):
        assert title in result.stdout
    assert "given" not in result.stdout


def test_zarr_and_pictures_score_as_files_do(files: Files, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    array = group.create_array("cam", shape=(3, 12, 10), dtype="float32")
    array[...] = np.stack([files.heat[name] for name in NAMES])
    group.attrs["image_ids"] = [f"images/{name}.png" for name in NAMES]
    expected = scores_of(files)
    found = score_map_files(tmp_path / "s.zarr/cam", files.masks, ignore=None, threshold=None, at_map_size=False)
    assert found == expected
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in NAMES:
        Image.fromarray(np.round(files.heat[name] * 65535).astype(np.uint16)).save(pictures / f"{name}.png")
    near = score_map_files(pictures, files.masks, ignore=None, threshold=None, at_map_size=False)
    assert near["pxap"] == pytest.approx(expected["pxap"], abs=0.01)


def test_ignored_pixels_do_not_count(files: Files) -> None:
    ignored = np.zeros((12, 10), dtype=np.bool_)
    ignored[:6] = True
    Image.fromarray(ignored).save(files.ignore / "a.png")
    files.heat["a"], files.truth["a"] = files.heat["a"][6:], files.truth["a"][6:]
    values, truth = files.pooled()
    scores = json.loads(call(files.maps, files.masks, "--json", "--ignore", files.ignore).stdout)
    assert scores["pxap"] == pytest.approx(average_precision_score(truth, values), abs=1e-6)


def test_maps_are_enlarged_or_masks_reduced(files: Files) -> None:
    for name in NAMES:
        np.save(files.maps / f"{name}.npy", files.heat[name][::2, ::2])
    at_masks = json.loads(call(files.maps, files.masks, "--json").stdout)
    at_maps = json.loads(call(files.maps, files.masks, "--json", "--map-size").stdout)
    values = np.concatenate([files.heat[name][::2, ::2].ravel() for name in NAMES])
    truth = np.concatenate([files.truth[name][1::2, 1::2].ravel() for name in NAMES])  # the nearest pixel centres
    assert at_maps["pxap"] == pytest.approx(average_precision_score(truth, values), abs=1e-6)
    large = torch.nn.functional.interpolate(
        torch.stack([torch.from_numpy(files.heat[name][::2, ::2]) for name in NAMES]).unsqueeze(1),
        size=(12, 10),
        mode="bilinear",
    )
    steps = np.floor(large.flatten().numpy() * 1000)
    assert at_masks["pxap"] == pytest.approx(average_precision_score(files.pooled()[1], steps), abs=0.005)


def test_a_published_protocol_scores_files_exactly(files: Files) -> None:
    # 0.009 as float64 lies below the published edge 9 * 0.001, and with it in the bin of 0.0085; float32 rounds it up.
    for name in NAMES:
        np.save(files.maps / f"{name}.npy", np.where(files.truth[name], 0.009, 0.0085))
    share = files.pooled()[1].mean()
    published = ("--json", "--protocol", "wsolevaluation")
    scores = json.loads(call(files.maps, files.masks, *published).stdout)
    assert scores["pxap"] == pytest.approx(share, abs=1e-9)
    assert (scores["protocol"], scores["steps"], scores["images_without_roi"]) == ("wsolevaluation", 1000, 1)
    assert json.loads(call(files.maps, files.masks, "--json").stdout)["pxap"] == 1
    assert json.loads(call(files.maps, files.masks, *published, "--steps", 100).stdout)["steps"] == 100
    stretched = json.loads(call(files.maps, files.masks, "--json", "--protocol", "wsolevaluation-stretched").stdout)
    assert stretched["pxap"] == 1
    np.save(files.maps / "a.npy", np.where(files.truth["a"], 0.009, 0.0085)[::3, ::2])
    assert call(files.maps, files.masks, *published).exit_code == 0, "masks are brought to their maps"
    table = call(files.maps, files.masks, "--protocol", "wsolevaluation").stdout
    assert "PxAP, wsolevaluation" in table
    assert "best mean IoU, chosen on these masks" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", 100), "steps is for published protocols"),
        (("--protocol", "wsolevaluation", "--threshold", 0.5), "threshold: the protocol wsolevaluation has thresholds"),
        (("--protocol", "wsolevaluation", "--steps", 7), "steps must be 1000 or 100, as published, got 7"),
    ],
)
def test_options_of_another_protocol_are_refused(files: Files, options: tuple[object, ...], message: str) -> None:
    result = call(files.maps, files.masks, *options)
    assert (result.exit_code, result.stderr.startswith(f"error: {message}")) == (1, True), result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lose a mask", "masks: nothing is called 'a', which"),
        ("lose a map", "maps: nothing is called 'b', which"),
        ("leave the scale", r"a\.npy: map values must lie in [0, 1]"),
        ("another ignore size", "expected the size of its mask"),
        ("a stranger to ignore", "there is no mask 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(files: Files, change: str, message: str) -> None:
    match change:
        case "lose a mask":
            (files.masks / "a.png").unlink()
        case "lose a map":
            (files.maps / "b.npy").unlink()
        case "leave the scale":
            np.save(files.maps / "a.npy", files.heat["a"] * 2)
        case "another ignore size":
            Image.new("L", (3, 3)).save(files.ignore / "a.png")
        case _:
            Image.new("L", (10, 12)).save(files.ignore / "x.png")
    arguments = ("--ignore", files.ignore) if any(files.ignore.iterdir()) else ()
    result = call(files.maps, files.masks, *arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    assert message.replace("\\", "") in result.stderr


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 0.0005, math.nan])
def test_a_threshold_off_the_grid_is_refused(files: Files, threshold: float) -> None:
    with pytest.raises(PixelCAMError, match=r"multiple of 0\.001"):
        scores_of(files, threshold=threshold)


def test_without_region_of_interest_scores_are_null(files: Files) -> None:
    for name in NAMES:
        Image.new("L", (10, 12)).save(files.masks / f"{name}.png")
    scores = json.loads(call(files.maps, files.masks, "--json").stdout)
    assert scores["pxap"] is None
    assert scores["regions"]["oracle"]["threshold"] is None
    assert scores["regions"]["half"]["dice"] is None
    assert scores["regions"]["half"]["false_positive_share"] is not None
    assert scores["boxes"]["max_box_acc_v2"] is None
    assert call(files.maps, files.masks).exit_code == 0


def test_an_image_without_mask_counts_for_nothing() -> None:
    maps, target = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[True, False]]])
    rows = HistogramRows()
    tally = LocalizationTally(rows)
    counted = count_maps(maps, target=target)
    measured = measure_maps(counted)
    assert measured.aps.tolist() == [1.0]
    tally.add(measured)
    before = jsonable(asdict(tally.scores({})))
    unknown = measure_maps(counted, has_mask=torch.tensor([False]))
    assert np.isnan(unknown.aps).all()
    tally.add(unknown)
    assert jsonable(asdict(tally.scores({}))) == before
    assert len(rows) == 2, "but has a row, like every image"


def test_average_precisions_may_come_from_the_device_that_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, target, ignore = (torch.rand(3, 5, 7, generator=generator) for _ in range(3))
    counted = count_maps(maps, target=target > 0.6, ignore=ignore > 0.7)
    values, truth = torch.from_numpy(counted.values).flatten(1), torch.from_numpy(counted.truth).flatten(1)
    found = average_precisions(preds=values, target=truth).numpy()  # as where a GPU holds the maps
    at_once, by_image = measure_maps(replace(counted, aps=found)), measure_maps(counted)
    assert at_once.aps.tolist() == pytest.approx(by_image.aps.tolist(), abs=1e-12)
    assert np.array_equal(at_once.overlaps, by_image.overlaps)


def test_an_image_ignored_as_a_whole_counts_for_nothing() -> None:
    tally = LocalizationTally()
    everything = torch.ones(1, 1, 2, dtype=torch.bool)
    measured = measure_maps(count_maps(torch.tensor([[[0.9, 0.1]]]), target=everything, ignore=everything))
    assert np.isnan(measured.aps).all()
    tally.add(measured)
    scores = tally.scores({})
    assert math.isnan(scores.pxap)
    assert math.isnan(scores.boxes.max_box_acc_v2)
    assert scores.images_without_roi == 0


# --- maps in memory ---------------------------------------------------------------------------------------------------


def test_maps_in_memory_have_the_scores_of_their_files(files: Files) -> None:
    preds, target = ([part[name] for name in NAMES] for part in (files.heat, files.truth))
    assert score_maps(preds=preds, target=target, threshold=0.4) == scores_of(files, threshold=0.4)  # type: ignore[arg-type]
    stacked = score_maps(preds=np.stack(preds).astype(np.float64), target=np.stack(target))  # type: ignore[arg-type]
    assert stacked["pxap"] == scores_of(files)["pxap"]


def test_pixels_in_memory_that_do_not_count_are_left_out() -> None:
    heat = np.array([[0.9, 0.8], [0.1, 0.2]], dtype=np.float32)
    mask, wrong = np.array([[True, False], [False, False]]), np.array([[False, True], [False, False]])
    assert score_maps(preds=[heat], target=[mask])["image_ap"] == 1
    assert score_maps(preds=[heat], target=[wrong])["image_ap"] == 0.5  # the second of all
    assert score_maps(preds=[heat], target=[wrong], ignore=[mask])["image_ap"] == 1
    assert score_maps(preds=[heat], target=[wrong], ignore=[None])["image_ap"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preds": []}, "expected one map for each mask, got 0 preds and 1 in target"),
        ({"preds": [np.full((2, 2), 2.0)]}, r"preds: expected maps in \[0, 1\], got 2.0 to 2.0"),
        ({"preds": [np.full((2, 2), np.nan)]}, "preds: expected maps in"),
        ({"preds": [np.zeros((2, 2), np.uint8)]}, "preds: expected maps of floating point .* got uint8"),
        ({"target": [np.zeros((2, 2), np.uint8)]}, "target: expected masks bool .* got uint8 .* mask > 0"),
        ({"ignore": [np.zeros((2, 3), np.bool_)]}, r"ignore: expected bool \(2, 2\) as its mask"),
        ({"threshold": 0.12345}, "threshold must be a multiple of 0.001"),
    ],
)
def test_maps_in_memory_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    fitting: dict[str, object] = {"preds": [np.full((2, 2), 0.5)], "target": [np.eye(2, dtype=np.bool_)]}
    with pytest.raises(PixelCAMError, match=message):
        score_maps(**(fitting | change))  # type: ignore[arg-type]
