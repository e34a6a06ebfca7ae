"""Pictures of the report: as files; and for the page each layer once (image, outline of the mask, a map per model).

The browser lays maps over the grey image, so that an image costs about 17 kB however many maps lie over it. Colours
come from the maps at a size of their own; the image is written as finely as the page's size allows.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipeline.data.image_store import square_batch
from pipeline.data.maps import resize_map
from pipeline.params.config import Params
from pipeline.params.vocabulary import BACKGROUND, IGNORE
from pipeline.pseudo_labels.refinement import refine_cams
from pipeline.pseudo_labels.thresholding import make_pseudo_labels
from pipeline.report.overlays import (
    Picture,
    colour_labels,
    colour_map,
    contact_sheet,
    fit,
    heat_overlay,
    label_overlay,
    mask_contour,
    outline_layer,
)
from pipeline.report.parts import MODELS, GalleryImage, LabelRound, ModelView, TrainingImage
from pipeline.report.wording import percent

SIDE: Final = 256  # of each part, in pixels
SHEET_ROWS: Final = 6  # at most


def draw_overview(gallery: Sequence[GalleryImage], params: Params) -> Picture:
    """Return five pictures of a gallery's middle image in a row, uint8 (H, W, 3).

    The labels are cut from the CAM as those of training images are, at the size of the model's input.
    """
    shown = gallery[(len(gallery) - 1) // 2]
    side = params.model.input_size
    cam = resize_map(torch.from_numpy(shown.teacher.map).unsqueeze(0), (side, side))
    cut = params.extract_pseudo_labels
    labels = make_pseudo_labels(refine_cams(cam, square_batch([shown.image], side), cut), cut)
    truth = shown.image if shown.mask is None else mask_contour(shown.image, mask=shown.mask)
    row = [
        shown.image,
        truth,
        heat_overlay(shown.image, heat=shown.teacher.map),
        label_overlay(shown.image, labels=labels[0].numpy()),
        heat_overlay(shown.image, heat=shown.pixelcam.map),
    ]
    return contact_sheet([row], side=SIDE)


def draw_overlays(gallery: Sequence[GalleryImage]) -> Picture:
    """Return a row per image of a gallery, evenly over it: image, teacher's CAM and PixelCAM's map, truth outlined.

    Where PixelCAM tells classes apart by pixels, a fourth picture shows them, each in its colour.
    """
    chosen = np.linspace(0, len(gallery) - 1, min(SHEET_ROWS, len(gallery))).round().astype(int)
    rows = []
    for shown in (gallery[index] for index in chosen):
        pictures = [
            shown.image,
            *(heat_overlay(shown.image, heat=view.map) for view in (shown.teacher, shown.pixelcam)),
        ]
        if shown.pixelcam.classes is not None:
            pictures.append(label_overlay(shown.image, labels=shown.pixelcam.classes))
        rows.append([each if shown.mask is None else mask_contour(each, mask=shown.mask) for each in pictures])
    return contact_sheet(rows, side=SIDE)


OUTLINE_SIDE: Final = 256  # pixels
MAP_SIDE: Final = 80
LABELS_SIDE: Final = 128
MAP_QUALITY: Final = 75
IMAGE_FORMS: Final = ((320, 80), (320, 65), (256, 65), (256, 50), (256, 40), (224, 35), (160, 30), (128, 20))
MOST_BYTES: Final = 24_000  # of one image
BYTES_FOR_IMAGES: Final = 4_600_000  # of all together: base64 and the other layers double that, and 10 MB are the limit


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A map or labels over an image: its data URI (empty: the image alone), words for it, title and detail."""

    uri: str
    alt: str
    title: str
    detail: str
    crisp: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image on the page.

    Attributes:
        name: the image's.
        domain: empty for training images.
        label: its true class.
        reason: why it is shown; may be empty.
        truth: what the mask says, in words.
        width: of the image as it is shown, in pixels.
        height: likewise.
        image: data URI.
        outline: data URI of the mask's outline; empty without one.
        layers: what lies over it, side by side.
        facts: what the page's filters ask for, by name.
    """

    name: str
    domain: str
    label: str
    reason: str
    truth: str
    width: int
    height: int
    image: str
    outline: str
    layers: tuple[Layer, ...]
    facts: Mapping[str, str]


def bytes_per_image(count: int) -> int:
    """Return how many bytes each of `count` images may take, so that the page stays under 10 MB at 500 of them."""
    return min(MOST_BYTES, BYTES_FOR_IMAGES // max(1, count))


def gallery_case(shown: GalleryImage, *, domain: str, most_bytes: int) -> Case:
    """Show a test image with both models' maps, the teacher's first."""
    views = {"teacher": shown.teacher, "pixelcam": shown.pixelcam}
    layers = [
        view_layer(
            view,
            shown,
            title="Teacher's CAM" if model == "teacher" else "PixelCAM's map",
            alt=f"{MODELS[model]}'s map over {shown.name}",
        )
        for model, view in views.items()
    ]
    if shown.pixelcam.classes is not None:
        layers.append(
            Layer(
                uri=_labels_uri(shown.pixelcam.classes),
                alt=f"The class that PixelCAM gives each pixel of {shown.name}",
                title="PixelCAM's classes",
                detail="of each pixel, where the map reaches the threshold",
                crisp=True,
            )
        )
    fits = {model: fit_of(view) for model, view in views.items()}
    teacher, pixelcam = fits["teacher"], fits["pixelcam"]
    facts = {
        "domain": domain,
        "label": shown.label,
        **{model: "right" if view.predicted_class == shown.label else "wrong" for model, view in views.items()},
        "fit": "" if pixelcam is None else f"{pixelcam:.6f}",
        "gain": "" if pixelcam is None or teacher is None else f"{pixelcam - teacher:.6f}",
    }
    return _case(shown, domain=domain, reason=shown.reason, layers=tuple(layers), facts=facts, most_bytes=most_bytes)


def view_layer(view: ModelView, shown: GalleryImage, *, title: str, alt: str) -> Layer:
    """Return a model's map over an image with what the model made of it."""
    said = _judge(view, label=shown.label)
    return Layer(uri=_map_uri(view.map), alt=f"{alt}: {said}", title=title, detail=said)


def training_case(shown: TrainingImage, rounds: Sequence[LabelRound], *, most_bytes: int) -> Case:
    """Show a training image with the map and the labels of every round."""
    layers: list[Layer] = []
    for round_, given in zip(rounds, shown.rounds, strict=True):
        background, ignored = given.labels == BACKGROUND, given.labels == IGNORE
        detail = f"{(~(background | ignored)).mean():.0%} foreground, {background.mean():.0%} background"
        learner = f" for {round_.learner}" if len(rounds) > 1 else ""
        layers += [
            Layer(
                uri=_map_uri(given.map),
                alt=f"The map over {shown.name} that the labels{learner} are cut from",
                title=f"Map{learner}",
                detail=round_.maps,
            ),
            Layer(
                uri=_labels_uri(given.labels),
                alt=f"Pseudo-labels{learner} over {shown.name}: {detail}",
                title=f"Labels{learner}",
                detail=detail,
                crisp=True,
            ),
        ]
    return _case(shown, domain="", reason="", layers=tuple(layers), facts={}, most_bytes=most_bytes)


def fit_of(view: ModelView) -> float | None:
    """Return how well a model's region fits: its Dice, or without region of interest what it leaves unmarked."""
    if view.dice is not None:
        return view.dice
    return None if view.false_positive_share is None else 1 - view.false_positive_share


def image_uri(image: Picture, *, most_bytes: int) -> str:
    """Return an image as the finest WebP of at most so many bytes, or the coarsest there is."""
    for side, quality in IMAGE_FORMS:
        content = webp(fit(image, side=side), quality=quality)
        if len(content) <= most_bytes:
            break
    return data_uri(content, "webp")


def _case(
    shown: GalleryImage | TrainingImage,
    *,
    domain: str,
    reason: str,
    layers: tuple[Layer, ...],
    facts: Mapping[str, str],
    most_bytes: int,
) -> Case:
    height, width = fit(shown.image, side=IMAGE_FORMS[0][0]).shape[:2]
    return Case(
        name=shown.name,
        domain=domain,
        label=shown.label,
        reason=reason,
        truth=_truth(shown.mask),
        width=width,
        height=height,
        image=image_uri(shown.image, most_bytes=most_bytes),
        outline="" if shown.mask is None or not shown.mask.any() else _outline_uri(shown.image, shown.mask),
        layers=layers,
        facts=facts,
    )


def _truth(mask: npt.NDArray[np.bool_] | None) -> str:
    if mask is None:
        return "no mask"
    return f"{mask.mean():.0%} region of interest" if mask.any() else "no region of interest"


def _judge(view: ModelView, *, label: str) -> str:
    """Say what a model made of an image: its class, right or wrong, and how well its region fits."""
    verdict = f"{view.predicted_class}, {'right' if view.predicted_class == label else 'wrong'}"
    if view.dice is not None:
        return f"{verdict}; Dice {percent(view.dice)}"
    if view.false_positive_share is not None:
        return f"{verdict}; marks {percent(view.false_positive_share)}% in vain"
    return verdict


def _map_uri(heat: npt.NDArray[np.float32]) -> str:
    return data_uri(webp(colour_map(heat, size=(MAP_SIDE, MAP_SIDE)), quality=MAP_QUALITY), "webp")


def _labels_uri(labels: npt.NDArray[np.uint8]) -> str:
    return data_uri(_lossless(colour_labels(labels, size=(LABELS_SIDE, LABELS_SIDE))), "webp")


def _outline_uri(image: Picture, mask: npt.NDArray[np.bool_]) -> str:
    height, width = image.shape[:2]
    scale = OUTLINE_SIDE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return data_uri(_lossless(outline_layer(mask, size=size)), "webp")


def webp(picture: Picture, *, quality: int) -> bytes:
    """Return a picture as WebP."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _lossless(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", lossless=True, method=4)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture of a kind, such as "webp", as a data URI."""
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
