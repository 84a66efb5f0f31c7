"""The tables of a study of peers. Cells are finished text; accuracies are in % unless named otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.estimate import Estimate
from common.table import NOTHING, Table
from common.text import number, points

from . import analysis
from .names import AVERAGE_TITLES, case_title, strength_title, title_of
from .rows import Cell, Setting, Study

HEADERS = ["measure or method", "average", "strength", "alpha", "T", "seeds", "global", "own", "spread",
           "of the ensemble's lead", "MB sent", "s"]
MEANING = ("Mean test accuracy of the peers, before and after, in %; in brackets the lowest and the highest seed. "
           "Global: over all classes alike; own: over the classes of the peer's own training samples. Spread: between "
           "the best and the worst peer's global accuracy, points. The ensemble's lead is that of the mean of all "
           "peers' predictions over their own, before anything is sent. MB: what one peer sends in all. Seconds of one "
           "worker, while others may have worked beside it.")


def whole_table(study: Study, partition: str, graph: str) -> Table:
    """Every setting."""
    return _table(f"All settings: {case_title(partition, graph, study.graphs)}",
                  analysis.by_setting(study.of(partition, graph)))


def chosen_table(study: Study, partition: str, graph: str) -> Table:
    cells = study.of(partition, graph)
    ensemble = _range(list({cell.seed: cell for cell in cells}.values()), lambda cell: cell.ensemble)
    table = _table(case_title(partition, graph, study.graphs), analysis.chosen_settings(cells))
    table.note = f"The ensemble's global accuracy: {ensemble}."
    return table


def _table(title: str, rows: dict[Setting, list[Cell]]) -> Table:
    table = Table(title, HEADERS)
    for setting, cells in rows.items():
        share = analysis.lead_share(cells)
        kd = ([AVERAGE_TITLES.get(setting.average, setting.average), strength_title(setting), f"{setting.alpha:g}",
               f"{setting.temperature:g}"] if setting.is_kd else [NOTHING] * 4)
        table.rows.append([
            title_of(setting), *kd, str(len(cells)),
            _course(cells, lambda cell: cell.before.overall, lambda cell: cell.after.overall),
            _course(cells, lambda cell: cell.before.own, lambda cell: cell.after.own),
            _range(cells, lambda cell: cell.after.spread),
            NOTHING if share is None else f"{number(100 * share, '.0f')}%",
            f"{analysis.mean_of(cells, lambda cell: cell.bytes) / 1e6:.2f}",
            f"{analysis.mean_of(cells, lambda cell: cell.seconds):.1f}"])
    return table


def _course(cells: Sequence[Cell], before: Callable[[Cell], float], after: Callable[[Cell], float]) -> str:
    return f"{100 * analysis.mean_of(cells, before):.1f} → {_range(cells, after)}"


def _range(cells: Sequence[Cell], value: Callable[[Cell], float]) -> str:
    """Mean over the seeds, with the lowest and the highest."""
    values = [100 * value(cell) for cell in cells]
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def choice_text(study: Study) -> str:
    return ("Alpha and T: those of the highest validation accuracy, in each seed by itself."
            if analysis.has_validation(study.cells) else
            "Means over alpha and T: the study has no validation samples to choose them by.")


def gains_table(study: Study) -> Table:
    table = Table("Gain over alone, points", ["partition", "measure or method", "average", "strength", "seeds",
                                              "global", "own"],
                  note="Of test accuracy, with the 95% interval over seeds that began with the same pre-trained models. "
                       + choice_text(study))
    for partition in study.partitions:
        for graph in study.graphs:
            for gain in analysis.gains_over_alone(study.of(partition, graph)):
                setting = gain.family
                kd = ([AVERAGE_TITLES.get(setting.average, setting.average), strength_title(setting)]
                      if setting.is_kd else [NOTHING] * 2)
                table.rows.append([case_title(partition, graph, study.graphs), title_of(setting), *kd,
                                   str(gain.overall.count), _interval(gain.overall), _interval(gain.own)])
    return table


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return points(estimate.value)
    return f"{points(estimate.value)} ({points(estimate.low)} to {points(estimate.high)})"


def peers_table(study: Study) -> Table:
    """Of the first seed."""
    table = Table("Peers", ["partition", "peer", "training samples", "classes with samples", "neighbours"],
                  note="Of the first seed. Neighbours: in each graph of the study, in its order.")
    for partition in study.partitions:
        cells = {graph: first_cell(study, partition, graph) for graph in study.graphs}
        known = [cell for cell in cells.values() if cell is not None]
        for index, peer in enumerate(known[0].peers if known else ()):
            degrees = ", ".join(f"{graph} {degree(cell, index)}" for graph, cell in cells.items() if cell is not None)
            table.rows.append([partition, peer.name, f"{peer.num_samples:,}", str(sum(n > 0 for n in peer.classes)),
                               degrees])
    return table


def first_cell(study: Study, partition: str, graph: str) -> Cell | None:
    """Of the first seed that has one: the graph and the peers are those of all its cells."""
    found = [cell for cell in study.cells if cell.partition == partition and cell.graph == graph]
    return min(found, key=lambda cell: cell.seed, default=None)


def degree(cell: Cell, peer: int) -> int:
    return sum(peer in edge for edge in cell.edges)
