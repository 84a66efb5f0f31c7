"""table.json: everything that stands behind the tables and figures of a comparison."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from .accounting import Comparison, Result, Saving, Spread, Target
from .headline import headline
from .savings import BASELINE_TITLES, MEASURES, PUBLISHED_SAVING, compared_starts
from .tables import EARLY_ROUNDS


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "headline": headline(comparison),
        "plan": comparison.plan.to_json(),
        "missing": [run.name for run in comparison.missing()],
        "published_saving": PUBLISHED_SAVING,
        "savings": _savings_json(comparison),
        "means": [_means_json(comparison, partition, start)
                  for partition in comparison.plan.partitions for start in comparison.starts()
                  if comparison.results(partition, start)],
        "central": [{"seed": one.seed, **one.summary} for one in comparison.central.values()],
        "runs": [_run_json(comparison, result) for result in comparison.all_results()],
    }


def _spread_json(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else dataclasses.asdict(spread)


def _target_json(target: Target) -> dict[str, Any]:
    return {"target": target.label, "reference": target.reference, "value": target.value}


def _savings_json(comparison: Comparison) -> list[dict[str, Any]]:
    plan = comparison.plan
    scopes = [("all", plan.partitions), *((partition, [partition]) for partition in plan.partitions)]

    def saving(target: Target, start: str, baseline: str, is_charged: bool, partitions: list[str]) -> dict[str, Any]:
        return {what: _saving_json(comparison.saving(target, start, what, is_charged, partitions, baseline))
                for what in MEASURES}

    return [_target_json(target) | {
        "baseline": baseline, "start": start, "partition": scope,
        "charged": saving(target, start, baseline, True, partitions),
        "uncharged": saving(target, start, baseline, False, partitions)}
        for baseline in BASELINE_TITLES if baseline in comparison.starts()
        for target in comparison.targets for start in compared_starts(comparison, baseline)
        for scope, partitions in scopes]


def _saving_json(saving: Saving) -> dict[str, Any]:
    return {"saved": _spread_json(saving.spread), "cells": saving.count, "cells_at_budget": saving.at_budget,
            "cells_undefined": saving.undefined}


def _means_json(comparison: Comparison, partition: str, start: str) -> dict[str, Any]:
    results = comparison.results(partition, start)
    last = min(result.rounds[-1].number for result in results)
    per_target = [_target_json(target) | {
        f"{what}_{'charged' if is_charged else 'uncharged'}":
            _spread_json(comparison.spread(target, partition, start, what, is_charged))
        for what in ("rounds", "seconds", "bytes") for is_charged in (True, False)} for target in comparison.targets]
    return {
        "partition": partition, "start": start,
        "seed_accuracy": _spread_json(Spread.of(r.seed_accuracy for r in results)),
        "final_accuracy": _spread_json(Spread.of(r.final_accuracy for r in results)),
        "best_accuracy": _spread_json(Spread.of(r.best_accuracy for r in results)),
        "lead_before_round_1": _spread_json(comparison.lead(start, "best", [partition], None)),
        f"lead_rounds_1_to_{EARLY_ROUNDS}": _spread_json(comparison.lead(start, "best", [partition], EARLY_ROUNDS)),
        "accuracy_by_round": [statistics.fmean(r.rounds[n].accuracy for r in results) for n in range(last + 1)],
        "targets": per_target,
    }


def _run_json(comparison: Comparison, result: Result) -> dict[str, Any]:
    costs = []
    for target in comparison.targets:
        threshold = comparison.threshold(target, *result.run.cell)
        pair = {name: comparison.cost(target, result, name == "charged") for name in ("charged", "uncharged")}
        costs.append(_target_json(target) | {"accuracy": threshold} | {
            name: None if cost is None else dataclasses.asdict(cost) for name, cost in pair.items()})
    return {
        "run": result.run.name, "partition": result.run.partition, "seed": result.run.seed, "start": result.run.start,
        "seed_accuracy": result.seed_accuracy, "validation_accuracy": result.validation_accuracy,
        "temperature": result.temperature, "final_accuracy": result.final_accuracy,
        "best_accuracy": result.best_accuracy, "bytes_before_rounds": result.before_bytes,
        "round_bytes": comparison.round_bytes(result), "charge_exact": comparison.exact_charge(result),
        "charge_rounds": comparison.charge(result), "seconds_before_rounds": result.before_seconds,
        "pretrain_seconds_reused": result.reused_seconds, "targets": costs,
    }
