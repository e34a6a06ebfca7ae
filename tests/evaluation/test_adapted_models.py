"""Models that were adapted to a domain: found, scored there and on the source, and set against those before them.

PixelCAM is "adapted" by hand: it calls every image malignant, and sees more foreground. The teacher stays as it was.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file
from tiny import ROOT, Run, change

from pipeline.data.manifest import read_domain
from pipeline.evaluation.adaptation_scores import adaptation_scores
from pipeline.evaluation.adapted import find_adapted, read_adaptation
from pipeline.evaluation.domains import Chain, Variant, evaluate_models
from pipeline.evaluation.tables import headline, scores_by_domain
from pipeline.metrics.scores import Evaluation, ModelName
from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptedTo, TestTime, Weights
from stages import evaluate_ood

FIRST = Variant(0, Weights.SELECTED, TestTime.NONE)
SHOT = replace(FIRST, adapted_to="away", adaptation="shot")
BOUND = replace(FIRST, adapted_to="away", adaptation="supervised")
RECORD: dict[str, Any] = {
    "domain": "away",
    "method": "shot",
    "images": 24,
    "adapted_to": "train_and_val",
    "evidence": "pixels",
    "statistics": "source",
    "chosen_by": "mutual_information",
    "chosen_epoch": 0,
    "stopped": "epoch 1: 96 % of the images are predicted as malignant",
    "start_collapsed": False,
    "course": [
        {"epoch": 0, "mutual_information": 0.02, "largest_class": "malignant", "largest_share": 0.75},
        {"epoch": 1, "mutual_information": 0.1, "largest_class": "malignant", "largest_share": 0.96},
    ],
}


def _write_params(path: Path, run: Run, changes: Mapping[str, object] | None = None) -> Params:
    """Write the finished run's params with `away` adapted to, and trained on."""
    values = yaml.safe_load(run.params.read_text(encoding="utf-8"))
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["adaptation"]["lymph_node"]
    values |= {"adaptation": {"away": shipped | {"method": "shot"}}, "bounds": ["away"]}
    path.write_text(yaml.safe_dump(change(values, changes or {})), encoding="utf-8")
    return load_params(path)


def _write_record(folder: Path, changes: Mapping[str, object] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adaptation.json"
    path.write_text(json.dumps(RECORD | dict(changes or {})), encoding="utf-8")
    return path


def _adapt_by_hand(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["image_head.linear.bias"][1] += 1000
    weights["pixel_head.convolution.bias"][1] += 1
    save_file(weights, path)


@pytest.fixture(scope="module")
def models(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "models"
    shutil.copytree(finished.models, folder)
    for name in ("adapted_away", "bound_away"):
        for model in ModelName:
            shutil.copytree(finished.models / model, folder / name / model)
    for model in ModelName:
        _write_record(folder / "adapted_away" / model)
    _adapt_by_hand(folder / "adapted_away/pixelcam")
    return folder


@pytest.fixture(scope="module")
def params(finished: Run, models: Path) -> Params:
    return _write_params(models.parent / "params.yaml", finished)


@pytest.fixture(scope="module")
def scored(finished: Run, models: Path, params: Params) -> dict[Variant, list[Evaluation]]:
    domains = [read_domain(name, params, finished.prepared / name) for name in params.target_domains]
    chains = {0: Chain(teacher=models / "teacher", pixelcam=models / "pixelcam")}
    return evaluate_models(domains, chains=chains, params=params, adapted=find_adapted(params, models))


@pytest.fixture(scope="module")
def found(models: Path, params: Params, scored: dict[Variant, list[Evaluation]]) -> dict[str, Any]:
    text = json.dumps(adaptation_scores(scored, find_adapted(params, models), source="home"), allow_nan=False)
    values: dict[str, Any] = json.loads(text)
    return values


def test_adapted_models_are_scored_at_home_and_away_with_the_thresholds_of_those_before_them(
    finished: Run, models: Path, params: Params, scored: dict[Variant, list[Evaluation]]
) -> None:
    assert next(iter(scored)) == FIRST
    assert list(scored)[-2:] == [SHOT, BOUND]
    for before, after in zip(scored[FIRST], scored[SHOT], strict=True):
        assert (before.domain, before.model) == (after.domain, after.model)
        assert before.scores.threshold == after.scores.threshold
    home = [read_domain("home", params, finished.prepared / "home")]
    adapted = Chain(teacher=models / "adapted_away/teacher", pixelcam=models / "adapted_away/pixelcam")
    _, refitted = evaluate_models(home, chains={0: adapted}, params=params)[FIRST]
    assert refitted.scores.threshold != scored[SHOT][1].scores.threshold, "the test could not fail"


def test_each_model_is_scored_on_no_third_domain(
    finished: Run, models: Path, params: Params, scored: dict[Variant, list[Evaluation]]
) -> None:
    away = read_domain("away", params, finished.prepared / "away")
    domains = [replace(away, name="third"), read_domain("home", params, finished.prepared / "home"), away]
    (adapted, _) = find_adapted(params, models)
    chains = {0: Chain(teacher=models / "teacher", pixelcam=models / "pixelcam")}
    again = evaluate_models(domains, chains=chains, params=params, adapted=[adapted])
    assert [each.domain for each in again[FIRST]] == ["third"] * 2 + ["home"] * 2 + ["away"] * 2
    assert [each.domain for each in again[SHOT]] == ["home"] * 2 + ["away"] * 2
    assert again[SHOT][3].scores.pxap == scored[SHOT][3].scores.pxap


def test_what_changed_is_said_of_both_models_and_both_domains(
    found: dict[str, Any], scored: dict[Variant, list[Evaluation]]
) -> None:
    assert list(found) == ["away"]
    away = found["away"]
    assert {key: away[key] for key in ("method", "transductive", "images")} == {
        "method": "shot",
        "transductive": False,
        "images": 24,
    }
    teacher, pixelcam = away["models"]["teacher"], away["models"]["pixelcam"]
    before = scores_by_domain(scored[FIRST])
    for model, values in away["models"].items():
        assert list(values["adapted"]) == [
            "pxap",
            "dice",
            "accuracy",
            "balanced_accuracy",
            "predicted_classes",
            "pixel_ece",
        ]
        assert values["source_only"] == {key: before["away"][model][key] for key in values["adapted"]}
        assert values["supervised"] == values["source_only"], "a copy of it"
        assert values["source_domain"]["source_only"] == {key: before["home"][model][key] for key in values["adapted"]}
        assert values["source_domain"]["name"] == "home"
        assert values["course"] == RECORD
    assert teacher["adapted"] == teacher["source_only"]
    assert teacher["over_source_only"]["pxap"] == {"difference": 0, "low": 0, "high": 0, "p_value": 1}
    assert pixelcam["adapted"]["accuracy"] == 0.5
    assert pixelcam["adapted"]["predicted_classes"] == {"benign": 0, "malignant": 1}
    assert pixelcam["source_domain"]["adapted"]["accuracy"] == 0.333333
    over = pixelcam["over_source_only"]
    assert list(over) == ["pxap", "dice", "accuracy", "balanced_accuracy"]
    for score, values in over.items():
        change_of_all = pixelcam["adapted"][score] - pixelcam["source_only"][score]
        assert values["difference"] == pytest.approx(change_of_all, abs=2e-6)
        assert values["low"] <= values["high"]
    assert over["dice"]["difference"] != 0


def test_without_a_bound_there_is_none_and_of_a_bound_alone_nothing_is_said(
    models: Path, params: Params, scored: dict[Variant, list[Evaluation]]
) -> None:
    adapted, bound = find_adapted(params, models)
    without = {variant: found for variant, found in scored.items() if variant != BOUND}
    away = adaptation_scores(without, [adapted], source="home")["away"]
    assert [values["supervised"] for values in away["models"].values()] == [None, None]
    assert adaptation_scores({FIRST: scored[FIRST], BOUND: scored[BOUND]}, [bound], source="home") == {}


def test_the_headline_has_both(found: dict[str, Any], scored: dict[Variant, list[Evaluation]]) -> None:
    scores = scores_by_domain(scored[FIRST])
    of_both = headline(scores, found)
    assert of_both["home"] == headline(scores)["home"]
    assert list(of_both["away"]["pixelcam"]) == [
        "pxap",
        "dice",
        "accuracy",
        "adapted_pxap",
        "adapted_dice",
        "adapted_accuracy",
    ]
    assert of_both["away"]["pixelcam"]["pxap"] == scores["away"]["pixelcam"]["pxap"]
    on_test = headline(scores, {"away": found["away"] | {"transductive": True}})
    assert "adapted_transductive_pxap" in on_test["away"]["pixelcam"]
    assert "adapted_pxap" not in on_test["away"]["pixelcam"], "never in one column with the other"
    assert of_both["away"]["pixelcam"]["adapted_accuracy"] == 0.5


def test_the_stage_writes_rows_after_those_of_the_source_only_models_which_stay_as_they_are(
    finished: Run, models: Path, found: dict[str, Any]
) -> None:
    run = Run(models.parent)
    tables = (run.scores, run.per_image, run.curves, run.matrix, run.adaptation)
    _write_params(run.params, finished)
    evaluate_ood.main(run.params, finished.prepared, models, run.summary, *tables, run.slides, run.checkpoints)
    assert json.loads(finished.adaptation.read_text(encoding="utf-8")) == {}
    assert json.loads(run.adaptation.read_text(encoding="utf-8")) == found
    for name in ("evaluation.json", "per_image.csv", "precision_recall.csv"):
        assert (run.root / "metrics" / name).read_bytes() == (finished.root / "metrics" / name).read_bytes()
    before, table = (pd.read_csv(each.matrix, keep_default_na=False) for each in (finished, run))
    assert table.columns[:5].tolist() == ["seed", "weights", "test_time", "adapted_to", "adaptation"]
    pd.testing.assert_frame_equal(table[: len(before)], before)
    assert set(before["adapted_to"]) == {""}
    assert set(before["adaptation"]) == {"source_only"}
    rows = table[len(before) :]
    assert rows["adaptation"].tolist() == ["shot"] * 4 + ["supervised"] * 4
    assert set(rows["adapted_to"]) == {"away"}
    assert rows["domain"].tolist() == ["home", "home", "away", "away"] * 2
    drops = rows["accuracy_drop"].astype(float).tolist()
    assert drops[1] == 0
    assert drops[3] == pytest.approx(1 / 3 - 0.5, abs=1e-6), "from the adapted model's own accuracy at home"
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    assert summary["away"]["pixelcam"]["adapted_accuracy"] == 0.5


def test_adapting_to_the_scored_images_is_said_with_the_name(finished: Run, tmp_path: Path) -> None:
    params = _write_params(tmp_path / "params.yaml", finished, {"adaptation.away.images": "test"})
    for model in ModelName:
        _write_record(tmp_path / "adapted_away" / model, {"adapted_to": "test"})
    adapted, bound = find_adapted(params, tmp_path)
    assert (adapted.name, bound.name) == ("shot, transductive", "supervised")
    assert read_adaptation(tmp_path / "adapted_away/teacher").adapted_to is AdaptedTo.TEST


def test_what_is_not_asked_for_is_not_looked_for(finished: Run, tmp_path: Path) -> None:
    params = _write_params(tmp_path / "params.yaml", finished, {"adaptation": {}, "bounds": []})
    assert find_adapted(params, tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory"),
        ("{", "Invalid JSON"),
        ("[]", "object"),
        (json.dumps(RECORD | {"images": "many"}), "images: "),
        (json.dumps(RECORD | {"method": "hope"}), "method: "),
        (json.dumps({key: value for key, value in RECORD.items() if key != "course"}), "course: Field required"),
        (json.dumps(RECORD | {"course": [{"epoch": 0}]}), r"course\.0\.mutual_information: "),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        _write_record(tmp_path).write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"adaptation\.json: does not say .*{said}.*; run dvc repro"):
        read_adaptation(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "tent"}, "was adapted by tent on 'away', images train_and_val"),
        ({"domain": "third"}, "was adapted by shot on 'third', images train_and_val"),
        ({"adapted_to": "test"}, "was adapted by shot on 'away', images test"),
    ],
)
def test_a_record_of_another_adaptation_is_named(
    finished: Run, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    params = _write_params(tmp_path / "params.yaml", finished)
    for model in ModelName:
        _write_record(tmp_path / "adapted_away" / model, changes if model is ModelName.PIXELCAM else None)
    with pytest.raises(PixelCAMError, match=f"pixelcam/adaptation.json: .*{said}; run dvc repro"):
        find_adapted(params, tmp_path)


def test_a_missing_model_is_named_before_any_image_is_scored(
    finished: Run, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ModelName:
        _write_record(tmp_path / "adapted_away" / model)
    domains = [read_domain(name, params, finished.prepared / name) for name in params.target_domains]
    chains = {0: Chain(teacher=finished.teacher, pixelcam=finished.pixelcam)}
    monkeypatch.setattr("pipeline.evaluation.domains.evaluate_domain", None)
    with pytest.raises(PixelCAMError, match=r"adapted_away/teacher/model\.json: cannot be read"):
        evaluate_models(domains, chains=chains, params=params, adapted=find_adapted(params, tmp_path))
