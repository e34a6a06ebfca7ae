"""Evaluation of models that are known by heart: what a batch holds, what is resized, and what is not counted."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from pipeline.data.maps import EvaluationBatch, Localization, Localizer
from pipeline.evaluation.domain_scores import Resampling
from pipeline.evaluation.fitting import fit_on_validation
from pipeline.evaluation.localizers import EvaluationDomain, evaluate_domain, localize, resize_maps
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.bootstrap import Difference, compare
from pipeline.metrics.scores import Evaluation, Fitted, ModelName, Scores, Threshold, ThresholdSource
from pipeline.params.errors import PixelCAMError
from pipeline.params.evaluation import MaskFreeParams
from pipeline.params.vocabulary import ThresholdRule

CPU = torch.device("cpu")
HALF = Threshold(0.5, ThresholdSource.FIXED)
FITTED = Fitted(HALF, 2.0)
PRESUMED = MaskFreeParams(foreground_share=0.5, temperature=2.0)
FEW = Resampling(resamples=100, seed=0)


class RedChannel:
    """A model whose map is the image's red channel, and whose class is 1 where the first green pixel is above 1/2."""

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        del class_idx
        green = images[:, 1, 0, 0]
        return Localization(torch.stack([1 - green, green], dim=1) * 10, images[:, 0])


class TrueClass:
    """A model that needs the true class: its map is 1 in images of class 1 and 0 elsewhere."""

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        maps = class_idx.float().view(-1, 1, 1).expand(-1, *images.shape[-2:])
        return Localization(torch.zeros(len(images), 2), maps)


class Constant:
    """A model that gives the same map and logits for every image."""

    def __init__(self, value: float, *, logit: float = 0.0, size: tuple[int, int] = (2, 2)) -> None:
        self.value, self.logit, self.size = value, logit, size

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        del class_idx
        return Localization(torch.full((len(images), 2), self.logit), torch.full((len(images), *self.size), self.value))


def batch_of(
    maps: Sequence[Sequence[float]],
    masks: Sequence[Sequence[int]],
    *,
    class_idx: Sequence[int],
    predicted: Sequence[int],
    has_mask: Sequence[bool] | None = None,
    start: int = 0,
    ignore: Sequence[Sequence[int]] | None = None,
) -> EvaluationBatch:
    """Make a batch of 2x2 images for `RedChannel` from four map values and four mask pixels each."""
    count = len(maps)
    images = torch.zeros(count, 3, 2, 2)
    images[:, 0] = torch.tensor(maps).view(count, 2, 2)
    images[:, 1] = torch.tensor(predicted).float().view(count, 1, 1)
    return EvaluationBatch(
        image_ids=tuple(f"image_{start + index}" for index in range(count)),
        images=images,
        class_idx=torch.tensor(class_idx),
        masks=torch.tensor(masks, dtype=torch.bool).view(count, 2, 2),
        has_mask=torch.tensor([True] * count if has_mask is None else has_mask),
        ignore=None if ignore is None else torch.tensor(ignore, dtype=torch.bool).view(count, 2, 2),
    )


def evaluate(*batches: EvaluationBatch, fitted: Fitted = FITTED) -> Evaluation:
    domain = EvaluationDomain(name="colon", classes=("benign", "malignant"), batches=batches)
    localizers = {ModelName.PIXELCAM: RedChannel()}
    of_models = {ModelName.PIXELCAM: fitted}
    (evaluation,) = evaluate_domain(localizers, domain, fitted=of_models, map_size=2, resampling=FEW, device=CPU)
    return evaluation


def rows(evaluation: Evaluation) -> bytes:
    """Return the values of each image, in which NaN equals NaN."""
    return b"".join(block.tobytes() for block in evaluation.images.blocks)


def rows_of(evaluation: Evaluation, column: str) -> bytes:
    """Return one value of each image, in which NaN equals NaN."""
    return evaluation.images[column].tobytes()


def values(scores: Scores) -> object:
    """Return scores with None for NaN, which equals nothing."""
    return jsonable(asdict(scores))


TWO_IMAGES = batch_of(
    [[0.9, 0.6, 0.2, 0.1], [0.8, 0.8, 0.7, 0.3]],
    [[1, 0, 1, 0], [1, 1, 0, 0]],
    class_idx=[0, 1],
    predicted=[0, 0],
)
TWO_IMAGES_RIGHT = batch_of([[0.5] * 4] * 2, [[1, 0, 0, 0]] * 2, class_idx=[0, 1], predicted=[0, 1])
LAST_BATCH = batch_of([[0.4, 0.7, 0.4, 0.2]], [[1, 0, 0, 1]], class_idx=[0], predicted=[1], start=2)


def evaluate_patients(batch: EvaluationBatch, patients: dict[str, str]) -> Scores:
    domain = EvaluationDomain(name="colon", classes=("a", "b"), batches=[batch], patients=patients)
    (evaluation,) = evaluate_domain(
        {ModelName.PIXELCAM: RedChannel()},
        domain,
        fitted={ModelName.PIXELCAM: Fitted(HALF, math.nan)},
        map_size=2,
        resampling=FEW,
        device=CPU,
    )
    return evaluation.scores


def evaluate_both(batch: EvaluationBatch) -> tuple[Scores, Scores]:
    """Score `TrueClass` as the teacher and `RedChannel` as PixelCAM."""
    teacher, pixelcam = evaluate_domain(
        {ModelName.TEACHER: TrueClass(), ModelName.PIXELCAM: RedChannel()},
        EvaluationDomain(name="colon", classes=("a", "b"), batches=[batch]),
        fitted=dict.fromkeys(ModelName, Fitted(HALF, math.nan)),
        map_size=2,
        resampling=FEW,
        device=CPU,
    )
    return teacher.scores, pixelcam.scores


class TestEvaluateDomain:
    def test_scores_by_hand(self) -> None:
        scores = evaluate(TWO_IMAGES).scores
        # At 0.5: TP 0.9 0.8 0.8, FP 0.6 0.7, FN 0.2.
        assert scores.dice == pytest.approx(6 / 9)
        assert scores.iou == pytest.approx(3 / 6)
        assert scores.accuracy == 0.5
        assert scores.balanced_accuracy == 0.5
        assert scores.predicted_classes == {"benign": 1.0, "malignant": 0.0}
        assert scores.foreground_share == 0.5
        assert (scores.threshold, scores.threshold_source) == (0.5, "fixed")
        assert (scores.images, scores.images_with_mask) == (2, 2)

    def test_pxap_pools_all_images(self) -> None:
        batches = (TWO_IMAGES, LAST_BATCH)
        maps = torch.cat([batch.images[:, 0].flatten() for batch in batches]).double()
        truth = torch.cat([batch.masks.flatten() for batch in batches])
        expected = average_precision_score(truth.numpy(), maps.mul(1000).round().numpy())
        assert evaluate(*batches).scores.pxap == pytest.approx(expected)

    def test_batches_do_not_matter_and_the_last_may_hold_one_image(self) -> None:
        evaluation = evaluate(TWO_IMAGES, LAST_BATCH)
        joined = EvaluationBatch(
            image_ids=TWO_IMAGES.image_ids + LAST_BATCH.image_ids,
            images=torch.cat([TWO_IMAGES.images, LAST_BATCH.images]),
            class_idx=torch.cat([TWO_IMAGES.class_idx, LAST_BATCH.class_idx]),
            masks=torch.cat([TWO_IMAGES.masks, LAST_BATCH.masks]),
            has_mask=torch.cat([TWO_IMAGES.has_mask, LAST_BATCH.has_mask]),
        )
        assert values(evaluation.scores) == values(evaluate(joined).scores)
        assert rows(evaluation) == rows(evaluate(joined))
        assert evaluation.images.image == ["image_0", "image_1", "image_2"]

    def test_images_by_hand(self) -> None:
        images = evaluate(TWO_IMAGES).images
        assert images.image == ["image_0", "image_1"]
        assert images["class_idx"].tolist() == [0, 1]
        assert images["predicted_idx"].tolist() == [0, 0]
        sure = 1 / (1 + math.exp(-10))
        assert images["probability"].tolist() == pytest.approx([sure, 1 - sure])
        assert images["confidence"].tolist() == pytest.approx([sure, sure])
        assert images["dice"].tolist() == pytest.approx([0.5, 4 / 5])
        assert images["iou"].tolist() == pytest.approx([1 / 3, 2 / 3])
        assert images["foreground_share_predicted"].tolist() == [0.5, 0.75]
        assert images["foreground_share_mask"].tolist() == [0.5, 0.5]
        assert images["false_positive_share"].tolist() == [0.5, 0.5]

    def test_an_image_without_region_of_interest_counts_as_background(self) -> None:
        normal = batch_of([[0.9, 0.1, 0.1, 0.1]], [[0, 0, 0, 0]], class_idx=[0], predicted=[0], start=2)
        evaluation = evaluate(TWO_IMAGES, normal)
        images = evaluation.images
        assert math.isnan(images["dice"][2])
        assert math.isnan(images["iou"][2])
        assert images["false_positive_share"][2] == 0.25
        assert images["foreground_share_mask"][2] == 0.0
        assert evaluation.scores.dice == pytest.approx(6 / 10)
        assert evaluation.scores.foreground_share == pytest.approx(4 / 12)

    def test_a_domain_without_region_of_interest_has_no_localization_score(self) -> None:
        normal = batch_of([[0.9, 0.1, 0.1, 0.1]], [[0, 0, 0, 0]], class_idx=[0], predicted=[0])
        scores = evaluate(normal).scores
        assert all(math.isnan(value) for value in (scores.pxap, scores.dice, scores.iou, scores.foreground_share))
        assert scores.accuracy == 1.0
        assert scores.images_with_mask == 1

    def test_pixels_of_images_without_mask_do_not_count(self) -> None:
        unknown = batch_of(
            [[1.0, 1.0, 0.0, 0.0]], [[0, 0, 1, 1]], class_idx=[1], predicted=[1], has_mask=[False], start=2
        )
        evaluation = evaluate(TWO_IMAGES, unknown)
        assert evaluation.scores.pxap == evaluate(TWO_IMAGES).scores.pxap
        assert evaluation.scores.dice == evaluate(TWO_IMAGES).scores.dice
        assert evaluation.scores.accuracy == pytest.approx(2 / 3)
        assert (evaluation.scores.images, evaluation.scores.images_with_mask) == (3, 2)
        unscored = ("ap", "dice", "iou", "foreground_share_mask", "false_positive_share")
        assert all(math.isnan(evaluation.images[column][2]) for column in unscored)
        assert evaluation.images["foreground_share_predicted"][2] == 0.5

    def test_ignored_pixels_do_not_count(self) -> None:
        batch = batch_of([[0.9, 0.9, 0.1, 0.1]], [[1, 0, 0, 0]], class_idx=[0], predicted=[0], ignore=[[0, 1, 0, 0]])
        evaluation = evaluate(batch)
        assert evaluation.scores.pxap == 1.0
        assert evaluation.scores.dice == 1.0
        assert evaluation.images["dice"][0] == 1.0
        assert evaluation.images["foreground_share_predicted"][0] == pytest.approx(1 / 3)

    def test_an_image_ignored_as_a_whole_has_no_share(self) -> None:
        whole = batch_of([[0.9] * 4], [[1] * 4], class_idx=[0], predicted=[0], ignore=[[1] * 4])
        evaluation = evaluate(whole)
        assert math.isnan(evaluation.images["foreground_share_predicted"][0])
        assert math.isnan(evaluation.scores.pxap)

    def test_models_keep_their_order_and_their_own_threshold(self) -> None:
        domain = EvaluationDomain(name="colon", classes=("benign", "malignant"), batches=[TWO_IMAGES])
        teacher, pixelcam = evaluate_domain(
            {ModelName.TEACHER: TrueClass(), ModelName.PIXELCAM: RedChannel()},
            domain,
            fitted={
                ModelName.TEACHER: Fitted(HALF, math.nan),
                ModelName.PIXELCAM: Fitted(Threshold(0.75, ThresholdSource.VALIDATION), math.nan),
            },
            map_size=2,
            resampling=FEW,
            device=CPU,
        )
        assert (teacher.model, pixelcam.model) == (ModelName.TEACHER, ModelName.PIXELCAM)
        assert teacher.images["foreground_share_predicted"].tolist() == [0.0, 1.0]
        assert pixelcam.images["foreground_share_predicted"].tolist() == [0.25, 0.5]

    def test_disagreement_is_the_mean_distance_of_both_maps_over_pixels_that_count(self) -> None:
        maps = [[0.9, 0.6, 0.2, 0.1], [0.75, 0.5, 0.5, 0.25], [0.5] * 4]
        ignore = [[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]]
        batch = batch_of(maps, [[1, 0, 0, 0]] * 3, class_idx=[0, 1, 0], predicted=[0, 0, 0], ignore=ignore)
        batch = replace(batch, has_mask=torch.tensor([False, True, True]))
        teacher, pixelcam = evaluate_domain(  # whose map is 0 in the first image, and 1 in the second
            {ModelName.TEACHER: TrueClass(), ModelName.PIXELCAM: RedChannel()},
            EvaluationDomain(name="colon", classes=("a", "b"), batches=[batch]),
            fitted=dict.fromkeys(ModelName, Fitted(HALF, math.nan)),
            map_size=2,
            resampling=FEW,
            device=CPU,
        )
        expected = [(0.9 + 0.6 + 0.2 + 0.1) / 4, (0.25 + 0.75) / 2, math.nan]
        assert teacher.images["disagreement"].tolist() == pytest.approx(expected, nan_ok=True)
        assert rows_of(teacher, "disagreement") == rows_of(pixelcam, "disagreement")
        assert all(math.isnan(value) for value in evaluate(TWO_IMAGES).images["disagreement"])

    def test_other_scores_by_hand(self) -> None:
        threshold = Threshold(0.5, ThresholdSource.VALIDATION)
        scores = evaluate(
            TWO_IMAGES, fitted=Fitted(threshold, 2.0, validation=0.5, mask_free=0.75, presumed=PRESUMED)
        ).scores
        assert scores.confusion == {"benign": {"benign": 1, "malignant": 0}, "malignant": {"benign": 1, "malignant": 0}}
        assert scores.f1 == {"benign": pytest.approx(2 / 3), "malignant": 0.0}
        assert scores.auroc == 0.5
        assert scores.collapsed
        assert scores.calibration.temperature == 2.0
        assert scores.calibration.ece == pytest.approx(0.5, abs=1e-4)
        assert scores.calibration.ece_calibrated < scores.calibration.ece
        assert scores.image_ap == pytest.approx((0.5 * (1 + 2 / 3) + 1) / 2)
        assert list(scores.regions) == ["validation", "mask_free", "half", "oracle", "mask_free_image"]
        assert math.isnan(scores.regions["mask_free_image"].threshold)
        assert scores.regions["mask_free"].dice == pytest.approx(2 * 3 / (3 + 4))  # 0.9, 0.8 and 0.8 of four
        assert scores.regions["validation"].dice == scores.regions["half"].dice
        assert scores.regions["half"].dice == scores.dice
        assert scores.regions["half"].background_iou == pytest.approx(2 / 5)
        assert scores.regions["oracle"].dice >= scores.dice
        assert scores.boxes.iou_30 == 1.0
        assert (scores.patients, scores.images_without_roi) == (2, 0)
        assert scores.over_teacher == {}

    def test_a_fixed_threshold_is_not_called_validation(self) -> None:
        regions = evaluate(TWO_IMAGES).scores.regions
        assert math.isnan(regions["validation"].threshold)
        assert not math.isnan(regions["half"].dice)

    def test_false_positive_area_of_images_without_region_of_interest(self) -> None:
        normal = batch_of([[0.9, 0.6, 0.1, 0.1]], [[0, 0, 0, 0]], class_idx=[0], predicted=[0], start=2)
        scores = evaluate(TWO_IMAGES, normal).scores
        assert scores.images_without_roi == 1
        assert scores.regions["half"].false_positive_share == 0.5

    def test_each_image_has_its_average_precision_and_patient(self) -> None:
        domain = EvaluationDomain(
            name="colon", classes=("a", "b"), batches=[TWO_IMAGES], patients={"image_0": "p", "image_1": ""}
        )
        (evaluation,) = evaluate_domain(
            {ModelName.PIXELCAM: RedChannel()},
            domain,
            fitted={ModelName.PIXELCAM: Fitted(HALF, math.nan)},
            map_size=2,
            resampling=FEW,
            device=CPU,
        )
        assert evaluation.images.patient == ["p", ""]
        assert evaluation.images["ap"].tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 1.0])

    def test_intervals_go_over_patients(self) -> None:
        images = batch_of([[0.9] * 4] * 4, [[1, 0, 0, 0]] * 4, class_idx=[0, 0, 1, 1], predicted=[0] * 4)
        names = images.image_ids
        of_one = evaluate_patients(images, dict.fromkeys(names, "one"))
        of_two = evaluate_patients(images, dict(zip(names, "aabb", strict=True)))
        assert (of_one.patients, of_two.patients) == (1, 2)
        assert math.isnan(of_one.intervals["accuracy"].low)
        assert (of_two.intervals["accuracy"].low, of_two.intervals["accuracy"].high) == (0.0, 1.0)

    def test_pixelcam_is_set_beside_its_teacher_on_the_same_resamples(self) -> None:
        _, pixelcam = evaluate_both(TWO_IMAGES)
        assert set(pixelcam.over_teacher) == {"pxap", "dice", "accuracy", "balanced_accuracy"}
        # PixelCAM has 25/28, of the first image alone 5/6, of the second 1; the teacher 1/2 of whichever. Either image
        # makes up a quarter of the resamples alone, and on none of the 100 is the teacher as good.
        expected = {"difference": 11 / 28, "low": 1 / 3, "high": 1 / 2, "p_value": 2 / 101}
        assert asdict(pixelcam.over_teacher["pxap"]) == pytest.approx(expected)
        assert pixelcam.over_teacher["accuracy"] == Difference(difference=0, low=0, high=0, p_value=1)

    def test_models_that_are_scored_one_after_the_other_have_the_same_resamples(self) -> None:
        batches = (TWO_IMAGES, LAST_BATCH, TWO_IMAGES_RIGHT)
        localizers: dict[ModelName, Localizer] = {ModelName.TEACHER: TrueClass(), ModelName.PIXELCAM: RedChannel()}

        def score(domain: str, *models: ModelName) -> tuple[Evaluation, ...]:
            return evaluate_domain(
                {model: localizers[model] for model in models},
                EvaluationDomain(name=domain, classes=("a", "b"), batches=batches),
                fitted=dict.fromkeys(ModelName, Fitted(HALF, math.nan)),
                map_size=2,
                resampling=FEW,
                device=CPU,
            )

        teacher, pixelcam = score("colon", *ModelName)
        (other_teacher,), (alone,) = score("lymph_node", ModelName.TEACHER), score("colon", ModelName.PIXELCAM)
        assert list(alone.resamples) == list(pixelcam.scores.over_teacher)
        for name, together in pixelcam.scores.over_teacher.items():
            difference = getattr(alone.scores, name) - getattr(teacher.scores, name)
            assert compare(alone.resamples[name], teacher.resamples[name], difference=difference) == together
            assert together.low < together.high, "the test could not fail"
        assert other_teacher.resamples["pxap"].tolist() != teacher.resamples["pxap"].tolist()

    def test_a_class_map_is_scored_for_the_predicted_class_too(self) -> None:
        # The teacher's map is 1 for class 1 and 0 for class 0, and both images are predicted as class 0.
        masks = [[0, 0, 0, 0], [1, 1, 1, 0]]
        teacher, pixelcam = evaluate_both(batch_of([[0.1] * 4, [0.9] * 4], masks, class_idx=[0, 1], predicted=[0, 0]))
        assert teacher.pxap == 0.75
        assert teacher.pxap_predicted_class == pytest.approx(3 / 8)
        assert pixelcam.pxap_predicted_class == pixelcam.pxap

    @pytest.mark.parametrize("depth", [1, 3])
    def test_what_is_done_behind_changes_no_score(self, depth: int) -> None:
        batches = (TWO_IMAGES, LAST_BATCH, TWO_IMAGES_RIGHT)
        localizers: dict[ModelName, Localizer] = {ModelName.TEACHER: TrueClass(), ModelName.PIXELCAM: RedChannel()}
        domain = EvaluationDomain(name="colon", classes=("a", "b"), batches=batches)
        at_once, behind = (
            evaluate_domain(
                localizers,
                domain,
                fitted=dict.fromkeys(ModelName, Fitted(HALF, math.nan)),
                map_size=2,
                resampling=FEW,
                device=CPU,
                depth=each,
            )
            for each in (0, depth)
        )
        for one, other in zip(at_once, behind, strict=True):
            assert values(one.scores) == values(other.scores)
            assert rows(one) == rows(other)

    def test_large_maps_are_scored_as_small_ones_are(self) -> None:
        # Enlarged by repeating pixels, so that every share stays; large ones are measured in threads.
        def enlarged(maps: Tensor) -> Tensor:
            return maps.repeat_interleave(64, -1).repeat_interleave(64, -2)

        large = replace(TWO_IMAGES, images=enlarged(TWO_IMAGES.images), masks=enlarged(TWO_IMAGES.masks))
        domain = EvaluationDomain(name="colon", classes=("benign", "malignant"), batches=[large])
        (found,) = evaluate_domain(
            {ModelName.PIXELCAM: RedChannel()},
            domain,
            fitted={ModelName.PIXELCAM: Fitted(HALF, 2.0)},
            map_size=128,
            resampling=FEW,
            device=CPU,
        )
        small = evaluate(TWO_IMAGES)
        for column in ("ap", "dice", "iou", "false_positive_share"):
            assert found.images[column].tolist() == pytest.approx(small.images[column].tolist())
        assert found.scores.boxes == small.scores.boxes

    def test_a_domain_without_images_is_an_error(self) -> None:
        with pytest.raises(PixelCAMError, match="'colon' has no test images"):
            evaluate()

    def test_logits_for_a_class_the_domain_does_not_name_are_an_error(self) -> None:
        domain = EvaluationDomain(name="colon", classes=("benign",), batches=[LAST_BATCH])
        with pytest.raises(ValueError, match="class indices"):
            evaluate_domain(
                {ModelName.PIXELCAM: RedChannel()},
                domain,
                fitted={ModelName.PIXELCAM: Fitted(HALF, math.nan)},
                map_size=2,
                resampling=FEW,
                device=CPU,
            )


class TestLocalize:
    def test_a_small_map_is_interpolated_between_its_centres(self) -> None:
        resized = resize_maps(torch.tensor([[[0.0, 1.0]]]), map_size=4)
        assert resized.shape == (1, 4, 4)
        assert resized[0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]

    def test_a_map_that_is_not_square_covers_the_whole_image(self) -> None:
        maps = localize(Constant(0.25, size=(3, 5)), TWO_IMAGES, map_size=2, device=CPU).maps
        assert maps.tolist() == [[[0.25, 0.25], [0.25, 0.25]]] * 2

    def test_the_model_alone_runs_in_another_precision(self) -> None:
        weight = torch.eye(4) / 3

        def by_matrix(images: Tensor, class_idx: Tensor) -> Localization:
            flat = images[:, 0].flatten(1) @ weight
            assert flat.dtype == torch.bfloat16
            return Localization(flat[:, class_idx], flat.view(-1, 2, 2))

        found = localize(
            by_matrix, TWO_IMAGES, map_size=2, device=CPU, autocast=partial(torch.autocast, "cpu", dtype=torch.bfloat16)
        )
        assert found.maps.dtype == found.image_logits.dtype == torch.float32
        torch.testing.assert_close(found.maps, TWO_IMAGES.images[:, 0] / 3, rtol=0.01, atol=0)

    def test_rounding_past_the_ends_is_forgiven(self) -> None:
        assert set(resize_maps(torch.tensor([[[-1e-6, 1 + 1e-6]]]), map_size=2).flatten().tolist()) == {0.0, 1.0}

    @pytest.mark.parametrize("value", [math.nan, 1.1, -0.1])
    def test_a_map_off_the_scale_is_refused(self, value: float) -> None:
        with pytest.raises(PixelCAMError, match=r"\[0, 1\]"):
            localize(Constant(value), TWO_IMAGES, map_size=2, device=CPU)

    def test_logits_that_are_not_finite_are_refused(self) -> None:
        with pytest.raises(PixelCAMError, match="not finite"):
            localize(Constant(0.5, logit=math.nan), TWO_IMAGES, map_size=2, device=CPU)


class TestFitOnValidation:
    def fit(self, *batches: EvaluationBatch, rule: ThresholdRule = ThresholdRule.VALIDATION_MASKS) -> Fitted:
        localizers = {ModelName.PIXELCAM: RedChannel()}
        fitted = fit_on_validation(localizers, batches, rule=rule, presumed=PRESUMED, map_size=2, device=CPU)
        return fitted[ModelName.PIXELCAM]

    def choose(self, *batches: EvaluationBatch) -> Threshold:
        return self.fit(*batches).threshold

    def test_temperature_is_fitted_on_all_images_with_mask_or_without(self) -> None:
        # Three of four right at logits 10 and 0: confidence 3/4 means that they should differ by log(3).
        batch = batch_of(
            [[0.5] * 4] * 4,
            [[1, 0, 0, 0]] * 4,
            class_idx=[0, 0, 0, 1],
            predicted=[0, 0, 0, 0],
            has_mask=[True, False, False, False],
        )
        assert self.fit(batch).temperature == pytest.approx(10 / math.log(3), rel=1e-4)

    def test_temperature_is_undefined_where_all_are_right(self) -> None:
        assert math.isnan(self.fit(TWO_IMAGES_RIGHT).temperature)
        assert math.isnan(self.fit().temperature)

    def test_takes_the_best_dice_of_all_batches(self) -> None:
        first = batch_of([[0.9, 0.6, 0.2, 0.1]], [[1, 1, 0, 0]], class_idx=[0], predicted=[0])
        second = batch_of([[0.5, 0.4, 0.2, 0.1]], [[1, 0, 0, 0]], class_idx=[0], predicted=[0])
        assert self.choose(first, second) == Threshold(0.45, ThresholdSource.VALIDATION)

    def test_masks_that_must_not_be_used_are_not(self) -> None:
        both = batch_of(
            [[0.9, 0.6, 0.2, 0.2], [0.1, 0.9, 0.9, 0.9]],
            [[1, 1, 0, 0], [1, 0, 0, 0]],
            class_idx=[0, 0],
            predicted=[0, 0],
            has_mask=[True, False],
        )
        assert self.choose(both).value == 0.4

    @pytest.mark.parametrize("has_mask", [[False, False], [True, False]])
    def test_is_fixed_where_there_is_no_foreground_to_choose_by(self, has_mask: list[bool]) -> None:
        batch = batch_of(
            [[0.9, 0.1, 0.1, 0.1]] * 2,
            [[0, 0, 0, 0], [1, 1, 1, 1]],
            class_idx=[0, 1],
            predicted=[0, 1],
            has_mask=has_mask,
        )
        assert self.choose(batch) == HALF

    @pytest.mark.parametrize("rule", ThresholdRule)
    def test_is_fixed_without_images(self, rule: ThresholdRule) -> None:
        fitted = self.fit(rule=rule)
        assert fitted.threshold == HALF
        assert math.isnan(fitted.mask_free)
        assert fitted.correction is None

    def test_both_thresholds_are_known_and_the_rule_says_which_is_used(self) -> None:
        batch = batch_of([[0.9, 0.6, 0.2, 0.1]], [[1, 0, 0, 0]], class_idx=[0], predicted=[0])
        by_masks, by_maps = (self.fit(batch, rule=rule) for rule in ThresholdRule)
        assert by_masks.threshold == Threshold(0.75, ThresholdSource.VALIDATION)
        assert by_maps.threshold == Threshold(by_maps.mask_free, ThresholdSource.MASK_FREE)
        assert (by_masks.validation, by_masks.mask_free) == (by_maps.validation, by_maps.mask_free)

    def test_the_threshold_without_masks_looks_at_none(self) -> None:
        maps, classes = [[0.9, 0.6, 0.2, 0.1], [0.8, 0.7, 0.3, 0.3]], [0, 1]
        found = [
            self.fit(batch_of(maps, masks, class_idx=classes, predicted=classes, has_mask=known, ignore=ignore))
            for masks, known, ignore in (
                ([[1, 0, 0, 0], [1, 1, 0, 0]], [True, True], None),
                ([[0, 0, 0, 0], [0, 0, 1, 1]], [False, False], [[0, 0, 0, 1]] * 2),
            )
        ]
        assert found[0].mask_free == found[1].mask_free
        assert found[0].correction == found[1].correction
        # By symmetry about 0.5 hardly any shift gives the mean 0.5.
        assert found[0].correction is not None
        assert found[0].correction.shift == pytest.approx(0, abs=0.2)
