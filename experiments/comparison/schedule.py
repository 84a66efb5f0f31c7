"""Does runs of a study, several at a time, in an order in which each finds what it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .accounting import read_result
from .jobs import ActiveRun, Study, launch
from .plan import Run, prerequisites
from .progress import Progress
from .programs import is_finished

POLL_SECONDS = 0.2
LOG_LINES = 15


@dataclass
class Outcome:
    failed: list[Run] = field(default_factory=list)
    skipped: list[Run] = field(default_factory=list)


class Scheduler:
    """One loop, no threads: starts what may start, polls what runs. todo: unfinished runs of the study."""

    def __init__(self, study: Study, todo: Sequence[Run], progress: Progress, keep_going: bool,
                 is_interrupted: Callable[[], bool]) -> None:
        self._study = study
        self._progress = progress
        self._keep_going = keep_going
        self._is_interrupted = is_interrupted
        self._runs = study.plan.all_runs()
        self._waiting = list(todo)
        self._active: list[ActiveRun] = []
        self._outcome = Outcome()
        self._total = len(self._waiting)

    def run_all(self) -> Outcome:
        try:
            while self._waiting or self._active:
                if self._is_interrupted():
                    raise KeyboardInterrupt
                self._start_ready()
                self._collect()
                self._progress.show(self._active, self._total - len(self._waiting) - len(self._active), self._total)
                if self._active:
                    time.sleep(POLL_SECONDS)
        finally:
            self._stop_all()
            self._progress.close()
        return self._outcome

    def _start_ready(self) -> None:
        if self._outcome.failed and not self._keep_going:
            self._outcome.skipped += self._waiting
            self._waiting.clear()
        for run in list(self._waiting):
            if len(self._active) >= self._study.plan.jobs:
                return
            under_way = self._waiting + [active.run for active in self._active]
            if any(other in under_way for other in prerequisites(run, self._runs)):
                continue
            self._waiting.remove(run)
            self._start(run)

    def _start(self, run: Run) -> None:
        stop_accuracy = None
        if run.plan.stop_at is not None:
            reference = next(other for other in self._runs if other.cell == run.cell and other.start == "random")
            if not is_finished(self._study.run_folder(reference)):
                self._progress.say(f"{run.name} not run: its target needs {reference.name}, which failed")
                self._outcome.skipped.append(run)
                return
            result = read_result(reference, self._study.run_folder(reference))
            stop_accuracy = run.plan.stop_at * result.best_accuracy
        if self._study.plan.draws_partitions:
            self._study.draw(run.cell)
        active = launch(self._study, run, stop_accuracy, self._progress.say)
        self._active.append(active)
        self._progress.started(active)

    def _collect(self) -> None:
        for active in [active for active in self._active if active.is_over()]:
            self._active.remove(active)
            if active.failure is None:
                self._progress.finished(active)
                continue
            self._outcome.failed.append(active.run)
            self._progress.failed(active, LOG_LINES)

    def _stop_all(self) -> None:
        for active in self._active:
            for child in [active.main, *active.clients]:
                child.terminate()
        for active in self._active:
            forced = active.stop()
            self._progress.say(f"stopped {active.run.name}" + (f" (by force: {', '.join(forced)})" if forced else ""))
