"""What there is of whole slides: those of prepared domains and those that `pixelcam slide` mapped; no pixels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.data.slides import SLIDES, SlideRecord, read_slides
from pipeline.evaluation.slide_maps import DESCRIPTION
from pipeline.metrics.scores import ModelName
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.types import GENERATED
from pipeline.viewer.site import RunFiles

OF_METRICS: Final = "slides"  # the folder of maps that evaluation wrote


@dataclass(frozen=True, kw_only=True)
class SlideMap:
    """What a model's map says of a slide.

    Attributes:
        model: whose map it is.
        folder: of the map, its regions and its pictures.
        threshold: of regions.
        maximum: the highest probability.
        share_of_tissue: within regions.
        regions: how many there are.
    """

    model: ModelName
    folder: Path
    threshold: float
    maximum: float
    share_of_tissue: float
    regions: int


@dataclass(frozen=True, kw_only=True)
class ShownSlide:
    """A slide that can be looked at. Empty text stands for what is not known.

    Attributes:
        name: by which it is asked for.
        file: the scanner's file; None where nobody says where it is.
        sha256: the file's fingerprint.
        size: width and height of level 0 in pixels.
        mpp: micrometres per pixel of level 0.
        label: class name.
        split: what it is for.
        lesions: the file of what is annotated, and its SHA-256; None where that is not known.
        maps: of the models that looked at it.
    """

    name: str
    file: Path | None
    sha256: str
    size: tuple[int, int]
    mpp: float
    label: str = ""
    split: str = ""
    lesions: tuple[Path, str] | None = None
    maps: tuple[SlideMap, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlideSet:
    """Slides that are browsed together: `key` is what addresses call them, `title` what a person does."""

    key: str
    title: str
    slides: Mapping[str, ShownSlide] = field(default_factory=dict)


def read_slide_sets(params: Params, files: RunFiles) -> tuple[SlideSet, ...]:
    """Return the slides of every prepared domain that has any, and those that `pixelcam slide` mapped.

    Raises:
        PixelCAMError: a table, or what is said of a map, is damaged.
    """
    names = dict.fromkeys((params.source, *params.target_domains))
    found = [_of_domain(name, params, files) for name in names if (files.prepared / name / SLIDES).is_file()]
    if files.slide_maps is not None and files.slide_maps.is_dir():
        found.append(_mapped(files.slide_maps, files.slide_files))
    return tuple(each for each in found if each.slides)


def _of_domain(name: str, params: Params, files: RunFiles) -> SlideSet:
    domain, prepared = params.domain(name), files.prepared / name
    root = prepared if isinstance(domain, GENERATED) else domain.root
    maps = files.metrics / OF_METRICS / name
    slides = {record.name: _of_record(record, prepared, root, maps) for record in read_slides(prepared)}
    return SlideSet(key=f"slides-{name}", title=f"{name}, slides", slides=slides)


def _of_record(record: SlideRecord, prepared: Path, root: Path, maps: Path) -> ShownSlide:
    found = (_read_map(maps / model / record.name, model, record.slide_sha256) for model in reversed(ModelName))
    return ShownSlide(
        name=record.name,
        file=root / record.slide,
        sha256=record.slide_sha256,
        size=(record.width, record.height),
        mpp=record.mpp,
        label=record.label,
        split=record.split.value,
        lesions=(prepared / record.lesions, record.lesions_sha256) if record.lesions else None,
        maps=tuple(each for each in found if each is not None),
    )


def _mapped(folder: Path, files: Path | None) -> SlideSet:
    """Return the slides of a folder that `pixelcam slide` wrote; their files are looked for in another one."""
    slides = {}
    for name in sorted(path.parent.name for path in folder.glob(f"*/{DESCRIPTION}")):
        about = _read_description(folder / name / DESCRIPTION)
        known = files is not None and Path(about["slide"]).name == about["slide"]
        slides[name] = ShownSlide(
            name=name,
            file=files / about["slide"] if files is not None and known else None,
            sha256=about["slide_sha256"],
            size=(about["width"], about["height"]),
            mpp=about["mpp"],
            maps=(_map_of(about, folder / name),),
        )
    return SlideSet(key="mapped-slides", title="mapped slides", slides=slides)


def _read_map(folder: Path, model: ModelName, slide_sha256: str) -> SlideMap | None:
    """Return a model's map of a slide; None where there is none, or it is of another file than was prepared."""
    if not (folder / DESCRIPTION).is_file():
        return None
    about = _read_description(folder / DESCRIPTION)
    return _map_of(about, folder, model) if about["slide_sha256"] == slide_sha256 else None


def _map_of(about: Mapping[str, Any], folder: Path, model: ModelName | None = None) -> SlideMap:
    is_pixelcam = about["model"]["map_of"] == ModelName.PIXELCAM
    return SlideMap(
        model=model or (ModelName.PIXELCAM if is_pixelcam else ModelName.TEACHER),
        folder=folder,
        threshold=about["threshold"],
        maximum=about["scores"]["maximum"],
        share_of_tissue=about["scores"]["share_of_tissue"],
        regions=about["scores"]["regions"],
    )


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "slide": str,
    "slide_sha256": str,
    "width": int,
    "height": int,
    "mpp": float,
    "threshold": float,
}
_SCORES: Final = ("maximum", "share_of_tissue", "regions")


def _read_description(path: Path) -> dict[str, Any]:
    """Return what is said of a map, having looked at what is used of it."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        for key, kind in _KINDS.items():
            if not isinstance(about[key], kind):
                raise TypeError(f"{key} is {shown(str(about[key]))}")
        if not all(isinstance(about["scores"][key], int | float) for key in _SCORES):
            raise TypeError("scores are no numbers")
        if not isinstance(about["model"]["map_of"], str) or min(about["width"], about["height"], about["mpp"]) <= 0:
            raise ValueError("expected a model's name and positive sizes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); map the slide again") from error
    return dict(about)
