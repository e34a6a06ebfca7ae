"""Stage `prepare@<domain>`: check a domain's raw data, or generate it, and write its manifest."""

import os
from pathlib import Path

from pipeline.data.preparation import prepare_domain, summary
from pipeline.data.review import read_review
from pipeline.params.config import load_params
from pipeline.runtime.cluster import SCHEDULER
from pipeline.runtime.console import run, say


def main(domain: str, params: Path, output: Path) -> None:
    """Prepare DOMAIN of the file PARAMS into the folder OUTPUT."""
    known = load_params(params)
    scheduler = os.environ.get(SCHEDULER)
    manifest = prepare_domain(
        known.domain(domain),
        output=output,
        review=read_review(domain, known),
        tissue=known.slides.tissue,
        scheduler=scheduler,
    )
    say(f"{domain}: {summary(manifest)}")


if __name__ == "__main__":
    run(main)
