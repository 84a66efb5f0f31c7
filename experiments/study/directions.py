"""The directions that the papers report, as statements that the rows of a study bear out, contradict, or leave open.

A statement about means holds when the whole 95% interval lies on its side, does not hold when the whole interval lies
on the other, and cannot be told in between. Two methods are comparable when the whole interval of their difference lies
within COMPARABLE: an interval that merely holds zero says nothing. A statement about all of several cases holds when
the mean agrees in each and the interval in one or more, and does not when one of them contradicts it by its whole
interval. Runs of multi-teacher distillation have no pairs to take an interval from: there it is taken over the seeds,
and fewer than FEWEST_SEEDS tell nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.answers import COMPARABLE, FAILS, HOLDS, NO_ROWS, OPEN, Answer
from common.answers import answer as _answer
from common.estimate import T_95, Estimate, over_seeds, seeds_text
from common.text import grouped, number
from common.text import points as signed

from . import analysis
from .analysis import advantage, chosen, difference, matched, mean, strong, weak
from .multi_teacher import COLLAPSE, MultiTeacher
from .published import TUNING_ADDS_SKEWED, TUNING_ADDS_UNIFORM, WANT_OTHER_SETTINGS
from .rows import LABELED, SEARCHED, Pair

UNTUNED = ("vanilla", "dml", "dp-kd")


def points(estimate: Estimate | None) -> str:
    if estimate is None:
        return "no pairs"
    return interval(estimate, 100, "+.1f", " points") + f", {estimate.count} results"


def interval(estimate: Estimate, scale: float, form: str, unit: str) -> str:
    value = f"{number(scale * estimate.value, form)}{unit}"
    if estimate.low is None or estimate.high is None:
        return f"{value} (too few students and teachers for an interval)"
    return f"{value} (95%: {number(scale * estimate.low, form)} to {number(scale * estimate.high, form)})"


def _above(estimate: Estimate | None) -> str:
    sign = 0 if estimate is None else estimate.sign
    return {1: HOLDS, -1: FAILS, 0: OPEN}[sign]


def _below(estimate: Estimate | None) -> str:
    sign = 0 if estimate is None else estimate.sign
    return {-1: HOLDS, 1: FAILS, 0: OPEN}[sign]


def _comparable(estimate: Estimate | None) -> str:
    if estimate is None:
        return OPEN
    return HOLDS if estimate.within(COMPARABLE) else FAILS if estimate.beyond(COMPARABLE) else OPEN


def all_directions(pairs: Sequence[Pair], multi: MultiTeacher | None = None) -> list[Answer]:
    return [*_sizes(pairs), *_mutual(pairs), *_data_partitioning(pairs), *_tuning(pairs), *_settings(pairs),
            *_multi_teacher(multi)]


def _of(pairs: Sequence[Pair], **words: str) -> list[Pair]:
    return [pair for pair in pairs if all(getattr(pair, name) == word for name, word in words.items())]


# Bigger transfer sets

def _sizes(pairs: Sequence[Pair]) -> list[Answer]:
    large = {(p.partition, p.seed, p.method, p.teacher, p.student): p for p in _of(pairs, transfer="public-large")}
    both = [(large[key], small) for small in _of(pairs, transfer="public-small")
            if (key := (small.partition, small.seed, small.method, small.teacher, small.student)) in large]
    found = {method: lead for method, group in grouped(both, lambda two: two[0].method).items()
             if (lead := mean([mine for mine, _ in group], [mine.gain - theirs.gain for mine, theirs in group]))}
    cases = [lead for method, lead in found.items() if method != "dml"]
    verdict = OPEN
    if any(lead.sign < 0 for lead in cases):
        verdict = FAILS
    elif any(lead.sign > 0 for lead in cases) and all(lead.value > 0 for lead in cases):
        verdict = HOLDS
    listed = "; ".join(f"{method} {points(lead)}" for method, lead in found.items())
    return [_answer("Size of the transfer set", "Bigger public sets help more: under each method but DML, which does "
                    "harm there, pairs gain more on the large unlabeled set than on the small one.", verdict,
                    f"Large less small, the same pairs: {listed}.", found)]


# Deep mutual learning

def _mutual(pairs: Sequence[Pair]) -> list[Answer]:
    labeled = [pair for pair in pairs if pair.transfer in LABELED]
    unlabeled = [pair for pair in pairs if pair.transfer not in LABELED]
    good = weak(_of(labeled, method="dml"))
    gain, over = analysis.mean_gain(good), advantage(weak(labeled), "dml", "vanilla")
    bad = _of(unlabeled, method="dml")
    harm, under = analysis.mean_gain(bad), advantage(unlabeled, "dml", "vanilla")
    parts = "; ".join(f"{name} teachers {points(analysis.mean_gain(group))}"
                      for name, group in (("strong", strong(bad)), ("weak", weak(bad))))
    topic = "Deep mutual learning"
    return [
        _answer(topic, "With labels, a weak teacher makes its student better.", _above(gain),
                f"Mean gain of DML on labeled sets, weak teachers: {points(gain)}.", gain),
        _answer(topic, "With labels and a weak teacher it gains more than vanilla KD.", _above(over),
                f"DML less vanilla, the same pairs: {points(over)}.", over),
        _answer(topic, "Without labels it does harm.", _below(harm),
                f"Mean gain of DML on unlabeled sets: {points(harm)}; {parts}.", harm),
        _answer(topic, "Without labels it gains less than vanilla KD.", _below(under),
                f"DML less vanilla, the same pairs: {points(under)}.", under),
    ]


# Data-partitioning KD

def _data_partitioning(pairs: Sequence[Pair]) -> list[Answer]:
    topic = "Vanilla and data-partitioning KD"
    over = {name: advantage(_of(pairs, partition=name), "vanilla", "dp-kd")
            for name in ("label-dirichlet", "specialized", "uniform", "quantity-skew", "random-chunks")}
    answers = []
    for name in ("label-dirichlet", "specialized"):
        answers.append(_answer(topic, f"In {name}, vanilla KD beats DP-KD.", _above(over[name]),
                               _over_partitioned(pairs, name, over[name]), over[name]))
    apart = {name: matched(_of(pairs, partition=name, method="vanilla"), _of(pairs, partition=name, method="dp-kd"))
             for name in ("specialized", "label-dirichlet")}
    most = difference(*(part for name in apart for part in (
        [mine for mine, _ in apart[name]], [mine.gain - theirs.gain for mine, theirs in apart[name]])))
    answers.append(_answer(topic, "It does so most in specialized: by more than in label-dirichlet.", _above(most),
                           f"The one lead less the other: {points(most)}.", most))
    for name in ("uniform", "quantity-skew", "random-chunks"):
        answers.append(_answer(topic, f"In {name}, the two are comparable (within {100 * COMPARABLE:.0f} points).",
                               _comparable(over[name]), _over_partitioned(pairs, name, over[name]), over[name]))
    return answers


def _over_partitioned(pairs: Sequence[Pair], partition: str, whole: Estimate | None) -> str:
    parts = "; ".join(f"{transfer} {points(advantage(group, 'vanilla', 'dp-kd'))}" for transfer, group in
                      grouped(_of(pairs, partition=partition), lambda pair: pair.transfer).items())
    return f"Vanilla less DP-KD: {points(whole)}; {parts}."


# Tuned KD

def _tuned_word(pairs: Sequence[Pair]) -> str:
    there = {pair.method for pair in pairs}
    return next((word for word in SEARCHED if word in there), "tuned")


@dataclass(frozen=True)
class TuningCase:
    """One partition and transfer set: the tuned pairs beside each other method's on the same pairs."""

    partition: str
    transfer: str
    best: str
    lead: Estimate
    tuned_gain: float
    best_gain: float


def tuning_cases(pairs: Sequence[Pair]) -> list[TuningCase]:
    word = _tuned_word(pairs)
    cases = []
    for (partition, transfer), group in grouped(pairs, lambda pair: (pair.partition, pair.transfer)).items():
        tuned = _of(group, method=word)
        rivals = [(method, both) for method in UNTUNED if (both := matched(tuned, _of(group, method=method)))]
        if not rivals:
            continue
        method, both = max(rivals, key=lambda rival: float(np.mean([theirs.gain for _, theirs in rival[1]])))
        lead = mean([mine for mine, _ in both], [mine.gain - theirs.gain for mine, theirs in both])
        assert lead is not None
        cases.append(TuningCase(partition, transfer, method, lead, float(np.mean([mine.gain for mine, _ in both])),
                                float(np.mean([theirs.gain for _, theirs in both]))))
    return cases


def tuning_adds(cases: Sequence[TuningCase]) -> float | None:
    """To the gain of the best method without tuning, as a share of it."""
    base = float(np.mean([case.best_gain for case in cases])) if cases else 0.0
    return float(np.mean([case.tuned_gain for case in cases])) / base - 1 if base > 0 else None


def _tuning(pairs: Sequence[Pair]) -> list[Answer]:
    topic, cases = "Tuned KD", tuning_cases(pairs)
    verdict = OPEN
    if any(case.lead.sign < 0 for case in cases):
        verdict = FAILS
    elif any(case.lead.sign > 0 for case in cases) and all(case.lead.value >= 0 for case in cases):
        verdict = HOLDS
    ahead = sum(case.lead.value >= 0 for case in cases)
    listed = "; ".join(f"{case.partition} on {case.transfer}: over {case.best} {points(case.lead)}" for case in cases)
    answers = [_answer(topic, "It is best everywhere: in each partition and on each transfer set, ahead of the best of "
                       "vanilla, DML and DP-KD.", verdict, f"Ahead in {ahead} of {len(cases)} cases. {listed}.", cases)]
    answers.append(_where_most(pairs, topic))
    for name, kind, published in (("uniform", "uniform partition", TUNING_ADDS_UNIFORM),
                                  ("skewed", "non-IID partitions", TUNING_ADDS_SKEWED)):
        own = [case for case in cases if (case.partition == "uniform") == (name == "uniform")]
        answers.append(_answer(topic, f"In the {kind} it adds to the gain of the best method without tuning "
                               f"(published: {100 * published:.0f}%).", _adds_verdict(own), _adds_text(own), own))
    own = chosen(pairs)
    wanting = mean(own, [float(analysis.wants_other_settings(pair)) - 0.5 for pair in own])
    count = sum(analysis.wants_other_settings(pair) for pair in own)
    answers.append(_answer(topic, "Most pairs want settings other than T 1 and alpha 0.5 (published: about "
                           f"{100 * WANT_OTHER_SETTINGS:.0f}%).", _above(wanting),
                           f"{count} of {len(own)} results.", own))
    return answers


def _adds_text(cases: Sequence[TuningCase]) -> str:
    if not cases:
        return NO_ROWS
    added = tuning_adds(cases)
    base, tuned = (float(np.mean([getattr(case, name) for case in cases])) for name in ("best_gain", "tuned_gain"))
    share = "no share can be stated" if added is None else f"{number(100 * added, '+.0f')}%"
    return (f"From {signed(base)} to {signed(tuned)} points over {len(cases)} cases of "
            f"partition and transfer set: {share}.")


def _adds_verdict(cases: Sequence[TuningCase]) -> str:
    signs = [case.lead.sign for case in cases]
    if not cases or 0 in signs and all(sign == 0 for sign in signs):
        return OPEN
    total = float(np.mean([case.lead.value for case in cases]))
    if total > 0 and -1 not in signs:
        return HOLDS
    return FAILS if total <= 0 and 1 not in signs else OPEN


def _where_most(pairs: Sequence[Pair], topic: str) -> Answer:
    both = matched(_of(pairs, method=_tuned_word(pairs)), _of(pairs, method="vanilla"))
    own = [mine for mine, _ in both]
    found = analysis.slope(own, [abs(pair.difference) for pair in own],
                           [mine.gain - theirs.gain for mine, theirs in both])
    numbers = NO_ROWS if found is None else (
        f"For 10 points of difference: {interval(found, 10, '+.2f', ' points')} of lead over vanilla KD, "
        f"{found.count} results.")
    return _answer(topic, "It helps most where teacher and student differ most.", _above(found), numbers, found)


# Best settings

def _settings(pairs: Sequence[Pair]) -> list[Answer]:
    topic, own = "Best T and alpha", chosen(pairs)
    labeled = [pair for pair in own if pair.alpha is not None and pair.transfer in LABELED]
    good, bad = strong(labeled), weak(labeled)
    alpha_good = mean(good, [_alpha(pair) - 0.5 for pair in good])
    alpha_bad = mean(bad, [_alpha(pair) - 0.5 for pair in bad])
    apart = difference(good, [_alpha(pair) for pair in good], bad, [_alpha(pair) for pair in bad])
    warmer = _log_ratio(strong(own), weak(own))
    answers = [
        _answer(topic, "Strong teachers want alpha above 0.5.", _above(alpha_good), _alpha_text(good, alpha_good),
                good),
        _answer(topic, "Weak teachers want a small alpha, below 0.5.", _below(alpha_bad), _alpha_text(bad, alpha_bad),
                bad),
        _answer(topic, "Strong teachers want a larger alpha than weak ones.", _above(apart),
                f"Mean alpha, strong less weak: {_plain(apart)}.", apart),
        _answer(topic, "Strong teachers want a larger T than weak ones.", _above(warmer),
                _ratio_text(warmer, strong(own), weak(own), "strong", "weak"), warmer),
    ]
    special, others = _of(own, partition="specialized"), [p for p in own if p.partition != "specialized"]
    special_a = _of(labeled, partition="specialized")
    others_a = [pair for pair in labeled if pair.partition != "specialized"]
    lower = difference(special_a, [_alpha(p) for p in special_a], others_a, [_alpha(p) for p in others_a])
    colder = _log_ratio(special, others)
    answers += [
        _answer(topic, "Specialized wants a lower alpha than the other partitions.", _below(lower),
                f"Mean alpha, specialized less others: {_plain(lower)}.", lower),
        _answer(topic, "Specialized wants a lower T than the other partitions.", _below(colder),
                _ratio_text(colder, special, others, "specialized", "others"), colder),
    ]
    return answers


def _plain(found: Estimate | None) -> str:
    return NO_ROWS if found is None else f"{interval(found, 1, '+.2f', '')}, {found.count} results"


def _alpha(pair: Pair) -> float:
    assert pair.alpha is not None
    return pair.alpha


def _log_t(pair: Pair) -> float:
    assert pair.temperature is not None
    return math.log(pair.temperature)


def _alpha_text(pairs: Sequence[Pair], found: Estimate | None) -> str:
    if found is None:
        return NO_ROWS
    above = sum(_alpha(pair) > 0.5 for pair in pairs)
    below = sum(_alpha(pair) < 0.5 for pair in pairs)
    moved = Estimate(found.value + 0.5, None if found.low is None else found.low + 0.5,
                     None if found.high is None else found.high + 0.5, found.count)
    parts = ", ".join(f"{transfer} {float(np.mean([_alpha(pair) for pair in group])):.2f}" for transfer, group in
                      grouped(pairs, lambda pair: pair.transfer).items())
    return (f"Mean best alpha {interval(moved, 1, '.2f', '')}; {parts}; above 0.5 for {above}, below for {below} of "
            f"{len(pairs)} results.")


def _log_ratio(left: Sequence[Pair], right: Sequence[Pair]) -> Estimate | None:
    return difference(left, [_log_t(pair) for pair in left], right, [_log_t(pair) for pair in right])


def _ratio_text(found: Estimate | None, left: Sequence[Pair], right: Sequence[Pair], name: str, other: str) -> str:
    if found is None:
        return NO_ROWS
    means = [math.exp(float(np.mean([_log_t(pair) for pair in group]))) for group in (left, right)]
    ratio = Estimate(math.exp(found.value), None if found.low is None else math.exp(found.low),
                     None if found.high is None else math.exp(found.high), found.count)
    return (f"Geometric mean of the best T: {name} {means[0]:.2f}, {other} {means[1]:.2f}; ratio "
            f"{interval(ratio, 1, '.2f', '')}, {found.count} results.")


# Multi-teacher distillation

def _multi_teacher(multi: MultiTeacher | None) -> list[Answer]:
    rules: list[tuple[str, Callable[[MultiTeacher], tuple[str, str]]]] = [
        ("The best start wins all ten comparisons on public data.", _best_wins),
        ("On public data, the worst and the untrained start are comparable: on average over the cells within "
         f"{100 * COMPARABLE:.0f} points (published: no clear difference, untrained ahead in 3 of 10).",
         _worst_and_untrained),
        ("On student data the worst start collapses under quantity-skew, random-chunks and label-dirichlet (below half "
         "of the best start's accuracy).", _collapse),
        ("Class-wise weights help in label-dirichlet.", lambda m: _weights(m, "label-dirichlet", 1, 0)),
        ("Class-wise weights help in quantity-skew, but for one cell.", lambda m: _weights(m, "quantity-skew", 1, 1)),
        ("Class-wise weights hurt in specialized.", lambda m: _weights(m, "specialized", -1, 0)),
        ("Class-wise weights hurt in uniform.", lambda m: _weights(m, "uniform", -1, 0)),
    ]
    answers = []
    for statement, rule in rules:
        verdict, numbers = (OPEN, NO_ROWS) if multi is None else rule(multi)
        answers.append(_answer("Multi-teacher KD", statement, verdict, numbers, numbers != NO_ROWS))
    return answers


def _best_wins(multi: MultiTeacher) -> tuple[str, str]:
    leads = [over_seeds([best - max(others) for best, *others in rows]) for weights in ("", "-equal")
             for name in multi.partitions
             if (rows := multi.by_seed(name, *(f"kd-public{other}{weights}" for other in ("", "-worst", "-untrained"))))]
    if not leads:
        return OPEN, NO_ROWS
    values = [lead.value for lead in leads]
    numbers = (f"Ahead of both others in {sum(value > 0 for value in values)} of {len(leads)}; smallest lead "
               f"{signed(min(values))}, mean {signed(float(np.mean(values)))} points.{seeds_text(leads)}")
    if any(lead.sign < 0 for lead in leads):
        return FAILS, numbers
    return HOLDS if len(leads) == 10 and all(lead.sign > 0 for lead in leads) else OPEN, numbers


def _worst_and_untrained(multi: MultiTeacher) -> tuple[str, str]:
    cells = [rows for weights in ("", "-equal") for name in multi.partitions
             if (rows := multi.by_seed(name, f"kd-public-untrained{weights}", f"kd-public-worst{weights}"))]
    gaps = [float(np.mean([untrained - worst for untrained, worst in rows])) for rows in cells]
    if len(gaps) < 4:
        return OPEN, NO_ROWS
    seeds = [Estimate(gap, None, None, len(rows)) for gap, rows in zip(gaps, cells)]
    center = float(np.mean(gaps))
    reach = float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps)) * T_95[len(gaps) - 2]
    over_cells = Estimate(center, center - reach, center + reach, len(gaps))
    numbers = (f"Untrained ahead in {sum(gap > 0 for gap in gaps)} of {len(gaps)}; untrained less worst "
               f"{signed(center)} points (95% over the cells: {signed(center - reach)} to {signed(center + reach)})."
               + seeds_text(seeds))
    return OPEN if seeds_text(seeds) else _comparable(over_cells), numbers


def _collapse(multi: MultiTeacher) -> tuple[str, str]:
    shares = []
    for name in ("quantity-skew", "random-chunks", "label-dirichlet"):
        for weights in ("", "-equal"):
            rows = multi.by_seed(name, f"kd-student-worst{weights}", f"kd-student{weights}")
            if rows and all(best > 0 for _, best in rows):
                shares.append((f"{name}{' equal' if weights else ''}", over_seeds([mine / best for mine, best in rows])))
    if not shares:
        return OPEN, NO_ROWS
    found = [share for _, share in shares]
    numbers = (f"Collapsed in {sum(share.value < COLLAPSE for share in found)} of {len(shares)} cells; share of the best "
               "start's accuracy: " + ", ".join(f"{name} {100 * share.value:.0f}%" for name, share in shares) + "."
               + seeds_text(found))
    if any(share.low is not None and share.low >= COLLAPSE for share in found):
        return FAILS, numbers
    has_all = len(found) == 6 and all(share.high is not None and share.high < COLLAPSE for share in found)
    return HOLDS if has_all else OPEN, numbers


def _weights(multi: MultiTeacher, partition: str, sign: int, exceptions: int) -> tuple[str, str]:
    starts = ("kd-public-worst", "kd-public", "kd-public-untrained", "kd-student-worst", "kd-student")
    leads = {start: over_seeds([mine - theirs for mine, theirs in rows]) for start in starts
             if (rows := multi.by_seed(partition, start, f"{start}-equal"))}
    if not leads:
        return OPEN, NO_ROWS
    agreeing = sum(sign * lead.sign > 0 for lead in leads.values())
    against = sum(sign * lead.sign < 0 for lead in leads.values())
    numbers = ("Weighted less equal: " + ", ".join(f"{start.removeprefix('kd-')} {signed(lead.value)}"
                                                    for start, lead in leads.items()) + " points."
               + seeds_text(list(leads.values())))
    if against > exceptions:
        return FAILS, numbers
    return HOLDS if agreeing >= len(starts) - exceptions else OPEN, numbers
