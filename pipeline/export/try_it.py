"""The page beside a report that PixelCAM can be tried on, where the params ask for one."""

from pathlib import Path
from typing import Final

from pipeline.export.exporting import Request, export_model
from pipeline.export.web import INDEX
from pipeline.params.config import Params
from pipeline.params.vocabulary import ExportFormat
from pipeline.runtime.files import replacing_folder

NOTE: Final = "README.txt"
HOW: Final = "To try PixelCAM in the browser, set report.web: true in params.yaml and run: dvc repro report\n"


def export_page(folder: Path, *, model: Path, params: Params, prepared: Path) -> Path | None:
    """Export a model as a page into a folder and return the page's path; None, and a note there, where none is wanted.

    Args:
        folder: is replaced whole, or not at all.
        model: its folder.
        params: `report.web` asks for the page, and the others say how the map is read.
        prepared: the folder of prepared domains.

    Raises:
        PixelCAMError: as `export_model`.
    """
    if params.report.web:
        export_model(Request(model=model, params=params, prepared=prepared), ExportFormat.WEB, folder)
        return folder / INDEX
    with replacing_folder(folder) as written:
        (written / NOTE).write_text(HOW, encoding="utf-8")
    return None
