"""Stage `report`: one self-contained page with scores, curves and pictures, and pictures as files of their own."""

import os
from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.export.try_it import export_page
from pipeline.params.config import load_params
from pipeline.report.content import ReportSources, gather_report, of_rounds
from pipeline.report.overlays import write_picture
from pipeline.report.page import TEMPLATES, render_report
from pipeline.report.pictures import draw_overlays, draw_overview
from pipeline.report.provenance import imported_files
from pipeline.runtime.console import run
from pipeline.runtime.files import replacing_folder, write_text


def main(
    params: Path,
    prepared: Path,
    store: Path,
    models: Path,
    label_quality: Path,
    scores: Path,
    per_image: Path,
    curves: Path,
    matrix: Path,
    adaptation: Path,
    slides: Path,
    page: Path,
    overview: Path,
    overlays: Path,
    try_it: Path,
) -> None:
    """Write PAGE, OVERVIEW and the folders OVERLAYS and TRY_IT about the teacher and PixelCAM in MODELS.

    STORE and LABEL_QUALITY are those of the first round; those of others lie beside them, with _ROUND in their names.
    TRY_IT holds the page only if the params ask for it.
    """
    values = load_params(params)
    root = Path(__file__).resolve().parent.parent
    sources = ReportSources(
        teacher=models / "teacher",
        pixelcam=models / values.final_model,
        stores=of_rounds(store, values.rounds),
        label_quality=of_rounds(label_quality, values.rounds),
        scores=scores,
        per_image=per_image,
        curves=curves,
        matrix=matrix,
        adaptation=adaptation,
        adapted={domain: models / f"adapted_{domain}" / "pixelcam" for domain in values.adaptation},
        slides=slides,
        code=[*imported_files(Path(__file__).resolve(), root=root), *sorted(TEMPLATES.resolve().iterdir())],
        root=root,
    )
    domains = [read_domain(name, values, prepared / name) for name in values.target_domains]
    content = gather_report(domains, sources, values)
    address = export_page(try_it, model=sources.pixelcam, params=values, prepared=prepared)
    write_picture(overview, draw_overview(content.domains[0].gallery, values))
    with replacing_folder(overlays) as folder:
        for domain in content.domains:
            write_picture(folder / f"{domain.name}.png", draw_overlays(domain.gallery))
    from_page = None if address is None else Path(os.path.relpath(address, page.parent)).as_posix()
    write_text(page, render_report(content, try_it=from_page))


if __name__ == "__main__":
    run(main)
