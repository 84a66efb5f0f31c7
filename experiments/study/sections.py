"""The sections of a study's report: each says in a sentence what it shows, draws its figures and fills its tables.
What a study does not carry is left out, and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common.study_report import Section, seeds_of
from common.style import save
from common.text import grouped

from . import analysis, drawing, drawing_search, tables, tuner
from .analysis import Line
from .multi_teacher import MultiTeacher
from .rows import METHODS, SEARCHED, TRANSFERS, Pair, Study


def lines_of(pairs: Sequence[Pair]) -> list[Line]:
    groups = grouped(pairs, lambda pair: (pair.transfer, pair.method))
    order = sorted(groups, key=lambda key: (_place(TRANSFERS, key[0]), _place(METHODS, key[1])))
    return [analysis.line_of(groups[key]) for key in order]


def _place(order: Sequence[str], word: str) -> int:
    return order.index(word) if word in order else len(order)


def by_partition(study: Study) -> list[tuple[str, list[Pair]]]:
    return [(name, [pair for pair in study.pairs if pair.partition == name]) for name in study.partitions]


def all_sections(study: Study, multi: MultiTeacher | None, out: Path) -> list[Section]:
    """Draws into `out`."""
    parts = by_partition(study)
    return [
        summary_section(study, parts),
        _per_partition("Gain against the teacher-student difference", SCATTER, "gain", drawing.scatter_figure, study,
                       parts, out),
        _per_partition("Cumulative gain", CUMULATIVE, "cumulative-gain", drawing.cumulative_figure, study, parts, out),
        _per_partition("Positive transfer", POSITIVE, "positive-transfer", drawing.positive_figure, study, parts, out),
        _per_partition("Learning against forgetting", LEARNING, "learning", drawing.learning_figure, study, parts, out),
        settings_section(study, parts, out),
        best_teacher_section(study, parts, out),
        position_section(parts, out),
        tuner_section(study, out),
        multi_teacher_section(multi, out),
    ]


def count_text(pairs: Sequence[Pair]) -> str:
    """How many results stand behind a figure."""
    places = {(pair.partition, pair.seed, pair.teacher, pair.student) for pair in pairs}
    seeds = sorted({pair.seed for pair in pairs})
    partitions = sorted({pair.partition for pair in pairs})
    return (f"{len(pairs)} results of {len(places)} teacher-student pairs; {', '.join(partitions)}; "
            f"{seeds_of(seeds)}.")


def _per_partition(title: str, text: str, name: str, draw: Callable[[Study, list[Pair]], Figure | None], study: Study,
                   parts: Sequence[tuple[str, list[Pair]]], out: Path) -> Section:
    section = Section(title, f"{text} {count_text(study.pairs)}")
    for partition, pairs in parts:
        section.add(draw(study, pairs), out / f"{name}-{partition}.png", _named(partition, parts))
    return section


def _named(partition: str, parts: Sequence[tuple[str, list[Pair]]]) -> str:
    """Where there is one partition alone, the report's head names it."""
    return partition if len(parts) > 1 else ""


SCATTER = ("Each mark is a pair: how much the student's test accuracy changed, against how far its teacher was ahead. "
           "Right of the vertical line teachers are strong, above the horizontal one the student got better.")
CUMULATIVE = ("Gain added up over the pairs in order of the teacher-student difference, the weakest teacher first. "
              "Both axes are divided by the number of pairs, so that methods with fewer pairs stand beside the others: "
              "each line ends at the method's mean gain. Where it falls, pairs do harm.")
POSITIVE = "Share of the pairs after which the student is better than before, for strong and for weak teachers."
LEARNING = ("Learning is what classes won, forgetting what classes lost, as means over classes and pairs. On "
            "class-balanced test data, gain is their difference.")


def summary_section(study: Study, parts: Sequence[tuple[str, list[Pair]]]) -> Section:
    section = Section("All pairs", "Every method on every transfer set.")
    section.tables = [tables.summary_table(study, partition, lines_of(pairs)) for partition, pairs in parts]
    return section


def settings_section(study: Study, parts: Sequence[tuple[str, list[Pair]]], out: Path) -> Section:
    searched = [pair for pair in study.pairs if pair.method in SEARCHED]
    section = Section("Best T and alpha", "What each search chose by validation data, by teacher and student; empty "
                      "where a pair was not searched. Below, for grids, the mean validation accuracy over the start at "
                      "each setting; the best one is framed. " + count_text(searched),
                      missing="the study has no finished pair of tuned, grid or auto")
    for partition, pairs in parts:
        for method in SEARCHED:
            figure = drawing_search.heat_figure(study, pairs, method)
            name = f"{partition}: {drawing.method_title(method)}"
            section.add(figure, out / f"settings-{partition}-{method}.png", name)
        section.add(drawing_search.surface_figure(study, pairs), out / f"surface-{partition}.png",
                    _named(partition, parts))
    if searched:
        section.tables.append(tables.settings_table(study, searched))
    return section


def best_teacher_section(study: Study, parts: Sequence[tuple[str, list[Pair]]], out: Path) -> Section:
    found = analysis.best_teachers(study.pairs, study.num_participants)
    behind = [pair for best in found for pair in best.rivals]
    section = Section("Best teachers", "For how many students each participant was the best teacher, against its "
                      "accuracy: were the most accurate always best, only the right end would be above 0. "
                      + count_text(behind),
                      missing="no student has been taught by all other participants under one method")
    for partition, pairs in parts:
        section.add(drawing.best_teacher_figure(study, pairs), out / f"best-teachers-{partition}.png",
                    _named(partition, parts))
    if found:
        section.tables.append(tables.best_teacher_table(study, found))
    return section


def position_section(parts: Sequence[tuple[str, list[Pair]]], out: Path) -> Section:
    section = Section("Positions", "What a participant gets from a partner as the student it teaches, and as its "
                      "teacher when it goes on with the model it taught.")
    behind: list[Pair] = []
    for partition, pairs in parts:
        cell = analysis.position_cell(pairs)
        behind += cell
        title = f"{partition}: {drawing.method_title(cell[0].method)}, {cell[0].transfer}, seed {cell[0].seed}"
        section.add(drawing.position_figure(cell), out / f"positions-{partition}.png", title)
        section.tables.append(tables.published_position_table(cell))
        section.details.append(tables.position_table(cell))
    section.text += " " + count_text(behind)
    return section


def tuner_section(study: Study, out: Path) -> Section:
    section = Section("The automatic tuner", "", missing="the study has no pair that is finished both with grid and "
                                                         "with auto")
    found = tuner.measurements(study.pairs)
    if not found:
        return section
    cases = found[0].cases
    worst = float(np.max(found[0].regret(found[0].rivals[0])))
    section.text = (f"{tuner.verdict(found[0])} Largest regret: {100 * worst:.1f} points. "
                    + count_text([case.grid for case in cases]))
    section.images = [save(drawing_search.regret_figure(found[0], found[1:]), out / "tuner.png")]
    section.tables = [tables.tuner_table(found[:1])]
    section.details = [tables.tuner_table(found[1:])] if found[1:] else []
    return section


def multi_teacher_section(multi: MultiTeacher | None, out: Path) -> Section:
    section = Section("Multi-teacher distillation", "Test accuracy of the model that is distilled from all "
                      "participants at once, beside the published table: public data (Pub) or the student's own (Stu), "
                      "into the worst, the best or an untrained model, with class-wise (W) or equal (U) weights.",
                      missing="no folder of experiments/compare.py was given (--multi-teacher)")
    if multi is None:
        return section
    section.text += f" From {multi.folder.name}."
    section.images = [save(drawing_search.multi_teacher_figure(multi), out / "multi-teacher.png")]
    section.tables = [tables.multi_teacher_table(multi), tables.weights_table(multi)]
    return section
