"""Outputs appear whole or not at all."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import replacing_file, replacing_folder, sha256_of, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with replacing_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename is atomic within one file system alone
    assert path.read_text() == "whole"
    assert _names(path.parent) == ["table.csv"]


def test_an_error_names_the_place_that_was_to_be_and_not_the_temporary_one(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing_folder(tmp_path / "colon") as folder:
            raise PixelCAMError(f"{folder}: 1 fault(s) to mend; {folder}/masks/0.png is empty")

    with pytest.raises(PixelCAMError) as caught:
        fail()
    assert str(caught.value) == f"{tmp_path}/colon: 1 fault(s) to mend; {tmp_path}/colon/masks/0.png is empty"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail() -> None:
        with replacing_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["table.csv"]


def test_a_file_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old and longer")
    with replacing_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    path = tmp_path / "prepared" / "colon"
    for name in ("first", "second"):
        with replacing_folder(path) as folder:
            (folder / name).write_text(name)
            assert _names(folder) == [name]
            assert name not in (_names(path) if path.exists() else [])
    assert _names(path) == ["second"]
    assert _names(path.parent) == ["colon"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "colon"
    path.mkdir()
    (path / "old").write_text("old")

    def fail() -> None:
        with replacing_folder(path) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert _names(path) == ["old"]
    assert _names(tmp_path) == ["colon"]


def test_leftovers_of_a_killed_run_are_not_taken_over(tmp_path: Path) -> None:
    for leftover in (".colon.partial", ".colon.former.partial"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "stale").write_text("stale")
    with replacing_folder(tmp_path / "colon") as folder:
        assert _names(folder) == []
    assert _names(tmp_path) == ["colon"]
    assert _names(tmp_path / "colon") == []


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"abc")
    # The first example of FIPS 180-4.
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"x" * 1_000_001)
    assert sha256_of(path) == hashlib.sha256(b"x" * 1_000_001).hexdigest()


def test_a_second_writer_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with replacing_folder(path) as folder:
        (folder / "first").write_text("first")
        program = f"""
import pathlib, sys
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import replacing_folder
try:
    with replacing_folder(pathlib.Path({str(path)!r})):
        print("wrote")
except PixelCAMError as error:
    print(error)
"""
        run = [sys.executable, "-c", program]
        said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert "model: another process is writing it; wait until that has ended" in said
        assert _names(folder) == ["first"], "the second writer touched what the first one wrote"
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "wrote\n"
    assert _names(tmp_path) == ["model"]


def test_a_lock_of_a_dead_process_does_not_bind(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal
from pipeline.runtime.files import only_writer
with only_writer(pathlib.Path({str(tmp_path / "model")!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert _names(tmp_path) == [".model.lock.partial"]
    with replacing_folder(tmp_path / "model"):
        pass
    assert _names(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full")
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    (tmp_path / ".table.csv.partial").symlink_to("/dev/full")
    with pytest.raises(PixelCAMError, match=r"table\.csv: cannot be written: No space left on device; free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["table.csv"]


def test_an_error_of_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    def read_another() -> None:
        with replacing_file(tmp_path / "table.csv"):
            (tmp_path / "image.png").read_bytes()

    with pytest.raises(FileNotFoundError, match="image"):
        read_another()
    assert _names(tmp_path) == []


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "colon").write_text("mine")
    with (
        pytest.raises(PixelCAMError, match=r"colon: cannot be written: Not a directory; .* move it away"),
        replacing_folder(tmp_path / "colon"),
    ):
        pass
    assert (tmp_path / "colon").read_text() == "mine"
    assert _names(tmp_path) == ["colon"]
