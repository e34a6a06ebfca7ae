"""Between the glands: collagen, spindle cells, inflammatory cells, vessels, clefts; the same stuff in either class."""

from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.frame import FloatMap, Frame, Points, fibres, ramp, scatter, smooth_noise
from pipeline.synthetic.nuclei import Nucleus, add_nuclei, draw_cells, stamp
from pipeline.synthetic.stains import StainMaps

LYMPHOCYTE = Nucleus(
    major=2.7, minor=2.45, size_spread=0.10, strength=1.15, strength_spread=0.16, pallor=0.12, lobing=0.06
)
PLASMA_CELL = Nucleus(
    major=2.7, minor=2.4, size_spread=0.10, strength=1.05, strength_spread=0.14, pallor=0.3, lobing=0.05
)
FIBROBLAST = Nucleus(major=5.2, minor=1.25, size_spread=0.22, strength=0.95, strength_spread=0.2, pallor=0.15)
PLUMP_FIBROBLAST = Nucleus(
    major=5.0, minor=2.0, size_spread=0.25, strength=0.8, strength_spread=0.2, pallor=0.4, nucleolus=0.2
)


@dataclass(frozen=True)
class StromaStyle:
    """What the stroma of one slide is like."""

    eosin: float  # mean amount
    fibrosis: float  # 0 loose, 1 dense wavy collagen
    waviness: float  # micrometres
    spindle_spacing: float  # micrometres between spindle cells
    inflammation: float  # presence of lymphocytes and plasma cells, 0 to 1
    patchiness: float  # 0 even, 1 in patches
    aggregates: float  # share of the stroma, about, where lymphocytes are packed
    clefts: float  # width of white clefts around glands, micrometres
    muscle: float  # 0, or the strength of a smooth muscle band
    vessels: int


def draw_stroma_style(rng: np.random.Generator) -> StromaStyle:
    """Draw a stroma."""
    return StromaStyle(
        eosin=rng.uniform(0.30, 0.62),
        fibrosis=rng.uniform(0.0, 1.0),
        waviness=rng.uniform(4.0, 14.0),
        spindle_spacing=rng.uniform(8.5, 14.0),
        inflammation=rng.uniform(0.3, 0.95),
        patchiness=rng.uniform(0.2, 0.9),
        aggregates=rng.uniform(0.1, 0.5) if rng.random() < 0.65 else 0.0,
        clefts=rng.uniform(1.0, 5.0) if rng.random() < 0.4 else 0.0,
        muscle=rng.uniform(0.6, 1.0) if rng.random() < 0.3 else 0.0,
        vessels=int(rng.integers(0, 4)),
    )


def lay_stroma(rng: np.random.Generator, frame: Frame, clearance: FloatMap, style: StromaStyle) -> StainMaps:
    """Return the stroma of a whole field of view; glands are laid over it.

    `clearance` (H, W) is the distance to the nearest gland in micrometres: spindle cells keep off the glands' inside,
    and clefts open around them.
    """
    texture, direction = fibres(rng, frame, length=2.0 + 5.0 * style.fibrosis, waviness=style.waviness)
    loose = smooth_noise(rng, frame, 35.0)
    muscle = np.float32(style.muscle) * ramp(smooth_noise(rng, frame, 110.0), low=0.5, high=0.7)
    strand = 1.0 + (0.10 + 0.20 * style.fibrosis) * texture + 0.16 * loose
    fine = 1.0 + 0.15 * smooth_noise(rng, frame, 4.0)
    eosin = style.eosin * np.maximum(strand, 0.12) * fine * (1.0 + 0.55 * muscle)
    stains = StainMaps(
        haematoxylin=(0.10 + 0.04 * texture + 0.02 * loose).clip(0.0).astype(np.float32), eosin=eosin.astype(np.float32)
    )
    stains = _open_gaps(rng, frame, stains, clearance, style, texture)
    stains = _add_vessels(rng, frame, stains, clearance, style)
    stains = _add_spindle_cells(rng, frame, stains, clearance, direction, style)
    return _add_inflammation(rng, frame, stains, clearance, 1.0 - np.minimum(muscle, 1.0), style)


def _open_gaps(
    rng: np.random.Generator,
    frame: Frame,
    stains: StainMaps,
    clearance: FloatMap,
    style: StromaStyle,
    texture: FloatMap,
) -> StainMaps:
    """Open clefts around glands and tears between fibres, as shrinkage leaves them."""
    width = style.clefts * (0.5 + 0.9 * smooth_noise(rng, frame, 30.0))
    cleft = ramp(width - np.abs(clearance - 2.5), low=-0.8, high=1.0) * ramp(clearance, low=0.2, high=1.4)
    tears = ramp(smooth_noise(rng, frame, 26.0) - 0.25 * texture, low=1.4, high=1.75) * (clearance > 4.0)
    gap = 0.94 * np.maximum(cleft * (style.clefts > 0.0), tears)
    return stains.over(gap.astype(np.float32), haematoxylin=0.02, eosin=0.02)


def _add_vessels(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, clearance: FloatMap, style: StromaStyle
) -> StainMaps:
    """Add capillaries: a thin wall around red blood cells or an empty lumen."""
    y, x = frame.grid()
    wobble = 1.2 * smooth_noise(rng, frame, 10.0)
    blood = 1.0 + 0.3 * smooth_noise(rng, frame, 4.5)
    for place in scatter(rng, frame, (clearance > 6.0).astype(np.float32), spacing=30.0)[: style.vessels]:
        theta, stretch = rng.uniform(0.0, np.pi), rng.uniform(1.0, 2.6)
        along = (x - place[1]) * np.cos(theta) + (y - place[0]) * np.sin(theta)
        across = (y - place[0]) * np.cos(theta) - (x - place[1]) * np.sin(theta)
        radius = rng.uniform(4.0, 8.0)
        distance = np.hypot(along / stretch, across) + wobble - np.float32(radius)
        free = (clearance > 1.0).astype(np.float32)
        stains = stains.over(ramp(distance, low=1.8, high=0.8) * free, haematoxylin=0.16, eosin=0.6)
        filling = blood * np.float32(rng.uniform(0.7, 1.1)) if rng.random() < 0.65 else 0.03
        stains = stains.over(ramp(distance, low=0.5, high=-0.5) * free, haematoxylin=0.02, eosin=filling)
    return stains


def _add_spindle_cells(
    rng: np.random.Generator,
    frame: Frame,
    stains: StainMaps,
    clearance: FloatMap,
    direction: FloatMap,
    style: StromaStyle,
) -> StainMaps:
    """Add fibroblasts along the fibres, and along the outline of glands close by."""
    presence = ramp(clearance, low=0.8, high=2.2) * np.float32(0.9)
    points = scatter(rng, frame, presence, spacing=style.spindle_spacing)
    sheath = scatter(rng, frame, ((clearance > 1.4) & (clearance < 3.6)).astype(np.float32), spacing=13.0)
    gradient_y, gradient_x = (np.asarray(part, dtype=np.float32) for part in np.gradient(clearance))
    tangent = np.arctan2(frame.sample(gradient_x, sheath), -frame.sample(gradient_y, sheath))
    angle = frame.sample(direction, points) + rng.normal(0.0, 0.22, len(points)).astype(np.float32)
    plump = rng.random(len(points)) < rng.uniform(0.1, 0.6)
    chromatin = smooth_noise(rng, frame, 1.6)
    for chosen, turned, kind in (
        (points[plump], angle[plump], PLUMP_FIBROBLAST),
        (points[~plump], angle[~plump], FIBROBLAST),
        (sheath, tangent, FIBROBLAST),
    ):
        stains = add_nuclei(stains, stamp(frame, draw_cells(rng, chosen, kind, angle=turned)), chromatin=chromatin)
    return stains


def _add_inflammation(
    rng: np.random.Generator,
    frame: Frame,
    stains: StainMaps,
    clearance: FloatMap,
    allowed: FloatMap,
    style: StromaStyle,
) -> StainMaps:
    """Add lymphocytes and plasma cells, in patches, not in muscle."""
    patches = ramp(style.patchiness * smooth_noise(rng, frame, 45.0), low=-0.8, high=0.8)
    level = float(np.interp(style.aggregates, [0.0, 0.5], [3.0, 0.1]))
    aggregates = ramp(smooth_noise(rng, frame, 70.0), low=level, high=level + 0.15)
    crowd = np.maximum(patches * np.float32(style.inflammation), aggregates)
    presence = ramp(clearance, low=1.2, high=3.5) * allowed * crowd
    points = scatter(rng, frame, presence, spacing=rng.uniform(5.4, 6.6))
    return add_round_cells(rng, frame, stains, points, plasma=rng.uniform(0.1, 0.6))


def add_round_cells(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, points: Points, *, plasma: float
) -> StainMaps:
    """Add lymphocytes at points (N, 2); a share `plasma` of them are plasma cells with a lilac cytoplasm."""
    is_plasma = rng.random(len(points)) < plasma
    plasma_cells = draw_cells(rng, points[is_plasma], PLASMA_CELL)
    body = stamp(frame, plasma_cells.resized(major=1.75, minor=1.45))
    stains = stains.over(0.7 * body.cover, haematoxylin=0.26, eosin=0.42)
    chromatin = smooth_noise(rng, frame, 1.6)
    stains = add_nuclei(stains, stamp(frame, plasma_cells), chromatin=2.0 * chromatin)
    lymphocytes = draw_cells(rng, points[~is_plasma], LYMPHOCYTE)
    return add_nuclei(stains, stamp(frame, lymphocytes), chromatin=chromatin)
