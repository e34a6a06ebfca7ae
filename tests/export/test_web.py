"""The page of a model as files: what it holds, what its policy allows, and what is said where something is missing."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export import web
from pipeline.export.node_packages import node_package
from pipeline.export.onnx_file import Exported
from pipeline.export.web import BINARY, INDEX, LICENCES, SCRIPT, example_image, pack, render_page, write_web
from pipeline.params.errors import PixelCAMError

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('x')</script>\"&"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder like that of the npm package."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "1.2.3"}', encoding="utf-8")
    (folder / SCRIPT).write_text("export const a = 1;", encoding="utf-8")
    (folder / BINARY).write_bytes(bytes(range(256)))
    return folder


def written(folder: Path, exported: Exported, runtime: Path) -> dict[str, bytes]:
    """Write the page and return its files by their paths."""
    folder.mkdir()
    write_web(folder, model=exported.model, metadata=exported.metadata, runtime=runtime)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack(files: dict[str, bytes], paths: list[str]) -> bytes:
    """Return what scripts hand to the page."""
    texts = [files[path].decode("ascii") for path in paths]
    parts = [re.fullmatch(r'receivePiece\("(.*)", "(.*)"\);\n', text) for text in texts]
    assert [part.group(1) for part in parts if part] == paths
    return gzip.decompress(b"".join(base64.b64decode(part.group(2)) for part in parts if part))


def facts_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', html)
    assert found is not None
    facts: dict[str, Any] = json.loads(found.group(1))
    return facts


def test_the_folder_holds_model_and_engine_in_pieces_and_has_the_same_bytes_again(
    exported: Exported, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PIECE", 100_000)
    files = written(tmp_path / "page", exported, runtime)
    paths = facts_of(files[INDEX].decode())["files"]
    assert len(paths["model"]) > 1
    assert unpack(files, paths["model"]) == exported.model
    assert unpack(files, paths["runtime"]) == b"export const a = 1;"
    assert unpack(files, paths["wasm"]) == bytes(range(256))
    assert set(files) == {INDEX, LICENCES, *paths["model"], *paths["runtime"], *paths["wasm"]}
    assert b"onnxruntime-web 1.2.3" in files[LICENCES]
    assert b"Permission is hereby granted, free of charge" in files[LICENCES]
    assert written(tmp_path / "again", exported, runtime) == files


def test_scripts_are_named_by_what_they_hold() -> None:
    names = {piece.path for content in (b"one", b"other") for piece in pack("model", content)}
    assert len(names) == 2


def test_the_policy_lets_the_page_run_its_scripts_and_connect_to_nothing(exported: Exported) -> None:
    html = render_page(exported.metadata, {}, exported.model)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.group(1).split("; ")}
    (nonce,) = re.findall(r'<script nonce="(\w+)">', html)
    assert rules == {
        "default-src": ["'none'"],
        "script-src": [f"'nonce-{nonce}'", "'wasm-unsafe-eval'", "blob:"],
        "style-src": [f"'nonce-{nonce}'"],
        "img-src": ["blob:", "data:"],
        "worker-src": ["blob:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    assert "http:" not in html
    assert "https:" not in html


def test_names_from_outside_stay_text(exported: Exported) -> None:
    metadata = exported.metadata | {"domain": HOSTILE, "classes": [HOSTILE, "b"], "encoder": HOSTILE}
    html = render_page(metadata, {}, exported.model)
    assert html.count("<script") == 2, "the facts and the script"
    assert "<script>alert" not in html
    assert facts_of(html)["classes"] == [HOSTILE, "b"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("validation", "The threshold 0.300 is the best on validation masks of home."),
        ("mask_free", "The threshold 0.300 is read from validation maps of home, without masks."),
        ("fixed", "The threshold 0.300 is fixed, and fitted to no images."),
    ],
)
def test_the_page_says_where_its_threshold_is_from(exported: Exported, source: str, said: str) -> None:
    assert said in render_page(exported.metadata | {"threshold_from": source}, {}, exported.model)


def test_an_integer_model_may_be_off_by_more(exported: Exported) -> None:
    quantized = exported.metadata | {"quantization": {}}
    tolerances = [
        facts_of(render_page(each, {}, exported.model))["example"]["tolerance"]
        for each in (exported.metadata, quantized)
    ]
    assert tolerances == [1e-3, 0.1]


def test_the_example_is_the_one_that_the_page_makes() -> None:
    image = example_image(24, 40)
    assert image.shape == (24, 40, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [0, 29, 58]
    assert image[2, 3, 1] == 82  # 7 x + 13 y + 29 + x y
    assert image[20, 39, 2] == 91  # 1371 - 5 * 256


def test_a_package_that_is_missing_or_not_whole_is_named_with_the_remedy(
    exported: Exported, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PixelCAMError, match=r"node_modules/onnxruntime-web: .*npm ci"):
        node_package("onnxruntime-web")
    (runtime / BINARY).unlink()
    with pytest.raises(PixelCAMError, match=r"asyncify\.wasm: .*npm ci"):
        write_web(tmp_path, model=exported.model, metadata=exported.metadata, runtime=runtime)


def test_packages_of_npm_are_pinned_with_their_checksums_and_no_host() -> None:
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    packages = {path: about for path, about in locked.items() if path}
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [path for path, about in packages.items() if not about["integrity"].startswith("sha512-")] == []
    assert [path for path, about in packages.items() if "resolved" in about] == []
