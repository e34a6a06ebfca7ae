"""The soak's own parts: what it draws is what the schema allows, and what it looks for it finds."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from pydantic import ValidationError
from tiny import ROOT

from checks.soak.base import commit, mend, read_shipped, run_git, tiny_params
from checks.soak.draws import Disturbance, Draw, How, draw_run
from checks.soak.inspecting import names_its_cause, orphans, partial_files, sentences, traces
from checks.soak.summary import summarize
from checks.soak.values import Leaf, draw_value, leaves
from checks.soak.warm import MARK
from pipeline.params.config import Params

BASE = tiny_params(read_shipped(ROOT / "params.yaml"), raw=Path("/raw"))


@pytest.fixture(scope="module")
def draws() -> list[Draw]:
    return [draw_run(0, number, BASE) for number in range(120)]


def test_draws_are_what_the_schema_allows_and_most_fit_together(draws: list[Draw]) -> None:
    kinds: Counter[str] = Counter()
    for draw in draws:
        try:
            Params.model_validate(draw.values)
            kinds["valid"] += 1
        except ValidationError as error:
            kinds.update({fault["type"] for fault in error.errors()})
    assert set(kinds) == {"valid", "value_error"}  # the latter are the rules between values, which no schema knows
    assert kinds["valid"] > 0.9 * len(draws)


def test_draws_go_everywhere(draws: list[Draw]) -> None:
    assert {draw.how for draw in draws} == set(How)
    assert {draw.disturbance for draw in draws} == set(Disturbance)
    changed = {change.lstrip("+~").split(".")[0].split("=")[0] for draw in draws for change in draw.overrides}
    assert changed == set(BASE)


def test_a_value_is_changed_alone() -> None:
    assert "&id001" not in yaml.safe_dump(BASE), "two params are one and the same object"


def test_the_same_number_draws_the_same_and_another_does_not(draws: list[Draw]) -> None:
    assert draw_run(0, 7, BASE) == draws[7] != draws[8]
    assert draw_run(1, 7, BASE) != draws[7]


def test_a_value_keeps_to_its_range() -> None:
    by_name = {leaf.address: leaf for leaf in leaves(BASE)}
    source = random.Random(0)

    def drawn(*address: str) -> list[object]:
        leaf: Leaf = by_name[address]
        return [draw_value(source, leaf) for _ in range(200)]

    hues = [value for value in drawn("augmentation", "hue") if isinstance(value, float)]
    assert (min(hues), max(hues), len(hues)) == (0, 0.5, 200)
    shares = [value for value in drawn("extract_pseudo_labels", "foreground_threshold") if isinstance(value, float)]
    assert 0 < min(shares) < 1e-8
    assert 1 - 1e-8 < max(shares) < 1
    assert set(map(str, drawn("model", "output_stride"))) == {"8", "16", "32", "None"}
    assert {2**64, 0} <= set(drawn("seed"))


def test_overrides_make_the_drawn_params_as_dvc_reads_them(tmp_path: Path, draws: list[Draw]) -> None:
    path = tmp_path / "params.yaml"
    for draw in draws[:8]:
        path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
        apply_overrides(path, list(draw.overrides))
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert written == yaml.safe_load(yaml.safe_dump(draw.values)), draw.overrides


def test_a_planted_partial_file_is_found(tmp_path: Path) -> None:
    for name in ("models/.teacher.partial/model.json", "metrics/scores.json", ".dvc/tmp/.x.partial"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert partial_files(tmp_path) == ["models/.teacher.partial"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_planted_orphan_is_found_by_its_session_and_by_its_mark() -> None:
    sleeping = [sys.executable, "-c", "input()"]
    with subprocess.Popen(sleeping, env={MARK: "planted"}, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert [found.split(":")[0] for found in orphans(["planted"], [])] == [str(process.pid)]
            assert [found.split(":")[0] for found in orphans([], [process.pid])] == [str(process.pid)]
        finally:
            process.kill()
    assert orphans(["planted"], [process.pid]) == []


def test_a_planted_traceback_is_found_and_sentences_are_read() -> None:
    said = (
        "Running stage 'report':\nTraceback (most recent call last):\n  File 'x', line 1\nKeyError: 'a'\n"
        "error: params.yaml: 2 value(s) need mending\n  seed: must be positive\n  cam: unknown\nERROR: failed\n"
    )
    assert traces(said) == ["Traceback (most recent call last): | KeyError: 'a'"]
    assert sentences(said) == ["params.yaml: 2 value(s) need mending\n  seed: must be positive\n  cam: unknown"]
    assert names_its_cause("lower train_teacher.batch_size", {"batch_size"})
    assert not names_its_cause("something went wrong", {"batch_size"})


def test_the_summary_counts_and_lists_every_fault() -> None:
    run = {"number": 4, "how": "dvc repro", "disturbance": "none", "doctor": "valid", "end": "through"}
    run |= {"stages": 2, "cpu": 30.0, "compared": False, "mended": ["git on no branch"], "faults": ["an orphan: 7"]}
    table = summarize([run, run | {"faults": []}, {"end_faults": ["a partial file: x"]}], seconds=60)
    assert "| none | 2 | 2 through |" in table
    assert "as pixelcam doctor advises: 2 git on no branch" in table
    assert "faults: 2\n- 4: an orphan: 7\n- at the end: a partial file: x" in table


def test_what_dvc_leaves_that_is_killed_is_mended(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet")
    run_git(tmp_path, "config", "user.name", "soak")
    run_git(tmp_path, "config", "user.email", "soak@localhost")
    record, whole = tmp_path / "dvc.lock", "schema: '2.0'\nstages: {}\n"
    record.write_text(whole, encoding="utf-8")
    commit(tmp_path, "first")
    run_git(tmp_path, "checkout", "--quiet", "--detach")
    for content in ("", whole[:-4]):
        (tmp_path / ".git/index.lock").touch()
        record.write_text(content, encoding="utf-8")
        assert mend(tmp_path)[-1] == "dvc.lock half-written"
        assert mend(tmp_path) == []
        assert record.read_text(encoding="utf-8") == whole
    assert run_git(tmp_path, "symbolic-ref", "--short", "HEAD").strip() in ("main", "master")
