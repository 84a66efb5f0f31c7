"""What is read out of the database of a pair study, and nothing that follows from it. The meaning of each metric stands
in experiments/lab/pair_cell.hpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DATA, USAGE, CompareError, unknown_word
from common.study_file import PARTITIONS, StudyReading, setting_of
from common.text import in_order, names_of

# The words of headstart-lab in the order of figures and tables. A study is read without the program; a test holds these
# against it.
METHOD_TITLES = {"vanilla": "vanilla KD", "dml": "DML", "dp-kd": "DP-KD", "dp-kd-supervised": "DP-KD, supervised",
                 "dp-kd-unsupervised": "DP-KD, unsupervised", "tuned": "tuned KD", "grid": "grid KD",
                 "auto": "auto-tuned KD"}
METHODS = tuple(METHOD_TITLES)
SEARCHED = ("tuned", "grid", "auto")
TRANSFERS = ("student", "public-large", "public-small", "public-labeled")
LABELED = ("student", "public-labeled")


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
        return setting_of(self.settings[0], key, default)

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


def read_studies(files: Sequence[Path]) -> Study:
    """All finished cells. A cell that two files hold counts once, and must be the same in both."""
    pairs: list[Pair] = []
    participants: list[Participant] = []

    def take(settings: dict[str, Any], metrics: dict[str, Any], seconds: float) -> None:
        if "teacher" in settings["pair"]:
            pairs.append(pair_of(settings, metrics, seconds))
        else:
            participants.append(participant_of(settings, metrics))

    reading = StudyReading("pair", take)
    reading.read_all(files)
    if not pairs:
        raise CompareError(DATA, f"{names_of(files)}: no pair is finished yet ({reading.done} of {reading.planned} "
                                 "cells are, all of them participants)")
    return Study(list(files), reading.settings, participants, pairs, sorted(reading.versions), reading.planned,
                 reading.done)


def pair_of(settings: dict[str, Any], metrics: dict[str, Any], seconds: float) -> Pair:
    which, validation = settings["pair"], metrics.get("validation") or {}
    return Pair(
        partition=settings["partition"]["kind"], seed=int(which["seed"]), transfer=which["transfer"],
        method=which["method"], teacher=int(which["teacher"]), student=int(which["student"]),
        start=float(metrics["start"]), teacher_accuracy=float(metrics["teacher"]), accuracy=float(metrics["accuracy"]),
        learning=float(metrics["learning"]), forgetting=float(metrics["forgetting"]),
        temperature=metrics.get("temperature"), alpha=metrics.get("alpha"), epochs=int(metrics.get("epochs", 0)),
        seconds=seconds, validation_start=validation.get("start"),
        trials=tuple(Trial(float(trial["temperature"]), trial.get("alpha"), int(trial["epochs"]),
                           trial.get("validation_accuracy"), trial.get("accuracy"))
                     for trial in metrics.get("trials") or ()))


def participant_of(settings: dict[str, Any], metrics: dict[str, Any]) -> Participant:
    classes = metrics.get("classes")
    return Participant(settings["partition"]["kind"], int(settings["pair"]["seed"]), int(settings["pair"]["student"]),
                       float(metrics["accuracy"]), metrics.get("num_samples"),
                       None if classes is None else sum(count > 0 for count in classes))
