"""Whole images with their exact masks, from nothing but arguments: colon with glands, lymph nodes with metastases.

Colon has the same stains, stroma and amounts of either in all classes: normal crypts, tumour, and crypts of an adenoma.

Pale areas take the same share of the image in either class: follicles and sinuses in a normal node, mostly tumour in a
metastatic one. So neither colours nor amounts tell that there is a tumour.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.synthetic.epithelium import (
    add_crypt_cells,
    add_debris,
    add_tumour_cells,
    draw_atypia,
    draw_cytoplasm,
    draw_dysplasia,
    draw_pale_cytoplasm,
    fill_lumens,
    lay_cytoplasm,
)
from pipeline.synthetic.frame import FIELD_WIDTH, BoolMap, FloatMap, Frame, fibres, pack, ramp, scatter, smooth_noise
from pipeline.synthetic.glands import (
    Glands,
    add_basement_membrane,
    crypt_glands,
    draw_adenoma_style,
    draw_crypt_style,
    place_crypts,
)
from pipeline.synthetic.nuclei import Nucleus, add_nuclei, draw_cells, stamp
from pipeline.synthetic.stains import Region, SlideStyle, StainMaps, draw_style, scan, take_tones
from pipeline.synthetic.stroma import FIBROBLAST, add_round_cells, draw_stroma_style, lay_stroma
from pipeline.synthetic.tumour import draw_gland_tumour, draw_metastasis, grow_tumour

_SHARE = (0.32, 0.58)  # of the image that glands are meant to take, in either class


_MALIGNANT, _ADENOMA = 1, 2


def paint_colon(rng: np.random.Generator, frame: Frame, *, class_idx: int) -> tuple[StainMaps, BoolMap]:
    """Return the stains of a colon image and the mask of its glands (H, W): 0 normal, 1 malignant, 2 an adenoma."""
    share = rng.uniform(*_SHARE)
    stroma, body = draw_stroma_style(rng), draw_cytoplasm(rng)
    membrane = rng.uniform(0.0, 0.25)
    if class_idx == _MALIGNANT:
        glands = grow_tumour(rng, frame, draw_gland_tumour(rng, share=share))
        stains = lay_stroma(rng, frame, glands.clearance, stroma)
        stains = add_basement_membrane(stains, glands, strength=0.4 * membrane)
        stains = lay_cytoplasm(rng, frame, stains, glands, body)
        stains = add_debris(rng, frame, stains, glands, body, dirty=rng.uniform(0.2, 1.0))
        stains = add_tumour_cells(rng, frame, stains, glands, draw_atypia(rng))
    elif class_idx == _ADENOMA:
        glands = crypt_glands(rng, frame, place_crypts(rng, draw_adenoma_style(rng, share=share), share=share))
        stains = lay_stroma(rng, frame, glands.clearance, stroma)
        stains = add_basement_membrane(stains, glands, strength=membrane)
        stains = lay_cytoplasm(rng, frame, stains, glands, body)
        stains = add_debris(rng, frame, stains, glands, body, dirty=0.1)
        stains = add_tumour_cells(rng, frame, stains, glands, draw_dysplasia(rng))
    else:
        crypts = place_crypts(rng, draw_crypt_style(rng, share=share), share=share)
        glands = crypt_glands(rng, frame, crypts)
        stains = lay_stroma(rng, frame, glands.clearance, stroma)
        stains = add_basement_membrane(stains, glands, strength=membrane)
        stains = lay_cytoplasm(rng, frame, stains, glands, body)
        stains = add_debris(rng, frame, stains, glands, body, dirty=0.1)
        stains = add_crypt_cells(rng, frame, stains, crypts)
    return stains, glands.inside


_PALE = (0.25, 0.55)  # share of the image that is not packed lymphocytes, in either class
_TUMOUR = (0.65, 1.0)  # share of the pale area that is tumour, where there is one

_CENTROBLAST = Nucleus(
    major=3.5,
    minor=3.0,
    size_spread=0.16,
    strength=0.85,
    strength_spread=0.16,
    pallor=0.55,
    lobing=0.09,
    nucleolus=0.25,
)
_HISTIOCYTE = Nucleus(
    major=3.9, minor=2.5, size_spread=0.16, strength=0.7, strength_spread=0.16, pallor=0.55, lobing=0.10, nucleolus=0.2
)


@dataclass(frozen=True)
class _Compartments:
    """Soft maps (H, W) in [0, 1] of the node's compartments; lymphocytes pack the rest."""

    centre: FloatMap  # germinal centres
    mantle: FloatMap  # the denser rim around them
    sinus: FloatMap
    collagen: FloatMap  # trabeculae and capsule
    gap: FloatMap  # empty clefts

    def packed(self) -> FloatMap:
        """Return where lymphocytes are packed."""
        packed = (1.0 - self.centre) * (1.0 - self.sinus) * (1.0 - self.collagen) * (1.0 - self.gap)
        return np.asarray(packed, dtype=np.float32)


def paint_lymph_node(
    rng: np.random.Generator, frame: Frame, *, metastatic: bool, empty: float
) -> tuple[StainMaps, BoolMap]:
    """Return the stains of a lymph node image and the mask of its tumour nests (H, W), empty in a normal node.

    `empty` is the share of the image that clefts and lumens are meant to take together, in either class.
    """
    pale = rng.uniform(*_PALE)
    part = rng.uniform(*_TUMOUR) if metastatic else 0.0
    glands = grow_tumour(rng, frame, draw_metastasis(rng, share=pale * part)) if metastatic else None
    body, density = draw_pale_cytoplasm(rng), rng.uniform(0.8, 0.98)
    compartments = _draw_compartments(rng, frame, pale * (1.0 - part), glands, empty=empty)
    stains = _lay_node(rng, frame, compartments)
    outside = 1.0 - compartments.gap
    if glands is not None:
        outside = outside * ramp(glands.clearance, low=0.5, high=2.5)
    stains = _add_residents(rng, frame, stains, compartments, outside)
    spacing = rng.uniform(5.3, 6.1)
    presence = compartments.packed() * outside * (density + 0.1 * compartments.mantle)
    lymphocytes = pack(rng, frame, presence.astype(np.float32), spacing=spacing, jitter=rng.uniform(0.11, 0.17))
    if glands is None:
        stains = add_round_cells(rng, frame, stains, lymphocytes, plasma=rng.uniform(0.0, 0.2))
        return stains, np.zeros((frame.size, frame.size), dtype=bool)
    stains = add_round_cells(rng, frame, stains, lymphocytes, plasma=rng.uniform(0.0, 0.2))
    stains = lay_cytoplasm(rng, frame, stains, glands, body)
    stains = fill_lumens(rng, frame, stains, glands, empty=empty)
    stains = add_debris(rng, frame, stains, glands, body, dirty=rng.uniform(0.2, 0.8))
    stains = add_tumour_cells(rng, frame, stains, glands, draw_atypia(rng))
    return stains, glands.inside


def _draw_compartments(
    rng: np.random.Generator, frame: Frame, share: float, glands: Glands | None, *, empty: float
) -> _Compartments:
    """Divide `share` of the image among follicles, sinuses and collagen, away from tumour."""
    parts = rng.dirichlet([1.6, 1.6, 0.8]) * share
    clear = frame.blank(1.0) if glands is None else ramp(glands.clearance, low=1.0, high=4.0)
    centre, mantle = _follicles(rng, frame, float(parts[0]))
    sinus = _band(rng, frame, float(parts[1]), wavelength=rng.uniform(55.0, 90.0)) * (1.0 - centre)
    collagen = _band(rng, frame, float(parts[2]), wavelength=rng.uniform(90.0, 150.0)) * (1.0 - centre)
    gap = _clefts(rng, frame, glands, clear, empty=empty)
    collagen = collagen * clear * (1.0 - gap)
    sinus = (sinus * clear * (1.0 - collagen)).astype(np.float32)
    return _Compartments(centre * clear * (1.0 - gap), mantle * clear, sinus, collagen, gap)


def _clefts(
    rng: np.random.Generator, frame: Frame, glands: Glands | None, clear: FloatMap, *, empty: float
) -> FloatMap:
    """Return ragged clefts that make up the share `empty` of the image, together with the tumour's lumens."""
    missing = empty if glands is None else empty - float(glands.lumen.mean())
    if missing < 0.002:
        return frame.blank()
    crack = 0.8 * smooth_noise(rng, frame, 60.0) - 1.3 * np.abs(smooth_noise(rng, frame, 42.0))
    noise = crack + 0.2 * smooth_noise(rng, frame, 8.0) - 6.0 * (1.0 - clear)
    edge = float(np.quantile(noise, 1.0 - missing))
    return ramp(noise, low=edge - 0.06, high=edge + 0.06)


def _follicles(rng: np.random.Generator, frame: Frame, share: float) -> tuple[FloatMap, FloatMap]:
    """Return germinal centres that take about `share` of the image, and the mantles around them."""
    y, x = frame.grid()
    centre, mantle = frame.blank(), frame.blank()
    wobble = 4.0 * smooth_noise(rng, frame, 35.0) + 1.5 * smooth_noise(rng, frame, 12.0)
    for _ in range(5):
        missing = share - float(centre.mean())
        if missing < 0.02:
            break
        radius = min(rng.uniform(28.0, 62.0), float(np.sqrt(missing / np.pi)) * FIELD_WIDTH * 1.1)
        aspect = rng.uniform(0.8, 1.25)
        place = rng.uniform(0.0, FIELD_WIDTH, 2)
        distance = np.hypot((y - place[0]) * aspect, (x - place[1]) / aspect) + wobble - np.float32(radius)
        centre = np.maximum(centre, ramp(distance, low=3.0, high=-3.0))
        mantle = np.maximum(mantle, ramp(np.abs(distance - 9.0), low=9.0, high=5.0))
    return centre, mantle * (1.0 - centre)


def _band(rng: np.random.Generator, frame: Frame, share: float, *, wavelength: float) -> FloatMap:
    """Return winding bands that take about `share` of the image: where a noise is near zero."""
    noise = np.abs(smooth_noise(rng, frame, wavelength) + 0.12 * smooth_noise(rng, frame, 14.0))
    width = float(np.quantile(noise, np.clip(share, 0.0, 1.0)))
    return ramp(noise, low=width + 0.03, high=width - 0.03) if share > 0.01 else frame.blank()


def _lay_node(rng: np.random.Generator, frame: Frame, compartments: _Compartments) -> StainMaps:
    """Return the node's ground: reticulum, the pale ground of follicles, open sinuses, collagen."""
    texture, _ = fibres(rng, frame, length=7.0, waviness=rng.uniform(5.0, 12.0))
    fine = 1.0 + 0.10 * smooth_noise(rng, frame, 4.0) + 0.08 * smooth_noise(rng, frame, 40.0)
    ground = rng.uniform(0.20, 0.34)
    stains = StainMaps(frame.blank(0.20) * fine, frame.blank(ground) * fine)
    follicle = rng.uniform(1.0, 1.35) * ground
    stains = stains.over(compartments.centre, haematoxylin=0.20 * fine, eosin=follicle * fine)
    open_space = ramp(smooth_noise(rng, frame, 9.0), low=-0.2, high=0.5)
    reticulum = (0.08 + rng.uniform(0.2, 0.4) * (1.0 - open_space)) * fine
    stains = stains.over(compartments.sinus, haematoxylin=0.3 * reticulum, eosin=reticulum)
    strand = (1.0 + 0.2 * texture) * rng.uniform(0.36, 0.56)
    stains = stains.over(compartments.collagen, haematoxylin=0.10, eosin=strand)
    return stains.over(0.96 * compartments.gap, haematoxylin=0.02, eosin=0.03)


def _add_residents(
    rng: np.random.Generator, frame: Frame, stains: StainMaps, compartments: _Compartments, outside: FloatMap
) -> StainMaps:
    """Add centroblasts, sinus histiocytes with their cytoplasm, spindle cells, and few lymphocytes in pale areas."""
    chromatin = 0.8 * smooth_noise(rng, frame, 1.7) + 0.6 * smooth_noise(rng, frame, 2.6)
    blasts = scatter(rng, frame, compartments.centre * outside, spacing=rng.uniform(6.0, 6.8))
    stains = add_nuclei(stains, stamp(frame, draw_cells(rng, blasts, _CENTROBLAST)), chromatin=chromatin)
    points = scatter(rng, frame, 0.8 * compartments.sinus * outside, spacing=rng.uniform(8.0, 10.5))
    histiocytes = draw_cells(rng, points, _HISTIOCYTE)
    bodies = stamp(frame, histiocytes.resized(major=1.8, minor=2.1))
    pink = rng.uniform(0.35, 0.6) * (1.0 + 0.2 * smooth_noise(rng, frame, 3.0))
    stains = stains.over(0.85 * bodies.cover * outside, haematoxylin=0.16, eosin=pink.astype(np.float32))
    stains = add_nuclei(stains, stamp(frame, histiocytes), chromatin=chromatin)
    spindles = scatter(rng, frame, (compartments.collagen + 0.05) * outside * np.float32(0.9), spacing=10.0)
    stains = add_nuclei(stains, stamp(frame, draw_cells(rng, spindles, FIBROBLAST)), chromatin=chromatin)
    loose = (0.35 * compartments.sinus + 0.18 * compartments.centre + 0.1 * compartments.collagen) * outside
    return add_round_cells(rng, frame, stains, scatter(rng, frame, loose, spacing=5.6), plasma=0.2)


_COMPANION_SIZE = 128  # pixels: enough for a distribution
_STREAMS = {Tissue.COLON: 0, Tissue.LYMPH_NODE: 1}  # keep the tissues' random streams apart


@dataclass(frozen=True)
class RenderedImage:
    """A synthetic image and its ground truth."""

    image: npt.NDArray[np.uint8]  # (H, W, 3), sRGB
    mask: BoolMap  # (H, W), True on the region of interest


def render_image(
    tissue: Tissue,
    *,
    class_idx: int,
    size: int,
    seed: int,
    index: int,
    classes: int = 2,
    laboratory: Laboratory = Laboratory.HOME,
) -> RenderedImage:
    """Render one image of a tissue.

    Args:
        tissue: the colon, whose region of interest is its glands; or the lymph node, whose region is tumour nests.
        class_idx: 0 benign or normal, 1 malignant or metastatic, 2 an adenoma of the colon.
        size: side in pixels; the field of view is the same at any size.
        seed: the data set's seed, from 0.
        index: the image's number in the data set, from 0.
        classes: how many the data set has; images of all of them have the same tones.
        laboratory: where it was stained and scanned; it changes how the same tissue looks.

    Returns:
        The image and its mask; in a normal lymph node the mask is empty.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, class_idx, _STREAMS[tissue]]))
    style = draw_style(rng, tissue, laboratory)
    small = Frame(min(size, _COMPANION_SIZE))
    companions = [_paint(rng, tissue, class_idx=other, frame=small, style=style) for other in range(classes)]
    stains, mask = _paint(rng, tissue, class_idx=class_idx, frame=Frame(size), style=style)
    toned = take_tones(_region(tissue, stains, mask), [_region(tissue, *companion) for companion in companions])
    return RenderedImage(scan(rng, toned, style), mask)


def _region(tissue: Tissue, stains: StainMaps, mask: BoolMap) -> Region:
    """Return where all classes are to have the same tones: in glands, or in all of a node, as one may have none."""
    return Region(stains, mask if tissue is Tissue.COLON and mask.any() else np.ones_like(mask))


def _paint(
    rng: np.random.Generator, tissue: Tissue, *, class_idx: int, frame: Frame, style: SlideStyle
) -> tuple[StainMaps, BoolMap]:
    """Return the stains of a tissue as the microscope sees them, and the mask of its region of interest."""
    match tissue:
        case Tissue.COLON:
            stains, mask = paint_colon(rng, frame, class_idx=class_idx)
        case Tissue.LYMPH_NODE:
            stains, mask = paint_lymph_node(rng, frame, metastatic=class_idx == 1, empty=style.empty)
    return stains.smeared(style.blur * frame.scale), mask
