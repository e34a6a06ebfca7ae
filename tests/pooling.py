"""Pool pixels of any shape, as one image."""

from torch import Tensor

from pipeline.metrics.pixel_histogram import PixelHistogram, add_images, count_images


def update_histogram(
    histogram: PixelHistogram, *, preds: Tensor, target: Tensor, ignore: Tensor | None = None
) -> PixelHistogram:
    """Return the histogram with more pixels counted; the given one stays as it is."""
    as_one = None if ignore is None else ignore.unsqueeze(0)
    return add_images(histogram, count_images(preds.unsqueeze(0), target=target.unsqueeze(0), ignore=as_one))
