"""What is mutated, and the tests that are asked: those beside it, for tests mirror packages."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path.cwd()


@dataclass(frozen=True)
class Group:
    """Files whose mutants are given to the same tests.

    Attributes:
        name: what it is called on the command line.
        sources: patterns of its files, from the project's root.
        tests: patterns of its test files, likewise.
        share: which share of its mutants is run unless another is asked for.
    """

    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    share: float = 0.2

    def modules(self) -> list[str]:
        """Return its source files, from the project's root."""
        return _matching(self.sources)

    def test_files(self) -> list[str]:
        """Return its test files, likewise."""
        return _matching(self.tests)


GROUPS: Final = (
    Group(
        "metrics",
        ("pipeline/metrics/*.py",),
        (
            "tests/metrics/test_*.py",
            "tests/evaluation/test_localizers.py",
            "tests/evaluation/test_map_scores.py",
            "tests/evaluation/test_score_tables.py",
        ),
        0.3,
    ),
    Group("cams", ("pipeline/cams/*.py",), ("tests/cams/test_*.py",)),
    Group("pseudo_labels", ("pipeline/pseudo_labels/*.py",), ("tests/pseudo_labels/test_*.py",)),
    Group("training", ("pipeline/training/*.py",), ("tests/training/test_*.py", "tests/models/test_model_files.py")),
    Group("heads", ("pipeline/encoders/*_heads.py",), ("tests/encoders/test_*_heads.py",)),
    Group(
        "image_store",
        ("pipeline/data/image_store.py",),
        ("tests/data/test_image_store*.py", "tests/data/test_square_images.py", "tests/data/test_training_set.py"),
    ),
    Group(
        "adapters",
        ("pipeline/data/adapters/*.py",),
        ("tests/data/adapters/test_*.py", "tests/data/test_preparation.py", "tests/data/test_slide_preparation.py"),
    ),
)


def _matching(patterns: Sequence[str]) -> list[str]:
    found = (path for pattern in patterns for path in sorted(ROOT.glob(pattern)))
    return [path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"]


def digest_of_test(test: str) -> str:
    """Return a hash of a test, by its id, and of what stands around it in its file; other tests do not count."""
    file, *names = test.split("[", maxsplit=1)[0].split("::")
    path = ROOT / file
    return sha256("\n".join(_around(_parsed(path), names)).encode()).hexdigest()[:16] if path.exists() else ""


def _around(holder: ast.Module | ast.ClassDef, names: Sequence[str]) -> Iterator[str]:
    """Yield the code of a file or a class, but for tests of other names."""
    for node in holder.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            if node.name in names:
                yield from _around(node, names)
        elif not (isinstance(node, ast.FunctionDef) and node.name.startswith("test")) or node.name in names:
            yield ast.dump(node)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def digest_of(*files: str) -> str:
    """Return a hash over the bytes of files."""
    digest = sha256()
    for file in files:
        digest.update(sha256((ROOT / file).read_bytes() if (ROOT / file).exists() else b"").digest())
    return digest.hexdigest()[:16]


def is_sampled(key: str, share: float) -> bool:
    """Return whether a mutant is of the sample: by its text alone, so that every run takes the same ones."""
    return int(sha256(key.encode()).hexdigest()[:8], 16) < share * 16**8
