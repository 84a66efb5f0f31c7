"""Numbers as readers want them: a true minus sign, no negative zero; lists in a fixed order, and in groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def number(value: float, form: str) -> str:
    text = f"{value:{form}}"
    is_zero = not text.strip("+-0.")
    return text.lstrip("+-") if is_zero else text.replace("-", "−")


def points(value: float) -> str:
    """Of accuracy: 0.123 is +12.3."""
    return number(100 * value, "+.1f")


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def in_order(words: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each word once, in the given order; unknown ones last."""
    there = set(words)
    return [word for word in order if word in there] + sorted(there - set(order))


def names_of(files: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in files)
