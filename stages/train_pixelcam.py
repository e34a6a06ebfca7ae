"""Stage `train_pixelcam`: train the image and the pixel classifier together on one encoder."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.params.config import load_params
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.console import run
from pipeline.training.pixelcam import train_pixelcam


def main(params: Path, prepared: Path, store: Path, teacher: Path, output: Path, checkpoints: Path) -> None:
    """Train PixelCAM on the images in PREPARED and the pseudo-labels in STORE; write it to the folder OUTPUT.

    Its state is kept in CHECKPOINTS on the way.
    """
    values = load_params(params)
    source = read_domain(values.source, values, prepared)
    labels = PseudoLabelStore(store)
    train_pixelcam(source, store=labels, teacher=teacher, params=values, output=output, checkpoints=checkpoints)


if __name__ == "__main__":
    run(main, parallel=True)
