"""The forms that maps are written in, by themselves: the command names them before anything heavy is loaded."""

from enum import StrEnum


class MapFormat(StrEnum):
    """How the map of an image is written; see `pipeline.heatmaps`."""

    NPY = "npy"
    PNG = "png"
    ZARR = "zarr"
