"""From stain concentrations to colour: Beer-Lambert absorption by two dyes, as a slide scanner records it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.choices import Tissue
from pipeline.synthetic.frame import FloatMap

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
class _Laboratory:
    """What a laboratory's stain and scanner have in common; each slide varies around it."""

    haematoxylin: tuple[float, float, float]  # optical density in red, green, blue
    eosin: tuple[float, float, float]
    strength: tuple[float, float]  # range of the mean amount of both dyes together
    balance: tuple[float, float]  # range of haematoxylin's share in it
    white: tuple[float, float, float]  # the empty slide, in [0, 1]
    blur: tuple[float, float]  # of the section's thickness and the optics, micrometres


# The first is near the vectors of Ruifrok and Johnston (2001); the second a bluer haematoxylin and an orange eosin.
_LABORATORIES = {
    Tissue.COLON: _Laboratory(
        haematoxylin=(0.64, 0.71, 0.29),
        eosin=(0.13, 0.96, 0.25),
        strength=(0.40, 0.78),
        balance=(0.36, 0.60),
        white=(0.965, 0.955, 0.970),
        blur=(0.35, 0.62),
    ),
    Tissue.LYMPH_NODE: _Laboratory(
        haematoxylin=(0.73, 0.64, 0.23),
        eosin=(0.09, 0.88, 0.40),
        strength=(0.45, 0.80),
        balance=(0.52, 0.70),
        white=(0.955, 0.945, 0.915),
        blur=(0.50, 0.78),
    ),
}


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


def draw_style(rng: np.random.Generator, tissue: Tissue) -> SlideStyle:
    """Draw a slide's stain strength, balance, hue and scan, whatever the slide shows."""
    laboratory = _LABORATORIES[tissue]
    vectors = np.array([laboratory.haematoxylin, laboratory.eosin]) + rng.normal(0.0, 0.035, (2, 3))
    vectors = np.maximum(vectors, 0.02)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength, share = rng.uniform(*laboratory.strength), rng.uniform(*laboratory.balance)
    white = np.array(laboratory.white) + rng.normal(0.0, 0.012, 3)
    return SlideStyle(
        vectors=vectors.astype(np.float32),
        means=(strength * share, strength * (1.0 - share)),
        white=np.minimum(white, 1.0).astype(np.float32),
        empty=rng.uniform(0.004, 0.025),
        gamma=rng.uniform(0.92, 1.12),
        blur=rng.uniform(*laboratory.blur),
        noise=rng.uniform(0.006, 0.016),
    )


def scan(rng: np.random.Generator, stains: StainMaps, style: SlideStyle) -> npt.NDArray[np.uint8]:
    """Return what the scanner records: uint8 (H, W, 3), sRGB.

    Light falls off as 10 to the minus optical density (Beer-Lambert), the sensor adds noise that grows with the light.
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
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light = light + np.float32(style.noise) * np.sqrt(light) * noise
    return np.asarray(np.rint(np.clip(light, 0.0, 1.0) * 255.0), dtype=np.uint8)
