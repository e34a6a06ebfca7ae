"""Which labels the steps of a joint training draw from."""

from pathlib import Path
from typing import cast

from tiny import tiny_params

from pipeline.data.manifest import PreparedDomain
from pipeline.pseudo_labels.drawing import FixedSeeds
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.training.pixelcam import _learned_from


def test_all_labels_are_drawn_from_unless_seeds_are_fixed() -> None:
    store, source = cast(PseudoLabelStore, object()), cast(PreparedDomain, None)
    assert _learned_from(store, source, tiny_params(Path())) is store
    fixed = _learned_from(store, source, tiny_params(Path(), {"train_pixelcam.redraw": False, "seed": 7}))
    assert isinstance(fixed, FixedSeeds)
    assert (fixed.source, fixed.seed) == (store, 7)
