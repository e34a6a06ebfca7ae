"""What a person sets aside, in a table that `prepare` reads: a row for each image, written whole or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import pandas as pd

from pipeline.data.manifest import is_writable
from pipeline.data.review import COLUMNS, OPTIONAL, REQUIRED, Verdict
from pipeline.data.text_rows import read_rows, read_text
from pipeline.params.errors import PixelCAMError, named, shown
from pipeline.runtime.files import write_csv

LONGEST_NOTE: Final = 1000  # characters
REMEDY: Final = "mend the table, or move it away to begin anew"


@dataclass(frozen=True)
class Reviewed:
    """A row of the table: an image by its domain and its id, the verdict, the class it is corrected to, and a note."""

    domain: str
    image: str
    verdict: Verdict
    label: str = ""
    note: str = ""


Key = tuple[str, str]  # domain and image


class ReviewTable:
    """The table on disk, read again whenever something else has changed it; may be used in any thread.

    Args:
        path: the CSV file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._seen: tuple[int, int] | None = None  # time of change and size
        self._rows: dict[Key, Reviewed] = {}

    def rows(self) -> Mapping[Key, Reviewed]:
        """Return all rows by domain and image, in the order of the table.

        Raises:
            PixelCAMError: the table is damaged; the message names the line.
        """
        with self._lock:
            return self._read()

    def verdicts(self, domain: str) -> dict[str, str]:
        """Return the verdicts on a domain's images."""
        return {image: row.verdict.value for (of, image), row in self.rows().items() if of == domain}

    def put(self, row: Reviewed) -> None:
        """Write a row, in place of the one that the image has, if any.

        Raises:
            PixelCAMError: a text that no table can hold, a verdict without its label, or a damaged table, which stays.
        """
        for name in ("domain", "image", "label", "note"):
            if not is_writable(getattr(row, name)):
                raise PixelCAMError(f"{name}: expected plain text, got control characters")
        if len(row.note) > LONGEST_NOTE:
            raise PixelCAMError(f"note: expected at most {LONGEST_NOTE} characters, got {len(row.note)}")
        if (row.verdict is Verdict.CORRECTED) != bool(row.label):
            raise PixelCAMError(f"label: expected a class where an image is corrected alone, got {shown(row.label)}")
        self._change(lambda rows: rows.__setitem__((row.domain, row.image), row))

    def remove(self, domain: str, image: str) -> None:
        """Remove the row of an image; nothing happens where there is none."""
        self._change(lambda rows: rows.pop((domain, image), None))

    def _change(self, change: Callable[[dict[Key, Reviewed]], object]) -> None:
        with self._lock:
            rows = dict(self._read())
            change(rows)
            table = pd.DataFrame([astuple(row) for row in rows.values()], columns=list(COLUMNS))
            write_csv(self.path, table)
            self._rows, self._seen = rows, self._stamp()

    def _read(self) -> dict[Key, Reviewed]:
        if (stamp := self._stamp()) != self._seen:
            self._rows = {} if stamp is None else _read_table(self.path)
            self._seen = stamp
        return self._rows

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size


def _read_table(path: Path) -> dict[Key, Reviewed]:
    """Return a table that `prepare` would take too; one with more columns is refused, since they would be lost."""
    lines = read_rows(path, required=REQUIRED, optional=OPTIONAL)
    strange = [column for column in read_text(path).splitlines()[0].split(",") if column.strip(' "') not in COLUMNS]
    if strange:
        raise PixelCAMError(f"{path}: has the column {named(strange[0])}, which would be lost; {REMEDY}")
    rows: dict[Key, Reviewed] = {}
    for line, values in lines:
        if values["verdict"] not in list(Verdict):
            known = " or ".join(Verdict)
            came = shown(values["verdict"])
            raise PixelCAMError(f"{path}, line {line}: expected the verdict {known}, got {came}; {REMEDY}")
        key = values["domain"], values["image"]
        rows[key] = Reviewed(*key, Verdict(values["verdict"]), values.get("label", ""), values.get("note", ""))
    return rows
