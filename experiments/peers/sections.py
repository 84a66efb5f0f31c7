"""The sections of the report of a study of peers: each says in a sentence what it shows, draws its figures and fills
its tables. What a study does not carry is left out, and said."""

from __future__ import annotations

from pathlib import Path

from common.study_report import Section, seeds_of

from . import analysis, drawing, tables
from .names import case_title
from .rows import Study


def all_sections(study: Study, out: Path) -> list[Section]:
    """Draws into `out`."""
    return [_plane(study, out), _settings(study), _gains(study, out), _rounds(study, out), _graphs(study, out)]


def _named(graph: str, study: Study) -> str:
    """Where there is one graph alone, the report's head names it."""
    return f"graph: {graph}" if len(study.graphs) > 1 else ""


def _plane(study: Study, out: Path) -> Section:
    section = Section("Own against global accuracy",
                      "Each point is a setting, at the means over seeds and peers of its test accuracies; a line joins "
                      "the alphas of a measure and average. Right and up is better. A measure is better than another "
                      f"only where its line lies above, not where a point does. {study_size(study)}",
                      missing="the study has no finished cell of kd")
    kinds = sorted({(cell.setting.temperature, cell.setting.reduction) for cell in study.cells if cell.setting.is_kd})
    for graph in study.graphs:
        for temperature, reduction in kinds:
            name = f"own-global-{graph}" + (f"-T{temperature:g}-{reduction}" if len(kinds) > 1 else "")
            words = [_named(graph, study)] * (len(study.graphs) > 1)
            words += [f"T {temperature:g}, reduction {reduction}"] * (len(kinds) > 1)
            section.add(drawing.plane_figure(study, graph, temperature, reduction), out / f"{name}.png",
                        "; ".join(words))
    return section


def _settings(study: Study) -> Section:
    how = ("Each measure and average at the alpha and temperature of the highest validation accuracy, mean over the "
           "seeds; below, all settings. " if analysis.has_validation(study.cells) else
           "All settings: the study has no validation samples to choose by. ")
    section = Section("Settings", how + tables.MEANING)
    cases = [(partition, graph) for partition in study.partitions for graph in study.graphs
             if study.of(partition, graph)]
    section.tables = [tables.chosen_table(study, *case) for case in cases]
    section.details = [tables.whole_table(study, *case) for case in cases]
    return section


def _gains(study: Study, out: Path) -> Section:
    section = Section("Gain over training alone", "How far each measure and average, and each other method, end above a "
                      "peer that trains as long on its own labels. Differences within a seed, from the same pre-trained "
                      f"models. {tables.choice_text(study)}",
                      missing="no seed has both alone and another method")
    for graph in study.graphs:
        for begin in range(0, len(study.partitions), drawing.MOST_COLUMNS):
            figure = drawing.gains_figure(study, study.partitions[begin:begin + drawing.MOST_COLUMNS], graph)
            name = f"gain-over-alone-{graph}" + f"-{1 + begin // drawing.MOST_COLUMNS}" * (begin > 0)
            section.add(figure, out / f"{name}.png", _named(graph, study))
    table = tables.gains_table(study)
    section.tables = [table] if table.rows else []
    return section


def _rounds(study: Study, out: Path) -> Section:
    section = Section("Accuracy over rounds", "Test accuracy of each peer after each round, from 0, before anything is "
                      "sent; of each measure the setting "
                      + ("of the highest validation accuracy." if analysis.has_validation(study.cells)
                         else "that the study lists first: it has no validation samples to choose by."),
                      missing="the study has one round of exchange" if study.num_rounds < 2 else "no cell to draw")
    for partition in study.partitions:
        for graph in study.graphs:
            for place, figure in enumerate(drawing.rounds_figures(study, partition, graph)):
                name = f"rounds-{partition}-{graph}" + f"-{place + 1}" * (place > 0)
                section.add(figure, out / f"{name}.png", case_title(partition, graph, study.graphs))
    return section


def _graphs(study: Study, out: Path) -> Section:
    section = Section("Who exchanges with whom", "The peers, the edges of the graph and the classes of their samples, "
                      f"in the first seed; more than {drawing.MOST_PEERS_DRAWN} peers are dots.",
                      missing="no cell to draw")
    for graph in study.graphs:
        section.add(drawing.graph_figure(study, graph), out / f"graph-{graph}.png", _named(graph, study))
    section.details = [tables.peers_table(study)]
    return section


def study_size(study: Study) -> str:
    settings = {cell.setting for cell in study.cells}
    return f"{len(study.cells):,} results, {len(settings)} settings; {seeds_of(study.seeds)}."
