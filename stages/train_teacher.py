"""Stage `train_teacher`: train the image classifier whose CAM says roughly where."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.params.config import load_params
from pipeline.runtime.console import run
from pipeline.training.teacher import train_teacher


def main(params: Path, prepared: Path, output: Path, checkpoints: Path) -> None:
    """Train a teacher on the source domain of PARAMS, listed in PREPARED, and write it to the folder OUTPUT.

    Its state is kept in CHECKPOINTS on the way.
    """
    values = load_params(params)
    train_teacher(read_domain(values.source, values, prepared), params=values, output=output, checkpoints=checkpoints)


if __name__ == "__main__":
    run(main, parallel=True)
