"""torchvision and timm import after the call on every machine, and nothing is declared where nothing is missing.

Whether the extension loads depends on the installed pair of torch and torchvision, and a declaration lasts as long as
its process: so the imports are tried in fresh ones.
"""

import subprocess
import sys

import pytest
import torch

from pipeline.runtime import torchvision_operators
from pipeline.runtime.torchvision_operators import ensure_torchvision_imports

_IMPORT_AFTER_CALL = """
from pipeline.runtime.torchvision_operators import _declarations, _extension_loads, ensure_torchvision_imports
loads = _extension_loads()
ensure_torchvision_imports()
ensure_torchvision_imports()
print(loads, len(_declarations))
import torchvision.transforms, torchvision.ops, timm
"""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def after_call() -> subprocess.CompletedProcess[str]:
    return run_python(_IMPORT_AFTER_CALL)


def test_torchvision_and_timm_import_after_the_call(after_call: subprocess.CompletedProcess[str]) -> None:
    assert after_call.returncode == 0, after_call.stderr


def test_declares_once_and_only_where_the_extension_cannot_load(after_call: subprocess.CompletedProcess[str]) -> None:
    assert after_call.stdout.strip() in ("True 0", "False 1")


def test_is_needed_exactly_where_the_extension_cannot_load(after_call: subprocess.CompletedProcess[str]) -> None:
    imports_alone = run_python("import torchvision").returncode == 0
    assert imports_alone == after_call.stdout.startswith("True")


def test_declares_nothing_where_the_extension_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    declarations: list[torch.library.Library] = []
    monkeypatch.setattr(torchvision_operators, "_declarations", declarations)
    monkeypatch.setattr(torchvision_operators, "_extension_loads", lambda: True)
    ensure_torchvision_imports()
    assert declarations == []


def test_is_no_obstacle_where_torchvision_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "torchvision", object())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005 - the name torch's finder has
    assert torchvision_operators._extension_loads() is False
