"""Stage `model_cards`: what each model is, for somebody who finds it alone."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.export.model_card import write_model_cards
from pipeline.params.config import load_params
from pipeline.runtime.console import run


def main(params: Path, prepared: Path, models: Path, scores: Path, adaptation: Path, output: Path) -> None:
    """Write a card of each model in MODELS that SCORES or ADAPTATION speak of into the folder OUTPUT."""
    values = load_params(params)
    domains = [read_domain(name, values, prepared / name) for name in values.target_domains]
    write_model_cards(domains, models=models, scores=scores, adaptation=adaptation, params=values, output=output)


if __name__ == "__main__":
    run(main)
