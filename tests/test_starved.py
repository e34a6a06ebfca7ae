"""What a machine runs short of: each is told in one sentence, with exit code 1, and nothing that was there changes."""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import copy_run, refusal_of, run_stage
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny import ROOT, Run, adapting, change, digests, params_values
from torch import nn

from pipeline.data.adapters import synthetic
from pipeline.encoders.encoder import Encoder
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import LOWER, explain_shortage, is_shortage
from pipeline.runtime.processes import start_processes
from pipeline.training import saving

SMALL = 600  # bytes: less than the largest file of any stage
MUCH = 1 << 60  # bytes: more than any machine has
Call = Callable[[Run, str], str]


@pytest.fixture
def project(finished: Run, tmp_path: Path) -> Run:
    """A finished run of its own, whose stages the test runs again."""
    return copy_run(finished, tmp_path / "project")


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a stage that must fail and return its one message."""
    return lambda run, stage: refusal_of(run, stage, capfd)


# --- disk -----------------------------------------------------------------------------------------------------------


@contextmanager
def _small_files_only() -> Iterator[None]:
    """Have the system refuse to write more than `SMALL` bytes into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "output"),
    [
        ("prepare", "data/prepared/home/manifest.csv"),
        ("train_teacher", ".checkpoints/"),
        ("extract_pseudo_labels", "data/pseudo_labels.zarr"),
        ("train_pixelcam", ".checkpoints/"),
        ("evaluate_ood", "metrics/"),
        ("report", "reports/overview.png"),
    ],
)
def test_where_nothing_more_can_be_written_the_output_is_named(
    project: Run, refused: Call, stage: str, output: str
) -> None:
    with _small_files_only():
        message = refused(project, stage)
    assert str(project.root / output) in message
    assert "cannot be written: File too large; raise the limit for the size of a file (ulimit -f)" in message
    assert ".partial" not in message


def test_adapting_without_room_names_the_output(project: Run, refused: Call) -> None:
    values = yaml.safe_load(project.params.read_text(encoding="utf-8"))
    project.params.write_text(yaml.safe_dump(values | adapting()), encoding="utf-8")
    with _small_files_only():
        message = refused(project, "adapt")
    assert str(project.checkpoints / "adapted_away") in message
    assert "cannot be written: File too large" in message


def test_a_training_whose_model_finds_no_room_is_not_lost(
    project: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = digests(project.root)

    def fail(*_: object) -> None:  # as the library in Rust says it
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(saving, "save_file", fail)
    assert run_stage(project, "train_teacher") == 1
    assert f"error: {project.teacher}: cannot be written: No space left on device; free" in capfd.readouterr().err
    assert digests(project.teacher) == {
        path.removeprefix("models/teacher/"): digest
        for path, digest in before.items()
        if path.startswith("models/teacher/")
    }
    monkeypatch.setattr(saving, "save_file", save_file)
    assert run_stage(project, "train_teacher") == 0
    assert "going on at step 5, from" in capfd.readouterr().err  # all 4 steps were kept
    assert digests(project.root) == before


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["prepare", "train_teacher", "extract_pseudo_labels", "evaluate_ood", "report"])
def test_a_file_in_the_place_of_a_folder_is_named_and_kept(project: Run, refused: Call, stage: str) -> None:
    folder = {
        "prepare": project.prepared / "home",
        "train_teacher": project.checkpoints,
        "extract_pseudo_labels": project.store,
        "evaluate_ood": project.root / "metrics",
        "report": project.root / "reports",
    }[stage]
    if folder.exists():
        folder.rename(folder.with_name("elsewhere")) if stage == "report" else shutil.rmtree(folder)
    folder.write_text("not to be lost", encoding="utf-8")
    message = refused(project, stage)
    assert f"{folder}" in message
    assert "move it away" in message
    assert folder.read_text(encoding="utf-8") == "not to be lost"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "Read-only file system; mount it to be written to, or name another place"),
        (errno.EACCES, "Permission denied; change its owner or its permissions"),
        (errno.EDQUOT, "Disk quota exceeded; remove some of your files there"),
    ],
)
def test_a_place_that_must_not_be_written_to_is_named(
    project: Run, refused: Call, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *args: object, **options: object) -> None:
        if self.name == ".home.partial":
            raise OSError(number, os.strerror(number), str(self))
        mkdir(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert f"{project.prepared / 'home'}: cannot be written: {remedy}" in refused(project, "prepare")


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "params"),
    [
        ("train_teacher", "train_teacher.batch_size or model.input_size"),
        ("extract_pseudo_labels", "extract_pseudo_labels.batch_size, cam.scales or pixelcam_map.scales"),
        ("train_pixelcam", "train_pixelcam.batch_size or model.input_size"),
        ("evaluate_ood", "evaluate_ood.batch_size, cam.scales or pixelcam_map.scales"),
        ("report", "report.images_per_domain, cam.scales or pixelcam_map.scales"),
    ],
)
def test_without_memory_a_stage_says_which_params_to_lower(
    project: Run, refused: Call, monkeypatch: pytest.MonkeyPatch, stage: str, params: str
) -> None:
    def ask_for_much(*_: object) -> torch.Tensor:
        return torch.empty(MUCH, dtype=torch.uint8)  # torch's own refusal, and no memory is touched

    monkeypatch.setattr(Encoder, "forward", ask_for_much)
    message = refused(project, stage)
    assert f"error: {stage}: there is not enough memory for {MUCH} bytes more; lower {params} in the params" in message


def test_the_params_to_lower_exist() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for params in LOWER.values():
        for param in params:
            section, *_, key = param.split(".")  # DOMAIN stands for a domain's name
            found = next(iter(values[section].values())) if "DOMAIN" in param else values[section]
            assert key in found


def test_memory_is_recognized_whoever_lacks_it() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1 GiB is free."
    )
    error: Exception = torch.OutOfMemoryError(said)
    assert is_shortage(error)
    assert explain_shortage(error, "train_teacher") == (
        "train_teacher: there is not enough memory for 2.00 GiB more; lower train_teacher.batch_size or "
        "model.input_size in the params, or use a machine with more"
    )
    with pytest.raises(MemoryError) as caught:
        np.empty(MUCH, dtype=np.uint8)
    assert str(explain_shortage(caught.value, "prepare")).startswith(
        "prepare: there is not enough memory for 1.00 EiB more; end other programs"
    )
    error = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert "there is not enough memory; lower report.images_per_domain" in str(explain_shortage(error, "report"))


def test_faults_of_the_code_are_none_of_the_machine() -> None:
    for error in (RuntimeError("shapes do not match"), ValueError("x"), OSError("no number"), BrokenPipeError(32, "x")):
        assert explain_shortage(error, "report") is None
        assert not is_shortage(error)
    assert not is_shortage(FileNotFoundError(errno.ENOENT, "gone"))


# --- workers, batches -----------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_told(project: Run, refused: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        with ProcessPoolExecutor(1) as pool:
            pool.submit(os._exit, 9).result()

    monkeypatch.setattr(synthetic, "_render_all", die)
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["domains"]["colon"]
    values = change(params_values(project.root / "raw"), {"domains.home": shipped})
    project.params.write_text(yaml.safe_dump(values), encoding="utf-8")
    message = refused(project, "prepare")
    assert "prepare: a worker process died (" in message
    assert "run the same command again" in message


def test_a_process_of_several_that_dies_is_told() -> None:
    die = ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    with pytest.raises(PixelCAMError, match=r"process [12] of 2 was ended by SIGKILL; .* run the same command again"):
        start_processes(2, die)


def test_a_batch_of_one_value_is_told_with_its_remedies(
    project: Run, refused: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def normalize_one(*_: object) -> torch.Tensor:
        normalized: torch.Tensor = nn.BatchNorm2d(4)(torch.zeros(1, 4, 1, 1))
        return normalized

    monkeypatch.setattr("pipeline.training.teacher.TeacherObjective.__call__", normalize_one)
    message = refused(project, "train_teacher")
    assert "train_teacher: batch normalization needs more than one value of each channel in a batch" in message
    assert "raise train_teacher.batch_size or model.input_size, or set train_teacher.frozen to batch_norm" in message
