"""A worker's script, run up to its serve(worker) for other purposes than serving."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from . import serving
from .errors import HeadstartError
from .worker import Worker


class _Served(BaseException):
    """Ends the script where it would begin to serve."""


def worker_of(script: str | os.PathLike[str], *arguments: str | os.PathLike[str]) -> Worker:
    """The worker that the script hands to headstart.serve(). The script runs in this process, with these arguments, up to
    there and no further."""
    if not Path(script).is_file():
        raise HeadstartError(f"{script}: there is no such script", "data")
    found: list[Worker] = []

    def take(worker: Worker) -> None:
        found.append(worker)
        raise _Served

    before = serving.instead, sys.argv, list(sys.path)
    serving.instead, sys.argv = take, [os.fspath(script), *(os.fspath(argument) for argument in arguments)]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        runpy.run_path(os.fspath(script), run_name="__main__")
    except _Served:
        pass
    finally:
        serving.instead, sys.argv, sys.path[:] = before
    if not found:
        raise HeadstartError(f"{script} ends without headstart.serve(worker), so it is no worker", "data")
    return found[0]
