"""What follows from the rows of a study of peers: pure functions, accuracies 0..1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.estimate import Estimate, over_seeds
from common.text import grouped

from .rows import AVERAGES, MEASURES, METHODS, REDUCTIONS, STRENGTHS, Cell, Setting

# The two accuracies, by what the report calls them.
ACCURACIES: dict[str, Callable[[Cell], float]] = {
    "global": lambda cell: cell.after.overall, "own": lambda cell: cell.after.own}


def place(setting: Setting) -> tuple[int, ...]:
    """For sorting: in the order of the settings' words."""
    return tuple(order.index(word) if word in order else len(order) for order, word in (
        (METHODS, setting.method), (MEASURES, setting.measure), (AVERAGES, setting.average),
        (STRENGTHS, setting.strength), (REDUCTIONS, setting.reduction)))


def sorted_settings(settings: Iterable[Setting]) -> list[Setting]:
    return sorted(set(settings), key=lambda setting: (place(setting), setting))


def by_setting(cells: Sequence[Cell]) -> dict[Setting, list[Cell]]:
    """Setting -> its cells, one a seed. cells: of one partition and graph."""
    groups = grouped(cells, lambda cell: cell.setting)
    return {setting: groups[setting] for setting in sorted_settings(groups)}


def mean_of(cells: Sequence[Cell], value: Callable[[Cell], float]) -> float:
    return float(np.mean([value(cell) for cell in cells]))


def lead_share(cells: Sequence[Cell]) -> float | None:
    """How much of the ensemble's lead over the start is reached, of the means; None where the ensemble has none."""
    before = mean_of(cells, lambda cell: cell.before.overall)
    lead = mean_of(cells, lambda cell: cell.ensemble) - before
    return (mean_of(cells, lambda cell: cell.after.overall) - before) / lead if lead > 0 else None


# Paired differences

def differences(mine: Sequence[Cell], theirs: Sequence[Cell], value: Callable[[Cell], float],
                context: Callable[[Cell], object] = lambda _: None) -> dict[int, float]:
    """Seed -> mean difference over the pairs of cells that began with the same pre-trained models and agree in
    `context`."""
    others = grouped(theirs, lambda cell: (cell.start, context(cell)))
    found: dict[int, list[float]] = {}
    for cell in mine:
        for other in others.get((cell.start, context(cell)), []):
            found.setdefault(cell.seed, []).append(value(cell) - value(other))
    return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}


def advantage(mine: Sequence[Cell], theirs: Sequence[Cell], value: Callable[[Cell], float],
              context: Callable[[Cell], object] = lambda _: None) -> Estimate | None:
    """Of the differences, one a seed."""
    found = differences(mine, theirs, value, context)
    return over_seeds(list(found.values())) if found else None


def but_measure(cell: Cell) -> Setting:
    """What two measures are compared at: the rest of the setting."""
    return replace(cell.setting, measure="")


def but_average(cell: Cell) -> Setting:
    return replace(cell.setting, average="")


def of_method(cells: Iterable[Cell], method: str) -> list[Cell]:
    return [cell for cell in cells if cell.setting.method == method]


def distilled(cells: Iterable[Cell], **words: str) -> list[Cell]:
    """kd with these words, where the distillation term has a weight."""
    return [cell for cell in cells if cell.setting.is_kd and cell.setting.alpha > 0
            and all(getattr(cell.setting, name) == word for name, word in words.items())]


# Choices by validation

def has_validation(cells: Iterable[Cell]) -> bool:
    return all(cell.validation is not None for cell in cells)


def chosen(cells: Sequence[Cell]) -> list[Cell]:
    """In each seed the cell with the highest validation accuracy (of those that tie the first), by itself: no seed has
    a part in another's choice. All cells where there are no validation samples to choose by."""
    if not has_validation(cells):
        return list(cells)
    ordered = sorted(cells, key=lambda cell: (place(cell.setting), cell.setting))
    return [max(group, key=lambda cell: cell.validation or 0.0) for group in grouped(
        ordered, lambda cell: cell.seed).values()]


def chosen_setting(cells: Sequence[Cell]) -> Setting:
    """The one with the highest mean validation accuracy over the seeds, of those with the most seeds; the first where
    there are no validation samples."""
    groups = by_setting(cells)
    most = max(len(group) for group in groups.values())
    full = {setting: group for setting, group in groups.items() if len(group) == most}
    if not has_validation(cells):
        return next(iter(full))
    return max(full, key=lambda setting: mean_of(full[setting], lambda cell: cell.validation or 0.0))


def chosen_settings(cells: Sequence[Cell]) -> dict[Setting, list[Cell]]:
    """Of each measure, average, strength and reduction the alpha and temperature that validation chooses; all of the
    other methods. All settings where there are no validation samples. cells: of one partition and graph."""
    if not has_validation(cells):
        return by_setting(cells)
    families = grouped(cells, lambda cell: family(cell.setting))
    kept = [chosen_setting(group) for group in families.values()]
    everything = by_setting(cells)
    return {setting: everything[setting] for setting in sorted_settings(kept)}


def family(setting: Setting) -> Setting:
    return replace(setting, alpha=0.0, temperature=0.0)


@dataclass(frozen=True)
class Gain:
    """Over `alone`, of one measure and average (or of gossip) at what each seed's validation chooses."""

    family: Setting
    overall: Estimate
    own: Estimate


def gains_over_alone(cells: Sequence[Cell]) -> list[Gain]:
    """cells: of one partition and graph."""
    alone, result = of_method(cells, "alone"), []
    families = grouped([cell for cell in cells if cell.setting.method != "alone"], lambda cell: family(cell.setting))
    for name in sorted_settings(families):
        mine = chosen(families[name])
        overall, own = (advantage(mine, alone, value) for value in ACCURACIES.values())
        if overall is not None and own is not None:
            result.append(Gain(name, overall, own))
    return result


def unpaired(cells: Sequence[Cell]) -> int:
    """How many cells began with other pre-trained models than most of their partition and seed: not compared."""
    count = 0
    for group in grouped(cells, lambda cell: (cell.partition, cell.seed)).values():
        count += len(group) - max(len(same) for same in grouped(group, lambda cell: cell.start).values())
    return count
