"""From stain concentrations to colour: Beer-Lambert absorption by two dyes, as a slide scanner records it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.config import Tissue
from pipeline.synthetic.frame import FloatMap


@dataclass(frozen=True)
class StainMaps:
    """Amounts of the two dyes, float32 (H, W), from 0; 1 is about a well-stained nucleus or collagen bundle."""

    haematoxylin: FloatMap
    eosin: FloatMap

    def over(self, cover: FloatMap, *, haematoxylin: FloatMap | float, eosin: FloatMap | float) -> "StainMaps":
        """Replace both amounts where `cover` (H, W), in [0, 1], is 1, and mix in between."""
        keep = 1.0 - cover
        return StainMaps(self.haematoxylin * keep + haematoxylin * cover, self.eosin * keep + eosin * cover)


@dataclass(frozen=True)
class _Laboratory:
    """What a laboratory's stain and scanner have in common; each slide varies around it."""

    haematoxylin: tuple[float, float, float]  # optical density in red, green, blue
    eosin: tuple[float, float, float]
    strength: tuple[float, float]  # range of the mean amount of both dyes together
    balance: tuple[float, float]  # range of haematoxylin's share in it
    white: tuple[float, float, float]  # the empty slide, in [0, 1]
    blur: tuple[float, float]  # micrometres


# The first is near the vectors of Ruifrok and Johnston (2001); the second a bluer haematoxylin and an orange eosin.
_LABORATORIES = {
    Tissue.COLON: _Laboratory(
        haematoxylin=(0.64, 0.71, 0.29),
        eosin=(0.13, 0.96, 0.25),
        strength=(0.40, 0.78),
        balance=(0.36, 0.60),
        white=(0.965, 0.955, 0.970),
        blur=(0.45, 0.75),
    ),
    Tissue.LYMPH_NODE: _Laboratory(
        haematoxylin=(0.78, 0.60, 0.17),
        eosin=(0.16, 0.82, 0.46),
        strength=(0.50, 0.88),
        balance=(0.48, 0.66),
        white=(0.955, 0.945, 0.915),
        blur=(0.60, 0.95),
    ),
}


@dataclass(frozen=True)
class SlideStyle:
    """One slide's stain and scan."""

    vectors: npt.NDArray[np.float32]  # (2, 3): optical density of a unit of haematoxylin and of eosin
    means: tuple[float, float]  # the image's mean amount of haematoxylin and of eosin
    spreads: tuple[float, float]  # the ratio of standard deviation to mean that either is brought to
    white: npt.NDArray[np.float32]  # (3)
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
        spreads=(rng.uniform(0.80, 1.15), rng.uniform(0.50, 0.75)),
        white=np.minimum(white, 1.0).astype(np.float32),
        gamma=rng.uniform(0.92, 1.12),
        blur=rng.uniform(*laboratory.blur),
        noise=rng.uniform(0.006, 0.016),
    )


def tone(amount: FloatMap, *, mean: float, spread: float) -> FloatMap:
    """Bring an amount to a mean and to a ratio of standard deviation to mean, by scale * amount ** power.

    Order is kept and nothing stays nothing, so the architecture is untouched; what a histogram could tell about the
    tissue in the picture goes. The power lies in [0.5, 2]: a ratio out of reach is approached only.
    """
    low, high = 0.5, 2.0
    sample = np.maximum(amount[::2, ::2], 0.0)  # a quarter of the pixels gives the moments well enough
    for _ in range(9):
        power = (low + high) / 2.0
        curved = sample**power
        if curved.std() > spread * curved.mean():
            high = power
        else:
            low = power
    curved = np.maximum(amount, 0.0) ** np.float32((low + high) / 2.0)
    return (curved * (mean / max(float(curved.mean()), 1e-6))).astype(np.float32)


def scan(rng: np.random.Generator, stains: StainMaps, style: SlideStyle, *, scale: float) -> npt.NDArray[np.uint8]:
    """Return what the scanner records: uint8 (H, W, 3), sRGB.

    Light falls off as 10 to the minus optical density (Beer-Lambert), the optics blur, the sensor adds noise that grows
    with the light. `scale` is in pixels per micrometre.
    """
    amounts = np.stack(
        [
            tone(stains.haematoxylin, mean=style.means[0], spread=style.spreads[0]),
            tone(stains.eosin, mean=style.means[1], spread=style.spreads[1]),
        ],
        axis=-1,
    )
    density = (amounts @ style.vectors) * np.float32(style.gamma)
    light = style.white * np.power(np.float32(10.0), -density)
    sigma = style.blur * max(scale, 0.7)
    light = ndimage.gaussian_filter(light, (sigma, sigma, 0.0), mode="nearest", truncate=3.0)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    light = light + np.float32(style.noise) * np.sqrt(light) * noise
    return np.rint(np.clip(light, 0.0, 1.0) * 255.0).astype(np.uint8)
