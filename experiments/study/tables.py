"""The tables of a pair study. Cells are finished text; figures are in points unless named otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common import text
from common.estimate import Estimate
from common.table import NOTHING, Table
from common.text import grouped

from . import analysis, published
from .analysis import BestTeacher, Line, Position, strong, weak
from .drawing import method_title, transfer_title
from .drawing_search import RIVAL_TITLES
from .multi_teacher import MultiTeacher, column_title
from .multi_teacher import published as published_cell
from .published import TABLE_TWO_STARTS
from .rows import LABELED, SEARCHED, Pair, Study
from .tuner import Measurement


def points(value: float | None) -> str:
    return NOTHING if value is None else text.points(value)


def percent(value: float | None, digits: int = 0) -> str:
    return NOTHING if value is None else f"{100 * value:.{digits}f}%"


def spread(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return points(estimate.value)
    return f"{points(estimate.value)} ({points(estimate.low)} to {points(estimate.high)})"


def summary_table(study: Study, partition: str, lines: Sequence[Line]) -> Table:
    table = Table(f"All pairs: {partition}", ["transfer set", "method", "pairs", "gain", "learning", "forgetting",
                                              "gain > 0", "strong teachers", "weak teachers", "s a pair"],
                  note="Means over the pairs, in points of test accuracy; gain with its 95% interval, its error "
                       "clustered by student and by teacher. Gain > 0: share of the pairs, of all and by teacher. "
                       "Seconds of one worker while others may have worked beside it.")
    for line in lines:
        table.rows.append([transfer_title(study, line.transfer), method_title(line.method), str(len(line.pairs)),
                           spread(line.gain), points(line.learning), points(-line.forgetting),
                           percent(line.positive), percent(line.positive_strong), percent(line.positive_weak),
                           f"{line.seconds:.1f}"])
    return table


def settings_table(study: Study, pairs: Sequence[Pair]) -> Table:
    """What searches chose."""
    table = Table("Chosen T and alpha", ["partition", "transfer set", "method", "pairs", "T, strong", "T, weak",
                                         "alpha, strong", "alpha, weak", "other than T 1, alpha 0.5"],
                  note="Geometric means of T and means of alpha, by strong and weak teachers. Without labels alpha has "
                       f"no effect. Published: about {100 * published.WANT_OTHER_SETTINGS:.0f}% of the pairs want "
                       "settings other than T 1, alpha 0.5.")
    searched = [pair for pair in pairs if pair.method in SEARCHED and pair.temperature is not None]
    for (partition, transfer, method), group in grouped(
            searched, lambda pair: (pair.partition, pair.transfer, pair.method)).items():
        row = [partition, transfer_title(study, transfer), method_title(method), str(len(group))]
        for half in (strong(group), weak(group)):
            logs = [math.log(pair.temperature) for pair in half if pair.temperature is not None]
            row.append(f"{math.exp(float(np.mean(logs))):.2f}" if logs else NOTHING)
        for half in (strong(group), weak(group)):
            alphas = [pair.alpha for pair in half if pair.alpha is not None]
            row.append(f"{float(np.mean(alphas)):.2f}" if alphas and transfer in LABELED else NOTHING)
        row.append(percent(sum(analysis.wants_other_settings(pair) for pair in group) / len(group)))
        table.rows.append(row)
    return table


def best_teacher_table(study: Study, found: Sequence[BestTeacher]) -> Table:
    table = Table("Best teachers", ["partition", "transfer set", "method", "students", "the most accurate is best",
                                    "accuracy of the best", "of the most accurate", "teachers that are best for one"],
                  note="Best: the teacher from which a student gains most. Accuracies are means over the students. "
                       "Only students whom all other participants taught.")
    for (partition, transfer, method), group in grouped(
            found, lambda best: (best.student.partition, best.student.transfer, best.student.method)).items():
        accuracy = float(np.mean([np.mean([pair.teacher_accuracy for pair in best.teachers]) for best in group]))
        top = float(np.mean([max(pair.teacher_accuracy for pair in best.rivals) for best in group]))
        distinct = sum(count > 0 for _, count in analysis.best_frequencies(group).values())
        table.rows.append([partition, transfer_title(study, transfer), method_title(method), str(len(group)),
                           percent(sum(best.is_strongest for best in group) / len(group)), percent(accuracy, 1),
                           percent(top, 1), str(distinct)])
    return table


PLACES = ("weak", "middling", "strong")


def three_participants(pairs: Sequence[Pair]) -> list[int]:
    """The weakest, the middle one and the strongest."""
    order = analysis.weakest_first(analysis.accuracies_of(pairs))
    return [order[0], order[(len(order) - 1) // 2], order[-1]]


def position_table(pairs: Sequence[Pair]) -> Table:
    """pairs: of one partition, seed, transfer set and method."""
    first = pairs[0]
    chosen = three_participants(pairs)
    accuracies = analysis.accuracies_of(pairs)
    by_place = {(position.participant, position.partner): position for position in analysis.positions(pairs)}
    headers = ["partner", "its accuracy"]
    for number, place in zip(chosen, PLACES):
        headers += [f"{number} ({place}) as student", f"{number} as teacher"]
    table = Table(f"Positions: {first.partition}, seed {first.seed}, {method_title(first.method)}, {first.transfer}",
                  headers,
                  note="Accuracy that the participant ends with (as student), or that the partner it taught ends with "
                       "(as teacher), less the participant's own start. Teacher (P, q) less student (q, P) is always "
                       "start(q) less start(P). Participants: "
                       + ", ".join(f"{number} starts at {100 * accuracies[number]:.1f}%" for number in chosen) + ".")
    for partner in analysis.weakest_first(accuracies):
        row = [str(partner), percent(accuracies[partner], 1)]
        for number in chosen:
            position = by_place.get((number, partner))
            row += [NOTHING] * 2 if position is None else [points(position.as_student), points(position.as_teacher)]
        table.rows.append(row)
    return table


def published_position_table(pairs: Sequence[Pair]) -> Table:
    table = Table("Positions beside the published ones", ["participant", "role", "mean here", "lowest", "highest",
                                                          "above 0", "mean published", "lowest", "highest", "above 0"],
                  note="Over the partners. Published: participants 1, 4 and 9 of the EuroMLSys 2023 paper (CIFAR-10), "
                       "a weak, a middling and a strong one; partners there are others than here.")
    everything = analysis.positions(pairs)
    for number, place in zip(three_participants(pairs), PLACES):
        mine = [position for position in everything if position.participant == number]
        for role in ("student", "teacher"):
            here = [value for position in mine if (value := _role(position, role)) is not None]
            there = [value / 100 for value in published.POSITIONS[place][role]]
            table.rows.append([f"{number} ({place})", f"as {role}", *_range(here), *_range(there)])
    return table


def _role(position: Position, role: str) -> float | None:
    return position.as_student if role == "student" else position.as_teacher


def _range(values: Sequence[float]) -> list[str]:
    if not values:
        return [NOTHING] * 4
    return [points(float(np.mean(values))), points(min(values)), points(max(values)),
            f"{sum(value > 0 for value in values)} of {len(values)}"]


def multi_teacher_table(multi: MultiTeacher) -> Table:
    settings = multi.plan.get("settings", {})
    data = settings.get("data.set", "fashion-mnist")
    seeds = ", ".join(str(seed) for seed in multi.plan.get("seeds", []))
    table = Table("Multi-teacher distillation beside the published table", ["partition", ""]
                  + [column_title(start) for start in TABLE_TWO_STARTS],
                  note=f"Test accuracy before round 1, %. Here: {data}, seed {seeds}. Published: Table II of arXiv "
                       "2402.14922, CIFAR-10, ResNet-18, 30 epochs. W: class-wise weights, U: equal. The data differ, "
                       "so that signs and orders can be compared and sizes cannot.")
    for partition in multi.partitions:
        mine = [multi.mean(partition, start) for start in TABLE_TWO_STARTS]
        theirs = [published_cell(partition, start) for start in TABLE_TWO_STARTS]
        table.rows.append([partition, "here", *(percent(value, 1).removesuffix("%") for value in mine)])
        table.rows.append([partition, "published", *(percent(value, 1).removesuffix("%") for value in theirs)])
        table.rows.append([partition, "difference", *(NOTHING if a is None or b is None else points(a - b)
                                                      for a, b in zip(mine, theirs))])
    return table


def weights_table(multi: MultiTeacher) -> Table:
    """What the table is read for: weighted less equal."""
    starts = [start for start in TABLE_TWO_STARTS if not start.endswith("-equal")]
    table = Table("Class-wise weights less equal ones, points", ["partition", ""]
                  + [column_title(start).removesuffix(" W") for start in starts])
    for partition in multi.partitions:
        here = [None if (mine := multi.mean(partition, start)) is None
                or (theirs := multi.mean(partition, f"{start}-equal")) is None else mine - theirs for start in starts]
        there = []
        for start in starts:
            pair = [published_cell(partition, name) for name in (start, f"{start}-equal")]
            there.append(None if None in pair else (pair[0] or 0) - (pair[1] or 0))
        table.rows.append([partition, "here", *(points(value) for value in here)])
        table.rows.append([partition, "published", *(points(value) for value in there)])
    return table


def tuner_table(parts: Sequence[Measurement]) -> Table:
    table = Table("The tuner beside the whole grid", ["pairs of", "choice", "pairs", "mean gain", "share of the grid's",
                                                      "of its epochs", "of its seconds", "regret: median", "90%",
                                                      "worst", "setting"],
                  note="Gains on the test set, in points. Regret: the grid's gain less the choice's, pair by pair; "
                       "below 0 where the choice did better than what the grid's validation chose. The default and the "
                       "single settings are read off the grid's trials. The best single setting has the highest mean "
                       "test gain over all these pairs: an oracle, which no one can know beforehand.")
    for part in parts:
        name = part.partition if part.seed == "all" else f"{part.partition}, seed {part.seed}"
        table.rows.append([name, "whole grid", str(len(part.cases)), points(part.grid_gain), "100%", "100%", "100%",
                           NOTHING, NOTHING, NOTHING, ""])
        for rival in part.rivals:
            regret = part.regret(rival)
            table.rows.append([name, RIVAL_TITLES[rival.name], str(len(part.cases)), points(float(rival.gains.mean())),
                               percent(part.share(rival), 1), percent(rival.epochs, 1), percent(rival.seconds, 1),
                               points(float(np.median(regret))), points(float(np.quantile(regret, 0.9))),
                               points(float(regret.max())), rival.note])
    return table
