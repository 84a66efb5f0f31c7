"""The tables of a comparison."""

from __future__ import annotations

from common.table import NOTHING, Table

from .accounting import Comparison, Spread, Target
from .headline import headline_target, overview_targets
from .programs import needs_models, title_of_partition, title_of_start
from .savings import partition_saving_tables, saving_table
from .spread_text import amount, percent, points

EARLY_ROUNDS = 8
ENSEMBLES = ("equal", "adaptive", "precision")


def front_tables(comparison: Comparison) -> list[Table]:
    """The summary first, then savings, leads and what else concerns the whole, as far as the runs carry it."""
    tables = [summary_table(comparison), overview_table(comparison), saving_table(comparison, "best"), saving_table(comparison, "random"),
              lead_table(comparison), central_table(comparison), charge_table(comparison),
              validation_table(comparison), ensemble_table(comparison)]
    return [table for table in tables if table.rows]


def target_tables(comparison: Comparison) -> list[Table]:
    """What each start takes to each target, and saves there against the best local model, by partition."""
    tables = [target_table(comparison, target) for target in comparison.targets]
    return [table for table in partition_saving_tables(comparison, "best") + tables if table.rows]


def all_tables(comparison: Comparison) -> list[Table]:
    return front_tables(comparison) + target_tables(comparison)


def overview_table(comparison: Comparison) -> Table:
    """A column a start: its accuracy before round 1, and the charged rounds to one target after the other."""
    starts, targets = comparison.starts(), overview_targets(comparison)
    named = "; ".join(f"({number}) {target.label}" for number, target in enumerate(targets, 1))
    table = Table("Rounds to each target", ["partition", *(title_of_start(start) for start in starts)],
                  note=f"Test accuracy before round 1, then the rounds to {named}, own cost included; means over the "
                       "seeds. '>=': not reached in every run.")
    if not targets:
        return table
    for partition in comparison.plan.partitions:
        row = [title_of_partition(partition)]
        for start in starts:
            results = comparison.results(partition, start)
            rounds = [_mean_text(comparison.spread(target, partition, start, "rounds", True)) for target in targets]
            seed = Spread.of(r.seed_accuracy for r in results)
            row.append(NOTHING if seed is None else f"{100 * seed.mean:.1f}%; " + ", ".join(rounds))
        table.rows.append(row)
    return table


def _mean_text(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.bound} {spread.mean:.1f}".strip().removesuffix(".0")


def summary_table(comparison: Comparison) -> Table:
    target = headline_target(comparison)
    table = Table("Summary", ["partition", "start", "before round 1", "last round", "rounds to target", "uncharged",
                              "seconds", "MB", "rounds saved", "beside best local"], note=_summary_note(comparison, target))
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            results = comparison.results(partition, start)
            if not results:
                continue
            row = [title_of_partition(partition), title_of_start(start), percent(Spread.of(r.seed_accuracy for r in results)),
                   percent(Spread.of(r.final_accuracy for r in results))]
            table.rows.append(row + _target_cells(comparison, target, partition, start))
    return table


def _target_cells(comparison: Comparison, target: Target | None, partition: str, start: str) -> list[str]:
    if target is None:
        return [NOTHING] * 6
    saved = {baseline: comparison.saving(target, start, "rounds", True, [partition], baseline)
             for baseline in ("random", "best")}
    return [amount(comparison.spread(target, partition, start, "rounds", True)),
            amount(comparison.spread(target, partition, start, "rounds", False)),
            amount(comparison.spread(target, partition, start, "seconds", True), digits=0),
            amount(comparison.spread(target, partition, start, "bytes", True), 1e-6, 0),
            NOTHING if start == "random" else percent(saved["random"].spread, 0),
            _beside_best(saved["best"].spread) if start != "best" else NOTHING]


def _beside_best(saved: Spread | None) -> str:
    """Slower, where the best local model alone takes fewer rounds."""
    return percent(saved, 0) + (" slower" if saved is not None and saved.mean < 0 else "")


def _summary_note(comparison: Comparison, target: Target | None) -> str:
    sentences = []
    if target is not None:
        sentences.append(f"Target: {target.label} within {comparison.plan.rounds} rounds. Rounds, seconds and MB "
                         "include what a start spends before round 1 (pre-training, exchange of models, "
                         "consolidation).")
        sentences.append("'rounds saved' is against the random start, 'beside best local' against the best local "
                         "model, in rounds.")
        sentences.append("'uncharged' counts rounds alone. '>=': not reached in every run; such a run counts as its "
                         "budget.")
    if any(plan.stop_at is not None for plan in comparison.plan.start_plans()):
        sentences.append("The last round of a start that stops at the target is the one that reached it, or its own "
                         "last.")
    if len(comparison.plan.seeds) > 1:
        sentences.append("Mean over the seeds, with the lowest and the highest.")
    if any("feddf" in start for start in comparison.starts()):
        sentences.append(_feddf_note(comparison))
    sentences += [f"Missing: {run.name}." for run in comparison.missing()]
    return " ".join(sentences)


def _feddf_note(comparison: Comparison) -> str:
    """FedDF's own settings, read from a run that has them all resolved."""
    configs = (result.info.get("config", {}) for result in comparison.all_results() if "feddf" in result.run.start)
    settings = next(configs, {}).get("feddf", {})
    known = ", ".join(f"{key} {settings[key]}" for key in ("epochs", "lr", "batch_size") if key in settings)
    return f"FedDF is not tuned{f' (feddf: {known})' if known else ''}: another setting may do better."


def target_table(comparison: Comparison, target: Target) -> Table:
    table = Table(f"To {target.label}", ["partition", "start", "accuracy", "reached", "at round 0", "rounds",
                                         "uncharged", "seconds", "uncharged", "MB", "uncharged"],
                  note="'reached': runs that get there within their budget; 'at round 0': those that are there before "
                       "round 1, between which this target tells no difference.")
    for partition in comparison.plan.partitions:
        for start in comparison.starts():
            costs = [(comparison.threshold(target, *r.run.cell), comparison.cost(target, r, True))
                     for r in comparison.results(partition, start)]
            known = [(threshold, cost) for threshold, cost in costs if threshold is not None and cost is not None]
            if not known:
                continue
            row = [title_of_partition(partition), title_of_start(start), percent(Spread.of(threshold for threshold, _ in known)),
                   f"{sum(not cost.is_censored for _, cost in known)} of {len(known)}",
                   str(sum(comparison.starts_at(target, result) for result in comparison.results(partition, start)))]
            for what, scale, digits in (("rounds", 1.0, 1), ("seconds", 1.0, 0), ("bytes", 1e-6, 1)):
                row += [amount(comparison.spread(target, partition, start, what, is_charged), scale, digits)
                        for is_charged in (True, False)]
            table.rows.append(row)
    return table


def lead_table(comparison: Comparison) -> Table:
    """What distillation adds to the best local model, which nobody knows without that control."""
    table = Table("Lead over the best local model, in points",
                  ["partition", "start", "before round 1", f"rounds 1 to {EARLY_ROUNDS}", "seeds"],
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
                table.rows.append([title_of_partition(partition), title_of_start(start), points(seed), points(early), str(seed.count)])
    return table


def central_table(comparison: Comparison) -> Table:
    table = Table("Centralised training, on all clients' data", ["seed", "samples", "accuracy", "validation", "epoch",
                                                                "seconds"],
                  note=f"The samples of all clients of partition {comparison.plan.partitions[0]}; the model and optimiser "
                       "of the clients' pre-training; the epoch is chosen on validation data, and the test set is "
                       "measured once. A reference that no federation may have, not a start.")
    for result in comparison.central.values():
        summary = result.summary
        validation = summary.get("validation_accuracy")
        table.rows.append([str(result.seed), str(summary.get("num_examples", NOTHING)), percent(Spread.of([result.accuracy])),
                           NOTHING if validation is None else percent(Spread.of([validation])),
                           f"{summary.get('best_epoch', NOTHING)} of {summary.get('epochs', NOTHING)}",
                           amount(Spread.of([summary.get("seconds", 0.0)]), digits=0)])
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
                title_of_partition(partition), title_of_start(start),
                amount(Spread.of(r.before_bytes / 1e6 for r in results)),
                amount(Spread.of(comparison.exact_charge(r) for r in results), digits=2),
                amount(Spread.of(comparison.charge(r) for r in results)),
                amount(Spread.of(r.before_seconds for r in results), digits=0)])
    return table


def validation_table(comparison: Comparison) -> Table:
    """What may decide between starts, beside what may not."""
    table = Table("The seed by validation and by test", [
        "partition", "start", "validation", "test", "T", "seconds", "runs"],
        note="Accuracy before round 1, by the validation source, which may decide between starts, and on the test set, "
             "which may not. Seconds before round 1, pre-training included.")
    scopes = [(title_of_partition(partition), [partition]) for partition in comparison.plan.partitions]
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
                               amount(Spread.of(r.before_seconds for r in results), digits=0), str(len(results))])
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
            table.rows.append([title_of_partition(partition), title_of_start(start), seed, *ensembles])
    return table
