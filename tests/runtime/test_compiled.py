"""A compiled model gives what the model gives; where it cannot be compiled, one line says so and that is all."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pipeline.runtime.devices import CompiledModel


def _model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).train()


def _descend(model: nn.Module) -> list[Tensor]:
    """Take two steps and return what the model says at each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.linspace(0, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    said: list[Tensor] = []
    for _ in range(2):
        said.append(model(images))
        said[-1].square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach() for each in said]


def _check_same(model: nn.Module, compiled: CompiledModel) -> None:
    for one, other in zip(_descend(model), _descend(compiled), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(model.state_dict(), compiled.model.state_dict())


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as ever, but run what was traced by torch itself, since not every machine has a C++ compiler."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("without_compiler")
def test_it_learns_as_the_model_itself(capsys: pytest.CaptureFixture[str]) -> None:
    model = _model()
    compiled = CompiledModel(deepcopy(model))
    _check_same(model, compiled)
    assert compiled._run != compiled.model.forward
    assert capsys.readouterr().err == ""


def test_without_a_compiler_one_line_says_so_and_the_model_runs_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config  # noqa: PLC0415 - takes a second, which only this test needs

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nonexistent/c++",))
    torch.compiler.reset()
    model = _model()
    _check_same(model, CompiledModel(deepcopy(model)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compile: torch.compile failed (")
    assert line.endswith("; training goes on without it")


@pytest.mark.usefixtures("without_compiler")
def test_a_fault_of_the_model_itself_comes_out() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        CompiledModel(_model())(torch.zeros(2, 3, 5, 5))
