"""Both models on every domain: scores recomputed from models, images and masks, thresholds from the source alone."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from tiny import Run

from pipeline.data import pixels
from pipeline.data.image_store import squash
from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import Manifest, PreparedDomain, Split, read_domain
from pipeline.evaluation.domains import Chain, Variant, evaluate_models, load_models, read_size, scored_images
from pipeline.evaluation.localizers import localize
from pipeline.evaluation.tables import jsonable
from pipeline.metrics.scores import Evaluation, ModelName, Scores, ThresholdSource
from pipeline.models.loading import as_localizer
from pipeline.models.pixelcam import load_pixelcam
from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, TestTime, Weights
from pipeline.runtime.devices import make_fabric

MAP_SIZE = 32
CPU = torch.device("cpu")


def _domains(run: Run, params: Params) -> list[PreparedDomain]:
    return [read_domain(name, params, run.prepared / name) for name in params.target_domains]


def _evaluate(domains: list[PreparedDomain], run: Run, params: Params) -> list[Evaluation]:
    """Return the scores proper."""
    chains = {params.seed: Chain(teacher=run.teacher, pixelcam=run.pixelcam)}
    return next(iter(evaluate_models(domains, chains=chains, params=params).values()))


@pytest.fixture(scope="module")
def evaluations(finished: Run) -> list[Evaluation]:
    params = load_params(finished.params)
    domains = _domains(finished, params)
    return _evaluate(domains, finished, params)


def test_every_domain_is_scored_with_both_models(evaluations: list[Evaluation]) -> None:
    assert [(found.domain, found.model) for found in evaluations] == [
        ("home", ModelName.TEACHER),
        ("home", ModelName.PIXELCAM),
        ("away", ModelName.TEACHER),
        ("away", ModelName.PIXELCAM),
    ]
    assert [found.scores.images for found in evaluations] == [3, 3, 4, 4]


def test_one_threshold_per_model_is_chosen_on_the_source_and_used_everywhere(evaluations: list[Evaluation]) -> None:
    thresholds = {(found.model, found.scores.threshold) for found in evaluations}
    assert len(thresholds) == 2
    assert {found.scores.threshold_source for found in evaluations} == {ThresholdSource.VALIDATION}


def _maps_and_masks(
    run: Run, domain: str, names: list[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], list[int]]:
    """Return PixelCAM's maps and the masks at 32x32, and the predicted classes, without the pipeline's evaluation."""
    model, _ = load_pixelcam(run.pixelcam)
    rows, columns = (((np.arange(MAP_SIZE) + 0.5) * side / MAP_SIZE).astype(int) for side in (60, 72))
    maps, masks, predicted = [], [], []
    for name in names:
        pixels = torch.from_numpy(squash(read_image(run.root / f"raw/{domain}/images" / name), 64))
        with torch.inference_mode():
            output = model(pixels.permute(2, 0, 1).float().div(255).unsqueeze(0))
            foreground = output.pixel_logits.softmax(dim=1)[:, 1:]
            enlarged = torch.nn.functional.interpolate(foreground, size=(MAP_SIZE, MAP_SIZE), mode="bilinear")
        maps.append(enlarged[0, 0].numpy())
        masks.append(read_mask(run.root / f"raw/{domain}/masks" / name)[np.ix_(rows, columns)])
        predicted.append(int(output.image_logits.argmax()))
    return np.stack(maps), np.stack(masks), predicted


@pytest.mark.parametrize(("domain", "index", "count"), [("home", 1, 3), ("away", 3, 4)])
def test_scores_are_those_of_an_independent_computation(
    finished: Run, evaluations: list[Evaluation], domain: str, index: int, count: int
) -> None:
    scores = evaluations[index].scores
    maps, masks, predicted = _maps_and_masks(finished, domain, [f"test_{number}.png" for number in range(count)])
    truth = [number % 2 for number in range(count)]
    assert scores.accuracy == pytest.approx(np.mean(np.equal(predicted, truth)))
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert scores.foreground_share == pytest.approx(masks.mean())
    # Thresholds are 0.001 apart, so that pixels within a step of each other are tied.
    steps = np.floor(maps.ravel() * 1000)
    assert scores.pxap == pytest.approx(average_precision_score(masks.ravel(), steps), abs=0.002)
    regions = maps >= scores.threshold
    assert scores.dice == pytest.approx(f1_score(masks.ravel(), regions.ravel()), abs=0.002)


def test_images_of_the_background_class_count_as_empty(evaluations: list[Evaluation]) -> None:
    images = evaluations[2].images
    normal = images["class_idx"] == 0
    assert normal.sum() == 2
    assert (images["foreground_share_mask"][normal] == 0).all()
    assert np.isnan(images["dice"][normal]).all()


def test_without_selectable_masks_the_threshold_is_fixed(finished: Run) -> None:
    params = load_params(finished.params)
    domains = [
        replace(
            domain,
            manifest=Manifest(
                tuple(replace(row, mask_selectable=False) for row in domain.manifest.rows), domain.manifest.root
            ),
        )
        for domain in _domains(finished, params)
    ]
    found = _evaluate(domains, finished, params)
    assert {(each.scores.threshold, each.scores.threshold_source) for each in found} == {(0.5, ThresholdSource.FIXED)}


def test_the_order_of_the_domains_does_not_change_the_scores(finished: Run, evaluations: list[Evaluation]) -> None:
    params = load_params(finished.params)
    domains = _domains(finished, params)[::-1]
    turned = _evaluate(domains, finished, params)
    assert [found.domain for found in turned] == ["away", "away", "home", "home"]
    assert [_values(found.scores) for found in turned] == [
        _values(found.scores) for found in evaluations[2:] + evaluations[:2]
    ]


def test_a_file_is_decoded_once_however_many_variants_are_scored(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(finished.params)
    evaluation = params.evaluate_ood.model_copy(update={"test_time": (TestTime.NONE, TestTime.BATCH_NORM)})
    params = params.model_copy(update={"evaluate_ood": evaluation})
    decoded: list[Path] = []

    def count(path: Path) -> npt.NDArray[np.uint8]:
        decoded.append(path)
        return read_image(path)

    monkeypatch.setattr(pixels, "read_image", count)
    chain = Chain(teacher=finished.teacher, pixelcam=finished.pixelcam)
    scored = evaluate_models(_domains(finished, params), chains={params.seed: chain}, params=params)
    assert len({id(found) for found in scored.values()}) >= 2
    assert len(decoded) == len(set(decoded)) == 2 + 3 + 4, "validation and test images"


@pytest.mark.parametrize("method", [CamMethod.CAM, CamMethod.LAYERCAM])
def test_models_may_compute_in_bfloat16(finished: Run, method: CamMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(finished.params)
    params = params.model_copy(update={"cam": params.cam.model_copy(update={"method": method})})
    domains = _domains(finished, params)
    (home,) = (domain for domain in domains if domain.name == "home")
    models = load_models(Chain(teacher=finished.teacher, pixelcam=finished.pixelcam), Weights.SELECTED, device=CPU)
    (batch, *_) = scored_images(home, home.manifest, params, image_size=64)
    monkeypatch.setenv("PIXELCAM_PRECISION", "bf16-mixed")
    for model in models.values():
        read = partial(localize, as_localizer(model, params, image_scale=1.0), batch, map_size=MAP_SIZE, device=CPU)
        exact, rough = read(), read(autocast=make_fabric().autocast)
        assert rough.maps.dtype == rough.image_logits.dtype == torch.float32
        assert not torch.equal(rough.maps, exact.maps)
        torch.testing.assert_close(rough.maps, exact.maps, rtol=0, atol=0.05)
        torch.testing.assert_close(rough.image_logits, exact.image_logits, rtol=0, atol=0.05)


def test_the_stage_computes_as_the_machine_is_asked_to(
    finished: Run, evaluations: list[Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(finished.params)
    monkeypatch.setenv("PIXELCAM_PRECISION", "bf16-mixed")
    rough = _evaluate(_domains(finished, params), finished, params)
    for one, other in zip(rough, evaluations, strict=True):
        assert one.images["probability"].tolist() != other.images["probability"].tolist()
        assert one.images["probability"].tolist() == pytest.approx(other.images["probability"].tolist(), abs=0.02)


def _values(scores: Scores) -> object:
    """Return scores with None for NaN, which equals nothing."""
    return jsonable(asdict(scores))


def test_a_domain_without_test_images_is_named(finished: Run) -> None:
    params = load_params(finished.params)
    home, away = _domains(finished, params)
    empty = replace(away, manifest=Manifest((), away.manifest.root))
    with pytest.raises(PixelCAMError, match="domain 'away' has no test images"):
        _evaluate([home, empty], finished, params)


def test_a_model_in_the_others_place_is_named(finished: Run) -> None:
    params = load_params(finished.params)
    with pytest.raises(PixelCAMError, match=r"models/teacher: holds a teacher, which has no pixel head"):
        load_models(
            Chain(teacher=finished.teacher, pixelcam=finished.teacher),
            params.evaluate_ood.weights[0],
            device=torch.device("cpu"),
        )


def test_images_are_scored_at_the_models_size_and_masks_at_the_map_size(finished: Run) -> None:
    params = load_params(finished.params)
    image_size = read_size(Chain(teacher=finished.teacher, pixelcam=finished.pixelcam), params)
    away = _domains(finished, params)[1]
    images = scored_images(away, away.manifest.of_split(Split.TEST), params, image_size=image_size)
    batch = next(iter(images))
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.masks.shape == (2, MAP_SIZE, MAP_SIZE)
    assert batch.has_mask.all()


def test_every_variant_is_scored_and_equal_weights_score_alike(finished: Run, evaluations: list[Evaluation]) -> None:
    values = load_params(finished.params)
    options = values.evaluate_ood.model_copy(update={"test_time": tuple(TestTime)})
    params = values.model_copy(update={"evaluate_ood": options})
    chains = {params.seed: Chain(teacher=finished.teacher, pixelcam=finished.pixelcam)}
    scored = evaluate_models(_domains(finished, params), chains=chains, params=params)
    kept = [Weights.LAST, Weights.VAL_ACCURACY]
    assert list(scored) == [
        *(Variant(0, Weights.SELECTED, option) for option in TestTime),
        *(Variant(0, weights, TestTime.NONE) for weights in kept),
    ]
    found = {variant: [_values(each.scores) for each in of_variant] for variant, of_variant in scored.items()}
    proper = [_values(each.scores) for each in evaluations]
    assert (
        found[Variant(0, Weights.SELECTED, TestTime.NONE)] == found[Variant(0, Weights.LAST, TestTime.NONE)] == proper
    )
    changed = [found[Variant(0, Weights.SELECTED, option)] for option in TestTime if option is not TestTime.NONE]
    assert all(other != proper for other in changed)


def test_weights_that_were_not_kept_are_named(finished: Run) -> None:
    values = load_params(finished.params)
    evaluation = values.evaluate_ood.model_copy(update={"weights": (Weights.SELECTED, Weights.VAL_PXAP)})
    params = values.model_copy(update={"evaluate_ood": evaluation})
    with pytest.raises(PixelCAMError, match=r"val_pxap\.safetensors: was not kept; add val_pxap to keep"):
        _evaluate(_domains(finished, params), finished, params)


def test_a_missing_chain_is_named_before_any_image_is_scored(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(finished.params).model_copy(update={"seeds": (3,)})
    chains = {
        params.seed: Chain(teacher=finished.teacher, pixelcam=finished.pixelcam),
        3: Chain(teacher=tmp_path / "teacher", pixelcam=tmp_path / "pixelcam"),
    }
    monkeypatch.setattr("pipeline.evaluation.domains.evaluate_domain", None)
    with pytest.raises(PixelCAMError, match=r"teacher/model\.json: cannot be read"):
        evaluate_models(_domains(finished, params), chains=chains, params=params)
