"""The bootstrap against the slow way: images repeated as often as their patient was drawn, scored by scikit-learn."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from pipeline.metrics import bootstrap, pixel_histogram
from pipeline.metrics.bootstrap import ImageTable, Interval, compare, interval, resample, score_weighted
from pipeline.metrics.pixel_histogram import HistogramRows

NAN = float("nan")
PIXELS = 30


def random_images(
    seed: int, *, images: int, bins: int = 12
) -> tuple[ImageTable, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return a table, and the pixels it was counted from: steps (N, P) and truth (N, P)."""
    generator = np.random.default_rng(seed)
    steps = generator.choice(np.linspace(0, 1000, bins).astype(np.int64), (images, PIXELS))
    truth = generator.random((images, PIXELS)) < 0.4
    class_idx = np.arange(images) % 3
    histograms = HistogramRows()
    for step, foreground in zip(steps, truth, strict=True):
        pair = [np.bincount(step[chosen], minlength=1001) for chosen in (foreground, ~foreground)]
        histograms.append(np.array([pair], dtype=np.int32))
    table = ImageTable(
        histograms=histograms,
        correct=generator.random(images) < 0.6,
        class_idx=class_idx,
        threshold=0.454,
    )
    return table, steps, truth


@pytest.mark.parametrize("seed", range(4))
def test_weights_count_images_as_often_as_they_say(seed: int) -> None:
    table, steps, truth = random_images(seed, images=7)
    weights = np.random.default_rng(seed).integers(0, 4, (5, 7))
    found = score_weighted(table, weights, np.arange(7))
    for row, counts in enumerate(weights):
        drawn = np.repeat(np.arange(7), counts)
        values, target = steps[drawn].ravel(), truth[drawn].ravel()
        assert found["pxap"][row] == pytest.approx(average_precision_score(target, values), abs=1e-9)
        assert found["dice"][row] == pytest.approx(f1_score(target, values >= 454), abs=1e-9)
        assert found["accuracy"][row] == pytest.approx(table.correct[drawn].mean())
        predicted = np.where(table.correct, table.class_idx, 99)[drawn]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            expected = balanced_accuracy_score(table.class_idx[drawn], predicted)
        assert found["balanced_accuracy"][row] == pytest.approx(expected)


def test_images_of_one_patient_go_together() -> None:
    table, _, _ = random_images(0, images=4)
    table = ImageTable(**(vars(table) | {"correct": np.array([True, True, False, False])}))
    found = resample({"a": table}, groups=np.array([0, 0, 1, 1]), resamples=300, seed=0)["a"]["accuracy"]
    assert set(found.tolist()) == {0.0, 0.5, 1.0}
    assert found.mean() == pytest.approx(0.5, abs=0.1)


def test_models_share_their_resamples_and_the_seed_decides() -> None:
    table, _, _ = random_images(1, images=9)
    twice = resample({"a": table, "b": table}, groups=np.arange(9), resamples=150, seed=3)
    again = resample({"b": table}, groups=np.arange(9), resamples=150, seed=3)
    other = resample({"b": table}, groups=np.arange(9), resamples=150, seed=4)
    for score, values in twice["a"].items():
        assert len(values) == 150
        assert np.array_equal(values, twice["b"][score])
        assert np.array_equal(values, again["b"][score])
    assert not np.array_equal(again["b"]["pxap"], other["b"]["pxap"])


def test_how_many_are_taken_at_a_time_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _, _ = random_images(1, images=9)
    before = resample({"a": table}, groups=np.arange(9), resamples=150, seed=3)["a"]
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 60)  # six resamples
    monkeypatch.setattr(bootstrap, "BLOCK", 40)
    monkeypatch.setattr(pixel_histogram, "ROWS_AT_ONCE", 4)
    after = resample({"a": table}, groups=np.arange(9), resamples=150, seed=3)["a"]
    for score, values in before.items():
        assert np.array_equal(values, after[score], equal_nan=True)


def test_a_group_may_be_drawn_more_often_than_a_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lopsided:
        def multinomial(self, draws: int, _even: object, size: int) -> npt.NDArray[np.int64]:
            found = np.zeros((size, draws), dtype=np.int64)
            found[:, :2] = draws - 1, 1
            return found

    table, _, _ = random_images(0, images=300)
    table = ImageTable(**(vars(table) | {"correct": np.arange(300) == 0}))
    monkeypatch.setattr(np.random, "default_rng", lambda _seed: Lopsided())
    found = resample({"a": table}, groups=np.arange(300), resamples=3, seed=0)["a"]["accuracy"]
    assert found.tolist() == pytest.approx([299 / 300] * 3)


def test_the_spread_is_that_of_a_mean() -> None:
    images = 50
    table, _, _ = random_images(2, images=images)
    correct = np.arange(images) < 30
    table = ImageTable(**(vars(table) | {"correct": correct}))
    found = resample({"a": table}, groups=np.arange(images), resamples=2000, seed=0)["a"]["accuracy"]
    assert found.std() == pytest.approx(np.sqrt(0.6 * 0.4 / images), rel=0.1)
    bounds = interval(found)
    assert bounds.low == pytest.approx(0.46, abs=0.03)
    assert bounds.high == pytest.approx(0.74, abs=0.03)


def test_a_single_patient_says_nothing_of_others() -> None:
    table, _, _ = random_images(3, images=4)
    found = resample({"a": table}, groups=np.zeros(4, dtype=np.int64), resamples=10, seed=0)["a"]
    assert all(np.isnan(values).all() for values in found.values())


def test_without_foreground_localization_is_undefined_and_accuracy_is_not() -> None:
    table, _, _ = random_images(4, images=4)
    histograms = HistogramRows()
    for block in table.histograms.blocks():
        histograms.append(block * np.array([[[0], [1]]], dtype=np.int32))
    table = ImageTable(**(vars(table) | {"histograms": histograms}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = resample({"a": table}, groups=np.arange(4), resamples=20, seed=0)["a"]
    assert np.isnan(found["pxap"]).all()
    assert np.isnan(found["dice"]).all()
    assert not np.isnan(found["accuracy"]).any()
    assert np.isnan(interval(found["pxap"]).low)


class TestInterval:
    def test_by_hand_and_without_what_is_undefined(self) -> None:
        values = np.append(np.arange(1001) / 1000, np.nan)
        assert interval(values) == Interval(low=pytest.approx(0.025), high=pytest.approx(0.975))  # type: ignore[arg-type]


class TestCompare:
    def test_of_equals(self) -> None:
        values = np.random.default_rng(0).random(50)
        found = compare(values, values, difference=0.0)
        assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)

    def test_a_difference_on_every_resample_is_as_sure_as_their_number_allows(self) -> None:
        values = np.random.default_rng(0).random(999)
        found = compare(values + 1, values, difference=1.0)
        assert found.p_value == pytest.approx(2 / 1000)
        assert [found.low, found.high] == pytest.approx([1.0, 1.0])
        assert compare(values, values + 1, difference=-1.0).p_value == found.p_value

    def test_p_value_by_hand(self) -> None:
        values = np.array([-1.0, 1.0, 2.0, 3.0, np.nan])
        assert compare(values, np.zeros(5), difference=1.0).p_value == pytest.approx(2 * (1 + 1) / 5)

    def test_is_undefined_where_either_is(self) -> None:
        found = compare(np.array([NAN, 1.0]), np.array([1.0, NAN]), difference=NAN)
        assert np.isnan([found.low, found.high, found.p_value]).all()
