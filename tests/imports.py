"""Which of the project's own files a module imports, directly or through others, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (  # of the library: each imports from itself and from those before it
    "params",
    "runtime",
    "synthetic",
    "slides",
    "data",
    "encoders",
    "cams",
    "models",
    "metrics",
    "pseudo_labels",
    "training",
    "adaptation",
    "evaluation",
    "export",
    "report",
    "viewer",
    "commands",
)


def import_closure(file: Path) -> set[str]:
    """Return the project's files that importing a file loads, itself among them, as POSIX paths from the root."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for module in _imported_modules(current):
            waiting.extend(_files_of(module))
    return {path.relative_to(ROOT).as_posix() for path in found}


def _imported_modules(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(_without_imports_for_types(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {module for module in modules if module.split(".")[0] in ("pipeline", "stages")}


def _without_imports_for_types(tree: ast.Module) -> ast.Module:
    kept = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return ast.Module(kept, tree.type_ignores)


def _files_of(module: str) -> list[Path]:
    """Return the file of a module and those of the packages around it; nothing for a name within a module."""
    parts = module.split(".")
    files = [ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [file for file in (*files, ROOT.joinpath(*parts).with_suffix(".py")) if file.is_file()]
