"""python3 -m headstart: a run's rounds for TensorBoard and MLflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._version import VERSION
from .errors import HeadstartError

_EXIT_CODES = {"data": 3, "storage": 4}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m headstart", description="Hands a run's rounds to other tools.")
    parser.add_argument("--version", action="version", version=f"headstart {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    board = commands.add_parser("tensorboard", help="write TensorBoard's event files")
    board.add_argument("--out", type=Path, required=True, metavar="LOGDIR", help="folder for the event file; it is made")
    flow = commands.add_parser("mlflow", help="log to MLflow, by the package that is installed here")
    flow.add_argument("--experiment", help="name of MLflow's experiment")
    for command in (board, flow):
        command.add_argument("run", type=Path, metavar="RUN", help="folder of the run (run.folder of its server)")
        command.add_argument("--follow", action="store_true", help="go on until the run has ended")
    options = parser.parse_args(arguments)
    try:
        if options.command == "tensorboard":
            from .tensorboard import write

            print(f"written: {write(options.run, options.out, options.follow)}")
        else:
            from .mlflow_log import log

            print(f"logged: {log(options.run, options.experiment, options.follow)}")
    except HeadstartError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return _EXIT_CODES.get(error.cause, 2)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
