"""The sections of a model card, for somebody who found the model and knows nothing of the project."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.data.manifest import Split
from pipeline.export.markdown import count, listed, plain, table
from pipeline.export.model_card_facts import CardFacts, DomainFacts, params_sha256
from pipeline.metrics.scores import ModelName, ThresholdSource
from pipeline.models.files import ADAPTATION, DESCRIPTION, HISTORY, WEIGHTS
from pipeline.params.vocabulary import (
    AdaptationMethod,
    AdaptedTo,
    Approach,
    PixelClasses,
    Selection,
)

METHOD: Final = "[PixelCAM](https://arxiv.org/abs/2503.24135) (Guichemerre et al., MIDL 2025)"
HUB: Final = "hf-hub:"
REPOSITORY: Final = "OWNER/NAME"  # stands for the place on the hub, until the model has one
METHODS: Final = {
    AdaptationMethod.BATCH_NORM: "batch-norm statistics were measured anew on them",
    AdaptationMethod.TENT: "it learned to be surer of what it says of them",
    AdaptationMethod.SHOT: "it learned to be sure of each of them and to use every class",
    AdaptationMethod.LABEL_SHIFT: "how often each class occurs was read from what it says of them, and allowed for",
    AdaptationMethod.SELF_TRAINING: "it learned from those of its own answers that it was surest of",
    AdaptationMethod.SFDA_DEP: "it unlearned the class that it names too often",
}
APPROACHES: Final = {
    Approach.JOINT: "Maps of {teacher} were cut into labels of pixels (foreground, background, and what is left out "
    "between them), and the image head and the pixel head learned together on one encoder.",
    Approach.TWO_STEP: "The classifier of {teacher} was frozen, and a pixel head learned from labels cut from its "
    "maps: a baseline, not the method itself.",
    Approach.NEGEV: "The classifier of {teacher} was frozen, and a decoder learned from labels cut from its maps: the "
    "baseline NEGEV, not the method itself.",
    Approach.SUPERVISED: "Its pixels learned from outlines (masks): an upper bound, not the method "
    "itself, which knows no outlines.",
}
CHOSEN_BY: Final = {
    Selection.LAST: "the last",
    Selection.VAL_ACCURACY: "the one with the best accuracy on validation images",
    Selection.VAL_LOSS: "the one with the lowest loss on validation images",
    Selection.VAL_PXAP: "the one whose maps fit the outlines of validation images best",
}
THRESHOLDS: Final = {
    ThresholdSource.VALIDATION: "chosen on outlines of validation images of {source}",
    ThresholdSource.MASK_FREE: "read from its maps of validation images of {source}, without outlines",
    ThresholdSource.FIXED: "nobody chose it: there was nothing to choose it on",
}


def title(facts: CardFacts) -> str:
    """Return the headline."""
    kind = "PixelCAM" if facts.kind is ModelName.PIXELCAM else "The teacher of PixelCAM"
    adapted = "" if facts.adaptation is None else f", adapted to {plain(facts.adaptation.domain)}"
    return f"# {kind}, trained on {plain(facts.source.name)}{adapted}"


def opening(facts: CardFacts) -> str:
    """Return what the model does, from what it learned, and whose the method is."""
    classes = listed([plain(name) for name in facts.info.classes], last="or")
    if facts.kind is ModelName.TEACHER:
        does = (
            f"Says whether a histology image is {classes}, and shows by a class activation map (CAM, "
            f"`{facts.params.cam.method}`) which parts of the image spoke for that. A PixelCAM learns from its maps"
        )
        masks = _masks_chose(facts)
    else:
        does = f"Says whether a histology image is {classes}, and marks pixel by pixel the region of interest"
        masks = _masks_chose(facts) or _approach(facts) is Approach.SUPERVISED
    learned = "It learned from labels of whole images" + (
        ", with the help of outlines: see Training." if masks else " alone; no outline had a part in its training."
    )
    return f"{does}. {learned} The method is that of {METHOD}, whose authors had no part in this model."


def _approach(facts: CardFacts) -> Approach:
    """Return how the pixels learned; of an adapted model how those of the model before did."""
    return Approach(facts.description["params"].get("approach", facts.params.train_pixelcam.approach))


def _masks_chose(facts: CardFacts) -> bool:
    """Return whether outlines had a part in choosing the weights, or those that were adapted."""
    of_params = facts.params.train_teacher if facts.kind is ModelName.TEACHER else facts.params.train_pixelcam
    chosen_by = {str(facts.weights), facts.description["selection"], *_chosen_before(facts, of_params.selection)}
    return Selection.VAL_PXAP in chosen_by


def _chosen_before(facts: CardFacts, selection: Selection) -> Iterator[str]:
    if facts.adaptation is not None:
        yield from (selection, facts.params.evaluate_ood.weights[0])


def glance(facts: CardFacts) -> str:
    """Return a table of what somebody must know to use the model."""
    info, encoder = facts.info, facts.info.encoder
    rows = [
        ["classes", listed([plain(name) for name in info.classes])],
        ["input", f"an RGB image of any size; it is squashed to {encoder.input_size} by {encoder.input_size} pixels"],
        ["output", f"the probability of each class, and a map of the image's size in [0, 1]: {_map_of(facts)}"],
        [
            "region of interest",
            f"where the map reaches {facts.threshold:.3f}; "
            + THRESHOLDS[facts.threshold_source].format(source=plain(facts.source.name)),
        ],
        ["encoder", f"{plain(encoder.name)}, which began with {_beginning(encoder.weights)}"],
        ["licence", _licence(facts)],
    ]
    return table(["at a glance", ""], rows)


def _licence(facts: CardFacts) -> str:
    if facts.is_own_work:
        return "Apache-2.0, as the software"
    return "of the software Apache-2.0; of the weights that of the images and of the encoder's first weights as well"


def _beginning(weights: str) -> str:
    return "random weights" if weights == "random" else f"weights that others trained: {plain(weights)}"


def _map_of(facts: CardFacts) -> str:
    if facts.kind is ModelName.TEACHER:
        return "the CAM of the class that it predicts"
    if facts.info.pixel_classes is PixelClasses.IMAGE_CLASSES:
        return "how sure it is that a pixel belongs to the region of interest; and the same for each class"
    return "how sure it is that a pixel belongs to the region of interest, whatever the class"


def usage(facts: CardFacts) -> str:
    """Return how the model is asked about an image, and what its files are."""
    adapted = "" if facts.adaptation is None else f", `{ADAPTATION}` how it was adapted"
    version = plain(str(facts.description["versions"]["pixelcam"]))
    return f"""\
## How to use it

With the software PixelCAM (this model was made by version {version}):

```sh
pixelcam predict IMAGE.png --model {HUB}{REPOSITORY}    # from the Hugging Face hub
pixelcam predict IMAGE.png --model FOLDER               # from a folder that holds these files
```

It prints the probability of each class and writes the map as an array and as a picture. \
`{WEIGHTS}` holds the weights, `{DESCRIPTION}` says what they are of, `{HISTORY}` how the training went{adapted}, \
and `params.yaml` how the map is read: {_reading(facts)}."""


def _reading(facts: CardFacts) -> str:
    of_map = facts.params.cam if facts.kind is ModelName.TEACHER else facts.params.pixelcam_map
    views = len(of_map.scales) * of_map.symmetries
    said = ["once, from the image as it is" if views == 1 else f"as the mean over {views} views of the image"]
    said += [{1: "", 2: "as it is and mirrored", 4: "mirrored both ways", 8: "turned and mirrored"}[of_map.symmetries]]
    if of_map.scales != (1.0,):
        said.append(f"at {listed([f'{scale:g}' for scale in of_map.scales])} times the size of its input")
    if of_map.margin:
        said.append(f"continued beyond each border by {of_map.margin:g} of its side")
    return ", ".join(filter(None, said))


def purpose(facts: CardFacts) -> str:
    """Return what the model is for, and what not."""
    away = [plain(domain.name) for domain in facts.domains[1:]]
    known = plain(facts.source.name)
    never = f" The scores on {listed(away)} below show what may come of it." if away else ""
    if facts.adaptation is not None:
        known = f"{plain(facts.adaptation.domain)} and {plain(facts.source.name)}"
        never = ""
    wrong = [
        "**Diagnosis, screening, or any decision about a person.** It is no medical device.",
        f"**Images unlike those of {known}**: other organs, stains, scanners or magnifications.{never}",
        "**Images that show none of its classes.** It names one of them for whatever it is given.",
        "**In place of outlines drawn by hand**, where their accuracy matters.",
    ]
    if facts.source.is_generated:
        tested = not all(domain.is_generated for domain in facts.domains)
        wrong.insert(
            1,
            "**Real tissue.** Every image that it learned from was drawn by a program; what it says of real images is "
            + ("scored below, and nowhere else." if tested else "unknown."),
        )
    points = "\n".join(f"- {each}" for each in wrong)
    return f"""\
## What it is for, and what not

For research and teaching: how far labels of whole images lead to a map of pixels, and how such a model does on images \
of another origin. Not for:

{points}"""


def data(facts: CardFacts) -> str:
    """Return what the images are, and how many."""
    rows = [_domain_row(facts, domain) for domain in facts.domains]
    text = "## Data\n\n" + table(
        ["domain", "what it is", "classes", "train", "validation", "test", "outlines known"], rows
    )
    home = facts.source
    by_class = listed([f"{number} {plain(name)}" for name, number in zip(home.classes, home.by_class, strict=True)])
    text += f"\n\nThe training images of {plain(home.name)}: {by_class}."
    text += "".join(_matched(facts, domain) for domain in facts.domains)
    if any(domain.is_generated for domain in facts.domains):
        text += (
            " Generated images are drawn by a program that imitates stained tissue, with outlines that are exact by "
            "construction; nobody's tissue is in them."
        )
    return text


def _domain_row(facts: CardFacts, domain: DomainFacts) -> list[str]:
    role = "what it learned from" if domain is facts.source else "never seen in training"
    if facts.adaptation is not None and domain.name == facts.adaptation.domain:
        role = "what it was adapted to"
    kinds = ["generated"] * domain.is_generated + ["tiles of whole slides"] * domain.has_slides
    kinds += ["corrected by a person's review"] * domain.is_reviewed
    classes = [
        f"{plain(name)} (holds no region of interest)" if name == domain.background_class else plain(name)
        for name in domain.classes
    ]
    splits = [_split_cell(domain, split) for split in Split]
    outlines = f"{sum(domain.with_mask.values())} of {sum(domain.images.values())}"
    return [plain(domain.name), ", ".join([role, *kinds]), ", ".join(classes), *splits, outlines]


def _split_cell(domain: DomainFacts, split: Split) -> str:
    images = str(domain.images[split])
    return f"{images} ({count(domain.patients[split], 'patient')})" if domain.patients[split] else images


def _matched(facts: CardFacts, domain: DomainFacts) -> str:
    """Say how the classes of a domain and those of the model belong together, where their names differ."""
    pairs = [
        f"{plain(own)} for {plain(there)}"
        for own, there in zip(facts.info.classes, domain.classes, strict=True)
        if own != there
    ]
    return (
        f" Classes are matched by their order: on {plain(domain.name)} its answers stand for others, {listed(pairs)}."
        if pairs
        else ""
    )


def training(facts: CardFacts) -> str:
    """Return how the model came about."""
    return "## Training\n\n" + " ".join(_came_about(facts))


def _came_about(facts: CardFacts) -> Iterator[str]:
    values = facts.description["params"]
    if facts.adaptation is not None:
        yield from _adapted(facts)
        return
    if facts.kind is ModelName.TEACHER:
        yield f"An image classifier with the image head `{facts.info.image_head}` learned the labels of the images."
    else:
        before = facts.params.rounds.get(facts.name)
        teacher = "its teacher, an image classifier," if before is None else f"the model of the round before ({before})"
        yield APPROACHES[_approach(facts)].format(teacher=teacher)
    epoch = facts.description["epochs"][facts.description["selection"]]
    chosen = CHOSEN_BY[Selection(facts.description["selection"])]
    yield f"{_steps(values)} Of the states after each epoch {chosen} was kept, epoch {epoch}."
    if facts.scored_file != WEIGHTS:
        yield f"**Scored below are other weights**, `{facts.scored_file}`: {CHOSEN_BY[Selection(facts.weights)]}."
    yield f"`{DESCRIPTION}` holds every parameter."


def _steps(values: Mapping[str, Any]) -> str:
    batches = f"{values['steps']} batches of {count(values['batch_size'], 'image')}"
    rates = f"{values['learning_rate']:g}, {values['head_learning_rate']:g} for the heads"
    return f"{batches}, at a learning rate of up to {rates}."


def _adapted(facts: CardFacts) -> Iterator[str]:
    record = facts.adaptation
    assert record is not None
    which = "test" if record.adapted_to is AdaptedTo.TEST else "training and validation"
    yield (
        f"It learned on {plain(facts.source.name)} first. Then it was brought to {plain(record.domain)} by "
        f"{count(record.images, f'{which} image')} of that domain, without their labels and outlines "
        f"(`{record.method}`): {METHODS[record.method]}."
    )
    yield from _before_adapting(facts)
    if record.is_transductive:
        yield "**These are the very images that it is scored on** (transductive): on others it may be worse."
    if record.chosen_by == "none":
        return
    yield _steps(facts.description["params"])
    yield (
        f"The state after epoch {record.chosen_epoch} was kept, which has the highest "
        f"{record.chosen_by.replace('_', ' ')} of images and predictions; no label chose."
        if record.chosen_epoch
        else "No state after was better by what can be known without labels: these are the weights from before."
    )
    if record.stopped is not None:
        yield f"The run was stopped, since the model fell onto one class ({plain(record.stopped)})."


def _before_adapting(facts: CardFacts) -> Iterator[str]:
    """Say what part outlines had in the model that was adapted, if any."""
    if facts.kind is ModelName.PIXELCAM and _approach(facts) is Approach.SUPERVISED:
        yield "Before, its pixels learned from outlines (masks)."
    if _masks_chose(facts):
        yield f"Outlines of validation images of {plain(facts.source.name)} chose the weights that it began with."


def provenance(facts: CardFacts) -> str:
    """Return hashes of what it is and what it was made from, and by what."""
    rows = [[f"`{name}`", f"`{digest}`"] for name, digest in facts.sha256.items()]
    rows.append([f"names and values of the tensors in `{WEIGHTS}`", f"`{facts.description['tensors_sha256']}`"])
    parents = {"teacher": "the model whose maps it learned from", "model": "the model that was adapted"}
    rows += [
        [f"{parents.get(name, plain(name))}, `{WEIGHTS}`", f"`{plain(digest)}`"]
        for name, digest in sorted(facts.description["parents"].items())
    ]
    rows += [[f"the list of images of {plain(each.name)}", f"`{each.manifest_sha256}`"] for each in facts.domains]
    rows.append(["the parameters by which maps are read and scored", f"`{params_sha256(facts.params)}`"])
    versions = ", ".join(f"{plain(name)} {plain(each)}" for name, each in facts.description["versions"].items())
    return f"""\
## Provenance

{table(["what", "SHA-256"], rows)}

Trained from seed {facts.description["seed"]} on this device: {plain(facts.description["device"])}. \
Versions: {versions}. The same seed, parameters and images give the same bytes on {_where_alike(facts)}."""


def _where_alike(facts: CardFacts) -> str:
    portable = "portable" in facts.description["device"]
    return "every x86-64 Linux machine, with `PIXELCAM_PORTABLE=1`" if portable else "the same machine"
