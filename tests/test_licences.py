"""What docs/licences.md says of packages: each that PixelCAM stands on is there, and an Apache-2.0 work may use it."""

import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from imports import ROOT
from packaging.requirements import Requirement

PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-4.3TAHOE",
    "BSL-1.0",
    "CC0-1.0",
    "IJG",
    "ISC",
    "LicenseRef-Public-Domain",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "PSF-2.0",
    "Unlicense",
    "ZPL-2.1",
    "Zlib",
    "blessing",
    "libpng-2.0",
    "libtiff",
}
WEAK_COPYLEFT = {"MPL-2.0", "LGPL-2.1-only", "LGPL-2.1-or-later", "EPL-1.0", "EPL-2.0"}  # of their own files alone
BY_NAME = {  # what would not do for any package: docs/licences.md says why it does for these
    "GPL-2.0-only WITH linking-exception": r"pygit2",
    "LicenseRef-NVIDIA-Proprietary": r"nvidia-.+",
    "none named": r"cuda-toolkit",
}
SPELLINGS = {  # as metadata have them, in small letters
    "Apache-2.0": "apache 2.0/apache license/apache license 2.0/apache license, version 2.0/apache software license/"
    "apache software license 2.0",
    "BSD": "bsd license",
    "BSD-3-Clause": "new bsd/bsd 3-clause license/3-clause bsd license",
    "EPL-1.0 OR GPL-2.0-only": "gplv2 | eplv1",
    "GPL-2.0-only WITH linking-exception": "gplv2 with linking exception",
    "ISC": "isc license/isc license (iscl)",
    "LicenseRef-NVIDIA-Proprietary": "nvidia proprietary software",
    "MIT": "mit license",
    "MPL-2.0": "mozilla public license 2.0 (mpl 2.0)",
    "PSF-2.0": "psf/psfl/python software foundation license",
    "Unlicense": "the unlicense (unlicense)",
}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _spelled(text: str) -> str:
    """Return a licence as SPDX spells it, where its metadata spell it otherwise."""
    known = [licence for licence, spellings in SPELLINGS.items() if text.lower() in spellings.split("/")]
    return known[0] if known else text


def _first(package: Distribution, field: str) -> str:
    """Return a field of a package's metadata; empty where there is none, whichever library read them."""
    return str(next(iter(package.metadata.get_all(field, [])), ""))


def _licence(package: Distribution) -> str:
    """Return the licence that a package's metadata name, or what its licence file opens with."""
    metadata = package.metadata
    text = _first(package, "License").strip()
    classes = [each.split(" :: ")[-1] for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    classes = [each for each in classes if each != "OSI Approved"]
    if expression := _first(package, "License-Expression"):
        return expression
    if text and text not in ("UNKNOWN", "Dual License") and len(text) < 60:
        return _spelled(text)
    if classes:
        return " OR ".join(sorted(_spelled(each) for each in classes))
    files = [file for file in package.files or [] if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", str(file))]
    return _spelled(files[0].read_text(encoding="utf-8").split("\n")[0].strip()) if files else "none named"


def _table() -> dict[str, str]:
    """Return the packages of docs/licences.md with their licences; npm's are called npm:NAME."""
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| (`[^|]+`) \|$", page, flags=re.MULTILINE)
    return {name: licence for licence, packages in rows for name in re.findall(r"`([^`]+)`", packages)}


def _installed() -> Iterator[Distribution]:
    """Yield the packages that the project asks for, and those that they ask for, as far as they are installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    waiting = [Requirement(text) for text in texts if not text.startswith("pixelcam[")]
    seen = set()
    while waiting:
        asked = waiting.pop()
        if (key := (_plain(asked.name), *sorted(asked.extras))) in seen:
            continue
        seen.add(key)
        try:
            package = distribution(asked.name)
        except PackageNotFoundError:  # an extra of the project that is not installed here
            continue
        yield package
        for needed in map(Requirement, package.requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *asked.extras)):
                waiting.append(needed)


def _compatible(licence: str, package: str) -> bool:
    """Return whether an Apache-2.0 work may depend on a package: of alternatives one must do, of parts each."""
    if licence in BY_NAME:
        return re.fullmatch(BY_NAME[licence], package) is not None
    parts = re.split(r" AND (?![^(]*\))", licence)
    return all(set(part.strip("()").split(" OR ")) & (PERMISSIVE | WEAK_COPYLEFT) for part in parts)


def _fault(package: str, licence: str, table: dict[str, str]) -> str | None:
    if package not in table:
        return f"{package} ({licence}) is not in docs/licences.md"
    if licence != table[package]:
        return f"{package} is now {licence}, in docs/licences.md {table[package]}"
    return None if _compatible(licence, package) else f"{package}: {licence} does not go with Apache-2.0"


def test_every_installed_package_is_listed_with_its_licence_and_may_be_used() -> None:
    table = _table()
    found = {_plain(package.metadata["Name"]): _licence(package) for package in _installed()}
    assert len(found) > 150
    assert [fault for name, licence in sorted(found.items()) if (fault := _fault(name, licence, table))] == []


def test_every_package_of_npm_is_listed_with_its_licence_and_may_be_used() -> None:
    table = _table()
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    found = {name.replace("node_modules/", "npm:"): package["license"] for name, package in packages.items() if name}
    assert {"npm:onnxruntime-web", "npm:openseadragon"} <= set(found)
    assert [fault for name, licence in sorted(found.items()) if (fault := _fault(name, licence, table))] == []
    assert {name for name in table if name.startswith("npm:")} == set(found)


def test_the_list_holds_what_the_locks_hold_and_all_of_it_may_be_used() -> None:
    table = _table()
    locks = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "locks").glob("*.txt")))
    locked = {_plain(name) for name in re.findall(r"^([\w.-]+)==", locks, flags=re.MULTILINE)}
    assert {name for name in table if not name.startswith("npm:")} == locked
    assert [name for name, licence in table.items() if not _compatible(licence, name)] == []


@pytest.mark.parametrize(
    ("licence", "package", "may"),
    [
        ("MIT", "any", True),
        ("GPL-3.0-only", "any", False),
        ("EPL-2.0 OR GPL-2.0-or-later", "any", True),
        ("MIT AND GPL-2.0-only", "any", False),
        ("MIT AND (BSD-3-Clause OR GPL-2.0-only)", "any", True),
        ("LicenseRef-NVIDIA-Proprietary", "nvidia-cublas", True),
        ("LicenseRef-NVIDIA-Proprietary", "any", False),
        ("none named", "any", False),
    ],
)
def test_what_an_apache_work_may_depend_on(licence: str, package: str, may: bool) -> None:
    assert _compatible(licence, package) is may


def test_a_package_that_is_new_or_has_changed_its_licence_is_noticed() -> None:
    assert _fault("new", "MIT", {}) == "new (MIT) is not in docs/licences.md"
    assert "is now GPL-3.0-only" in str(_fault("old", "GPL-3.0-only", {"old": "MIT"}))
    assert "does not go with" in str(_fault("old", "GPL-3.0-only", {"old": "GPL-3.0-only"}))
    assert _fault("old", "MIT", {"old": "MIT"}) is None
