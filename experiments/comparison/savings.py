"""What starts save against a baseline, in rounds, seconds and bytes: over all cells, and partition by partition."""

from __future__ import annotations

from common.table import Table

from .accounting import Comparison, Saving, Target
from .headline import cells_text, overview_targets
from .programs import needs_models, title_of_partition, title_of_start
from .spread_text import percent

# Alballa & Canini 2024 (arXiv 2402.14922v2), abstract: rounds that consolidation saves on average.
PUBLISHED_SAVING = 0.606
MEASURES = {"rounds": "rounds", "bytes": "MB", "seconds": "seconds"}
BASELINE_TITLES = {"random": "the random start", "best": "the best local model"}
NOTE = ("Mean over partitions and seeds (lowest to highest); below 0: the start takes more. Charged with what is spent "
        "before round 1, but for 'uncharged'. '>=' and '<=': a run did not reach the target and counts as its budget; "
        "'~': in runs of both kinds, or neither run of a cell reached it ('at the budget'). Cells tell nothing in "
        "which a run of fewer rounds than the plan's does not reach it.")


def compared_starts(comparison: Comparison, baseline: str) -> list[str]:
    """Beside the best local model those that have the clients' models too: the random start is compared the other way
    round."""
    return [start for start in comparison.starts()
            if start != baseline and (baseline == "random" or needs_models(start))]


def saving_table(comparison: Comparison, baseline: str) -> Table:
    """Over all partitions and seeds."""
    name, is_control = BASELINE_TITLES[baseline], baseline == "best"
    published = "" if is_control else (f" Published for consolidation by distillation: {100 * PUBLISHED_SAVING:.1f}% of "
                                       "the rounds (arXiv 2402.14922v2; CIFAR-10, ResNet-18).")
    table = Table(f"Saved against {name}", ["target", "start", *MEASURES.values(), "rounds, uncharged", "cells"],
                  note=NOTE + published)
    if is_control:
        table.headers.append("takes more in")
        table.note += (" Uncharged, cells tell nothing in which the best local model begins at the target. 'takes more "
                       "in': partitions where the mean is below 0, in rounds / MB / seconds.")
    if baseline not in comparison.starts():
        return table
    partitions = comparison.plan.partitions
    for target in comparison.targets:
        for start in compared_starts(comparison, baseline):
            savings = [comparison.saving(target, start, what, True, partitions, baseline) for what in MEASURES]
            if savings[0].spread is None:
                continue
            plain = comparison.saving(target, start, "rounds", False, partitions, baseline)
            row = [target.label, title_of_start(start), *(percent(saving.spread) for saving in savings),
                   _with_count(plain, savings[0]), cells_text(savings[0])]
            table.rows.append(row + ([_takes_more(comparison, target, start, baseline)] if is_control else []))
    return table


def _with_count(saving: Saving, beside: Saving) -> str:
    is_same = (saving.count, saving.at_budget) == (beside.count, beside.at_budget)
    return percent(saving.spread) + ("" if is_same else f" [{cells_text(saving)}]")


def _takes_more(comparison: Comparison, target: Target, start: str, baseline: str) -> str:
    counts = []
    for what in MEASURES:
        savings = [comparison.saving(target, start, what, True, [partition], baseline)
                   for partition in comparison.plan.partitions]
        known = [saving.spread.mean for saving in savings if saving.spread is not None]
        counts.append(f"{sum(mean < 0 for mean in known)}")
    return f"{' / '.join(counts)} of {len(comparison.plan.partitions)}"


def partition_saving_tables(comparison: Comparison, baseline: str) -> list[Table]:
    """A table a target: the hardest of each reference, and every one below centralised training."""
    if baseline not in comparison.starts():
        return []
    return [_partition_table(comparison, target, baseline) for target in overview_targets(comparison)]


def _partition_table(comparison: Comparison, target: Target, baseline: str) -> Table:
    table = Table(f"Saved against {BASELINE_TITLES[baseline]}, to {target.label}",
                  ["partition", "start", *MEASURES.values(), "cells", "beside it"], note=NOTE)
    for partition in comparison.plan.partitions:
        for start in compared_starts(comparison, baseline):
            savings = {what: comparison.saving(target, start, what, True, [partition], baseline) for what in MEASURES}
            if savings["rounds"].spread is None:
                continue
            table.rows.append([title_of_partition(partition), title_of_start(start),
                               *(percent(one.spread) for one in savings.values()), cells_text(savings["rounds"]), verdict(savings)])
    return table


def verdict(savings: dict[str, Saving]) -> str:
    """In words what takes more than the baseline."""
    slower = [MEASURES[what] for what, saving in savings.items()
              if saving.spread is not None and saving.spread.mean < 0]
    if not slower:
        return "takes no more"
    return "slower in " + " and ".join([", ".join(slower[:-1]), slower[-1]] if len(slower) > 1 else slower)
