"""What is written for a person at a terminal."""

from __future__ import annotations

import os
from typing import TextIO


def write_to_reader(text: str, stream: TextIO) -> None:
    """A reader that leaves (`| head`) does not end hours of work: from then on what it would see is dropped."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
