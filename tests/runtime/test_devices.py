"""Device and precision follow the machine."""

import pytest
import torch
from lightning_fabric import Fabric

from pipeline.params.errors import PixelCAMError
from pipeline.runtime import devices
from pipeline.runtime.devices import Fetched, describe_device, make_fabric, to_device


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


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_machine_may_be_asked_for_a_precision(
    precision: str, bfloat16: bool, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, bfloat16=bfloat16)
    monkeypatch.setenv("PIXELCAM_PRECISION", precision)
    make_fabric()
    assert asked["precision"] == precision


def test_an_unknown_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELCAM_PRECISION", "half")
    with pytest.raises(PixelCAMError, match="PIXELCAM_PRECISION: must be one of 32-true, bf16-mixed, got 'half'"):
        make_fabric()


@pytest.mark.usefixtures("asked")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, bfloat16=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PixelCAMError, match="4 processes on this machine need as many GPUs, and it has 2"):
        make_fabric()


def test_fabric_is_ready_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_fabric().to_device(torch.ones(2)).sum() == 2


def test_description_names_device_and_precision() -> None:
    cpu = f"cpu, threads: {torch.get_num_threads()}"  # sums of other numbers of threads are rounded otherwise
    assert describe_device(Fabric(accelerator="cpu", precision="32-true")) == f"{cpu}, 32-true"
    assert describe_device(Fabric(accelerator="cpu", precision="bf16-mixed")) == f"{cpu}, bf16-mixed"


def test_tensors_come_as_they_went() -> None:
    first, second = torch.rand(2, 3), torch.arange(4)
    fetched = Fetched(to_device(first, torch.device("cpu")), second).wait()
    assert [values.tolist() for values in fetched] == [first.tolist(), second.tolist()]
