"""ONNX files: the model's own values in another program, what they say of themselves, and refusals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_nets import SIZE, THRESHOLD, images, largest_difference, pixelcam_network, teacher_network
from numpy.typing import NDArray
from tiny import Run

from pipeline.evaluation.prediction import load_model
from pipeline.export.checking import check_answers
from pipeline.export.network import MAP, PROBABILITIES, ExportedNetwork
from pipeline.export.onnx_file import Exported, export_onnx, session_of, to_onnx
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, ImageHeadName
from pipeline.runtime.files import sha256_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize(
    "make",
    [
        lambda: pixelcam_network("test_vit"),
        lambda: pixelcam_network(pixel_classes=3),
        lambda: pixelcam_network(views={"scales": (1.5,), "symmetries": 2, "margin": 0.5}),
        lambda: teacher_network(method=CamMethod.GRADCAM_PP),
        lambda: teacher_network(head=ImageHeadName.LSE, method=CamMethod.CAM),
    ],
    ids=["transformer", "maps of classes", "views", "gradients", "head"],
)
def test_a_file_says_what_the_network_says(make: Callable[[], ExportedNetwork]) -> None:
    network = make()
    assert largest_difference(network, session_of(to_onnx(network).SerializeToString())) < 1e-4


def test_several_images_at_once_are_answered_as_each_alone(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.model, providers=["CPUExecutionProvider"])
    both = np.stack(images([(50, 70), (50, 70)]))
    both[1] = 255 - both[1]
    probabilities, maps = session.run([PROBABILITIES, MAP], {"image": both})
    ask = session_of(exported.model)
    for index in range(2):
        alone = ask(both[index])
        np.testing.assert_allclose(alone[PROBABILITIES], probabilities[index], atol=1e-5)
        np.testing.assert_allclose(alone[MAP], maps[index], atol=1e-5)


def test_inputs_and_outputs_are_named_and_free_in_size(exported: Exported) -> None:
    graph = onnx.load_from_string(exported.model).graph
    shapes = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output)
    }
    assert shapes == {
        "image": ["batch", "height", "width", 3],
        "probabilities": ["batch", 2],
        "map": ["batch", "height", "width"],
    }
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_a_file_says_what_it_is_and_how_it_was_checked(exported: Exported, finished: Run) -> None:
    model = onnx.load_from_string(exported.model)
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert entry.key == "pixelcam"
    assert about == exported.metadata
    assert about["classes"] == ["benign", "malignant"]
    assert (about["kind"], about["domain"], about["input_size"]) == ("pixelcam", "home", SIZE)
    assert (about["threshold"], about["threshold_from"]) == (0.3, "validation")
    assert about["model_sha256"] == sha256_of(finished.pixelcam / "model.safetensors")
    assert about["check"]["images"] == 3
    assert about["check"]["sizes"] == ["40x90", "128x77", "64x64"]
    assert set(about["check"]["largest_difference"]) == {"probabilities", "map"}


def test_a_file_names_no_path_of_this_machine_and_has_the_same_bytes_again(exported: Exported, finished: Run) -> None:
    root = str(Path(__file__).parents[2])
    assert root.encode() not in exported.model
    assert b".py\x22" not in exported.model
    again = export_onnx(finished.pixelcam, params=load_params(finished.params), images=images(), threshold=THRESHOLD)
    assert again.model == exported.model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found | {MAP: found[MAP] + np.float32(2e-4)}, "the exported map differ by up to 0.0002"),
        (lambda found: found | {PROBABILITIES: found[PROBABILITIES] * np.nan}, "the exported probabilities differ"),
    ],
    ids=["shifted", "not a number"],
)
def test_an_export_that_says_something_else_is_refused(
    exported: Exported, finished: Run, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    honest = session_of(exported.model)

    def ask(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return change(honest(image))

    with pytest.raises(PixelCAMError, match=rf"{said}.*nothing was written"):
        check_answers(
            finished.pixelcam,
            load_model(finished.pixelcam, params=load_params(finished.params)),
            images=images(),
            ask=ask,
        )


def test_an_export_needs_images_to_be_checked_on(finished: Run) -> None:
    with pytest.raises(PixelCAMError, match="checked on real images"):
        check_answers(
            finished.pixelcam,
            load_model(finished.pixelcam, params=load_params(finished.params)),
            images=[],
            ask=lambda _: {},
        )


def test_what_onnx_has_no_word_for_is_refused_with_a_remedy() -> None:
    network = teacher_network(head=ImageHeadName.LSE, method=CamMethod.LAYERCAM)
    with pytest.raises(PixelCAMError, match=r"cannot be written as ONNX.*torch-export.*cam.method: cam"):
        to_onnx(network)


def test_without_its_packages_an_export_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(PixelCAMError, match=r"onnxscript.*pip install 'pixelcam\[export\]'"):
        to_onnx(pixelcam_network())
