"""H&E colon: glands in a stroma. Benign crypts or malignant glands, the same stains, stroma and amounts of either."""

import numpy as np

from pipeline.synthetic.crypts import crypt_glands, draw_crypt_style, place_crypts
from pipeline.synthetic.epithelium import (
    add_crypt_cells,
    add_debris,
    add_tumour_cells,
    draw_atypia,
    draw_cytoplasm,
    lay_cytoplasm,
)
from pipeline.synthetic.frame import BoolMap, Frame
from pipeline.synthetic.glands import add_basement_membrane
from pipeline.synthetic.stains import StainMaps
from pipeline.synthetic.stroma import draw_stroma_style, lay_stroma
from pipeline.synthetic.tumour import draw_gland_tumour, grow_tumour

_SHARE = (0.32, 0.58)  # of the image that glands are meant to take, in either class


def paint_colon(rng: np.random.Generator, frame: Frame, *, malignant: bool) -> tuple[StainMaps, BoolMap]:
    """Return the stains of a colon image and the mask of its glands (H, W)."""
    share = rng.uniform(*_SHARE)
    stroma, body = draw_stroma_style(rng), draw_cytoplasm(rng)
    membrane = rng.uniform(0.0, 0.25)
    if malignant:
        glands = grow_tumour(rng, frame, draw_gland_tumour(rng, share=share))
        stains = lay_stroma(rng, frame, glands.clearance, stroma)
        stains = add_basement_membrane(stains, glands, strength=0.4 * membrane)
        stains = lay_cytoplasm(rng, frame, stains, glands, body)
        stains = add_debris(rng, frame, stains, glands, body, dirty=rng.uniform(0.2, 1.0))
        stains = add_tumour_cells(rng, frame, stains, glands, draw_atypia(rng))
    else:
        crypts = place_crypts(rng, draw_crypt_style(rng, share=share), share=share)
        glands = crypt_glands(rng, frame, crypts)
        stains = lay_stroma(rng, frame, glands.clearance, stroma)
        stains = add_basement_membrane(stains, glands, strength=membrane)
        stains = lay_cytoplasm(rng, frame, stains, glands, body)
        stains = add_debris(rng, frame, stains, glands, body, dirty=0.1)
        stains = add_crypt_cells(rng, frame, stains, crypts)
    return stains, glands.inside
