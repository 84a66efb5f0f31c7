"""A comparison as jobs of a Slurm cluster: arrays with a run a task, then the report.

A task's number is its run's place in Plan.all_runs(). The runs fall into waves, an array each, and a wave begins when
those before it have ended. So the run that pre-trains a partition and seed ends before the other starts look for its
models, and the random start before those that stop at its accuracy. Tasks write to files of their own runs alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import RUN_FAILED, STORAGE, USAGE, CompareError
from common.files import lock_file
from common.processes import last_lines

from .jobs import Study
from .plan import Run, prerequisites
from .programs import is_finished
from .progress import Progress
from .schedule import Scheduler

EXPERIMENTS = Path(__file__).resolve().parents[1]
SCRIPT, COMPARE = EXPERIMENTS / "slurm" / "compare.sbatch", EXPERIMENTS / "compare.py"


def waves(study: Study) -> list[list[int]]:
    """The tasks of the unfinished runs: each list needs only runs of earlier lists, and finished ones."""
    runs = study.plan.all_runs()
    left = study.unfinished()
    result = []
    while left:
        ready = [run for run in left if not any(other in left for other in prerequisites(run, runs))]
        result.append([runs.index(run) for run in ready])
        left = [run for run in left if run not in ready]
    return result


def require_slurm() -> None:
    """To be called before a folder is made."""
    if shutil.which("sbatch") is None:
        raise CompareError(USAGE, "sbatch is not on the PATH: --slurm submits to a Slurm cluster; leave it out to run here")


class Submission:
    """The jobs of one call. Refuses a folder of which jobs are still in the queue: they would do the same runs."""

    def __init__(self, study: Study, options: Sequence[str], at_a_time: int | None) -> None:
        """options: of sbatch, for all jobs. at_a_time: the most tasks of an array that run at once; None: no limit."""
        self._study = study
        self._options = options
        self._limit = "" if at_a_time is None else f"%{at_a_time}"
        self._record = study.folder / "slurm" / "jobs.txt"
        self._record.parent.mkdir(exist_ok=True)
        self._jobs: list[str] = []
        self._require_no_jobs()

    def submit(self, say: Callable[[str], None]) -> None:
        """Submits all waves and the report; says the number of each job."""
        for tasks in waves(self._study):
            job = self._sbatch("%A_%a", ["--array=" + ",".join(map(str, tasks)) + self._limit])
            say(f"job {job}: {len(tasks)} runs{self._after()}")
            self._jobs.append(job)
        job = self._sbatch("%j_report", [])
        say(f"job {job}: the report{self._after()}")
        self._jobs.append(job)
        say(f"See squeue --jobs={','.join(self._jobs)}. What a task says is in {self._record.parent}/JOB_TASK.log.")

    def _after(self) -> str:
        return f", after {' and '.join(self._jobs)}" if self._jobs else ""

    def _sbatch(self, log: str, shape: list[str]) -> str:
        study = self._study
        call = [sys.executable, os.path.relpath(COMPARE), "--resume", str(study.folder)]
        call += ["--bin", str(study.programs.folder)] if study.programs.folder is not None else []
        after = [f"--dependency=afterany:{':'.join(self._jobs)}"] if self._jobs else []
        command = ["sbatch", "--parsable", f"--output={self._record.parent}/{log}.log", *self._options, *shape, *after,
                   str(SCRIPT), *call]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            refusal = "; ".join(done.stderr.strip().splitlines())
            queued = f"; end what is in the queue by: scancel {' '.join(self._jobs)}" if self._jobs else ""
            raise CompareError(USAGE, f"sbatch took no job of {study.folder}: {refusal}{queued}")
        job = done.stdout.strip().partition(";")[0]  # behind it the name of a cluster, where there are several
        with self._record.open("a") as file:
            file.write(job + "\n")
        return job

    def _require_no_jobs(self) -> None:
        earlier = self._record.read_text().split() if self._record.is_file() else []
        if not earlier:
            return
        # Slurm forgets jobs: one that it does not know is not in the queue.
        done = subprocess.run(["squeue", "--noheader", "--format=%F", f"--jobs={','.join(earlier)}"], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, check=False)
        queued = [job for job in earlier if job in done.stdout.split()]
        if queued:
            raise CompareError(STORAGE, f"{self._study.folder}: jobs of it are in the queue ({', '.join(queued)}); wait for "
                                        f"them, or end them by: scancel {' '.join(queued)}")


def run_task(study: Study, number: int, progress: Progress, is_interrupted: Callable[[], bool]) -> int:
    """Does the run of one task unless it is finished, and returns the exit code of the program."""
    runs = study.plan.all_runs()
    if not 0 <= number < len(runs):
        raise CompareError(USAGE, f"task {number}: {study.folder / 'plan.json'} has {len(runs)} runs, "
                                  f"tasks 0 to {len(runs) - 1}")
    run = runs[number]
    # A second submission may hold the same run.
    with lock_file(study.folder / ".locks" / run.name, False, f"{run.name}: another task works on it"):
        if is_finished(study.run_folder(run)):
            progress.say(f"task {number}: {run.name} is finished")
            return 0
        for other in prerequisites(run, runs):
            if not is_finished(study.run_folder(other)):
                raise CompareError(RUN_FAILED, f"{run.name} not run: it needs {other.name}. {why_missing(study, other)}")
        own = replace(study, commands=f"commands/{run.name}.txt")
        outcome = Scheduler(own, [run], progress, False, is_interrupted).run_all()
    return RUN_FAILED if outcome.failed else 0


def why_missing(study: Study, run: Run) -> str:
    """Where an unfinished run tells what became of it."""
    logs = sorted(study.logs(run).glob("*.log"), key=lambda log: log.stat().st_mtime)
    if not logs:
        return f"{run.name} has not begun."
    said = "".join(last_lines(logs[-1], 1))
    return f"{run.name} is not finished; {logs[-1]} ends with: {said or 'nothing'}"
