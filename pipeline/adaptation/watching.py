"""How well a model suits a domain, as far as its own predictions tell, and whether it falls onto one class.

No label is looked at. The score is the mutual information of image and predicted class, H(mean p) - mean H(p): high
where a model is sure of each image and divides the images among the classes, 0 where it says the same of all
("Unsupervised Classifiers, Mutual Information and 'Phantom Targets'", Bridle et al., NIPS 1991). It presumes that the
domain holds all classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from pipeline.adaptation.losses import entropy

COLLAPSED: Final = 0.95  # of the images predicted as one class


@dataclass(frozen=True)
class Watched:
    """What a model's predictions on a domain look like after an epoch.

    Attributes:
        epoch: 0 is before the first step.
        mutual_information: nats, 0 to log K.
        largest_class: the index of the class that most images are predicted as.
        largest_share: the share of them, in [0, 1].
    """

    epoch: int
    mutual_information: float
    largest_class: int
    largest_share: float

    @property
    def has_collapsed(self) -> bool:
        """Return whether nearly all images are predicted as one class."""
        return self.largest_share >= COLLAPSED

    def row(self) -> dict[str, float]:
        """Return the numbers as a row of a history; its epoch is told by its place."""
        return {
            "mutual_information": self.mutual_information,
            "largest_class": float(self.largest_class),
            "largest_share": self.largest_share,
        }


def watch(probabilities: Tensor, *, epoch: int) -> Watched:
    """Look at class probabilities, float (N, K)."""
    values = probabilities.double()
    counts = values.argmax(dim=1).bincount(minlength=values.shape[1])
    return Watched(
        epoch=epoch,
        mutual_information=float(entropy(values.mean(dim=0, keepdim=True)) - entropy(values).mean()),
        largest_class=int(counts.argmax()),
        largest_share=float(counts.max()) / len(values),
    )


def from_row(row: dict[str, float]) -> Watched:
    """Return what a history's row says; see `Watched.row`."""
    return Watched(
        epoch=int(row["epoch"]),
        mutual_information=row["mutual_information"],
        largest_class=int(row["largest_class"]),
        largest_share=row["largest_share"],
    )


def fell(course: Sequence[Watched]) -> bool:
    """Return whether a model has fallen onto one class of which it did not always say all images.

    A model that said one class of all images from the start has not fallen: adapting may yet lift it.
    """
    last = course[-1]
    always = all(each.has_collapsed and each.largest_class == last.largest_class for each in course)
    return last.has_collapsed and not always


def describe_stop(course: Sequence[Watched], classes: Sequence[str]) -> str | None:
    """Say in which epoch a run was stopped and why; None where it was not."""
    last = course[-1]
    if not fell(course):
        return None
    share, name = 100 * last.largest_share, classes[last.largest_class]
    return f"epoch {last.epoch}: {share:.0f} % of the images are predicted as {name}"


def describe_course(course: Sequence[Watched], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the course as JSON values, with classes by name."""
    return [
        {
            "epoch": each.epoch,
            "mutual_information": round(each.mutual_information, 6),
            "largest_class": classes[each.largest_class],
            "largest_share": round(each.largest_share, 6),
        }
        for each in course
    ]
