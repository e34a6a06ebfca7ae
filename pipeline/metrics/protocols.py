"""On whose terms maps are scored. It stands alone, so that a command can offer the choice before NumPy is loaded."""

from enum import StrEnum


class ScoreProtocol(StrEnum):
    """Definitions of this project, or those of the published evaluator; see `pipeline.metrics.published`.

    The published evaluator takes maps as they are, as the authors of PixelCAM do with the map of a pixel head. The
    program around it first stretches each to [0, 1] by its own lowest and highest value.
    """

    PIXELCAM = "pixelcam"
    WSOLEVALUATION = "wsolevaluation"
    WSOLEVALUATION_STRETCHED = "wsolevaluation-stretched"
