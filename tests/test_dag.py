"""dvc.yaml against the code: each stage depends on what it runs and reads, and on little besides."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
import zarr
from dvc.repo import Repo
from imports import PACKAGES, ROOT, import_closure
from jinja2 import Environment, FileSystemLoader, meta

from pipeline.models.pixelcam import load_pixelcam
from pipeline.params.adaptation import AdaptationParams
from pipeline.params.config import Params, load_params
from pipeline.params.reading import read_checked
from pipeline.report.page import TEMPLATES

STAGES = (
    "prepare",
    "train_teacher",
    "extract_pseudo_labels",
    "train_pixelcam",
    "repeat",
    "adapt",
    "bound",
    "evaluate_ood",
    "model_cards",
    "report",
)
ON_REQUEST = ("repeat", "adapt", "bound")  # which of them there are the params say
CHAIN = tuple(name for name in STAGES[1:] if name not in ON_REQUEST)  # what runs by default, after prepare
WITH_NETS = tuple(name for name in CHAIN[1:] if name != "model_cards")  # what comes after it and calls a model
SCORED = ["evaluate_ood", "model_cards", "report"]  # what a new model leads to
ADAPTED = "adapt@lymph_node"  # and what runs by default besides
ROUNDS = {"extract_round": "extract_pseudo_labels", "train_round": "train_pixelcam"}  # the same programs again
DAG: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def _stage(name: str) -> dict[str, Any]:
    """Return a stage's description; of a stage per domain, that of any domain."""
    stage: dict[str, Any] = DAG[name]
    described: dict[str, Any] = stage.get("do", stage)
    return described


def _outs(stage: dict[str, Any]) -> list[str]:
    outs = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


def test_the_stages_are_the_designs() -> None:
    assert tuple(name for name in DAG if name not in ROUNDS) == STAGES
    assert DAG["prepare"]["foreach"] == "${target_domains}"
    assert DAG["repeat"]["foreach"] == "${seeds}"
    assert DAG["adapt"]["foreach"] == "${adaptation}"
    assert DAG["bound"]["foreach"] == "${bounds}"


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_does_what_the_first_one_did_from_another_model_into_other_outputs(name: str) -> None:
    assert DAG[name]["foreach"] == "${rounds}"
    first, again = _stage(ROUNDS[name]), _stage(name)
    assert again["params"] == ["pixelcam_map" if param == "cam" else param for param in first["params"]]

    def renamed(text: str) -> str:
        for old, new in (("models/teacher", "models/${item}"), ("models/pixelcam", "models/${key}")):
            text = text.replace(old, new)
        return text.replace("pseudo_labels.zarr", "pseudo_labels_${key}.zarr").replace(
            "labels.json", "labels_${key}.json"
        )

    assert again["cmd"] == renamed(first["cmd"])
    assert again["deps"] == [renamed(path) for path in first["deps"]]
    assert _outs(again) == [renamed(path) for path in _outs(first)]


def _covers(listed: str, file: str) -> bool:
    return file == listed or file.startswith(f"{listed}/")


def _code(name: str) -> list[str]:
    return [path for path in _stage(name)["deps"] if path.split("/")[0] in ("pipeline", "stages")]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_it_imports_and_on_no_room_beside(name: str) -> None:
    imported = {file for file in import_closure(ROOT / "stages" / f"{name}.py") if not file.endswith("__init__.py")}
    listed = _code(name)
    assert [file for file in sorted(imported) if not any(_covers(path, file) for path in listed)] == []
    assert [path for path in listed if not any(_covers(path, file) for file in imported)] == []
    assert [path for path in listed if sum(_covers(other, path) for other in listed) > 1] == [], "listed twice"
    assert all((ROOT / path).exists() for path in listed)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_rooms_in_their_order(name: str) -> None:
    rooms = [PACKAGES.index(path.split("/")[1]) for path in _code(name) if path.startswith("pipeline/")]
    assert rooms == sorted(rooms)


def test_the_dag_stays_readable() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 200


def _templates(name: str) -> set[str]:
    """Return a template and all that it loads."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    source = (TEMPLATES / name).read_text(encoding="utf-8")
    loaded = {found for found in meta.find_referenced_templates(environment.parse(source)) if found}
    return {name}.union(*(_templates(found) for found in loaded))


def test_the_reports_templates_are_all_used() -> None:
    assert _templates("report.html.j2") == {path.name for path in TEMPLATES.iterdir()}
    assert any(_covers(path, TEMPLATES.relative_to(ROOT).as_posix()) for path in _code("report"))


def test_a_repeated_chain_depends_on_all_that_the_first_chain_depends_on() -> None:
    chain = ("train_teacher", "extract_pseudo_labels", "train_pixelcam", "extract_round", "train_round")
    params = {"rounds"}.union(*(_stage(name)["params"] for name in chain))
    whole = {param for param in params if not any(param.startswith(f"{other}.") for other in params)}
    assert set(_stage("repeat")["params"]) == whole
    needed = {path for name in chain for path in _code(name) if path.startswith("pipeline/")}
    assert [path for path in sorted(needed) if not any(_covers(listed, path) for listed in _code("repeat"))] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_command_names_its_dependencies_and_outputs(name: str) -> None:
    stage = _stage(name)
    command = stage["cmd"].split()
    assert command[:3] == ["python", "-m", f"stages.{name}"]
    keeps_states = ("train_teacher", "train_pixelcam", *ON_REQUEST, "evaluate_ood")
    assert (".checkpoints" in command) == (name in keeps_states)
    paths = {word for word in command[3:] if "/" in word or word == "models"}
    data = {path for path in stage["deps"] if path.split("/")[0] not in ("pipeline", "stages")}
    assert paths == data | set(_outs(stage))


def test_every_dependency_is_made_by_a_stage() -> None:
    made = {out for name in STAGES for out in _outs(_stage(name))}
    for name in STAGES:
        for path in _stage(name)["deps"]:
            of_rounds = path == "models" or "${item" in path
            if not path.startswith(("pipeline/", "stages/", "data/prepared")) and not of_rounds:
                assert path in made, f"{name} depends on {path}, which no stage makes"


def test_every_section_of_the_params_is_a_parameter_of_a_stage_and_the_other_way_round() -> None:
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    listed = {param.split(".")[0] for name in STAGES for param in _stage(name)["params"]}
    assert listed == sections == set(Params.model_fields)


SECTION = ROOT / "presets/adaptation.yaml"  # the one preset that is a section, and no whole params.yaml
PRESETS = sorted(set((ROOT / "presets").glob("*.yaml")) - {SECTION})


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PRESETS], ids=lambda p: p.name)
def test_params_and_presets_are_valid(path: Path) -> None:
    assert load_params(path).source


def test_the_preset_of_adapting_is_valid() -> None:
    assert read_checked(AdaptationParams, SECTION).steps


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_one_function(name: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8"))
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign))]
    assert [node.name for node in defined if isinstance(node, ast.FunctionDef)] == ["main"]
    assert len(defined) == 1


# --- DVC itself, in a repository of its own -------------------------------------------------------------------------

TINY = {
    "domains": {
        name: {"images": {"train": 4, "val": 2, "test": 2}, "image_size": 64} for name in ("colon", "lymph_node")
    },
    "encoder": {"name": "test_efficientnet", "weights": "random"},
    "model": {"input_size": 64},
    "train_teacher": {"steps": 2, "batch_size": 2},
    "train_pixelcam": {"steps": 2, "batch_size": 2, "pixel_loss_weight": 1.0},
    "evaluate_ood": {"map_size": 64},
    "adaptation": {"lymph_node": {"steps": 2, "batch_size": 2}},
    "report": {"images_per_domain": 1},
}


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return values | {
        key: _merge(values[key], change) if isinstance(change, dict) else change for key, change in changes.items()
    }


class _Repository:
    """A copy of the project's pipeline with tiny parameters, under git, with DVC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("pipeline", "stages"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        (root / ".dvc").mkdir()
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
            shutil.copy(ROOT / name, root / name)
        self.set_params(TINY, of=ROOT / "params.yaml")
        self.run("git", "init", "-q")
        self.run("git", "add", ".")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")

    def set_params(self, changes: dict[str, Any], *, of: Path | None = None) -> None:
        """Change params.yaml."""
        path = self.root / "params.yaml"
        values = yaml.safe_load((of or path).read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(_merge(values, changes), sort_keys=False), encoding="utf-8")

    def run(self, *command: str) -> str:
        """Run a command with this Python first on the path, and return what it printed."""
        folder = str(Path(sys.executable).parent)
        environment = os.environ | {"PATH": os.pathsep.join((folder, os.environ["PATH"])), "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self) -> list[str]:
        """Run `dvc repro` and return the stages that it ran."""
        ran = re.findall(r"Running stage '([^']+)'", self.run(sys.executable, "-m", "dvc", "repro"))
        if set(ran[-2:]) == set(SCORED[1:]):  # neither waits for the other
            ran[-2:] = SCORED[1:]
        return ran

    def changed(self) -> set[str]:
        """Return the stages that DVC finds changed by themselves; those that follow them are not among them."""
        with Repo(str(self.root)) as repo:
            return set(repo.status())


EDITS = {  # a file, and the stages of the default that depend on it
    "pipeline/params/config.py": ("prepare@colon", "prepare@lymph_node", ADAPTED, *CHAIN),
    "pipeline/synthetic/stains.py": ("prepare@colon", "prepare@lymph_node"),
    "pipeline/cams/gradient.py": (ADAPTED, *WITH_NETS),
    "pipeline/encoders/pixel_heads.py": (ADAPTED, *WITH_NETS),
    "pipeline/training/loop.py": ("train_teacher", "train_pixelcam", ADAPTED),
    "pipeline/training/teacher.py": ("train_teacher", "train_pixelcam", ADAPTED),
    "pipeline/training/losses.py": ("train_pixelcam", ADAPTED),
    "pipeline/training/pixelcam.py": ("train_pixelcam", ADAPTED),
    "pipeline/adaptation/methods.py": (ADAPTED,),
    "pipeline/pseudo_labels/thresholding.py": ("extract_pseudo_labels", "train_pixelcam", ADAPTED, "report"),
    "pipeline/metrics/pixel_histogram.py": ("train_teacher", "train_pixelcam", ADAPTED, *SCORED),
    "pipeline/metrics/curves.py": SCORED,
    "pipeline/evaluation/tables.py": ("evaluate_ood", "report"),
    "pipeline/export/model_card_sections.py": ("model_cards", "report"),
    "pipeline/report/wording.py": ("report",),
    "pipeline/report/templates/report.css": ("report",),
    "pipeline/commands/cli.py": (),
    "pipeline/__init__.py": (),
}
CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # values, and the stages of the default that read them
    "how a model is adapted": ({"adaptation": {"lymph_node": {"method": "tent"}}}, (ADAPTED, *SCORED)),
    "how PixelCAM learns": (
        {"train_pixelcam": {"pixel_loss_weight": 0.5}},
        ("train_pixelcam", ADAPTED, "model_cards", "report"),
    ),
    "how the page looks": ({"report": {"images_per_domain": 2}}, ("report",)),
    "a bound": ({"bounds": ["lymph_node"]}, ("bound@lymph_node", "evaluate_ood", "report")),
}
EVERYTHING = {  # what params may ask for besides
    "adaptation": {"lymph_node": {"model": "round_2"}},  # and not with the rounds one by one
    "model": {"pixel_head": "hypercolumn"},
    "rounds": {"round_2": "pixelcam"},
    "bounds": ["lymph_node"],
    "seeds": [1],
}


@pytest.mark.slow
def test_dvc_reruns_what_has_changed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # DVC names stages of another folder by their path
    repository = _Repository(tmp_path)
    assert sorted(repository.repro()) == sorted(["prepare@colon", "prepare@lymph_node", ADAPTED, *CHAIN])
    assert repository.changed() == set()
    for name in CHAIN:
        assert all((tmp_path / out).exists() for out in _outs(_stage(name)))
    assert repository.run("git", "status", "--porcelain") == "?? dvc.lock\n", "git sees bytes that DVC should hold"
    _edit_files(repository)
    _edit_params(repository)

    repository.set_params(EVERYTHING)
    ran = repository.repro()
    assert set(ran[:-3]) == {
        *("train_pixelcam", "extract_round@round_2", "train_round@round_2", "repeat@1", "bound@lymph_node", ADAPTED)
    }
    assert ran[-3:] == SCORED
    assert repository.changed() == set()
    assert "The pixel head is a hypercolumn" in (tmp_path / "reports/index.html").read_text(encoding="utf-8")
    store = zarr.open_group(tmp_path / "data/pseudo_labels_round_2.zarr", mode="r")
    assert store.attrs["cam_method"] == "pixelcam"
    models = {"round_2": "colon", "seed_1/round_2": "colon", "bound_lymph_node/pixelcam": "lymph_node"}
    assert {name: load_pixelcam(tmp_path / "models" / name)[1].domain for name in models} == models


def _edit_files(repository: _Repository) -> None:
    """Edit one file after the other, and ask DVC what is to run again."""
    (repository.root / "pipeline/training/__pycache__").mkdir(exist_ok=True)
    (repository.root / "pipeline/training/__pycache__/loop.pyc").write_bytes(b"not the code")
    assert repository.changed() == set()
    for name, expected in EDITS.items():
        path = repository.root / name
        before = path.read_text(encoding="utf-8")
        path.write_text(before + "\n", encoding="utf-8")
        assert repository.changed() == set(expected), name
        path.write_text(before, encoding="utf-8")


def _edit_params(repository: _Repository) -> None:
    """Change one value after the other, and ask DVC what is to run again."""
    path = repository.root / "params.yaml"
    before = path.read_text(encoding="utf-8")
    for name, (changes, expected) in CHANGES.items():
        repository.set_params(changes)
        assert repository.changed() == set(expected), name
        path.write_text(before, encoding="utf-8")
