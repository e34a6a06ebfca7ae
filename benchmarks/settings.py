"""What all benchmarks are told: on what to run, how large and how often."""

from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of a run.

    Attributes:
        fabric: device and precision, as the stages choose them.
        scratch: an empty folder for files.
        quick: tiny sizes, which show that a benchmark works and nothing of speed.
        glas: a folder of images as the GlaS challenge publishes them; None: generated ones of their size.
        project: the folder of this project, with what a run of its pipeline has left.
    """

    fabric: Fabric
    scratch: Path
    quick: bool
    glas: Path | None
    project: Path

    @property
    def encoders(self) -> dict[str, int]:
        """Return timm names, and images per training step: the default encoder and ResNet-50."""
        return {"test_efficientnet": 2} if self.quick else {"tf_efficientnet_lite0": 8, "resnet50": 8}

    @property
    def input_size(self) -> int:
        """Return the side of images, in pixels."""
        return 64 if self.quick else 224

    @property
    def extraction_batch(self) -> int:
        """Return the images per batch where CAMs are read."""
        return 2 if self.quick else 32

    def rounds(self, wanted: int) -> int:
        """Return how often to measure."""
        return 1 if self.quick else wanted
