"""What docs/security.md says of code and set-up: nothing runs foreign code, versions are bounded and pinned."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
from imports import ROOT

RUNS_CODE = {"pickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
MODULES = [path for folder in ("pipeline", "stages") for path in sorted((ROOT / folder).rglob("*.py"))]


def _calls(source: str, called: str) -> Iterator[dict[str, object]]:
    """Yield the keyword arguments, as far as they are constants, of every call of a function named as in the source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == called:
            yield {
                str(keyword.arg): keyword.value.value if isinstance(keyword.value, ast.Constant) else keyword.value
                for keyword in node.keywords
            }


def _faults(source: str) -> list[str]:
    """Return what a module does that could run code out of a file or a text."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        faults += [f"imports {name}" for name in names if name.split(".")[0] in RUNS_CODE]
    for called, argument, safe in (("torch.load", "weights_only", True), ("np.load", "allow_pickle", False)):
        faults += [called for given in _calls(source, called) if given.get(argument) is not safe]
    for called in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "os.system"):
        faults += [called for _ in _calls(source, called)]
    faults += ["shell" for given in _calls(source, "subprocess.run") if given.get("shell", False) is not False]
    return faults


def test_no_module_runs_code_that_comes_with_data() -> None:
    assert len(MODULES) > 80
    found = {path.name: _faults(path.read_text(encoding="utf-8")) for path in MODULES}
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "eval(text)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_what_would_run_code_is_noticed(source: str) -> None:
    assert len(_faults(source)) == 1


def _requirements() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"run": project["dependencies"], **project["optional-dependencies"]}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_dependencies_are_bounded_and_the_set_up_pins_every_one() -> None:
    for requirement in _requirements()["run"]:
        assert re.search(r"<|==|~=", requirement), f"{requirement}: has no upper bound"
    pins = _pins()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", pin) for pin in pins)
    pinned = {_plain(pin.split("==")[0]) for pin in pins}
    wanted = [re.split(r"[<>=~!\[; ]", requirement)[0] for each in _requirements().values() for requirement in each]
    wanted = [name for name in wanted if name != "pixelcam"]  # which asks for extras of its own
    assert {_plain(name) for name in wanted} <= pinned
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def _locked(name: str) -> dict[str, list[str]]:
    """Return the pins of a lock with the hashes that their files may have, each line of it accounted for."""
    lines = (ROOT / "locks" / name).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for line in (line for line in lines if not line.startswith("#")):
        if pin := re.fullmatch(r"([\w.-]+==[\w.+]+)( ; [^\\]+)? \\", line):
            hashes = found.setdefault(pin[1], [])
        else:
            digest = re.fullmatch(r" {4}--hash=sha256:([0-9a-f]{64})( \\)?", line)
            assert digest is not None, f"{name}: {line}"
            hashes.append(digest[1])
    return found


def test_the_locks_hold_every_pin_with_hashes() -> None:
    packages, index, cpu, build = (_locked(f"{name}.txt") for name in ("packages", "index", "cpu", "build"))
    locked = {**packages, **index, **cpu, **build}
    assert [pin for pin, hashes in locked.items() if not hashes or len(set(hashes)) < len(hashes)] == []
    torch = [pin for pin in _pins() if pin.startswith("torch==")]
    assert {_plain(pin) for pin in packages} == {_plain(pin) for pin in _pins() if pin not in torch}, "run make lock"
    assert set(torch) <= set(index)
    assert list(cpu) == [f"{torch[0]}+cpu"], "locks/cpu.txt is kept by hand"
    assert [pin.split("==")[0] for pin in build] == ["setuptools"]
