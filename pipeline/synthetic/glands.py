"""What every gland has in common, regular or not: inside, outside, and how far a pixel is from the outline."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.synthetic.frame import BoolMap, FloatMap, Frame, Points, ramp
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
