"""Silos that exist: each with data and settings of its own. Nothing of theirs is pooled, divided or written to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DATA, USAGE, CompareError
from common.files import read_list

from .programs import Settings, flat, nested

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # is_valid_client_name() of shared/base/names.hpp
LABELS = ("train-labels.npy", "train.csv")
HAS_DATA = ("data.path", "data.manifest", "worker.command")
NOT_ITS_OWN = {"server": "compare.py starts the server",
               "store.pretrained": "the comparison's folder keeps its pre-trained models"}


@dataclass(frozen=True)
class Silo:
    """settings: of its client, flat, over those that the plan has for all clients."""

    name: str
    settings: Settings

    @property
    def has_worker(self) -> bool:
        """A process of its own reads its data and makes its model."""
        return bool(self.settings.get("worker.command"))


def read_silos(entries: list[dict[str, Any]], are_elsewhere: bool) -> list[Silo]:
    """The plan's silos. are_elsewhere: their own people start them, so that only their names are known here."""
    silos = [_read_silo(entry, are_elsewhere) for entry in entries]
    names = [silo.name for silo in silos]
    for name in names:
        if names.count(name) > 1:
            raise CompareError(USAGE, f"silos: '{name}' stands twice; each silo needs a name of its own")
    return silos


def _read_silo(entry: dict[str, Any], are_elsewhere: bool) -> Silo:
    settings = flat(entry)
    name = settings.pop("name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CompareError(USAGE, "silos: expected a name of 1 to 64 letters, digits, '.', '_' or '-', the first a letter or "
                                  f"digit, got {name!r}; a list of silos names them as you like (--silos FILE.json)")
    nested(settings)
    if are_elsewhere:
        for key in settings:
            raise CompareError(USAGE, f"silo {name}: {key} is for its own people to set in mode remote; leave only its name")
        return Silo(name, {})
    for key, why in NOT_ITS_OWN.items():
        if key in settings:
            raise CompareError(USAGE, f"silo {name}: leave {key} out: {why}")
    if not any(settings.get(key) for key in HAS_DATA):
        raise CompareError(USAGE, f"silo {name}: nothing says where its data are: expected data.path, or worker.command")
    return Silo(name, settings)


def silos_at(place: Path) -> tuple[list[Any], list[str]]:
    """What --silos names, as a plan has it: a list in a JSON file, or a folder with a folder for each silo. Beside it the
    names of folders that are no silos."""
    if not place.is_dir():
        return read_list(place), []
    try:
        folders = sorted(child for child in place.iterdir() if child.is_dir())
    except OSError as error:
        raise CompareError(DATA, f"{place}: {error.strerror}") from error
    found = [folder for folder in folders if any((folder / file).is_file() for file in LABELS)]
    if not found:
        raise CompareError(DATA, f"{place}: no folder directly in it holds {' or '.join(LABELS)}; expected a folder for "
                                 "each silo, of its name")
    entries = [{"name": folder.name, "data": {"path": str(folder.absolute())}} for folder in found]
    return entries, [folder.name for folder in folders if folder not in found]
