"""A model compiled by torch, or as it is where that fails."""

from typing import Any

import torch
from torch import nn

from pipeline.console import say


class CompiledModel(nn.Module):
    """Run a model as `torch.compile` makes it; where that cannot be, say so once and run the model as it is.

    It is compiled when it is first called, for which torch needs a C++ compiler or, on a GPU, Triton.

    Args:
        model: what to compile; its weights stay its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._run = torch.compile(model.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
        """Return what the model returns."""
        if self._run == self.model.forward:
            return self.model(*args, **kwargs)
        try:
            return self._run(*args, **kwargs)
        except Exception as error:  # compilers fail in many ways; what is the model's own fault it shows again below
            self._run = self.model.forward
            reason = str(error).strip().partition("\n")[0]
            say(f"compile: torch.compile failed ({type(error).__name__}: {reason}); training goes on without it")
            return self.model(*args, **kwargs)
