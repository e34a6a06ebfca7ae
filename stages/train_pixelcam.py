"""Stage `train_pixelcam`: train the image and the pixel classifier together on one encoder."""

from pathlib import Path

from pipeline.config import load_params
from pipeline.console import run
from pipeline.domains import read_domain
from pipeline.pixelcam_training import train_pixelcam
from pipeline.store import PseudoLabelStore


def main(params: Path, prepared: Path, store: Path, teacher: Path, output: Path) -> None:
    """Train PixelCAM on the images in PREPARED and the pseudo-labels in STORE; write it to the folder OUTPUT."""
    values = load_params(params)
    source = read_domain(values.source, values, prepared)
    train_pixelcam(source, store=PseudoLabelStore(store), teacher=teacher, params=values, output=output)


if __name__ == "__main__":
    run(main)
