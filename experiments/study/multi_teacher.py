"""Multi-teacher distillation beside the published table: what experiments/compare.py found for its ten cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DATA, CompareError
from common.files import read_json
from common.study_file import PARTITIONS

from .published import TABLE_TWO, TABLE_TWO_STARTS

# A student collapses when it keeps less than this share of what the best start reaches. Published: 0.25 to 0.46 where
# it is said to, 0.83 and more elsewhere.
COLLAPSE = 0.5


@dataclass
class MultiTeacher:
    """accuracy[partition][start]: of each seed, before round 1."""

    folder: Path
    plan: dict[str, Any]
    accuracy: dict[str, dict[str, list[float]]]

    @property
    def partitions(self) -> list[str]:
        return [name for name in PARTITIONS if name in self.accuracy]

    def mean(self, partition: str, start: str) -> float | None:
        found = self.accuracy.get(partition, {}).get(start)
        return float(np.mean(found)) if found else None

    def by_seed(self, partition: str, *starts: str) -> list[tuple[float, ...]]:
        """The accuracies of these starts, seed by seed; empty where one is missing or has other seeds."""
        found = [self.accuracy.get(partition, {}).get(start, []) for start in starts]
        return list(zip(*found)) if len({len(values) for values in found}) == 1 else []


def read_multi_teacher(folder: Path) -> MultiTeacher:
    file = folder / "table.json"
    if not file.is_file():
        raise CompareError(DATA, f"{folder}: holds no table.json; --multi-teacher takes a folder that "
                                 "experiments/compare.py filled")
    document = read_json(file)
    accuracy: dict[str, dict[str, list[float]]] = {}
    try:
        for run in document["runs"]:
            if run["start"] in TABLE_TWO_STARTS:
                starts = accuracy.setdefault(run["partition"], {})
                starts.setdefault(run["start"], []).append(float(run["seed_accuracy"]))
        plan = document["plan"]
    except (KeyError, TypeError, ValueError) as error:
        raise CompareError(DATA, f"{file}: is not a table of experiments/compare.py ({error!r})") from error
    if not accuracy:
        raise CompareError(DATA, f"{folder}: has no finished run of a cell of the published table "
                                 f"({', '.join(TABLE_TWO_STARTS)})")
    return MultiTeacher(folder, plan, accuracy)


def column_title(start: str) -> str:
    """As the paper heads it: Pub or Stu, the start, W(eighted) or U(nweighted)."""
    transfer = "Pub" if "public" in start else "Stu"
    student = next((word for word in ("worst", "untrained") if word in start), "best")
    return f"{transfer} {student} {'U' if start.endswith('equal') else 'W'}"


def published(partition: str, start: str) -> float | None:
    row = TABLE_TWO.get(partition)
    return None if row is None else row[TABLE_TWO_STARTS.index(start)] / 100
