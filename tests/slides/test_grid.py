import numpy as np
import pytest

from pipeline.slides.grid import draw_tiles, lay_grid


def test_squares_with_enough_tissue_are_taken_row_by_row() -> None:
    tissue = np.zeros((4, 6), dtype=np.bool_)
    tissue[0:2, 0:2] = True
    tissue[2, 4] = True
    corners = lay_grid(tissue, scale=16, side=32, step=32, least=0.5)
    assert corners.tolist() == [[0, 0]]
    assert lay_grid(tissue, scale=16, side=32, step=32, least=0.25).tolist() == [[0, 0], [64, 32]]
    assert lay_grid(tissue, scale=16, side=32, step=32, least=0).tolist() == [[0, 0], [64, 32]]


def test_shares_are_exact_where_squares_cut_pixels() -> None:
    tissue = np.ones((1, 2), dtype=np.bool_)
    tissue[0, 1] = False
    # A square from 0 to 15 of pixels that are 10 wide and 10 high: a tenth of its area is off the slide.
    assert len(lay_grid(tissue, scale=10, side=15, step=15, least=100 / 225)) == 1
    assert len(lay_grid(tissue, scale=10, side=15, step=15, least=101 / 225)) == 0


def test_overlapping_squares_reach_the_end() -> None:
    tissue = np.ones((8, 8), dtype=np.bool_)
    corners = lay_grid(tissue, scale=1, side=4, step=2, least=0)
    assert sorted(set(corners[:, 0].tolist())) == [0, 2, 4]
    assert len(corners) == 9
    assert lay_grid(tissue, scale=1, side=5, step=2, least=0)[:, 0].max() == 4
    assert lay_grid(tissue, scale=1, side=20, step=10, least=0).tolist() == [[0, 0]]


@pytest.mark.parametrize("most", [1, 5, 9, 100])
def test_lesions_are_all_kept_and_others_drawn(most: int) -> None:
    lesion = np.zeros(20, dtype=np.bool_)
    lesion[[3, 8, 15]] = True
    drawn = draw_tiles(lesion, most=most, rng=np.random.default_rng(0))
    assert set(np.flatnonzero(lesion)) <= set(drawn)
    assert len(drawn) == max(3, min(most, 20))
    assert (np.diff(drawn) > 0).all()


def test_another_seed_draws_others() -> None:
    lesion = np.zeros(50, dtype=np.bool_)
    one, again, other = (draw_tiles(lesion, most=10, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
