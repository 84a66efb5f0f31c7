"""What is read out of the databases of studies (experiments/lab/study_store.cpp writes them), whatever their cells are
of."""

from __future__ import annotations

import json
import sqlite3
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DATA, STORAGE, USAGE, CompareError
from .text import names_of

APPLICATION_ID = 0x48535444  # "HSTD"
FORMAT_VERSION = 1
PATIENCE_S = 60  # for a process that is writing

PARTITIONS = ("uniform", "quantity-skew", "random-chunks", "label-dirichlet", "primary", "specialized")

# What may differ between studies that are looked at together: which cells they have, and what no result depends on.
FREE_SETTINGS = ("study", "threads", "device", "grid.rate_epochs", "partition.kind", "data.path")

# What a study is of -> the group of settings that no other has.
KINDS = {"pair": "grid", "peer": "peers"}
KIND_TITLES = {"pair": "a pair study", "peer": "a study of peers"}

# Of one finished cell: its settings, its metrics, its seconds.
TakeCell = Callable[[dict[str, Any], dict[str, Any], float], None]


def kind_of(files: Sequence[Path]) -> str:
    """One of KINDS: what all of them are of."""
    found: dict[str, Path] = {}
    for file in files:
        with _opened(file) as connection:
            settings = _settings_of(connection, file)
        kind = next((kind for kind, group in KINDS.items() if group in settings), None)
        if kind is None:
            raise CompareError(DATA, f"{file}: is a study of a kind that this program does not know; known are those of "
                                     "headstart-lab pairs and headstart-lab peers")
        found.setdefault(kind, file)
    if len(found) > 1:
        told = " and ".join(f"{file} is {KIND_TITLES[kind]}" for kind, file in found.items())
        raise CompareError(USAGE, f"{told}: one call draws studies of one kind")
    return next(iter(found))


@dataclass
class StudyReading:
    """All finished cells of several files go to `take`. A cell that two files hold counts once, and must be the same in
    both."""

    kind: str  # of KINDS
    take: TakeCell
    settings: list[dict[str, Any]] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    planned: int = 0
    done: int = 0
    _origin: dict[str, tuple[Path, str]] = field(default_factory=dict)
    _first: Path = Path()

    def read_all(self, files: Sequence[Path]) -> None:
        if len({file.resolve() for file in files}) < len(files):
            raise CompareError(USAGE, f"a study is named twice: {names_of(files)}")
        for file in files:
            self._read(file)

    def _read(self, file: Path) -> None:
        with _opened(file) as connection:
            settings = _settings_of(connection, file)
            planned = connection.execute("SELECT count(*) FROM cells").fetchone()[0]
            done = connection.execute("SELECT key, settings, metrics, seconds, version FROM cells WHERE metrics IS NOT "
                                      "NULL ORDER BY id").fetchall()
        # The file is closed before anything is parsed: a study that is being written waits for its readers.
        self._take_settings(settings, file)
        self.planned += planned
        for line in done:
            self._take_cell(file, *line)

    def _take_settings(self, settings: dict[str, Any], file: Path) -> None:
        if self.settings:
            found = differences(self.settings[0], settings)
            if found:
                raise CompareError(USAGE, f"{file} is not of the same kind as {self._first}: {'; '.join(found)}")
        else:
            self._first = file
        self.settings.append(settings)

    def _take_cell(self, file: Path, key: str, settings: str, metrics: str, seconds: float, version: str) -> None:
        try:
            which, result = json.loads(settings), json.loads(metrics)
        except json.JSONDecodeError as error:
            raise CompareError(DATA, f"{file}: is damaged ({error})") from error
        if key in self._origin:
            other, theirs = self._origin[key]
            if json.loads(theirs) != result:
                raise CompareError(DATA, f"cell {key} has another result in {file} than in {other}")
            self.planned -= 1
            return
        self._origin[key] = (file, metrics)
        self.done += 1
        self.versions.add(version or "unknown version")
        try:
            if self.kind not in which:
                raise KeyError(self.kind)
            self.take(which, result, float(seconds or 0.0))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise CompareError(DATA, f"{file}: cell {key} is not of {KIND_TITLES[self.kind]} ({reason})") from error


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """For reading, within one transaction."""
    if not file.exists():
        raise CompareError(DATA, f"{file}: is not there")
    if not file.is_file():
        raise CompareError(DATA, f"{file}: is no study, but a folder; name the study's database")
    try:
        place = f"file:{urllib.parse.quote(str(file.resolve()))}?mode=ro"
        connection = sqlite3.connect(place, uri=True, timeout=PATIENCE_S)
        try:
            connection.execute("BEGIN")
            _check_format(connection, file)
            yield connection
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise CompareError(DATA, f"{file}: is damaged ({error})") from error
        raise CompareError(STORAGE, f"{file}: cannot be read ({error})") from error
    except sqlite3.DatabaseError as error:
        raise CompareError(DATA, f"{file}: is no study, or is damaged ({error})") from error
    except json.JSONDecodeError as error:
        raise CompareError(DATA, f"{file}: is damaged ({error})") from error


def _settings_of(connection: sqlite3.Connection, file: Path) -> dict[str, Any]:
    row = connection.execute("SELECT settings FROM study").fetchone()
    if row is None:
        raise CompareError(DATA, f"{file}: is damaged (it has no settings)")
    settings = json.loads(row[0])
    if not isinstance(settings, dict):
        raise CompareError(DATA, f"{file}: is damaged (its settings are no object)")
    return settings


def _check_format(connection: sqlite3.Connection, file: Path) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if identity != APPLICATION_ID:
        raise CompareError(DATA, f"{file}: is a database, but not of a study")
    if version != FORMAT_VERSION:
        raise CompareError(DATA, f"{file}: is of version {version} of the format, this program reads {FORMAT_VERSION}; "
                                 "use the headstart that wrote it")


def setting_of(settings: dict[str, Any], key: str, default: Any = None) -> Any:
    """key: "draw.clients"."""
    value: Any = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return default if value is None else value


def differences(mine: Any, theirs: Any, key: str = "") -> list[str]:
    """Settings that two studies must share and do not."""
    if mine == theirs or key in FREE_SETTINGS:
        return []
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return [f"{key} is {json.dumps(theirs)}, was {json.dumps(mine)}"]
    names = dict.fromkeys([*mine, *theirs])
    return [text for name in names
            for text in differences(mine.get(name), theirs.get(name), f"{key}.{name}" if key else name)]
