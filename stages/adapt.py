"""Stage `adapt@<domain>`: bring both models to a domain that they do not know, by its images without their labels."""

from pathlib import Path

from pipeline.adaptation.adapting import adapt_models
from pipeline.data.unlabelled import read_unlabelled
from pipeline.params.config import load_params
from pipeline.runtime.console import run


def main(
    domain: str, params: Path, prepared: Path, teacher: Path, pixelcam: Path, output: Path, checkpoints: Path
) -> None:
    """Adapt TEACHER and PIXELCAM to the images of DOMAIN in PREPARED and write them into the folder OUTPUT.

    Their state is kept in CHECKPOINTS on the way.
    """
    values = load_params(params)
    adaptation = values.adaptation[domain]
    target = read_unlabelled(domain, values, prepared, adapted_to=adaptation.images)
    models = {"teacher": teacher, "pixelcam": pixelcam}
    adapt_models(models, target, adaptation=adaptation, params=values, output=output, checkpoints=checkpoints)


if __name__ == "__main__":
    run(main, parallel=True)
