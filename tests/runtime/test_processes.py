"""Which process this is, what its share is, and what is refused; several at once are in `test_several_processes.py`."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pipeline.encoders.encoder import build_encoder
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen
from pipeline.runtime import console
from pipeline.runtime.collectives import own_share, rand_rows
from pipeline.runtime.processes import count, first_to_fail, is_first, is_orphan, rank, wanted_processes
from pipeline.runtime.seeding import make_generator
from pipeline.training import loop

Become = Callable[[int, int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Make this process the one of a rank, of a number of processes."""

    def set_variables(which: int, number: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
        monkeypatch.setenv("RANK", str(which))
        monkeypatch.setenv("WORLD_SIZE", str(number))

    return set_variables


def test_outside_of_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "3")  # as other programs set it
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (rank(), count(), is_first(), first_to_fail(), is_orphan()) == (0, 1, True, True, False)


def test_under_torchrun_there_are_several(become: Become) -> None:
    become(3, 8)
    assert (rank(), count(), is_first()) == (3, 8, False)
    become(0, 8)
    assert is_first()


@pytest.mark.parametrize("value", ["two", "0", "-1", "2.0", "", " 2", "²"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PIXELCAM_PROCESSES", value)
    with pytest.raises(PixelCAMError, match="PIXELCAM_PROCESSES: must be a whole number from 1 on"):
        wanted_processes()


def test_the_number_of_processes_is_one_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELCAM_PROCESSES", raising=False)
    assert wanted_processes() == 1
    monkeypatch.setenv("PIXELCAM_PROCESSES", "4")
    assert wanted_processes() == 4


def test_shares_make_up_the_batch_in_its_order(become: Become) -> None:
    shares: list[int] = []
    rows: list[torch.Tensor] = []
    for which in range(3):
        become(which, 3)
        shares += own_share(list(range(6)))
        rows.append(rand_rows(2, 5, generator=make_generator(0)))
    assert shares == list(range(6))
    assert torch.equal(torch.cat(rows), torch.rand(6, 5, generator=make_generator(0)))


@pytest.mark.parametrize(("processes", "images"), [(3, 8), (16, 8)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(become: Become, processes: int, images: int) -> None:
    become(0, processes)

    with pytest.raises(PixelCAMError, match=f"batch_size: a batch of {images} images .* by {processes} processes"):
        loop.check_shares(100, batch_size=images)


def test_a_stage_for_one_process_is_refused_under_torchrun(
    become: Become, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    become(0, 2)
    monkeypatch.setattr(console, "first_to_fail", lambda: True)
    monkeypatch.setattr("sys.argv", ["stage"])

    def main() -> None:
        """Do nothing."""

    with pytest.raises(SystemExit) as caught:
        console.run(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: test_processes runs in one process; start it without torchrun\n"


def test_a_fault_that_another_process_has_told_is_not_told_again(
    become: Become, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    become(1, 2)
    monkeypatch.setattr(console, "first_to_fail", lambda: False)
    monkeypatch.setattr("sys.argv", ["stage"])

    def main() -> None:
        """Fail as what waits for a process that has ended."""
        raise RuntimeError("connection closed by peer")

    with pytest.raises(SystemExit) as caught:
        console.run(main, parallel=True)
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "")


def test_on_gpus_batch_norm_is_joined_with_names_activations_and_freezing_kept(become: Become) -> None:
    become(0, 2)

    class _GPU:
        device = torch.device("cuda")

    weights = EncoderWeights.RANDOM
    encoder = build_encoder("test_efficientnet", input_size=32, output_stride=None, weights=weights, seed=0)
    model = nn.ModuleDict({"encoder": encoder}).eval()
    images = torch.rand(2, 3, 32, 32, generator=make_generator(0))
    names, before = list(model.state_dict()), encoder(images)
    joined = loop._with_joint_batch_norm(model, _GPU())  # type: ignore[arg-type]
    assert joined is model
    assert list(model.state_dict()) == names
    assert torch.equal(encoder(images), before)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    encoder.freeze(Frozen.BATCH_NORM)
    assert not any(layer.training for layer in model.train().modules() if layer in norms)
