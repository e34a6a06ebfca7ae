"""Generated slides through every stage: tiles, both models, maps of whole slides, scores and the page."""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import Run, change, digests, params_values

from pipeline.commands.cli import results
from pipeline.commands.slide import map_slides
from pipeline.data.slides import read_slides
from pipeline.params.config import load_params
from stages import evaluate_ood, extract_pseudo_labels, prepare, report, train_pixelcam, train_teacher

DOMAIN: dict[str, Any] = {
    "adapter": "synthetic_slides",
    "classes": ["normal", "metastatic"],
    "background_class": "normal",
    "review": None,
    "slides": {"train": 2, "val": 2, "test": 2},
    "slide_size": 1024,
    "mpp": 1.0,
    "tile_size": 64,
    "tiles_per_slide": 6,
    "tissue_share": 0.5,
    "lesion_share": 0.3,
    "doubt_share": 0.0,
    "annotation_groups": {"_0": "lesion", "_2": "hole"},
    "seed": 0,
}
SPREADING = ("pipeline.data.adapters.slides", "pipeline.data.slide_preparation", "pipeline.evaluation.slide_scores")


def as_if_sent(work: Callable[[Any], Any], items: Iterable[Any], **_: object) -> Iterator[Any]:
    """Do here what `side_by_side` has processes do, which import for seconds; all that they are sent can travel."""
    for item in items:
        sent_work, sent_item = pickle.loads(pickle.dumps((work, item)))
        yield pickle.loads(pickle.dumps(sent_work(sent_item)))


@pytest.fixture(scope="module", autouse=True)
def _in_one_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in SPREADING:
            patch.setattr(f"{module}.side_by_side", as_if_sent)
        yield


def write_params(run: Run) -> None:
    values = change(params_values(run.root), {"source": "node", "target_domains": ["node"]})
    values["domains"] = {"node": DOMAIN}
    values["slides"]["tissue"] |= {"smallest_speck": 0.001, "largest_hole": 0.001}
    run.params.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML


def evaluate(run: Run) -> None:
    tables = (run.scores, run.per_image, run.curves, run.matrix, run.adaptation)
    evaluate_ood.main(run.params, run.prepared, run.models, run.summary, *tables, run.slides, run.checkpoints)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = Run(tmp_path_factory.mktemp("slides"))
    node = found.prepared / "node"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELCAM_IMAGES", str(found.root / ".images"))
        write_params(found)
        prepare.main("node", found.params, node)
        train_teacher.main(found.params, node, found.teacher, found.checkpoints)
        extract_pseudo_labels.main(found.params, node, found.teacher, found.store, found.quality)
        train_pixelcam.main(found.params, node, found.store, found.teacher, found.pixelcam, found.checkpoints)
        evaluate(found)
        tables = (found.scores, found.per_image, found.curves, found.matrix, found.adaptation)
        pages = (found.report, found.overview, found.overlays, found.try_it)
        report.main(
            found.params, found.prepared, found.store, found.models, found.quality, *tables, found.slides, *pages
        )
    return found


def test_slides_were_rendered_with_a_table_of_them(run: Run) -> None:
    table = pd.read_csv(run.prepared / "node/slides/slides.csv", keep_default_na=False)
    assert table["split"].tolist() == ["train", "train", "val", "val", "test", "test"]
    assert [record.label for record in read_slides(run.prepared / "node")].count("metastatic") == 3


def test_every_model_maps_every_test_slide(run: Run) -> None:
    folders = sorted(path.parent.relative_to(run.slides).as_posix() for path in run.slides.rglob("slide.json"))
    assert folders == [f"node/{model}/slides/test_00{i}" for model in ("pixelcam", "teacher") for i in (0, 1)]
    assert not (run.checkpoints / "slides").exists()


def test_slides_have_scores(run: Run) -> None:
    scores = json.loads((run.slides / "slides.json").read_text(encoding="utf-8"))["node"]
    for model in ("teacher", "pixelcam"):
        assert (scores[model]["slides"], scores[model]["normal_slides"]) == (2, 1)
        assert 0 <= scores[model]["auroc"] <= 1
        assert 0 <= scores[model]["dice"] <= 1
    table = pd.read_csv(run.slides / "per_slide.csv")
    assert len(table) == 4
    of_evaluation = json.loads(run.scores.read_text(encoding="utf-8"))["node"]
    for model in ("teacher", "pixelcam"):
        (threshold,) = set(table.loc[table["model"] == model, "threshold"].tolist())
        assert threshold == pytest.approx(of_evaluation[model]["threshold"])


def test_what_experiments_are_compared_by_has_them(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    scores = json.loads((run.slides / "slides.json").read_text(encoding="utf-8"))["node"]
    summary = json.loads(run.summary.read_text(encoding="utf-8"))["node"]
    for model in ("teacher", "pixelcam"):
        assert summary[model]["slides_auroc"] == scores[model]["auroc"]
        assert summary[model]["slides_froc"] == scores[model]["froc"]
        assert summary[model]["slides_dice"] == scores[model]["dice"]
    results(run.scores, run.report)
    printed = capsys.readouterr().out
    assert "FROC" in printed
    assert f"{scores['pixelcam']['auroc']:.3f}" in printed


def test_the_page_shows_them(run: Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    assert 'id="slides"' in page
    assert "slides/test_000" in page
    assert "AUROC over slides" in page


def test_evaluating_again_gives_the_same_bytes(run: Run) -> None:
    before = digests(run.root / "metrics")
    evaluate(run)
    assert digests(run.root / "metrics") == before


def test_a_slide_of_the_domain_needs_no_mpp_by_hand(run: Run, tmp_path: Path) -> None:
    params = load_params(run.params)
    slide = run.prepared / "node/slides/test_000.tif"
    ((folder, about),) = map_slides(
        [slide],
        model=run.pixelcam,
        params=params,
        output=tmp_path,
        mpp=None,
        slide_mpp=None,
        threshold=0.0,
        scheduler=None,
        workers=1,
    )
    assert about["window"] == {"mpp": 1.0, "size": 64}
    assert about["scores"]["regions"] >= 1
    assert '"name": "metastatic"' in (folder / "regions.geojson").read_text(encoding="utf-8")
