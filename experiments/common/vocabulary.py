"""The words that the programs' settings take, as headstart-lab lists them; scripts check by these."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import USAGE, CompareError, unknown_word

PATIENCE_S = 60


@dataclass(frozen=True)
class Vocabulary:
    """document: what `headstart-lab words --json` prints."""

    document: Mapping[str, Any]

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The words of one vocabulary with what is said of each; none where the program has no such vocabulary."""
        return self.document.get(name, {"words": []})["words"]

    def words(self, name: str) -> list[str]:
        return [entry["name"] for entry in self.entries(name)]

    def words_of(self, setting: str) -> list[str]:
        """The words that a setting takes; empty where it takes something else."""
        return next((self.words(name) for name, one in self.document.items() if setting in one["settings"]), [])

    def check(self, setting: str, value: Any) -> None:
        known = self.words_of(setting)
        if known and value not in known:
            raise unknown_word(setting, str(value), known)


@functools.cache
def read_vocabulary(lab: str) -> Vocabulary:
    """Asks the program, once."""
    command = f"{lab} words --json"
    try:
        done = subprocess.run([lab, "words", "--json"], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompareError(USAGE, f"{command}: cannot be run ({error}); build the project again") from error
    try:
        vocabulary = Vocabulary(json.loads(done.stdout))
        if vocabulary.words("partitions"):
            return vocabulary
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise CompareError(USAGE, f"{command}: does not list the words of the settings, so that program and script are of "
                              "different versions: build the project again")
