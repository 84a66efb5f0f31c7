"""The tables of a comparison: as data, as Markdown, as text for a terminal and as HTML."""

from __future__ import annotations

import dataclasses
import html
import re
import statistics
from dataclasses import dataclass, field
from typing import Any

from .accounting import Comparison, Result, Spread, Target
from .programs import needs_models, title_of_start

# Alballa & Canini 2024 (arXiv 2402.14922v2), abstract: rounds that consolidation saves on average.
PUBLISHED_SAVING = 0.606
EARLY_ROUNDS = 8
ENSEMBLES = ("equal", "adaptive", "precision")
NOTHING = "–"
SPREAD, SMALL = re.compile(r" (\([^()]+ to [^()]+\))$"), r' <span class="spread">\1</span>'


@dataclass
class Table:
    """Cells are finished text. Rows with the same first cell belong together."""

    title: str
    headers: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", "| " + " | ".join(self.headers) + " |",
                 "|" + "|".join(["---"] * 2 + ["---:"] * (len(self.headers) - 2)) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines + (["", self.note] if self.note else [])) + "\n"

    def text(self) -> str:
        widths = [max(len(row[i]) for row in [self.headers, *self.rows]) for i in range(len(self.headers))]
        rule = "  ".join("-" * width for width in widths)
        lines = [self.title, self._text_row(self.headers, widths), rule]
        previous = ""
        for row in self.rows:
            shown = ["" if row[0] == previous else row[0], *row[1:]]
            previous = row[0]
            lines.append(self._text_row(shown, widths))
        return "\n".join(lines + ([self.note] if self.note else []))

    @staticmethod
    def _text_row(cells: list[str], widths: list[int]) -> str:
        names = [cell.ljust(width) for cell, width in zip(cells[:2], widths)]
        figures = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:])]
        return "  ".join(names + figures).rstrip()

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(header)}</th>" for header in self.headers)
        body, previous = [], ""
        for row in self.rows:
            first = "" if row[0] == previous else row[0]
            marker = ' class="group"' if first and previous else ""
            previous = row[0]
            cells = "".join(f"<td>{SPREAD.sub(SMALL, html.escape(cell))}</td>" for cell in [first, *row[1:]])
            body.append(f"<tr{marker}>{cells}</tr>")
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return (f'<h3>{html.escape(self.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
                f"<tbody>{''.join(body)}</tbody></table></div>{note}")


def percent(spread: Spread | None, digits: int = 1) -> str:
    return _spread_text(spread, 100, digits, "%")


def points(spread: Spread | None) -> str:
    return _spread_text(spread, 100, 1, "", "+")


def amount(spread: Spread | None, scale: float = 1.0, digits: int = 1) -> str:
    return _spread_text(spread, scale, digits, "")


def _spread_text(spread: Spread | None, scale: float, digits: int, unit: str, sign: str = "") -> str:
    if spread is None:
        return NOTHING
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in (spread.mean, spread.low, spread.high))
    bound = f"{spread.bound} " if spread.bound else ""
    if low == high:
        return bound + (mean.removesuffix(".0") if not unit and not sign else mean) + unit
    return f"{bound}{mean}{unit} ({low.removesuffix('.0')} to {high.removesuffix('.0')})"


def headline_target(comparison: Comparison) -> Target | None:
    """The hardest target set by the random start, else the hardest there is."""
    own = [target for target in comparison.targets if target.reference == "random"]
    return max(own or comparison.targets, key=lambda target: target.value, default=None)


def headline_start(comparison: Comparison) -> str | None:
    return next((start for start in comparison.starts() if start.startswith("kd-")), None)


def all_tables(comparison: Comparison) -> list[Table]:
    """The summary first; then per target, savings, leads and ensemble, as far as the runs carry them."""
    tables = [summary_table(comparison), saving_table(comparison), lead_table(comparison)]
    tables += [target_table(comparison, target) for target in comparison.targets]
    tables += [charge_table(comparison), validation_table(comparison), ensemble_table(comparison)]
    return [table for table in tables if table.rows]


def summary_table(comparison: Comparison) -> Table:
    target = headline_target(comparison)
    table = Table("Summary", ["partition", "start", "before round 1", "last round", "rounds to target", "uncharged",
                              "seconds", "MB", "rounds saved"], note=_summary_note(comparison, target))
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            results = comparison.results(partition, start)
            if not results:
                continue
            row = [partition, title_of_start(start), percent(Spread.of(r.seed_accuracy for r in results)),
                   percent(Spread.of(r.final_accuracy for r in results))]
            table.rows.append(row + _target_cells(comparison, target, partition, start))
    return table


def _target_cells(comparison: Comparison, target: Target | None, partition: str, start: str) -> list[str]:
    if target is None:
        return [NOTHING] * 5
    saved = None if start == "random" else comparison.saving(target, start, True, [partition])
    return [amount(comparison.spread(target, partition, start, "rounds", True)),
            amount(comparison.spread(target, partition, start, "rounds", False)),
            amount(comparison.spread(target, partition, start, "seconds", True), digits=0),
            amount(comparison.spread(target, partition, start, "bytes", True), 1e-6, 0), percent(saved, 0)]


def _summary_note(comparison: Comparison, target: Target | None) -> str:
    sentences = []
    if target is not None:
        sentences.append(f"Target: {target.label} within {comparison.plan.rounds} rounds. Rounds, seconds and MB "
                         "include what a start spends before round 1 (pre-training, exchange of models, "
                         "consolidation).")
        sentences.append("'uncharged' counts rounds alone. '>=': not reached in every run; such a run counts as its "
                         "budget.")
    if any(plan.stop_at is not None for plan in comparison.plan.start_plans()):
        sentences.append("The last round of a start that stops at the target is the one that reached it, or its own "
                         "last.")
    if len(comparison.plan.seeds) > 1:
        sentences.append("Mean over the seeds, with the lowest and the highest.")
    sentences += [f"Missing: {run.name}." for run in comparison.missing()]
    return " ".join(sentences)


def target_table(comparison: Comparison, target: Target) -> Table:
    table = Table(f"To {target.label}", ["partition", "start", "accuracy", "reached", "rounds", "uncharged", "seconds",
                                         "uncharged", "MB", "uncharged"])
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            costs = [(comparison.threshold(target, *r.run.cell), comparison.cost(target, r, True))
                     for r in comparison.results(partition, start)]
            known = [(threshold, cost) for threshold, cost in costs if threshold is not None and cost is not None]
            if not known:
                continue
            row = [partition, title_of_start(start), percent(Spread.of(threshold for threshold, _ in known)),
                   f"{sum(not cost.is_censored for _, cost in known)} of {len(known)}"]
            for what, scale, digits in (("rounds", 1.0, 1), ("seconds", 1.0, 0), ("bytes", 1e-6, 1)):
                row += [amount(comparison.spread(target, partition, start, what, is_charged), scale, digits)
                        for is_charged in (True, False)]
            table.rows.append(row)
    return table


def saving_table(comparison: Comparison) -> Table:
    """Over all partitions and seeds, against the random start."""
    table = Table("Rounds saved against the random start", ["target", "start", "charged", "uncharged", "cells"],
                  note=f"Mean over partitions and seeds (lowest to highest). Published for consolidation by "
                       f"distillation: {100 * PUBLISHED_SAVING:.1f}% (arXiv 2402.14922v2; CIFAR-10, ResNet-18). "
                       "'>=' and '<=': a run did not reach the target, '~': in runs of both kinds; cells where "
                       "neither run reached it are left out.")
    for target in comparison.targets:
        for start in comparison.starts():
            charged = comparison.saving(target, start, True, comparison.plan.partitions)
            if start == "random" or charged is None:
                continue
            uncharged = comparison.saving(target, start, False, comparison.plan.partitions)
            table.rows.append([target.label, title_of_start(start), percent(charged), percent(uncharged),
                               str(charged.count)])
    return table


def lead_table(comparison: Comparison) -> Table:
    """What distillation adds to the best local model, which nobody knows without that control."""
    table = Table("Lead over the best local model, in points",
                  ["partition", "start", "before round 1", f"rounds 1 to {EARLY_ROUNDS}"],
                  note=f"Second figure: mean over rounds 1 to {EARLY_ROUNDS}, or as many as both runs have.")
    if "best" not in comparison.starts():
        return table
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            if start == "best" or not needs_models(start):
                continue
            seed = comparison.lead(start, "best", [partition], None)
            if seed is not None:
                early = comparison.lead(start, "best", [partition], EARLY_ROUNDS)
                table.rows.append([partition, title_of_start(start), points(seed), points(early)])
    return table


def charge_table(comparison: Comparison) -> Table:
    table = Table("Spent before round 1", ["partition", "start", "MB", "in rounds", "charged rounds", "seconds"],
                  note="'in rounds': bytes before round 1 divided by the bytes of a FedAvg round; charged: rounded up, "
                       "at least 1. Seconds include pre-training, also where another run did it for this one.")
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            results = comparison.results(partition, start)
            if not results or not needs_models(start):
                continue
            table.rows.append([
                partition, title_of_start(start), amount(Spread.of(r.before_bytes / 1e6 for r in results)),
                amount(Spread.of(comparison.exact_charge(r) for r in results), digits=2),
                amount(Spread.of(comparison.charge(r) for r in results)),
                amount(Spread.of(r.before_seconds for r in results), digits=0)])
    return table


def validation_table(comparison: Comparison) -> Table:
    """What may decide between starts, beside what may not."""
    table = Table("The seed by validation and by test", [
        "partition", "start", "validation", "test", "T", "seconds"],
        note="Accuracy before round 1, by the validation source, which may decide between starts, and on the test set, "
             "which may not. Seconds before round 1, pre-training included.")
    scopes = [(partition, [partition]) for partition in comparison.plan.partitions]
    if len(scopes) > 1:
        scopes.append(("mean", comparison.plan.partitions))
    for scope, partitions in scopes:
        for start in comparison.starts():
            results = [r for partition in partitions for r in comparison.results(partition, start)
                       if r.validation_accuracy is not None]
            if not results:
                continue
            table.rows.append([scope, title_of_start(start), percent(Spread.of(r.validation_accuracy for r in results)),
                               percent(Spread.of(r.seed_accuracy for r in results)),
                               amount(Spread.of(r.temperature for r in results if r.temperature is not None)),
                               amount(Spread.of(r.before_seconds for r in results), digits=0)])
    return table


def ensemble_table(comparison: Comparison) -> Table:
    table = Table("The seed beside the ensemble of the clients' models", [
        "partition", "start", "seed", *(f"ensemble, {kind}" for kind in ENSEMBLES)],
        note="Test accuracy before round 1. The ensemble is a reference, not a ceiling.")
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            results = [r for r in comparison.results(partition, start) if r.summary.get("ensemble")]
            if not results or not needs_models(start):
                continue
            ensembles = [percent(Spread.of(r.summary["ensemble"][kind] for r in results
                                           if r.summary["ensemble"].get(kind) is not None))
                         for kind in ENSEMBLES]
            seed = percent(Spread.of(r.seed_accuracy for r in results))
            table.rows.append([partition, title_of_start(start), seed, *ensembles])
    return table


def _goal(target: Target, rounds: int) -> str:
    if target.reference is None:
        return f"{100 * target.value:.4g}% accuracy"
    share = "" if target.value == 1 else f"{100 * target.value:.4g}% of "
    start = "a random start" if target.reference == "random" else "the best local model"
    return f"{share}the best accuracy of {rounds} rounds from {start}"


def headline(comparison: Comparison) -> str:
    """The finding in one or two sentences."""
    target, start = headline_target(comparison), headline_start(comparison)
    saved = None
    if target is not None and start is not None:
        saved = comparison.saving(target, start, True, comparison.plan.partitions)
    if target is None or start is None or saved is None:
        return "No saving can be stated: it takes a random start, a distilled start and a target that one reaches."
    words = {">=": "at least ", "<=": "at most ", "~": "about "}
    uncharged = comparison.saving(target, start, False, comparison.plan.partitions)
    text = (f"A distilled start ({title_of_start(start)}) saves {words.get(saved.bound, '')}{100 * saved.mean:.0f}% of "
            f"the communication rounds to {_goal(target, comparison.plan.rounds)}")
    if uncharged is not None:
        text += f", and {words.get(uncharged.bound, '')}{100 * uncharged.mean:.0f}% when its own cost is left out"
    best = comparison.saving(target, "best", True, comparison.plan.partitions)
    if best is not None:
        text += (f". Starting from the best local model alone saves {words.get(best.bound, '')}{100 * best.mean:.0f}%")
    return text + "."


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
        "runs": [_run_json(comparison, result) for result in comparison.all_results()],
    }


def _spread_json(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else dataclasses.asdict(spread)


def _target_json(target: Target) -> dict[str, Any]:
    return {"target": target.label, "reference": target.reference, "value": target.value}


def _savings_json(comparison: Comparison) -> list[dict[str, Any]]:
    plan = comparison.plan
    scopes = [("all", plan.partitions), *((partition, [partition]) for partition in plan.partitions)]
    return [_target_json(target) | {
        "start": start, "partition": scope,
        "charged": _spread_json(comparison.saving(target, start, True, partitions)),
        "uncharged": _spread_json(comparison.saving(target, start, False, partitions))}
        for target in comparison.targets for start in comparison.starts() if start != "random"
        for scope, partitions in scopes]


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
