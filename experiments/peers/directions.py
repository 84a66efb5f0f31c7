"""The directions that the papers on distillation between peers report (Molo et al., SISAP 2024 and FGCS 176), as
statements that the cells of a study bear out, contradict, or leave open; each for global and for own accuracy, at equal
alpha and at matched strength. RULE says how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from common.answers import COMPARABLE, FAILS, HOLDS, OPEN, Answer, answer
from common.estimate import FEWEST_SEEDS, Estimate
from common.text import grouped, number, points

from . import analysis
from .analysis import ACCURACIES, advantage, distilled, of_method
from .names import AVERAGE_TITLES, STRENGTH_TITLES, case_title, measure_title
from .rows import MEASURES, STRENGTHS, Cell, Study

IID = ("uniform",)
SKEWED = ("label-dirichlet", "primary", "specialized")  # in their classes
EQUAL_BYTES = 0.1  # the share by which they may differ
BOUNDED, UNBOUNDED = ("sed", "js"), ("kl", "ce")

RULE = ("Intervals are 95%, over seeds: a difference is taken between cells that began with the same "
        f"pre-trained models, one a seed, and fewer than {FEWEST_SEEDS} seeds tell nothing. They are not corrected "
        "for how many of them are looked at. Measures are compared at the same average, reduction, alpha and "
        "temperature, averages at the same measure, and the differences averaged over those settings. Beside "
        "alone and gossip, kd stands at the setting that in each seed has the highest validation accuracy; "
        "where a study has no validation samples, at the mean over its settings. Test accuracy is reported "
        "and chooses nothing. Validation samples are drawn from all data alike: they choose for global "
        "accuracy, and own accuracy is read at the same choice. Measures are similar where the whole interval "
        f"of each difference lies within {100 * COMPARABLE:.0f} points of 0, and matter where one lies beyond. "
        "A statement about several partitions and graphs holds when the mean agrees in each and the interval "
        "in one or more, and does not when the interval of one contradicts it; that a measure is ahead holds "
        "only where its mean is ahead at each alpha. A partition or graph without such rows has no part in a "
        "verdict. Directions are those of Molo et al. (SISAP 2024 and FGCS 176), beside the two controls "
        "alone and gossip.")

Value = Callable[[Cell], float]


@dataclass(frozen=True)
class Case:
    """One partition and graph, or one measure in it. parts: means that must agree with it."""

    name: str
    lead: Estimate
    note: str = ""
    parts: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class MeasurePair:
    partition: str
    graph: str
    measure: str
    other: str
    lead: Estimate


def all_directions(study: Study) -> list[Answer]:
    answers = []
    for strength in STRENGTHS:
        for accuracy, value in ACCURACIES.items():
            topic = f"{accuracy.capitalize()} accuracy, {STRENGTH_TITLES[strength]}"
            answers += [_similar(study, topic, strength, value), _matters(study, topic, strength, value),
                        _bounded_ahead(study, topic, strength, value), _average_ahead(study, topic, strength, value),
                        _over_alone(study, topic, strength, value), _over_gossip(study, topic, strength, value)]
    return answers


def interval(lead: Estimate) -> str:
    seeds = f"{lead.count} seed{'s' * (lead.count > 1)}"
    if lead.low is None or lead.high is None:
        return f"{points(lead.value)} points ({seeds}: too few for an interval)"
    return f"{points(lead.value)} points (95%: {points(lead.low)} to {points(lead.high)}; {seeds})"


def _cases(study: Study, partitions: Sequence[str] | None = None) -> list[tuple[str, str, list[Cell]]]:
    """Name, graph and cells of each partition and graph; partitions None: all."""
    return [(case_title(partition, graph, study.graphs), graph, study.of(partition, graph))
            for partition in study.partitions if partitions is None or partition in partitions
            for graph in study.graphs]


def _ahead(cases: Sequence[Case]) -> str:
    if any(case.lead.sign < 0 for case in cases):
        return FAILS
    agree = all(value > 0 for case in cases for value in (case.lead.value, *case.parts))
    return HOLDS if agree and any(case.lead.sign > 0 for case in cases) else OPEN


def _listed(cases: Sequence[Case]) -> str:
    return "; ".join(f"{case.name} {interval(case.lead)}{case.note}" for case in cases) + "."


# Measures

def measure_pairs(study: Study, partition: str, graph: str, strength: str, value: Value) -> list[MeasurePair]:
    cells = distilled(study.of(partition, graph), strength=strength)
    there = [measure for measure in MEASURES if any(cell.setting.measure == measure for cell in cells)]
    found = []
    for measure, other in combinations(there, 2):
        if {measure, other} == {"ce", "kl"}:
            continue  # of the same gradient: the same models, whatever the data
        lead = advantage(distilled(cells, measure=measure), distilled(cells, measure=other), value,
                         analysis.but_measure)
        if lead is not None:
            found.append(MeasurePair(partition, graph, measure, other, lead))
    return found


def _pairs_by_case(study: Study, partitions: Sequence[str], strength: str,
                   value: Value) -> dict[str, list[MeasurePair]]:
    found = {case_title(partition, graph, study.graphs): measure_pairs(study, partition, graph, strength, value)
             for partition in study.partitions if partition in partitions for graph in study.graphs}
    return {name: pairs for name, pairs in found.items() if pairs}


def _farthest(pairs: Sequence[MeasurePair]) -> MeasurePair:
    return max(pairs, key=lambda pair: abs(pair.lead.value))


def _pairs_text(by_case: dict[str, list[MeasurePair]]) -> str:
    texts = []
    for name, pairs in by_case.items():
        widest = _farthest(pairs)
        within = sum(pair.lead.within(COMPARABLE) for pair in pairs)
        beyond = sum(pair.lead.beyond(COMPARABLE) for pair in pairs)
        texts.append(f"{name}: differences between measures: {within} of {len(pairs)} within {100 * COMPARABLE:.0f} points, "
                     f"{beyond} beyond; the largest, {measure_title(widest.measure)} less {measure_title(widest.other)}, "
                     f"{interval(widest.lead)}")
    return "; ".join(texts) + "."


def _similar(study: Study, topic: str, strength: str, value: Value) -> Answer:
    by_case = _pairs_by_case(study, IID, strength, value)
    leads = [pair.lead for pairs in by_case.values() for pair in pairs]
    verdict = OPEN
    if any(lead.beyond(COMPARABLE) for lead in leads):
        verdict = FAILS
    elif all(lead.within(COMPARABLE) for lead in leads):
        verdict = HOLDS
    return answer(topic, f"iid (uniform): all measures have similar accuracy (within {100 * COMPARABLE:.0f} points).",
                  verdict, _pairs_text(by_case), by_case)


def _matters(study: Study, topic: str, strength: str, value: Value) -> Answer:
    by_case = _pairs_by_case(study, SKEWED, strength, value)
    verdict = OPEN
    if any(all(pair.lead.within(COMPARABLE) for pair in pairs) for pairs in by_case.values()):
        verdict = FAILS
    elif (all(abs(_farthest(pairs).lead.value) > COMPARABLE for pairs in by_case.values())
          and any(pair.lead.beyond(COMPARABLE) for pairs in by_case.values() for pair in pairs)):
        verdict = HOLDS
    return answer(topic, f"non-iid ({', '.join(SKEWED)}): the measure matters (by more than {100 * COMPARABLE:.0f} "
                  "points).", verdict, _pairs_text(by_case), by_case)


def _bounded_ahead(study: Study, topic: str, strength: str, value: Value) -> Answer:
    cases = []
    for name, _, cells in _cases(study, SKEWED):
        own = distilled(cells, strength=strength)
        rivals = [cell for cell in own if cell.setting.measure in UNBOUNDED]
        there = "/".join(measure_title(word) for word in UNBOUNDED if distilled(rivals, measure=word))
        for measure in BOUNDED:
            mine = distilled(own, measure=measure)
            lead = advantage(mine, rivals, value, analysis.but_measure)
            if lead is None:
                continue
            parts = {}
            for alpha, group in sorted(grouped(mine, lambda cell: cell.setting.alpha).items()):
                part = advantage(group, rivals, value, analysis.but_measure)
                if part is not None:
                    parts[alpha] = part.value
            note = "" if len(parts) < 2 else ", by alpha " + ", ".join(
                f"{alpha:g} {points(part)}" for alpha, part in parts.items())
            cases.append(Case(f"{name}, {measure_title(measure)} less {there}", lead, note, list(parts.values())))
    return answer(topic, "non-iid: SED and JS are ahead of CE and KL.", _ahead(cases), _listed(cases), cases)


# What is averaged

def _average_ahead(study: Study, topic: str, strength: str, value: Value) -> Answer:
    cases = []
    for name, _, cells in _cases(study):
        own = distilled(cells, strength=strength)
        sums = distilled(own, average="none")
        lead = advantage(distilled(own, average="probabilities"), sums, value, analysis.but_average)
        if lead is None:
            continue
        parts = []
        for measure in MEASURES:
            mine = distilled(own, average="probabilities", measure=measure)
            part = advantage(mine, sums, value, analysis.but_average)
            if part is not None:
                parts.append(f"{measure_title(measure)} {points(part.value)}")
        logits = advantage(distilled(own, average="logits"), sums, value, analysis.but_average)
        if logits is not None:
            parts.append(f"{AVERAGE_TITLES['logits']} {points(logits.value)}")
        cases.append(Case(name, lead, f" ({', '.join(parts)})" if len(parts) > 1 else ""))
    return answer(topic, "The average of the neighbours' predictions beats the sum of pairs.", _ahead(cases),
                  "Mean of probabilities less sum: " + _listed(cases), cases)


# Beside the other methods

def _at_choice(cells: Sequence[Cell], others: Sequence[Cell], value: Value, name: str) -> Case | None:
    """kd as validation chooses it. cells: of kd."""
    mine = analysis.chosen(cells)
    lead = advantage(mine, others, value)
    if lead is None:
        return None
    everything = advantage(cells, others, value)
    settings = len({cell.setting for cell in cells})
    note = ""
    if settings > 1 and everything is not None:
        note = (f", mean over {settings} settings {points(everything.value)}" if analysis.has_validation(cells)
                else f", the mean over {settings} settings, as there are no validation samples")
    return Case(name, lead, note)


def _at(study: Study) -> str:
    return " at validation's choice" if analysis.has_validation(study.cells) else ""


def _over_alone(study: Study, topic: str, strength: str, value: Value) -> Answer:
    cases = []
    for name, _, cells in _cases(study):
        case = _at_choice(distilled(cells, strength=strength), of_method(cells, "alone"), value, name)
        if case is not None:
            cases.append(case)
    return answer(topic, "kd beats training alone, on the peer's own labels and as long.", _ahead(cases),
                  f"kd{_at(study)} less alone: " + _listed(cases), cases)


def byte_ratio(mine: Sequence[Cell], theirs: Sequence[Cell]) -> float | None:
    """None where the others send nothing."""
    sent = float(np.mean([cell.bytes for cell in theirs])) if theirs else 0.0
    return float(np.mean([cell.bytes for cell in mine])) / sent if mine and sent > 0 else None


def _over_gossip(study: Study, topic: str, strength: str, value: Value) -> Answer:
    cases, left_out = [], []
    for name, _, cells in _cases(study):
        mine, gossip = distilled(cells, strength=strength), of_method(cells, "gossip")
        case, ratio = _at_choice(mine, gossip, value, name), byte_ratio(mine, gossip)
        if case is None or ratio is None:
            continue
        if abs(ratio - 1) <= EQUAL_BYTES:
            cases.append(case)
        else:
            left_out.append(f"{name} is not compared: kd sends {number(ratio, '.2f')} times the bytes of gossip")
    told = ([f"kd{_at(study)} less gossip: " + _listed(cases)] if cases else []) + [f"{text}." for text in left_out]
    return answer(topic, "kd beats gossip averaging at the same bytes (equal within "
                  f"{100 * EQUAL_BYTES:.0f}%).", _ahead(cases), " ".join(told), told)
