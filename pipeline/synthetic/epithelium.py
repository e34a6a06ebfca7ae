"""The lining of glands: columnar cells with mucin in benign crypts, crowded pleomorphic cells in tumours."""

from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.frame import FloatMap, Frame, grain, ramp, scatter, smooth_noise
from pipeline.synthetic.glands import Columns, Crypt, Glands, columns_along, distance_within, inward_angle
from pipeline.synthetic.nuclei import Cells, Nucleus, add_nuclei, draw_cells, stamp
from pipeline.synthetic.stains import StainMaps
from pipeline.synthetic.stroma import add_round_cells


@dataclass(frozen=True)
class Cytoplasm:
    """The cells' bodies and what fills lumens; amounts of dye."""

    haematoxylin: float
    eosin: float
    lumen_eosin: float
    debris: float  # share of a lumen filled with pink debris, 0 to 1


def draw_cytoplasm(rng: np.random.Generator) -> Cytoplasm:
    """Draw a cytoplasm, from pale to dense, whatever the class."""
    return Cytoplasm(
        haematoxylin=rng.uniform(0.12, 0.34),
        eosin=rng.uniform(0.30, 0.62),
        lumen_eosin=rng.uniform(0.02, 0.14),
        debris=rng.uniform(0.0, 1.0),
    )


def draw_pale_cytoplasm(rng: np.random.Generator) -> Cytoplasm:
    """Draw the paler, pinker cytoplasm of a metastasis, near the tone of packed lymphocytes' surroundings."""
    return Cytoplasm(
        haematoxylin=rng.uniform(0.12, 0.28),
        eosin=rng.uniform(0.28, 0.50),
        lumen_eosin=rng.uniform(0.02, 0.10),
        debris=rng.uniform(0.0, 1.0),
    )


def lay_cytoplasm(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, glands: Glands, body: Cytoplasm
) -> StainMaps:
    """Lay the epithelium's cytoplasm and the lumens over the stroma."""
    cover = ramp(glands.depth, low=0.0, high=1.0 / frame.scale)
    mottle = 1.0 + 0.13 * smooth_noise(rng, frame, 9.0) + 0.12 * smooth_noise(rng, frame, 3.0)
    stains = stains.over(cover, haematoxylin=body.haematoxylin * mottle, eosin=body.eosin * mottle)
    brush = ramp(np.abs(glands.lumen - 0.35), low=0.35, high=0.0)
    stains = StainMaps(stains.haematoxylin, stains.eosin * (1.0 + 0.35 * brush))
    wisps = np.maximum(0.4 + 0.9 * smooth_noise(rng, frame, 8.0), 0.0) * np.float32(body.lumen_eosin)
    return stains.over(0.97 * glands.lumen, haematoxylin=0.4 * wisps, eosin=wisps)


def fill_lumens(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, glands: Glands, *, empty: float
) -> StainMaps:
    """Fill lumens with pink secretion until no more than the share `empty` of the image is empty lumen."""
    total = float(glands.lumen.mean())
    if total <= empty:
        return stains
    noise = smooth_noise(rng, frame, 28.0) + 0.3 * smooth_noise(rng, frame, 9.0)
    edge = float(np.quantile(noise[glands.lumen > 0.5], empty / total)) if (glands.lumen > 0.5).any() else 0.0
    filled = glands.lumen * ramp(noise, low=edge - 0.08, high=edge + 0.08)
    film = 1.0 + 0.15 * smooth_noise(rng, frame, 6.0)
    tint = rng.uniform(0.20, 0.36)
    return stains.over(filled, haematoxylin=0.10 * film, eosin=tint * film)


def add_debris(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, glands: Glands, body: Cytoplasm, *, dirty: float
) -> StainMaps:
    """Put pink secretion into lumens and, where `dirty`, shed nuclei and their fragments."""
    clumps = ramp(smooth_noise(rng, frame, 11.0) + 2.6 * body.debris - 2.0, low=0.0, high=0.5)
    crumbs = 1.0 + 0.4 * smooth_noise(rng, frame, 2.6)
    filled = ramp(glands.lumen, low=0.6, high=1.0) * clumps
    stains = stains.over(0.85 * filled, haematoxylin=0.10 * crumbs, eosin=0.5 * crumbs)
    fragments = Nucleus(
        major=1.5, minor=1.2, size_spread=0.35, strength=1.1, strength_spread=0.3, pallor=0.0, lobing=0.15
    )
    points = scatter(rng, frame, filled * np.float32(dirty), spacing=5.0)
    return add_nuclei(stains, stamp(frame, draw_cells(rng, points, fragments)), chromatin=grain(rng, frame, 0.6))


def add_crypt_cells(rng: np.random.Generator, frame: Frame, stains: StainMaps, crypts: list[Crypt]) -> StainMaps:
    """Fill crypts: goblet vacuoles towards the lumen, cell borders between, one row of basal nuclei."""
    if not crypts:
        return stains
    stains = _add_goblet_cells(rng, frame, stains, crypts)
    elongation = rng.uniform(0.95, 1.75)
    size = rng.uniform(2.35, 2.9)
    kind = Nucleus(
        major=size * np.sqrt(elongation),
        minor=size / np.sqrt(elongation),
        size_spread=0.09,
        strength=1.02,
        strength_spread=0.12,
        pallor=rng.uniform(0.1, 0.5),
        lobing=0.04,
        nucleolus=0.1,
    )
    columns = columns_along(rng, crypts, spacing=2.0 * kind.minor * rng.uniform(1.0, 1.25))
    depth = kind.major + rng.uniform(0.8, 1.8) + np.abs(rng.normal(0.0, rng.uniform(0.4, 1.3), len(columns.base)))
    angle = columns.angle() + rng.normal(0.0, 0.14, len(columns.base))
    cells = draw_cells(rng, columns.at(depth.astype(np.float32)), kind, angle=angle.astype(np.float32))
    return add_nuclei(stains, stamp(frame, cells), chromatin=smooth_noise(rng, frame, 1.7))


def _add_goblet_cells(rng: np.random.Generator, frame: Frame, stains: StainMaps, crypts: list[Crypt]) -> StainMaps:
    spacing = rng.uniform(8.0, 12.0)
    columns = columns_along(rng, crypts, spacing=spacing)
    patchy = frame.sample(smooth_noise(rng, frame, 60.0), columns.base)
    share = rng.uniform(0.1, 0.95)
    chosen = rng.random(len(columns.base)) < np.clip(share + 0.2 * patchy, 0.0, 1.0)
    columns = Columns(columns.base[chosen], columns.inward[chosen], columns.height[chosen])
    vacuoles = _vacuoles(rng, columns, spacing=spacing)
    rim = stamp(frame, vacuoles.resized(major=1.08, minor=1.2))
    mucin = stamp(frame, vacuoles)
    stains = stains.over(0.5 * rim.cover, haematoxylin=0.26, eosin=0.5)
    tint = rng.uniform(0.02, 0.20), rng.uniform(0.02, 0.16)
    foam = np.maximum(1.0 + 0.35 * smooth_noise(rng, frame, 3.5), 0.1)
    return stains.over(0.92 * mucin.cover, haematoxylin=np.float32(tint[0]) * foam, eosin=np.float32(tint[1]) * foam)


def _vacuoles(rng: np.random.Generator, columns: Columns, *, spacing: float) -> Cells:
    """Return drops of mucin above the nuclei, as wide as the column is there."""
    count = len(columns.base)
    room = np.maximum(columns.height - 8.0, 2.0)
    major = np.minimum(0.5 * room, rng.uniform(4.0, 8.0) * np.exp(rng.normal(0.0, 0.2, count)))
    depth = 8.0 + major + (room - 2.0 * major) * rng.uniform(0.0, 1.0, count) ** 1.5
    narrowing = np.clip(1.0 - 0.6 * depth / (columns.height + 8.0), 0.35, 1.0)
    minor = np.minimum(rng.uniform(0.44, 0.6, count) * spacing * narrowing, 1.1 * major)
    same = np.ones(count, dtype=np.float32)
    return Cells(
        points=columns.at(depth.astype(np.float32)),
        major=major.astype(np.float32),
        minor=minor.astype(np.float32),
        angle=columns.angle(),
        strength=same,
        pallor=0.0 * same,
        lobing=rng.normal(0.0, 0.08, count).astype(np.float32),
        nucleolus=0.0 * same,
    )


@dataclass(frozen=True)
class Atypia:
    """How a tumour's nuclei look and stand."""

    nucleus: Nucleus
    spacing: float  # micrometres
    disorder: float  # standard deviation of the direction, radians
    apical: float  # width of the cytoplasm without nuclei along lumens, micrometres


def draw_atypia(rng: np.random.Generator) -> Atypia:
    """Draw a tumour's nuclei, from small and dark to large and vesicular."""
    size, aspect = rng.uniform(2.9, 3.9), rng.uniform(1.35, 2.3)
    pallor = rng.uniform(0.15, 0.65)
    nucleus = Nucleus(
        major=size * np.sqrt(aspect),
        minor=size / np.sqrt(aspect),
        size_spread=rng.uniform(0.14, 0.24),
        strength=0.82 + 0.25 * pallor,
        strength_spread=0.2,
        pallor=pallor,
        lobing=0.11,
        nucleolus=0.45 * pallor,
    )
    return Atypia(
        nucleus=nucleus,
        spacing=1.6 * size * rng.uniform(0.9, 1.15),
        disorder=rng.uniform(0.15, 0.42),
        apical=rng.uniform(2.5, 7.0),
    )


def draw_dysplasia(rng: np.random.Generator) -> Atypia:
    """Draw an adenoma's nuclei: long, dark and crowded like cigars in a box, all upright."""
    size, aspect = rng.uniform(3.2, 4.0), rng.uniform(2.2, 3.0)
    nucleus = Nucleus(
        major=size * np.sqrt(aspect),
        minor=size / np.sqrt(aspect),
        size_spread=rng.uniform(0.08, 0.14),
        strength=rng.uniform(0.95, 1.1),
        strength_spread=0.12,
        pallor=rng.uniform(0.05, 0.2),
        lobing=0.05,
        nucleolus=0.02,
    )
    return Atypia(
        nucleus=nucleus,
        spacing=1.5 * size * rng.uniform(0.95, 1.15),
        disorder=rng.uniform(0.05, 0.15),
        apical=rng.uniform(5.0, 9.0),
    )


def add_tumour_cells(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, glands: Glands, atypia: Atypia
) -> StainMaps:
    """Fill tumour glands or nests with stratified, crowded nuclei, roughly perpendicular to the outline."""
    from_lumen = _distance_from_lumen(frame, glands)
    presence = ramp(glands.depth, low=1.2, high=2.6) * ramp(
        from_lumen, low=0.5 * atypia.apical, high=1.5 * atypia.apical
    )
    # One row stands on the outline, the others crowd above it.
    row = atypia.nucleus.major * 1.1
    basal = presence * (np.abs(glands.depth - row) < 1.2)
    above = presence * (glands.depth > row + 1.1 * atypia.nucleus.minor + 1.5)
    points = np.concatenate(
        [scatter(rng, frame, basal, spacing=0.85 * atypia.spacing), scatter(rng, frame, above, spacing=atypia.spacing)]
    )
    angle = inward_angle(frame, glands, points) + rng.normal(0.0, atypia.disorder, len(points))
    cells = draw_cells(rng, points, atypia.nucleus, angle=angle.astype(np.float32))
    borders = stamp(frame, cells.resized(major=1.5, minor=1.55))
    rim = ramp(borders.cover, low=0.0, high=0.5) * ramp(borders.cover, low=1.0, high=0.5) * glands.epithelium()
    stains = StainMaps(stains.haematoxylin * (1.0 + 0.1 * rim), stains.eosin * (1.0 + 0.2 * rim))
    chromatin = 0.8 * smooth_noise(rng, frame, 1.7) + 0.8 * smooth_noise(rng, frame, 2.6)
    stains = add_nuclei(stains, stamp(frame, cells), chromatin=chromatin)
    within = scatter(rng, frame, glands.epithelium() * np.float32(rng.uniform(0.0, 0.15)), spacing=14.0)
    return add_round_cells(rng, frame, stains, within, plasma=0.1)


def _distance_from_lumen(frame: Frame, glands: Glands) -> FloatMap:
    return distance_within(frame, glands.lumen < 0.4)
