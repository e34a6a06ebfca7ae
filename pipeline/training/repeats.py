"""Train the whole chain again, from another seed or on another domain: teacher, pseudo-labels, PixelCAM, all rounds."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Approach, Selection
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.collectives import from_first, wait_for_all
from pipeline.runtime.devices import make_fabric
from pipeline.runtime.files import replacing_folder, write_json
from pipeline.runtime.processes import is_first
from pipeline.training.pixelcam import train_pixelcam
from pipeline.training.teacher import train_teacher

FIRST_ROUND: Final = {"pixelcam": "teacher"}  # like the rounds of the params: a model, and the one that it learns from


def repeat_chain(source: PreparedDomain, *, seed: int, params: Params, output: Path, checkpoints: Path) -> None:
    """Train a teacher and every round of PixelCAM from a seed, as the DAG does from the seed of the params.

    Args:
        source: the domain to learn from.
        seed: takes the place of the seed in the params. If it is the same, there is nothing to train, and the folder
            says so.
        params: all parameters.
        output: folder to write, with one folder per model, named as in the DAG, and one store per round.
        checkpoints: folder for the state of trainings; those of this chain stay until all of it is on disk.

    Raises:
        PixelCAMError: an image cannot be read, or a training diverges.
    """
    seeded, states = params.model_copy(update={"seed": seed}), checkpoints / f"seed_{seed}"
    make_fabric()  # where several processes meet
    with ExitStack() as first_alone:
        folder = from_first(lambda: first_alone.enter_context(replacing_folder(output)))
        if seed == params.seed:
            write_json(folder / "first_chain.json", {"seed": seed, "remark": "the models of this seed are the first"})
        else:
            _train_chain(source, params=seeded, folder=folder, states=states)
    if is_first() and seed != params.seed:
        shutil.rmtree(states, ignore_errors=True)
    wait_for_all()


def train_bound(target: PreparedDomain, *, params: Params, output: Path, checkpoints: Path) -> None:
    """Train a teacher, and PixelCAM with pixels from masks, on a domain itself: what as many labelled images give.

    Both start from the encoder's weights and know nothing of the source. Where the domain has no validation images, the
    last states are the models.

    Args:
        target: the domain, whose training images have labels and masks.
        params: all parameters; there is one round.
        output: folder to write, with a folder for each model.
        checkpoints: folder for the state of trainings.

    Raises:
        PixelCAMError: an image has no mask or cannot be read, or a training diverges.
    """
    _check_masks(target)
    states = checkpoints / f"bound_{target.name}"
    supervised = _supervised(params, validated=len(target.manifest.of_split(Split.VAL)) > 0)
    make_fabric()  # where several processes meet
    with ExitStack() as first_alone:
        folder = from_first(lambda: first_alone.enter_context(replacing_folder(output)))
        _train_chain(target, params=supervised, folder=folder, states=states)
    if is_first():
        shutil.rmtree(states, ignore_errors=True)
    wait_for_all()


def _check_masks(target: PreparedDomain) -> None:
    without = [
        row.image
        for row in target.manifest.of_split(Split.TRAIN).rows
        if not row.mask and row.class_idx != target.background_class_idx
    ]
    if without:
        raise PixelCAMError(
            f"bounds: '{target.name}' has {len(without)} training image(s) without a mask (the first: {without[0]}), "
            "and models are to learn from its masks; add them, or leave it out of bounds"
        )


def _supervised(params: Params, *, validated: bool) -> Params:
    """Return the params with one round from masks, and no selection that there are no validation images for."""
    by_masks: dict[str, object] = {"approach": Approach.SUPERVISED}
    last: dict[str, object] = {} if validated else {"selection": Selection.LAST, "keep": ()}
    return params.model_copy(
        update={
            "train_teacher": params.train_teacher.model_copy(update=last),
            "train_pixelcam": params.train_pixelcam.model_copy(update=by_masks | last),
            "rounds": {},
        }
    )


def _train_chain(source: PreparedDomain, *, params: Params, folder: Path, states: Path) -> None:
    """Train a teacher and every round after it into an existing folder; their states stay in the folder `states`."""
    train_teacher(source, params=params, output=folder / "teacher", checkpoints=states, keep_checkpoint=True)
    for name, previous in (FIRST_ROUND | params.rounds).items():
        labels = folder / f"pseudo_labels_{name}.zarr"
        quality = extract_pseudo_labels(source, teacher=folder / previous, params=params, output=labels)
        write_json(folder / f"pseudo_labels_{name}.json", quality)
        train_pixelcam(
            source,
            store=PseudoLabelStore(labels),
            teacher=folder / previous,
            params=params,
            output=folder / name,
            checkpoints=states,
            keep_checkpoint=True,
        )
