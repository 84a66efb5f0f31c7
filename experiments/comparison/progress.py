"""What a person sees while runs go on: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from common.files import read_rounds
from common.terminal import clock, write_to_reader

from .jobs import ActiveRun
from .programs import title_of_start

PLAIN_SECONDS = 15.0


def state_of(active: ActiveRun) -> str:
    """The last round; before it who is waited for, or the last line that the program logged."""
    lines = read_rounds(active.study.run_folder(active.run))
    if lines:
        last = lines[-1]
        state = f"round {last['round']}/{active.run.plan.rounds}  accuracy {100 * last['accuracy']:.1f}%"
        return state + (f"  target {100 * active.stop_accuracy:.1f}%" if active.stop_accuracy is not None else "")
    waiting = active.lobby.text() if active.lobby is not None else ""
    if waiting:
        return waiting
    said = active.main.last_lines(1)
    return said[0] if said else "starting"


class Progress:
    """Writes to standard error, so that standard output holds the table alone."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._height = 0
        self._began = time.monotonic()
        self._last_plain = self._began
        self._last_states: dict[str, str] = {}
        self._done = self._total = 0

    def say(self, text: str) -> None:
        self._erase()
        write_to_reader(text + "\n", self._stream)

    def started(self, active: ActiveRun) -> None:
        if not self._is_live:
            self.say(f"started  {self._title(active)}")

    def finished(self, active: ActiveRun) -> None:
        self.say(f"finished {self._title(active)} in {clock(active.elapsed)}: {state_of(active)}")

    def failed(self, active: ActiveRun, log_lines: int) -> None:
        failure = active.failure
        assert failure is not None
        self.say(f"FAILED   {self._title(active)} after {clock(active.elapsed)}: {failure.reason}")
        for child in failure.children:
            self.say(f"  last lines of {child.log}:")
            for line in child.last_lines(log_lines):
                self.say(f"  | {line}")

    def show(self, active: list[ActiveRun], done: int, total: int) -> None:
        self._done, self._total = done, total
        if self._is_live:
            self._draw([self._headline(active), *(f"  {self._line(one)}" for one in active)] if active else [])
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            for one in active:
                self._say_if_new(one)

    def close(self) -> None:
        self._erase()

    def _say_if_new(self, active: ActiveRun) -> None:
        state = state_of(active)
        if self._last_states.get(active.run.name) != state:
            self._last_states[active.run.name] = state
            self.say(f"  {self._line(active)}")

    def _headline(self, active: list[ActiveRun]) -> str:
        elapsed = time.monotonic() - self._began
        text = f"{self._done} of {self._total} runs done, {len(active)} under way, {clock(elapsed)}"
        if self._done:
            text += f", about {clock(elapsed / self._done * (self._total - self._done))} left"
        return text

    def _line(self, active: ActiveRun) -> str:
        return f"{active.run.name}  {clock(active.elapsed)}  {state_of(active)}"

    def _title(self, active: ActiveRun) -> str:
        run = active.run
        return f"{run.name} ({title_of_start(run.start)})"

    def _draw(self, lines: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._erase()
        write_to_reader("".join(line[:width] + "\n" for line in lines), self._stream)
        self._height = len(lines)

    def _erase(self) -> None:
        if self._height:
            write_to_reader(f"\x1b[{self._height}A\x1b[J", self._stream)
            self._height = 0
