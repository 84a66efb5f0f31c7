"""JSON files, read and written with one sentence about what is wrong."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any, TextIO

from .errors import DATA, STORAGE, CompareError


def read_json(file: Path) -> dict[str, Any]:
    document = _parse(file)
    if not isinstance(document, dict):
        raise CompareError(DATA, f"{file}: expected a JSON object, {{...}}")
    return document


def read_list(file: Path) -> list[Any]:
    document = _parse(file)
    if not isinstance(document, list):
        raise CompareError(DATA, f"{file}: expected a JSON list, [...]")
    return document


def _parse(file: Path) -> Any:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in values if keys.count(key) > 1)
            raise CompareError(DATA, f"{file}: the key '{twice}' stands twice in one object, and one of its values would be "
                                     "lost; join the two")
        return values

    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=without_twins)
    except OSError as error:
        raise CompareError(DATA, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CompareError(DATA, f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise CompareError(DATA, f"{file}, line {error.lineno}: not JSON ({error.msg})") from error


def save_json(document: Any, file: Path) -> None:
    """Whole or not at all: a resumed call trusts what it finds."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(file.name + ".part")
        draft.write_text(json.dumps(document, indent=2) + "\n")
        draft.replace(file)
    except OSError as error:
        raise CompareError(STORAGE, f"{file}: cannot be written ({error.strerror})") from error


def read_rounds(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of rounds.jsonl so far; a last line still being written is left for later."""
    try:
        text = (run_folder / "rounds.jsonl").read_text()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    try:
        return [json.loads(line) for line in whole.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise CompareError(DATA, f"{run_folder / 'rounds.jsonl'}: not one JSON object a line ({error.msg})") from error


def make_new_folder(folder: Path, remedy: str) -> None:
    """Refuses one that exists."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise CompareError(STORAGE, f"{folder} exists already: {remedy}") from error
    except OSError as error:
        raise CompareError(STORAGE, f"{folder}: cannot be made ({error.strerror})") from error


def lock_file(file: Path, is_shared: bool, refusal: str) -> TextIO:
    """Held while the returned file is open, by one alone or by any number of sharers. Refuses at once what is held."""
    try:
        file.parent.mkdir(exist_ok=True)
        lock = file.open("a+")  # a file system of several machines lets only readers share, and only writers be alone
        fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise CompareError(STORAGE, refusal) from error
    except OSError as error:
        raise CompareError(STORAGE, f"{file}: cannot be locked ({error.strerror})") from error
    return lock
