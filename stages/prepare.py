"""Stage `prepare@<domain>`: check a domain's raw data, or generate it, and write its manifest."""

from pathlib import Path

from pipeline.config import load_params
from pipeline.console import run, say
from pipeline.preparation import prepare_domain, summary


def main(domain: str, params: Path, output: Path) -> None:
    """Prepare DOMAIN of the file PARAMS into the folder OUTPUT."""
    manifest = prepare_domain(load_params(params).domain(domain), output=output)
    say(f"{domain}: {summary(manifest)}")


if __name__ == "__main__":
    run(main)
