#!/usr/bin/python3
"""Runs peers that learn from each other without a server, each as a process of its own on this machine, by several
methods over several partitions, and compares the methods.

    experiments/compare_peers.py                       # ten peers, three methods, two partitions: minutes
    experiments/compare_peers.py --plan FILE --out DIR
    experiments/compare_peers.py --draw DIR            # table and report of a folder again
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from common.errors import INTERRUPTED, USAGE, CompareError
from common.files import make_new_folder, save_json
from common.paths import plain_path
from common.processes import Interruption
from common.programs import commit_of, find_program, folder_of_programs
from common.terminal import clock, write_to_reader
from common.vocabulary import read_vocabulary
from peers.exchange import LAB, PEER, Exchanges, exchange
from peers.plan import Run, load_plan

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "experiments" / "plans" / "exchange" / "demo.json"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--plan", type=plain_path, metavar="FILE", help="a plan (default: plans/exchange/demo.json)")
    result.add_argument("--bin", type=plain_path, metavar="DIR",
                        help="where the programs are (default: build/, build/release/, then PATH)")
    result.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: runs/PLAN-TIME)")
    result.add_argument("--draw", type=plain_path, metavar="DIR", help="run nothing; table and report of this folder again")
    return result


def begin(arguments: argparse.Namespace) -> Exchanges:
    plan = load_plan(arguments.plan or DEMO)
    programs = folder_of_programs(ROOT, arguments.bin, PEER)
    find_program(PEER, programs)
    plan.check(read_vocabulary(find_program(LAB, programs)))
    folder = arguments.out or Path("runs") / f"{plan.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    make_new_folder(folder, "name another by --out")
    save_json(plan.to_json(), folder / "plan.json")
    (folder / "commit.txt").write_text(commit_of(ROOT) + "\n")
    (folder / "calls.txt").write_text(shlex.join([os.path.relpath(__file__), *sys.argv[1:]]) + "\n")
    return Exchanges(folder, plan, programs)


class Progress:
    """On standard error, so that standard output holds the table alone: one line that changes in a terminal, one line a
    run elsewhere."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty()

    def say(self, text: str) -> None:
        write_to_reader(("\r\x1b[K" if self._is_live else "") + text + "\n", sys.stderr)

    def show(self, text: str) -> None:
        if self._is_live:
            write_to_reader("\r\x1b[K" + text, sys.stderr)


def state_of(rounds: list[int], last: int) -> str:
    """rounds: those that each peer has done; -1: not yet pre-trained."""
    if min(rounds) < 0:
        return f"{sum(done >= 0 for done in rounds)} of {len(rounds)} peers have trained their own model"
    return f"round {min(min(rounds) + 1, last)} of {last}"


def run_all(exchanges: Exchanges, interruption: Interruption) -> None:
    progress, plan, began = Progress(), exchanges.plan, time.monotonic()
    runs = list(plan.runs())
    progress.say(f"{len(runs)} runs of {plan.peers} peers, {plan.rounds} rounds each, in {exchanges.folder}")
    for place, run in enumerate(runs):
        def tell(rounds: list[int], run: Run = run, place: int = place) -> None:
            progress.show(f"run {place + 1} of {len(runs)}, {run.name}: {state_of(rounds, plan.rounds)}, "
                          f"{clock(time.monotonic() - began)}")

        started = time.monotonic()
        try:
            exchange(exchanges, run, lambda: interruption.is_asked, tell)
        except BaseException:
            progress.show("")
            raise
        progress.say(f"{run.name} is done, {clock(time.monotonic() - started)}")
    progress.say(f"{len(runs)} runs in {clock(time.monotonic() - began)}")


def conclude(folder: Path) -> int:
    from peers.exchange_report import write_report  # --help and a refusal need no matplotlib
    table = write_report(folder)
    write_to_reader(f"{table.text()}\n\nReport: {folder / 'report.html'}\n", sys.stdout)
    return 0


def main() -> int:
    arguments = parser().parse_args()
    interruption = Interruption()
    try:
        if arguments.draw:
            if arguments.plan or arguments.bin or arguments.out:
                raise CompareError(USAGE, "--draw runs nothing and takes no other option")
            return conclude(arguments.draw)
        exchanges = begin(arguments)
        run_all(exchanges, interruption)
        return conclude(exchanges.folder)
    except CompareError as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        write_to_reader("Interrupted. All peers are stopped.\n", sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
