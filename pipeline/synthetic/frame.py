"""A frame of physical coordinates, the points that are scattered in it, and random fields over it.

All is laid out in micrometres, so an image of any size shows the same kind of tissue.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

FloatMap = npt.NDArray[np.float32]  # (H, W), or (N) for values at points
BoolMap = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]  # (N, 2), micrometres, y before x

FIELD_WIDTH = 160.0  # micrometres: 1.6 pixels per micrometre, a 16x scan, at 256 px


@dataclass(frozen=True)
class Frame:
    """A square field of view, `FIELD_WIDTH` micrometres wide, sampled on `size` x `size` pixels."""

    size: int

    @property
    def scale(self) -> float:
        """Pixels per micrometre."""
        return self.size / FIELD_WIDTH

    def axis(self) -> FloatMap:
        """Return the pixel centres along one side: float32 (size), micrometres."""
        return ((np.arange(self.size) + 0.5) / self.scale).astype(np.float32)

    def grid(self) -> tuple[FloatMap, FloatMap]:
        """Return y as (size, 1) and x as (1, size), micrometres, to broadcast."""
        axis = self.axis()
        return axis[:, None], axis[None, :]

    def blank(self, value: float = 0.0) -> FloatMap:
        """Return a constant map, float32 (size, size)."""
        return np.full((self.size, self.size), value, dtype=np.float32)

    def sample(self, values: FloatMap, points: Points) -> FloatMap:
        """Return a map's values at points (N, 2), nearest pixel; points outside take the border's value."""
        rows, columns = np.clip(np.floor(points.T * self.scale).astype(np.intp), 0, self.size - 1)
        return np.asarray(values[rows, columns], dtype=np.float32)


def ramp(values: FloatMap, *, low: float, high: float) -> FloatMap:
    """Rise linearly from 0 at `low` to 1 at `high`, constant beyond."""
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0), dtype=np.float32)


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


_SPLINE_STD = 0.479  # standard deviation of cubic B-spline noise on a unit grid of standard normals
_FIBRE_TILE = 384  # side of the fibre texture, micrometres; larger than the field's diagonal


def smooth_noise(rng: np.random.Generator, frame: Frame, wavelength: float) -> FloatMap:
    """Return noise of about zero mean and unit variance, varying over `wavelength` micrometres: float32 (H, W).

    Cubic B-splines on a random grid: twice differentiable, and four taps a side whatever the wavelength.
    """
    knots = int(np.ceil(FIELD_WIDTH / wavelength)) + 5
    grid = rng.standard_normal((knots, knots), dtype=np.float32) / np.float32(_SPLINE_STD)
    rows = _interpolate(grid, frame.axis() / wavelength + rng.random())
    return np.ascontiguousarray(_interpolate(np.ascontiguousarray(rows.T), frame.axis() / wavelength + rng.random()).T)


def _interpolate(grid: FloatMap, positions: FloatMap) -> FloatMap:
    """Evaluate cubic B-splines along the first axis: (knots, N), positions (M) in knots -> (M, N)."""
    first = np.floor(positions).astype(np.intp)
    t = (positions - first).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    values = weights[0] * grid[first]
    for tap in range(1, 4):
        values += weights[tap] * grid[first + tap]
    return np.asarray(values / np.float32(6.0), dtype=np.float32)


def grain(rng: np.random.Generator, frame: Frame, width: float) -> FloatMap:
    """Return fine noise with a correlation width in micrometres, unit variance: float32 (H, W)."""
    noise = rng.standard_normal((frame.size, frame.size), dtype=np.float32)
    sigma = width * frame.scale
    if sigma < 0.3:
        return noise
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    return (smooth / max(float(smooth.std()), 1e-6)).astype(np.float32)


def fibres(rng: np.random.Generator, frame: Frame, *, length: float, waviness: float) -> tuple[FloatMap, FloatMap]:
    """Return a wavy fibre texture and the fibres' direction.

    Args:
        rng: the source of randomness.
        frame: the field of view.
        length: correlation along a fibre, micrometres.
        waviness: how far fibres bend, micrometres.

    Returns:
        texture (H, W), about zero mean and unit variance; direction (H, W), radians, 0 along x, towards growing y.
    """
    y, x = frame.grid()
    theta = rng.uniform(0.0, np.pi)
    along = x * np.cos(theta) + y * np.sin(theta) + waviness * smooth_noise(rng, frame, 60.0)
    bend = waviness * smooth_noise(rng, frame, 70.0) + 0.25 * waviness * smooth_noise(rng, frame, 24.0)
    crimp = 0.08 * waviness * np.sin(along / rng.uniform(4.0, 7.0))
    across = -x * np.sin(theta) + y * np.cos(theta) + bend + crimp
    tile = rng.standard_normal((_FIBRE_TILE, _FIBRE_TILE), dtype=np.float32)
    tile = ndimage.gaussian_filter(tile, (0.9, length), mode="wrap", truncate=2.5)
    tile /= tile.std()
    texture = ndimage.map_coordinates(tile, [across, along], order=1, mode="grid-wrap", output=np.float32)
    gradient_y, gradient_x = np.gradient(across)
    direction = np.arctan2(gradient_x, -gradient_y).astype(np.float32) + np.float32(np.pi)
    return texture, direction
