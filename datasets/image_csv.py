"""A table of a user's images: a CSV with the columns path, label and perhaps split. See docs/own_images.md."""

import csv
import io
import os
import unicodedata
from typing import Any

from .own_images import PARTS, Found, OwnImages, first, nfc


class ImageCSV(OwnImages):
    """The images that ``DATASET.CSV`` lists, by paths relative to the folder it lies in; DATASET.ROOT plays no part."""

    folder = "."  # the table's

    def configure(self, cfg: Any) -> None:
        """See :meth:`PromptDataset.configure`."""
        super().configure(cfg)
        table = cfg.DATASET.get("CSV", "")
        self.table = table and os.path.abspath(os.path.expanduser(os.path.expandvars(table)))

    def find(self) -> list[Found]:
        """See :meth:`OwnImages.find`."""
        rows = read_table(self.table)
        split = "split" in rows[0][1]
        found: list[Found] = []
        lines: dict[str, int] = {}
        missing = []
        for number, row in rows:
            path, where = self._on_disk(row["path"]), f"{self.table}, line {number}"
            if path is None:
                missing.append(f"{row['path']} (line {number})")
                continue
            part = PARTS.get(row["split"].casefold(), "") if split else ""
            if split and not part:
                raise ValueError(
                    f"{where}: the split is {row['split']!r}; allowed are train, val and test, in every row or, "
                    "without the column "
                    "'split', in none."
                )
            if path in lines:
                raise ValueError(f"{where}: {row['path']} is already listed in line {lines[path]}; remove one.")
            lines[path] = number
            found.append(Found(path, nfc(row["label"]), part))
        if missing:
            raise FileNotFoundError(
                f"{self.table}: {len(missing)} of {len(rows)} images do not exist: {first(missing)}. "
                f"Paths are relative to {self.image_dir}."
            )
        return found

    def _on_disk(self, path: str) -> str | None:
        """Return a path as the disk spells it, or None: tables come from other systems than images."""
        path = path.replace("\\", "/")
        for spelling in (path, nfc(path), unicodedata.normalize("NFD", path)):
            full = os.path.join(self.image_dir, spelling)
            if os.path.isfile(full):
                return os.path.relpath(full, self.image_dir).replace(os.sep, "/")
        return None

    def _check_folders(self, root: str):
        if not self.table:
            raise ValueError(f"DATASET.CSV is empty; it names the table of the images. {self._way_out()}")
        if not os.path.isfile(self.table):
            raise FileNotFoundError(f"Table of images not found: {self.table} (DATASET.CSV). {self._way_out()}")
        self.dataset_dir = self.image_dir = os.path.dirname(self.table)
        self.split_file = f"split_clusterprompt_{os.path.splitext(os.path.basename(self.table))[0]}.json"


def read_table(path: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table as (number of the line, {column: text}), values stripped.

    The separator is comma, semicolon or tab, whichever the header holds most: spreadsheets of other languages write
    semicolons.

    Raises:
        ValueError: It is not UTF-8, has no row, lacks a column or has it twice, or a row has no path, no label or too
            many fields.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8 (in Excel: 'CSV UTF-8').") from error
    header = lines.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(lines, newline=""), delimiter=max(",;\t", key=header.count), restval="")
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
    lacking = [name for name in ("path", "label") if name not in reader.fieldnames]
    if lacking:
        raise ValueError(
            f"{path}: the first line should name the columns path, label and perhaps split; it lacks "
            f"{' and '.join(lacking)}: "
            f"{header.strip()!r}."
        )
    double = [name for name in ("path", "label", "split") if reader.fieldnames.count(name) > 1]
    if double:
        raise ValueError(
            f"{path}: the first line names the column {double[0]} more than once (capitals do not count): "
            f"{header.strip()!r}. Rename the others."
        )
    rows = []
    while row := _next(reader, path):
        if None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: more fields than columns. Put a text that holds the separator "
                'into "quotes".'
            )
        row = {name: text.strip() for name, text in row.items()}
        for name in ("path", "label"):
            if not row[name]:
                raise ValueError(f"{path}, line {reader.line_num}: no {name}.")
        rows.append((reader.line_num, row))
    if not rows:
        raise ValueError(f"{path} lists no image.")
    return rows


def _next(reader: csv.DictReader, path: str) -> dict | None:
    """Return the next row, None after the last one; name the line of a fault."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; a quote may lack its other half.") from error
