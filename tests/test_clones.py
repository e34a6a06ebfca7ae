"""Two clones of a project make the same bytes, wherever they lie and however many files are read at a time."""

import os
from pathlib import Path

import pytest
from tiny import Run, digests, finish_run, start_run


def test_two_clones_make_the_same_bytes_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for clone, cores in (("first", 1), ("another/place", 9)):  # threads that read images are counted by cores
        (tmp_path / clone).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / clone)
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        finish_run(start_run(Run(Path()).root))
        made.append(digests(Path()))
    assert made[0] == made[1]
    assert {Path(name).parts[0] for name in made[0]} >= {"data", "models", "metrics", "reports"}
