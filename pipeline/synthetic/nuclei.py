"""Cells as stamps: many soft ellipses with chromatin, rim and nucleolus, written into maps at once."""

from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.frame import FloatMap, Frame, Points
from pipeline.synthetic.stains import StainMaps

_CHUNK = 400_000  # stamp pixels computed at once: bounds the memory at any image size


@dataclass(frozen=True)
class Nucleus:
    """A kind of nucleus; each one varies around it."""

    major: float  # half-axes, micrometres
    minor: float
    size_spread: float  # standard deviation of the logarithm of the size
    strength: float  # amount of haematoxylin
    strength_spread: float
    pallor: float  # 0 solid, 1 empty inside a dark membrane
    lobing: float = 0.05  # how far the outline departs from an ellipse, share of the radius
    nucleolus: float = 0.0  # extra haematoxylin in a nucleolus


@dataclass(frozen=True)
class Cells:
    """Nuclei to stamp; every array float32 (N), lengths in micrometres, angles in radians."""

    points: Points  # (N, 2)
    major: FloatMap
    minor: FloatMap
    angle: FloatMap
    strength: FloatMap
    pallor: FloatMap
    lobing: FloatMap
    nucleolus: FloatMap

    def resized(self, *, major: float, minor: float) -> "Cells":
        """Return the same cells with both half-axes multiplied."""
        return Cells(
            self.points,
            self.major * np.float32(major),
            self.minor * np.float32(minor),
            self.angle,
            self.strength,
            self.pallor,
            self.lobing,
            self.nucleolus,
        )


@dataclass(frozen=True)
class Stamped:
    """What stamping gives: float32 (H, W) each; `cover` in [0, 1], `strength` the amount of haematoxylin."""

    cover: FloatMap
    strength: FloatMap


def draw_cells(rng: np.random.Generator, points: Points, kind: Nucleus, *, angle: FloatMap | None = None) -> Cells:
    """Draw a nucleus of a kind at each point; without `angle` (N), in any direction."""
    count = len(points)
    size = np.exp(rng.normal(0.0, kind.size_spread, count))
    aspect = np.exp(rng.normal(0.0, kind.size_spread / 2.0, count))
    chosen = rng.uniform(0.0, np.pi, count) if angle is None else angle
    strength = kind.strength * np.exp(rng.normal(0.0, kind.strength_spread, count))
    return Cells(
        points=points,
        major=(kind.major * size * aspect).astype(np.float32),
        minor=(kind.minor * size / aspect).astype(np.float32),
        angle=np.asarray(chosen, dtype=np.float32),
        strength=strength.astype(np.float32),
        pallor=np.clip(rng.normal(kind.pallor, 0.12, count), 0.0, 0.9).astype(np.float32),
        lobing=rng.normal(0.0, kind.lobing, count).astype(np.float32),
        nucleolus=(kind.nucleolus * (rng.random(count) < 0.7)).astype(np.float32),
    )


def stamp(frame: Frame, cells: Cells) -> Stamped:
    """Write all cells into maps; where two overlap, the stronger value stands."""
    cover = frame.blank().ravel()
    strength = frame.blank().ravel()
    if len(cells.points):
        reach = int(np.ceil(float(np.maximum(cells.major, cells.minor).max()) * frame.scale * 1.15 + 1.0))
        step = max(1, _CHUNK // (2 * reach + 1) ** 2)
        for start in range(0, len(cells.points), step):
            _stamp_chunk(frame, cells, slice(start, start + step), reach, cover, strength)
    shape = (frame.size, frame.size)
    return Stamped(cover.reshape(shape), strength.reshape(shape))


def _stamp_chunk(frame: Frame, cells: Cells, chunk: slice, reach: int, cover: FloatMap, strength: FloatMap) -> None:
    """Write some cells into the flat maps `cover` and `strength`, in place."""
    centre = cells.points[chunk] * np.float32(frame.scale) - np.float32(0.5)
    corner = np.rint(centre).astype(np.intp)
    offset = np.arange(-reach, reach + 1)
    rows, columns = corner[:, 0, None] + offset, corner[:, 1, None] + offset
    dy = ((rows - centre[:, 0, None]) / frame.scale).astype(np.float32)[:, :, None]
    dx = ((columns - centre[:, 1, None]) / frame.scale).astype(np.float32)[:, None, :]

    def each(values: FloatMap) -> FloatMap:
        return values[chunk, None, None]

    cosine, sine = np.cos(each(cells.angle)), np.sin(each(cells.angle))
    u = (dx * cosine + dy * sine) / each(cells.major)
    v = (dy * cosine - dx * sine) / each(cells.minor)
    square = u * u + v * v
    radius = np.sqrt(square)
    # The third harmonic cos(3 phi) as a polynomial: an outline with three soft corners or dents.
    radius = radius * (1.0 + each(cells.lobing) * u * (u * u - 3.0 * v * v) / (square * radius + 0.1))
    soft = 1.0 / frame.scale
    edge = np.clip((1.0 - radius) * each(np.minimum(cells.major, cells.minor)) / soft + 0.5, 0.0, 1.0)
    body = 1.0 - each(cells.pallor) * np.clip(1.0 - square, 0.0, 1.0)
    spot = np.exp(-8.0 * ((u - 0.2) ** 2 + (v + 0.15) ** 2)) * each(cells.nucleolus)
    amount = edge * (each(cells.strength) * body + spot)
    inside = ((rows >= 0) & (rows < frame.size))[:, :, None] & ((columns >= 0) & (columns < frame.size))[:, None, :]
    inside &= edge > 0.0
    flat = (rows[:, :, None] * frame.size + columns[:, None, :])[inside]
    np.maximum.at(cover, flat, edge[inside])
    np.maximum.at(strength, flat, amount[inside])


def add_nuclei(stains: StainMaps, stamped: Stamped, *, chromatin: FloatMap) -> StainMaps:
    """Lay nuclei over stain maps; `chromatin` (H, W), zero mean, makes them clumpy. Some cytoplasm shines through."""
    nuclear = stamped.strength * np.maximum(1.0 + 0.22 * chromatin, 0.2)
    return StainMaps(
        stains.haematoxylin * (1.0 - 0.6 * stamped.cover) + nuclear,
        stains.eosin * (1.0 - 0.8 * stamped.cover) + np.float32(0.12) * stamped.cover,
    )
