"""What several processes change about a training, seen from one: norms that measure whole batches, and even shares."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from pipeline.data.training_set import TrainingSet
from pipeline.params.config import TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Selection
from pipeline.training import loop


@pytest.mark.parametrize(
    ("processes", "device", "joint"), [(1, "cpu", False), (1, "cuda", False), (2, "cpu", False), (2, "cuda", True)]
)
def test_batch_norm_measures_the_whole_batch_on_several_gpus_alone(
    processes: int, device: str, joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "count", lambda: processes)
    fabric = cast(Fabric, SimpleNamespace(device=torch.device(device)))
    found = loop._with_joint_batch_norm(nn.Sequential(nn.BatchNorm2d(2)), fabric)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in found.modules()) is joint


@pytest.mark.parametrize(("batch_size", "images", "even"), [(6, 10, True), (7, 10, False), (7, 3, True), (6, 4, False)])
def test_a_batch_is_shared_evenly_or_refused(
    batch_size: int, images: int, even: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [SimpleNamespace(class_idx=number % 2, label=f"class {number % 2}") for number in range(images)]

    class Images:
        images = SimpleNamespace(manifest=SimpleNamespace(rows=rows))

        def __len__(self) -> int:
            return images

    monkeypatch.setattr(loop, "count", lambda: 3)
    monkeypatch.setattr(loop, "interleaved", list)
    params = SimpleNamespace(batch_size=batch_size, selection=Selection.LAST, keep=())
    refused = pytest.raises(PixelCAMError, match="cannot be shared evenly by 3 processes")
    with nullcontext() if even else refused:
        loop._check_data(cast(TrainingSet, Images()), [], cast(TrainingParams, params))
