"""Stage `bound@<domain>`: train on a domain's own labels and masks, which bounds what adapting to it can reach."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.params.config import load_params
from pipeline.runtime.console import run
from pipeline.training.repeats import train_bound


def main(domain: str, params: Path, prepared: Path, output: Path, checkpoints: Path) -> None:
    """Train both models on the labels and masks of DOMAIN in PREPARED and write them into the folder OUTPUT.

    Their state is kept in CHECKPOINTS on the way.
    """
    values = load_params(params)
    train_bound(read_domain(domain, values, prepared), params=values, output=output, checkpoints=checkpoints)


if __name__ == "__main__":
    run(main, parallel=True)
