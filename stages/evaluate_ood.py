"""Stage `evaluate_ood`: score the teacher and PixelCAM in domain and out."""

from pathlib import Path

from pipeline.config import load_params
from pipeline.console import run
from pipeline.domains import read_domain
from pipeline.files import write_csv, write_json
from pipeline.ood_evaluation import evaluate_models
from pipeline.score_tables import curve_table, per_image_table, scores_by_domain


def main(params: Path, prepared: Path, models: Path, scores: Path, per_image: Path, curves: Path) -> None:
    """Score the teacher and PixelCAM in MODELS on the domains in PREPARED; write SCORES, PER_IMAGE and CURVES."""
    values = load_params(params)
    domains = [read_domain(name, values, prepared / name) for name in values.target_domains]
    pixelcam = models / values.final_model
    evaluations = evaluate_models(domains, teacher=models / "teacher", pixelcam=pixelcam, params=values)
    write_csv(per_image, per_image_table(evaluations))
    write_csv(curves, curve_table(evaluations))
    write_json(scores, scores_by_domain(evaluations))


if __name__ == "__main__":
    run(main)
