"""What runs and studies leave, as arrays and, where pandas is installed, as data frames."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import HeadstartError
from .safetensors import Array

_APPLICATION_ID = 0x48535444  # of a study's database: "HSTD"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length. A number that a row lacks is NaN. A list of numbers is a column [rows, n];
    what is no number stands as it is, in a column of objects."""

    columns: dict[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> Array:
        if name not in self.columns:
            raise HeadstartError(f"there is no column '{name}'; there are {', '.join(self.columns)}", "data")
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def to_frame(self) -> Any:
        """A pandas DataFrame. A column [rows, n] becomes n columns, NAME.0 and so on."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise HeadstartError("to_frame() needs pandas, which is not installed here; the columns are arrays "
                                 "without it") from None
        single: dict[str, Any] = {}
        for name, column in self.columns.items():
            if column.ndim == 2:
                single.update({f"{name}.{place}": column[:, place] for place in range(column.shape[1])})
            else:
                single[name] = column
        return pandas.DataFrame(single)

    @staticmethod
    def of(rows: Sequence[dict[str, Any]]) -> Table:
        """Objects become columns with dots in their names."""
        flattened = [dict(flat(row)) for row in rows]
        names = list(dict.fromkeys(name for row in flattened for name in row))
        # An empty object or null beside objects of the same name says nothing.
        inner = {name.rpartition(".")[0] for name in names}
        return Table({name: _column([row.get(name, _MISSING) for row in flattened], name)
                      for name in names if name not in inner})


@dataclass(frozen=True)
class Run:
    """The folder of a run (server/run_files.md)."""

    folder: Path
    settings: dict[str, Any]
    """run.json."""
    rounds: Table
    """rounds.jsonl: a row a round, round 0 being the start."""
    summary: dict[str, Any] | None
    """summary.json, or interrupted.json where the run ended early; None while it is under way."""

    @property
    def is_over(self) -> bool:
        return (self.folder / "summary.json").exists()


@dataclass(frozen=True)
class Study:
    """The database of a study of pairs or of peers (headstart-lab pairs, headstart-lab peers)."""

    file: Path
    kind: str
    """`pair` or `peer`."""
    settings: dict[str, Any]
    cells: Table
    """A row a finished cell: its settings under their dotted names, its metrics under theirs, and its seconds."""
    planned: int
    """Cells of the study, finished or not."""


def read_run(folder: str | os.PathLike[str]) -> Run:
    """The run of this folder, which may be under way."""
    place = Path(folder)
    if not (place / "run.json").exists():
        raise HeadstartError(f"{place} is no folder of a run: it has no run.json", "data")
    summary = next((_json_in(place / name) for name in ("summary.json", "interrupted.json") if (place / name).exists()),
                   None)
    return Run(place, _json_in(place / "run.json"), Table.of(list(read_rounds(place))), summary)


def read_rounds(folder: Path) -> Iterator[dict[str, Any]]:
    """The rounds of a run so far. A last line that is not whole is one that is being written."""
    file = folder / "rounds.jsonl"
    if not file.exists():
        return
    lines = _text_of(file).split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise HeadstartError(f"{file}, line {number}: is no JSON ({error.msg})", "data") from None


def read_study(file: str | os.PathLike[str]) -> Study:
    """The finished cells of a study, which may be under way."""
    place = Path(file)
    if not place.is_file():
        raise HeadstartError(f"{place} is no study: there is no such file", "data")
    try:
        connection = sqlite3.connect(f"file:{urllib.parse.quote(str(place.resolve()))}?mode=ro", uri=True, timeout=60)
        try:
            connection.execute("BEGIN")
            if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise HeadstartError(f"{place} is a database, but not of a study", "data")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _FORMAT_VERSION:
                raise HeadstartError(f"{place} is of version {version} of the format, this package reads "
                                     f"{_FORMAT_VERSION}; use the headstart that wrote it", "data")
            settings = json.loads(connection.execute("SELECT settings FROM study").fetchone()[0])
            planned = connection.execute("SELECT count(*) FROM cells").fetchone()[0]
            done = connection.execute("SELECT settings, metrics, seconds FROM cells WHERE metrics IS NOT NULL ORDER BY "
                                      "id").fetchall()
        finally:
            connection.close()
        rows = [{**json.loads(which), **json.loads(metrics), "seconds": seconds} for which, metrics, seconds in done]
    except (sqlite3.Error, json.JSONDecodeError, TypeError) as error:
        raise HeadstartError(f"{place} is no study, or is damaged ({error})", "data") from None
    kind = "pair" if "grid" in settings else "peer" if "peers" in settings else "unknown"
    return Study(place, kind, settings, Table.of(rows), planned)


_MISSING = object()


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost values, under their dotted names."""
    for key, inner in value.items():
        name = prefix + key
        if isinstance(inner, dict) and inner:
            yield from flat(inner, name + ".")
        else:
            yield name, inner


def _column(values: list[Any], name: str) -> Array:
    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    # Infinite numbers stand as null, and of what a run records only losses become infinite.
    empty = math.inf if name.split(".")[-1].startswith("loss") else math.nan
    there = [value for value in values if value is not _MISSING and value is not None]
    if there and all(is_number(value) for value in there):
        if len(there) == len(values) and all(isinstance(value, int) for value in values):
            return np.asarray(values)
        return np.asarray([math.nan if value is _MISSING else empty if value is None else float(value)
                           for value in values])
    lengths = {len(value) if isinstance(value, list) else -1 for value in there}
    if len(lengths) == 1 and min(lengths) > 0 and all(is_number(inner) for value in there for inner in value):
        width = lengths.pop()
        return np.asarray([value if isinstance(value, list) else [math.nan] * width for value in values], np.float64)
    column = np.empty(len(values), object)
    column[:] = [None if value is _MISSING else value for value in values]
    return column


def _json_in(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text_of(file))
    except json.JSONDecodeError as error:
        raise HeadstartError(f"{file}: is no JSON ({error.msg} in line {error.lineno})", "data") from None
    if not isinstance(found, dict):
        raise HeadstartError(f"{file}: is no JSON object", "data")
    return found


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HeadstartError(f"{file}: cannot be read ({error})", "storage") from None
