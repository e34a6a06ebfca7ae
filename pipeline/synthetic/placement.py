"""Where cells stand: points that keep their distance, denser where the tissue is denser."""

import numpy as np
from scipy.spatial import cKDTree

from pipeline.synthetic.frame import FIELD_WIDTH, FloatMap, Frame, Points

_MARGIN = 6.0  # micrometres beyond the field, so that cells are cut by its border


def thin(rng: np.random.Generator, points: Points, spacing: float) -> Points:
    """Return a maximal random subset of the points with no two closer than `spacing` micrometres."""
    count = len(points)
    if count < 2:
        return points
    pairs = cKDTree(points).query_pairs(spacing, output_type="ndarray")
    rank = rng.permutation(count)
    # Of each close pair the lower rank goes, unless it is gone already: all local winners at once, a few rounds.
    undecided = np.ones(count, dtype=bool)
    kept = np.zeros(count, dtype=bool)
    first = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    winners, losers = np.where(first, pairs[:, 0], pairs[:, 1]), np.where(first, pairs[:, 1], pairs[:, 0])
    while undecided.any():
        live = undecided[winners] & undecided[losers]
        winners, losers = winners[live], losers[live]
        beaten = np.zeros(count, dtype=bool)
        beaten[losers] = True
        new = undecided & ~beaten
        kept |= new
        undecided &= ~new
        undecided[losers[new[winners]]] = False
    return points[kept]


def scatter(rng: np.random.Generator, frame: Frame, presence: FloatMap, *, spacing: float) -> Points:
    """Return points (N, 2) at least `spacing` apart: as dense as they come where `presence` (H, W) is 1, none at 0."""
    side = FIELD_WIDTH + 2.0 * _MARGIN
    candidates = rng.uniform(-_MARGIN, FIELD_WIDTH + _MARGIN, (int(2.5 * (side / spacing) ** 2), 2)).astype(np.float32)
    wanted = rng.random(len(candidates)) < frame.sample(presence, candidates)
    return thin(rng, candidates[wanted], spacing)


def pack(rng: np.random.Generator, frame: Frame, presence: FloatMap, *, spacing: float, jitter: float) -> Points:
    """Return a dense, nearly hexagonal packing of points, each kept with probability `presence` (H, W).

    `jitter` is the displacement's standard deviation in units of `spacing` (micrometres).
    """
    rows = np.arange(-_MARGIN, FIELD_WIDTH + _MARGIN, spacing * np.sqrt(3.0) / 2.0)
    columns = np.arange(-_MARGIN, FIELD_WIDTH + _MARGIN, spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x = x + (np.arange(len(rows)) % 2 * spacing / 2.0)[:, None]
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    points = (points + rng.normal(0.0, jitter * spacing, points.shape)).astype(np.float32)
    return points[rng.random(len(points)) < frame.sample(presence, points)]
