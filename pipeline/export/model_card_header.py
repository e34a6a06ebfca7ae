"""The header of a model card: YAML that the Hugging Face hub reads, with the scores in its form."""

import importlib.metadata
from collections.abc import Iterator
from typing import Final

from huggingface_hub import EvalResult, ModelCardData

from pipeline.export.model_card_facts import SHOWN, CardFacts, DomainScores
from pipeline.metrics.scores import ModelName

TAGS: Final = (
    "pixelcam",
    "histology",
    "digital-pathology",
    "weakly-supervised-learning",
    "object-localization",
    "image-classification",
)
CLASSIFICATION: Final = ("image-classification", "image classification")
LOCALIZATION: Final = ("image-segmentation", "region of interest, learned from image labels")
TASKS: Final = {
    "accuracy": CLASSIFICATION,
    "balanced_accuracy": CLASSIFICATION,
    "pxap": LOCALIZATION,
    "dice": LOCALIZATION,
}


def license_of_the_project() -> str:
    """Return the licence as `pyproject.toml` has it, an SPDX expression."""
    return importlib.metadata.metadata("pixelcam")["License-Expression"]


def header(facts: CardFacts) -> str:
    """Return YAML without the lines that bound it; fractions as evaluation wrote them.

    Where it was made of what others license, an encoder's first weights or images, the licence is called `other`.
    """
    of_teacher = ["class-activation-map"] if facts.kind is ModelName.TEACHER else []
    adapted = [] if facts.adaptation is None else ["source-free-domain-adaptation"]
    data = ModelCardData(
        license=license_of_the_project().lower() if facts.is_own_work else "other",
        license_name=None if facts.is_own_work else "see-the-model-card",
        library_name="pixelcam",
        pipeline_tag="image-segmentation",
        tags=[*TAGS, *of_teacher, *adapted],
        metrics=list(SHOWN),
        model_name=f"{facts.kind.value}-{facts.source.name}"
        + (f"-{facts.adaptation.domain}" if facts.adaptation else ""),
        eval_results=[result for found in facts.scores for result in _results(found)],
    )
    return data.to_yaml().strip()


def _results(found: DomainScores) -> Iterator[EvalResult]:
    for score, (task, name) in TASKS.items():
        value = found.scores[score]
        if value is not None:
            yield EvalResult(
                task_type=task,
                task_name=name,
                dataset_type=found.domain,
                dataset_name=found.domain,
                dataset_split="test",
                metric_type=score,
                metric_name=SHOWN[score],
                metric_value=value,
            )
