"""What follows from the rows of a pair study: pure functions, accuracies 0..1. Definitions: methods of Alballa & Canini
2024 (arXiv 2402.14922), and the position table of their EuroMLSys 2023 paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.estimate import T_95, Estimate
from common.text import grouped

from .rows import LABELED, SEARCHED, Pair

FEWEST_CLUSTERS = 4  # below, no interval is given


def _estimate(value: float, influence: np.ndarray, pairs: Sequence[Pair]) -> Estimate:
    """influence: of each pair on the value, summing to 0. Pairs share students and teachers, so errors are clustered by
    both (Cameron, Gelbach & Miller 2011)."""

    def variance(key: Callable[[Pair], Hashable]) -> tuple[float, int]:
        sums: dict[Hashable, float] = {}
        for pair, part in zip(pairs, influence):
            sums[key(pair)] = sums.get(key(pair), 0.0) + float(part)
        count = len(sums)
        return (sum(part * part for part in sums.values()) * count / (count - 1) if count > 1 else 0.0), count

    by_student, students = variance(lambda pair: (pair.partition, pair.seed, pair.student))
    by_teacher, teachers = variance(lambda pair: (pair.partition, pair.seed, pair.teacher))
    by_pair, _ = variance(lambda pair: (pair.partition, pair.seed, pair.teacher, pair.student))
    clusters = min(students, teachers)
    if clusters < FEWEST_CLUSTERS:
        return Estimate(value, None, None, len(pairs))
    error = math.sqrt(max(by_student + by_teacher - by_pair, by_student, by_teacher))
    reach = error * (T_95[clusters - 2] if clusters - 2 < len(T_95) else 1.96)
    return Estimate(value, value - reach, value + reach, len(pairs))


def mean(pairs: Sequence[Pair], values: Sequence[float]) -> Estimate | None:
    if not pairs:
        return None
    x = np.asarray(values, dtype=float)
    return _estimate(float(x.mean()), (x - x.mean()) / len(x), pairs)


def mean_gain(pairs: Sequence[Pair]) -> Estimate | None:
    return mean(pairs, [pair.gain for pair in pairs])


def difference(pairs: Sequence[Pair], values: Sequence[float], others: Sequence[Pair],
               other_values: Sequence[float]) -> Estimate | None:
    """Of two groups' means."""
    if not pairs or not others:
        return None
    x, y = np.asarray(values, dtype=float), np.asarray(other_values, dtype=float)
    influence = np.concatenate([(x - x.mean()) / len(x), -(y - y.mean()) / len(y)])
    both = _estimate(float(x.mean() - y.mean()), influence, [*pairs, *others])
    if min(len(pairs), len(others)) < FEWEST_CLUSTERS:
        return Estimate(both.value, None, None, both.count)
    return both


def slope(pairs: Sequence[Pair], x: Sequence[float], y: Sequence[float]) -> Estimate | None:
    """Of the least-squares line."""
    if len(pairs) < 3:
        return None
    along, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    centred = along - along.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return None
    value = float(centred @ up) / spread
    residual = up - up.mean() - value * centred
    return _estimate(value, centred * residual / spread, pairs)


def matched(left: Iterable[Pair], right: Iterable[Pair]) -> list[tuple[Pair, Pair]]:
    """The same pair on the same transfer set under two methods."""
    by_place = {pair.place: pair for pair in right}
    return [(pair, by_place[pair.place]) for pair in left if pair.place in by_place]


def advantage(pairs: Sequence[Pair], method: str, over: str) -> Estimate | None:
    """Mean difference of gain over the pairs that both methods have."""
    both = matched([pair for pair in pairs if pair.method == method], [pair for pair in pairs if pair.method == over])
    return mean([mine for mine, _ in both], [mine.gain - theirs.gain for mine, theirs in both])


@dataclass(frozen=True)
class Line:
    """One method on one transfer set in one partition."""

    partition: str
    transfer: str
    method: str
    pairs: list[Pair]
    gain: Estimate
    learning: float
    forgetting: float
    positive: float
    positive_strong: float | None
    positive_weak: float | None
    seconds: float


def share_positive(pairs: Sequence[Pair]) -> float | None:
    return sum(pair.gain > 0 for pair in pairs) / len(pairs) if pairs else None


def strong(pairs: Iterable[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.is_strong]


def weak(pairs: Iterable[Pair]) -> list[Pair]:
    """Teachers that are no better than the student."""
    return [pair for pair in pairs if not pair.is_strong]


def line_of(pairs: Sequence[Pair]) -> Line:
    first, gain, positive = pairs[0], mean_gain(pairs), share_positive(pairs)
    assert gain is not None and positive is not None
    return Line(first.partition, first.transfer, first.method, list(pairs), gain,
                float(np.mean([pair.learning for pair in pairs])), float(np.mean([pair.forgetting for pair in pairs])),
                positive, share_positive(strong(pairs)), share_positive(weak(pairs)),
                float(np.mean([pair.seconds for pair in pairs])))


def cumulative(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Gain added up over the pairs in order of the teacher-student difference, weakest teacher first. Both axes are
    divided by the number of pairs, so that methods with fewer pairs can be compared: the line ends at the mean gain.
    Returns the differences in that order, and the sums after each."""
    ordered = sorted(pairs, key=lambda pair: (pair.difference, pair.partition, pair.seed, pair.teacher, pair.student))
    return (np.array([pair.difference for pair in ordered]),
            np.cumsum([pair.gain for pair in ordered]) / len(ordered))


@dataclass(frozen=True)
class BestTeacher:
    """Of one student: the teachers with the highest gain (several only where they tie)."""

    student: Pair
    teachers: list[Pair]
    rivals: list[Pair]

    @property
    def is_strongest(self) -> bool:
        """Whether the most accurate teacher is among them."""
        top = max(pair.teacher_accuracy for pair in self.rivals)
        return any(pair.teacher_accuracy == top for pair in self.teachers)


def best_teachers(pairs: Iterable[Pair], num_participants: int) -> list[BestTeacher]:
    """Of each student under each method on each transfer set, where all the other participants taught it: chosen among
    a few teachers, none is best."""
    found = []
    for group in grouped(pairs, lambda p: (p.partition, p.seed, p.transfer, p.method, p.student)).values():
        first = group[0]
        if len(group) < max(2, num_participants - 1):
            continue
        top = max(pair.gain for pair in group)
        found.append(BestTeacher(first, [pair for pair in group if pair.gain == top], group))
    return found


def best_frequencies(found: Iterable[BestTeacher]) -> dict[tuple[str, int, int], tuple[float, float]]:
    """Participant -> (its accuracy, for how many students it was the best teacher; teachers that tie share one)."""
    result: dict[tuple[str, int, int], tuple[float, float]] = {}
    for best in found:
        for pair in best.rivals:
            key = (pair.partition, pair.seed, pair.teacher)
            share = 1 / len(best.teachers) if pair in best.teachers else 0.0
            result[key] = (pair.teacher_accuracy, result.get(key, (0.0, 0.0))[1] + share)
    return result


def frequencies_by_rank(found: Sequence[BestTeacher]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank by accuracy (0: the weakest participant), the share of the students for whom that participant is the best
    teacher, and its accuracy; over several seeds together."""
    counts: dict[int, float] = {}
    accuracies: dict[int, list[float]] = {}
    cells = grouped(best_frequencies(found).items(), lambda item: item[0][:2])
    for cell in cells.values():
        for rank, (accuracy, count) in enumerate(sorted(value for _, value in cell)):
            counts[rank] = counts.get(rank, 0.0) + count
            accuracies.setdefault(rank, []).append(accuracy)
    ranks = sorted(counts)
    return (np.array(ranks, dtype=float), np.array([counts[rank] for rank in ranks]) / len(found),
            np.array([float(np.mean(accuracies[rank])) for rank in ranks]))


@dataclass(frozen=True)
class Position:
    """What participant P gets from partner q, relative to P's own start: as the student that q teaches, and as the
    teacher, when it goes on with the q that it has taught. teacher(P, q) - student(q, P) = start(q) - start(P)."""

    participant: int
    partner: int
    start: float
    as_student: float | None
    as_teacher: float | None


def positions(pairs: Iterable[Pair]) -> list[Position]:
    """pairs: of one partition, seed, transfer set and method."""
    by_roles = {(pair.teacher, pair.student): pair for pair in pairs}
    starts: dict[int, float] = {}
    for pair in by_roles.values():
        starts[pair.student] = pair.start
        starts[pair.teacher] = pair.teacher_accuracy
    result = []
    for me in sorted(starts):
        for partner in sorted(starts):
            taught, teaching = by_roles.get((partner, me)), by_roles.get((me, partner))
            if taught is None and teaching is None:
                continue
            result.append(Position(me, partner, starts[me], None if taught is None else taught.accuracy - starts[me],
                                   None if teaching is None else teaching.accuracy - starts[me]))
    return result


def position_cell(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that a position table is made of, one partition's: student data if there are any, the method with the
    most pairs there (of those with as many, the one tuned best), the first seed."""
    if not pairs:
        return []
    transfer = "student" if any(pair.transfer == "student" for pair in pairs) else pairs[0].transfer
    seed = min(pair.seed for pair in pairs)
    here = grouped([p for p in pairs if p.transfer == transfer and p.seed == seed], lambda pair: pair.method)
    order = ["tuned", "grid", "auto", "vanilla", "dml", "dp-kd"]
    return max(here.values(), key=lambda group: (len(group), -order.index(group[0].method)
                                                 if group[0].method in order else -len(order)), default=[])


def accuracies_of(pairs: Iterable[Pair]) -> dict[int, float]:
    """Participant -> accuracy at the start. pairs: of one partition and seed."""
    result: dict[int, float] = {}
    for pair in pairs:
        result[pair.student], result[pair.teacher] = pair.start, pair.teacher_accuracy
    return result


def weakest_first(accuracies: Mapping[int, float]) -> list[int]:
    return sorted(accuracies, key=lambda number: (accuracies[number], number))


@dataclass(frozen=True)
class Heat:
    """Chosen settings by teacher (row) and student (column), both weakest first; NaN where no pair is. Over several
    seeds the median, by rank."""

    names: list[str]
    temperature: np.ndarray
    alpha: np.ndarray | None


def heat_of(pairs: Sequence[Pair], accuracies: Mapping[int, Mapping[int, float]]) -> Heat:
    """pairs: of one partition, method and transfer set. accuracies: by seed, of the participants at the start."""
    places: dict[tuple[int, int], list[Pair]] = {}
    size, names = 0, []
    for seed, participants in accuracies.items():
        order = weakest_first(participants)
        size = max(size, len(order))
        names = [str(number) for number in order]
        for pair in pairs:
            if pair.seed == seed:
                places.setdefault((order.index(pair.teacher), order.index(pair.student)), []).append(pair)
    if len(accuracies) > 1:
        names = [f"{rank}." for rank in range(1, size + 1)]
    temperature, alpha = np.full((size, size), np.nan), np.full((size, size), np.nan)
    for (row, column), group in places.items():
        temperature[row, column] = np.median([pair.temperature for pair in group if pair.temperature is not None])
        alphas = [pair.alpha for pair in group if pair.alpha is not None]
        alpha[row, column] = np.median(alphas) if alphas else np.nan
    return Heat(names, temperature, None if np.isnan(alpha).all() else alpha)


@dataclass(frozen=True)
class Surface:
    """Mean validation accuracy over the start, by temperature (row) and alpha (column; one where there is none)."""

    temperatures: list[float]
    alphas: list[float | None]
    values: np.ndarray
    count: int


def surface_of(pairs: Sequence[Pair]) -> Surface | None:
    """pairs: grid cells of one transfer set. None where they have no rated trials."""
    sums: dict[tuple[float, float | None], list[float]] = {}
    counted = 0
    for pair in pairs:
        rated = [trial for trial in pair.trials if trial.validation_accuracy is not None]
        if not rated or pair.validation_start is None:
            continue
        counted += 1
        for trial in rated:
            assert trial.validation_accuracy is not None
            sums.setdefault((trial.temperature, trial.alpha), []).append(
                trial.validation_accuracy - pair.validation_start)
    if not sums:
        return None
    temperatures = sorted({temperature for temperature, _ in sums})
    alphas = sorted({alpha for _, alpha in sums}, key=lambda alpha: -1.0 if alpha is None else alpha)
    values = np.array([[np.mean(sums[t, a]) if (t, a) in sums else np.nan for a in alphas] for t in temperatures])
    return Surface(temperatures, alphas, values, counted)


def chosen(pairs: Iterable[Pair]) -> list[Pair]:
    """One searched cell a pair and transfer set: that of the method that tried most settings."""
    best: dict[tuple[str, int, str, int, int], Pair] = {}
    order = {"grid": 3, "tuned": 2, "auto": 1}
    for pair in pairs:
        if pair.method not in SEARCHED or pair.temperature is None:
            continue
        if pair.place not in best or order[pair.method] > order[best[pair.place].method]:
            best[pair.place] = pair
    return list(best.values())


def wants_other_settings(pair: Pair) -> bool:
    """Than T = 1 and alpha = 0.5."""
    return pair.temperature != 1.0 or (pair.transfer in LABELED and pair.alpha != 0.5)
