"""params.yaml: the shipped file is valid, and every fault is told with its key, what was expected and what came."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import ROOT
from pydantic import ValidationError

from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import GlasDomain, SyntheticDomain, TableDomain
from pipeline.params.vocabulary import Tissue

SHIPPED = ROOT / "params.yaml"


def _set(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key, creating nothing on the way."""
    *folders, last = key.split(".")
    for name in folders:
        values = values[name]
    values[last] = value


def _write(folder: Path, changes: Mapping[str, object]) -> Path:
    values = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        _set(values, key, value)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_the_shipped_file_is_valid() -> None:
    params = load_params(SHIPPED)
    colon, glas, ebhi_seg = (params.domains[name] for name in ("colon", "glas", "ebhi_seg"))
    assert isinstance(colon, SyntheticDomain)
    assert colon.tissue is Tissue.COLON
    assert colon.background_class_idx is None
    assert params.domains["lymph_node"].background_class_idx == 0
    assert isinstance(glas, GlasDomain)
    assert isinstance(ebhi_seg, TableDomain)


def test_params_are_frozen() -> None:
    params = load_params(SHIPPED)
    with pytest.raises(ValidationError):
        params.seed = 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed: Input should be greater than or equal to 0, got -1"),
        ("encoder", "", "encoder.name: .*got ''"),
        ("target_domains", [], r"target_domains: .*got \[\]"),
        ("domains.colon.image_size", 32, "domains.colon.image_size: .*greater than or equal to 64, got 32"),
        ("domains.colon.tissue", "liver", "domains.colon.tissue: .*'colon' or 'lymph_node', got 'liver'"),
        ("domains.colon.images.val", 0, "domains.colon.images.val: .*greater than or equal to 1, got 0"),
        ("domains.colon.classes", ["benign"], "domains.colon.classes: .*at least 2"),
        ("domains.colon.adapter", "dicom", "domains.colon: .*'synthetic', 'glas', 'splits', 'table'"),
        ("domains.glas.test_fraction", 1.2, "domains.glas.test_fraction: .*less than or equal to 1, got 1.2"),
        ("domains.glas.adapt_fraction", 1.0, "domains.glas.adapt_fraction: .*less than 1, got 1.0"),
        ("domains.colon.laboratory", "mine", "domains.colon.laboratory: .*'home' or 'away', got 'mine'"),
        (
            "domains.glas.shared_patients",
            "some",
            "domains.glas.shared_patients: .*'reject' or 'allow', got 'some'",
        ),
        ("model.output_stride", 4, "model.output_stride: .*8, 16 or 32, got 4"),
        ("model.input_size", None, "model.input_size: .*got None"),
        ("augmentation.hue", 0.6, "augmentation.hue: .*less than or equal to 0.5, got 0.6"),
        ("train_teacher.learning_rate", 0, "train_teacher.learning_rate: .*greater than 0, got 0"),
        ("train_teacher.learning_rate", float("inf"), "train_teacher.learning_rate: .*finite number, got inf"),
        ("train_teacher.optimizer", "adam", "train_teacher.optimizer: .*'adamw' or 'sgd', got 'adam'"),
        ("extract_pseudo_labels.background_fraction", 1.4, "extract_pseudo_labels.background_fraction: .*got 1.4"),
        ("target_domains", ["colon", "a b"], "target_domains.1: String should match pattern .*got 'a b'"),
        ("domains.colon.seed", -1, "domains.colon.seed: .*greater than or equal to 0, got -1"),
        ("domains.colon.colour", 1, "domains.colon.colour: is not a parameter"),
        ("evaluate_ood.resamples", 99, "evaluate_ood.resamples: .*100, got 99"),
        ("evaluate_ood.map_size", [], r"evaluate_ood.map_size: .*got \[\]"),
        ("report", 6, "report: .*got 6"),
    ],
)
def test_every_fault_names_its_key(tmp_path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(PixelCAMError, match=rf"params\.yaml: 1 value\(s\) need mending\n  {message}"):
        load_params(_write(tmp_path, {key: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "liver"}, "'liver' is named as a domain but not described under domains"),
        ({"target_domains": ["lymph_node"]}, "target_domains must contain the source 'colon'"),
        ({"target_domains": ["colon", "colon"]}, "target_domains must not repeat a name"),
        (
            {"source": "lymph_node", "domains.colon.classes": ["a", "b", "c"]},
            "domain 'colon' has 3 classes and the source 'lymph_node' has 2",
        ),
        ({"domains.colon.classes": ["benign", "benign"]}, "classes must differ from each other"),
        ({"domains.colon.classes": ["background", "gland"]}, "a class of this name must be the background_class"),
        ({"domains.colon.classes": list("abcd")}, "'colon' is painted in up to 3 classes, got 4"),
        ({"domains.lymph_node.classes": ["normal", "b", "c"]}, "'lymph_node' is painted in up to 2 classes, got 3"),
        (
            {
                "source": "glas",
                "target_domains": ["glas"],
                "domains.glas.classes": [f"grade {number}" for number in range(255)],
                "model.pixel_classes": "image_classes",
            },
            "takes up to 254 classes, since the label 255 means ignore, and the source 'glas' has 255",
        ),
        ({"domains.glas.val_fraction": 0.9}, r"val_fraction \+ test_fraction must be at most 1"),
        (
            {"train_pixelcam.approach": "two_step", "train_pixelcam.initialization": "encoder_weights"},
            "freezes the teacher",
        ),
        ({"train_pixelcam.redraw": False, "train_pixelcam.loss_resolution": "feature"}, "loss_resolution: full"),
        ({"cam.method": "tscam", "cam.layers": [-1, -2]}, r"cam: method 'tscam' makes one map.*set layers: \[-1\]"),
        ({"cam.method": "sat"}, "reads the map of image_head sat, and model.image_head is 'gap'"),
        ({"rounds": {"pixelcam": "teacher"}}, "'pixelcam' is the name of another model"),
        ({"rounds": {"round_3": "round_2"}}, "'round_3' learns from 'round_2', which must be one of pixelcam"),
        ({"source": "lymph_node"}, r"'lymph_node' is the source, which.*-S '~adaptation\.lymph_node'"),
        ({"target_domains": ["colon"]}, r"'lymph_node' must be one of target_domains.*-S '~adaptation\.lymph_node'"),
        ({"rounds": {"round_2": "pixelcam"}}, "'pixelcam' is not the model of the last round; set it to round_2"),
        (
            {"domains.lymph_node.background_class": None},
            r"adaptation\.lymph_node\.evidence: 'pixels' tells.*no background_class; give it one",
        ),
        ({"evaluate_ood.test_time": ["batch_norm", "none"]}, "'batch_norm' first would adapt adapted models once more"),
        ({"bounds": ["colon"]}, "bounds: 'colon' is the source"),
        ({"bounds": ["lymph_node", "lymph_node"]}, "bounds must not repeat a name"),
        (
            {"source": "glas", "target_domains": ["glas"], "adaptation": {}, "domains.glas.adapt_fraction": 0.5},
            r"domains\.glas\.adapt_fraction: moves test images to train.*set it to 0\.0",
        ),
        ({"encoder": {"name": "resnet18", "weights": "mine.pth"}}, "or a file that ends with .safetensors"),
    ],
)
def test_values_that_do_not_fit_together(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PixelCAMError, match=message):
        load_params(_write(tmp_path, changes))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError) as caught:
        load_params(_write(tmp_path, {"seed": -1, "report.images_per_domain": 0, "model.size": 3}))
    lines = str(caught.value).split("\n")
    assert "3 value(s) need mending" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["seed", "model.size", "report.images_per_domain"]


def test_an_encoder_can_be_given_by_its_name_alone(tmp_path: Path) -> None:
    encoder = load_params(_write(tmp_path, {"encoder": "resnet18"})).encoder
    assert (encoder.name, encoder.weights) == ("resnet18", "auto")
    local = load_params(_write(tmp_path, {"encoder": {"name": "resnet18", "weights": "mine.safetensors"}})).encoder
    assert local.weights == Path("mine.safetensors")


def test_the_last_round_is_the_final_model(tmp_path: Path) -> None:
    assert load_params(_write(tmp_path, {})).final_model == "pixelcam"
    rounds = {"round_2": "pixelcam", "round_3": "round_2"}
    assert load_params(_write(tmp_path, {"rounds": rounds, "adaptation": {}})).final_model == "round_3"


@pytest.mark.parametrize("section", list(Params.model_fields))
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    values = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    del values[section]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(PixelCAMError, match=f"  {section}: Field required"):
        load_params(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [1", "is not valid YAML"),
        (b"seed: \xff", "is not valid YAML"),
        (b"", "expected a mapping of sections, got NoneType"),
    ],
)
def test_files_that_are_no_mapping(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(PixelCAMError, match=message) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"absent\.yaml: cannot be read .*run from the project's root"):
        load_params(tmp_path / "absent.yaml")


def test_rates_as_pyyaml_leaves_them(tmp_path: Path) -> None:
    """PyYAML reads `1e-4` as text, which is how people write it."""
    path = _write(tmp_path, {"train_teacher.weight_decay": "1e-4"})
    assert load_params(path).train_teacher.weight_decay == 0.0001
