"""A domain of 100,000 images: a page reads no image at all, and each thumbnail is made once."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("starlette")

from local_page import client_of, names_in, write_prepared

from pipeline.data.manifest import Manifest, ManifestRow
from pipeline.viewer import pictures

COUNT = 100_000


def test_pages_of_100_000_images_read_none_and_thumbnails_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = write_prepared(tmp_path, ["image_0.png"])
    table = tmp_path / "data/prepared/home/manifest.csv"
    header, row = table.read_text(encoding="utf-8").splitlines()
    sha256 = row.split(",")[header.split(",").index("image_sha256")]
    rows = (row.replace("image_0.png", f"image_{n}.png").replace(sha256, f"{n:064}") for n in range(COUNT))
    table.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    (tmp_path / "metrics").mkdir()
    scores = (
        f"home,{model},image_{n}.png,benign,1,{n / COUNT}" for model in ("teacher", "pixelcam") for n in range(COUNT)
    )
    columns = "domain,model,image,predicted_class,confidence,dice"
    (tmp_path / "metrics/per_image.csv").write_text("\n".join((columns, *scores)) + "\n", encoding="utf-8")
    read: list[str] = []

    def read_row(manifest: Manifest, row: ManifestRow) -> NDArray[np.uint8]:
        assert len(manifest) == COUNT
        read.append(row.image)
        return np.zeros((8, 8, 3), dtype=np.uint8)

    monkeypatch.setattr(pictures, "read_row", read_row)
    client = client_of(site)
    page = client.get("/images/test-home", params={"order": "pixelcam_dice_best", "page": "2"})
    expected = [f"image_{n}.png" for n in range(COUNT - 61, COUNT - 121, -1)]
    assert names_in(page.text) == expected
    assert len(page.content) < 200_000
    one = client.get("/image", params={"in": "test-home", "image": expected[0], "order": "pixelcam_dice_best"})
    assert f"61 of {COUNT}" in one.text
    assert read == []
    for _ in range(2):
        for name in expected:
            assert client.get("/api/thumbnail", params={"in": "test-home", "image": name}).status_code == 200
    assert read == expected
