"""Plans of experiments/compare_peers.py: which methods run over which partitions, and the settings of all peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import USAGE, CompareError, unknown_word
from common.files import read_json
from common.vocabulary import Vocabulary

FEWEST_PEERS = 2
# What a plan does not set: compare_peers.py does.
RESERVED = {"members": "peers", "edges": "settings.graph", "seed": "seed"}
DRAW_SECTIONS = ("data", "draw", "partition")


@dataclass(frozen=True)
class Run:
    """One exchange: all peers of one partition with one method."""

    partition: str
    method: str

    @property
    def name(self) -> str:
        return f"{self.partition}-{self.method}"


@dataclass
class PeerPlan:
    """draw: sections of `headstart-lab partition`. settings: sections of peers.json."""

    name: str = "peers"
    title: str = "Peers without a server"
    seed: int = 1
    peers: int = 10
    partitions: list[str] = field(default_factory=lambda: ["primary", "label-dirichlet"])
    methods: list[str] = field(default_factory=lambda: ["kd", "gossip", "alone"])
    draw: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [f"silo-{index}" for index in range(self.peers)]

    @property
    def rounds(self) -> int:
        return int(self.settings.get("peers", {}).get("rounds", 1))

    def runs(self) -> Iterator[Run]:
        """Method by method within a partition: the first run trains the models that the others find."""
        return (Run(partition, method) for partition in self.partitions for method in self.methods)

    def check(self, vocabulary: Vocabulary) -> None:
        for entry in dataclasses.fields(self):
            value, default = getattr(self, entry.name), getattr(PeerPlan(), entry.name)
            if not isinstance(value, type(default)) or isinstance(value, bool):
                raise CompareError(USAGE, f"plan key {entry.name}: expected {type(default).__name__}, got {value!r}")
        for what, values, setting in (("partitions", self.partitions, "partition.kind"),
                                      ("methods", self.methods, "peers.method")):
            if not values or any(values.count(value) > 1 for value in values):
                raise CompareError(USAGE, f"{what}: expected at least one and none twice, got {values}")
            for value in values:
                vocabulary.check(setting, value)
        if self.peers < FEWEST_PEERS:
            raise CompareError(USAGE, f"peers: an exchange needs {FEWEST_PEERS} at least, got {self.peers}")
        for key in self.draw:
            if key not in DRAW_SECTIONS:
                raise unknown_word("section of draw", key, DRAW_SECTIONS)
            if not isinstance(self.draw[key], dict):
                raise CompareError(USAGE, f"draw.{key}: expected a section, {{...}}")
        for key, value in self.settings.items():
            if key in RESERVED:
                raise CompareError(USAGE, f"settings.{key}: compare_peers.py writes it itself (see the plan's "
                                          f"{RESERVED[key]})")
            if not isinstance(value, dict):
                raise CompareError(USAGE, f"settings.{key}: expected a section of peers.json, {{...}}")
        rounds = self.settings.get("peers", {}).get("rounds", 1)
        if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
            raise CompareError(USAGE, f"settings.peers.rounds: expected 1 at least, got {rounds!r}")
        if "method" in self.settings.get("peers", {}):
            raise CompareError(USAGE, "settings.peers.method: compare_peers.py writes it itself (see the plan's methods)")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_plan(file: Path) -> PeerPlan:
    document = read_json(file)
    known = [entry.name for entry in dataclasses.fields(PeerPlan)]
    for key in document:
        if key not in known:
            error = unknown_word("key", key, known)
            raise CompareError(error.code, f"{file}: {error}")
    return PeerPlan(**document)
