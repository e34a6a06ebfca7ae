import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.slides.heat import CERTAIN, NOT_LOOKED_AT, Heat, quantize
from pipeline.slides.peaks import APART, LEAST, find_peaks


def heat_of(probabilities: NDArray[np.float32], *, pixel_size: float = 50.0) -> Heat:
    """Return a map whose pixels are so large that smoothing changes next to nothing."""
    values = quantize(probabilities, seen=np.ones(probabilities.shape, dtype=np.bool_))
    return Heat(values, stride=pixel_size / 0.5, mpp=0.5)


def blank() -> NDArray[np.float32]:
    return np.zeros((20, 30), dtype=np.float32)


def test_each_spot_is_a_point_with_the_surest_first() -> None:
    probabilities = blank()
    probabilities[4, 5], probabilities[12, 20] = 0.5, 0.9
    points, scores = find_peaks(heat_of(probabilities))
    assert points.tolist() == [[20.5 * 100, 12.5 * 100], [5.5 * 100, 4.5 * 100]]
    assert scores == pytest.approx([0.9, 0.5], abs=0.05)


def test_nothing_has_no_peak() -> None:
    points, scores = find_peaks(heat_of(blank()))
    assert points.shape == (0, 2)
    assert scores.shape == (0,)
    faint = np.full((20, 30), LEAST / 2, dtype=np.float32)
    assert len(find_peaks(heat_of(faint)).scores) == 0


def test_of_two_close_spots_the_surer_counts() -> None:
    for distance, count in ((1, 1), (2, 1), (3, 2)):
        assert (distance * 50 > APART) == (count == 2)
        probabilities = blank()
        probabilities[5, 5], probabilities[5, 5 + distance] = 0.6, 0.8
        points, _ = find_peaks(heat_of(probabilities))
        assert len(points) == count
        assert points[0, 0] == (5.5 + distance) * 100


def test_a_plateau_is_one_peak() -> None:
    probabilities = blank()
    probabilities[5:9, 5:9] = 1
    assert len(find_peaks(heat_of(probabilities)).scores) == 1


def test_what_was_not_looked_at_has_none() -> None:
    values = np.full((20, 30), NOT_LOOKED_AT, dtype=np.uint8)
    values[3, 3] = CERTAIN
    points, _ = find_peaks(Heat(values, stride=100.0, mpp=0.5))
    assert points.tolist() == [[350.0, 350.0]]


def test_a_single_pixel_is_smoothed_away_where_pixels_are_small() -> None:
    probabilities = blank()
    probabilities[10, 10] = 1
    assert len(find_peaks(heat_of(probabilities, pixel_size=2.0)).scores) == 0
