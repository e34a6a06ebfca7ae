"""From stain concentrations to colour: Beer-Lambert absorption by two dyes, in tones that do not betray the class.

Different glands hold different amounts of dye, and a histogram would tell them apart. So the joint distribution of both
dyes within them is brought to that of the glands of two other images pooled, one of either class. Light stays light and
dark stays dark: what is left to tell the class is the architecture. The stroma stays as it is, alike in both classes;
if it took part, it would give the class away by what it had to make up for.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.synthetic.frame import FIELD_WIDTH, BoolMap, FloatMap

Amount = npt.NDArray[np.floating[Any]] | float  # of a dye: a map (H, W) or one value


@dataclass(frozen=True)
class StainMaps:
    """Amounts of the two dyes, float32 (H, W), from 0; 1 is about a well-stained nucleus or collagen bundle."""

    haematoxylin: FloatMap
    eosin: FloatMap

    def over(self, cover: FloatMap, *, haematoxylin: Amount, eosin: Amount) -> "StainMaps":
        """Replace both amounts where `cover` (H, W), in [0, 1], is 1, and mix in between."""
        keep = 1.0 - cover
        return StainMaps(
            np.asarray(self.haematoxylin * keep + haematoxylin * cover, dtype=np.float32),
            np.asarray(self.eosin * keep + eosin * cover, dtype=np.float32),
        )

    def smeared(self, sigma: float) -> "StainMaps":
        """Return both amounts blurred by a Gaussian, `sigma` in pixels."""
        haematoxylin, eosin = (
            ndimage.gaussian_filter(amount, sigma, mode="nearest", truncate=3.0).astype(np.float32)
            for amount in (self.haematoxylin, self.eosin)
        )
        return StainMaps(haematoxylin, eosin)


@dataclass(frozen=True)
class _Equipment:
    """What a laboratory's stain and scanner have in common; each slide varies around it."""

    haematoxylin: tuple[float, float, float]  # optical density in red, green, blue
    eosin: tuple[float, float, float]
    strength: tuple[float, float]  # range of the mean amount of both dyes together
    balance: tuple[float, float]  # range of haematoxylin's share in it
    white: tuple[float, float, float]  # the empty slide, in [0, 1]
    blur: tuple[float, float]  # of the section's thickness and the optics, micrometres
    defocus: float  # of the scanner, micrometres
    jpeg_quality: int | None  # of its files, 1 to 100; None where they lose nothing


# The first is near the vectors of Ruifrok and Johnston (2001); the second a bluer haematoxylin and an orange eosin.
_HOME = {
    Tissue.COLON: _Equipment(
        haematoxylin=(0.64, 0.71, 0.29),
        eosin=(0.13, 0.96, 0.25),
        strength=(0.40, 0.78),
        balance=(0.36, 0.60),
        white=(0.965, 0.955, 0.970),
        blur=(0.35, 0.62),
        defocus=0.0,
        jpeg_quality=None,
    ),
    Tissue.LYMPH_NODE: _Equipment(
        haematoxylin=(0.73, 0.64, 0.23),
        eosin=(0.09, 0.88, 0.40),
        strength=(0.45, 0.80),
        balance=(0.52, 0.70),
        white=(0.955, 0.945, 0.915),
        blur=(0.50, 0.78),
        defocus=0.0,
        jpeg_quality=None,
    ),
}
# Another hospital's, alike for every tissue: a blue haematoxylin and a salmon eosin, both pale, under a yellowish lamp.
_AWAY = _Equipment(
    haematoxylin=(0.82, 0.55, 0.16),
    eosin=(0.07, 0.76, 0.65),
    strength=(0.30, 0.52),
    balance=(0.46, 0.66),
    white=(0.940, 0.930, 0.880),
    blur=(0.35, 0.62),
    defocus=0.85,
    jpeg_quality=60,
)


@dataclass(frozen=True)
class SlideStyle:
    """One slide's stain and scan."""

    vectors: npt.NDArray[np.float32]  # (2, 3): optical density of a unit of haematoxylin and of eosin
    means: tuple[float, float]  # the image's mean amount of haematoxylin and of eosin
    white: npt.NDArray[np.float32]  # (3)
    empty: float  # share of the section without tissue, where the tissue leaves it open
    gamma: float
    blur: float  # micrometres
    noise: float  # standard deviation in [0, 1] at white
    defocus: float  # standard deviation of a Gaussian, micrometres
    jpeg_quality: int | None  # 1 to 100; None: nothing is lost


def draw_style(rng: np.random.Generator, tissue: Tissue, laboratory: Laboratory) -> SlideStyle:
    """Draw a slide's stain strength, balance, hue and scan, whatever the slide shows."""
    equipment = _AWAY if laboratory is Laboratory.AWAY else _HOME[tissue]
    vectors = np.array([equipment.haematoxylin, equipment.eosin]) + rng.normal(0.0, 0.035, (2, 3))
    vectors = np.maximum(vectors, 0.02)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength, share = rng.uniform(*equipment.strength), rng.uniform(*equipment.balance)
    white = np.array(equipment.white) + rng.normal(0.0, 0.012, 3)
    return SlideStyle(
        vectors=vectors.astype(np.float32),
        means=(strength * share, strength * (1.0 - share)),
        white=np.minimum(white, 1.0).astype(np.float32),
        empty=rng.uniform(0.004, 0.025),
        gamma=rng.uniform(0.92, 1.12),
        blur=rng.uniform(*equipment.blur),
        noise=rng.uniform(0.006, 0.016),
        defocus=equipment.defocus,
        jpeg_quality=equipment.jpeg_quality,
    )


def scan(rng: np.random.Generator, stains: StainMaps, style: SlideStyle) -> npt.NDArray[np.uint8]:
    """Return what the scanner records of a whole field of view: uint8 (H, W, 3), sRGB.

    Light falls off as 10 to the minus optical density (Beer-Lambert), a lens out of focus blurs it, the sensor adds
    noise that grows with the light, and files that are compressed lose some of it.
    """
    amounts = np.stack(
        [
            stains.haematoxylin * (style.means[0] / max(float(stains.haematoxylin.mean()), 1e-6)),
            stains.eosin * (style.means[1] / max(float(stains.eosin.mean()), 1e-6)),
        ],
        axis=-1,
    ).astype(np.float32)
    density = (amounts[..., :1] * style.vectors[0] + amounts[..., 1:] * style.vectors[1]) * np.float32(style.gamma)
    light = style.white * np.power(np.float32(10.0), -density)
    if style.defocus > 0:
        sigma = style.defocus * len(light) / FIELD_WIDTH
        light = ndimage.gaussian_filter(light, (sigma, sigma, 0.0), mode="nearest", truncate=3.0)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light = light + np.float32(style.noise) * np.sqrt(light) * noise
    recorded = np.asarray(np.rint(np.clip(light, 0.0, 1.0) * 255.0), dtype=np.uint8)
    return recorded if style.jpeg_quality is None else _compressed(recorded, quality=style.jpeg_quality)


def _compressed(image: npt.NDArray[np.uint8], *, quality: int) -> npt.NDArray[np.uint8]:
    """Return what is left of an image (H, W, 3) in a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    with Image.open(file, formats=["JPEG"]) as compressed:
        return np.array(compressed, dtype=np.uint8)


_LEVELS = np.linspace(0.0, 1.0, 257)
_ROUNDS = 3
_ANGLES = np.pi * np.arange(5, -1, -1) / 6.0  # of the directions in the plane of both dyes
_SAMPLE = 10_000  # pixels that a distribution is taken from
_TABLE = 96  # entries along a side of the look-up table
_SMOOTHING = 2.0  # of the look-up table, entries


@dataclass(frozen=True)
class Region:
    """The stains of an image, and where in it they count."""

    stains: StainMaps
    where: BoolMap  # (H, W)


def take_tones(region: Region, companions: Sequence[Region]) -> StainMaps:
    """Bring the joint distribution of both amounts in a region to that of the companions' regions together.

    Sizes may differ. What lies outside the region stays as it is.

    Sliced optimal transport: along each of six directions in turn, quantiles are mapped onto quantiles (Pitie et al.,
    "Automated colour grading using colour distribution transfer", 2007). The transport is computed on a sample and on
    a table of both amounts; the image is looked up in the table.
    """
    stains = region.stains
    wanted = np.concatenate([_sample(companion) for companion in companions])
    values = _sample(region)
    scale = wanted.std(axis=0) + np.float32(1e-6)
    low = np.array([stains.haematoxylin.min(), stains.eosin.min()]) / scale
    high = np.array([stains.haematoxylin.max(), stains.eosin.max()]) / scale + 1e-3
    axes = [np.linspace(low[i], high[i], _TABLE, dtype=np.float32) for i in range(2)]
    table = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    shift = (_transport(values / scale, wanted / scale, table) - table).reshape(_TABLE, _TABLE, 2)
    # Smoothed, so that neighbouring tones stay neighbours: a fold would draw contours into soft slopes.
    shift = ndimage.gaussian_filter(shift, (_SMOOTHING, _SMOOTHING, 0.0), mode="nearest")
    table = table + shift.reshape(-1, 2)
    places = [
        (amount / scale[i] - low[i]) / (high[i] - low[i]) * (_TABLE - 1)
        for i, amount in enumerate((stains.haematoxylin, stains.eosin))
    ]
    looked_up = (
        ndimage.map_coordinates(table[:, i].reshape(_TABLE, _TABLE), places, order=1, output=np.float32)
        for i in range(2)
    )
    haematoxylin, eosin = (np.maximum(amount * scale[i], 0.0) for i, amount in enumerate(looked_up))
    return StainMaps(
        np.where(region.where, haematoxylin, stains.haematoxylin),
        np.where(region.where, eosin, stains.eosin),
    )


def _transport(values: FloatMap, wanted: FloatMap, points: FloatMap) -> FloatMap:
    """Move `points` (M, 2) the way that brings the distribution of `values` (N, 2) to that of `wanted` (K, 2)."""
    moving = np.concatenate([values, points])
    axes = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)
    targets = [_quantiles(_project(wanted, axis)) for axis in axes]
    for axis, target in zip(np.tile(axes, (_ROUNDS, 1)), targets * _ROUNDS, strict=True):
        projected = _project(moving, axis)
        known = _quantiles(projected[: len(values)])
        shift = np.interp(projected, known, target - known)
        moving += shift.astype(np.float32)[:, None] * axis
    return moving[len(values) :]


def _sample(region: Region) -> FloatMap:
    """Return about `_SAMPLE` pixels' amounts of both dyes, spread evenly over the region: float32 (N, 2)."""
    amounts = [amount[region.where] for amount in (region.stains.haematoxylin, region.stains.eosin)]
    step = max(1, amounts[0].size // _SAMPLE)
    step += 1 - step % 2  # odd, so that the samples of an image with even sides do not fall into columns
    return np.stack([amount[::step] for amount in amounts], axis=1).astype(np.float32)


def _project(values: FloatMap, axis: FloatMap) -> FloatMap:
    return np.asarray(values[:, 0] * axis[0] + values[:, 1] * axis[1], dtype=np.float32)


def _quantiles(values: FloatMap) -> npt.NDArray[np.float64]:
    """Return the quantiles at `_LEVELS`, strictly rising."""
    ordered = np.sort(values)
    picked = ordered[np.rint(_LEVELS * (len(ordered) - 1)).astype(np.intp)]
    return picked.astype(np.float64) + _LEVELS * 1e-6
