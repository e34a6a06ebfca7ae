"""Score teacher and PixelCAM on the source and on domains that they never saw, as the params say and in variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from pipeline.data.image_store import SquareReader
from pipeline.data.manifest import Manifest, PreparedDomain, Split
from pipeline.data.maps import Localizer
from pipeline.data.scored_set import ScoredSet
from pipeline.evaluation.adapted import SOURCE_ONLY, AdaptedModels
from pipeline.evaluation.at_test_time import Adapter
from pipeline.evaluation.domain_scores import Resampling
from pipeline.evaluation.fitting import fit_on_validation
from pipeline.evaluation.localizers import EvaluationDomain, evaluate_domain
from pipeline.metrics.scores import Evaluation, Fitted, ModelName
from pipeline.models.files import check_kept, kept_epochs, read_info
from pipeline.models.pixelcam import PixelCAM, load_pixelcam
from pipeline.models.teacher import Teacher, load_teacher
from pipeline.params.config import Params
from pipeline.params.vocabulary import TestTime, Weights
from pipeline.runtime.console import progress
from pipeline.runtime.devices import make_fabric


@dataclass(frozen=True)
class Variant:
    """The seed of the chain, which of its weights are scored, and what is done before with images or model.

    `adapted_to` is the domain that models were adapted to or trained on, empty of those that know the source alone, and
    `adaptation` how: a method's name, which ", transductive" follows where the scored images were looked at,
    "supervised", or "source_only".
    """

    seed: int
    weights: Weights
    test_time: TestTime
    adapted_to: str = ""
    adaptation: str = SOURCE_ONLY


def list_variants(params: Params) -> tuple[Variant, ...]:
    """Return how models are scored that know the source alone.

    First come the scores proper, then what differs from them in one thing each.
    """
    weights, *other_weights = params.evaluate_ood.weights
    first, *options = params.evaluate_ood.test_time
    return (
        Variant(params.seed, weights, first),
        *(Variant(params.seed, weights, option) for option in options),
        *(Variant(params.seed, other, first) for other in other_weights),
        *(Variant(seed, weights, first) for seed in params.seeds if seed != params.seed),
    )


Models = Mapping[ModelName, Teacher | PixelCAM]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The folders of the two models of one chain: the teacher, and PixelCAM of the last round."""

    teacher: Path
    pixelcam: Path


def evaluate_models(
    domains: Sequence[PreparedDomain],
    *,
    chains: Mapping[int, Chain],
    params: Params,
    adapted: Sequence[AdaptedModels] = (),
) -> dict[Variant, list[Evaluation]]:
    """Score both models on the test images of every domain, as the params say, and every variant of that.

    Adapted models are scored on their own domain and on the source, with thresholds and temperatures of the models that
    they were adapted from: where they are adapted there is no image of the source to fit others on.

    Args:
        domains: the target domains, the source among them: its validation images choose thresholds and temperatures.
        chains: the models, by the seed of their training.
        params: all parameters.
        adapted: models that were adapted to one of the domains, or trained on it; see `find_adapted`.

    Returns:
        Evaluations by variant, the scores proper first and adapted models last; models within domains.

    Raises:
        PixelCAMError: a model is damaged, an image cannot be read, or a domain has no test image.
    """
    kept = {seed: _kept_by_both(chain) for seed, chain in chains.items()}  # says at once which model is missing
    first = chains[params.seed]
    epochs = kept[params.seed]
    for weights in params.evaluate_ood.weights:
        check_kept(first.teacher, weights)
        check_kept(first.pixelcam, weights)
    for each in adapted:
        _kept_by_both(_chain_of(each))
    # Selections often choose the same epoch, whose scores are then known.
    states = {variant: (variant.seed, variant.test_time, epochs[variant.weights]) for variant in list_variants(params)}
    repeated = len(set(states.values())) + len(adapted) > 1
    scorer = _Scorer(domains, params, image_size=read_size(first, params), repeated=repeated)
    scored: dict[tuple[int, TestTime, tuple[int, int]], _Scored] = {}
    for variant, state in states.items():
        if state not in scored:
            scored[state] = scorer.score(chains[variant.seed], variant)
    proper, of_first = next(iter(states.items()))
    found = {variant: scored[state].evaluations for variant, state in states.items()}
    for each in adapted:
        variant = replace(proper, weights=Weights.SELECTED, adapted_to=each.domain, adaptation=each.name)
        found[variant] = scorer.score(_chain_of(each), variant, fitted=scored[of_first].fitted).evaluations
    return found


def _chain_of(adapted: AdaptedModels) -> Chain:
    return Chain(teacher=adapted.folder / ModelName.TEACHER, pixelcam=adapted.folder / ModelName.PIXELCAM)


@dataclass(frozen=True, eq=False)
class _Scored:
    """The evaluations of a variant, and what they were made with."""

    evaluations: list[Evaluation]
    fitted: Mapping[ModelName, Fitted]


class _Scorer:
    """Scores variants on images that are decoded once; what an option at test time is fitted on is fitted once."""

    def __init__(self, domains: Sequence[PreparedDomain], params: Params, *, image_size: int, repeated: bool) -> None:
        self.params = params
        self.fabric = make_fabric()
        self.image_size = image_size
        self.adapters: dict[TestTime, Adapter] = {}
        self.source = next(domain for domain in domains if domain.name == params.source)
        validation = self.source.manifest.of_split(Split.VAL)
        images = partial(scored_images, params=params, image_size=image_size, repeated=repeated)
        self.validation = images(self.source, validation, selectable_only=True)
        self.domains = [(domain, images(domain, domain.manifest.of_split(Split.TEST))) for domain in domains]

    def score(self, chain: Chain, variant: Variant, *, fitted: Mapping[ModelName, Fitted] | None = None) -> _Scored:
        """Return the evaluations of both models of a chain on every domain, or if they are adapted on those of theirs.

        Args:
            chain: the models.
            variant: what they are.
            fitted: thresholds and temperatures; None: fitted here.
        """
        models = load_models(chain, variant.weights, device=self.fabric.device)
        if fitted is None:
            fitted = self._fit(models, variant)
        evaluation = self.params.evaluate_ood
        evaluations: list[Evaluation] = []
        for domain, images in self.domains:
            if variant.adapted_to and domain.name not in (variant.adapted_to, self.params.source):
                continue
            evaluations.extend(
                evaluate_domain(
                    self._localizers(models, variant, images),
                    EvaluationDomain(
                        name=domain.name,
                        classes=domain.classes,
                        batches=progress(
                            images.share(), label=f"evaluating on {domain.name}{self._difference(variant)}"
                        ),
                        patients={row.image: row.patient for row in domain.manifest.rows},
                        background_class_idx=domain.background_class_idx,
                    ),
                    fitted=fitted,
                    map_size=evaluation.map_size,
                    resampling=Resampling(evaluation.resamples, self.params.seed),
                    device=self.fabric.device,
                    autocast=self.fabric.autocast,
                )
            )
        return _Scored(evaluations, fitted)

    def _fit(self, models: Models, variant: Variant) -> dict[ModelName, Fitted]:
        """Return the thresholds and temperatures of models, chosen on the source's validation images."""
        evaluation = self.params.evaluate_ood
        return fit_on_validation(
            self._localizers(models, variant, self.validation),
            self.validation.share(),
            rule=evaluation.threshold,
            presumed=evaluation.mask_free,
            map_size=evaluation.map_size,
            device=self.fabric.device,
            autocast=self.fabric.autocast,
        )

    def _localizers(self, models: Models, variant: Variant, images: ScoredSet) -> dict[ModelName, Localizer]:
        """Return the models as they localize these images."""
        option = variant.test_time
        if option not in self.adapters:
            self.adapters[option] = Adapter(
                option, self.params, image_scale=_image_scale(self.params), source=self._training_images
            )
        return self.adapters[option](models, images.in_random_order(self.params.seed), device=self.fabric.device)

    def _training_images(self) -> SquareReader:
        return SquareReader(self.source.manifest.of_split(Split.TRAIN), size=self.image_size)

    def _difference(self, variant: Variant) -> str:
        """Return in words what a variant differs in from the scores proper."""
        first = list_variants(self.params)[0]
        if variant.adapted_to:
            return f", {variant.adaptation} on {variant.adapted_to}"
        if variant.seed != first.seed:
            return f", seed {variant.seed}"
        if variant.test_time is not first.test_time:
            return f", {variant.test_time}"
        return "" if variant.weights is first.weights else f", weights of {variant.weights}"


def _kept_by_both(chain: Chain) -> dict[Weights, tuple[int, int]]:
    """Return of each selection whose weights both models have the epochs that they are of."""
    teacher, pixelcam = kept_epochs(chain.teacher), kept_epochs(chain.pixelcam)
    return {weights: (epoch, pixelcam[weights]) for weights, epoch in teacher.items() if weights in pixelcam}


def load_models(chain: Chain, weights: Weights, *, device: torch.device) -> Models:
    """Load both models of a chain onto a device.

    Raises:
        PixelCAMError: a model is missing, damaged, or in the other's place.
    """
    teacher, _ = load_teacher(chain.teacher, weights)
    pixelcam, _ = load_pixelcam(chain.pixelcam, weights)
    return {ModelName.TEACHER: teacher.to(device), ModelName.PIXELCAM: pixelcam.to(device)}


def read_size(chain: Chain, params: Params) -> int:
    """Return the side in pixels at which images are read, so that every view of both models has its detail."""
    return round(_image_scale(params) * read_info(chain.teacher).encoder.input_size)


def _image_scale(params: Params) -> float:
    return max(params.cam.image_scale, params.pixelcam_map.image_scale)


def scored_images(
    domain: PreparedDomain,
    manifest: Manifest,
    params: Params,
    *,
    image_size: int,
    selectable_only: bool = False,
    repeated: bool = False,
) -> ScoredSet:
    """Return images of a domain at `image_size` pixels, with masks at the size they are scored at."""
    return ScoredSet(
        manifest,
        image_size=image_size,
        mask_size=params.evaluate_ood.map_size,
        batch_size=params.evaluate_ood.batch_size,
        background_class_idx=domain.background_class_idx,
        selectable_only=selectable_only,
        repeated=repeated,
    )
