"""How good pseudo-labels are: the share of each label per class and, where masks exist, its precision and recall."""

from typing import Any

import torch
from torch import Tensor

from pipeline.data.maps import EvaluationBatch
from pipeline.params.vocabulary import PIXEL_LABELS
from pipeline.runtime.collectives import interleaved
from pipeline.runtime.devices import to_device


class LabelQuality:
    """Counts of pseudo-labels against masks, per class, streamed over batches and kept where they are counted.

    Args:
        classes: names of the image classes.
        device: where the pseudo-labels are; None: in main memory.
    """

    def __init__(self, classes: tuple[str, ...], *, device: torch.device | None = None) -> None:
        self.classes = classes
        shape = (len(classes), len(PIXEL_LABELS))
        self._device = device or torch.device("cpu")
        self._count = torch.zeros(shape, dtype=torch.int64, device=self._device)
        self._judged = torch.zeros_like(self._count)  # pixels with a truth to compare with
        self._foreground = torch.zeros_like(self._count)  # of these, truly foreground

    def update(self, pseudo_labels: Tensor, batch: EvaluationBatch) -> None:
        """Add a batch: pseudo-labels uint8 (B, S, S): 0, 1, 255; the batch's masks have the same size.

        Nothing here waits for a device.
        """
        masks, class_idx = to_device(batch.masks, self._device), to_device(batch.class_idx, self._device)
        judged = to_device(batch.has_mask, self._device)[:, None, None].expand_as(masks)
        if batch.ignore is not None:
            judged = judged & ~to_device(batch.ignore, self._device)
        for column, value in enumerate(PIXEL_LABELS.values()):
            found = pseudo_labels == value
            for counts, where in (
                (self._count, found),
                (self._judged, found & judged),
                (self._foreground, found & judged & masks),
            ):
                counts[:, column].index_add_(0, class_idx, where.sum(dim=(1, 2)))

    def join(self) -> None:
        """Add what other processes have counted."""
        for counts in (self._count, self._judged, self._foreground):
            counts.copy_(torch.stack(interleaved([counts.cpu()])).sum(dim=0))

    def summary(self) -> dict[str, Any]:
        """Return, for "all" and per class, `share` of each label, `precision` and `recall` of all but ignore.

        Precision is how much of what is labelled foreground is truly foreground; recall how much of what is truly
        foreground is labelled so; of background alike. All are fractions in [0, 1]; None where nothing can be said, for
        want of pixels or of masks.
        """
        rows = {"all": slice(None), **{name: slice(index, index + 1) for index, name in enumerate(self.classes)}}
        return {name: self._of(selection) for name, selection in rows.items()}

    def _of(self, selection: slice) -> dict[str, Any]:
        count, judged, foreground = (
            counts[selection].sum(dim=0).tolist() for counts in (self._count, self._judged, self._foreground)
        )
        right = {"background": judged[0] - foreground[0], "foreground": foreground[1]}
        true = {"background": sum(judged) - sum(foreground), "foreground": sum(foreground)}
        return {
            "share": {name: _ratio(count[column], sum(count)) for column, name in enumerate(PIXEL_LABELS)},
            "precision": {name: _ratio(right[name], judged[column]) for column, name in enumerate(right)},
            "recall": {name: _ratio(right[name], true[name]) for name in right},
        }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
