"""Glands: what all have in common, and benign ones, crypts with basal nuclei, goblet cells and a central lumen."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.synthetic.frame import FIELD_WIDTH, BoolMap, FloatMap, Frame, Points, ramp
from pipeline.synthetic.stains import StainMaps


@dataclass(frozen=True)
class Glands:
    """The glands of a field of view. Maps are (H, W); lengths in micrometres."""

    inside: BoolMap  # the region of interest, lumens included
    depth: FloatMap  # distance from the outline inwards, 0 outside
    clearance: FloatMap  # distance from the outline outwards, 0 inside
    lumen: FloatMap  # 1 in a lumen, 0 in the epithelium, soft between

    @property
    def share(self) -> float:
        """Share of the image inside glands."""
        return float(self.inside.mean())

    def epithelium(self) -> FloatMap:
        """Return 1 in the epithelium, 0 in lumens and outside."""
        return (self.inside * (1.0 - self.lumen)).astype(np.float32)


def measure_glands(frame: Frame, inside: BoolMap, lumen: FloatMap) -> Glands:
    """Measure distances from the outline of `inside` (H, W)."""
    return Glands(inside, distance_within(frame, inside), distance_within(frame, ~inside), lumen)


def distance_within(frame: Frame, region: BoolMap) -> FloatMap:
    """Return the distance to the region's border from inside it, micrometres, 0 outside; the image border is none."""
    if region.all():
        return frame.blank(1e3)
    pixels = ndimage.distance_transform_edt(region)
    return (np.maximum(np.asarray(pixels) - 0.5, 0.0) / frame.scale).astype(np.float32)


def inward_angle(frame: Frame, glands: Glands, points: Points) -> FloatMap:
    """Return at points (N, 2) the direction perpendicular to the nearest outline, radians, 0 along x."""
    signed = ndimage.gaussian_filter(glands.depth - glands.clearance, 3.5 * frame.scale, truncate=2.0)
    gradient_y, gradient_x = (np.asarray(part, dtype=np.float32) for part in np.gradient(signed))
    return np.arctan2(frame.sample(gradient_y, points), frame.sample(gradient_x, points))


def add_basement_membrane(stains: StainMaps, glands: Glands, *, strength: float) -> StainMaps:
    """Darken a thin eosinophilic line right outside the outline."""
    line = ramp(glands.clearance, low=2.4, high=1.2) * (glands.clearance > 0.0)
    return StainMaps(stains.haematoxylin, stains.eosin + np.float32(strength) * line)


_HARMONICS = np.arange(2, 6)


@dataclass(frozen=True)
class Crypt:
    """A crypt's outline in polar coordinates around its centre; lengths in micrometres."""

    y: float
    x: float
    radius: float
    aspect: float
    angle: float
    amplitudes: FloatMap  # (4), share of the radius
    phases: FloatMap  # (4)
    lumen: float  # lumen's share of the radius

    def outline(self, theta: FloatMap) -> FloatMap:
        """Return the distance of the outline from the centre in directions `theta`, radians."""
        turned = theta - np.float32(self.angle)
        root = np.sqrt(self.aspect)
        ellipse = self.radius / np.sqrt((np.cos(turned) / root) ** 2 + (np.sin(turned) * root) ** 2)
        wave = np.zeros_like(turned)
        for harmonic, amplitude, phase in zip(_HARMONICS, self.amplitudes, self.phases, strict=True):
            wave += amplitude * np.cos(harmonic * turned + phase)
        return np.asarray(ellipse * (1.0 + wave), dtype=np.float32)


@dataclass(frozen=True)
class CryptStyle:
    """What the crypts of one slide share."""

    radius: float
    aspect: float
    angle: float  # along which elongated crypts lie
    irregularity: float
    gap: float  # stroma between neighbours at least
    lumen: float


def draw_crypt_style(rng: np.random.Generator, *, share: float) -> CryptStyle:
    """Draw how a slide's crypts look; a larger share of glands takes narrower gaps."""
    cut_lengthwise = rng.random() < 0.25
    return CryptStyle(
        radius=rng.uniform(27.0, 46.0),
        aspect=rng.uniform(1.6, 2.3) if cut_lengthwise else rng.uniform(1.0, 1.35),
        angle=rng.uniform(0.0, np.pi),
        irregularity=rng.uniform(0.008, 0.028),
        gap=float(np.interp(share, [0.3, 0.6], [9.0, 4.0])),
        lumen=rng.uniform(0.10, 0.36),
    )


def draw_adenoma_style(rng: np.random.Generator, *, share: float) -> CryptStyle:
    """Draw how the crypts of an adenoma look: long tubes side by side, with narrow lumens and little stroma between."""
    return CryptStyle(
        radius=rng.uniform(28.0, 44.0),
        aspect=rng.uniform(2.0, 3.2),
        angle=rng.uniform(0.0, np.pi),
        irregularity=rng.uniform(0.01, 0.04),
        gap=float(np.interp(share, [0.3, 0.6], [6.0, 2.5])),
        lumen=rng.uniform(0.08, 0.28),
    )


def place_crypts(rng: np.random.Generator, style: CryptStyle, *, share: float) -> list[Crypt]:
    """Return crypts in a loose hexagonal array, none touching, that cover about `share` of the field."""
    theta = np.linspace(0.0, 2.0 * np.pi, 33, dtype=np.float32)[:-1]
    crypts: list[Crypt] = []
    for y, x in _lattice(rng, style, share=share):
        radius = style.radius * float(np.exp(rng.normal(0.0, 0.10)))
        for shrunk in radius * np.array([1.0, 0.9, 0.8, 0.7]):
            candidate = _draw_crypt(rng, style, y=y, x=x, radius=float(shrunk))
            if _fits(candidate, crypts, style.gap, theta):
                crypts.append(candidate)
                break
    return crypts


def _lattice(rng: np.random.Generator, style: CryptStyle, *, share: float) -> Points:
    """Return centres (N, 2), in random order, on a stretched and turned hexagonal lattice with jitter."""
    pitch = style.radius * np.sqrt(2.0 * np.pi / (np.sqrt(3.0) * share))
    reach = int(np.ceil(1.2 * FIELD_WIDTH / pitch * np.sqrt(style.aspect))) + 1
    row, column = (index.ravel() for index in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    jitter = rng.normal(0.0, 0.09, (2, row.size))
    turn = rng.uniform(0.0, np.pi)
    flat_y, flat_x = row * np.sqrt(3.0) / 2.0 + jitter[0], column + row % 2 / 2.0 + jitter[1]
    # A randomly turned lattice, then stretched along the crypts.
    turned_y, turned_x = flat_y * np.cos(turn) - flat_x * np.sin(turn), flat_y * np.sin(turn) + flat_x * np.cos(turn)
    along, across = turned_x * np.sqrt(style.aspect), turned_y / np.sqrt(style.aspect)
    y = pitch * (along * np.sin(style.angle) + across * np.cos(style.angle)) + rng.uniform(0.0, FIELD_WIDTH)
    x = pitch * (along * np.cos(style.angle) - across * np.sin(style.angle)) + rng.uniform(0.0, FIELD_WIDTH)
    margin = style.radius * np.sqrt(style.aspect)
    near = (np.abs(y - FIELD_WIDTH / 2) < FIELD_WIDTH / 2 + margin) & (
        np.abs(x - FIELD_WIDTH / 2) < FIELD_WIDTH / 2 + margin
    )
    return rng.permutation(np.stack([y[near], x[near]], axis=1).astype(np.float32))


def _draw_crypt(rng: np.random.Generator, style: CryptStyle, *, y: float, x: float, radius: float) -> Crypt:
    return Crypt(
        y=float(y),
        x=float(x),
        radius=radius,
        aspect=style.aspect * float(np.exp(rng.normal(0.0, 0.06))),
        angle=style.angle + rng.normal(0.0, 0.15),
        amplitudes=rng.normal(0.0, style.irregularity, 4).astype(np.float32),
        phases=rng.uniform(0.0, 2.0 * np.pi, 4).astype(np.float32),
        lumen=style.lumen * rng.uniform(0.6, 1.3),
    )


def _fits(candidate: Crypt, others: list[Crypt], gap: float, theta: FloatMap) -> bool:
    """Check that the candidate's outline, widened by `gap`, stays out of all others."""
    reach = candidate.outline(theta) + gap
    y, x = candidate.y + reach * np.sin(theta), candidate.x + reach * np.cos(theta)
    for other in others:
        dy, dx = y - other.y, x - other.x
        if (np.hypot(dy, dx) < other.outline(np.arctan2(dy, dx))).any():
            return False
        if np.hypot(candidate.y - other.y, candidate.x - other.x) < other.radius:
            return False
    return True


def crypt_glands(rng: np.random.Generator, frame: Frame, crypts: list[Crypt]) -> Glands:
    """Return the maps of the crypts; lumens are star-shaped, with the waves of mucus and microvilli at their rim."""
    inside = np.zeros((frame.size, frame.size), dtype=bool)
    lumen = frame.blank()
    for crypt in crypts:
        reach = crypt.radius * np.sqrt(crypt.aspect) * 1.25
        rows, columns = _window(frame, crypt.y, reach), _window(frame, crypt.x, reach)
        axis = frame.axis()
        dy, dx = (axis[rows] - crypt.y)[:, None], (axis[columns] - crypt.x)[None, :]
        theta = np.arctan2(dy, dx).astype(np.float32)
        outline = crypt.outline(theta)
        distance = np.hypot(dy, dx).astype(np.float32)
        inside[rows, columns] |= distance < outline
        teeth, phase = rng.integers(5, 11), rng.uniform(0.0, 2.0 * np.pi)
        rim = (
            outline
            * np.float32(crypt.lumen)
            * (1.0 + 0.07 * np.sin(teeth * theta + phase) + 0.14 * np.sin(2 * theta - phase))
        )
        lumen[rows, columns] = np.maximum(lumen[rows, columns], ramp(distance - rim, low=1.2, high=-1.2))
    return measure_glands(frame, inside, lumen * inside)


def _window(frame: Frame, centre: float, reach: float) -> slice:
    low, high = (centre - reach) * frame.scale, (centre + reach) * frame.scale
    return slice(int(np.clip(low, 0, frame.size)), int(np.clip(high + 1, 0, frame.size)))


@dataclass(frozen=True)
class Columns:
    """Places along the crypts' outlines, one per columnar cell: float32 (N, 2) and (N)."""

    base: Points
    inward: Points  # unit vectors
    height: FloatMap  # distance from the outline to the lumen, micrometres

    def at(self, depth: FloatMap) -> Points:
        """Return the points `depth` (N) micrometres inside the outline."""
        return (self.base + self.inward * depth[:, None]).astype(np.float32)

    def angle(self) -> FloatMap:
        """Return the direction of the cells' long axis, radians."""
        return np.arctan2(self.inward[:, 0], self.inward[:, 1])


def columns_along(rng: np.random.Generator, crypts: list[Crypt], *, spacing: float) -> Columns:
    """Return places `spacing` micrometres apart along every crypt's outline, a little jittered."""
    parts = [_columns_of(rng, crypt, spacing) for crypt in crypts]
    base, inward, height = (np.concatenate([part[i] for part in parts]).astype(np.float32) for i in range(3))
    return Columns(base, inward, height)


def _columns_of(rng: np.random.Generator, crypt: Crypt, spacing: float) -> tuple[Points, Points, FloatMap]:
    theta = np.linspace(0.0, 2.0 * np.pi, 241, dtype=np.float32)
    radius = crypt.outline(theta)
    y, x = crypt.y + radius * np.sin(theta), crypt.x + radius * np.cos(theta)
    steps = np.hypot(np.diff(y), np.diff(x))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(6, int(length[-1] / spacing))
    places = (np.arange(count) + rng.uniform(-0.22, 0.22, count)) * length[-1] / count % length[-1]
    base = np.stack([np.interp(places, length, y), np.interp(places, length, x)], axis=1)
    tangent = np.stack([np.interp(places, length, np.gradient(y)), np.interp(places, length, np.gradient(x))], axis=1)
    inward = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)  # theta grows from x to y: the left normal points in
    centre = np.array([crypt.y, crypt.x])
    inward *= np.sign(np.sum(inward * (centre - base), axis=1, keepdims=True))
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    height = np.interp(places, length, radius) * (1.0 - crypt.lumen)
    return base, inward, height
