"""Every benchmark runs on tiny sizes, compares equal things and says what it found; no time is asserted."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from sklearn.metrics import average_precision_score

from benchmarks.__main__ import ROWS, main
from benchmarks.outcome import Outcome, Reach, Skipped, cost, speed
from benchmarks.pooled_pixels import random_maps, reference_pxap
from benchmarks.settings import Settings
from benchmarks.table import line_of, title
from benchmarks.timing import Times, side_by_side
from pipeline.runtime.devices import make_fabric

CPU = torch.device("cpu")
FIGURES = {
    "joint_step": ["joint step, linear head", "joint step, hypercolumn head", "joint step, decoder head"],
    "adaptation": [
        "an epoch of tent",
        "an epoch of shot",
        "an epoch of self_training",
        "an epoch of sfda_dep",
        "batch_norm",
    ],
    "cam_reading": ["CAM by method cam"],
    "gradient_maps": ["gradcam", "gradcam", "layercam", "layercam"],
    "pooled_pixels": ["PxAP"] * 4,
    "label_store": [
        "writing to Zarr, with CAMs",
        "labels in Zarr",
        "whole store, with CAMs",
        "reading a sample, with its CAM",
    ],
    "image_store": ["reading a prepared image", "store of prepared images"],
    "waiting_for_data": ["waiting for a batch"],
    "dvc_floor": ["dvc repro, nothing to do"],
    "domain_size": ["seconds per image", "peak memory"],
    "slides": [
        "reading tiles at 0.5 micrometres",
        "reading tiles at 1.0 micrometres",
        "mapping a slide at 1.0 micrometres",
        "finding tissue",
        "laying the grid",
        "looking at nuclei",
        "fingerprint",
        "finding regions",
        "writing GeoJSON",
    ],
}


def outcome_of(**changes: object) -> Outcome:
    values = {"row": "r", "case": "c", "work": "w", "against": "a", "figure": 1.0, "unit": "u", "target": 1.0}
    return Outcome(**({**values, "reach": Reach.AT_MOST} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_measures_what_it_says(row: str, tmp_path: Path) -> None:
    settings = Settings(
        fabric=make_fabric(), scratch=tmp_path, quick=True, glas=None, project=Path(__file__).parent.parent
    )
    found = list(ROWS[row](settings))
    assert [each.work for each in found if isinstance(each, Outcome)] == FIGURES[row]
    for each in found:
        assert isinstance(each, Outcome)
        assert each.row == row
        assert math.isfinite(each.figure)
        json.dumps(each.as_json(), allow_nan=False)
    if row == "pooled_pixels":
        assert isinstance(found[1], Outcome)
        assert found[1].figure <= 1e-9


def test_the_reference_of_pooled_pixels_is_average_precision() -> None:
    maps, masks = random_maps(2, 16)
    steps = np.floor(maps.double().numpy() * 1000)
    expected = average_precision_score(masks.numpy().ravel(), steps.ravel())
    assert reference_pxap(maps.numpy(), masks.numpy()) == pytest.approx(expected, abs=1e-6)


def test_works_take_turns_after_a_go_of_each() -> None:
    called: list[str] = []
    times = side_by_side(lambda: called.append("a"), lambda: called.append("b"), rounds=3, device=CPU)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert len(times.ours) == len(times.theirs) == 3
    assert min(times.ours + times.theirs) > 0


def test_ratios_are_taken_round_by_round() -> None:
    times = Times(ours=(1.0, 8.0, 3.0), theirs=(2.0, 2.0, 2.0))
    assert times.ratio == 1.5
    arguments = {"times": times, "target": 1.0}
    assert cost("r", "c", "w", "a", **arguments).figure == 1.5  # type: ignore[arg-type]
    assert speed("r", "c", "w", "a", **arguments).figure == pytest.approx(2 / 3)  # type: ignore[arg-type]
    assert not cost("r", "c", "w", "a", **arguments).reached  # type: ignore[arg-type]
    assert not speed("r", "c", "w", "a", **arguments).reached  # type: ignore[arg-type]


def test_a_target_is_a_ceiling_or_a_floor() -> None:
    assert outcome_of(figure=1.0).reached
    assert not outcome_of(figure=1.01).reached
    assert outcome_of(figure=1.0, reach=Reach.AT_LEAST).reached
    assert not outcome_of(figure=0.99, reach=Reach.AT_LEAST).reached


def test_the_table_has_a_line_for_each_outcome() -> None:
    assert title().split() == ["row", "case", "work", "against", "figure", "target", "reached"]
    line = line_of(outcome_of(figure=1.2345, unit="times as long", target=1.05))
    assert line.split() == ["r", "c", "w", "a", "1.23", "times", "as", "long", "at", "most", "1.05", "NO"]
    known = line_of(outcome_of(figure=1.2345, unit="times as long", target=None))
    assert known.split()[-2:] == ["none", "-"]
    assert "not measured: because" in line_of(Skipped(row="r", case="c", reason="because"))


def test_results_name_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pooled_pixels"], quick=True, output=tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [each["row"] for each in results["results"]] == ["pooled_pixels"] * 4
    machine = results["machine"]
    assert machine["quick"] is True
    assert machine["memory_bytes"] > 2**28
    assert machine["versions"]["torch"] == torch.__version__
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_an_unknown_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="there is no row nothing; there are joint_step, "):
        main(["nothing"], output=tmp_path / "results.json")
