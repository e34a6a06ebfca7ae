"""Stage `repeat`: train the whole chain again from another seed, so that scores have a mean and a spread."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.params.config import load_params
from pipeline.runtime.console import run
from pipeline.training.repeats import repeat_chain


def main(seed: int, params: Path, prepared: Path, output: Path, checkpoints: Path) -> None:
    """Train teacher and PixelCAM from SEED on the images in PREPARED and write their folders into the folder OUTPUT.

    Their state is kept in CHECKPOINTS on the way.
    """
    values = load_params(params)
    source = read_domain(values.source, values, prepared)
    repeat_chain(source, seed=seed, params=values, output=output, checkpoints=checkpoints)


if __name__ == "__main__":
    run(main, parallel=True)
