"""Models adapted from their folder to images without labels: every method, on both models, and what must not matter."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import Run, adapting, digests, tiny_params
from torch import nn

from pipeline.adaptation import learning
from pipeline.adaptation.adapting import adapt_model, adapt_models
from pipeline.adaptation.methods import METHODS as ADAPTING
from pipeline.adaptation.methods import choose_weights
from pipeline.adaptation.own_pixels import OwnPixelLabels
from pipeline.adaptation.watching import Watched
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.data.unlabelled import UnlabelledDomain, read_unlabelled
from pipeline.models.files import read_info
from pipeline.models.loading import load_net
from pipeline.models.pixelcam import PixelCAM
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod, AdaptedTo
from pipeline.training import loop

METHODS = [method.value for method in AdaptationMethod]
BY_STEPS = ["tent", "shot", "self_training", "sfda_dep"]


def _params(run: Run, **changes: object) -> Params:
    return tiny_params(run.root / "raw", {**adapting(**changes), "domains.away.background_class": "benign"})


def _target(run: Run, params: Params) -> UnlabelledDomain:
    return read_unlabelled("away", params, run.prepared / "away", adapted_to=AdaptedTo.TEST)


def _adapt(
    run: Run, output: Path, *, model: str = "pixelcam", target: UnlabelledDomain | None = None, **changes: object
) -> Path:
    params = _params(run, **changes)
    adapt_model(
        run.models / model,
        _target(run, params) if target is None else target,
        adaptation=params.adaptation["away"],
        params=params,
        output=output,
        checkpoints=output.with_name(f"states_{output.name}"),
    )
    return output


def _changed(before: Path, after: Path) -> set[str]:
    """Return the parts of a model whose weights differ."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    return {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("model", ["teacher", "pixelcam"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_a_model_that_says_how_it_came_about(
    finished: Run, tmp_path: Path, method: str, model: str
) -> None:
    folder = _adapt(finished, tmp_path / "adapted", model=model, method=method)
    net, info = load_net(folder)
    assert isinstance(net, PixelCAM) == (model == "pixelcam")
    assert info.classes == read_info(finished.models / model).classes
    about = json.loads((folder / "adaptation.json").read_text(encoding="utf-8"))
    assert (about["domain"], about["method"], about["images"], about["adapted_to"]) == ("away", method, 4, "test")
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [each["epoch"] for each in about["course"]] == list(range(len(history)))
    assert about["chosen_epoch"] in history["epoch"].tolist()
    parents = json.loads((folder / "model.json").read_text(encoding="utf-8"))["parents"]
    assert set(parents) == {"model"}


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("batch_norm", {"encoder"}),
        ("label_shift", {"image_head"}),
        ("tent", {"encoder"}),
        ("shot", {"encoder"}),
        ("self_training", {"encoder", "image_head"}),
        ("sfda_dep", {"encoder", "image_head"}),
    ],
)
def test_a_method_changes_the_weights_that_it_says_and_no_others(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, parts: set[str]
) -> None:
    monkeypatch.setattr(learning, "watch", _ever_better())
    without = _adapt(finished, tmp_path / "without", method=method, pixel_loss_weight=0.0, evidence="image_head")
    assert _changed(finished.pixelcam, without) == parts
    if method in BY_STEPS:
        both = _adapt(finished, tmp_path / "with", method=method, pixel_loss_weight=1.0)
        assert _changed(finished.pixelcam, both) == parts | {"pixel_head"}


def _ever_better() -> Callable[..., Watched]:
    def watch(probabilities: torch.Tensor, *, epoch: int) -> Watched:  # noqa: ARG001 - stands in for another
        return Watched(epoch=epoch, mutual_information=1.0 + epoch, largest_class=0, largest_share=0.5)

    return watch


def test_tent_changes_nothing_but_norms_and_no_statistics(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "watch", _ever_better())
    folder = _adapt(finished, tmp_path / "adapted", method="tent", pixel_loss_weight=0.0)
    old, new = (load_file(each / "model.safetensors") for each in (finished.pixelcam, folder))
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert changed
    assert all(old[name].ndim == 1 for name in changed)
    assert not [name for name in changed if "running" in name]


def test_labels_and_masks_of_the_domain_do_not_matter(finished: Run, tmp_path: Path) -> None:
    params = _params(finished)
    prepared = tmp_path / "away"
    prepared.mkdir()
    table = pd.read_csv(finished.prepared / "away/manifest.csv", keep_default_na=False, dtype=str)
    other = {"0": ("1", "malignant"), "1": ("0", "benign")}
    table["label"] = [other[index][1] for index in table["class_idx"]]
    table["class_idx"] = [other[index][0] for index in table["class_idx"]]
    table["mask"] = table["mask_sha256"] = ""
    table.to_csv(prepared / "manifest.csv", index=False)
    (prepared / "classes.json").write_bytes((finished.prepared / "away/classes.json").read_bytes())
    found = []
    for name, folder in (("right", finished.prepared / "away"), ("wrong", prepared)):
        target = read_unlabelled("away", params, folder, adapted_to=AdaptedTo.TEST)
        adapt_models(
            {"pixelcam": finished.pixelcam},
            target,
            adaptation=params.adaptation["away"],
            params=params,
            output=tmp_path / name,
            checkpoints=tmp_path / "states",
        )
        found.append(digests(tmp_path / name))
    assert found[0] == found[1]


class _Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize("method", ["shot", "self_training"])
@pytest.mark.parametrize("at_step", [1, 3])
def test_killed_it_goes_on_to_the_same_bytes(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, at_step: int
) -> None:
    expected = digests(_adapt(finished, tmp_path / "whole", method=method, steps=6))
    taken: list[int] = []
    real = loop.Stepper.__call__

    def killed(stepper: loop.Stepper, batch: TrainingBatch) -> None:
        taken.append(1)
        if len(taken) == 3 + at_step:
            raise _Killed
        real(stepper, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Stepper, "__call__", killed)
        with pytest.raises(_Killed):
            _adapt(finished, tmp_path / "killed", method=method, steps=6)
    assert not (tmp_path / "killed").exists()
    again: list[int] = []

    def counted(stepper: loop.Stepper, batch: TrainingBatch) -> None:
        again.append(1)
        real(stepper, batch)

    monkeypatch.setattr(loop.Stepper, "__call__", counted)
    assert digests(_adapt(finished, tmp_path / "killed", method=method, steps=6)) == expected
    assert len(again) < 6, "it began anew"


def _falling(
    shares: list[float], information: Callable[[float], float] = lambda share: 1 - share
) -> Callable[..., Watched]:
    def watch(probabilities: torch.Tensor, *, epoch: int) -> Watched:  # noqa: ARG001 - stands in for another
        share = shares[min(epoch, len(shares) - 1)]
        return Watched(epoch=epoch, mutual_information=information(share), largest_class=1, largest_share=share)

    return watch


def test_a_run_that_falls_onto_one_class_is_stopped_and_the_best_state_before_kept(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learning, "watch", _falling([0.9, 0.5, 0.8, 0.96, 0.5]))
    folder = _adapt(finished, tmp_path / "adapted", method="shot", steps=20)
    about = json.loads((folder / "adaptation.json").read_text(encoding="utf-8"))
    assert [each["epoch"] for each in about["course"]] == [0, 1, 2, 3]
    assert about["chosen_epoch"] == 1
    assert about["stopped"] == "epoch 3: 96 % of the images are predicted as malignant"
    assert about["stopped"] in capsys.readouterr().err


def test_the_state_that_fell_is_not_kept_whatever_its_score(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = _falling([0.75, 0.8, 0.96], information=lambda share: share)  # the fallen epoch has the highest
    monkeypatch.setattr(learning, "watch", watch)
    monkeypatch.setattr("pipeline.adaptation.adapting.watch", watch)
    folder = _adapt(finished, tmp_path / "adapted", method="shot", steps=20)
    about = json.loads((folder / "adaptation.json").read_text(encoding="utf-8"))
    assert about["stopped"].startswith("epoch 2")
    assert about["chosen_epoch"] == 1


def test_a_model_is_looked_at_on_the_way_however_many_images_there_are(finished: Run, tmp_path: Path) -> None:
    folder = _adapt(finished, tmp_path / "adapted", method="tent", steps=4, batch_size=2)
    history = pd.read_csv(folder / "history.csv")
    assert history["step"].tolist() == [0, 1, 2, 3, 4], "all images take two steps, a quarter of four is one"


def test_processes_that_do_not_divide_the_batch_are_refused(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "count", lambda: 3)
    with pytest.raises(PixelCAMError, match="a batch of 2 images cannot be shared evenly by 3 processes"):
        _adapt(finished, tmp_path / "adapted", method="tent")
    assert not (tmp_path / "adapted").exists()


def test_labels_of_pixels_follow_those_of_images(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[int]]] = []
    real = TrainingSet.batches

    def spy(images: TrainingSet, *arguments: Any, **more: Any) -> object:  # noqa: ANN401 - whatever the set takes
        assert isinstance(images.store, OwnPixelLabels)
        of_images = [row.class_idx for row in images.images.manifest.rows]
        seen.append((of_images, list(images.store.classes.values())))
        return real(images, *arguments, **more)

    given = iter([[0, 1, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    monkeypatch.setattr(TrainingSet, "batches", spy)
    monkeypatch.setattr("pipeline.adaptation.methods.labels_by_centres", lambda *_: torch.tensor(next(given)))
    monkeypatch.setattr(learning, "watch", _ever_better())
    _adapt(finished, tmp_path / "adapted", method="shot", steps=2)
    assert len(seen) == 2
    assert all(of_images == of_pixels for of_images, of_pixels in seen)
    assert seen[0] != seen[1]


def test_tent_without_norms_is_refused() -> None:
    model = SimpleNamespace(requires_grad_=lambda _: None, encoder=nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(PixelCAMError, match="'tent' learns the scales and shifts of norms, and this encoder has no"):
        choose_weights(model, ADAPTING[AdaptationMethod.TENT], with_pixels=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [1.0, 0.5])
def test_where_no_epoch_is_better_the_model_stays_as_it_was(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    monkeypatch.setattr(learning, "watch", _falling([0.5, after]))
    monkeypatch.setattr("pipeline.adaptation.adapting.watch", _falling([0.5]))
    _adapt(finished, tmp_path / "adapted", method="self_training", statistics="target")
    assert _changed(finished.pixelcam, tmp_path / "adapted") == set()


def test_both_models_are_written_as_one_folder_and_nothing_is_left_beside(finished: Run, tmp_path: Path) -> None:
    params = _params(finished, method="shot")
    adapt_models(
        {"teacher": finished.teacher, "pixelcam": finished.pixelcam},
        _target(finished, params),
        adaptation=params.adaptation["away"],
        params=params,
        output=tmp_path / "adapted_away",
        checkpoints=tmp_path / "states",
    )
    assert sorted(path.name for path in (tmp_path / "adapted_away").iterdir()) == ["pixelcam", "teacher"]
    assert [path for path in (tmp_path / "states").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("images", "fault"), [(1, "has 1 image"), (3, "has 3 image")])
def test_too_few_images_are_refused(finished: Run, tmp_path: Path, images: int, fault: str) -> None:
    target = _target(finished, _params(finished))
    few = replace(target, images=replace(target.images, rows=target.images.rows[:images]))
    with pytest.raises(PixelCAMError, match=fault):
        _adapt(finished, tmp_path / "adapted", target=few)
    assert not (tmp_path / "adapted").exists()


def test_evidence_by_pixels_needs_a_class_without_foreground(finished: Run, tmp_path: Path) -> None:
    target = replace(_target(finished, _params(finished)), background_class_idx=None)
    with pytest.raises(PixelCAMError, match=r"no background_class; give it one .*, or set it to image_head"):
        _adapt(finished, tmp_path / "adapted", target=target, method="self_training", evidence="pixels")


@pytest.mark.parametrize(("colours", "brightness"), [(True, 0.2), (False, 0.0)])
def test_views_change_colours_where_that_is_asked_for(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: bool, brightness: float
) -> None:
    seen: list[Any] = []

    def spy(*arguments: Any, **more: Any) -> object:  # noqa: ANN401 - whatever the set takes
        seen.append(more["augmentation"])
        return TrainingSet(*arguments, **more)

    monkeypatch.setattr("pipeline.adaptation.learning.TrainingSet", spy)
    _adapt(finished, tmp_path / "adapted", method="tent", colours=colours)
    assert (seen[0].brightness, seen[0].flip) == (brightness, True)
