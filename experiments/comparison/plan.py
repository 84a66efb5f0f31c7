"""Plans as data: which starts, partitions and seeds to compare, and the runs that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import USAGE, CompareError, unknown_word
from common.files import read_json
from common.vocabulary import Vocabulary

from .programs import (CENTRAL, CLIENT_PREFIX, DRAW_PREFIXES, EXISTING, MODES, PROCESSES, REMOTE, SIMULATION, STARTS, Settings,
                       check_start, flat, needs_models, nested, public_data_user)
from .silos import Silo, read_silos

REFERENCES = ("random", "best")


@dataclass(frozen=True)
class StartPlan:
    """A start and how long it runs. stop_at: the fraction of the random start's best accuracy that ends the run."""

    start: str
    rounds: int
    stop_at: float | None = None


@dataclass(frozen=True)
class Run:
    """One federation to run, or the centralised training of a seed."""

    partition: str
    seed: int
    plan: StartPlan

    @property
    def start(self) -> str:
        return self.plan.start

    @property
    def cell(self) -> tuple[str, int]:
        return self.partition, self.seed

    @property
    def name(self) -> str:
        if self.is_central:
            return f"{CENTRAL}-seed{self.seed}"
        return f"{self.partition}-seed{self.seed}-{self.start}"

    @property
    def is_central(self) -> bool:
        """Centralised training; its cell says whose clients' data it has."""
        return self.start == CENTRAL


@dataclass
class Plan:
    """starts: words, or objects {"start", "rounds", "stop_at"}. settings: nested or dotted, as the programs take them;
    "client.KEY" goes to the clients alone. A reference counts only where its runs last the whole budget.
    central_points: targets so many points of accuracy below centralised training, which runs once a seed.
    silos: silos that exist, each a name and the settings of its client, nested or dotted; nothing is drawn then, and
    clients is their number. In mode remote they have their names alone, or are left out."""

    name: str = "compare"
    title: str = "Communication rounds saved by a distilled start"
    mode: str = SIMULATION
    jobs: int = 1
    partitions: list[str] = field(default_factory=lambda: ["label-dirichlet"])
    starts: list[str | dict[str, Any]] = field(default_factory=lambda: ["random", "best", "kd-public"])
    seeds: list[int] = field(default_factory=lambda: [1])
    rounds: int = 20
    clients: int = 10
    silos: list[dict[str, Any]] = field(default_factory=list)
    references: list[str] = field(default_factory=lambda: list(REFERENCES))
    fractions: list[float] = field(default_factory=lambda: [0.9, 0.95, 1.0])
    accuracies: list[float] = field(default_factory=list)
    central_points: list[float] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)

    @property
    def draws_partitions(self) -> bool:
        return not self.silos and self.mode != REMOTE

    def silo_list(self) -> list[Silo]:
        return read_silos(self.silos, self.mode == REMOTE)

    def start_plans(self) -> list[StartPlan]:
        return [self._start_plan(entry) for entry in self.starts]

    def _start_plan(self, entry: str | dict[str, Any]) -> StartPlan:
        if isinstance(entry, str):
            return StartPlan(entry, self.rounds)
        for key in entry:
            if key not in ("start", "rounds", "stop_at"):
                raise unknown_word("key of a start", key, ("start", "rounds", "stop_at"))
        if not isinstance(entry.get("start", ""), str):
            raise CompareError(USAGE, f"start: expected a word, got {entry['start']!r}")
        return StartPlan(entry.get("start", ""), entry.get("rounds", self.rounds), entry.get("stop_at"))

    def cells(self) -> Iterator[tuple[str, int]]:
        return ((partition, seed) for partition in self.partitions for seed in self.seeds)

    def runs(self) -> list[Run]:
        return [Run(partition, seed, start) for partition, seed in self.cells() for start in self.start_plans()]

    def central_runs(self) -> list[Run]:
        """One a seed, on the clients' samples of the first partition: every partition of a seed shares out the same
        draw (random-chunks leaves some of it out)."""
        if not self.central_points:
            return []
        return [Run(self.partitions[0], seed, StartPlan(CENTRAL, 0)) for seed in self.seeds]

    def all_runs(self) -> list[Run]:
        return self.central_runs() + self.runs()

    def full_references(self) -> list[str]:
        """References whose runs neither stop early nor have fewer rounds than the budget."""
        full = {plan.start for plan in self.start_plans() if plan.rounds >= self.rounds and plan.stop_at is None}
        return [reference for reference in self.references if reference in full]

    def check(self) -> None:
        """What can be told without the programs."""
        _check_types(self)
        if self.mode not in MODES:
            raise unknown_word("mode", self.mode, MODES)
        for reference in self.references:
            if reference not in REFERENCES:
                raise unknown_word("reference", reference, REFERENCES)
        starts = self.start_plans()
        for plan in starts:
            check_start(plan.start)
        for what, values in (("partitions", self.partitions), ("seeds", self.seeds),
                             ("starts", [plan.start for plan in starts])):
            if not values or len(set(values)) != len(values):
                raise CompareError(USAGE, f"{what}: expected at least one and none twice, got {values}")
        self._check_numbers(starts)
        self._check_settings()
        self._check_silos()

    def check_words(self, vocabulary: Vocabulary) -> None:
        """After check(): the partitions, and settings that take one of several words."""
        for partition in self.partitions if self.draws_partitions else []:
            vocabulary.check("partition.kind", partition)
        for plan in self.start_plans():
            for key, value in STARTS[plan.start].items():
                vocabulary.check(key, value)
        for key, value in self.settings.items():
            vocabulary.check(key.removeprefix(CLIENT_PREFIX), value)
        for silo in self.silo_list():
            for key, value in silo.settings.items():
                vocabulary.check(key, value)

    def _check_numbers(self, starts: list[StartPlan]) -> None:
        for what, value in (("rounds", self.rounds), ("clients", self.clients), ("jobs", self.jobs)):
            if value < 1:
                raise CompareError(USAGE, f"{what}: expected at least 1, got {value}")
        for share in (*self.fractions, *self.accuracies):
            if not 0 < share <= 1:
                raise CompareError(USAGE, f"fractions and accuracies: expected above 0 and at most 1, got {share}")
        for points in self.central_points:
            if not 0 <= points < 100:
                raise CompareError(USAGE, f"central_points: expected at least 0 and below 100, got {points}")
        for plan in starts:
            if not isinstance(plan.rounds, int) or not 1 <= plan.rounds <= self.rounds:
                raise CompareError(USAGE, f"start {plan.start}: expected 1 to {self.rounds} rounds, got {plan.rounds}")
            if plan.stop_at is None:
                continue
            if not isinstance(plan.stop_at, (int, float)) or not 0 < plan.stop_at <= 1:
                raise CompareError(USAGE, f"start {plan.start}: stop_at is a fraction of the random start's best "
                                          f"accuracy, above 0 and at most 1, got {plan.stop_at}")
            if "random" not in [other.start for other in starts if other.stop_at is None]:
                raise CompareError(USAGE, f"start {plan.start} stops at what the random start reaches: "
                                          "add the start 'random'")

    def _check_settings(self) -> None:
        self.settings = flat(self.settings)
        nested(self.settings)
        for key in self.settings:
            if key in RESERVED and (self.draws_partitions or key != "data.manifest"):
                raise CompareError(USAGE, f"setting {key}: compare.py sets it itself (see {RESERVED[key]})")
            if key.startswith(CLIENT_PREFIX) and self.mode != PROCESSES:
                raise CompareError(USAGE, f"setting {key}: clients have settings of their own in mode processes only")

    def _check_silos(self) -> None:
        """What holds where nothing is drawn, before anything is started."""
        if self.draws_partitions:
            if EXISTING in self.partitions:
                raise CompareError(USAGE, f"partition {EXISTING} stands for silos that exist: name them (silos, --silos)")
            return
        why = "mode remote" if self.mode == REMOTE else "silos"
        if self.mode == SIMULATION:
            raise CompareError(USAGE, "silos: a simulation divides one data set, and silos have their own; take mode processes")
        if self.partitions != [EXISTING]:
            raise CompareError(USAGE, f"partitions: with {why} nothing is drawn; leave {', '.join(self.partitions)} out")
        if self.central_points:
            raise CompareError(USAGE, f"central_points: with {why} nobody has all data in one place; leave it out")
        if self.silos and self.clients != len(self.silo_list()):
            raise CompareError(USAGE, f"clients: expected {len(self.silos)}, the number of silos, got {self.clients}; leave it out")
        for key in self.settings:
            if key.startswith(DRAW_PREFIXES):
                raise CompareError(USAGE, f"setting {key}: with {why} nothing is drawn; leave it out")
        self._check_public_data()
        if self.mode == REMOTE:
            self._check_remote()

    def _check_public_data(self) -> None:
        if "data.manifest" in self.settings:
            return
        remedy = ("name a manifest that says which samples of the server are {} by data.manifest (headstart-lab partition), "
                  "or {}")
        for plan in self.start_plans():
            user = public_data_user(plan.start, self.settings)
            if user is not None:
                other = "take kd-student in its place" if "kd" in user or "auto" in user else "leave it out"
                raise CompareError(USAGE, f"{user} distils on public data, and the server has none: "
                                          + remedy.format("public", other))
        if self.settings.get("validation.source") == "server":
            raise CompareError(USAGE, "validation.source=server rates models on data of the server, and it has none: "
                                      + remedy.format("for validation", "set validation.source=federated"))

    def _check_remote(self) -> None:
        """One server after another, each at the place where the silos look for it."""
        address, port = self.settings.get("listen.address"), self.settings.get("listen.port")
        if not isinstance(address, str) or not address:
            raise CompareError(USAGE, "mode remote: the silos dial one address; set listen.address, as 0.0.0.0 or this machine's")
        if not isinstance(port, int) or isinstance(port, bool) or port < 1:
            raise CompareError(USAGE, "mode remote: the silos dial one port for all runs; set listen.port, above 0")
        if self.jobs != 1:
            raise CompareError(USAGE, f"jobs: in mode remote runs use one port, one at a time; expected 1, got {self.jobs}")

    def add_settings(self, settings: Settings) -> None:
        """Over those that the plan has."""
        _check_types(self)
        self.settings = flat(self.settings) | settings

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any], origin: str) -> Plan:
        known = [entry.name for entry in dataclasses.fields(Plan)]
        for key in document:
            if key not in known:
                error = unknown_word("key", key, known)
                raise CompareError(error.code, f"{origin}: {error}")
        return Plan(**_with_defaults_of_silos(document))


def _with_defaults_of_silos(document: dict[str, Any]) -> dict[str, Any]:
    """What a plan over silos that exist need not say."""
    silos, is_remote = document.get("silos"), document.get("mode") == REMOTE
    if not silos and not is_remote:
        return document
    defaults: dict[str, Any] = {"partitions": [EXISTING], "mode": PROCESSES, "starts": ["random", "best", "kd-student"]}
    if isinstance(silos, list) and silos:
        defaults["clients"] = len(silos)
    elif is_remote and "clients" not in document:
        raise CompareError(USAGE, "mode remote: say how many silos there are (clients), or name them (silos)")
    return defaults | document


RESERVED = {
    "run.folder": "--out", "run.seed": "--seeds", "seed": "--seeds", "federation.rounds": "--rounds",
    "federation.clients": "the plan's clients", "partition.clients": "the plan's clients",
    "partition.kind": "--partitions", "start.model": "--starts", "consolidation.student": "--starts",
    "consolidation.weights": "--starts", "consolidation.transfer": "--starts", "data.manifest": "--partitions",
    "data.share": "the plan's clients", "store.pretrained": "--out", "targets.accuracies": "the plan's accuracies",
    "targets.stop": "a start's stop_at", "evaluation.central": "the targets, which need it",
}


def _check_types(plan: Plan) -> None:
    for entry in dataclasses.fields(Plan):
        value, default = getattr(plan, entry.name), getattr(Plan(), entry.name)
        if not isinstance(value, type(default)) or isinstance(value, bool):
            raise CompareError(USAGE, f"plan key {entry.name}: expected {type(default).__name__}, got {value!r}")
    kinds: dict[str, tuple[type, ...]] = {"seeds": (int,), "partitions": (str,), "starts": (str, dict),
                                          "fractions": (int, float), "accuracies": (int, float),
                                          "central_points": (int, float), "silos": (dict,)}
    for name, allowed in kinds.items():
        for value in getattr(plan, name):
            if not isinstance(value, allowed) or isinstance(value, bool):
                expected = " or ".join(kind.__name__ for kind in allowed)
                raise CompareError(USAGE, f"plan key {name}: {value!r} is not {expected}")


def load_plan(file: Path) -> Plan:
    return Plan.from_json(read_json(file), str(file))


def prerequisites(run: Run, runs: list[Run]) -> list[Run]:
    """Runs of the same cell to end first: the random start where its accuracy is the target, and the first start that
    pre-trains, so that the others find its models in the store instead of training them a second time."""
    cell = [other for other in runs if other.cell == run.cell]
    first: list[Run] = []
    if run.plan.stop_at is not None:
        first += [other for other in cell if other.start == "random"]
    if needs_models(run.start):
        pre_training = next(other for other in cell if needs_models(other.start))
        first += [pre_training] if pre_training != run else []
    return first
