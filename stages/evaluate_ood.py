"""Stage `evaluate_ood`: score the teacher and PixelCAM in domain and out."""

import os
from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.evaluation.adaptation_scores import adaptation_scores
from pipeline.evaluation.adapted import find_adapted
from pipeline.evaluation.domains import Chain, evaluate_models
from pipeline.evaluation.slide_scores import evaluate_slides, slide_models
from pipeline.evaluation.tables import (
    curve_table,
    headline,
    matrix_table,
    per_image_tables,
    scores_by_domain,
    with_slides,
    with_spread,
)
from pipeline.params.config import load_params
from pipeline.runtime.cluster import SCHEDULER
from pipeline.runtime.console import run
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.processes import is_first


def main(
    params: Path,
    prepared: Path,
    models: Path,
    summary: Path,
    scores: Path,
    per_image: Path,
    curves: Path,
    matrix: Path,
    adaptation: Path,
    slides: Path,
    checkpoints: Path,
) -> None:
    """Score the models in MODELS on the domains in PREPARED.

    Write SUMMARY, SCORES, PER_IMAGE, CURVES, MATRIX, ADAPTATION, SLIDES. What is finished of slides is kept in
    CHECKPOINTS until all is.
    """
    values = load_params(params)
    domains = [read_domain(name, values, prepared / name) for name in values.target_domains]
    folders = {seed: models / f"seed_{seed}" for seed in values.seeds} | {values.seed: models}
    chains = {
        seed: Chain(teacher=folder / "teacher", pixelcam=folder / values.final_model)
        for seed, folder in folders.items()
    }
    adapted = find_adapted(values, models)
    scored = evaluate_models(domains, chains=chains, params=values, adapted=adapted)
    evaluations = next(iter(scored.values()))
    write_csv(per_image, per_image_tables(evaluations))
    write_csv(curves, curve_table(evaluations))
    write_csv(matrix, matrix_table(scored, source=values.source))
    adaptations = adaptation_scores(scored, adapted, source=values.source)
    write_json(adaptation, adaptations)
    found = with_spread(scores_by_domain(evaluations), scored)
    if is_first():
        of_slides = evaluate_slides(
            domains,
            slide_models(chains[values.seed], evaluations),
            params=values,
            output=slides,
            scratch=checkpoints / "slides",
            scheduler=os.environ.get(SCHEDULER),
        )
        found = with_slides(found, of_slides)
    write_json(scores, found)
    write_json(summary, headline(found, adaptations))


if __name__ == "__main__":
    run(main, parallel=True)
