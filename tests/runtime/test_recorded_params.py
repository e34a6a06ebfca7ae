"""What DVC records of params is what the stage has read, or the stage fails: run by DVC itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.recorded_params import recorded_as_read

ROOT = Path(__file__).parents[2]
PIPELINE = f"""
stages:
  build:
    foreach: [one]
    do:
      cmd: {sys.executable} stage.py params.yaml ${{item}}.txt
      params: [seed, "domains.${{item}}"]
      outs: ["${{item}}.txt"]
"""
PROGRAM = """
import os
from pathlib import Path
from pipeline.runtime.console import run

def main(params: Path, output: Path) -> None:
    text = params.read_text()
    output.write_text(text)
    params.write_text(text.replace(os.environ["OLD"], os.environ["NEW"]))

run(main)
"""
PARAMS = "seed: 1\ndomains: {one: {size: 2, kinds: [a]}, two: {size: 4}}\n"


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("size: 4", "size: 5", ""),
        ("seed: 1", "seed: 3", "seed"),
        ("size: 2, kinds: [a]", "size: 3", "domains.one.size"),
    ],
)
def test_a_stage_fails_whose_params_change_while_it_runs(old: str, new: str, changed: str, tmp_path: Path) -> None:
    for name, content in {"dvc.yaml": PIPELINE, "stage.py": PROGRAM, "params.yaml": PARAMS}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    environment = os.environ | {"OLD": old, "NEW": new, "PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(tmp_path)}

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert dvc("init", "--no-scm").returncode == 0
    done = dvc("repro")
    lock = tmp_path / "dvc.lock"
    if changed:
        assert f"error: params.yaml: {changed} changed while this stage ran" in done.stderr
        assert done.returncode != 0
        assert not lock.exists()
    else:
        assert done.returncode == 0, done.stderr
        assert "size: 2" in lock.read_text(encoding="utf-8")


def test_a_stage_by_hand_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS, encoding="utf-8")
    with recorded_as_read(params):
        params.unlink()
    monkeypatch.setenv("DVC_STAGE", "build@one")
    with recorded_as_read(params):
        pass  # there is no file, which the stage says itself
