"""A params.yaml with rubbish in it: each refusal names the parameter, what was expected, what came, and the remedy."""

from pathlib import Path

import pytest
import yaml
from rubbish import refusal, write_good
from tiny import ROOT, change

from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.reading import read_sections

SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")


def _load(folder: Path, text: str | bytes) -> None:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    load_params(path)


def _with(key: str, value: object) -> str:
    return yaml.safe_dump(change(yaml.safe_load(SHIPPED), {key: value}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_teacher.step", 3, "train_teacher.step: is not a parameter; remove it or mend its spelling"),
        ("seed", True, "seed: Input should be a valid integer, got True"),
        ("seed", "7", "seed: Input should be a valid integer, got '7'"),
        ("train_teacher.steps", 4.5, "train_teacher.steps: Input should be a valid integer.*, got 4.5"),
        ("train_teacher.steps", [45], r"train_teacher.steps: Input should be a valid integer, got \[45\]"),
        ("train_teacher.weight_decay", True, "train_teacher.weight_decay: Input should be a number, got True"),
        ("train_teacher.weight_decay", "1e-4x", "train_teacher.weight_decay: Input should be a valid number.*'1e-4x'"),
        ("augmentation.flip", 1, "augmentation.flip: Input should be a valid boolean, got 1"),
        ("augmentation.flip", "yes", "augmentation.flip: Input should be a valid boolean, got 'yes'"),
        ("cam.layers", ["last"], "cam.layers.0: Input should be a valid integer, got 'last'"),
        ("domains.colon.classes", [True, False], "domains.colon.classes.0: Input should be a valid string, got True"),
        ("train_teacher.steps", 0, "train_teacher.steps: Input should be greater than or equal to 1, got 0"),
        ("cam.scales", [9.0], "cam.scales.0: Input should be less than or equal to 4, got 9.0"),
        ("train_teacher.weight_decay", float("nan"), "train_teacher.weight_decay: .*finite number, got nan"),
        (
            "domains.colon.background_class",
            "stroma",
            r"domains.colon: background_class must be null or one of \['benign', 'malignant'\], got 'stroma'",
        ),
    ],
)
def test_values_are_refused_by_their_name(tmp_path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(PixelCAMError, match=message):
        _load(tmp_path, _with(key, value))


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001"])
def test_rates_may_be_written_as_people_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.replace("weight_decay: 0.01", f"weight_decay: {text}"), encoding="utf-8")
    assert load_params(path).train_teacher.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SHIPPED + "\nseed: 3\n",
            r"is not valid YAML: the key 'seed' stands twice; keep one\n.*line \d+, column 1",
        ),
        (
            SHIPPED.replace("  input_size: 320", "  input_size: 320\n  input_size: 64"),
            "the key 'input_size' stands twice",
        ),
        (SHIPPED.replace("seed: 0", "seed:\t\t- 0: [", 1), r"is not valid YAML: (.*\n)*.*line 11, column"),
        ("[" * 1000, "is not valid YAML: it is nested too deeply; restore the file"),
        ("seed: 2026-13-45\n", "is not valid YAML: month must be in 1..12; mend that place"),
        ("? [1, 2]\n: 3\n? {a: 1}\n: 2\n", r"is not valid YAML: (.*\n)*found unhashable key"),
        ("seed: !!python/object/apply:os.system [true]\n", "is not valid YAML: could not determine a constructor"),
        (b"\x00\x01", "is not valid YAML"),
        ("- seed\n", r"expected a mapping of sections, got list; restore the file, or take one of presets/"),
        ("a: &a [*a]\n", r"value\(s\) need mending\n(.*\n)*  a: is not a parameter"),
        ("seed: &a [*a]\n", r"value\(s\) need mending\n(.*\n)*  seed: Input should be a valid integer, got \["),
    ],
    ids=[
        "twice",
        "twice below",
        "broken",
        "deep",
        "no date",
        "no key",
        "no code",
        "bytes",
        "list",
        "cycle",
        "in itself",
    ],
)
def test_files_that_are_no_params_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(PixelCAMError, match=message) as caught:
        _load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/params.yaml: ")


def test_a_value_that_would_grow_without_end_is_cut(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for new, old in zip("bcdefghijk", "abcdefghij", strict=True):
        lines.append(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]")
    with pytest.raises(PixelCAMError) as caught:
        _load(tmp_path, "\n".join([*lines, "seed: *k"]))
    assert len(str(caught.value)) < 100_000


def test_keys_that_a_merge_brings_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: &a {p: 1, q: 2}\nb:\n  <<: *a\n  p: 3\n", encoding="utf-8")
    assert read_sections(path) == {"a": {"p": 1, "q": 2}, "b": {"p": 3, "q": 2}}


def test_the_program_refuses_them_in_a_sentence(tmp_path: Path) -> None:
    told = refusal(write_good(tmp_path), {"domains.home.val_fraction": 0.9, "domains.home.test_fraction": "lots"})
    assert (
        "domains.home.test_fraction: Input should be a valid number, unable to parse string as a number, got 'lots'"
        in told
    )
