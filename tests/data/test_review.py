"""What a person set aside is left out or corrected by `prepare`, wrong lines are refused, and changes noticed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import Run, digests

from pipeline.data.manifest import PreparedDomain, read_domain
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from stages import prepare

HEADER = "domain,image,verdict,label,note\n"
# Images 0, 2, 4 of a split are benign, the others malignant. Benign is the background class of `away`: empty masks.


@pytest.fixture
def run(started: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose domains are both reviewed by `review.csv` in the working folder."""
    monkeypatch.chdir(started.root)
    _set_review(started, "review.csv")
    return started


def _set_review(run: Run, path: str | None) -> None:
    values: dict[str, Any] = yaml.safe_load(run.params.read_text(encoding="utf-8"))
    for domain in values["domains"].values():
        domain["review"] = path
    run.params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _write(run: Run, *lines: str) -> None:
    (run.root / "review.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def _prepare(run: Run, domain: str = "home") -> PreparedDomain:
    prepare.main(domain, run.params, run.prepared / domain)
    return read_domain(domain, load_params(run.params), run.prepared / domain)


def _labels(domain: PreparedDomain) -> dict[str, tuple[str, int]]:
    return {Path(row.image).stem: (row.label, row.class_idx) for row in domain.manifest.rows}


def test_images_are_left_out_and_corrected(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _write(run)
    whole = _prepare(run)
    _write(
        run,
        'home,images/train_0.png,leave_out,,"out of focus, says Ada"',
        "home,images/test_2.png,corrected,malignant,",
        "away,images/test_0.png,leave_out,,",
    )
    home = _prepare(run)
    assert _labels(home) == {
        name: ("malignant", 1) if name == "test_2" else label
        for name, label in _labels(whole).items()
        if name != "train_0"
    }
    assert {row.image: row.split for row in home.manifest.rows}.items() <= {
        row.image: row.split for row in whole.manifest.rows
    }.items()
    assert "review.csv: images left out: 1; taken as of another class: 1" in capsys.readouterr().err
    assert (run.prepared / "home/review.csv").read_text(encoding="utf-8") == (
        "image,verdict,label\nimages/test_2.png,corrected,malignant\nimages/train_0.png,leave_out,\n"
    )


def test_a_review_that_says_nothing_of_a_domain_changes_no_byte(run: Run) -> None:
    _write(run, "away,images/test_0.png,leave_out,,")
    _prepare(run)
    reviewed = digests(run.prepared / "home")
    _set_review(run, None)
    _prepare(run)
    assert digests(run.prepared / "home") == reviewed
    assert set(reviewed) == {"classes.json", "manifest.csv"}


def test_no_other_image_changes_sides(run: Run) -> None:
    table = run.root / "raw/home/table.csv"
    table.write_text(re.sub(",[a-z]+$", "", table.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(run.params.read_text(encoding="utf-8"))
    values["domains"]["home"] |= {"val_fraction": 0.2, "test_fraction": 0.4}  # drawn, since the table names no split
    run.params.write_text(yaml.safe_dump(values), encoding="utf-8")
    _write(run)
    drawn = {row.image: row.split for row in _prepare(run).manifest.rows}
    assert len(set(drawn.values())) == 3
    _write(run, "home,images/train_1.png,leave_out,,", "home,images/train_2.png,corrected,malignant,")
    left = {row.image: row.split for row in _prepare(run).manifest.rows}
    assert left == {image: split for image, split in drawn.items() if image != "images/train_1.png"}


def test_an_image_that_cannot_be_read_may_be_left_out(run: Run) -> None:
    (run.root / "raw/home/images/val_0.png").write_bytes(b"no image")
    _write(run, "home,images/val_0.png,leave_out,,")
    assert "val_0" not in _labels(_prepare(run))


def test_an_empty_mask_goes_with_the_background_class_and_a_mask_that_marks_something_stays(run: Run) -> None:
    masks = run.root / "raw/away/masks"
    (masks / "test_2.png").write_bytes((masks / "test_1.png").read_bytes())  # benign in the table, and marked
    _write(run, "away,images/test_0.png,corrected,malignant,", "away,images/test_2.png,corrected,malignant,")
    rows = {row.image: row for row in _prepare(run, "away").manifest.rows}
    assert (rows["images/test_0.png"].mask, rows["images/test_0.png"].mask_sha256) == ("", "")
    assert rows["images/test_2.png"].mask == "masks/test_2.png"
    assert rows["images/test_0.png"].class_idx == rows["images/test_2.png"].class_idx == 1


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (
            ["away,images/test_1.png,corrected,benign,"],
            ["line 2: 'images/test_1.png' cannot be of the background class 'benign': its mask masks/test_1.png marks"],
        ),
        (
            ["away,images/test_9.png,leave_out,,", "away,../home/images/test_0.png,leave_out,,"],
            [
                "line 2: there is no image 'images/test_9.png' in this domain; mend its name, or remove the line",
                "line 3: there is no image '../home/images/test_0.png'",
            ],
        ),
        (
            ["away,images/test_0.png,corrected,cancer,", "away,images/test_1.png,corrected,,"],
            [
                "line 2: 'images/test_0.png' is corrected: expected a label out of benign, malignant, got 'cancer'",
                "line 3: 'images/test_1.png' is corrected: expected a label out of benign, malignant, got ''",
            ],
        ),
        (
            ["away,images/test_0.png,drop,,", "away,images/test_1.png,leave_out,benign,"],
            [
                "line 2: expected a verdict out of leave_out, corrected, got 'drop'; mend it",
                "line 3: 'images/test_1.png' is left out and has the label 'benign' all the same",
            ],
        ),
        (
            ["away,images/test_0.png,leave_out,,", "away,images/test_0.png,leave_out,,"],
            ["line 3: 'images/test_0.png' stands in line 2 too; keep one of them"],
        ),
        (
            ["aways,images/test_0.png,leave_out,,"],
            ["line 2: there is no domain 'aways' (there are: away, home); mend it"],
        ),
    ],
)
def test_a_line_that_fits_nothing_is_refused(run: Run, lines: Sequence[str], faults: Sequence[str]) -> None:
    _write(run, *lines)
    with pytest.raises(PixelCAMError) as caught:
        _prepare(run, "away")
    assert str(caught.value).startswith(f"review.csv: {len(faults)} fault(s) to mend")
    for fault in faults:
        assert fault in str(caught.value)
    assert not (run.prepared / "away").exists()


def test_a_review_that_is_missing_is_named(run: Run) -> None:
    with pytest.raises(PixelCAMError, match=r"review\.csv: cannot be read"):
        _prepare(run)


def test_preparing_does_not_replace_the_review(run: Run) -> None:
    table = run.prepared / "home/mine.csv"
    table.parent.mkdir(parents=True)
    table.write_text(HEADER, encoding="utf-8")
    _set_review(run, str(table))
    with pytest.raises(PixelCAMError, match=r"would be replaced; choose another output"):
        _prepare(run)
    assert table.exists()


def test_stages_notice_that_images_were_reviewed_since(run: Run) -> None:
    params, folder = load_params(run.params), run.prepared / "home"
    _write(run, "home,images/train_0.png,leave_out,,")
    _prepare(run)
    _write(run, "away,images/test_0.png,leave_out,,", "home,images/train_0.png,leave_out,,the same with a note")
    assert "train_0" not in _labels(read_domain("home", params, folder))
    _write(run, "home,images/train_0.png,corrected,malignant,")
    with pytest.raises(PixelCAMError, match=r"review\.csv: has changed when .*run 'dvc repro -f prepare@home'"):
        read_domain("home", params, folder)
    assert len(read_domain("home", params, folder, as_reviewed=False).manifest) == 10
    assert _labels(_prepare(run))["train_0"] == ("malignant", 1)
    _set_review(run, None)
    with pytest.raises(PixelCAMError, match=r"domains\.home\.review is null, but .*run 'dvc repro -f prepare@home'"):
        read_domain("home", load_params(run.params), folder)
    assert json.loads((folder / "classes.json").read_text(encoding="utf-8"))["classes"] == ["benign", "malignant"]
