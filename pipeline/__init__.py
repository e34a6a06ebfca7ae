"""PixelCAM: weakly supervised object localization for histology, as a reproducible pipeline.

These names are what a notebook needs of it (docs/api.md). Each is loaded when it is first used, so that importing the
package loads neither torch nor timm.
"""

from typing import TYPE_CHECKING

import lazy_loader

from pipeline.runtime.portable import use_portable_arithmetic

if TYPE_CHECKING:
    from pipeline.cams.timm_models import timm_cam
    from pipeline.evaluation.map_scores import score_maps
    from pipeline.evaluation.prediction import load_model
    from pipeline.params.config import load_params
    from pipeline.params.errors import PixelCAMError
    from pipeline.pseudo_labels.store import PseudoLabelStore
    from pipeline.pseudo_labels.thresholding import threshold_cam
    from pipeline.report.overlays import heat_overlay, label_overlay

__all__ = [
    "PixelCAMError",
    "PseudoLabelStore",
    "heat_overlay",
    "label_overlay",
    "load_model",
    "load_params",
    "score_maps",
    "threshold_cam",
    "timm_cam",
]

use_portable_arithmetic()  # before anything is loaded

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cams.timm_models": ["timm_cam"],
        "evaluation.map_scores": ["score_maps"],
        "evaluation.prediction": ["load_model"],
        "params.config": ["load_params"],
        "params.errors": ["PixelCAMError"],
        "pseudo_labels.store": ["PseudoLabelStore"],
        "pseudo_labels.thresholding": ["threshold_cam"],
        "report.overlays": ["heat_overlay", "label_overlay"],
    },
)
