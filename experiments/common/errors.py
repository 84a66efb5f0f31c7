"""One error type, with the exit codes of the C++ programs (shared/base/error.hpp)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

USAGE = 2
DATA = 3
STORAGE = 4
NETWORK = 5
RUN_FAILED = 8
INTERRUPTED = 130


class CompareError(Exception):
    """Ends the program with one sentence and a documented exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def unknown_word(kind: str, word: str, known: Iterable[str]) -> CompareError:
    candidates = list(known)
    near = difflib.get_close_matches(word, candidates, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(candidates)}"
    return CompareError(USAGE, f"unknown {kind} '{word}': {hint}")
