"""What `test_several_processes.py` does in one process, and as this program under torchrun in two.

Arguments: the folder of a finished run, and the folder for what comes out.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from tiny import Run, adapting, tiny_params

from pipeline.adaptation.adapting import adapt_models
from pipeline.data.manifest import read_domain
from pipeline.data.unlabelled import read_unlabelled
from pipeline.evaluation.domains import Chain, evaluate_models
from pipeline.evaluation.tables import curve_table, per_image_tables, scores_by_domain
from pipeline.params.config import Params
from pipeline.params.vocabulary import AdaptedTo
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.processes import leave
from pipeline.training.pixelcam import train_pixelcam
from pipeline.training.repeats import repeat_chain
from pipeline.training.teacher import train_teacher

# Plain gradient descent, since AdamW divides by gradients that may be nothing but rounding; no statistics of a batch.
TRAINING: Final[dict[str, object]] = {
    "steps": 3,
    "batch_size": 4,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "head_learning_rate": 0.1,
    "frozen": "batch_norm",
}
TEACHERS: Final[dict[str, dict[str, object]]] = {
    "convnext": {"encoder.name": "test_convnext"},
    "has": {"train_teacher.regularization": "has"},
    "cutmix_sat": {"train_teacher.regularization": "cutmix", "model.image_head": "sat"},
}
CHAIN_SEED: Final = 1
ADAPTING: Final = ("batch_norm", "shot", "self_training", "sfda_dep")
BATCHES: Final[dict[str, object]] = {"extract_pseudo_labels.batch_size": 2, "evaluate_ood.batch_size": 1}


def params_of(run: Run, changes: dict[str, object]) -> Params:
    """Return the parameters of everything here."""
    trainings = {
        f"{section}.{name}": value
        for section in ("train_teacher", "train_pixelcam")
        for name, value in TRAINING.items()
    }
    return tiny_params(run.root / "raw", trainings | BATCHES | changes)


def do_all(run: Run, output: Path) -> None:
    """Do once all that several processes can share."""
    params = params_of(run, {"train_pixelcam.keep": ["val_loss", "val_pxap"]})
    # Images of one class have no foreground to draw, so that processes learn from pixels in different number.
    home = replace(read_domain("home", params, run.prepared / "home"), background_class_idx=1)
    store = output / "store.zarr"
    write_json(output / "quality.json", extract_pseudo_labels(home, teacher=run.teacher, params=params, output=store))
    for name, changes in TEACHERS.items():
        train_teacher(home, params=params_of(run, changes), output=output / name, checkpoints=output / "checkpoints")
    train_pixelcam(
        home,
        store=PseudoLabelStore(store),
        teacher=run.teacher,
        params=params,
        output=output / "pixelcam",
        checkpoints=output / "checkpoints",
    )
    evaluate(run, params, output)
    for method in ADAPTING:
        adapt(run, method, output)
    repeat_chain(home, seed=CHAIN_SEED, params=params, output=output / "chain", checkpoints=output / "checkpoints")


def adapt(run: Run, method: str, output: Path) -> None:
    """Adapt the finished run's PixelCAM."""
    rates = {"learning_rate": 0.01, "head_learning_rate": 0.1}
    section = adapting(method=method, steps=3, batch_size=4, **rates)
    params = params_of(run, section | {"domains.away.background_class": "benign"})
    adapt_models(
        {method: run.pixelcam},
        read_unlabelled("away", params, run.prepared / "away", adapted_to=AdaptedTo.TEST),
        adaptation=params.adaptation["away"],
        params=params,
        output=output / "adapted" / method,
        checkpoints=output / "checkpoints",
    )


def evaluate(run: Run, params: Params, output: Path) -> None:
    """Score the finished run's models."""
    domains = [read_domain(name, params, run.prepared / name) for name in params.target_domains]
    chains = {params.seed: Chain(teacher=run.teacher, pixelcam=run.pixelcam)}
    evaluations = next(iter(evaluate_models(domains, chains=chains, params=params).values()))
    write_csv(output / "per_image.csv", per_image_tables(evaluations))
    write_csv(output / "curves.csv", curve_table(evaluations))
    write_json(output / "scores.json", scores_by_domain(evaluations))


if __name__ == "__main__":
    do_all(Run(Path(sys.argv[1])), Path(sys.argv[2]))
    leave()
