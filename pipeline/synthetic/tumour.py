"""Malignant glands and nests: irregular, back-to-back, fused or budding, with cribriform or slit-like dirty lumens."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.synthetic.frame import FIELD_WIDTH, BoolMap, FloatMap, Frame, ramp, scatter, smooth_noise, thin
from pipeline.synthetic.glands import Glands, distance_within, measure_glands

CellMap = npt.NDArray[np.intp]  # (H, W), the number of the cell a pixel is in


@dataclass(frozen=True)
class TumourStyle:
    """How one tumour grows; lengths in micrometres."""

    share: float  # of the image that the tumour takes
    spacing: float  # between the centres of neighbouring glands
    elongation: float
    fusion: float  # share of neighbours that are one
    septum: float  # half the stroma between neighbours
    roughness: float  # how far the outline wanders
    clustering: float  # 0 spread evenly, 1 in one place
    slits: float  # share of the glands with a central lumen
    holes: float  # probability of a cribriform lumen where there is room
    cell_height: float
    buds: float  # detached groups of cells, expected number


def draw_gland_tumour(rng: np.random.Generator, *, share: float) -> TumourStyle:
    """Draw a gland-forming adenocarcinoma of the colon."""
    cribriform = rng.random() < 0.4
    spacing = rng.uniform(70.0, 105.0) if cribriform else rng.uniform(46.0, 84.0)
    return TumourStyle(
        share=share,
        spacing=spacing,
        elongation=rng.uniform(1.0, 1.9),
        fusion=rng.uniform(0.15, 0.4) if cribriform else rng.uniform(0.0, 0.2),
        septum=rng.uniform(2.5, 6.0),
        roughness=rng.uniform(1.6, 3.2),
        clustering=rng.uniform(0.2, 1.0),
        slits=rng.uniform(0.4, 0.9) if cribriform else rng.uniform(0.8, 1.0),
        holes=rng.uniform(0.6, 1.0) if cribriform else rng.uniform(0.0, 0.08),
        cell_height=float(np.clip(rng.uniform(0.22, 0.33) * spacing, 11.0, 24.0)),
        buds=rng.uniform(1.0, 6.0),
    )


def draw_metastasis(rng: np.random.Generator, *, share: float) -> TumourStyle:
    """Draw the nests of a metastasis in a lymph node; some form glands."""
    gland_forming = rng.random() < 0.6
    spacing = rng.uniform(42.0, 95.0)
    return TumourStyle(
        share=share,
        spacing=spacing,
        elongation=rng.uniform(1.0, 1.7),
        fusion=rng.uniform(0.1, 0.6),
        septum=rng.uniform(2.5, 6.0),
        roughness=rng.uniform(2.0, 3.6),
        clustering=rng.uniform(0.4, 1.0),
        slits=rng.uniform(0.4, 0.9) if gland_forming else 0.02,
        holes=rng.uniform(0.2, 0.7) if gland_forming else 0.01,
        cell_height=float(np.clip(rng.uniform(0.24, 0.36) * spacing, 12.0, 26.0)),
        buds=rng.uniform(2.0, 9.0),
    )


def grow_tumour(rng: np.random.Generator, frame: Frame, style: TumourStyle) -> Glands:
    """Return the maps of a tumour: a warped honeycomb of glands, some fused, some left out, with buds and lumens."""
    field, slit_gland = _honeycomb(rng, frame, style)
    field += style.roughness * (0.8 * smooth_noise(rng, frame, 22.0) + 0.5 * smooth_noise(rng, frame, 9.0))
    inside = field > style.septum
    inside |= _buds(rng, frame, style, inside)
    inside = _without_specks(frame, inside)
    depth = distance_within(frame, inside)
    lumen = _lumens(rng, frame, style, depth, slit_gland)
    return measure_glands(frame, inside, lumen)


def _honeycomb(rng: np.random.Generator, frame: Frame, style: TumourStyle) -> tuple[FloatMap, FloatMap]:
    """Return the signed distance to the nearest border of a chosen cell, and 1 where cells have a central lumen."""
    y, x = frame.grid()
    theta = rng.uniform(0.0, np.pi)
    warp = 0.2 * style.spacing
    y = y + warp * smooth_noise(rng, frame, 0.9 * style.spacing)
    x = x + warp * smooth_noise(rng, frame, 0.9 * style.spacing)
    # The cells need no more than two micrometres' resolution: the field is smoothed afterwards anyway.
    step = max(1, frame.size // 128)
    y, x = y[::step, ::step], x[::step, ::step]
    root = np.sqrt(style.elongation)
    across = (y * np.cos(theta) - x * np.sin(theta)) * root
    along = (y * np.sin(theta) + x * np.cos(theta)) / root
    reach = FIELD_WIDTH * 1.6 * root
    candidates = rng.uniform(-reach, reach, (int(7 * (2 * reach / style.spacing) ** 2), 2))
    centres = thin(rng, candidates.astype(np.float32), 0.8 * style.spacing)
    places = np.stack([across.ravel(), along.ravel()], axis=1)
    distance, cell = (np.asarray(part) for part in cKDTree(centres).query(places, k=2))
    shape = y.shape
    nearest, second = (cell[:, i].reshape(shape) for i in range(2))
    margin = ((distance[:, 1] - distance[:, 0]) / 2.0).reshape(shape).astype(np.float32)
    chosen = _choose_cells(rng, nearest, margin, len(centres), style)
    # A pair of cells is fused or not whatever the order of the two.
    mixed = (np.minimum(nearest, second) * 7919 + np.maximum(nearest, second) * 104729) % 1000
    fused = (mixed < 1000 * style.fusion) & chosen[nearest] & chosen[second]
    signed = np.where(chosen[nearest], margin, -margin)
    field = np.where(fused, np.maximum(signed, 6.0), signed)
    has_slit = (rng.random(len(centres)) < style.slits)[nearest]
    field, has_slit = (np.kron(part, np.ones((step, step), part.dtype)) for part in (field, has_slit))
    extent = (slice(0, frame.size), slice(0, frame.size))
    smooth = ndimage.gaussian_filter(field[extent], 3.0 * frame.scale, truncate=2.0)
    slits = ndimage.gaussian_filter(has_slit[extent].astype(np.float32), 4.0 * frame.scale, truncate=2.0)
    return smooth.astype(np.float32), ramp(slits, low=0.4, high=0.7)


def _choose_cells(
    rng: np.random.Generator, nearest: CellMap, margin: FloatMap, count: int, style: TumourStyle
) -> BoolMap:
    """Return which cells are tumour: from a random focus outwards until the wanted share is reached."""
    # Septa take their part of the cells.
    areas = np.bincount(nearest[margin > 0.9 * style.septum], minlength=count) / nearest.size
    seen = np.flatnonzero(areas)
    focus = rng.choice(seen)
    rows, columns = np.divmod(np.arange(nearest.size), nearest.shape[1])
    total = np.maximum(np.bincount(nearest.ravel(), minlength=count), 1)
    centre_y = np.bincount(nearest.ravel(), weights=rows, minlength=count) / total / nearest.shape[0]
    centre_x = np.bincount(nearest.ravel(), weights=columns, minlength=count) / total / nearest.shape[1]
    remoteness = np.hypot(centre_y - centre_y[focus], centre_x - centre_x[focus])
    score = style.clustering * remoteness + (1.0 - style.clustering) * rng.random(count)
    order = seen[np.argsort(score[seen], kind="stable")]
    number = int(np.argmin(np.abs(np.cumsum(areas[order]) - style.share))) + 1
    chosen = np.zeros(count, dtype=bool)
    chosen[order[:number]] = True
    return chosen


def _buds(rng: np.random.Generator, frame: Frame, style: TumourStyle, inside: BoolMap) -> BoolMap:
    """Return small groups of cells that lie apart in the stroma."""
    room = ~inside
    if not room.any():
        return np.zeros_like(inside)
    places = scatter(rng, frame, room.astype(np.float32), spacing=18.0)[: rng.poisson(style.buds)]
    y, x = frame.grid()
    wobble = 2.0 * smooth_noise(rng, frame, 9.0)
    buds = np.zeros_like(inside)
    for place in places:
        aspect = rng.uniform(0.6, 1.6)
        distance = np.hypot((y - place[0]) * aspect, (x - place[1]) / aspect)
        buds |= distance + wobble < rng.uniform(5.0, 9.0)
    return buds


def _without_specks(frame: Frame, inside: BoolMap) -> BoolMap:
    """Drop parts too small to hold a cell."""
    labels, count = ndimage.label(inside)
    areas = np.bincount(np.asarray(labels).ravel(), minlength=count + 1) / frame.scale**2
    large = areas >= 40.0
    large[0] = False
    return np.asarray(large[labels])


def _lumens(
    rng: np.random.Generator, frame: Frame, style: TumourStyle, depth: FloatMap, slit_gland: FloatMap
) -> FloatMap:
    """Return slit-like lumens deep inside glands and round, punched-out ones wherever there is room."""
    ragged = 1.1 * smooth_noise(rng, frame, 8.0) + 0.9 * smooth_noise(rng, frame, 16.0)
    height = style.cell_height * (1.0 + 0.22 * smooth_noise(rng, frame, 40.0))
    lumen = ramp(depth - height + ragged, low=-1.0, high=1.0) * slit_gland
    room = ((depth > 7.5) & (lumen < 0.1)).astype(np.float32) * np.float32(style.holes)
    y, x = frame.grid()
    for place in scatter(rng, frame, room, spacing=rng.uniform(15.0, 21.0)):
        radius = min(rng.uniform(2.5, 7.0), float(frame.sample(depth, place[None])[0]) - 3.5)
        distance = np.hypot(y - place[0], x - place[1]) + ragged
        lumen = np.maximum(lumen, ramp(distance - np.float32(radius), low=1.0, high=-1.0))
    return (lumen * (depth > 2.0)).astype(np.float32)
