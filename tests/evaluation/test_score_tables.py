"""Scores as files: valid JSON, tables that survive a round trip, and a choice of images that owes nothing to chance."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling import update_histogram
from tiny import ROOT, Run

from pipeline.evaluation.tables import (
    choose_images,
    curve_table,
    per_image_tables,
    read_per_image_table,
    scores_by_domain,
)
from pipeline.metrics import pixel_histogram
from pipeline.metrics.bootstrap import Difference, Interval
from pipeline.metrics.classification import Calibration
from pipeline.metrics.localization import BoxScores, RegionScores
from pipeline.metrics.pixel_histogram import PixelHistogram
from pipeline.metrics.reliability import ReliabilityBin
from pipeline.metrics.scores import IMAGE_VALUES, Evaluation, ImageScores, ModelName, Scores, ThresholdSource
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import write_csv

NAN = float("nan")
CPU = torch.device("cpu")


Image = tuple[str, float, float]  # name, Dice, false-positive share


def image_scores(image: str, *, dice: float = 0.5, false_positive_share: float = 0.1) -> Image:
    return image, dice, false_positive_share


def columns_of(images: Sequence[Image]) -> ImageScores:
    """Return the scores of images, in two blocks."""
    rows = [
        (1, 0, 0, 1 / 3, 2 / 3, dice, dice, dice / (2 - dice), 0.3, 0.25, false_positives, 0.2)
        for _, dice, false_positives in images
    ]
    values = np.array(rows, dtype=IMAGE_VALUES)
    return ImageScores(
        image=[name for name, _, _ in images], patient=["007"] * len(images), blocks=[values[:1], values[1:]]
    )


def table_of(*evaluations: Evaluation) -> pd.DataFrame:
    return pd.concat(per_image_tables(evaluations), ignore_index=True)


def evaluation_of(
    *images: Image,
    histogram: PixelHistogram | None = None,
    model: ModelName = ModelName.PIXELCAM,
    domain: str = "colon",
    pxap: float = 2 / 3,
) -> Evaluation:
    scores = Scores(
        pxap=pxap,
        accuracy=0.75,
        balanced_accuracy=0.5,
        dice=0.4,
        iou=0.25,
        threshold=0.375,
        threshold_source=ThresholdSource.VALIDATION,
        foreground_share=0.25,
        foreground_share_map=2 / 3,
        pixel_ece=1 / 3,
        pixel_ece_corrected=NAN,
        reliability={"0.65": ReliabilityBin(map=2 / 3, foreground=1 / 3, share=1.0)},
        predicted_classes={"benign": 1 / 3, "malignant": 2 / 3},
        images=len(images),
        images_with_mask=len(images),
        images_without_roi=0,
        patients=1,
        pxap_predicted_class=pxap,
        pixel_auroc=0.75,
        image_ap=0.5,
        regions={
            "oracle": RegionScores(
                threshold=1 / 3, dice=0.4, iou=0.25, background_iou=2 / 3, mean_iou=NAN, false_positive_share=0.125
            )
        },
        boxes=BoxScores(max_box_acc_v2=0.5, iou_30=1.0, iou_50=0.5, iou_70=0.0),
        auroc=0.75,
        f1={"benign": NAN, "malignant": 1 / 3},
        confusion={"benign": {"benign": 1, "malignant": 2}, "malignant": {"benign": 3, "malignant": 4}},
        class_iou={"benign": NAN, "malignant": 1 / 3, "background": 0.5},
        mean_iou_over_classes=5 / 12,
        accuracy_by_pixels=NAN,
        collapsed=False,
        calibration=Calibration(ece=0.125, temperature=NAN, ece_calibrated=NAN),
        intervals={"pxap": Interval(low=0.5, high=NAN)},
        over_teacher={}
        if model is ModelName.TEACHER
        else {"pxap": Difference(difference=0.1, low=0.0, high=0.2, p_value=0.05)},
    )
    return Evaluation(
        domain=domain,
        model=model,
        classes=("benign", "malignant"),
        scores=scores,
        images=columns_of(images),
        histogram=pixel_histogram.empty_histogram(device=CPU) if histogram is None else histogram,
        resamples={},
    )


class TestScoresByDomain:
    def test_is_json_with_null_for_what_is_undefined(self) -> None:
        teacher = evaluation_of(model=ModelName.TEACHER, pxap=NAN)
        result = json.loads(json.dumps(scores_by_domain([teacher, evaluation_of()]), allow_nan=False))
        assert result["colon"]["teacher"]["pxap"] is None
        assert result["colon"]["pixelcam"] == {
            "pxap": 0.666667,
            "accuracy": 0.75,
            "balanced_accuracy": 0.5,
            "dice": 0.4,
            "iou": 0.25,
            "threshold": 0.375,
            "threshold_source": "validation",
            "foreground_share": 0.25,
            "foreground_share_map": 0.666667,
            "pixel_ece": 0.333333,
            "pixel_ece_corrected": None,
            "reliability": {"0.65": {"map": 0.666667, "foreground": 0.333333, "share": 1.0}},
            "predicted_classes": {"benign": 0.333333, "malignant": 0.666667},
            "images": 0,
            "images_with_mask": 0,
            "images_without_roi": 0,
            "patients": 1,
            "pxap_predicted_class": 0.666667,
            "pixel_auroc": 0.75,
            "image_ap": 0.5,
            "regions": {
                "oracle": {
                    "threshold": 0.333333,
                    "dice": 0.4,
                    "iou": 0.25,
                    "background_iou": 0.666667,
                    "mean_iou": None,
                    "false_positive_share": 0.125,
                }
            },
            "boxes": {"max_box_acc_v2": 0.5, "iou_30": 1.0, "iou_50": 0.5, "iou_70": 0.0},
            "auroc": 0.75,
            "f1": {"benign": None, "malignant": 0.333333},
            "confusion": {"benign": {"benign": 1, "malignant": 2}, "malignant": {"benign": 3, "malignant": 4}},
            "class_iou": {"benign": None, "malignant": 0.333333, "background": 0.5},
            "mean_iou_over_classes": 0.416667,
            "accuracy_by_pixels": None,
            "collapsed": False,
            "calibration": {"ece": 0.125, "temperature": None, "ece_calibrated": None},
            "intervals": {"pxap": {"low": 0.5, "high": None}},
            "over_teacher": {"pxap": {"difference": 0.1, "low": 0.0, "high": 0.2, "p_value": 0.05}},
        }
        assert "over_teacher" not in result["colon"]["teacher"]

    def test_keeps_the_order_of_domains_and_models(self) -> None:
        evaluations = [
            evaluation_of(domain=domain, model=model)
            for domain in ("lymph_node", "colon")
            for model in (ModelName.TEACHER, ModelName.PIXELCAM)
        ]
        result = scores_by_domain(evaluations)
        assert [(domain, list(models)) for domain, models in result.items()] == [
            ("lymph_node", ["teacher", "pixelcam"]),
            ("colon", ["teacher", "pixelcam"]),
        ]


class TestPerImageTable:
    def test_survives_the_round_trip_through_a_file(self, tmp_path: Path) -> None:
        table = table_of(evaluation_of(image_scores("NA"), image_scores("007", dice=NAN)))
        path = tmp_path / "per_image.csv"
        write_csv(path, per_image_tables([evaluation_of(image_scores("NA"), image_scores("007", dice=NAN))]))
        assert path.read_text(encoding="utf-8") == table.to_csv(index=False)
        read = read_per_image_table(path)
        assert read["image"].tolist() == ["NA", "007"]
        assert read["label"].tolist() == ["malignant", "malignant"]
        assert read["predicted_class"].tolist() == ["benign", "benign"]
        assert read["class_by_pixels"].tolist() == ["benign", "benign"]
        assert read["correct"].tolist() == [False, False]
        assert read["probability"].tolist() == [0.333333, 0.333333]
        assert read["confidence"].tolist() == [0.666667, 0.666667]
        assert read["dice"].isna().tolist() == [False, True]
        assert read["ap"].isna().tolist() == [False, True]
        assert read["patient"].tolist() == ["007", "007"]
        assert list(read.columns) == list(table.columns)

    def test_what_is_undefined_is_empty(self) -> None:
        table = table_of(evaluation_of(image_scores("a.png", dice=NAN)))
        columns = dict(zip(table.columns, table.to_csv(index=False).splitlines()[1].split(","), strict=True))
        assert (columns["dice"], columns["iou"], columns["false_positive_share"]) == ("", "", "0.1")

    def test_pandas_reads_it_without_options(self, finished: Run) -> None:
        table = pd.read_csv(finished.per_image)
        assert not table.duplicated(["domain", "model", "image"]).any()
        assert table.groupby(["domain", "model"]).size().to_dict() == {
            (domain, model): count for domain, count in (("home", 3), ("away", 4)) for model in ("teacher", "pixelcam")
        }
        kinds = {name: dtype.kind for name, dtype in table.dtypes.items()}
        texts = {name for name in ("domain", "model", "image", "label", "predicted_class") if kinds.pop(name) in "OTU"}
        assert len(texts) == 5
        assert (kinds.pop("class_idx"), kinds.pop("correct")) == ("i", "b")
        assert set(kinds.values()) == {"f"}  # patient and class by pixels too, which are not known here
        assert table[["patient", "class_by_pixels"]].isna().all(axis=None)
        assert table[["probability", "threshold", "foreground_share_predicted"]].notna().all(axis=None)
        assert (table["disagreement"].between(0, 1)).all()
        assert (table.groupby(["domain", "image"])["disagreement"].nunique() == 1).all()
        assert table["dice"].notna().tolist() == (table["foreground_share_mask"] > 0).tolist()
        known = table.dropna(axis="columns", how="all")
        pd.testing.assert_frame_equal(known, read_per_image_table(finished.per_image)[known.columns])

    def test_every_column_is_described(self) -> None:
        table = table_of(evaluation_of(image_scores("a.png")))
        text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
        section = text.split("## The columns of `metrics/per_image.csv`")[1].split("\n## ")[0]
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        assert re.findall("`([^`]+)`", "".join(rows)) == list(table.columns)

    def test_another_file_is_refused_by_name(self, tmp_path: Path) -> None:
        path = tmp_path / "other.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(PixelCAMError, match=r"other\.csv.*domain"):
            read_per_image_table(path)

    def test_a_missing_file_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(PixelCAMError, match=r"none\.csv.*evaluate_ood"):
            read_per_image_table(tmp_path / "none.csv")


class TestCurveTable:
    def test_is_thin_and_keeps_both_ends(self) -> None:
        values = torch.rand(5000, generator=torch.Generator().manual_seed(0))
        target = torch.arange(5000) % 3 == 0
        histogram = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=values, target=target)
        table = curve_table([evaluation_of(histogram=histogram)])
        assert 150 <= len(table) <= 202
        assert list(table.columns) == ["domain", "model", "threshold", "precision", "recall"]
        assert table["recall"].iloc[0] == 1.0
        assert table["recall"].iloc[-1] == 0.0 or table["threshold"].iloc[-1] >= 0.999
        assert table["recall"].is_monotonic_decreasing
        assert not table.isna().any().any()

    def test_of_two_pixels_by_hand(self) -> None:
        values, target = torch.tensor([1.0, 0.5]), torch.tensor([True, False])
        histogram = update_histogram(pixel_histogram.empty_histogram(device=CPU), preds=values, target=target)
        rows = curve_table([evaluation_of(histogram=histogram)]).values.tolist()
        assert rows == [["colon", "pixelcam", 0.0, 0.5, 1.0], ["colon", "pixelcam", 1.0, 1.0, 1.0]]

    def test_has_no_rows_without_foreground(self) -> None:
        table = curve_table([evaluation_of()])
        assert table.empty
        assert list(table.columns) == ["domain", "model", "threshold", "precision", "recall"]


class TestChooseImages:
    def choose(self, images: dict[str, tuple[float, float]], *, count: int) -> list[tuple[str, str]]:
        """Choose from images given as (Dice, false-positive share)."""
        scores = [image_scores(name, dice=dice, false_positive_share=fp) for name, (dice, fp) in images.items()]
        teacher = [image_scores(name, dice=0.0) for name in images]
        table = table_of(evaluation_of(*teacher, model=ModelName.TEACHER), evaluation_of(*scores))
        return [(chosen.image, chosen.reason) for chosen in choose_images(table, domain="colon", count=count)]

    def test_best_median_and_worst(self) -> None:
        images = {f"{index}": (index / 10, 0.1) for index in range(7)}
        assert self.choose(images, count=3) == [("6", "best of 7"), ("3", "median of 7"), ("0", "worst of 7")]

    def test_evenly_between(self) -> None:
        images = {f"{index:02d}": (index / 100, 0.1) for index in range(21)}
        chosen = [name for name, _ in self.choose(images, count=5)]
        assert chosen == ["20", "15", "10", "05", "00"]

    def test_of_two_the_ends_and_of_one_the_median(self) -> None:
        images = {f"{index}": (index / 10, 0.1) for index in range(7)}
        assert self.choose(images, count=2) == [("6", "best of 7"), ("0", "worst of 7")]
        assert self.choose(images, count=1) == [("3", "median of 7")]

    def test_equals_are_ranked_by_name_whatever_the_order(self) -> None:
        images = dict.fromkeys("dacb", (0.5, 0.1))
        assert [name for name, _ in self.choose(images, count=2)] == ["a", "d"]

    def test_all_where_there_are_fewer(self) -> None:
        assert self.choose({"a": (0.1, 0.1), "b": (0.2, 0.1)}, count=6) == [("b", "best of 2"), ("a", "worst of 2")]

    def test_a_third_are_images_without_region_of_interest(self) -> None:
        images: dict[str, tuple[float, float]] = {f"roi_{index}": (index / 10, 0.1) for index in range(8)}
        images |= {f"none_{index}": (NAN, 1 - index / 10) for index in range(8)}
        chosen = self.choose(images, count=6)
        assert [name for name, _ in chosen] == ["roi_7", "roi_4", "roi_2", "roi_0", "none_7", "none_0"]
        assert [reason for _, reason in chosen[-2:]] == [
            "no region of interest, best of 8",
            "no region of interest, worst of 8",
        ]

    def test_by_name_where_no_mask_is_known(self) -> None:
        images = dict.fromkeys("cab", (NAN, NAN))
        assert self.choose(images, count=2) == [("a", "no mask"), ("c", "no mask")]

    def test_another_domain_gives_none(self) -> None:
        table = table_of(evaluation_of(image_scores("a")))
        assert choose_images(table, domain="lymph_node", count=3) == ()

    @settings(max_examples=60, deadline=None)
    @given(dice=st.lists(st.one_of(st.just(NAN), st.floats(0, 1)), min_size=1, max_size=30), count=st.integers(1, 12))
    def test_chooses_as_many_as_there_are_and_none_twice(self, dice: list[float], count: int) -> None:
        images: dict[str, Any] = {f"image_{index}": (value, 0.1) for index, value in enumerate(dice)}
        chosen = [name for name, _ in self.choose(images, count=count)]
        assert len(chosen) == len(set(chosen)) == min(count, len(images))
