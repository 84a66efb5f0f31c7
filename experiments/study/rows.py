"""What is read out of a study's database (experiments/lab/study_store.cpp writes it), and nothing that follows from
it. The meaning of each metric stands in experiments/lab/pair_cell.hpp."""

from __future__ import annotations

import json
import sqlite3
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import DATA, STORAGE, USAGE, CompareError, unknown_word

APPLICATION_ID = 0x48535444  # "HSTD"
FORMAT_VERSION = 1
PATIENCE_S = 60  # for a process that is writing

# The words of headstart-lab in the order of figures and tables. A study is read without the program; a test holds these
# against it.
METHOD_TITLES = {"vanilla": "vanilla KD", "dml": "DML", "dp-kd": "DP-KD", "dp-kd-supervised": "DP-KD, supervised",
                 "dp-kd-unsupervised": "DP-KD, unsupervised", "tuned": "tuned KD", "grid": "grid KD",
                 "auto": "auto-tuned KD"}
METHODS = tuple(METHOD_TITLES)
SEARCHED = ("tuned", "grid", "auto")
TRANSFERS = ("student", "public-large", "public-small", "public-labeled")
LABELED = ("student", "public-labeled")
PARTITIONS = ("uniform", "quantity-skew", "random-chunks", "label-dirichlet", "primary", "specialized")

# What may differ between studies that are looked at together: which cells they have, and what no result depends on.
FREE_SETTINGS = ("study", "threads", "device", "grid.rate_epochs", "partition.kind", "data.path")


@dataclass(frozen=True)
class Trial:
    """A setting that a search tried. alpha is None on a transfer set without labels; accuracy (test) is only there
    where the search was the whole grid, validation_accuracy where the trial was rated."""

    temperature: float
    alpha: float | None
    epochs: int
    validation_accuracy: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Participant:
    partition: str
    seed: int
    number: int
    accuracy: float
    num_samples: int | None
    num_classes: int | None


@dataclass(frozen=True)
class Pair:
    """One finished cell: a student taught by a teacher. Accuracies are 0..1, of the test set unless named otherwise."""

    partition: str
    seed: int
    transfer: str
    method: str
    teacher: int
    student: int
    start: float
    teacher_accuracy: float
    accuracy: float
    learning: float
    forgetting: float
    temperature: float | None = None
    alpha: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    validation_start: float | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def gain(self) -> float:
        return self.accuracy - self.start

    @property
    def difference(self) -> float:
        """How far the teacher is ahead of the student."""
        return self.teacher_accuracy - self.start

    @property
    def is_strong(self) -> bool:
        """Whether the teacher is."""
        return self.difference > 0

    @property
    def place(self) -> tuple[str, int, str, int, int]:
        """What the same pair has in common under all methods."""
        return self.partition, self.seed, self.transfer, self.teacher, self.student


@dataclass
class Study:
    """One or several databases, looked at together."""

    files: list[Path]
    settings: list[dict[str, Any]]
    participants: list[Participant]
    pairs: list[Pair]
    versions: list[str]
    planned: int
    done: int

    @property
    def partitions(self) -> list[str]:
        return in_order((pair.partition for pair in self.pairs), PARTITIONS)

    @property
    def seeds(self) -> list[int]:
        return sorted({pair.seed for pair in self.pairs})

    @property
    def methods(self) -> list[str]:
        return in_order((pair.method for pair in self.pairs), METHODS)

    @property
    def transfers(self) -> list[str]:
        return in_order((pair.transfer for pair in self.pairs), TRANSFERS)

    @property
    def num_participants(self) -> int:
        """Of one partition and seed."""
        count = self.setting("partition.clients")
        return count if isinstance(count, int) else len({n for p in self.pairs for n in (p.teacher, p.student)})

    def accuracies(self, partition: str) -> dict[int, dict[int, float]]:
        """Seed -> participant -> test accuracy at the start, of the seeds that have a pair."""
        result: dict[int, dict[int, float]] = {}
        for pair in self.pairs:
            if pair.partition == partition:
                starts = result.setdefault(pair.seed, {})
                starts[pair.student], starts[pair.teacher] = pair.start, pair.teacher_accuracy
        for participant in self.participants:
            if participant.partition == partition and participant.seed in result:
                result[participant.seed].setdefault(participant.number, participant.accuracy)
        return result

    def setting(self, key: str, default: Any = None) -> Any:
        value: Any = self.settings[0]
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return default if value is None else value

    def narrowed(self, methods: Sequence[str], transfers: Sequence[str]) -> Study:
        """Only these; empty: all."""
        for kind, words, known, there in (("method", methods, METHODS, self.methods),
                                          ("transfer set", transfers, TRANSFERS, self.transfers)):
            for word in words:
                if word not in known and word not in there:
                    raise unknown_word(kind, word, known)
                if word not in there:
                    raise CompareError(USAGE, f"no pair of {kind} {word} is finished in {names_of(self.files)}; there "
                                              f"are: {', '.join(there)}")
        kept = [pair for pair in self.pairs if (not methods or pair.method in methods)
                and (not transfers or pair.transfer in transfers)]
        if not kept:
            raise CompareError(DATA, f"{names_of(self.files)}: no finished pair is of one of these methods on one of "
                                     "these transfer sets")
        return Study(self.files, self.settings, self.participants, kept, self.versions, self.planned, self.done)


def in_order(words: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each word once, in the given order; unknown ones last."""
    there = set(words)
    return [word for word in order if word in there] + sorted(there - set(order))


def names_of(files: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in files)


def read_studies(files: Sequence[Path]) -> Study:
    """All finished cells. A cell that two files hold counts once, and must be the same in both."""
    if len({file.resolve() for file in files}) < len(files):
        raise CompareError(USAGE, f"a study is named twice: {names_of(files)}")
    reading = _Reading()
    for file in files:
        reading.read(file)
    if not reading.pairs:
        raise CompareError(DATA, f"{names_of(files)}: no pair is finished yet ({reading.done} of {reading.planned} "
                                 "cells are, all of them participants)")
    return Study(list(files), reading.settings, reading.participants, reading.pairs, sorted(reading.versions),
                 reading.planned, reading.done)


@dataclass
class _Reading:
    settings: list[dict[str, Any]] = field(default_factory=list)
    participants: list[Participant] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    planned: int = 0
    done: int = 0
    origin: dict[str, tuple[Path, str]] = field(default_factory=dict)
    first: Path = Path()

    def read(self, file: Path) -> None:
        if not file.exists():
            raise CompareError(DATA, f"{file}: is not there")
        if not file.is_file():
            raise CompareError(DATA, f"{file}: is no study, but a folder; name the study's database")
        try:
            self._read_database(file)
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise CompareError(DATA, f"{file}: is damaged ({error})") from error
            raise CompareError(STORAGE, f"{file}: cannot be read ({error})") from error
        except sqlite3.DatabaseError as error:
            raise CompareError(DATA, f"{file}: is no study, or is damaged ({error})") from error
        except json.JSONDecodeError as error:
            raise CompareError(DATA, f"{file}: is damaged ({error})") from error

    def _read_database(self, file: Path) -> None:
        place = f"file:{urllib.parse.quote(str(file.resolve()))}?mode=ro"
        connection = sqlite3.connect(place, uri=True, timeout=PATIENCE_S)
        try:
            connection.execute("BEGIN")
            _check_format(connection, file)
            row = connection.execute("SELECT settings FROM study").fetchone()
            if row is None:
                raise CompareError(DATA, f"{file}: is damaged (it has no settings)")
            self._take_settings(json.loads(row[0]), file)
            self.planned += connection.execute("SELECT count(*) FROM cells").fetchone()[0]
            done = connection.execute("SELECT key, settings, metrics, seconds, version FROM cells WHERE metrics IS NOT "
                                      "NULL ORDER BY id").fetchall()
        finally:
            connection.close()  # before anything is parsed: a study that is being written waits for its readers
        for line in done:
            self._take_cell(file, *line)

    def _take_settings(self, settings: dict[str, Any], file: Path) -> None:
        if not isinstance(settings, dict):
            raise CompareError(DATA, f"{file}: is damaged (its settings are no object)")
        if self.settings:
            found = differences(self.settings[0], settings)
            if found:
                raise CompareError(USAGE, f"{file} is not of the same kind as {self.first}: {'; '.join(found)}")
        else:
            self.first = file
        self.settings.append(settings)

    def _take_cell(self, file: Path, key: str, settings: str, metrics: str, seconds: float, version: str) -> None:
        if key in self.origin:
            other, theirs = self.origin[key]
            if json.loads(theirs) != json.loads(metrics):
                raise CompareError(DATA, f"cell {key} has another result in {file} than in {other}")
            self.planned -= 1
            return
        self.origin[key] = (file, metrics)
        self.done += 1
        self.versions.add(version or "unknown version")
        try:
            which, result = json.loads(settings), json.loads(metrics)
            if "teacher" in which["pair"]:
                self.pairs.append(pair_of(which, result, seconds))
            else:
                self.participants.append(participant_of(which, result))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise CompareError(DATA, f"{file}: cell {key} is not of a pair study ({reason})") from error


def _check_format(connection: sqlite3.Connection, file: Path) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if identity != APPLICATION_ID:
        raise CompareError(DATA, f"{file}: is a database, but not of a study")
    if version != FORMAT_VERSION:
        raise CompareError(DATA, f"{file}: is of version {version} of the format, this program reads {FORMAT_VERSION}; "
                                 "use the headstart that wrote it")


def pair_of(settings: dict[str, Any], metrics: dict[str, Any], seconds: float) -> Pair:
    which, validation = settings["pair"], metrics.get("validation") or {}
    return Pair(
        partition=settings["partition"]["kind"], seed=int(which["seed"]), transfer=which["transfer"],
        method=which["method"], teacher=int(which["teacher"]), student=int(which["student"]),
        start=float(metrics["start"]), teacher_accuracy=float(metrics["teacher"]), accuracy=float(metrics["accuracy"]),
        learning=float(metrics["learning"]), forgetting=float(metrics["forgetting"]),
        temperature=metrics.get("temperature"), alpha=metrics.get("alpha"), epochs=int(metrics.get("epochs", 0)),
        seconds=float(seconds or 0.0), validation_start=validation.get("start"),
        trials=tuple(Trial(float(trial["temperature"]), trial.get("alpha"), int(trial["epochs"]),
                           trial.get("validation_accuracy"), trial.get("accuracy"))
                     for trial in metrics.get("trials") or ()))


def participant_of(settings: dict[str, Any], metrics: dict[str, Any]) -> Participant:
    classes = metrics.get("classes")
    return Participant(settings["partition"]["kind"], int(settings["pair"]["seed"]), int(settings["pair"]["student"]),
                       float(metrics["accuracy"]), metrics.get("num_samples"),
                       None if classes is None else sum(count > 0 for count in classes))


def differences(mine: Any, theirs: Any, key: str = "") -> list[str]:
    """Settings that two studies must share and do not."""
    if mine == theirs or key in FREE_SETTINGS:
        return []
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return [f"{key} is {json.dumps(theirs)}, was {json.dumps(mine)}"]
    names = dict.fromkeys([*mine, *theirs])
    return [text for name in names
            for text in differences(mine.get(name), theirs.get(name), f"{key}.{name}" if key else name)]
