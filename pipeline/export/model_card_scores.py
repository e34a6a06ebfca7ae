"""The sections of a model card that are made of scores: how good, how sure, and what to beware of."""

from collections.abc import Iterator
from typing import Final

from pipeline.export.markdown import count, interval, listed, percent, plain, points, table
from pipeline.export.model_card_facts import SHOWN, CardFacts, Change, DomainScores
from pipeline.metrics.classification import COLLAPSE_SHARE
from pipeline.metrics.scores import ModelName
from pipeline.params.vocabulary import PixelHeadName, TestTime

ONE_IN_TWENTY: Final = 0.05
TOLD_APART: Final = 0.5  # of a point


def scores(facts: CardFacts) -> str:
    """Return how good the model is on the test images of each domain, with intervals."""
    parts = ["## Scores", " ".join(_about_scores(facts))]
    parts.append(_adapted_table(facts) if facts.adaptation is not None else _table(facts))
    return "\n\n".join([*parts, " ".join(_reading_scores(facts))])


def _about_scores(facts: CardFacts) -> Iterator[str]:
    yield "In per cent, on test images, none of which it learned from."
    if facts.adaptation is not None and facts.adaptation.is_transductive:
        yield f"But to those of {plain(facts.adaptation.domain)} it was adapted, without their labels."
    first = facts.params.evaluate_ood.test_time[0]
    if first is not TestTime.NONE and facts.adaptation is None:
        yield f"**Before, they were treated by `{first}`, which `pixelcam predict` does not do.**"
    if facts.kind is ModelName.TEACHER:
        yield "Its CAM is taken for the true class, as it is usual; in use that is not known, and it is taken for the"
        yield "predicted one."


def _table(facts: CardFacts) -> str:
    compares = facts.kind is ModelName.PIXELCAM
    titles = ["domain", "score", "value", "95 % interval", *["over its teacher, in points"] * compares]
    rows = []
    for found in facts.scores:
        for score, title in _titles(facts):
            value = _value(found, score)
            ends = found.intervals.get(score, (None, None))
            over = [_change(found.changes.get(score))] * compares
            rows.append([_domain(found), title, percent(value), interval(*ends), *over])
    return table(titles, rows)


def _titles(facts: CardFacts) -> list[tuple[str, str]]:
    titles = list(SHOWN.items())
    if facts.kind is ModelName.TEACHER:
        titles.insert(1, ("pxap_predicted_class", "PxAP, CAM of the predicted class"))
    return titles


def _value(found: DomainScores, score: str) -> float | None:
    return found.scores[score] if score in found.scores else found.whole[score]


def _domain(found: DomainScores) -> str:
    images = found.whole.get("images")
    return plain(found.domain) if images is None else f"{plain(found.domain)} ({count(images, 'image')})"


def _change(change: Change | None) -> str:
    if change is None or change.difference is None:
        return points(None)
    if change.low is None or change.high is None:
        return points(change.difference)
    return f"{points(change.difference)} ({interval(change.low, change.high)})"


def _adapted_table(facts: CardFacts) -> str:
    rows = [
        [
            plain(found.domain),
            title,
            percent(found.scores[score]),
            percent(found.before[score]),
            _change(found.changes.get(score)),
        ]
        for found in facts.scores
        for score, title in SHOWN.items()
    ]
    return table(["domain", "score", "adapted", "before", "change in points (95 % interval)"], rows)


def _reading_scores(facts: CardFacts) -> Iterator[str]:
    yield (
        "PxAP is the area under the precision-recall curve of all pixels, whatever the threshold; Dice is taken at the "
        f"threshold {facts.threshold:.3f}."
    )
    shares = {found.domain: found.whole.get("foreground_share") for found in facts.scores}
    known = [f"{percent(share)} on {plain(name)}" for name, share in shares.items() if share is not None]
    if known:
        yield f"A map that knows nothing would have a PxAP of {listed(known)}."
    if facts.adaptation is None:
        yield (
            f"Intervals are percentiles of {facts.params.evaluate_ood.resamples} bootstrap resamples of the patients, "
            "or of the images where no patient is known; they hold for this one model."
        )
    yield from _no_width(facts)
    yield from _over_seeds(facts)
    yield from _of_slides(facts)


def _no_width(facts: CardFacts) -> Iterator[str]:
    """Say what an interval without width does not: that there are no errors."""
    flawless = [found for found in facts.scores if found.whole and found.scores["accuracy"] == 1]
    for found in flawless:
        number = int(found.whole["patients"])
        missed = 1 - ONE_IN_TWENTY ** (1 / number)
        yield (
            f"On {plain(found.domain)} every image is right, so that the interval has no width; that is no certainty: "
            f"with an accuracy of {percent(1 - missed)}, {number} of {number} are right one time in twenty."
        )


def _over_seeds(facts: CardFacts) -> Iterator[str]:
    for found in facts.scores:
        spread = found.whole.get("over_seeds")
        if spread and spread["pxap"]["mean"] is not None:
            pxap = spread["pxap"]
            yield (
                f"Trained from {pxap['chains']} seeds, such models have a PxAP of {percent(pxap['mean'])} ± "
                f"{percent(pxap['standard_deviation'])} on {plain(found.domain)} (mean and standard deviation)."
            )


def _of_slides(facts: CardFacts) -> Iterator[str]:
    for found in facts.scores:
        of_slides = found.whole.get("slides")
        if of_slides:
            yield (
                f"The images of {plain(found.domain)} are tiles. Of its whole slides the AUROC is "
                f"{percent(of_slides['auroc'])}, FROC {percent(of_slides['froc'])}, the Dice of regions "
                f"{percent(of_slides['dice'])}."
            )


def warnings(facts: CardFacts) -> list[str]:
    """Return what somebody must know before anything else: where the model has fallen onto one class."""
    found = []
    for each in facts.scores:
        if _has_collapsed(each):
            name, share = max(each.predicted.items(), key=lambda item: item[1])
            found.append(
                f"On {plain(each.domain)} it calls {percent(share)} % of the test images {plain(name)}, whatever they "
                "show: its accuracy there means nothing."
            )
    return found


def _has_collapsed(found: DomainScores) -> bool:
    if found.whole:
        return bool(found.whole["collapsed"])
    return max(found.predicted.values()) >= COLLAPSE_SHARE


def calibration(facts: CardFacts) -> str:
    """Return how far what the model says of itself can be believed."""
    rows = [[plain(found.domain), percent(found.ece), percent(found.pixel_ece)] for found in facts.scores]
    of_map = "and a value of the map from the share of foreground among such pixels"
    if facts.kind is ModelName.TEACHER:
        of_map += "; a CAM is no probability: its highest value is 1 in every image, whatever is there"
    unknown = "" if facts.adaptation is None else " That of the class was not measured for adapted models."
    return f"""\
## Calibration

{table(["domain", "class, error in points", "map, error in points"], rows)}

The expected calibration error: how far, on the mean, the probability of the predicted class is from the share of \
images that are right, {of_map}.{unknown}"""


def limits(facts: CardFacts) -> str:
    """Return what the model cannot do, and what the scores do not show."""
    return "## Limits\n\n" + "\n".join(f"- {each}" for each in _limits(facts))


def _limits(facts: CardFacts) -> Iterator[str]:
    yield from warnings(facts)
    yield from _losses(facts)
    if facts.kind is ModelName.TEACHER:
        yield "Its map marks something in every image, also where there is nothing to mark."
    for found in facts.scores:
        marked = found.whole.get("regions", {}).get(str(facts.threshold_source), {}).get("false_positive_share")
        if marked is not None:
            empty = count(found.whole["images_without_roi"], "image")
            yield (
                f"On the {empty} of {plain(found.domain)} without a region of interest it marks {percent(marked)} % of "
                "the pixels all the same."
            )
    grid = _grid(facts)
    if grid:
        yield f"Its map comes from {grid} by {grid} cells, enlarged to the image: nothing finer than a cell is in it."
    size = facts.info.encoder.input_size
    yield f"Images that are not square are squashed to {size} pixels a side, small things with them."
    if not any("over_seeds" in found.whole for found in facts.scores):
        yield "It is one training from one seed: another gives other scores, and no interval covers that."


def _losses(facts: CardFacts) -> Iterator[str]:
    """Say where an adapted model is worse than the one that it came from."""
    if facts.adaptation is None:
        return
    for found in facts.scores:
        lost = []
        for score, title in SHOWN.items():
            now, before = found.scores[score], found.before[score]
            if now is not None and before is not None and 100 * (before - now) > TOLD_APART:
                lost.append(f"{100 * (before - now):.1f} points of {title}")
        if lost:
            yield f"By adapting it has lost {listed(lost)} on {plain(found.domain)}."


def _grid(facts: CardFacts) -> int | None:
    """Return how many cells a side of the map has, where that follows from what is known."""
    stride = facts.info.encoder.arguments.get("output_stride")
    if facts.kind is ModelName.TEACHER:
        plain_reading = facts.params.cam.layers == (-1,) and facts.params.cam.scales == (1.0,)
    else:
        plain_reading = facts.info.pixel_head is PixelHeadName.LINEAR and facts.params.pixelcam_map.scales == (1.0,)
    return facts.info.encoder.input_size // stride if isinstance(stride, int) and stride and plain_reading else None
