"""Adapt a model to image files of one's own, as the stage `adapt` does to a domain."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.adaptation.adapting import adapt_model
from pipeline.data.unlabelled import UnlabelledDomain, unlabelled_files
from pipeline.export.hub import find_model
from pipeline.models.files import ADAPTATION, read_info
from pipeline.params.adaptation import AdaptationParams
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.reading import read_checked
from pipeline.params.vocabulary import AdaptationMethod, Evidence


def choose_adaptation(
    params: Params,
    *,
    settings: Path | None,
    like: str | None,
    method: AdaptationMethod | None,
    evidence: Evidence | None,
) -> AdaptationParams:
    """Return how to adapt: as a file says, or as the params do for a domain or the first that they name.

    Args:
        params: all parameters.
        settings: the file, or None.
        like: the domain, or None.
        method: takes the place of the method, if given.
        evidence: likewise.

    Raises:
        PixelCAMError: the file is no such section, or the params name no such domain.
    """
    if settings is not None and like is not None:
        raise PixelCAMError("--settings, --like: both say how to adapt; leave one out")
    known = ", ".join(params.adaptation) or "none"
    if settings is None and (not params.adaptation or (like is not None and like not in params.adaptation)):
        raise PixelCAMError(
            f"adaptation: expected a section '{like or 'DOMAIN'}' in the params, which says how to adapt (there are: "
            f"{known}); or say it by --settings presets/adaptation.yaml"
        )
    chosen = (
        read_checked(AdaptationParams, settings)
        if settings
        else params.adaptation[like or next(iter(params.adaptation))]
    )
    asked = {"method": method, "evidence": evidence}
    return chosen.model_copy(update={name: value for name, value in asked.items() if value is not None})


def adapt(
    model: Path,
    images: Sequence[Path],
    *,
    output: Path,
    adaptation: AdaptationParams,
    params: Params,
    background_class: str | None,
) -> None:
    """Adapt a model to image files and write it as a model of its own.

    Args:
        model: its folder, or `hf-hub:owner/name`.
        images: files, or folders of them.
        output: folder to write; must not exist yet.
        adaptation: how.
        params: all parameters.
        background_class: the class whose images hold no region of interest, if there is one.

    The state of what is under way lies beside the output, so that a run that was killed goes on.

    Raises:
        PixelCAMError: the output exists, an image cannot be read, or there are too few of them.
    """
    if output.exists():
        raise PixelCAMError(f"{output}: exists already; give another --output, or remove it")
    folder = find_model(str(model))
    classes = read_info(folder).classes
    if background_class is not None and background_class not in classes:
        raise PixelCAMError(
            f"--background-class: expected one of the model's classes ({', '.join(classes)}), got "
            f"'{background_class}'; mend it, or leave it out"
        )
    target = UnlabelledDomain(
        name=output.name,
        classes=classes,
        background_class_idx=None if background_class is None else classes.index(background_class),
        images=unlabelled_files(images),
    )
    states = output.with_name(f".{output.name}.adapting")
    adapt_model(folder, target, adaptation=adaptation, params=params, output=output, checkpoints=states)
    shutil.rmtree(states, ignore_errors=True)


def describe_adaptation(output: Path) -> str:
    """Say in a line how a model was adapted, and what its predictions were like before and after."""
    about = json.loads((output / ADAPTATION).read_text(encoding="utf-8"))
    first, last = about["course"][0], about["course"][about["chosen_epoch"]]
    text = (
        f"adapted by {about['method']} to {about['images']} images; before it called {_share(first)} of them "
        f"{first['largest_class']}, now {_share(last)} {last['largest_class']}; mutual information "
        f"{first['mutual_information']:.2f}, now {last['mutual_information']:.2f}"
    )
    if about["chosen_epoch"] == 0:
        text += "; no epoch was better than the model as it was, which is what was written"
    return text if about["stopped"] is None else f"{text}; stopped at {about['stopped']}"


def _share(epoch: dict[str, Any]) -> str:
    return f"{100 * epoch['largest_share']:.0f} %"
