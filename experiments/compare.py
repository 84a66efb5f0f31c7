#!/usr/bin/python3
"""Runs any set of starts x partitions x seeds, in simulation or with real processes, and compares them: how many
rounds, seconds and bytes each start takes to a target accuracy.

    experiments/compare.py --plan experiments/plans/quick.json
    experiments/compare.py --starts random,best,kd-public --partitions label-dirichlet --seeds 1,2,3 --rounds 20
    experiments/compare.py --resume runs/NAME
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TextIO

from common.errors import INTERRUPTED, RUN_FAILED, STORAGE, USAGE, CompareError
from common.files import make_new_folder, save_json
from common.paths import plain_path
from common.processes import Interruption
from common.programs import commit_of, folder_of_programs
from common.terminal import write_to_reader
from comparison.jobs import Study
from comparison.plan import Plan, load_plan
from comparison.programs import LAB, MODES, STARTS, Programs, is_finished, parse_assignment
from comparison.progress import Progress
from comparison.schedule import Outcome, Scheduler
from report import write_report

ROOT = Path(__file__).resolve().parent.parent
NEW_CALL_ONLY = ("plan", "starts", "partitions", "seeds", "rounds", "mode", "set", "out")


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    return [int(word) for word in words(text)]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--plan", type=plain_path, metavar="FILE", help="a plan; the options below change parts of it")
    result.add_argument("--starts", type=words, metavar="A,B", help="of: " + ", ".join(STARTS))
    result.add_argument("--partitions", type=words, metavar="A,B", help="words of partition.kind: headstart-lab words")
    result.add_argument("--seeds", type=numbers, metavar="1,2,3")
    result.add_argument("--rounds", type=int, metavar="N", help="the budget of every run")
    result.add_argument("--mode", choices=MODES, help="one process a run, or a server and its clients")
    result.add_argument("--jobs", type=int, metavar="N", help="runs at a time")
    result.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a setting of the programs; client.KEY for the clients alone (mode processes)")
    result.add_argument("--bin", type=plain_path, metavar="DIR",
                        help="where the programs are (default: build/, build/release/, then PATH)")
    result.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: runs/PLAN-TIME)")
    result.add_argument("--resume", type=plain_path, metavar="DIR", help="continue this folder; finished runs stay")
    result.add_argument("--keep-going", action="store_true", help="start further runs after one has failed")
    return result


def plan_of(arguments: argparse.Namespace) -> Plan:
    plan = load_plan(arguments.plan) if arguments.plan else Plan()
    for name in ("starts", "partitions", "seeds", "rounds", "mode", "jobs"):
        value = getattr(arguments, name)
        if value is not None:
            setattr(plan, name, value)
    plan.check()
    plan.settings |= dict(parse_assignment(text) for text in arguments.set)
    plan.check()
    return plan


def programs_for(plan: Plan, folder: Path | None) -> Programs:
    """Refuses a plan with a word that they do not know."""
    programs = Programs(folder_of_programs(ROOT, folder, LAB))
    programs.needed(plan.mode)
    plan.check_words(programs.vocabulary())
    return programs


def begin(arguments: argparse.Namespace) -> Study:
    plan = plan_of(arguments)
    programs = programs_for(plan, arguments.bin)
    folder = arguments.out or Path("runs") / f"{plan.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    make_new_folder(folder, f"name another by --out, or continue it by --resume {folder}")
    save_json(plan.to_json(), folder / "plan.json")
    (folder / "commit.txt").write_text(commit_of(ROOT) + "\n")
    return Study(folder, plan, programs)


def resume(arguments: argparse.Namespace) -> Study:
    for name in NEW_CALL_ONLY:
        if getattr(arguments, name):
            raise CompareError(USAGE, f"--{name}: {arguments.resume / 'plan.json'} says what to run; --resume takes "
                                      "only --jobs, --bin and --keep-going")
    plan = load_plan(arguments.resume / "plan.json")
    if arguments.jobs is not None:
        plan.jobs = arguments.jobs
    plan.check()
    programs = programs_for(plan, arguments.bin)
    return Study(arguments.resume, plan, programs)


def lock(folder: Path) -> TextIO:
    """Held while the returned file is open: two calls on one folder would overwrite each other's runs."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CompareError(STORAGE, f"{folder}: another compare.py works in it") from error
    return file


def compare(study: Study, keep_going: bool, interruption: Interruption) -> int:
    progress = Progress()
    unfinished = [run for run in study.plan.all_runs() if not is_finished(study.run_folder(run))]
    progress.say(f"{len(study.plan.all_runs())} runs, {len(unfinished)} to do, in {study.folder}")
    for cell in study.plan.cells():
        if interruption.is_asked:
            raise KeyboardInterrupt
        study.draw(cell)
    outcome = Scheduler(study, progress, keep_going, lambda: interruption.is_asked).run_all()
    tables = write_report(study.folder)
    table = tables[0].text() if tables else "No run is finished."
    write_to_reader(f"{table}\n\nReport: {study.folder / 'report.html'}\n", sys.stdout)
    return _conclude(study, outcome, progress)


def _conclude(study: Study, outcome: Outcome, progress: Progress) -> int:
    if not outcome.failed and not outcome.skipped:
        return 0
    names = ", ".join(run.name for run in outcome.failed)
    progress.say(f"{len(outcome.failed)} of {len(study.plan.all_runs())} runs failed ({names}), {len(outcome.skipped)} "
                 f"not run. {_how_to_resume(study)}")
    return RUN_FAILED


def _how_to_resume(study: Study) -> str:
    return f"Continue by: experiments/compare.py --resume {study.folder}"


def main() -> int:
    arguments = parser().parse_args()
    interruption = Interruption()
    study = None
    try:
        study = resume(arguments) if arguments.resume else begin(arguments)
        with lock(study.folder):
            with (study.folder / "calls.txt").open("a") as file:
                file.write(shlex.join([os.path.relpath(__file__), *sys.argv[1:]]) + "\n")
            return compare(study, arguments.keep_going, interruption)
    except CompareError as error:
        print(f"compare: {error}", file=sys.stderr)
        if study is not None:
            print(_how_to_resume(study), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        if study is not None:
            done = sum(is_finished(study.run_folder(run)) for run in study.plan.all_runs())
            write_to_reader(f"Interrupted. {done} of {len(study.plan.all_runs())} runs are finished and kept in "
                            f"{study.folder}. {_how_to_resume(study)}\n", sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
