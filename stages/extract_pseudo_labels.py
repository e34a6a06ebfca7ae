"""Stage `extract_pseudo_labels`: write the teacher's thresholded CAMs of the training images to a Zarr store."""

from pathlib import Path

from pipeline.data.manifest import read_domain
from pipeline.params.config import load_params
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.runtime.console import run
from pipeline.runtime.files import write_json


def main(params: Path, prepared: Path, teacher: Path, store: Path, quality: Path) -> None:
    """Write the pseudo-labels of the training images in PREPARED to STORE, and what they are worth to QUALITY."""
    values = load_params(params)
    source = read_domain(values.source, values, prepared)
    write_json(quality, extract_pseudo_labels(source, teacher=teacher, params=values, output=store))


if __name__ == "__main__":
    run(main, parallel=True)
