#!/usr/bin/python3
"""Runs any set of starts x partitions x seeds, in simulation or with real processes, and compares them: how many
rounds, seconds and bytes each start takes to a target accuracy.

    experiments/compare.py --plan experiments/plans/quick.json
    experiments/compare.py --starts random,best,kd-public --partitions label-dirichlet --seeds 1,2,3 --rounds 20
    experiments/compare.py --resume runs/NAME
    experiments/compare.py --silos /data/silos --set data.path=/data/central --rounds 20     silos as they are
    experiments/compare.py --plan experiments/plans/main-table.json --slurm -- --time=2:00:00     on a Slurm cluster
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TextIO

from common.errors import INTERRUPTED, RUN_FAILED, USAGE, CompareError
from common.files import lock_file, make_new_folder, read_json, save_json
from common.paths import plain_path
from common.processes import Interruption
from common.programs import commit_of, folder_of_programs
from common.terminal import write_to_reader
from comparison.cluster import Submission, require_slurm, run_task, why_missing
from comparison.jobs import Study
from comparison.plan import Plan, load_plan
from comparison.programs import LAB, MODES, REMOTE, Programs, parse_assignment, starts_text
from comparison.progress import Progress
from comparison.remote import what_silos_run
from comparison.schedule import Outcome, Scheduler
from comparison.silos import silos_at
from report import write_report

ROOT = Path(__file__).resolve().parent.parent
PLAN_OPTIONS = ("starts", "partitions", "seeds", "rounds", "mode", "jobs", "clients")
NEW_CALL_ONLY = ("plan", "starts", "partitions", "silos", "clients", "seeds", "rounds", "mode", "set", "out")


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    return [int(word) for word in words(text)]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--plan", type=plain_path, metavar="FILE", help="a plan; the options below change parts of it")
    result.add_argument("--starts", type=words, metavar="A,B", help=f"of: {starts_text()}")
    result.add_argument("--partitions", type=words, metavar="A,B", help="words of partition.kind: headstart-lab words")
    result.add_argument("--silos", type=plain_path, metavar="PLACE",
                        help="silos that exist, in place of partitions: a folder with a folder for each silo (named as it, with "
                             "train-labels.npy or train.csv), or a JSON list of a name and client settings each")
    result.add_argument("--clients", type=int, metavar="N",
                        help="how many clients share a partition, or join in mode remote")
    result.add_argument("--seeds", type=numbers, metavar="1,2,3")
    result.add_argument("--rounds", type=int, metavar="N", help="the budget of every run")
    result.add_argument("--mode", choices=MODES, help="one process a run; a server and its clients; or (remote) a server "
                                                       "that clients elsewhere join")
    result.add_argument("--jobs", type=int, metavar="N", help="runs at a time (with --slurm: tasks of an array; no limit)")
    result.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a setting of the programs; client.KEY for the clients alone (mode processes)")
    result.add_argument("--bin", type=plain_path, metavar="DIR",
                        help="where the programs are (default: build/, build/release/, then PATH)")
    result.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: runs/PLAN-TIME)")
    result.add_argument("--resume", type=plain_path, metavar="DIR", help="continue this folder; finished runs stay")
    result.add_argument("--keep-going", action="store_true", help="start further runs after one has failed")
    cluster = result.add_mutually_exclusive_group()
    cluster.add_argument("--slurm", action="store_true",
                         help="submit what is not finished to a Slurm cluster, a run a task, and the report after it")
    cluster.add_argument("--task", type=int, metavar="N",
                         help="with --resume: do this run alone, counted from 0, and no report")
    cluster.add_argument("--report", action="store_true",
                         help="with --resume: do no run; write the report, and name what is missing")
    result.add_argument("sbatch", nargs="*", metavar="-- OPTION",
                        help="with --slurm: options of sbatch, as -- --time=2:00:00")
    return result


def plan_of(arguments: argparse.Namespace) -> Plan:
    document = read_json(arguments.plan) if arguments.plan else {}
    document |= {name: value for name in PLAN_OPTIONS if (value := getattr(arguments, name)) is not None}
    settings = dict(parse_assignment(text) for text in arguments.set)
    is_of_folders = arguments.silos is not None and arguments.silos.is_dir()
    if arguments.silos is not None:
        document["silos"], others = silos_at(arguments.silos)
        if others:
            write_to_reader(f"{arguments.silos}: no silo, as without data: {', '.join(others)}\n", sys.stderr)
    plan = Plan.from_json(document, str(arguments.plan))
    plan.add_settings(settings)
    if is_of_folders:
        plan.settings = {"data.set": "tensors"} | plan.settings
    if not plan.draws_partitions:
        plan.settings = {"validation.source": "federated"} | plan.settings  # nothing was drawn for the server to rate on
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
    require_here(plan, arguments)
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
                                      "only --jobs, --bin, --keep-going, --slurm, --task and --report")
    plan = load_plan(arguments.resume / "plan.json")
    if arguments.jobs is not None:
        plan.jobs = arguments.jobs
    plan.check()
    require_here(plan, arguments)
    programs = programs_for(plan, arguments.bin)
    return Study(arguments.resume, plan, programs)


def check_options(arguments: argparse.Namespace) -> None:
    """What argparse cannot tell."""
    if not arguments.resume:
        for name, is_given in (("--task", arguments.task is not None), ("--report", arguments.report)):
            if is_given:
                raise CompareError(USAGE, f"{name} is for a folder that there is: name it by --resume DIR")
    if arguments.sbatch and not arguments.slurm:
        raise CompareError(USAGE, f"'{arguments.sbatch[0]}' is no option of compare.py; --slurm hands it to sbatch")
    if arguments.slurm:
        require_slurm()


def require_here(plan: Plan, arguments: argparse.Namespace) -> None:
    if plan.mode == REMOTE and arguments.slurm:
        raise CompareError(USAGE, "--slurm: in mode remote the silos dial one machine, and a cluster takes any of its nodes; "
                                  "leave --slurm out")


def lock(folder: Path, is_shared: bool = False) -> TextIO:
    """Two calls on one folder would overwrite each other's runs. Tasks of a cluster share it: each has a run of its own."""
    return lock_file(folder / ".lock", is_shared, f"{folder}: another compare.py works in it")


def work(study: Study, arguments: argparse.Namespace, interruption: Interruption) -> int:
    progress = Progress()
    if arguments.task is not None:
        with lock(study.folder, is_shared=True):
            return run_task(study, arguments.task, progress, lambda: interruption.is_asked)
    with lock(study.folder):
        if arguments.report:
            return report(study, progress)
        with (study.folder / "calls.txt").open("a") as file:
            file.write(shlex.join([os.path.relpath(__file__), *sys.argv[1:]]) + "\n")
        todo = study.unfinished()
        progress.say(f"{len(study.plan.all_runs())} runs, {len(todo)} to do, in {study.folder}")
        prepare(study, progress, interruption)
        if not arguments.slurm:
            outcome = Scheduler(study, todo, progress, arguments.keep_going, lambda: interruption.is_asked).run_all()
            show_report(study)
            return _conclude(study, outcome, progress)
    # Without the lock: the first task may begin before the last job is submitted.
    Submission(study, arguments.sbatch, arguments.jobs).submit(progress.say)
    return 0


def prepare(study: Study, progress: Progress, interruption: Interruption) -> None:
    """Draws all partitions, or says whose data there are."""
    plan = study.plan
    if plan.silos:
        progress.say(f"{plan.clients} silos: {', '.join(silo.name for silo in plan.silo_list())}")
    if plan.mode == REMOTE:
        for line in what_silos_run(plan):
            progress.say(line)
    for cell in plan.cells() if plan.draws_partitions else ():
        if interruption.is_asked:
            raise KeyboardInterrupt
        study.draw(cell)


def show_report(study: Study) -> None:
    tables = write_report(study.folder)
    table = tables[0].text() if tables else "No run is finished."
    write_to_reader(f"{table}\n\nReport: {study.folder / 'report.html'}\n", sys.stdout)


def report(study: Study, progress: Progress) -> int:
    show_report(study)
    missing = study.unfinished()
    if not missing:
        return 0
    for run in missing:
        progress.say(why_missing(study, run))
    progress.say(f"{len(missing)} of {len(study.plan.all_runs())} runs are missing. {_how_to_resume(study)}")
    return RUN_FAILED


def _conclude(study: Study, outcome: Outcome, progress: Progress) -> int:
    if not outcome.failed and not outcome.skipped:
        return 0
    names = ", ".join(run.name for run in outcome.failed)
    progress.say(f"{len(outcome.failed)} of {len(study.plan.all_runs())} runs failed ({names}), {len(outcome.skipped)} "
                 f"not run. {_how_to_resume(study)}")
    return RUN_FAILED


def _how_to_resume(study: Study) -> str:
    is_submitted = (study.folder / "slurm").is_dir()
    return f"Continue by: experiments/compare.py --resume {study.folder}{' --slurm' * is_submitted}"


def main() -> int:
    arguments = parser().parse_args()
    interruption = Interruption()
    study = None
    try:
        check_options(arguments)
        study = resume(arguments) if arguments.resume else begin(arguments)
        return work(study, arguments, interruption)
    except CompareError as error:
        print(f"compare: {error}", file=sys.stderr)
        if study is not None:
            print(_how_to_resume(study), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        if study is not None:
            done = len(study.plan.all_runs()) - len(study.unfinished())
            write_to_reader(f"Interrupted. {done} of {len(study.plan.all_runs())} runs are finished and kept in "
                            f"{study.folder}. {_how_to_resume(study)}\n", sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
