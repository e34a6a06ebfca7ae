"""The chain from another seed: the same bytes as if that seed had been the first, and scores with a spread."""

import json
import runpy
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from tiny import ROOT, Run, digests, finish_run, start_run, write_params

from stages import evaluate_ood, repeat

ROUNDS = {"rounds": {"round_2": "pixelcam"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run from seed 1."""
    run = start_run(tmp_path_factory.mktemp("repeats"), {"seed": 1})
    finish_run(run)
    return run


def _repeat(run: Run, seed: int) -> Path:
    output = run.models / f"seed_{seed}"
    repeat.main(seed, run.params, run.prepared / "home", output, run.checkpoints)
    return output


def test_a_repeated_chain_is_the_chain_of_its_seed(run: Run) -> None:
    write_params(run, {"seed": 0, "seeds": [1]})
    output = _repeat(run, 1)
    assert digests(output / "teacher") == digests(run.teacher)
    assert digests(output / "pseudo_labels_pixelcam.zarr") == digests(run.store)
    assert digests(output / "pixelcam") == digests(run.pixelcam)
    assert (output / "pseudo_labels_pixelcam.json").read_bytes() == run.quality.read_bytes()
    assert not list(run.checkpoints.iterdir())


def test_rounds_are_repeated_too(run: Run) -> None:
    write_params(run, {"seed": 0, **ROUNDS})
    output = _repeat(run, 3)
    parents = {
        name: json.loads((output / name / "model.json").read_text())["parents"] for name in ("pixelcam", "round_2")
    }
    assert parents["pixelcam"] != parents["round_2"]
    assert (output / "pseudo_labels_round_2.zarr").is_dir()


def test_a_chain_that_failed_goes_on_without_training_again(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    write_params(run, {"seed": 0})
    undisturbed = digests(_repeat(run, 5))
    with (
        patch("pipeline.training.repeats.extract_pseudo_labels", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        _repeat(run, 5)
    assert digests(run.models / "seed_5") == undisturbed
    capfd.readouterr()
    assert digests(_repeat(run, 5)) == undisturbed
    assert capfd.readouterr().err.count("going on at step 5, from") == 1
    assert not list(run.checkpoints.iterdir())


def test_the_first_seed_is_not_trained_again(run: Run) -> None:
    write_params(run, {"seed": 1})
    assert [path.name for path in _repeat(run, 1).iterdir()] == ["first_chain.json"]


def test_several_processes_share_a_chain_where_they_are_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["1", *map(str, (run.params, run.prepared / "home", run.models / "seed_1", run.checkpoints))]
    started: list[tuple[int, list[str]]] = []
    monkeypatch.setenv("PIXELCAM_PROCESSES", "2")
    monkeypatch.setattr("sys.argv", ["repeat", *arguments])

    def start_processes(number: int, command: list[str]) -> int:
        started.append((number, command))
        return 0

    monkeypatch.setattr("pipeline.runtime.console.start_processes", start_processes)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "stages/repeat.py"), run_name="__main__")
    assert caught.value.code == 0
    assert started == [(2, ["-m", "stages.repeat", *arguments])]


def test_every_seed_is_scored_and_the_first_one_once(run: Run) -> None:
    write_params(run, {"seed": 1, "seeds": [1, 4]})
    for seed in (1, 4):
        _repeat(run, seed)
    tables = (run.per_image, run.curves, run.matrix, run.adaptation)
    evaluate_ood.main(
        run.params, run.prepared, run.models, run.summary, run.scores, *tables, run.slides, run.checkpoints
    )
    table = pd.read_csv(run.matrix)
    table = table[table["weights"] == "selected"]
    assert table["seed"].tolist() == [1] * 4 + [4] * 4
    found = json.loads(run.scores.read_text())["away"]["pixelcam"]
    scores = table[(table["domain"] == "away") & (table["model"] == "pixelcam")]["pxap"]
    assert found["pxap"] == scores.iloc[0]
    assert found["over_seeds"]["pxap"]["chains"] == 2
    assert found["over_seeds"]["pxap"]["mean"] == pytest.approx(scores.mean(), abs=1e-6)
    assert found["over_seeds"]["pxap"]["standard_deviation"] == pytest.approx(scores.std(), abs=2e-6)
