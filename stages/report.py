"""Stage `report`: one self-contained page with scores, curves and pictures, and the method in one picture."""

from pathlib import Path

from pipeline.config import load_params
from pipeline.console import run
from pipeline.domains import read_domain
from pipeline.files import write_text
from pipeline.overlays import write_picture
from pipeline.overview import draw_overview
from pipeline.report_content import ReportSources, gather_report
from pipeline.reporting import render_report


def main(
    params: Path,
    prepared: Path,
    store: Path,
    models: Path,
    label_quality: Path,
    scores: Path,
    per_image: Path,
    curves: Path,
    page: Path,
    overview: Path,
) -> None:
    """Write PAGE and the picture OVERVIEW about the teacher and PixelCAM in MODELS, from the files of their metrics."""
    values = load_params(params)
    sources = ReportSources(
        teacher=models / "teacher",
        pixelcam=models / values.final_model,
        store=store,
        scores=scores,
        per_image=per_image,
        curves=curves,
        label_quality=label_quality,
    )
    domains = [read_domain(name, values, prepared / name) for name in values.target_domains]
    content = gather_report(domains, sources, values)
    write_picture(overview, draw_overview(content.domains[0].gallery, values))
    write_text(page, render_report(content))


if __name__ == "__main__":
    run(main)
