"""Model cards: what a model is, for somebody who found it alone, in the form that the Hugging Face hub shows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.data.manifest import PreparedDomain
from pipeline.export import model_card_scores as of_scores
from pipeline.export import model_card_sections as sections
from pipeline.export.model_card_facts import CardFacts, describe_domain, gather_facts
from pipeline.export.model_card_header import header
from pipeline.metrics.scores import ModelName
from pipeline.models.files import WEIGHTS, weights_sha256
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import is_shortage, replacing_folder, write_text

CARD: Final = "README.md"
MODELS: Final = "models"
CARDS: Final = Path("reports/model_cards")  # beside the folder of models
REMEDY: Final = "run 'dvc repro model_cards', or give the model's card with --card FILE"


def write_model_cards(
    domains: Sequence[PreparedDomain], *, models: Path, scores: Path, adaptation: Path, params: Params, output: Path
) -> None:
    """Write a card of each model that is scored: teacher, PixelCAM of the last round, all that was adapted.

    A copy goes into each model's folder, for whoever opens that; `.dvcignore` names it, so that the folder stays the
    output of its training.

    Args:
        domains: all that models are scored on, the source among them.
        models: the folder of all models.
        scores: what `evaluate_ood` wrote, JSON.
        adaptation: what it wrote of adapted models, JSON.
        params: all parameters.
        output: folder, replaced; `<model folder, seen from models>/README.md`.

    Raises:
        PixelCAMError: a file is missing or damaged.
    """
    described = sorted(
        (describe_domain(domain, params) for domain in domains), key=lambda domain: domain.name != params.source
    )
    cards: dict[str, str] = {}
    with replacing_folder(output) as folder:
        for name in _scored_models(params):
            facts = gather_facts(
                name,
                models=models,
                domains=tuple(described),
                scores=scores,
                adaptation=adaptation,
                params=params,
            )
            cards[name] = render_card(facts)
            card = folder / name / CARD
            card.parent.mkdir(parents=True)
            card.write_text(cards[name], encoding="utf-8", newline="\n")
    for name, text in cards.items():
        write_text(models / name / CARD, text)


def _scored_models(params: Params) -> Iterator[str]:
    yield from ("teacher", params.final_model)
    for domain in params.adaptation:
        yield from (f"adapted_{domain}/{model}" for model in ModelName)


def render_card(facts: CardFacts) -> str:
    """Return a card, Markdown with a header of YAML; the same facts give the same bytes."""
    warned = [
        "**For research only.** It is no medical device, and nothing that it says is a diagnosis.",
        *(f"**Beware.** {warning}" for warning in of_scores.warnings(facts)),
    ]
    parts = [
        f"---\n{header(facts)}\n---",
        sections.title(facts),
        sections.opening(facts),
        "\n>\n".join(f"> {warning}" for warning in warned),
        sections.glance(facts),
        sections.usage(facts),
        sections.purpose(facts),
        sections.data(facts),
        sections.training(facts),
        of_scores.scores(facts),
        of_scores.calibration(facts),
        of_scores.limits(facts),
        sections.provenance(facts),
    ]
    return "\n\n".join(parts) + "\n"


def read_card(model: Path, card: Path | None) -> str:
    """Return the card of a model, having seen that it names the very weights.

    Args:
        model: its folder.
        card: the card; None: the pipeline's, or else that in the folder itself, as in what was fetched from the hub.

    Raises:
        PixelCAMError: there is no card, or it is of other weights.
    """
    path = card or _card_of(model)
    digest = weights_sha256(model)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise PixelCAMError(f"{path}: cannot be read as the card of {model} ({reason}); {REMEDY}") from error
    if digest not in text:
        raise PixelCAMError(
            f"{path}: is the card of other weights: it does not name {digest}, the SHA-256 of {model / WEIGHTS}; "
            f"{REMEDY}"
        )
    return text


def _card_of(model: Path) -> Path:
    """Return where the card of a model lies."""
    beside, folders = model / CARD, model.absolute().parts
    if MODELS not in folders[:-1]:
        if beside.is_file():
            return beside
        raise PixelCAMError(f"{model}: has no {CARD}, and lies in no folder '{MODELS}' of a run; give --card FILE")
    depth = len(folders) - 1 - folders[::-1].index(MODELS)
    written = Path(*folders[:depth]) / CARDS / Path(*folders[depth + 1 :]) / CARD
    return written if written.is_file() or not beside.is_file() else beside
