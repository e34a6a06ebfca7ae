"""Random fields: the slow variation, grain and wavy fibres that keep flat areas from looking drawn."""

import numpy as np
from scipy import ndimage

from pipeline.synthetic.frame import FIELD_WIDTH, FloatMap, Frame

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
