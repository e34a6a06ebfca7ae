"""Where code comes from: the files that count, their hash, and the commit that last changed them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from imports import ROOT, import_closure

from pipeline.report.provenance import commit_of_files, hash_of_files, imported_files

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(root: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, env=os.environ | identity | clean, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path, name: str, text: str) -> str:
    (root / name).write_text(text, encoding="utf-8")
    git(root, "add", name)
    git(root, "commit", "--quiet", "-m", name)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    return root


def test_files_are_those_that_importing_loads(tmp_path: Path) -> None:
    sources = {
        "program.py": "from typing import TYPE_CHECKING\nimport one.two\nif TYPE_CHECKING:\n    import one.typed\n"
        "def later():\n    from one import late\n",
        "one/__init__.py": "",
        "one/late.py": "",
        "one/two.py": "import three",
        "one/typed.py": "",
        "three.py": "import program",
        "unused.py": "import program",
    }
    (tmp_path / "one").mkdir()
    for name, text in sources.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = imported_files(tmp_path / "program.py", root=tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "one/__init__.py",
        "one/late.py",
        "one/two.py",
        "program.py",
        "three.py",
    ]


def test_files_are_those_that_dvc_is_told_of() -> None:
    program = ROOT / "stages/report.py"
    found = imported_files(program, root=ROOT)
    assert {path.relative_to(ROOT).as_posix() for path in found} == import_closure(program)


def test_the_hash_knows_names_and_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("1", encoding="utf-8")
    second.write_text("1", encoding="utf-8")
    hashes = {hash_of_files([file], root=tmp_path) for file in (first, second)}
    second.write_text("2", encoding="utf-8")
    hashes.add(hash_of_files([second], root=tmp_path))
    assert len(hashes) == 3
    assert hash_of_files([first], root=tmp_path) in hashes


@needs_git
def test_the_commit_is_the_last_that_changed_these_files(repository: Path) -> None:
    files = [repository / "a.py", repository / "b.py"]
    commit(repository, "a.py", "1")
    changed = commit(repository, "b.py", "1")
    commit(repository, "dvc.lock", "the page's own hash")
    assert commit_of_files(files, root=repository) == changed
    (repository / "dvc.lock").write_text("another", encoding="utf-8")
    assert commit_of_files(files, root=repository) == changed
    (repository / "a.py").write_text("2", encoding="utf-8")
    assert commit_of_files(files, root=repository) == f"{changed} (with local changes)"


@needs_git
def test_a_new_file_is_a_local_change(repository: Path) -> None:
    first = commit(repository, "a.py", "1")
    (repository / "b.py").write_text("1", encoding="utf-8")
    files = [repository / "a.py", repository / "b.py"]
    assert commit_of_files(files, root=repository) == f"{first} (with local changes)"
    assert commit_of_files(files[1:], root=repository) == "unknown"


@needs_git
def test_a_shallow_clone_says_what_it_knows_and_no_more(repository: Path, tmp_path: Path) -> None:
    commit(repository, "a.py", "1")
    commit(repository, "b.py", "1")
    changed = commit(repository, "c.py", "1")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "2", repository.resolve().as_uri(), str(clone))
    assert commit_of_files([clone / "c.py"], root=clone) == changed
    assert commit_of_files([clone / "a.py"], root=clone) == "unknown"


def test_outside_of_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))  # another repository, which is none of these files' business
    assert commit_of_files([tmp_path / "a.py"], root=tmp_path) == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of_files([tmp_path / "a.py"], root=tmp_path) == "unknown"
