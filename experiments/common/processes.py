"""Child programs with a log each, started and stopped in order; and the wish to stop."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

STOP_SECONDS = 20.0

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Child:
    """One process with a log file of its own, in a session of its own: Ctrl-C reaches it through stop() alone, in
    order, and not by the terminal all at once."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                             start_new_session=True)

    def exit_code(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, deadline: float) -> bool:
        """True where it ended by itself."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
            return True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False

    def last_lines(self, count: int) -> list[str]:
        return last_lines(self.log, count)


def last_lines(log: Path, count: int, tail_bytes: int = 16384) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - tail_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in ESCAPES.sub("", text.replace("\r", "\n")).split("\n")]
    return [line for line in lines if line][-count:]


def stop_all(children: Sequence[Child], patience: float = STOP_SECONDS) -> list[str]:
    """Asks every child to end, waits, and ends by force those that do not; names those."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + patience
    return [child.name for child in children if not child.wait_or_kill(deadline)]


class Interruption:
    """Notes the wish to stop. The runs' loop looks at it between two steps: no child is started and forgotten."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored: the work outlives its terminal.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, signum: int, frame: object) -> None:
        self.is_asked = True
