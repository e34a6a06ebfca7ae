"""A whole slide of a lymph node, from nothing but arguments: nodal tissue with fat, a fold, ink, and metastases.

Fields of view are painted once a slide and laid, turned and mirrored, over it; where two meet, the darker one shows, so
that seams go around nuclei. A slide is painted square by square, each from its own random numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.synthetic.epithelium import (
    Atypia,
    Cytoplasm,
    add_debris,
    add_tumour_cells,
    draw_atypia,
    draw_pale_cytoplasm,
    fill_lumens,
    lay_cytoplasm,
)
from pipeline.synthetic.frame import FIELD_WIDTH, FloatMap, Frame, Points, pack, ramp, smooth_noise
from pipeline.synthetic.slide_files import STRIP, UInt8Image, write_annotation, write_slide
from pipeline.synthetic.slide_plan import MPP, STEP, SlidePlan, plan_slide, stream
from pipeline.synthetic.stains import Region, SlideStyle, StainMaps, draw_style, take_tones
from pipeline.synthetic.stroma import StromaStyle, add_round_cells, draw_stroma_style, lay_stroma
from pipeline.synthetic.tissues import paint_lymph_node
from pipeline.synthetic.tumour import TumourStyle, draw_metastasis, grow_tumour

Amounts = NDArray[np.float32]  # (2, H, W), of haematoxylin and eosin

_FIELD: Final = round(FIELD_WIDTH / MPP)  # side of a field of view, pixels
_PITCH: Final = 125  # pixels between fields that are laid side by side
_SHIFT: Final = 14  # pixels that they are shifted by at most
_REACH: Final = 128.0  # pixels from a field's middle to its outline, about
_RELIEF: Final = 9.0  # pixels that an outline is moved by where one side has one unit of haematoxylin more
_COMPANIONS: Final = 6  # fields of either kind that all take their tones from
_COMPANION_SIZE: Final = 128
_SPARE: Final = 1.3  # times the fields that are laid are painted; the patchiest are left out
_PATCH: Final = 40  # pixels
_FAT: Final = np.array([[[0.08]], [[0.40]]], dtype=np.float32)  # of both dyes in the walls of fat
_INKS: Final = ((1.3, 0.85, 0.25), (1.2, 0.35, 0.8), (1.5, 1.4, 1.3))  # optical density: blue, green, black


def render_slide(slide: Path, annotation: Path | None, *, size: int, metastatic: bool, seed: int, index: int) -> None:
    """Paint one slide of `size` x `size` pixels at `MPP` and write it; the same bytes for the same arguments.

    Args:
        slide: the TIFF.
        annotation: its metastases as ASAP's XML, none in a normal slide; None where it is not wanted.
        size: side in pixels.
        metastatic: whether there are metastases.
        seed: the data set's seed, from 0.
        index: the slide's number in the data set, from 0.

    Raises:
        PixelCAMError: the system does not let a file be written.
    """
    plan = plan_slide(size=size, metastatic=metastatic, seed=seed, index=index)

    def numbers(*use: int) -> np.random.Generator:
        return stream(seed=seed, index=index, metastatic=metastatic, use=use)

    palette = _paint_fields(numbers(2), plan, size=size)
    strips = _paint_strips(plan, palette, size=size, numbers=numbers)
    write_slide(slide, strips, width=size, height=size, mpp=MPP)
    if annotation is not None:
        write_annotation(annotation, lesions=plan.lesions, holes=plan.holes)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Fields of view of one kind of tissue, and how they are laid on a lattice of `_PITCH` pixels.

    Attributes:
        fields: float32 (N, 2, S, S), amounts of dye.
        chosen: which field lies at each place of the lattice, (n, n).
        turned: how, 0 to 3 right angles, and 4 more where it is mirrored.
        outline: how far a pixel is from the outline of the field there, pixels, positive inside, (n, n) numbers of
            `outlines`, (M, S, S).
        corner: its upper left corner, pixels, (n, n, 2).
        rank: the higher lies over the lower.
    """

    fields: NDArray[np.float32]
    chosen: NDArray[np.intp]
    turned: NDArray[np.intp]
    outline: NDArray[np.intp]
    outlines: NDArray[np.float32]
    corner: NDArray[np.intp]
    rank: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Palette:
    """What a slide is painted with: its style, tissues, dyes of fat's walls, ink, and a noise (STRIP, STRIP)."""

    style: SlideStyle
    node: _Layer
    tumour: _Layer
    collagen: _Layer
    fat: NDArray[np.float32]
    ink: NDArray[np.float32]
    rough: FloatMap


@dataclass(frozen=True)
class _Tumour:
    """What the metastases of one slide have in common."""

    growth: TumourStyle
    stroma: StromaStyle
    body: Cytoplasm
    atypia: Atypia
    lymphocytes: float  # how much of the stroma they pack, about


def _paint_fields(rng: np.random.Generator, plan: SlidePlan, *, size: int) -> _Palette:
    """Paint the fields of view of a slide, all in one style, node and tumour in the same tones."""
    style = draw_style(rng, Tissue.LYMPH_NODE, Laboratory.HOME)
    tumour = _Tumour(
        growth=replace(draw_metastasis(rng, share=0.8), clustering=0.3, slits=rng.uniform(0.02, 0.35)),
        stroma=replace(draw_stroma_style(rng), muscle=0.0, clefts=0.0),
        body=draw_pale_cytoplasm(rng),
        atypia=draw_atypia(rng),
        lymphocytes=rng.uniform(0.2, 0.8),
    )
    painters: list[Callable[[Frame], StainMaps]] = [
        lambda frame: paint_lymph_node(rng, frame, metastatic=False, empty=style.empty)[0],
        lambda frame: _paint_metastasis(rng, frame, tumour, empty=style.empty),
        lambda frame: _paint_collagen(rng, frame),
    ]
    companions = [
        _everywhere(_side_by_side(painter, Frame(_COMPANION_SIZE), _COMPANIONS, style)) for painter in painters[:2]
    ]
    means = np.mean([(each.stains.haematoxylin.mean(), each.stains.eosin.mean()) for each in companions], axis=0)
    scale = (np.array(style.means) / means).astype(np.float32)[:, None, None]
    outlines, most = _draw_outlines(rng), (56, 32 if plan.lesions else 1, 6)
    layers: list[_Layer] = []
    for painter, number in zip(painters, most, strict=True):
        count = min(number, max(size // 160, 4))
        stains = _side_by_side(painter, Frame(_FIELD), int(_SPARE * count), style)
        if painter in painters[:2]:
            stains = take_tones(_everywhere(stains), companions)
        density = plan.density if painter is painters[0] else None
        layers.append(_lay_out(rng, scale * _cut(stains, count=count), outlines, size=size, density=density))
    node, metastasis, collagen = layers
    return _Palette(
        style=style,
        node=node,
        tumour=metastasis,
        collagen=collagen,
        fat=_FAT * scale,
        ink=np.array(_INKS[rng.integers(len(_INKS))], dtype=np.float32),
        rough=_repeating_noise(rng),
    )


def _side_by_side(painter: Callable[[Frame], StainMaps], frame: Frame, count: int, style: SlideStyle) -> StainMaps:
    """Return fields one beside the other, (S, count * S), as the microscope sees them."""
    fields = [painter(frame).smeared(style.blur * frame.scale) for _ in range(count)]
    return StainMaps(
        np.concatenate([field.haematoxylin for field in fields], axis=1),
        np.concatenate([field.eosin for field in fields], axis=1),
    )


def _everywhere(stains: StainMaps) -> Region:
    return Region(stains, np.ones(stains.eosin.shape, dtype=np.bool_))


def _cut(stains: StainMaps, *, count: int) -> NDArray[np.float32]:
    """Return `count` of the fields that lie side by side, the most even ones, from pale to dense: (count, 2, S, S)."""
    both = np.stack([stains.haematoxylin, stains.eosin])
    fields = both.reshape(2, _FIELD, -1, _FIELD).transpose(2, 0, 1, 3)
    sides = _FIELD // _PATCH
    patches = fields.reshape(len(fields), 2, sides, _PATCH, sides, _PATCH).mean(axis=(3, 5)).reshape(len(fields), 2, -1)
    patchiness = (np.ptp(patches, axis=2) / patches.mean(axis=(0, 2))).sum(axis=1)
    even = np.argsort(patchiness, kind="stable")[:count]
    return np.asarray(fields[even[np.argsort(patches[even, 0].mean(axis=1), kind="stable")]])


def _paint_metastasis(rng: np.random.Generator, frame: Frame, tumour: _Tumour, *, empty: float) -> StainMaps:
    """Paint a field of a metastasis: nests, and lymphocytes in the stroma that is left between them."""
    glands = grow_tumour(rng, frame, replace(tumour.growth, share=rng.uniform(0.6, 0.85)))
    stains = lay_stroma(rng, frame, glands.clearance, tumour.stroma)
    packed = ramp(smooth_noise(rng, frame, 60.0) + 3.0 * np.float32(tumour.lymphocytes) - 1.5, low=-0.3, high=0.3)
    presence = np.float32(0.9) * packed * ramp(glands.clearance, low=0.5, high=2.5)
    lymphocytes = pack(rng, frame, presence, spacing=rng.uniform(5.3, 6.1), jitter=0.14)
    stains = add_round_cells(rng, frame, stains, lymphocytes, plasma=0.1)
    stains = lay_cytoplasm(rng, frame, stains, glands, tumour.body)
    stains = fill_lumens(rng, frame, stains, glands, empty=empty)
    stains = add_debris(rng, frame, stains, glands, tumour.body, dirty=rng.uniform(0.2, 0.8))
    return add_tumour_cells(rng, frame, stains, glands, tumour.atypia)


def _paint_collagen(rng: np.random.Generator, frame: Frame) -> StainMaps:
    """Paint a field of a capsule."""
    style = replace(draw_stroma_style(rng), fibrosis=0.9, clefts=0.0, muscle=0.0, aggregates=0.0, inflammation=0.1)
    return lay_stroma(rng, frame, frame.blank(1e3), style)


def _repeating_noise(rng: np.random.Generator) -> FloatMap:
    """Return noise of unit variance at two scales, (STRIP, STRIP), that repeats seamlessly."""
    total = np.zeros((STRIP, STRIP), dtype=np.float32)
    for sigma in (5.0, 18.0):
        noise = ndimage.gaussian_filter(rng.standard_normal((STRIP, STRIP), dtype=np.float32), sigma, mode="wrap")
        total += noise / noise.std()
    return np.asarray(total / np.sqrt(2.0), dtype=np.float32)


def _draw_outlines(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how far pixels of a field lie within ragged, rounded squares, pixels: float32 (8, S, S)."""
    axis = np.abs(np.arange(_FIELD, dtype=np.float32) - (_FIELD - 1) / 2.0)
    square, frame = _REACH - np.cbrt(axis[:, None] ** 3 + axis[None, :] ** 3), Frame(_FIELD)
    ragged = [square + 10.0 * smooth_noise(rng, frame, 45.0) + 4.0 * smooth_noise(rng, frame, 16.0) for _ in range(8)]
    border = _FIELD / 2.0 - np.maximum(axis[:, None], axis[None, :]) - 12.0
    return np.asarray(np.minimum(np.stack(ragged), border), dtype=np.float32)


def _lay_out(
    rng: np.random.Generator,
    fields: NDArray[np.float32],
    outlines: NDArray[np.float32],
    *,
    size: int,
    density: FloatMap | None,
) -> _Layer:
    """Draw how fields, the palest first, are laid over a slide; denser where `density` is higher."""
    count = -(-(-(-size // STRIP) * STRIP + _FIELD) // _PITCH) + 2
    places = np.stack(np.meshgrid(*[np.arange(count)] * 2, indexing="ij"), axis=-1) * _PITCH - _FIELD
    # Every other row is moved by half a field, as bricks are.
    places[1::2, :, 1] += _PITCH // 2
    corner = places + rng.integers(-_SHIFT, _SHIFT + 1, places.shape)
    chosen = rng.random((count, count))
    if density is not None:
        nodes = np.clip((corner + _FIELD // 2) // STEP, 0, len(density) - 1)
        chosen = np.clip(density[nodes[..., 0], nodes[..., 1]] + 0.5 * (chosen - 0.5), 0.0, 0.999)
    return _Layer(
        fields=fields,
        chosen=(chosen * len(fields)).astype(np.intp),
        turned=rng.integers(0, 8, (count, count)),
        outline=rng.integers(0, len(outlines), (count, count)),
        outlines=outlines,
        corner=corner,
        rank=rng.permutation(count * count).reshape(count, count),
    )


def _lay(layer: _Layer, rough: FloatMap, *, y: int, x: int) -> Amounts:
    """Return a layer's amounts of dye in the square with its upper left corner at (y, x): float32 (2, STRIP, STRIP)."""
    square = np.zeros((2, STRIP, STRIP), dtype=np.float32)
    at = layer.corner - (y, x)
    rows, columns = np.nonzero(((at > -_FIELD) & (at < STRIP)).all(axis=-1))
    order = np.argsort(layer.rank[rows, columns])
    for row, column in zip(rows[order], columns[order], strict=True):
        top, left = (int(value) for value in at[row, column])
        inside = tuple(slice(max(start, 0), min(start + _FIELD, STRIP)) for start in (top, left))
        part = tuple(slice(max(-start, 0), min(STRIP - start, _FIELD)) for start in (top, left))
        field = layer.fields[layer.chosen[row, column]]
        turned = int(layer.turned[row, column])
        field = np.rot90(field[:, ::-1] if turned >= 4 else field, turned % 4, axes=(1, 2))
        new, old = field[(slice(None), *part)], square[(slice(None), *inside)]
        distance = layer.outlines[layer.outline[row, column]][part] + 3.0 * rough[inside]
        distance += _RELIEF * np.clip(new[0] - old[0], -1.0, 1.0)
        old += np.clip(0.5 * distance + 0.5, 0.0, 1.0) * (new - old)
    return square


def _paint_strips(
    plan: SlidePlan, palette: _Palette, *, size: int, numbers: Callable[..., np.random.Generator]
) -> Iterator[UInt8Image]:
    """Yield the slide from top to bottom: uint8 (up to `STRIP`, size, 3)."""
    for y in range(0, size, STRIP):
        squares = [_scan(numbers(3, y, x), plan, palette, y=y, x=x) for x in range(0, size, STRIP)]
        yield np.concatenate(squares, axis=1)[: size - y, :size]


def _scan(rng: np.random.Generator, plan: SlidePlan, palette: _Palette, *, y: int, x: int) -> UInt8Image:
    """Return what the scanner records of a square: uint8 (STRIP, STRIP, 3), sRGB. See `stains.scan`."""
    style = palette.style
    light = np.multiply.outer(_magnified(plan.light, y=y, x=x), style.white)
    tissue = _magnified(plan.tissue, y=y, x=x)
    density = np.zeros((STRIP, STRIP, 3), dtype=np.float32)
    if tissue.max() > -10.0:
        dyes = _stain(plan, palette, tissue, y=y, x=x) * np.float32(style.gamma)
        for dye, vector in zip(dyes, style.vectors, strict=True):
            density += dye[..., None] * vector
    ink = _magnified(plan.ink, y=y, x=x) + 1.5 * palette.rough
    if ink.max() > 0.0:
        cover = ramp(ink, low=0.0, high=6.0) * (0.8 + 0.12 * palette.rough + 0.3 * ramp(ink, low=25.0, high=0.0))
        density += cover[..., None] * palette.ink
    density += _dust(plan.dust, palette.rough, y=y, x=x)[..., None]
    light *= np.exp2(density * np.float32(-np.log2(10.0)))
    light += np.float32(style.noise) * np.sqrt(light) * rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(np.rint(np.clip(light, 0.0, 1.0) * np.float32(255.0)), dtype=np.uint8)


def _stain(plan: SlidePlan, palette: _Palette, tissue: FloatMap, *, y: int, x: int) -> Amounts:
    """Return the amounts of dye in a square: float32 (2, STRIP, STRIP)."""
    rough = palette.rough
    dyes = _lay(palette.node, rough, y=y, x=x)
    lesion = _magnified(plan.lesion, y=y, x=x) + 1.5 * rough
    if lesion.max() > -8.0:
        tumour = _lay(palette.tumour, rough, y=y, x=x)
        dyes += ramp(lesion + 3.0 * (tumour[0] - dyes[0]), low=-0.5, high=0.5) * (tumour - dyes)
    collagen = _magnified(plan.collagen, y=y, x=x) + 3.0 * rough
    if collagen.max() > -8.0:
        strands = _lay(palette.collagen, rough, y=y, x=x)
        dyes += ramp(collagen + 4.0 * (strands[0] - dyes[0]), low=-0.7, high=0.7) * (strands - dyes)
    fat = _magnified(plan.fat, y=y, x=x) + 2.5 * rough
    if fat.max() > -8.0:
        walls = palette.fat * _walls(plan.vacuoles, rough, y=y, x=x)
        dyes += ramp(fat, low=-0.7, high=0.7) * (walls - dyes)
    fold = ramp(_magnified(plan.fold, y=y, x=x) + 1.5 * rough, low=-1.0, high=1.5)
    dyes *= _magnified(plan.stain, y=y, x=x) * (1.0 + 0.8 * fold) * ramp(tissue + 2.0 * rough, low=-0.7, high=0.7)
    return dyes


def _walls(vacuoles: Points, rough: FloatMap, *, y: int, x: int) -> FloatMap:
    """Return 1 in the walls between vacuoles, 0 in these, and more in their nuclei: float32 (2, STRIP, STRIP)."""
    axis = (np.arange(0, STRIP, 2) + 1.0) * MPP
    bent = 2.0 * rough[1::2, 1::2]
    places = np.stack([y * MPP + axis[:, None] + bent, x * MPP + axis[None, :] + bent.T], axis=-1)
    distance = np.asarray(cKDTree(vacuoles).query(places.reshape(-1, 2), k=2)[0])
    margin = ((distance[:, 1] - distance[:, 0]) / 2.0).reshape(places.shape[:2]).astype(np.float32)
    margin = ndimage.zoom(margin, 2, order=1, mode="nearest", grid_mode=True)
    wall = ramp(margin - 0.5 * rough, low=2.0, high=0.6)
    return np.stack([wall + 8.0 * ramp(rough, low=1.9, high=2.1) * ramp(margin, low=3.0, high=2.0), wall])


def _dust(specks: FloatMap, rough: FloatMap, *, y: int, x: int) -> FloatMap:
    """Return the optical density of dust in a square: float32 (STRIP, STRIP)."""
    density = np.zeros((STRIP, STRIP), dtype=np.float32)
    axis = np.arange(STRIP, dtype=np.float32) + np.float32(0.5)
    for top, left, radius, strength in specks - np.array([y, x, 0.0, 0.0], dtype=np.float32):
        if -40.0 < top < STRIP + 40.0 and -40.0 < left < STRIP + 40.0:
            distance = np.hypot(axis[:, None] - top, axis[None, :] - left) + 0.2 * radius * rough
            density = np.maximum(density, strength * ramp(distance - radius, low=0.35 * radius, high=-0.35 * radius))
    return density


def _magnified(values: FloatMap, *, y: int, x: int) -> FloatMap:
    """Return a map of the plan at the pixels of a square, linear between nodes: float32 (STRIP, STRIP)."""
    # Element by element: sums of a matrix product differ with the number of threads.
    part = values[y // STEP : (y + STRIP) // STEP + 1, x // STEP : (x + STRIP) // STEP + 1]
    return np.ascontiguousarray(_between(np.ascontiguousarray(_between(part).T)).T)


def _between(nodes: FloatMap) -> FloatMap:
    """Interpolate along the first axis at the middle of pixels: (N + 1, M) to (N * `STEP`, M)."""
    place = ((np.arange(STEP, dtype=np.float32) + np.float32(0.5)) / np.float32(STEP))[:, None]
    return (nodes[:-1, None] + place * np.diff(nodes, axis=0)[:, None]).reshape(-1, nodes.shape[1])
