"""Random fields: the slow variation, grain and wavy fibres that keep flat areas from looking drawn."""

import numpy as np
from scipy import ndimage

from pipeline.synthetic.frame import FIELD_WIDTH, FloatMap, Frame

_SPLINE_STD = 0.479  # standard deviation of cubic B-spline noise on a unit grid of standard normals
_FIBRE_TILE = 384  # side of the fibre texture, micrometres; larger than the field's diagonal


def smooth_noise(rng: np.random.Generator, frame: Frame, wavelength: float) -> FloatMap:
    """Return noise of about zero mean and unit variance, varying over `wavelength` micrometres: float32 (H, W).

    Cubic B-splines on a random grid: two small matrix products, and twice differentiable.
    """
    knots = int(np.ceil(FIELD_WIDTH / wavelength)) + 5
    weights = [_spline_weights(frame.axis() / wavelength + rng.random() + 1.0, knots) for _ in range(2)]
    grid = rng.standard_normal((knots, knots), dtype=np.float32)
    return (weights[0] @ grid @ weights[1].T / _SPLINE_STD).astype(np.float32)


def _spline_weights(positions: FloatMap, knots: int) -> FloatMap:
    distance = np.abs(positions[:, None] - np.arange(knots, dtype=np.float32)[None, :])
    near = 2.0 / 3.0 - distance**2 * (1.0 - distance / 2.0)
    far = np.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    return np.where(distance < 1.0, near, far).astype(np.float32)


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
