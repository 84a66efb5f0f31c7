"""Where the programs lie, and of which state of the code they are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .errors import USAGE, CompareError

ROOMS = ("bin", "server", "client", "client/peer", "experiments")  # a build tree keeps each program in that of its room


def find_program(name: str, folder: Path | None) -> str:
    """folder None: on the PATH."""
    if folder is None:
        found = shutil.which(name)
    else:
        places = (folder, *(folder / room for room in ROOMS))
        found = next((str(place / name) for place in places if (place / name).is_file()), None)
    if found is None:
        where = "on the PATH" if folder is None else f"in {folder}"
        raise CompareError(USAGE, f"{name} not found {where}: build the project first, or name its folder by --bin")
    return found


def folder_of_programs(checkout: Path, asked: Path | None, program: str) -> Path | None:
    """The folder asked for, or the build tree that has `program`; None: the PATH. Relative where possible: reports name
    commands that work in another checkout."""
    if asked is not None:
        return _shown(asked)
    built = [build for build in (checkout / "build", checkout / "build" / "release")
             if any((build / room / program).is_file() for room in ("", *ROOMS))]
    return _shown(built[0]) if built else None


def _shown(path: Path) -> Path:
    absolute = path.resolve()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def commit_of(checkout: Path) -> str:
    """Which state of the code a folder is of, for its report."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12",
                               "--exclude=*"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
