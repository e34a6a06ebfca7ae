"""Let torchvision be imported where its compiled operators cannot be loaded (a CPU build of torch, say).

torchvision registers Python code for two operators that its C++ extension declares. Without the extension the
declarations are missing and the import fails, although nothing here calls them. Declaring them is enough; where the
extension loads, nothing is done.
"""

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declarations: list[torch.library.Library] = []


def ensure_torchvision_imports() -> None:
    """Declare torchvision's operators if its extension cannot load; safe to call any number of times."""
    if _declarations or _extension_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declarations.append(library)


def _extension_loads() -> bool:
    """Try to load torchvision's C++ extension the way torchvision does, without importing torchvision."""
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return False
    folder = Path(package.submodule_search_locations[0])
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        extension = folder / f"_C{suffix}"
        if extension.exists():
            try:
                torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return hasattr(torch.ops.torchvision, "nms")
    return False
