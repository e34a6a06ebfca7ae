"""What the report says of models that were adapted to a domain, before it becomes a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.adapted import AdaptationEpoch
from pipeline.params.vocabulary import AdaptationMethod

Scores = Mapping[str, Any]  # by name, as JSON has them: None for NaN


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptedModel:
    """How one model was adapted, and its scores before and after.

    Attributes:
        source_only: on the domain, before.
        adapted: on the domain, after.
        supervised: on the domain, of a model that learned from its labels and masks; None where there is none.
        over_source_only: by score, how much higher it is after: difference, low, high, p_value; None for NaN.
        source_before: on the domain that the model comes from, before.
        source_after: likewise, after.
        chosen_by: what chose the state that was kept.
        chosen_epoch: of that state.
        stopped: when and why the guard stopped the run; None where it did not.
        start_collapsed: whether the model said one class of nearly all images before.
        course: from epoch 0 on, at least that.
    """

    source_only: Scores
    adapted: Scores
    supervised: Scores | None
    over_source_only: Mapping[str, Mapping[str, float | None]]
    source_before: Scores
    source_after: Scores
    chosen_by: str
    chosen_epoch: int
    stopped: str | None
    start_collapsed: bool
    course: Sequence[AdaptationEpoch]

    @property
    def chosen(self) -> AdaptationEpoch:
        """Return the epoch whose state was kept."""
        return next(each for each in self.course if each.epoch == self.chosen_epoch)


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptedDomain:
    """A domain that models were adapted to.

    Attributes:
        name: the domain's.
        source: the domain that the models come from.
        method: how they were adapted.
        transductive: whether they were adapted to the very images that are scored.
        images: how many they were adapted to.
        models: "teacher" and "pixelcam".
    """

    name: str
    source: str
    method: AdaptationMethod
    transductive: bool
    images: int
    models: Mapping[str, AdaptedModel]
