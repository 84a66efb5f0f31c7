"""The numbers of a run's rounds, while it is under way and afterwards."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .runs import Run, read_rounds, read_run

_POLL_S = 1.0


@dataclass(frozen=True)
class Point:
    """What one round has in numbers."""

    round: int
    time: float
    """Seconds since 1970."""
    numbers: dict[str, float]
    """By name, with `/` between a group and its members."""
    is_again: bool
    """Whether the run went back: this round, and those after it, were told before."""


def points(folder: Path, follow: bool, pause: Callable[[], None] = lambda: time.sleep(_POLL_S)) -> Iterator[Point]:
    """Of all rounds so far. follow: and of those to come, until the run has ended. Throws where the folder is none of a
    run."""
    run = read_run(folder)
    begin, classes = _begin_of(run), run.settings.get("samples", {}).get("classes") or []
    told: list[dict[str, Any]] = []
    while True:
        is_over = has_ended(folder)  # looked at first: what is written before the end is read below
        rounds = list(read_rounds(folder))
        same = next((place for place, (old, new) in enumerate(zip(told, rounds)) if old != new),
                    min(len(told), len(rounds)))
        for place in range(same, len(rounds)):
            record = rounds[place]
            numbers = dict(_numbers(record, classes))
            yield Point(int(record.get("round", place)), begin + float(record.get("seconds") or 0), numbers,
                        same < len(told) and place == same)
        told = rounds
        if is_over or not follow:
            return
        pause()


def has_ended(folder: Path) -> bool:
    """Whether the run is finished, or ended early and was not taken up again."""
    early = folder / "interrupted.json"
    try:
        return (folder / "summary.json").exists() or (
            early.exists() and early.stat().st_mtime >= (folder / "run.json").stat().st_mtime)
    except OSError:
        return False


def _begin_of(run: Run) -> float:
    """When the run began, in seconds since 1970."""
    try:
        with open(run.folder / "audit.jsonl", encoding="utf-8") as lines:
            at = str(json.loads(lines.readline())["at"])
        return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    except (OSError, ValueError, KeyError):
        return (run.folder / "run.json").stat().st_mtime


def _numbers(record: dict[str, Any], classes: list[str], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        name = prefix + key
        if key == "clients" and isinstance(value, list):
            yield name, float(len(value))
        elif isinstance(value, dict):
            yield from _numbers(value, classes, name + "/")
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                if _is_number(inner):
                    member = classes[place] if len(classes) == len(value) else str(place)
                    yield f"{name}/{member}", float(inner)
        elif _is_number(value) and name != "round":
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


