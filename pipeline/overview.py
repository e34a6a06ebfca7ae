"""Pictures for files: the method in one picture, and what both models look at on the images of a domain."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from pipeline.config import Params
from pipeline.overlays import Picture, contact_sheet, heat_overlay, label_overlay, mask_contour
from pipeline.pseudo_labels import make_pseudo_labels
from pipeline.report_parts import GalleryImage
from pipeline.resizing import resize_map

SIDE: Final = 256  # of each part, in pixels
SHEET_ROWS: Final = 6  # at most


def draw_overview(gallery: Sequence[GalleryImage], params: Params) -> Picture:
    """Return five pictures of a gallery's middle image in a row, uint8 (H, W, 3).

    The labels are cut from the CAM as those of training images are, at the size of the model's input.
    """
    shown = gallery[(len(gallery) - 1) // 2]
    side = params.model.input_size
    cam = resize_map(torch.from_numpy(shown.teacher.map).unsqueeze(0), (side, side))
    labels = make_pseudo_labels(cam, params.extract_pseudo_labels)
    truth = shown.image if shown.mask is None else mask_contour(shown.image, mask=shown.mask)
    row = [
        shown.image,
        truth,
        heat_overlay(shown.image, heat=shown.teacher.map),
        label_overlay(shown.image, labels=labels[0].numpy()),
        heat_overlay(shown.image, heat=shown.pixelcam.map),
    ]
    return contact_sheet([row], side=SIDE)


def draw_overlays(gallery: Sequence[GalleryImage]) -> Picture:
    """Return a row per image of a gallery, evenly over it: image, teacher's CAM and PixelCAM's map, truth outlined."""
    chosen = np.linspace(0, len(gallery) - 1, min(SHEET_ROWS, len(gallery))).round().astype(int)
    rows = []
    for shown in (gallery[index] for index in chosen):
        pictures = [
            shown.image,
            *(heat_overlay(shown.image, heat=view.map) for view in (shown.teacher, shown.pixelcam)),
        ]
        rows.append([each if shown.mask is None else mask_contour(each, mask=shown.mask) for each in pictures])
    return contact_sheet(rows, side=SIDE)
