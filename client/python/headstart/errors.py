"""What can go wrong, in words for people."""

from __future__ import annotations

from typing import Literal

Cause = Literal["data", "memory", "storage", "settings", "training", "internal"]
"""The kinds of failure that the worker protocol knows."""


class HeadstartError(Exception):
    """A fault that the user can mend. The message is one sentence: the thing, the place, the remedy."""

    def __init__(self, sentence: str, cause: Cause = "settings") -> None:
        super().__init__(sentence)
        self.cause: Cause = cause


class Stopped(BaseException):
    """The client does not want the result of the task under way any more. Ends a training loop between two batches.
    No Exception: a loop that catches those of its own must not catch this."""


class Closed(BaseException):
    """The client has gone, so there is nobody to work for."""


def cause_of(error: BaseException) -> Cause:
    """The protocol's word for whatever a task raised."""
    if isinstance(error, HeadstartError):
        return error.cause
    # PyTorch says both by RuntimeError; its OutOfMemoryError is one from 1.13 on.
    is_out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    if is_out_of_memory:
        return "memory"
    if isinstance(error, OSError):
        return "storage"
    return "internal"
