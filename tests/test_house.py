"""The house's own rules: rooms in their order, no circles, short modules and functions that say what they are for."""

import ast
from pathlib import Path

import pytest
from imports import PACKAGES, ROOT

MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "stages").glob("*.py"))]
IDS = [path.relative_to(ROOT).as_posix() for path in SOURCES]


def test_the_library_holds_packages_and_nothing_else() -> None:
    found = {path.relative_to(ROOT / "pipeline").parts[0] for path in MODULES}
    assert found == {*PACKAGES, "__init__.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_opens_with_its_charter(package: str) -> None:
    tree = ast.parse((ROOT / "pipeline" / package / "__init__.py").read_text(encoding="utf-8"))
    charter = ast.get_docstring(tree)
    assert charter is not None
    assert "May import" in charter
    assert len(tree.body) == 1, "a stage that lists single modules does not list the __init__.py beside them"


def _package_of(path: Path) -> str:
    return path.relative_to(ROOT / "pipeline").parts[0]


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != ROOT / "pipeline"], ids=str)
def test_a_module_imports_from_its_own_package_or_those_below(path: Path) -> None:
    allowed = PACKAGES[: PACKAGES.index(_package_of(path)) + 1]
    assert {_package_of(module) for module in _direct_imports(path)} <= set(allowed)


def _functions(path: Path) -> list[tuple[str, int]]:
    """Return the functions of a file and their number of lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in found]


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_functions_and_modules_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert [(name, lines) for name, lines in _functions(path) if lines > 60] == []
    assert text.startswith('"""'), "a file opens with why it exists"


def _direct_imports(path: Path) -> set[Path]:
    """Return the modules of the project that a file imports itself, packages aside."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return {module for module in found if module in SOURCES and module != path}


def _cycle(path: Path, trail: tuple[Path, ...], safe: set[Path]) -> list[str]:
    """Return the names along a circle of imports that is reached from a module, or nothing."""
    if path in trail:
        return [module.stem for module in (*trail[trail.index(path) :], path)]
    if path not in safe:
        for imported in sorted(_direct_imports(path)):
            if found := _cycle(imported, (*trail, path), safe):
                return found
        safe.add(path)
    return []


def test_no_module_imports_itself_in_a_circle() -> None:
    safe: set[Path] = set()
    assert [found for path in SOURCES if (found := _cycle(path, (), safe))] == []


def test_the_library_imports_no_stage_and_stages_no_other() -> None:
    for path in SOURCES:
        assert [module.name for module in _direct_imports(path) if module.parent.name == "stages"] == []
