#!/usr/bin/python3
"""Figures, tables and a self-contained report.html of one or several studies of one kind, and what is found of the
directions that the papers report: of pairs (headstart-lab pairs) or of peers (headstart-lab peers), as the study says.

    experiments/figures.py studies/small.sqlite
    experiments/figures.py uniform.sqlite dirichlet.sqlite --multi-teacher runs/table-two --out both
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import USAGE, CompareError
from common.paths import plain_path
from common.study_file import kind_of

# What draws is imported where it is needed: --help and an unreadable study need no matplotlib.
if TYPE_CHECKING:
    from common.study_report import Report


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("study", type=plain_path, nargs="+", metavar="STUDY", help="a study's database; several: together")
    result.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: STUDY-figures beside it)")
    result.add_argument("--overwrite", action="store_true", help="replace the folder that an earlier call made")
    result.add_argument("--multi-teacher", type=plain_path, metavar="RUN",
                        help="pairs: a folder of experiments/compare.py with the cells of the published table")
    result.add_argument("--methods", type=words, default=[], metavar="A,B", help="pairs: only these")
    result.add_argument("--transfers", type=words, default=[], metavar="A,B", help="pairs: only these transfer sets")
    return result


def report_of_pairs(arguments: argparse.Namespace, out: Path, command: str) -> Report:
    from study.multi_teacher import read_multi_teacher
    from study.report import write_study_report
    from study.rows import read_studies
    study = read_studies(arguments.study).narrowed(arguments.methods, arguments.transfers)
    multi = read_multi_teacher(arguments.multi_teacher) if arguments.multi_teacher else None
    return write_study_report(study, multi, out, command, arguments.overwrite)


def report_of_peers(arguments: argparse.Namespace, out: Path, command: str) -> Report:
    from peers.report import write_peer_report
    from peers.rows import read_studies
    for option in ("multi_teacher", "methods", "transfers"):
        if getattr(arguments, option):
            raise CompareError(USAGE, f"--{option.replace('_', '-')} is for pair studies, and {arguments.study[0]} is "
                                      "a study of peers")
    return write_peer_report(read_studies(arguments.study), out, command, arguments.overwrite)


def main() -> int:
    arguments = parser().parse_args()
    first: Path = arguments.study[0]
    out = arguments.out or first.with_name(first.stem + "-figures")
    command = shlex.join([os.path.relpath(__file__), *sys.argv[1:]])
    try:
        write = {"pair": report_of_pairs, "peer": report_of_peers}[kind_of(arguments.study)]
        report = write(arguments, out, command)
    except CompareError as error:
        print(f"figures: {error}", file=sys.stderr)
        return error.code
    print(f"{report.headline}\nReport: {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
