#!/usr/bin/python3
"""Figures, tables and a self-contained report.html of one or several pair studies (headstart-lab pairs), and what is
found of the directions that the papers report.

    experiments/figures.py studies/small.sqlite
    experiments/figures.py uniform.sqlite dirichlet.sqlite --multi-teacher runs/table-two --out both
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from common.errors import CompareError
from common.paths import plain_path


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("study", type=plain_path, nargs="+", metavar="STUDY", help="a study's database; several: together")
    result.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: STUDY-figures beside it)")
    result.add_argument("--overwrite", action="store_true", help="replace the folder that an earlier call made")
    result.add_argument("--multi-teacher", type=plain_path, metavar="RUN",
                        help="a folder of experiments/compare.py with the cells of the published table")
    result.add_argument("--methods", type=words, default=[], metavar="A,B", help="only these")
    result.add_argument("--transfers", type=words, default=[], metavar="A,B", help="only these transfer sets")
    return result


def main() -> int:
    arguments = parser().parse_args()
    first: Path = arguments.study[0]
    out = arguments.out or first.with_name(first.stem + "-figures")
    try:
        # Not at the top: --help and an unreadable study need no matplotlib.
        from study.multi_teacher import read_multi_teacher
        from study.rows import read_studies
        study = read_studies(arguments.study).narrowed(arguments.methods, arguments.transfers)
        multi = read_multi_teacher(arguments.multi_teacher) if arguments.multi_teacher else None
        from study.report import headline, write_study_report
        command = shlex.join([os.path.relpath(__file__), *sys.argv[1:]])
        answers = write_study_report(study, multi, out, command, arguments.overwrite)
    except CompareError as error:
        print(f"figures: {error}", file=sys.stderr)
        return error.code
    print(f"{headline(study, answers)}\nReport: {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
