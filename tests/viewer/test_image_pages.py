"""The pages over a finished run: what they show is what the run's own files and functions say."""

import sys
from base64 import b64decode
from dataclasses import replace
from html import unescape
from io import BytesIO
from pathlib import Path
from re import findall
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from local_page import client_of, names_in, site_of, write_prepared
from starlette.testclient import TestClient
from tiny import Run

from pipeline.commands.view import view
from pipeline.data.images import read_mask
from pipeline.data.maps import EvaluationBatch, resize_labels, resize_map
from pipeline.evaluation.prediction import load_model
from pipeline.models.pixelcam import PixelCAMLocalizer
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelClasses
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.pseudo_labels.thresholding import threshold_cam
from pipeline.report.overlays import colour_labels, colour_map
from pipeline.viewer.app import create_app
from pipeline.viewer.live_labels import Prepared, judge
from pipeline.viewer.site import Site

HOME = {"in": "labels", "image": "images/train_0.png"}
AWAY = {"in": "test-away", "image": "images/test_0.png"}  # of the class without any region of interest


@pytest.fixture(scope="module")
def site(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_of(finished, tmp_path_factory.mktemp("viewed"))


@pytest.fixture(scope="module")
def client(site: Site) -> TestClient:
    return client_of(site)


def picture_in(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(content)))


def labels_of(client: TestClient, **asked: object) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Return labels as a picture (H, W, 4), and their quality."""
    found = client.get("/api/labels", params={key: str(value) for key, value in asked.items()}).json()
    return picture_in(b64decode(found["picture"].removeprefix("data:image/png;base64,"))), found["quality"]


def test_the_grid_shows_a_domain_in_the_order_of_its_scores(client: TestClient, finished: Run) -> None:
    table = pd.read_csv(finished.per_image)
    own = table[(table["domain"] == "home") & (table["model"] == "pixelcam")]
    worst_first = own.sort_values(["dice", "image"])["image"].tolist()
    assert len(worst_first) == 3
    assert names_in(client.get("/images/test-home", params={"order": "pixelcam_dice"}).text) == worst_first
    malignant = own[own["label"] == "malignant"]["image"].tolist()
    assert names_in(client.get("/images/test-home", params={"label": "malignant"}).text) == malignant
    assert len(names_in(client.get("/images/labels").text)) == 6
    assert "None of 3 images is like that." in client.get("/images/test-home", params={"find": "nowhere"}).text


def test_an_image_leads_to_its_neighbours_in_that_order(client: TestClient) -> None:
    asked = {"order": "foreground_most"}
    names = names_in(client.get("/images/labels", params=asked).text)
    page = client.get("/image", params={"in": "labels", "image": names[1], **asked}).text
    linked = {kind: unescape(address) for kind, address in findall(r'rel="(\w+)" href="([^"]*)"', page)}
    assert f"<h1>{names[0]}</h1>" in client.get(linked["prev"]).text
    assert f"<h1>{names[2]}</h1>" in client.get(linked["next"]).text
    assert "2 of 6" in page


def test_with_the_runs_values_labels_are_those_of_the_store(client: TestClient, finished: Run) -> None:
    stored = PseudoLabelStore(finished.store).read(HOME["image"]).labels
    shown, _ = labels_of(client, **HOME)
    np.testing.assert_array_equal(shown, colour_labels(stored, size=stored.shape))


def test_a_moved_slider_cuts_by_the_stages_rule_and_counts_against_the_mask(client: TestClient, finished: Run) -> None:
    stored = PseudoLabelStore(finished.store).read(HOME["image"])
    cam = resize_map(torch.from_numpy(stored.cam.astype(np.float32))[None], stored.labels.shape)[0].numpy()
    expected = threshold_cam(cam, foreground_threshold=0.7, background_fraction=0.45)
    assert (expected != stored.labels).any()
    shown, quality = labels_of(client, **HOME, foreground_threshold=0.7, background_fraction=0.45)
    np.testing.assert_array_equal(shown, colour_labels(expected, size=expected.shape))
    mask = read_mask(finished.root / "raw/home/masks/train_0.png")
    truth = resize_labels(torch.from_numpy(mask), expected.shape).numpy()
    found = expected == 1
    assert quality["precision"]["foreground"] == pytest.approx((found & truth).sum() / found.sum(), abs=1e-6)
    assert quality["recall"]["background"] == pytest.approx(((expected == 0) & ~truth).sum() / (~truth).sum(), abs=1e-6)
    assert quality["share"]["ignore"] == pytest.approx((expected == 255).mean(), abs=1e-6)


def test_labels_that_are_called_by_class_count_as_foreground_and_keep_their_colours() -> None:
    labels = torch.tensor([[[0, 2, 255, 2]]], dtype=torch.uint8)
    batch = EvaluationBatch(
        image_ids=("a",),
        images=torch.empty(1, 3, 0, 0),
        class_idx=torch.tensor([1]),
        masks=torch.tensor([[[False, True, True, False]]]),
        has_mask=torch.tensor([True]),
    )
    prepared = Prepared(torch.zeros(1, 1, 4), batch, is_background=False)
    judged = judge(labels, prepared, classes=("benign", "malignant"), pixel_classes=PixelClasses.IMAGE_CLASSES)
    assert judged.labels.tolist() == [[0, 2, 255, 2]]
    assert judged.quality["share"] == {"background": 0.25, "foreground": 0.5, "ignore": 0.25}
    assert judged.quality["precision"] == {"background": 1, "foreground": 0.5}
    assert judged.quality["recall"] == {"background": 0.5, "foreground": 0.5}


@pytest.mark.parametrize("value", ["0", "1", "-1", "nan", "much", ""])
def test_a_threshold_that_is_none_is_a_sentence(client: TestClient, value: str) -> None:
    answer = client.get("/api/labels", params={**HOME, "foreground_threshold": value})
    assert answer.status_code == 422
    assert answer.json()["error"] == f"foreground_threshold must lie in (0, 1), got '{value}'"


def test_the_class_without_a_region_is_background_whatever_its_cam(client: TestClient) -> None:
    _, quality = labels_of(client, **AWAY, foreground_threshold=0.01)
    assert quality["share"] == {"background": 1, "foreground": 0, "ignore": 0}
    assert quality["precision"]["background"] == 1
    assert "background throughout" in client.get("/image", params=AWAY).text


def test_the_map_is_the_models_and_is_computed_once(
    client: TestClient, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = finished.root / "raw/home" / HOME["image"]
    predicted = load_model(finished.pixelcam, params=load_params(finished.params)).predict([image])[0].map
    shown = picture_in(client.get("/api/layer/pixelcam", params=HOME).content)
    expected = colour_map(predicted, size=(60, 72))
    assert shown.shape == (60, 72, 3)
    assert np.abs(shown.astype(int) - expected).mean() < 2, "maps are kept as float16, and enlarged by another program"
    monkeypatch.setattr(PixelCAMLocalizer, "__call__", None)
    assert client.get("/api/layer/pixelcam", params=HOME).status_code == 200


def test_a_mask_is_an_outline_and_where_there_is_none_it_is_said(client: TestClient, tmp_path: Path) -> None:
    shown = picture_in(client.get("/api/layer/mask", params=HOME).content)
    assert shown.shape == (60, 72, 4)
    assert 0 < (shown[..., 3] > 0).mean() < 0.5
    bare = client_of(write_prepared(tmp_path, ["a.png"]))
    answer = bare.get("/api/layer/mask", params={"in": "test-home", "image": "a.png"})
    assert answer.json() == {"error": "this image has no mask"}


def test_what_is_missing_is_told_in_words(site: Site, tmp_path: Path) -> None:
    bare = client_of(write_prepared(tmp_path, ["a.png"]))
    answer = bare.get("/api/layer/pixelcam", params={"in": "test-home", "image": "a.png"})
    assert answer.status_code == 422
    assert "models/pixelcam/model.json" in answer.json()["error"]
    assert "run evaluate_ood" in bare.get("/images/test-home").text
    (tmp_path / "raw/home/a.png").write_bytes(b"other")
    assert "a.png" in bare.get("/api/layer/image", params={"in": "test-home", "image": "a.png"}).json()["error"]
    page = bare.get("/images/nothing")
    assert page.status_code == 404
    assert "there is no such collection of images here" in page.text
    nothing = Site(site.params, replace(site.files, prepared=tmp_path / "none", store=tmp_path / "none"))
    with pytest.raises(PixelCAMError, match="holds no prepared domain of these params"):
        create_app(nothing, port=1, token="secret")


def test_an_image_is_set_aside_and_taken_back(client: TestClient, site: Site) -> None:
    row = {"domain": "home", "image": HOME["image"], "verdict": "corrected", "label": "malignant", "note": " a disc "}
    assert client.post("/api/review", json=row).json()["count"] == 1
    assert site.files.review.read_text(encoding="utf-8").splitlines()[1] == (
        "home,images/train_0.png,corrected,malignant,a disc"
    )
    assert names_in(client.get("/images/labels", params={"verdict": "corrected"}).text) == [HOME["image"]]
    assert "corrected to malignant" in client.get("/image", params=HOME).text
    assert f"domains.home.review: {site.files.review}" in client.get("/review").text
    assert client.post("/api/review", json={"domain": "home", "image": HOME["image"]}).json()["count"] == 0
    assert "No image is set aside" in client.get("/review").text


def test_a_run_opens_while_its_review_goes_on(site: Site, tmp_path: Path) -> None:
    """Elsewhere a domain whose review has changed since it was prepared is refused."""
    files = replace(site.files, review=tmp_path / "review.csv")
    files.review.write_text("domain,image,verdict\nhome,images/test_0.png,leave_out\n", encoding="utf-8")
    home = site.params.domains["home"].model_copy(update={"review": files.review})
    params = site.params.model_copy(update={"domains": site.params.domains | {"home": home}})
    client = client_of(Site(params, files))
    assert names_in(client.get("/images/test-home", params={"verdict": "leave_out"}).text) == ["images/test_0.png"]
    assert "domains.home.review" not in client.get("/review").text


def test_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch, finished: Run) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.viewer.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(PixelCAMError, match=r"uvicorn is not installed; pip install 'pixelcam\[view\]'"):
        view(params=finished.params)
