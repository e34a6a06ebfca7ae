"""The table of images that are set aside: what is written, and that nothing of a person's is lost."""

from pathlib import Path

import pytest

pytest.importorskip("starlette")

from tiny import tiny_params

from pipeline.data.review import Verdict, read_review
from pipeline.params.errors import PixelCAMError
from pipeline.viewer.review import Reviewed, ReviewTable

HEADER = "domain,image,verdict,label,note\n"


def test_an_image_has_one_row_and_undo_removes_it(tmp_path: Path) -> None:
    table = ReviewTable(tmp_path / "review.csv")
    assert table.rows() == {}
    table.put(Reviewed("home", "a.png", Verdict.LEAVE_OUT, note='blurred, "very"'))
    table.put(Reviewed("home", "b.png", Verdict.LEAVE_OUT))
    table.put(Reviewed("away", "a.png", Verdict.LEAVE_OUT))
    table.put(Reviewed("home", "b.png", Verdict.CORRECTED, "malignant"))
    table.remove("away", "a.png")
    table.remove("away", "never.png")
    assert table.path.read_text(encoding="utf-8") == (
        HEADER + 'home,a.png,leave_out,,"blurred, ""very"""\nhome,b.png,corrected,malignant,\n'
    )
    assert table.verdicts("home") == {"a.png": "leave_out", "b.png": "corrected"}
    assert [path.name for path in tmp_path.iterdir()] == ["review.csv"]


def test_prepare_reads_what_is_written(tmp_path: Path) -> None:
    table = ReviewTable(tmp_path / "review.csv")
    table.put(Reviewed("home", "a.png", Verdict.LEAVE_OUT, note="ä, b"))
    table.put(Reviewed("home", "b.png", Verdict.CORRECTED, "malignant"))
    table.put(Reviewed("away", "a.png", Verdict.LEAVE_OUT))
    review = read_review("home", tiny_params(tmp_path, {"domains.home.review": str(table.path)}))
    assert review is not None
    assert review.verdicts == {("a.png", "leave_out", ""), ("b.png", "corrected", "malignant")}


def test_what_another_program_writes_is_seen_and_kept(tmp_path: Path) -> None:
    table = ReviewTable(tmp_path / "review.csv")
    table.put(Reviewed("home", "a.png", Verdict.LEAVE_OUT))
    table.path.write_text(HEADER + "home,by hand.png,leave_out,,\n", encoding="utf-8")
    table.put(Reviewed("home", "c.png", Verdict.LEAVE_OUT))
    assert list(table.verdicts("home")) == ["by hand.png", "c.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEADER + "home,a.png,delete,,\n", "line 2: expected the verdict leave_out or corrected, got 'delete'"),
        ("domain,image,verdict,label,note,reader\nhome,a.png,leave_out,,,me\n", "column reader, which would be lost"),
        ("image\na.png\n", "lacks the column domain"),
        (HEADER + "home,a.png\n", "expected 5 fields"),
    ],
)
def test_a_damaged_table_is_told_and_never_replaced(tmp_path: Path, text: str, reason: str) -> None:
    table = ReviewTable(tmp_path / "review.csv")
    table.path.write_text(text, encoding="utf-8")
    for use in (table.rows, lambda: table.put(Reviewed("home", "b.png", Verdict.LEAVE_OUT))):
        with pytest.raises(PixelCAMError, match=reason):
            use()
    assert table.path.read_text(encoding="utf-8") == text
