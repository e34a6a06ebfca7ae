"""One self-contained page that says whether PixelCAM beats its teacher, and shows what each model looks at.

The page opens offline, in light and dark, on a phone and in print, and shows everything without its script, which adds
filters and sliders. Everything from outside (file names, class names, params) is escaped by the template, reaches the
script through attributes alone, and no other script may run: the page's policy names the script by its hash.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps

from pipeline.params.vocabulary import Approach
from pipeline.report.adaptation import Gallery, adapted_sections
from pipeline.report.charts import (
    calibration_charts,
    convergence_chart,
    pixel_calibration_charts,
    precision_recall_charts,
    training_charts,
)
from pipeline.report.matrix import (
    TEST_TIME,
    adaptation_groups,
    domain_groups,
    seed_count,
    seed_groups,
    selection_groups,
)
from pipeline.report.overlays import HEAT_COLOURS, label_colours
from pipeline.report.parts import MODELS, DomainReport, ReportContent
from pipeline.report.pictures import Case, bytes_per_image, gallery_case, training_case
from pipeline.report.slides import outline_colours, slide_gallery
from pipeline.report.wording import ScoreRow, describe_convergence, describe_verdict, more_rows, percent, score_rows

TEMPLATES: Final = Path(__file__).parent / "templates"
SCRIPT: Final = "report.js"


@dataclass(frozen=True, kw_only=True)
class _DomainSection:
    """A domain on the page."""

    name: str
    in_domain: bool
    scores: Mapping[str, Mapping[str, Any]]
    rows: tuple[ScoreRow, ...]
    more: tuple[ScoreRow, ...]
    collapsed: tuple[str, ...]  # the models that predict one class for nearly all images
    cases: tuple[Case, ...]


def render_report(content: ReportContent, *, try_it: str | None = None) -> str:
    """Return the page as HTML; equal content gives equal text.

    Args:
        content: what it shows.
        try_it: the address, from the page, of another that PixelCAM can be tried on; None if there is none.
    """
    environment = _environment()
    script = environment.get_template(SCRIPT).render()
    domains = list(content.domains)
    most_bytes = bytes_per_image(sum(len(domain.gallery) for domain in domains) + len(content.learned_from))
    sections = [_domain_section(domain, most_bytes) for domain in domains]
    return environment.get_template("report.html.j2").render(
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        source=next(domain.name for domain in domains if domain.in_domain),
        verdict=describe_verdict([(domain.name, domain.in_domain, domain.scores) for domain in domains]),
        domains=sections,
        convergence=convergence_chart(content.histories),
        converged=[
            said
            for model, name in (("teacher", "the teacher"), ("pixelcam", "PixelCAM"))
            if model in content.histories and (said := describe_convergence(name, content.histories[model]))
        ],
        has_localization_curve=any("val_pxap" in history for history in content.histories.values()),
        training=training_charts(content.histories),
        precision_recall=precision_recall_charts(domains, content.curves),
        rounds=content.rounds,
        learned_from=[training_case(image, content.rounds, most_bytes=most_bytes) for image in content.learned_from],
        setting=content.setting,
        supervised=content.setting.approach is Approach.SUPERVISED,
        matrix=domain_groups(content.matrix),
        selections=selection_groups(content.matrix),
        seeds=seed_groups(content.matrix),
        seed_count=seed_count(content.matrix),
        adaptations=adaptation_groups(content.matrix),
        adapted=adapted_sections(
            content.adaptations,
            {
                domain.name: _numbered(number, domain, section)
                for number, (domain, section) in enumerate(zip(domains, sections, strict=True), start=1)
            },
        ),
        calibration=calibration_charts(domains, content.confidences),
        pixel_calibration=pixel_calibration_charts(domains),
        labels=list(dict.fromkeys(image.label for domain in domains for image in domain.gallery)),
        test_time=TEST_TIME[content.setting.test_time],
        provenance=content.provenance,
        slides=slide_gallery(content.slides),
        outline_colours=outline_colours(),
        heat_gradient=_heat_gradient(),
        label_colours={
            name: "rgb({}, {}, {})".format(*colour)
            for name, (_, colour) in label_colours(content.setting.pixel_classes).items()
        },
        has_classes=any(image.pixelcam.classes is not None for domain in domains for image in domain.gallery),
        models=MODELS,
        try_it=try_it,
    )


def _environment() -> Environment:
    """Return what fills the templates, escaping all that comes from outside."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def _domain_section(domain: DomainReport, most_bytes: int) -> _DomainSection:
    return _DomainSection(
        name=domain.name,
        in_domain=domain.in_domain,
        scores=domain.scores,
        rows=score_rows(domain.scores),
        more=more_rows(domain.scores),
        collapsed=tuple(title for model, title in MODELS.items() if domain.scores[model].get("collapsed")),
        cases=tuple(gallery_case(image, domain=domain.name, most_bytes=most_bytes) for image in domain.gallery),
    )


def _numbered(number: int, domain: DomainReport, section: _DomainSection) -> Gallery:
    """Return the images of a domain's gallery by the numbers that the template gives them."""
    return [
        (f"{number}-{place}", image, case)
        for place, (image, case) in enumerate(zip(domain.gallery, section.cases, strict=True), start=1)
    ]


def _heat_gradient() -> str:
    """Return the map's colours as a CSS gradient, low to high."""
    stops = colormaps[HEAT_COLOURS](np.linspace(0, 1, 11))
    colours = ("#" + "".join(f"{round(channel * 255):02x}" for channel in stop[:3]) for stop in stops)
    return f"linear-gradient(90deg, {', '.join(colours)})"
