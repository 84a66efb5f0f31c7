"""Rounds, seconds and bytes to a target accuracy, with and without what was spent before round 1.

Round r counts from 0, the start model before round 1. A start that needs the clients' models is charged, in rounds,
the bytes moved before round 1 divided by the bytes of a FedAvg round, rounded up, at least 1; its seconds begin with
the first pre-training step. A run that never gets there is censored: it counts as its budget (and its charge) and is
a lower bound. So does a cell count in which neither of two runs gets there: to leave it out would favour the start that
fails where the other fails too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import DATA, CompareError
from common.files import read_json, read_rounds

from .plan import Plan, Run
from .programs import CENTRAL, is_finished, needs_models, title_of_start


@dataclass(frozen=True)
class RoundLine:
    number: int
    accuracy: float
    loss: float | None
    seconds: float
    bytes: int
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class Result:
    """A finished run, as its folder tells it. Its seconds count pre-training that another run did for this one as if it
    had been done now."""

    run: Run
    rounds: list[RoundLine]
    before_seconds: float
    before_bytes: int
    summary: dict[str, Any] = field(repr=False)
    info: dict[str, Any] = field(repr=False)

    @property
    def reused_seconds(self) -> float:
        """The share of before_seconds that another run spent."""
        return self.summary.get("before_rounds", {}).get("pretrain_reused_seconds", 0.0)

    @property
    def seed_accuracy(self) -> float:
        return self.rounds[0].accuracy

    @property
    def validation_accuracy(self) -> float | None:
        """Of the start model, by the validation source. Without checkpoints of the best model only a seed is rated."""
        if self.rounds[0].validation_accuracy is not None:
            return self.rounds[0].validation_accuracy
        return self.summary.get("start_report", {}).get("gate", {}).get("seed_accuracy")

    @property
    def temperature(self) -> float | None:
        """The one that tuning chose."""
        return self.summary.get("start_report", {}).get("tuning", {}).get("temperature")

    @property
    def final_accuracy(self) -> float:
        return self.rounds[-1].accuracy

    @property
    def best_accuracy(self) -> float:
        return max(line.accuracy for line in self.rounds)

    @property
    def falls(self) -> bool:
        """The last round is below round 0: the rounds undid part of what the start had."""
        return len(self.rounds) > 1 and self.final_accuracy < self.seed_accuracy

    def accuracy_over(self, last_round: int) -> float:
        """Mean over rounds 1 to last_round."""
        return statistics.fmean(line.accuracy for line in self.rounds if 1 <= line.number <= last_round)


def read_result(run: Run, folder: Path) -> Result:
    summary = read_json(folder / "summary.json")
    before = summary.get("before_rounds", {})
    lines = [_round_line(line, folder) for line in read_rounds(folder)]
    if [line.number for line in lines] != list(range(len(lines))) or not lines:
        raise CompareError(DATA, f"{folder / 'rounds.jsonl'}: expected one line a round from round 0 on, "
                                 f"got rounds {[line.number for line in lines]}")
    return Result(run, lines, before.get("seconds", 0.0), before.get("bytes_up", 0) + before.get("bytes_down", 0),
                  summary, read_json(folder / "run.json"))


def _round_line(line: dict[str, Any], folder: Path) -> RoundLine:
    try:
        return RoundLine(line["round"], line["accuracy"], line.get("loss"), line["seconds"],
                         line["bytes_up"] + line["bytes_down"], line.get("validation_accuracy"))
    except KeyError as error:
        raise CompareError(DATA, f"{folder / 'rounds.jsonl'}: a line without {error}") from error


@dataclass(frozen=True)
class CentralResult:
    """Centralised training of one seed, on all clients' data."""

    seed: int
    accuracy: float  # On the test set, of the epoch that the validation data chose.
    summary: dict[str, Any] = field(repr=False)
    info: dict[str, Any] = field(repr=False)


def read_central(run: Run, folder: Path) -> CentralResult:
    summary = read_json(folder / "summary.json")
    accuracy = summary.get("accuracy")
    if not isinstance(accuracy, (int, float)):
        raise CompareError(DATA, f"{folder / 'summary.json'}: expected the accuracy of centralised training, "
                                 f"got {accuracy!r}")
    return CentralResult(run.seed, accuracy, summary, read_json(folder / "run.json"))


@dataclass(frozen=True)
class Target:
    """A fraction of what a reference start reaches at best within the budget; so many points of accuracy below
    centralised training (reference CENTRAL); or (no reference) an accuracy."""

    value: float
    reference: str | None = None

    @property
    def label(self) -> str:
        if self.reference is None:
            return f"accuracy {100 * self.value:.4g}%"
        if self.reference == CENTRAL:
            return title_of_start(CENTRAL) + (f" less {self.value:.4g} points" if self.value else "")
        reference = "the random start's best" if self.reference == "random" else "the best-local start's best"
        return reference if self.value == 1 else f"{100 * self.value:.4g}% of {reference}"

    @property
    def difficulty(self) -> float:
        """Orders the targets of one reference."""
        return -self.value if self.reference == CENTRAL else self.value


def targets_of(plan: Plan) -> list[Target]:
    relative = [Target(fraction, reference) for reference in plan.full_references() for fraction in plan.fractions]
    central = [Target(points, CENTRAL) for points in plan.central_points]
    return relative + central + [Target(accuracy) for accuracy in plan.accuracies]


@dataclass(frozen=True)
class Cost:
    """What it took to get to a target; is_censored: it did not get there, and took at least this."""

    rounds: float
    seconds: float
    bytes: float
    is_censored: bool


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with the lowest and the highest. bound: '>=' where a part is a lower bound, '<=' likewise,
    '~' with parts of both kinds, '' where the mean is exact."""

    mean: float
    low: float
    high: float
    count: int
    bound: str = ""

    @staticmethod
    def of(values: Iterable[float], bounds: Iterable[str] = ()) -> Spread | None:
        parts = list(values)
        if not parts:
            return None
        kinds = {bound for bound in bounds if bound}
        bound = kinds.pop() if len(kinds) == 1 else ("~" if kinds else "")
        return Spread(statistics.fmean(parts), min(parts), max(parts), len(parts), bound)


@dataclass(frozen=True)
class Saving:
    """Share of a baseline's rounds, seconds or bytes that a start saves: mean over cells, below 0 where it takes more.
    at_budget: cells in which neither run reached the target, counted at their budgets. undefined: cells left out, as
    the baseline needs nothing to the target, or as a run of fewer rounds than the plan's did not reach it. The cells of all planned that have both runs: spread.count + undefined."""

    spread: Spread | None
    at_budget: int = 0
    undefined: int = 0

    @property
    def count(self) -> int:
        return 0 if self.spread is None else self.spread.count


class Comparison:
    """All finished runs of a folder and the questions put to them."""

    def __init__(self, plan: Plan, results: Sequence[Result], central: Sequence[CentralResult] = ()) -> None:
        self.plan = plan
        self.targets = targets_of(plan)
        self.central = {result.seed: result for result in central}
        self._results = {(*result.run.cell, result.run.start): result for result in results}

    def result(self, partition: str, seed: int, start: str) -> Result | None:
        return self._results.get((partition, seed, start))

    def results(self, partition: str, start: str) -> list[Result]:
        found = (self.result(partition, seed, start) for seed in self.plan.seeds)
        return [result for result in found if result is not None]

    def all_results(self) -> list[Result]:
        return list(self._results.values())

    def missing(self) -> list[Run]:
        return [run for run in self.plan.all_runs()
                if (run.seed not in self.central if run.is_central else (*run.cell, run.start) not in self._results)]

    def starts(self) -> list[str]:
        return [start.start for start in self.plan.start_plans()]

    def threshold(self, target: Target, partition: str, seed: int) -> float | None:
        """The accuracy to reach; None while the reference run is missing."""
        if target.reference is None:
            return target.value
        if target.reference == CENTRAL:
            central = self.central.get(seed)
            return None if central is None else central.accuracy - target.value / 100
        reference = self.result(partition, seed, target.reference)
        return None if reference is None else target.value * reference.best_accuracy

    def round_bytes(self, result: Result) -> float | None:
        """Bytes of one FedAvg round: the run's own median, or, where it ended before round 1, that of its cell."""
        own = [line.bytes for line in result.rounds[1:]]
        if not own:
            own = [line.bytes for start in self.starts()
                   if (other := self.result(*result.run.cell, start)) is not None for line in other.rounds[1:]]
        return statistics.median(own) if own else None

    def exact_charge(self, result: Result) -> float:
        """Bytes before round 1 in rounds, not yet rounded up."""
        round_bytes = self.round_bytes(result)
        return result.before_bytes / round_bytes if round_bytes else 0.0

    def charge(self, result: Result) -> int:
        return max(1, math.ceil(self.exact_charge(result))) if needs_models(result.run.start) else 0

    def starts_at(self, target: Target, result: Result) -> bool:
        """The start model is at the target before round 1."""
        threshold = self.threshold(target, *result.run.cell)
        return threshold is not None and result.seed_accuracy >= threshold

    def cost(self, target: Target, result: Result, is_charged: bool) -> Cost | None:
        threshold = self.threshold(target, *result.run.cell)
        if threshold is None:
            return None
        reached = next((line for line in result.rounds if line.accuracy >= threshold), None)
        end = reached or result.rounds[-1]
        rounds = end.number if reached else max(result.run.plan.rounds, end.number)
        moved = sum(line.bytes for line in result.rounds[1 : end.number + 1])
        if is_charged and needs_models(result.run.start):
            return Cost(rounds + self.charge(result), end.seconds, moved + result.before_bytes, reached is None)
        return Cost(rounds, max(0.0, end.seconds - result.before_seconds), moved, reached is None)

    def spread(self, target: Target, partition: str, start: str, what: str, is_charged: bool) -> Spread | None:
        """what: rounds, seconds or bytes."""
        costs = [cost for result in self.results(partition, start)
                 if (cost := self.cost(target, result, is_charged)) is not None]
        return Spread.of((getattr(cost, what) for cost in costs), (">=" if c.is_censored else "" for c in costs))

    def saving(self, target: Target, start: str, what: str, is_charged: bool, partitions: Iterable[str],
               baseline: str = "random") -> Saving:
        """Share of the baseline's `what` (rounds, seconds or bytes) that `start` saves, over the cells of
        `partitions` that have both runs."""
        shares, bounds, at_budget, undefined = [], [], 0, 0
        for partition in partitions:
            for seed in self.plan.seeds:
                pair = self._costs_of(target, start, baseline, is_charged, (partition, seed))
                if pair is None:
                    continue
                own, base = pair
                gave_up = any(cost.is_censored and self._is_short(partition, seed, name)
                              for cost, name in ((own, start), (base, baseline)))
                if gave_up or getattr(base, what) == 0:
                    undefined += 1
                    continue
                shares.append(1 - getattr(own, what) / getattr(base, what))
                bounds.append(_bound_of_saving(own, base))
                at_budget += own.is_censored and base.is_censored
        return Saving(Spread.of(shares, bounds), at_budget, undefined)

    def _is_short(self, partition: str, seed: int, start: str) -> bool:
        """It ended before the plan's last round: how long it would have taken to a target nobody knows."""
        result = self.result(partition, seed, start)
        return result is not None and result.rounds[-1].number < self.plan.rounds

    def _costs_of(self, target: Target, start: str, baseline: str, is_charged: bool,
                  cell: tuple[str, int]) -> tuple[Cost, Cost] | None:
        ours, theirs = self.result(*cell, start), self.result(*cell, baseline)
        if ours is None or theirs is None:
            return None
        own, base = self.cost(target, ours, is_charged), self.cost(target, theirs, is_charged)
        return None if own is None or base is None else (own, base)

    def lead(self, start: str, over: str, partitions: Iterable[str], last_round: int | None) -> Spread | None:
        """Accuracy ahead of another start: before round 1 (last_round None), or the mean over rounds 1 to the lesser of
        last_round and what both runs hold."""
        leads = []
        for partition in partitions:
            for seed in self.plan.seeds:
                ours, theirs = self.result(partition, seed, start), self.result(partition, seed, over)
                if ours is None or theirs is None:
                    continue
                if last_round is None:
                    leads.append(ours.seed_accuracy - theirs.seed_accuracy)
                    continue
                last = min(last_round, ours.rounds[-1].number, theirs.rounds[-1].number)
                if last >= 1:
                    leads.append(ours.accuracy_over(last) - theirs.accuracy_over(last))
        return Spread.of(leads)


def _bound_of_saving(own: Cost, base: Cost) -> str:
    """Where neither gets there, the true saving may lie on either side."""
    if own.is_censored and base.is_censored:
        return "~"
    return ">=" if base.is_censored else "<=" if own.is_censored else ""


def read_comparison(plan: Plan, runs_folder: Path) -> Comparison:
    def finished(runs: list[Run]) -> list[tuple[Run, Path]]:
        return [(run, runs_folder / run.name) for run in runs if is_finished(runs_folder / run.name)]
    return Comparison(plan, [read_result(run, folder) for run, folder in finished(plan.runs())],
                      [read_central(run, folder) for run, folder in finished(plan.central_runs())])
