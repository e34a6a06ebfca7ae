import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from slide_files import Picture, glass, stained, write_slide
from tiny import ROOT, Run, digests
from typer.testing import CliRunner

from pipeline.commands.cli import app
from pipeline.commands.slide import map_slides
from pipeline.evaluation import slide_maps
from pipeline.evaluation.prediction import Predictor, load_model
from pipeline.evaluation.slide_maps import SlideJob, run_slide
from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.cluster import side_by_side
from pipeline.slides.pyramids import read_ome_zarr

WRITTEN = {"heatmap.ome.zarr", "heatmap.ome.tiff", "regions.geojson", "overview.png", "thumbnail.png", "slide.json"}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return stained(glass(1100, 1300), 180, 220, 640, 800)


@pytest.fixture(scope="module")
def slide(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "a.tif", picture)


@pytest.fixture(scope="module")
def params(finished: Run) -> Params:
    found = load_params(finished.params)
    tissue = found.slides.tissue.model_copy(update={"smallest_speck": 0.0001, "largest_hole": 0.0001})
    return found.model_copy(update={"slides": found.slides.model_copy(update={"tissue": tissue})})


def run(slides: list[Path], output: Path, run_of: Run, params: Params, **changes: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    arguments: dict[str, Any] = {
        "model": run_of.pixelcam,
        "mpp": 1.0,
        "slide_mpp": None,
        "threshold": 0.5,
        "scheduler": None,
        "workers": 1,
    }
    return [about for _, about in map_slides(slides, params=params, output=output, **(arguments | changes))]


@pytest.mark.parametrize("model", ["teacher", "pixelcam"])
def test_all_is_written_of_a_slide(slide: Path, finished: Run, params: Params, tmp_path: Path, model: str) -> None:
    (about,) = run([slide], tmp_path / "out", finished, params, model=finished.models / model)
    folder = tmp_path / "out/a"
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"], "nothing of the work is left"
    assert json.loads((folder / "slide.json").read_text(encoding="utf-8")) == about
    heat = read_ome_zarr(folder / "heatmap.ome.zarr")
    assert heat.values.shape == (69, 82)  # 16 pixels of level 0 for one
    assert about["scores"]["maximum"] == pytest.approx(float(heat.probabilities.max()), abs=1e-6)
    assert about["tissue_mm2"] == pytest.approx(640 * 800 * 0.25 / 1e6, rel=0.1)
    assert about["mpp"] == pytest.approx(0.5)
    assert about["model"]["classes"] == ["benign", "malignant"]


def test_the_same_slide_gives_the_same_bytes(slide: Path, finished: Run, params: Params, tmp_path: Path) -> None:
    run([slide], tmp_path / "one", finished, params)
    run([slide], tmp_path / "two", finished, params)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_slide_that_is_done_is_left(
    slide: Path, finished: Run, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run([slide], tmp_path, finished, params)
    with monkeypatch.context() as patched:
        patched.setattr(slide_maps, "find_tissue", lambda *_: pytest.fail("it was mapped again"))
        assert run([slide], tmp_path, finished, params) == first
    (other,) = run([slide], tmp_path, finished, params, threshold=0.25)
    assert other["threshold"] == 0.25


def test_a_slide_shifted_by_half_a_window_has_the_same_map(
    picture: Picture, slide: Path, finished: Run, params: Params, tmp_path: Path
) -> None:
    half = 64  # pixels of level 0: windows have 64 of their own, of two each
    shifted = np.full_like(picture, 243)
    shifted[half:, half:] = picture[:-half, :-half]
    other = write_slide(tmp_path / "b.tif", shifted)
    run([slide, other], tmp_path / "out", finished, params)
    one, two = (read_ome_zarr(tmp_path / "out" / name / "heatmap.ome.zarr") for name in "ab")
    shift = half // 16
    both = one.seen[:-shift, :-shift] & two.seen[shift:, shift:]
    assert both.sum() > 0.9 * one.seen.sum()
    difference = np.abs(one.probabilities[:-shift, :-shift] - two.probabilities[shift:, shift:])[both]
    assert difference.max() <= 0.02


HALF = """
import sys, time
from pathlib import Path
from pipeline.evaluation import prediction
original, scratch = prediction.Predictor.look_for, Path(sys.argv.pop(1))
def look(self, windows, side, **named):
    if len(list(scratch.rglob("row_*.npy"))) >= 3:
        time.sleep(600)  # until it is killed
    return original(self, windows, side, **named)
prediction.Predictor.look_for = look
from pipeline.commands.cli import main
main()
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    slide: Path, finished: Run, params: Params, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(params.model_dump_json(), encoding="utf-8")  # JSON is YAML
    arguments = ["slide", str(slide), "--model", str(finished.pixelcam), "--mpp", "1.0", "--params", str(file)]
    arguments += ["--output", str(tmp_path / "cut"), "--workers", "1"]
    scratch = tmp_path / "cut/.windows"
    command = [sys.executable, "-c", HALF, str(scratch), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while len(list(scratch.rglob("row_*.npy"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut/a").exists()
    rows = {path: path.stat().st_mtime_ns for path in scratch.rglob("row_*.npy")}
    kept = shutil.copytree(scratch, tmp_path / "kept")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "highest probability" in done.output
    assert len(list(kept.rglob("row_*.npy"))) == len(rows) >= 3
    run([slide], tmp_path / "whole", finished, params)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_slides_side_by_side_give_the_same_bytes(slide: Path, finished: Run, params: Params, tmp_path: Path) -> None:
    other = tmp_path / "b.tif"
    shutil.copy(slide, other)
    run([slide, other], tmp_path / "one", finished, params, workers=1)
    run([slide, other], tmp_path / "two", finished, params, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_what_cannot_be_is_refused(slide: Path, finished: Run, params: Params, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match="there is no such slide"):
        run([tmp_path / "gone.svs"], tmp_path / "out", finished, params)
    with pytest.raises(PixelCAMError, match="would write the same folder"):
        run([slide, tmp_path.parent / slide.name], tmp_path / "out", finished, params) if shutil.copy(
            slide, tmp_path.parent / slide.name
        ) else None
    with pytest.raises(PixelCAMError, match="give --mpp"):
        run([slide], tmp_path / "out", finished, params, mpp=None)
    assert not (tmp_path / "out/a").exists()


def test_a_teachers_map_is_weighed_by_its_class(finished: Run) -> None:
    predictor = load_model(finished.teacher, params=load_params(finished.params))
    windows = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    weighed = predictor.look_for(windows, 8, background_class_idx=0)
    whole = predictor.look_for(windows, 8, background_class_idx=None)
    assert weighed.shape == whole.shape == (3, 8, 8)
    probability = [said.probabilities["malignant"] for said in predictor.predict(list(windows))]
    assert (weighed.max(axis=(1, 2)) <= np.array(probability) + 1e-6).all()


def _slowly(dask_worker: Any) -> None:  # noqa: ANN401, ARG001 - distributed gives it
    """Make a worker look slowly, so that there is time to kill it."""
    original = Predictor.look_for

    def slow(self: Predictor, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        time.sleep(0.05)
        return original(self, *arguments, **named)

    Predictor.look_for = slow  # type: ignore[method-assign]


def test_a_worker_that_dies_loses_a_row_of_windows_and_not_its_slide(
    slide: Path, finished: Run, params: Params, tmp_path: Path
) -> None:
    from distributed import Client, LocalCluster  # noqa: PLC0415

    others = [Path(shutil.copy(slide, tmp_path / f"{name}.tif")) for name in "bc"]
    local = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)  # type: ignore[no-untyped-call]
    with local as cluster, Client(cluster, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        client.run(_slowly)
        killed: dict[Path, int] = {}

        def kill_one() -> None:
            scratch = tmp_path / "cut/.windows"
            while len(list(scratch.rglob("row_*.npy"))) < 6:
                time.sleep(0.01)
            worker = next(iter(cluster.workers.values()))
            killed.update({path: path.stat().st_mtime_ns for path in scratch.rglob("row_*.npy")})
            os.kill(worker.process.pid, signal.SIGKILL)

        thread = Thread(target=kill_one)
        thread.start()
        jobs = [
            SlideJob(
                slide=other,
                name=other.stem,
                slide_mpp=None,
                model=finished.pixelcam.absolute(),
                params=params,
                mpp=1.0,
                size=64,
                threshold=0.5,
                background_class=None,
                lesions=None,
                output=tmp_path / "cut",
                scratch=tmp_path / "cut/.windows",
                keep_scratch=True,
            )
            for other in others
        ]
        list(side_by_side(run_slide, jobs, label="slides", scheduler=cluster.scheduler_address))
        thread.join()
    assert len(killed) >= 6
    assert {path: path.stat().st_mtime_ns for path in killed} == killed, "none was looked at again"
    shutil.rmtree(tmp_path / "cut/.windows")
    run(others, tmp_path / "whole", finished, params)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_a_full_disk_is_told_and_nothing_half_written_is_left(
    slide: Path, finished: Run, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_ome_zarr", "write_ome_tiff", "write_geojson", "write_overview"):
        with monkeypatch.context() as patched:
            patched.setattr(slide_maps, name, no_room)
            with pytest.raises(PixelCAMError, match="No space left on device; free some space"):
                run([slide], tmp_path / "out", finished, params)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".windows"]
    saved = np.save
    calls = 0

    def save_twice(*arguments: Any, **named: Any) -> None:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls > 2:
            no_room()
        saved(*arguments, **named)

    shutil.rmtree(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(np, "save", save_twice)
        with pytest.raises(PixelCAMError, match="No space left on device; free some space"):
            run([slide], tmp_path / "out", finished, params)
    assert len(list((tmp_path / "out").rglob("*"))) == 2 + 2, "two folders and two rows of windows"
    run([slide], tmp_path / "out", finished, params)
    run([slide], tmp_path / "whole", finished, params)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_larger_window_sees_more_around_a_place(slide: Path, finished: Run, params: Params, tmp_path: Path) -> None:
    wide = params.model_copy(update={"slides": params.slides.model_copy(update={"window": 2})})
    (one,), (two,) = (run([slide], tmp_path / name, finished, each) for name, each in (("one", params), ("two", wide)))
    assert (one["window"]["size"], two["window"]["size"]) == (64, 128)
    assert two["windows"] < one["windows"]
    first, second = (read_ome_zarr(tmp_path / name / "a/heatmap.ome.zarr") for name in ("one", "two"))
    assert first.values.shape == second.values.shape
    assert not np.array_equal(first.values, second.values)
    assert np.abs(first.probabilities - second.probabilities)[first.seen].mean() < 0.1


def test_an_encoder_of_one_size_takes_no_larger_window(finished: Run) -> None:
    predictor = load_model(finished.pixelcam)
    windows = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    with (
        patch.object(Predictor, "_localize", side_effect=AssertionError("height doesn't match")),
        pytest.raises(PixelCAMError, match=r"slides\.window: .*2 times as large .*height doesn't match"),
    ):
        predictor.look_for(windows, 16, background_class_idx=None, enlarge=2)
