"""A prepared domain is read back from its folder alone, except for where its files lie."""

from pathlib import Path

import pytest
from imports import ROOT
from tiny import Run, make_row, prepare_domains, write_images

from pipeline.data.manifest import Split, read_domain, write_manifest
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError


def test_a_prepared_domain_is_read_back(started: Run) -> None:
    prepare_domains(started)
    params = load_params(started.params)
    home = read_domain("home", params, started.prepared / "home")
    assert home.name == "home"
    assert home.classes == ("benign", "malignant")
    assert home.background_class_idx is None
    assert home.manifest.root == started.root / "raw/home"
    assert [len(home.manifest.of_split(split)) for split in Split] == [6, 2, 3]
    assert read_domain("away", params, started.prepared / "away").background_class_idx == 0


def test_classes_are_those_that_were_prepared(started: Run) -> None:
    prepare_domains(started)
    path = started.prepared / "home/classes.json"
    path.write_text('{"background_class_idx": 1, "classes": ["a", "b", "c"]}', encoding="utf-8")
    home = read_domain("home", load_params(started.params), started.prepared / "home")
    assert home.classes == ("a", "b", "c")
    assert home.background_class_idx == 1


def test_a_generated_domain_has_its_images_in_its_folder(tmp_path: Path) -> None:
    shipped = load_params(ROOT / "params.yaml")
    folder = tmp_path / "colon"
    write_images(folder, [])
    (folder / "1.png").write_bytes(b"")
    write_manifest([make_row("1.png", root=folder)], folder / "manifest.csv")
    (folder / "classes.json").write_text('{"background_class_idx": null, "classes": ["a", "b"]}', encoding="utf-8")
    assert read_domain("colon", shipped, folder).manifest.root == folder


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"classes": 3, "background_class_idx": null}'])
def test_damaged_classes_are_named_with_the_remedy(started: Run, content: str | None) -> None:
    prepare_domains(started)
    path = started.prepared / "home/classes.json"
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=r"classes\.json: cannot be read .*dvc repro -f prepare@home"):
        read_domain("home", load_params(started.params), started.prepared / "home")


def test_a_missing_manifest_is_named(started: Run) -> None:
    prepare_domains(started)
    (started.prepared / "home/manifest.csv").unlink()
    with pytest.raises(PixelCAMError, match=r"manifest\.csv: cannot be read as a manifest"):
        read_domain("home", load_params(started.params), started.prepared / "home")


def test_an_unknown_domain_is_named(started: Run) -> None:
    with pytest.raises(PixelCAMError, match="there is no 'moon'"):
        read_domain("moon", load_params(started.params), started.prepared / "moon")
