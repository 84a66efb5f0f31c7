"""python3 -m headstart: a worker's script tried, or its start written; a run's rounds for TensorBoard and MLflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import mlflow_log, tensorboard
from ._version import VERSION
from .errors import HeadstartError
from .model_files import save_model
from .scripts import worker_of
from .trying import try_out

_EXIT_CODES = {"data": 3, "storage": 4}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m headstart", description="Tries workers, writes the model that a run "
                                     "starts from, and hands a run's rounds to other tools.")
    parser.add_argument("--version", action="version", version=f"headstart {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    trial = commands.add_parser("try", help="try a worker's script without a server: headstart.try_out()")
    start = commands.add_parser("start", help="write the untrained model of a worker's script, which a run starts from")
    start.add_argument("--out", type=Path, required=True, metavar="FILE", help="for model.name=state:FILE of the server")
    for command in (trial, start):
        command.add_argument("script", type=Path, metavar="SCRIPT", help="ends in headstart.serve(worker)")
        command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="the script's own")
    board = commands.add_parser("tensorboard", help="write TensorBoard's event files")
    board.add_argument("--out", type=Path, required=True, metavar="LOGDIR", help="folder for the event file; it is made")
    flow = commands.add_parser("mlflow", help="log to MLflow, by the package that is installed here")
    flow.add_argument("--experiment", help="name of MLflow's experiment")
    for command in (board, flow):
        command.add_argument("run", type=Path, metavar="RUN", help="folder of the run (run.folder of its server)")
        command.add_argument("--follow", action="store_true", help="go on until the run has ended")
    options = parser.parse_args(arguments)
    try:
        return _perform(options)
    except HeadstartError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return _EXIT_CODES.get(error.cause, 2)
    except KeyboardInterrupt:
        return 130


def _perform(options: argparse.Namespace) -> int:
    if options.command == "try":
        return 0 if try_out(worker_of(options.script, *options.arguments)).is_ok else 8
    if options.command == "start":
        save_model(options.out, worker_of(options.script, *options.arguments))
        print(f"written: {options.out}")
    elif options.command == "tensorboard":
        print(f"written: {tensorboard.write(options.run, options.out, options.follow)}")
    else:
        print(f"logged: {mlflow_log.log(options.run, options.experiment, options.follow)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
