"""Model cards: true, the same every time, found again, and safe from what classes are called."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import copy_run, refusal_of, run_stage
from huggingface_hub import ModelCard, ModelCardData
from tiny import Run, adapting, digests, finish_run, start_run

from pipeline.export.markdown import plain, points
from pipeline.export.model_card import read_card
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import sha256_of


def card_of(run: Run, name: str) -> str:
    return (run.cards / name / "README.md").read_text(encoding="utf-8")


def header_of(card: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return values


def rewrite_scores(run: Run, change: dict[str, Any]) -> None:
    """Change PixelCAM's scores on the domain that it never saw."""
    scores = json.loads(run.scores.read_text(encoding="utf-8"))
    scores["away"]["pixelcam"] |= change
    run.scores.write_text(json.dumps(scores), encoding="utf-8")


def test_teacher_and_pixelcam_have_a_card_that_the_hub_can_read(finished: Run) -> None:
    cards = digests(finished.cards)
    assert set(cards) == {"teacher/README.md", "pixelcam/README.md"}
    assert {name: sha256_of(finished.models / name) for name in cards} == cards  # a copy in each model's folder
    scores = json.loads(finished.scores.read_text(encoding="utf-8"))
    for model in ("teacher", "pixelcam"):
        data = ModelCard(card_of(finished, model), ignore_metadata_errors=False).data
        assert isinstance(data, ModelCardData)
        assert (data.library_name, data.pipeline_tag) == ("pixelcam", "image-segmentation")
        assert data.model_name == f"{model}-home"
        found = {(each.dataset_name, each.metric_type): each.metric_value for each in data.eval_results or ()}
        for domain in ("home", "away"):
            assert found[domain, "pxap"] == scores[domain][model]["pxap"]
            assert found[domain, "accuracy"] == scores[domain][model]["accuracy"]


def test_a_card_holds_what_the_model_was_made_of_and_every_split(finished: Run) -> None:
    card = card_of(finished, "pixelcam")
    description = json.loads((finished.pixelcam / "model.json").read_text(encoding="utf-8"))
    for digest in (
        sha256_of(finished.pixelcam / "model.safetensors"),
        sha256_of(finished.teacher / "model.safetensors"),
        sha256_of(finished.prepared / "home/manifest.csv"),
        description["tensors_sha256"],
    ):
        assert digest in card
    assert "| home | what it learned from | benign, malignant | 6 | 2 | 3 |" in card
    assert "| away | never seen in training | benign (holds no region of interest), malignant | 0 | 0 | 4 |" in card
    assert str(finished.root) not in card
    assert "give the same bytes on the same machine." in card


def test_images_of_others_do_not_come_under_the_projects_licence(finished: Run) -> None:
    assert header_of(card_of(finished, "pixelcam"))["license"] == "other"


def test_a_model_that_has_fallen_onto_one_class_says_so_first(finished: Run, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run")
    rewrite_scores(run, {"collapsed": False})
    assert run_stage(run, "model_cards") == 0
    assert "On away it calls" not in card_of(run, "pixelcam")
    rewrite_scores(run, {"collapsed": True, "predicted_classes": {"benign": 0.0, "malignant": 1.0}})
    assert run_stage(run, "model_cards") == 0
    opening = card_of(run, "pixelcam").split("| at a glance")[0]
    assert "On away it calls 100.0 % of the test images malignant" in opening


def test_a_flawless_accuracy_is_not_called_certain(finished: Run, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run")
    rewrite_scores(run, {"accuracy": 1.0, "patients": 4})
    assert run_stage(run, "model_cards") == 0
    assert "with an accuracy of 47.3, 4 of 4 are right one time in twenty" in card_of(
        run, "pixelcam"
    )  # 0.05 ** (1 / 4)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose models were adapted to the images that they are scored on."""
    run = start_run(tmp_path_factory.mktemp("adapted"), adapting())
    finish_run(run)
    return run


def test_an_adapted_model_says_to_what_and_what_that_changed(adapted: Run) -> None:
    card = card_of(adapted, "adapted_away/pixelcam")
    assert card == read_card(adapted.models / "adapted_away/pixelcam", None)
    assert "it was brought to away by 4 test images of that domain" in card
    assert "**These are the very images that it is scored on** (transductive)" in card
    found = json.loads(adapted.adaptation.read_text(encoding="utf-8"))["away"]["models"]["pixelcam"]
    before, after = (f"{100 * found[state]['pxap']:.1f}" for state in ("source_only", "adapted"))
    assert f"| away | PxAP | {after} | {before} | {points(found['over_source_only']['pxap']['difference'])}" in card
    assert sha256_of(adapted.pixelcam / "model.safetensors") in card


def test_a_class_called_markup_makes_none(finished: Run, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "run")
    path = run.pixelcam / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(description | {"classes": ["<img src=x>|", "[a](https://example.org)"]}))
    assert run_stage(run, "model_cards") == 0
    card = card_of(run, "pixelcam")
    assert r"\<img src\=x\>\|" in card
    assert "<img" not in card.replace(r"\<img", "")
    assert "[a](" not in card


def test_scores_that_are_missing_leave_the_cards_as_they_were(
    finished: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = copy_run(finished, tmp_path / "run")
    run.scores.write_text("{}", encoding="utf-8")
    assert "run 'dvc repro evaluate_ood'" in refusal_of(run, "model_cards", capfd)


def test_a_card_is_found_by_its_model_and_only_if_it_is_of_these_weights(finished: Run, tmp_path: Path) -> None:
    assert read_card(finished.pixelcam, None) == card_of(finished, "pixelcam")
    with pytest.raises(PixelCAMError, match="is the card of other weights"):
        read_card(finished.pixelcam, finished.cards / "teacher/README.md")
    without_copy = shutil.ignore_patterns("README.md")
    shutil.copytree(finished.pixelcam, tmp_path / "models/pixelcam", ignore=without_copy)
    with pytest.raises(PixelCAMError, match=r"reports/model_cards/pixelcam/README.md: .*run 'dvc repro model_cards'"):
        read_card(tmp_path / "models/pixelcam", None)
    shutil.copytree(finished.pixelcam, tmp_path / "copied")
    assert read_card(tmp_path / "copied", None) == card_of(finished, "pixelcam")
    shutil.copytree(finished.pixelcam, tmp_path / "elsewhere", ignore=without_copy)
    with pytest.raises(PixelCAMError, match="give --card FILE"):
        read_card(tmp_path / "elsewhere", None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("high_grade, HPV (type 16)", "high_grade, HPV (type 16)"),
        ("a|b", r"a\|b"),
        ("<img src=x>", r"\<img src\=x\>"),
        ("[x](y)", r"\[x\]\(y\)"),
        ("one\ntwo", "one two"),
        ("_it_", r"\_it\_"),
    ],
)
def test_a_name_stays_text(name: str, shown: str) -> None:
    assert plain(name) == shown


def test_points_have_a_sign() -> None:
    assert (points(0.0523), points(-0.0523), points(0.0004), points(None)) == ("+5.2", "−5.2", "±0.0", "–")
