"""The doctor: each finding with its remedy, and none where all is well."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tiny import Run, start_run, write_params

from pipeline.commands import doctor
from pipeline.commands.doctor import Finding, examine

SUBJECTS = [
    "Python",
    "torch",
    "device",
    "DVC",
    "DVC lock",
    "dvc.lock",
    "git",
    "disk",
    "params",
    "domain home",
    "domain away",
]


def _findings(params: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(params)}


def test_everything_is_looked_at_in_order(started: Run) -> None:
    assert list(_findings(started.params)) == SUBJECTS


def test_a_valid_project_needs_no_remedy(started: Run) -> None:
    found = _findings(started.params)
    for subject in ("Python", "device", "params", "domain home", "domain away"):
        assert found[subject].remedy == "", found[subject]


def test_a_missing_root_of_a_domain_that_is_not_in_use_is_fine(tmp_path: Path) -> None:
    run = start_run(tmp_path, {"domains.away.root": "/no/such/folder", "target_domains": ["home"]})
    finding = _findings(run.params)["domain away"]
    assert "not in use" in finding.state
    assert finding.remedy == ""


def test_unfit_params_end_the_examination_with_every_fault(started: Run) -> None:
    write_params(started, {"seed": "x", "train_teacher.steps": 0})
    *_, last = examine(started.params)
    assert last.subject == "params"
    assert "seed: " in last.remedy
    assert "train_teacher.steps: " in last.remedy


def test_missing_params_are_told(tmp_path: Path) -> None:
    *_, last = examine(tmp_path / "params.yaml")
    assert "cannot be read" in last.remedy


def test_another_python_on_the_path_is_told(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/elsewhere/bin/{name}")
    finding = _findings(started.params)["DVC"]
    assert "/elsewhere/bin/python" in finding.state
    assert "activate" in finding.remedy


def test_git_is_looked_for(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started.root)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(started.root.parent))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    assert "git init" in _findings(started.params)["git"].remedy
    subprocess.run(["git", "init", "-q"], check=True)
    assert "git init" in _findings(started.params)["git"].remedy, "without a commit DVC has nothing to compare with"
    user = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *user, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert "git config user.name" in _findings(started.params)["git"].remedy
    subprocess.run(["git", "config", "user.email", "a@b"], check=True)
    assert _findings(started.params)["git"].remedy == ""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "install git" in _findings(started.params)["git"].remedy


def test_what_a_killed_experiment_leaves_in_git_is_told_and_its_remedy_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    git("config", "user.email", "a@b")
    git("config", "user.name", "a")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")  # and as `dvc exp run` goes on
    git("checkout", "--quiet", "--detach")
    Path("params.yaml").write_text("seed: 1\n", encoding="utf-8")
    git("add", "params.yaml")
    finding = _findings(Path("params.yaml"))["git"]
    assert finding.state == "on no branch: an experiment runs, or was killed"
    commands = finding.remedy.partition(",")[0]
    subprocess.run(commands, shell=True, check=True, capture_output=True)
    assert git("symbolic-ref", "--short", "HEAD") == "main"
    assert git("diff", "--cached", "--name-only") == ""
    assert Path("params.yaml").read_text(encoding="utf-8") == "seed: 1\n"
    assert _findings(Path("params.yaml"))["git"].remedy == ""
    git("add", "params.yaml")
    finding = _findings(Path("params.yaml"))["git"]
    assert finding.state == "an experiment that runs, or was killed, staged changes"
    subprocess.run(finding.remedy.partition(",")[0], shell=True, check=True, capture_output=True)
    assert _findings(Path("params.yaml"))["git"].remedy == ""
    lock = tmp_path / ".git/index.lock"
    lock.touch()  # as where the disk was full
    finding = _findings(Path("params.yaml"))["git"]
    assert "its index is locked" in finding.state
    subprocess.run(finding.remedy.partition(",")[0], shell=True, check=True)
    assert not lock.exists()


@pytest.mark.parametrize(
    ("content", "state", "remedy"),
    [
        (None, "free", ""),
        ('{"read": {}}', "free", ""),
        ('{"write": {"/out": {"pid": 1, "cmd": "dvc"}}}', "held by process 1, a dvc that runs", ""),
        ('{"read": {"/out": [{"pid": 2, "cmd": "dvc"}]}}', "left by a dvc that was killed; the next one frees it", ""),
        ('{"write": {"/out": {"pid": 3, "cmd": "dvc"}}}', "held by process 3, which is no dvc", "rm "),
        ('{"wri', "is damaged: a dvc was killed while it wrote it", "rm "),
        ("", "is damaged", "rm "),
        ("[]", "is damaged", "rm "),
        ('{"write": {"/out": {}}}', "is damaged", "rm "),
    ],
)
def test_a_lock_that_dvc_left_is_told_with_how_it_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, state: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor, "_command", {1: "python\0/bin/dvc\0repro", 2: None, 3: "sleep\0300"}.get)
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    if content is not None:
        lock.write_text(content, encoding="utf-8")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    finding = _findings(Path("none.yaml"))["DVC lock"]
    assert state in finding.state
    assert finding.remedy.startswith(remedy)
    assert bool(finding.remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("content", "state", "remedy"),
    [
        (None, "not there yet", ""),
        ("schema: '2.0'\nstages: {prepare: {cmd: a}}\n", "whole, 1 stages", ""),
        ("", "damaged", "git checkout "),
        ("schema: '2.0'\nsta", "damaged", "git checkout "),
        ("schema: '2.0'\nstages:", "damaged", "git checkout "),
        ("schema: '2.0'\nstages:\n  prepare: {cm", "damaged", "git checkout "),
    ],
)
def test_a_record_that_dvc_left_half_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, state: str, remedy: str
) -> None:
    (tmp_path / ".dvc").mkdir()
    if content is not None:
        (tmp_path / "dvc.lock").write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    finding = _findings(Path("none.yaml"))["dvc.lock"]
    assert finding.state.startswith(state)
    assert finding.remedy.startswith(remedy)
    assert bool(finding.remedy) == bool(remedy)


def test_processes_are_known_by_what_they_run() -> None:
    assert Path(sys.executable).name in str(doctor._command(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert doctor._command(ended.pid) is None


def test_a_full_disk_is_told(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, needs_remedy in ((2 * 1024**3 - 1, True), (2 * 1024**3, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        assert bool(_findings(started.params)["disk"].remedy) == needs_remedy


def test_an_old_python_is_told(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert "install Python" in _findings(started.params)["Python"].remedy


def test_a_gpu_that_torch_cannot_use_is_told(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "driver for CUDA 12.9" in _findings(started.params)["device"].remedy
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _findings(started.params)["device"].remedy == ""


def test_a_gpu_is_described_as_training_would_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor, "make_fabric", lambda: Fabric(accelerator="cpu", precision="bf16-mixed"))
    described = f"cpu, threads: {torch.get_num_threads()}, bf16-mixed"
    assert _findings(Path("none.yaml"))["device"] == Finding("device", described)


def test_a_setting_of_the_machine_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELCAM_PORTABLE", "maybe")
    finding = _findings(Path("none.yaml"))["device"]
    assert "PIXELCAM_PORTABLE: must be 0 or 1" in finding.remedy
