"""A model's repository: exactly its files leave, checked; what comes down is read as it was scored; no network."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import typer
import yaml
from fake_hub import cut_off
from tiny import Run, digests
from typer.testing import CliRunner

from pipeline.commands.cli import app
from pipeline.commands.push_to_hub import push_to_hub
from pipeline.evaluation.prediction import load_model
from pipeline.export import hub
from pipeline.export.hub import find_model, params_for, push, write_folder
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import reporting_errors
from pipeline.runtime.files import sha256_of

NAME = "someone/a-model"


@pytest.fixture(scope="module")
def published(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher's repository as a folder; tests read it and never write to it."""
    root = tmp_path_factory.mktemp("published")
    params = root / "params.yaml"
    params.write_text(yaml.safe_dump(portable(finished)), encoding="utf-8")
    folder = root / "repository"
    write_folder(folder, finished.teacher, repository=NAME, params=params, card=None)
    return folder


def portable(run: Run) -> dict[str, Any]:
    """Return a run's params without a path of this machine."""
    values: dict[str, Any] = yaml.safe_load(run.params.read_text(encoding="utf-8"))
    for name, domain in values["domains"].items():
        domain["root"] = f"data/{name}"
    return values


def put_into_cache(cache: Path, folder: Path) -> Path:
    """Lay a repository out as the hub's client does when it fetches one."""
    there = cache / f"models--{NAME.replace('/', '--')}"
    (there / "refs").mkdir(parents=True)
    (there / "refs/main").write_text("0" * 40)
    return Path(shutil.copytree(folder, there / "snapshots" / ("0" * 40)))


def test_exactly_the_models_files_leave_and_the_card_names_the_place(finished: Run, published: Path) -> None:
    assert set(digests(published, cards=True)) == {
        "README.md",
        "history.csv",
        "model.json",
        "model.safetensors",
        "params.yaml",
    }
    for name in ("history.csv", "model.json", "model.safetensors"):
        assert sha256_of(published / name) == sha256_of(finished.teacher / name)
    card = (published / "README.md").read_text(encoding="utf-8")
    assert f"--model hf-hub:{NAME}" in card
    assert "OWNER/NAME" not in card


def test_predict_takes_a_teacher_from_the_hub_without_params_and_reads_it_as_its_own_say(
    finished: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, tmp_path / "cache")
    put_into_cache(tmp_path / "cache", published)
    image, output = finished.root / "raw/home/images/test_0.png", tmp_path / "out"
    arguments = ["predict", str(image), "--model", f"hf-hub:{NAME}", "--output", str(output)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    there = load_model(finished.teacher, params=load_params(finished.params)).predict([image])[0]
    assert (np.load(output / "test_0_map.npy", allow_pickle=False) == there.map).all()
    assert f"benign {there.probabilities['benign']:.3f}" in done.stdout


def test_params_that_were_given_come_first_and_a_model_without_any_has_none(finished: Run, published: Path) -> None:
    assert params_for(published, finished.params) == load_params(finished.params)
    assert params_for(finished.pixelcam, None) is None
    assert find_model("models/pixelcam") == Path("models/pixelcam")


def refusal(finished: Run, tmp_path: Path, **changes: Any) -> str:  # noqa: ANN401 - whatever is given wrongly
    """Return why a model may not leave; nothing has been written."""
    params = tmp_path / "params.yaml"
    if not params.exists():
        params.write_text(yaml.safe_dump(portable(finished)), encoding="utf-8")
    given: dict[str, Any] = {"model": finished.pixelcam, "repository": NAME, "params": params, "card": None} | changes
    with pytest.raises(PixelCAMError) as caught:
        write_folder(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_what_must_not_leave_is_refused(finished: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.md"
    other.write_text("A card of something else.")
    assert "is the card of other weights" in refusal(finished, tmp_path, card=other)
    assert "dvc repro model_cards" in refusal(finished, tmp_path, card=tmp_path / "none.md")
    assert "expected OWNER/NAME" in refusal(finished, tmp_path, repository="nobody")
    assert "expected OWNER/NAME" in refusal(finished, tmp_path, repository="a/../b")
    said = refusal(finished, tmp_path, params=finished.params)
    assert "domains.home.root is a path of this machine" in said
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(
            portable(finished) | {"evaluate_ood": portable(finished)["evaluate_ood"] | {"weights": ["val_accuracy"]}}
        )
    )
    assert "evaluate_ood.weights names val_accuracy first" in refusal(finished, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "hf-hub:someone/else"}, "more files fetched or opened"),
        ({"arguments": {"checkpoint_path": "history.csv"}}, "more files fetched or opened"),
    ],
)
def test_a_fetched_description_opens_nothing_else(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    cut_off(monkeypatch, tmp_path)
    folder = put_into_cache(tmp_path, published)
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    description["encoder"] |= change
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(PixelCAMError, match=said):
        find_model(f"hf-hub:{NAME}")


def test_fetched_weights_are_those_that_the_description_is_about(
    finished: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, tmp_path)
    folder = put_into_cache(tmp_path, published)
    shutil.copy(finished.pixelcam / "model.safetensors", folder)
    with pytest.raises(PixelCAMError, match=r"its model\.safetensors is not the one that its model\.json is about"):
        find_model(f"hf-hub:{NAME}")
    (folder / "model.safetensors").write_bytes(b"\x80\x04.")  # a pickle
    with pytest.raises(PixelCAMError, match=r"model\.safetensors: its weights cannot be loaded"):
        find_model(f"hf-hub:{NAME}")


def test_a_card_leaves_with_the_params_that_its_scores_are_of_and_no_others(finished: Run, tmp_path: Path) -> None:
    values = portable(finished)
    values["pixelcam_map"]["symmetries"] = 8
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert "differs from the params of the card" in refusal(finished, tmp_path)


def test_without_a_network_both_ways_end_in_a_sentence(
    finished: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, tmp_path)
    with pytest.raises(PixelCAMError, match=rf"hf-hub:{NAME}: cannot be fetched: .*check the network"):
        find_model(f"hf-hub:{NAME}")
    with pytest.raises(PixelCAMError, match=rf"hf-hub:{NAME}: cannot be written: .*check the network"):
        push(finished.teacher, NAME, private=False, params=published / "params.yaml", card=None)


class Hub:
    """A hub that has one public repository, and remembers what it was sent."""

    sent: ClassVar[dict[str, str]] = {}
    sent_to: ClassVar[str]
    allowed: ClassVar[set[str]]

    def create_repo(self, name: str, **_: object) -> str:
        return f"https://hub.example/{name}"

    def model_info(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(private=False)

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **_: object) -> None:
        type(self).sent = digests(folder_path, cards=True)
        type(self).sent_to = repo_id
        type(self).allowed = set(allow_patterns)


def test_a_model_is_uploaded_but_not_into_a_public_place_that_was_to_be_private(
    finished: Run, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HfApi", Hub)
    params = published / "params.yaml"
    with pytest.raises(PixelCAMError, match="is there already and public"):
        push(finished.teacher, NAME, private=True, params=params, card=None)
    assert Hub.sent == {}
    assert push(finished.teacher, NAME, private=False, params=params, card=None) == f"https://hub.example/{NAME}"
    assert Hub.sent == digests(published, cards=True)
    assert Hub.sent_to == NAME
    described = {"model.json", "history.csv", "adaptation.json", "params.yaml", "README.md"}
    assert Hub.allowed == {"model.safetensors", *described}


def test_the_command_writes_a_folder(finished: Run, published: Path, tmp_path: Path) -> None:
    command = typer.Typer()
    command.command()(reporting_errors(push_to_hub))
    arguments = [str(finished.teacher), NAME, "--params", str(published / "params.yaml"), "--folder"]
    done = CliRunner().invoke(command, [*arguments, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert digests(tmp_path / "out", cards=True) == digests(published, cards=True)
