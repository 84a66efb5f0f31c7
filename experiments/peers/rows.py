"""What is read out of the database of a study of peers, and nothing that follows from it. The meaning of each metric
stands in experiments/lab/peer_cell.hpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DATA, CompareError
from common.study_file import PARTITIONS, StudyReading, setting_of
from common.text import in_order, names_of

# The words of headstart-lab in the order of figures and tables. A study is read without the program; a test holds these
# against it.
METHODS = ("kd", "gossip", "def-kt", "proxyfl", "fedmd", "alone")
IGNORE_GRAPH = ("alone", "proxyfl")  # the same in every graph: a study has them in its first one alone
MEASURES = ("ce", "kl", "js", "sed", "td", "msed")
AVERAGES = ("probabilities", "logits", "none")
STRENGTHS = ("plain", "matched")
REDUCTIONS = ("mean", "published")
GRAPHS = ("full", "ring", "star", "regular", "small-world", "erdos-renyi", "edges")


@dataclass(frozen=True, order=True)
class Setting:
    """What is done with what peers exchange. Those that are no kd have the method alone."""

    method: str
    measure: str = ""
    average: str = ""
    strength: str = ""
    reduction: str = ""
    alpha: float = 0.0
    temperature: float = 0.0

    @property
    def is_kd(self) -> bool:
        return self.method == "kd"


@dataclass(frozen=True)
class Peer:
    name: str
    num_samples: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """One number a peer. overall: the metric `global`, which is a word of Python."""

    overall: tuple[float, ...]
    own: tuple[float, ...]
    validation: tuple[float, ...]  # empty: the study has no validation samples
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """Means over the peers; spread: between the best and the worst peer's global accuracy."""

    overall: float
    own: float
    spread: float


@dataclass(frozen=True)
class Cell:
    """One finished cell. Accuracies are 0..1, of the test set unless named otherwise."""

    partition: str
    seed: int
    graph: str
    setting: Setting
    edges: tuple[tuple[int, int], ...]
    peers: tuple[Peer, ...]
    rounds: tuple[Round, ...]  # from 0, before anything is sent
    before: Level
    after: Level
    ensemble: float
    bytes: float
    seconds: float

    @property
    def validation(self) -> float | None:
        """After the last round, mean over the peers."""
        last = self.rounds[-1].validation
        return sum(last) / len(last) if last else None

    @property
    def start(self) -> tuple[str, int, tuple[float, ...]]:
        """What cells with the same pre-trained models have in common: only these are compared."""
        return self.partition, self.seed, self.rounds[0].overall


@dataclass
class Study:
    """One or several databases, looked at together."""

    files: list[Path]
    settings: list[dict[str, Any]]
    cells: list[Cell]
    versions: list[str]
    planned: int
    done: int

    @property
    def partitions(self) -> list[str]:
        return in_order((cell.partition for cell in self.cells), PARTITIONS)

    @property
    def graphs(self) -> list[str]:
        """Those over which something is sent; where nothing is, those that there are."""
        used = {cell.graph for cell in self.cells if cell.setting.method not in IGNORE_GRAPH}
        return in_order(used or {cell.graph for cell in self.cells}, GRAPHS)

    @property
    def seeds(self) -> list[int]:
        return sorted({cell.seed for cell in self.cells})

    @property
    def num_rounds(self) -> int:
        return max(len(cell.rounds) for cell in self.cells) - 1

    def setting(self, key: str, default: Any = None) -> Any:
        return setting_of(self.settings[0], key, default)

    def of(self, partition: str, graph: str) -> list[Cell]:
        """With those that are the same in every graph."""
        return [cell for cell in self.cells
                if cell.partition == partition and (cell.graph == graph or cell.setting.method in IGNORE_GRAPH)]


def read_studies(files: Sequence[Path]) -> Study:
    """All finished cells. A cell that two files hold counts once, and must be the same in both."""
    cells: list[Cell] = []
    reading = StudyReading("peer", lambda *found: cells.append(cell_of(*found)))
    reading.read_all(files)
    if not cells:
        raise CompareError(DATA, f"{names_of(files)}: no cell is finished yet (of {reading.planned})")
    return Study(list(files), reading.settings, cells, sorted(reading.versions), reading.planned, reading.done)


def cell_of(settings: dict[str, Any], metrics: dict[str, Any], seconds: float) -> Cell:
    peers = tuple(Peer(str(peer["name"]), int(peer["num_samples"]), tuple(int(count) for count in peer["classes"]))
                  for peer in metrics["peers"])
    rounds = tuple(_round_of(values, len(peers)) for values in metrics["rounds"])
    if not peers or len(rounds) < 2:
        raise ValueError(f"it has {len(peers)} peers and {len(rounds)} rounds, the one before anything is sent included")
    edges = tuple((int(one), int(other)) for one, other in metrics["edges"])
    if any(not 0 <= end < len(peers) for edge in edges for end in edge):
        raise ValueError("an edge leads to a peer that is not there")
    return Cell(partition=settings["partition"]["kind"], seed=int(settings["peer"]["seed"]),
                graph=settings["graph"]["kind"], setting=_setting_of(settings), edges=edges, peers=peers, rounds=rounds,
                before=_level_of(metrics["before"]), after=_level_of(metrics["after"]),
                ensemble=float(metrics["ensemble"]), bytes=float(metrics["bytes"]), seconds=seconds)


def _setting_of(settings: dict[str, Any]) -> Setting:
    method = str(settings["peers"]["method"])
    if method != "kd":
        return Setting(method)
    kd = settings["kd"]
    return Setting(method, kd["measure"], kd["average"], kd["strength"], kd["reduction"], float(kd["alpha"]),
                   float(kd["temperature"]))


def _round_of(values: dict[str, Any], num_peers: int) -> Round:
    def numbers(name: str) -> tuple[float, ...]:
        found = tuple(float(value) for value in values[name])
        if len(found) != num_peers:
            raise ValueError(f"a round has {len(found)} numbers of '{name}' for {num_peers} peers")
        return found

    return Round(numbers("global"), numbers("own"),
                 numbers("validation") if "validation" in values else (), tuple(int(n) for n in numbers("bytes")))


def _level_of(values: dict[str, Any]) -> Level:
    return Level(float(values["global"]), float(values["own"]), float(values["spread"]))
