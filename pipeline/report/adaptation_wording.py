"""What adapting did, in sentences: to which images and how, whether it helped, and what became of the source.

A change counts as one where its 95 % interval holds no 0; what may be chance is called that.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pipeline.adaptation.watching import COLLAPSED
from pipeline.evaluation.adapted import TRANSDUCTIVE
from pipeline.params.vocabulary import AdaptationMethod
from pipeline.report.adaptation_parts import AdaptedDomain, AdaptedModel
from pipeline.report.matrix import METHODS
from pipeline.report.parts import MODELS
from pipeline.report.wording import interval_words, percent, signed, tenths_over

DEEDS: Final = {
    AdaptationMethod.BATCH_NORM: "the averages that they measure images by were taken anew from them",
    AdaptationMethod.TENT: "they learned to be surer of what they already say of them",
    AdaptationMethod.SHOT: "they learned to be sure of each of them, and yet to use every class",
    AdaptationMethod.LABEL_SHIFT: "how often each class occurs was read from what they say of them, and allowed for",
    AdaptationMethod.SELF_TRAINING: "they learned from the answers that they were surest of",
    AdaptationMethod.SFDA_DEP: "they unlearned the class that they name too often",
}


NOTHING: Final = "none"  # chose the state of a method without steps


class Effect(StrEnum):
    """What adapting did to one score, as far as the interval of the change tells."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    CHANCE = "chance"
    UNKNOWN = "unknown"


def title_of(domain: AdaptedDomain) -> str:
    """Return the name of the method, and whether it saw the very images that are scored."""
    return f"{METHODS[domain.method]}{TRANSDUCTIVE if domain.transductive else ''}"


def describe_deed(domain: AdaptedDomain) -> str:
    """Say to which images the models were adapted, and how."""
    images = f"{domain.images} {'image' if domain.images == 1 else 'images'} of {domain.name}"
    return (
        f"Both models learned on {domain.source} and were brought to {domain.name} with {images} alone, without any "
        f"label or outline: {DEEDS[domain.method]} ({METHODS[domain.method]})."
    )


def describe_effect(name: str, model: AdaptedModel) -> str:
    """Say whether adapting helped a model, did nothing, or hurt, and at what."""
    effects = {score: effect_on(score, model) for score in ("accuracy", "pxap")}
    return f"{_verdict(name, [effect for effect in effects.values() if effect])} {_details(model, effects)}"


def effect_on(score: str, model: AdaptedModel) -> Effect | None:
    """Return what adapting did to a score; None where it is not defined."""
    tenths = tenths_over(model.adapted[score], model.source_only[score])
    if tenths is None:
        return None
    bounds = model.over_source_only[score]
    if bounds["low"] is None or bounds["high"] is None:
        return Effect.UNKNOWN if tenths else Effect.SAME
    low, high = (round(1000 * bound) for bound in (bounds["low"], bounds["high"]))  # as printed
    if tenths > 0 and low > 0:
        return Effect.BETTER
    if tenths < 0 and high < 0:
        return Effect.WORSE
    return Effect.CHANCE if tenths or low or high else Effect.SAME


def _verdict(name: str, effects: list[Effect]) -> str:
    """Sum up what adapting did to a model, given what it did to each score that is defined."""
    if Effect.BETTER in effects and Effect.WORSE in effects:
        return f"Adapting helped {name} at one task and hurt it at the other."
    if Effect.BETTER in effects:
        return f"Adapting helped {name}."
    if Effect.WORSE in effects:
        return f"Adapting hurt {name}."
    if all(effect is Effect.SAME for effect in effects):
        return f"Adapting did nothing to the scores of {name}."
    return f"Adapting did nothing to {name} that can be told from chance."


def _details(model: AdaptedModel, effects: Mapping[str, Effect | None]) -> str:
    before, after = (percent(scores["accuracy"]) for scores in (model.source_only, model.adapted))
    rightly = "as before" if before == after else f"instead of {before} %"
    classifies = f"It names the right class for {after} % of the images {rightly} ({_change('accuracy', model)})"
    if effects["pxap"] is None:
        return f"{classifies}; how well it marks the region cannot be scored here."
    before, after = (percent(scores["pxap"]) for scores in (model.source_only, model.adapted))
    fits = "as before" if before == after else f"instead of {before}"
    return f"{classifies}, and its map of the region has a PxAP of {after} {fits} ({_change('pxap', model)})."


def _change(score: str, model: AdaptedModel) -> str:
    """Write a change in points with its interval, and whether it may be chance."""
    points = signed(tenths_over(model.adapted[score], model.source_only[score]))
    interval = interval_words(model.over_source_only[score])
    said = f"{points} points"
    if interval:
        said += f", 95 % interval {interval}"
    match effect_on(score, model):
        case Effect.CHANCE:
            return f"{said}, which may be chance"
        case Effect.UNKNOWN:
            return f"{said}, of which no interval is known"
        case _:
            return said


def describe_alarms(model: AdaptedModel) -> list[tuple[str, str]]:
    """Say when a model was on one class, and in a sentence what of it: before, when it was stopped, or even now."""
    said = []
    start, chosen = model.course[0], model.chosen
    if model.start_collapsed:
        said.append(
            (
                "Before",
                f"it said {start.largest_class} of {percent(start.largest_share)} % of the images that it was adapted "
                "to, whatever they show.",
            )
        )
    if model.stopped is not None:
        kept = f"the state after epoch {chosen.epoch}" if chosen.epoch else "the model from before"
        said.append(("Stopped", f"it fell onto one class ({model.stopped}); {kept} was kept."))
    if chosen.epoch and chosen.largest_share >= COLLAPSED:
        said.append(
            (
                "Alarm",
                f"now it says {chosen.largest_class} of {percent(chosen.largest_share)} % of the images that it was "
                "adapted to, whatever they show.",
            )
        )
    return said


def describe_kept(model: AdaptedModel) -> str:
    """Say which state was kept, and what chose it; empty where the alarms say so."""
    by, last = model.chosen_by.replace("_", " "), model.course[-1].epoch
    if model.chosen_by == NOTHING:
        return "It was adapted at once, without steps to choose among." if model.chosen_epoch else ""
    if model.chosen_epoch == 0:
        return f"By {by}, for which no label is needed, no state after was better: this is the model from before."
    of = f" of {last}" if last > 1 else ""
    return f"Kept is the state after epoch {model.chosen_epoch}{of}, chosen by {by}, for which no label is needed."


def describe_source(source: str, model: AdaptedModel) -> str:
    """Say what became of what the model knew of the domain that it comes from."""
    moved = {
        measure: tenths
        for score, measure in (("accuracy", "accuracy"), ("pxap", "PxAP"))
        if (tenths := tenths_over(model.source_after[score], model.source_before[score])) is not None
    }
    lost = _list({measure: -tenths for measure, tenths in moved.items() if tenths < 0})
    gained = _list({measure: tenths for measure, tenths in moved.items() if tenths > 0})
    if not moved:
        return f"On {source}, where it comes from, it cannot be scored."
    if not lost and not gained:
        return f"Nothing is forgotten of {source}, where it comes from: its scores there are as before."
    if not lost:
        return f"Nothing is forgotten of {source}, where it comes from: it has gained {gained} there."
    return f"On {source}, where it comes from, it has lost {lost}{f' and gained {gained}' if gained else ''}."


def _list(points: Mapping[str, int]) -> str:
    return " and ".join(f"{tenths / 10:.1f} points of {measure}" for measure, tenths in points.items())


def describe_summary(domain: AdaptedDomain) -> list[str]:
    """Say of each model what adapting did to it, the teacher first."""
    names = {"teacher": "the teacher", "pixelcam": MODELS["pixelcam"]}
    return [describe_effect(names[name], model) for name, model in domain.models.items()]
