"""Where things lie on a whole slide of a lymph node: pieces of tissue, fat, metastases, a fold, ink and dust.

All are maps on a lattice of `STEP` pixels, so coarse that those of a whole slide fit into memory.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon, find_contours

from pipeline.synthetic.frame import FIELD_WIDTH, BoolMap, FloatMap, Frame, Points, ramp, smooth_noise, thin
from pipeline.synthetic.slide_files import STRIP, Corners

MPP: Final = 0.5  # micrometres per pixel
STEP: Final = 16  # pixels between the nodes of maps
_SPACING: Final = STEP * MPP  # micrometres between them
_NOWHERE: Final = -1e3  # a distance from what is not there
_SMALLEST: Final = 16.0  # radius of a metastasis, micrometres
_LEAST_WITH_HOLE: Final = 40.0  # likewise
_TOLERANCE: Final = 0.08  # of outlines, in nodes
_STREAM: Final = 70  # of random numbers, apart from those of images


def stream(*, seed: int, index: int, metastatic: bool, use: tuple[int, ...]) -> np.random.Generator:
    """Return the random numbers of a slide for one use."""
    return np.random.default_rng(np.random.SeedSequence([seed, index, int(metastatic), _STREAM, *use]))


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """Where things lie. Maps are float32 (rows, columns), their node (i, j) at pixel (i * `STEP`, j * `STEP`).

    Attributes:
        tissue: distance from its outline, micrometres, positive inside; likewise the next five.
        fat: fat.
        collagen: the capsule and trabeculae.
        lesion: metastases without their holes.
        fold: the fold.
        ink: the stroke of a pen.
        stain: how much stronger the slide is stained here than on average, a factor.
        light: of the empty slide, a factor.
        density: of lymphocytes, 0 to 1.
        vacuoles: of the fat, (N, 2), micrometres, y before x.
        dust: specks, (N, 4): y, x and radius in pixels, and the optical density.
        lesions: outlines of metastases.
        holes: outlines of what is spared within.
    """

    tissue: FloatMap
    fat: FloatMap
    collagen: FloatMap
    lesion: FloatMap
    fold: FloatMap
    ink: FloatMap
    stain: FloatMap
    light: FloatMap
    density: FloatMap
    vacuoles: Points
    dust: FloatMap
    lesions: tuple[Corners, ...]
    holes: tuple[Corners, ...]


def plan_slide(*, size: int, metastatic: bool, seed: int, index: int) -> SlidePlan:
    """Draw where everything lies on the slide that `render_slide` paints from the same arguments."""
    rng = stream(seed=seed, index=index, metastatic=metastatic, use=(1,))
    lattice = _Lattice(-(-size // STRIP) * STRIP // STEP + 1, size * MPP)
    tissue, hilum = _draw_tissue(rng, lattice)
    fat, vacuoles = _draw_fat(rng, lattice, hilum, tissue)
    node = np.minimum(tissue, -fat)
    lesion, lesions, holes = _draw_lesions(rng, lattice, node) if metastatic else (lattice.blank(_NOWHERE), (), ())
    return SlidePlan(
        tissue=tissue,
        fat=fat,
        collagen=_draw_collagen(rng, lattice, node, lesion),
        lesion=lesion,
        fold=_draw_fold(rng, lattice, node),
        ink=_draw_ink(rng, lattice, tissue),
        stain=1.0 + np.float32(0.05) * lattice.noise(rng, 700.0),
        light=np.minimum(1.0 + np.float32(0.008) * (lattice.noise(rng, 0.6 * lattice.width) - 1.0), 1.04),
        density=ramp(lattice.noise(rng, 600.0), low=-1.7, high=1.7),
        vacuoles=vacuoles,
        dust=_draw_dust(rng, size),
        lesions=lesions,
        holes=holes,
    )


@dataclass(frozen=True)
class _Lattice:
    """The nodes of a slide's maps: `count` a side, on a slide `width` micrometres wide."""

    count: int
    width: float

    def blank(self, value: float) -> FloatMap:
        """Return a constant map."""
        return np.full((self.count, self.count), value, dtype=np.float32)

    def noise(self, rng: np.random.Generator, wavelength: float) -> FloatMap:
        """Return noise of about unit variance that varies over `wavelength` micrometres."""
        extent = (self.count - 1) * _SPACING
        return smooth_noise(rng, Frame(self.count), wavelength * FIELD_WIDTH / extent)

    def grid(self) -> tuple[FloatMap, FloatMap]:
        """Return y as (count, 1) and x as (1, count), micrometres."""
        axis = (np.arange(self.count) * _SPACING).astype(np.float32)
        return axis[:, None], axis[None, :]

    def distance(self, inside: BoolMap) -> FloatMap:
        """Return the distance from the border of a region, micrometres, positive inside."""
        inner, outer = (np.asarray(ndimage.distance_transform_edt(part)) for part in (inside, ~inside))
        return ndimage.gaussian_filter((inner - outer) * _SPACING, 1.5).astype(np.float32)

    def distance_to(self, curve: Points) -> tuple[FloatMap, FloatMap]:
        """Return the distance to points (N, 2), micrometres, and how far along them the nearest lies, 0 to 1."""
        tree = cKDTree(curve)
        y, x = self.grid()
        rows = [tree.query(np.stack([np.full_like(x[0], row), x[0]], axis=1)) for row in y[:, 0]]
        along = np.stack([nearest for _, nearest in rows]) / (len(curve) - 1)
        return np.stack([distance for distance, _ in rows]).astype(np.float32), along.astype(np.float32)


def _blob(
    rng: np.random.Generator,
    lattice: _Lattice,
    centre: Points,
    radius: float,
    *,
    roughness: float,
    aspect: float = 1.7,
) -> FloatMap:
    """Return about the distance from the outline of a ragged ellipse, micrometres, positive inside."""
    y, x = lattice.grid()
    theta, root = rng.uniform(0.0, np.pi), np.sqrt(rng.uniform(1.0, aspect))
    along = (x - centre[1]) * np.cos(theta) + (y - centre[0]) * np.sin(theta)
    across = (y - centre[0]) * np.cos(theta) - (x - centre[1]) * np.sin(theta)
    rough = lattice.noise(rng, 1.1 * radius) + 0.5 * lattice.noise(rng, max(0.4 * radius, 30.0))
    ragged = roughness * radius * rough + 0.3 * np.sqrt(radius) * lattice.noise(rng, 30.0)
    return np.asarray(radius - np.hypot(along / root, across * root) + ragged, dtype=np.float32)


def _draw_tissue(rng: np.random.Generator, lattice: _Lattice) -> tuple[FloatMap, Points]:
    """Return the distance from the outline of one or two pieces, and a place on the outline for the hilum."""
    width, share = lattice.width, rng.uniform(0.28, 0.38)
    if rng.random() < 0.5:
        sides, radius = [rng.uniform(-0.06, 0.06) * width], 0.33 * width
    else:
        sides, radius = [-0.28 * width, 0.28 * width], 0.24 * width
    # Along a diagonal, where there is most room.
    turn = np.pi * (0.25 + 0.5 * rng.integers(4)) + rng.uniform(-0.2, 0.2)
    towards = np.array([np.sin(turn), np.cos(turn)])
    raw = np.maximum.reduce(
        [
            _blob(rng, lattice, (0.5 * width + side * towards).astype(np.float32), radius, roughness=0.1, aspect=1.35)
            for side in sides
        ]
    )
    y, x = lattice.grid()
    margin = np.minimum(np.minimum(y, width - y), np.minimum(x, width - x))
    raw -= 8.0 / width * np.maximum(0.14 * width - margin, 0.0) ** 2
    on_slide = (y < width) & (x < width)
    tissue = lattice.distance(raw > np.quantile(raw[on_slide], 1.0 - share))
    places = np.argwhere(np.abs(tissue) < _SPACING)
    return tissue, places[rng.integers(len(places))].astype(np.float32) * np.float32(_SPACING)


def _draw_fat(rng: np.random.Generator, lattice: _Lattice, hilum: Points, tissue: FloatMap) -> tuple[FloatMap, Points]:
    """Return the distance from the outline of the fat at the hilum, and its vacuoles (N, 2), micrometres."""
    fat = _blob(rng, lattice, hilum, rng.uniform(0.08, 0.12) * lattice.width, roughness=0.2)
    fat = np.minimum(fat, tissue - 4.0)
    places = np.argwhere(fat > -60.0) * _SPACING
    vacuoles = thin(
        rng, (places + rng.uniform(0.0, _SPACING, places.shape)).astype(np.float32), rng.uniform(34.0, 44.0)
    )
    return fat, vacuoles


def _draw_collagen(rng: np.random.Generator, lattice: _Lattice, node: FloatMap, lesion: FloatMap) -> FloatMap:
    """Return the distance from the outline of the capsule and of trabeculae, which leave metastases alone."""
    wavelength = 420.0
    strand = np.abs(lattice.noise(rng, wavelength)) + 0.7 * np.maximum(lattice.noise(rng, wavelength), 0.0)
    trabecula = np.minimum(6.0 - 0.4 * wavelength * strand, -lesion - 15.0)
    return np.asarray(np.maximum(11.0 - node, trabecula), dtype=np.float32)


def _draw_lesions(
    rng: np.random.Generator, lattice: _Lattice, node: FloatMap
) -> tuple[FloatMap, tuple[Corners, ...], tuple[Corners, ...]]:
    """Return the distance from the outline of metastases, and the outlines of these and of a hole in the first."""
    largest = min(0.13 * lattice.width, 1300.0)
    radii = [largest * rng.uniform(0.8, 1.0)]
    radii += sorted(min(largest, 750.0) * rng.uniform(0.2, 0.6, rng.integers(1, 5)), reverse=True)
    radii += [min(rng.uniform(38.0, 58.0), 0.3 * largest)]
    total, lesions, holes = lattice.blank(_NOWHERE), [], []
    for number, wanted in enumerate(radii):
        found = _find_place(rng, node, total, wanted)
        if found is None:
            continue
        place, radius = found
        lesion = _blob(rng, lattice, place, radius, roughness=0.13, aspect=1.2 if number == len(radii) - 1 else 1.7)
        lesion = _whole(np.minimum(np.minimum(lesion, node - 12.0), -total - 30.0))
        lesions.append(_outline(lesion))
        if number == 0 and radius > _LEAST_WITH_HOLE:
            hole = _blob(rng, lattice, place, 0.25 * radius, roughness=0.1)
            hole = _whole(np.minimum(hole, lesion - 0.1 * radius))
            holes.append(_outline(hole))
            lesion = np.minimum(lesion, -hole)
        total = np.maximum(total, lesion)
    return total, tuple(lesions), tuple(holes)


def _find_place(
    rng: np.random.Generator, node: FloatMap, others: FloatMap, radius: float
) -> tuple[Points, float] | None:
    """Return a place (2) in the node away from other lesions, and the radius for which there is room, or None."""
    while radius > _SMALLEST:
        free = (node > 0.75 * radius + 15.0) & (others < -1.5 * radius - 60.0)
        if free.any():
            places = np.argwhere(free)
            return places[rng.integers(len(places))].astype(np.float32) * np.float32(_SPACING), radius
        radius *= 0.85
    return None


def _whole(region: FloatMap) -> FloatMap:
    """Keep the largest part of where a map is positive, and fill its holes."""
    labels = np.asarray(ndimage.label(region > 0.0)[0])
    areas = np.bincount(labels.ravel())
    kept = ndimage.binary_fill_holes(labels == 1 + np.argmax(areas[1:]))
    return np.where(kept, np.maximum(region, 1.0), np.minimum(region, -1.0)).astype(np.float32)


def _outline(region: FloatMap) -> Corners:
    """Return the outline of where a map is positive: x and y in pixels, float64 (N, 2)."""
    longest = max(find_contours(region, 0.0), key=len)  # type: ignore[no-untyped-call]
    corners = approximate_polygon(longest, _TOLERANCE)  # type: ignore[no-untyped-call]
    return np.asarray(corners[:-1, ::-1] * float(STEP), dtype=np.float64)


def _draw_fold(rng: np.random.Generator, lattice: _Lattice, tissue: FloatMap) -> FloatMap:
    """Return the distance from the outline of a fold that crosses a part of the tissue."""
    places = np.argwhere(tissue > 0.4 * tissue.max())
    middle = places[rng.integers(len(places))] * _SPACING
    distance, along = lattice.distance_to(_curve(rng, middle, rng.uniform(0.15, 0.3) * lattice.width, bend=0.25))
    width = min(rng.uniform(12.0, 22.0), 0.012 * lattice.width) * (1.0 + 0.3 * lattice.noise(rng, 120.0))
    return np.asarray(width * np.sqrt(1.0 - (2.0 * along - 1.0) ** 2) - 2.0 - distance, dtype=np.float32)


def _draw_ink(rng: np.random.Generator, lattice: _Lattice, tissue: FloatMap) -> FloatMap:
    """Return the distance from the outline of a pen's stroke, the one of several that meets least tissue."""

    def misplaced(stroke: Points) -> float:
        nodes = np.clip(np.rint(stroke / _SPACING).astype(np.intp), 0, lattice.count - 1)
        outside = ((stroke < 0.0) | (stroke > lattice.width)).any(axis=1)
        return float((tissue[nodes[:, 0], nodes[:, 1]] > -40.0).mean() + 0.7 * outside.mean())

    strokes = [
        _curve(rng, rng.uniform(0.1, 0.9, 2) * lattice.width, rng.uniform(0.3, 0.5) * lattice.width, bend=0.2)
        for _ in range(24)
    ]
    width = min(rng.uniform(70.0, 130.0), 0.025 * lattice.width) * (1.0 + 0.12 * lattice.noise(rng, 150.0))
    return np.asarray(width - lattice.distance_to(min(strokes, key=misplaced))[0], dtype=np.float32)


def _curve(rng: np.random.Generator, middle: NDArray[np.float64], length: float, *, bend: float) -> Points:
    """Return points (600, 2) of a bent line, micrometres."""
    along = np.linspace(0.0, 1.0, 600)
    theta, phase = rng.uniform(0.0, 2.0 * np.pi, 2)
    across = bend * length * (np.sin(np.pi * along) + 0.15 * np.sin(5.0 * along + phase) - 0.6)
    ahead = (along - 0.5) * length
    turned = np.cos(theta) * across - np.sin(theta) * ahead, np.sin(theta) * across + np.cos(theta) * ahead
    return (np.stack(turned, axis=1) + middle).astype(np.float32)


def _draw_dust(rng: np.random.Generator, size: int) -> FloatMap:
    """Return specks (N, 4): y, x and radius in pixels, and the optical density."""
    count = int(rng.integers(4, 9)) + size // 512
    places, radii = rng.uniform(0.0, size, (count, 2)), np.exp(rng.uniform(np.log(3.0), np.log(22.0), (count, 1)))
    return np.concatenate([places, radii, rng.uniform(0.15, 0.9, (count, 1))], axis=1).astype(np.float32)
