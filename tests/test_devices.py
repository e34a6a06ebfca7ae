"""Device and precision follow the machine."""

import pytest
import torch
from lightning_fabric import Fabric

from pipeline import devices
from pipeline.devices import describe_device, make_fabric


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Fabric and torch were asked for; nothing of it is done."""
    found: dict[str, object] = {}
    monkeypatch.setattr(devices, "Fabric", lambda **options: found.update(options))
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda mode, *, warn_only: found.update(deterministic=(mode, warn_only))
    )
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    return found


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return bfloat16 or including_emulation  # torch emulates it on every GPU

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


@pytest.mark.parametrize(("bfloat16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_gpu_computes_in_bfloat16_where_it_has_it_and_repeatably(
    bfloat16: bool, precision: str, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, bfloat16=bfloat16)
    make_fabric()
    assert asked == {"accelerator": "auto", "devices": 1, "precision": precision, "deterministic": (True, True)}
    assert torch.backends.cudnn.benchmark is False


def test_machine_without_gpu_computes_in_full_precision(
    asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_fabric()
    assert asked == {"accelerator": "auto", "devices": 1, "precision": "32-true"}


def test_fabric_is_ready_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_fabric().to_device(torch.ones(2)).sum() == 2


def test_description_names_device_and_precision() -> None:
    assert describe_device(Fabric(accelerator="cpu", precision="32-true")) == "cpu, 32-true"
    assert describe_device(Fabric(accelerator="cpu", precision="bf16-mixed")) == "cpu, bf16-mixed"
