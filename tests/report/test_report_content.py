"""What the report is made of: the right images with both models' views, and every table from its own file."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import copy_run, run_stage
from imports import ROOT
from test_adapted_section import WRITTEN
from tiny import Run

from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import PreparedDomain, read_domain
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import TestTime
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.report.content import ReportSources, gather_report
from pipeline.report.parts import ReportContent


def _sources(run: Run) -> ReportSources:
    return ReportSources(
        teacher=run.teacher,
        pixelcam=run.pixelcam,
        stores={"pixelcam": run.store},
        label_quality={"pixelcam": run.quality},
        scores=run.scores,
        per_image=run.per_image,
        curves=run.curves,
        matrix=run.matrix,
        adaptation=run.adaptation,
        adapted={},
        slides=run.slides,
        code=[ROOT / "stages/report.py"],
        root=ROOT,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _domains(run: Run) -> list[PreparedDomain]:
    params = load_params(run.params)
    return [read_domain(name, params, run.prepared / name) for name in ("away", "home")]


@pytest.fixture(scope="module")
def content(finished: Run) -> ReportContent:
    return gather_report(_domains(finished), _sources(finished), load_params(finished.params))


def test_the_source_comes_first(content: ReportContent) -> None:
    assert [(domain.name, domain.in_domain) for domain in content.domains] == [("home", True), ("away", False)]
    assert set(content.domains[0].scores) == {"teacher", "pixelcam"}


def test_galleries_show_images_with_the_scores_of_their_table(finished: Run, content: ReportContent) -> None:
    table = pd.read_csv(finished.per_image)
    for domain in content.domains:
        assert len(domain.gallery) == 3
        for shown in domain.gallery:
            path = finished.root / "raw" / domain.name / shown.name
            assert np.array_equal(shown.image, read_image(path))
            rows = table[(table["domain"] == domain.name) & (table["image"] == shown.name)].set_index("model")
            for model, view in (("teacher", shown.teacher), ("pixelcam", shown.pixelcam)):
                assert view.predicted_class == rows.loc[model, "predicted_class"]
                dice = rows["dice"].to_dict()[model]
                assert (view.dice is None) if np.isnan(dice) else (view.dice == pytest.approx(dice))
                assert view.map.dtype == np.float32
                assert 0 <= view.map.min() <= view.map.max() <= 1
            assert shown.label == rows.loc["teacher", "label"]


def test_maps_are_those_of_the_option_at_test_time_that_was_scored(finished: Run, content: ReportContent) -> None:
    params = load_params(finished.params)
    changed = params.evaluate_ood.model_copy(update={"test_time": (TestTime.BATCH_NORM,)})
    other = gather_report(_domains(finished), _sources(finished), params.model_copy(update={"evaluate_ood": changed}))
    for before, after in zip(content.domains[1].gallery, other.domains[1].gallery, strict=True):
        assert not np.allclose(before.pixelcam.map, after.pixelcam.map)


def test_an_adapted_model_is_measured_as_the_table_of_scores_is(finished: Run, tmp_path: Path) -> None:
    # What is called adapted is PixelCAM itself, so that it must say what PixelCAM says.
    written = tmp_path / "adaptation.json"
    written.write_text(json.dumps({"away": WRITTEN}), encoding="utf-8")
    sources = replace(_sources(finished), adaptation=written, adapted={"away": finished.pixelcam})
    found = gather_report(_domains(finished), sources, load_params(finished.params))
    assert [domain.name for domain in found.adaptations] == ["away"]
    home, away = found.domains
    assert [shown.adapted for shown in home.gallery] == [None] * 3
    for shown in away.gallery:
        assert shown.adapted is not None
        assert np.array_equal(shown.adapted.map, shown.pixelcam.map)
        assert shown.adapted.predicted_class == shown.pixelcam.predicted_class
        assert shown.adapted.dice == (
            None if shown.pixelcam.dice is None else pytest.approx(shown.pixelcam.dice, abs=1e-6)
        )
        assert shown.adapted.false_positive_share == pytest.approx(shown.pixelcam.false_positive_share, abs=1e-6)
    assert found.provenance["Artifacts (SHA-256)"]["PixelCAM adapted to away"] == _sha256(
        finished.pixelcam / "model.safetensors"
    )
    elsewhere = replace(sources, adapted={"away": finished.teacher})
    with pytest.raises(PixelCAMError, match="teacher"):
        gather_report(_domains(finished), elsewhere, load_params(finished.params))


def test_a_background_image_is_shown_with_an_empty_mask(content: ReportContent) -> None:
    normal = [shown for shown in content.domains[1].gallery if shown.label == "benign"]
    assert len(normal) == 1
    assert normal[0].mask is not None
    assert not normal[0].mask.any()
    assert normal[0].pixelcam.dice is None
    assert normal[0].pixelcam.false_positive_share is not None


def test_training_images_show_what_the_store_holds(finished: Run, content: ReportContent) -> None:
    store = PseudoLabelStore(finished.store)
    assert [shown.name for shown in content.learned_from] == [f"images/train_{number}.png" for number in (0, 2, 5)]
    for shown in content.learned_from:
        (given,) = shown.rounds
        assert np.array_equal(given.labels, store.read(shown.name).labels)
        assert np.array_equal(given.map, store.read(shown.name).cam.astype(np.float32))
        mask = read_mask(finished.root / "raw/home" / shown.name.replace("images", "masks"))
        assert shown.mask is not None
        assert np.array_equal(shown.mask, mask)


def test_label_quality_has_a_row_per_class_and_one_for_all(content: ReportContent) -> None:
    (only,) = content.rounds
    assert (only.learner, only.maps) == ("pixelcam", "the teacher's CAM (layercam)")
    assert [row.class_name for row in only.quality] == ["benign", "malignant", "all classes"]
    for row in only.quality:
        assert row.foreground_share + row.background_share + row.ignore_share == pytest.approx(1, abs=1e-5)


def test_histories_are_those_of_the_models(content: ReportContent) -> None:
    assert set(content.histories) == {"teacher", "pixelcam"}
    assert "pixel_loss" in content.histories["pixelcam"].columns
    assert "pixel_loss" not in content.histories["teacher"].columns


def test_the_provenance_names_parameters_artifacts_and_versions(finished: Run, content: ReportContent) -> None:
    made_with, artifacts, parameters = content.provenance.values()
    assert parameters["train_pixelcam.pixel_loss_weight"] == "1.0"
    assert parameters["target_domains"] == '["home", "away"]'
    assert parameters["domains.away.background_class"] == '"benign"'
    assert artifacts["teacher weights"] == _sha256(finished.teacher / "model.safetensors")
    assert re.fullmatch(r"([0-9a-f]{40}( \(with local changes\))?|unknown)", made_with["git commit"])
    assert re.fullmatch("[0-9a-f]{64}", made_with["code (SHA-256)"])
    assert re.fullmatch("[0-9a-f]{64}", artifacts["images and masks of away"])
    assert made_with["encoder"] == "test_efficientnet, starting from random"
    assert "torch" in made_with


def test_more_images_wanted_than_there_are(finished: Run) -> None:
    params = load_params(finished.params)
    params = params.model_copy(update={"report": params.report.model_copy(update={"images_per_domain": 50})})
    content = gather_report(_domains(finished), _sources(finished), params)
    assert [len(domain.gallery) for domain in content.domains] == [3, 4]
    assert len(content.learned_from) == 6


@pytest.mark.parametrize("text", [None, "{", "[]"])
@pytest.mark.parametrize("source", ["scores", "label_quality"])
def test_a_damaged_file_is_named(finished: Run, tmp_path: Path, source: str, text: str | None) -> None:
    path = tmp_path / f"{source}.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"{source}\.json: .*run 'dvc repro'"):
        gather_report(_domains(finished), _sources_with(finished, source, path), load_params(finished.params))


def _sources_with(run: Run, source: str, path: Path) -> ReportSources:
    value: Any = {"pixelcam": path} if source == "label_quality" else path
    return replace(_sources(run), **{source: value})


@pytest.mark.parametrize(
    ("source", "text"), [("scores", "{}"), ("label_quality", '{"benign": 3}'), ("scores", '{"home": {}, "away": {}}')]
)
def test_a_file_of_another_shape_is_named(finished: Run, tmp_path: Path, source: str, text: str) -> None:
    path = tmp_path / f"{source}.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"{source}\.json"):
        gather_report(_domains(finished), _sources_with(finished, source, path), load_params(finished.params))


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("seed\n", "the column weights is missing")])
def test_a_damaged_domain_matrix_is_named(finished: Run, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "matrix.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"matrix\.csv: {said}.*run 'dvc repro'"):
        gather_report(_domains(finished), _sources_with(finished, "matrix", path), load_params(finished.params))


def test_every_round_has_labels_of_its_own(finished: Run) -> None:
    params = load_params(finished.params).model_copy(update={"rounds": {"round_2": "pixelcam"}})
    sources = replace(
        _sources(finished),
        stores={"pixelcam": finished.store, "round_2": finished.store},
        label_quality={"pixelcam": finished.quality, "round_2": finished.quality},
    )
    content = gather_report(_domains(finished), sources, params)
    assert [(each.learner, each.maps) for each in content.rounds] == [
        ("pixelcam", "the teacher's CAM (layercam)"),
        ("round_2", "the map of pixelcam"),
    ]
    assert all(len(shown.rounds) == 2 for shown in content.learned_from)


def test_a_round_s_files_lie_beside_those_of_the_first(finished: Run, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run")
    shutil.copytree(run.store, run.store.with_name("pseudo_labels_round_2.zarr"))
    shutil.copytree(run.pixelcam, run.models / "round_2")
    shutil.copy(run.quality, run.quality.with_name("pseudo_labels_round_2.json"))
    values = yaml.safe_load(run.params.read_text(encoding="utf-8")) | {"rounds": {"round_2": "pixelcam"}}
    run.params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert run_stage(run, "report") == 0
    page = run.report.read_text(encoding="utf-8")
    assert "Round 2: labels for round_2" in page
    assert sorted(path.name for path in run.overlays.iterdir()) == ["away.png", "home.png"]


def test_confidences_are_those_of_the_predicted_class(finished: Run, content: ReportContent) -> None:
    table = pd.read_csv(finished.per_image)
    expected = np.maximum(table["probability"], 1 - table["probability"])  # there are two classes
    assert np.allclose(content.confidences["confidence"], expected, atol=2e-6)


def test_a_missing_curve_table_is_named(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"curves\.csv"):
        gather_report(
            _domains(finished),
            replace(_sources(finished), curves=tmp_path / "curves.csv"),
            load_params(finished.params),
        )
