"""The method in one picture: an image, the truth, the teacher's CAM, the pseudo-labels cut from it, PixelCAM's map."""

from collections.abc import Sequence

import torch

from pipeline.config import Params
from pipeline.overlays import Picture, contact_sheet, heat_overlay, label_overlay, mask_contour
from pipeline.pseudo_labels import make_pseudo_labels
from pipeline.reporting import GalleryImage
from pipeline.resizing import resize_map

SIDE = 256  # of each part, in pixels


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
