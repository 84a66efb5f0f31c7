"""The finding of a comparison in a few sentences. Its control is the best local model: whoever has the clients'
pre-trained models has that start for nothing."""

from __future__ import annotations

from .accounting import Comparison, Saving, Target
from .programs import CENTRAL, title_of_start

BOUND_WORDS = {">=": "at least ", "<=": "at most ", "~": "about "}


def hardest_targets(comparison: Comparison) -> list[Target]:
    """The hardest of each reference, in the order of the targets."""
    references = dict.fromkeys(target.reference for target in comparison.targets)
    return [hardest_target(comparison, reference) for reference in references]


def hardest_target(comparison: Comparison, reference: str | None) -> Target | None:
    own = [target for target in comparison.targets if target.reference == reference]
    return max(own, key=lambda target: target.difficulty, default=None)


def overview_targets(comparison: Comparison) -> list[Target]:
    """The hardest of each reference, and every one below centralised training."""
    hardest = hardest_targets(comparison)
    return [target for target in comparison.targets if target in hardest or target.reference == CENTRAL]


def headline_target(comparison: Comparison) -> Target | None:
    """The hardest target that the best local model sets, which starts can fail to reach; else one of the random start,
    which a distilled start often has before round 1; else the hardest there is."""
    found = (hardest_target(comparison, reference) for reference in ("best", "random", CENTRAL, None))
    return next((target for target in found if target is not None), None)


def headline_start(comparison: Comparison) -> str | None:
    return next((start for start in comparison.starts() if start.startswith("kd-")), None)


def headline(comparison: Comparison) -> str:
    """The saving against the best local model first, then against the random start; then what the rounds undid."""
    start = headline_start(comparison)
    sentences = []
    if start is not None:
        sentences = [_against_best(comparison, start), _against_random(comparison, start), *_falls(comparison)]
    text = " ".join(sentence for sentence in sentences if sentence)
    return text or "No saving can be stated: it takes a distilled start, another start and a target that one reaches."


def _against_best(comparison: Comparison, start: str) -> str:
    target = headline_target(comparison)
    saving = _overall(comparison, target, start, "rounds", "best")
    if target is None or saving is None or saving.spread is None:
        return ""
    whats = [f"{_share(_overall(comparison, target, start, what, 'best'))} of its {word}"
             for what, word in (("rounds", "rounds"), ("bytes", "bytes"), ("seconds", "seconds"))]
    return (f"Against the best local model, a distilled start ({title_of_start(start)}) saves "
            f"{', '.join(whats[:-1])} and {whats[-1]} to {_goal(target, comparison.plan.rounds)} "
            f"({cells_text(saving)} cells; below 0: it takes more).")


def _against_random(comparison: Comparison, start: str) -> str:
    target = hardest_target(comparison, "random") or headline_target(comparison)
    saving = _overall(comparison, target, start, "rounds", "random")
    if target is None or saving is None or saving.spread is None:
        return ""
    text = (f"Against a random start it saves {_share(saving)} of the communication rounds to "
            f"{_goal(target, comparison.plan.rounds)} ({cells_text(saving)} cells)")
    best = _overall(comparison, target, "best", "rounds", "random")
    if best is not None and best.spread is not None:
        text += f", and the best local model alone saves {_share(best)}"
    return text + "."


def _falls(comparison: Comparison) -> list[str]:
    """Starts whose last round is below their round 0."""
    sentences = []
    for start in comparison.starts():
        results = [result for partition in comparison.plan.partitions for result in comparison.results(partition, start)]
        fallen = [result for result in results if result.falls]
        if not fallen:
            continue
        most = max(result.seed_accuracy - result.final_accuracy for result in fallen)
        sentences.append(f"The last round is below round 0 in {len(fallen)} of {len(results)} runs of "
                         f"{title_of_start(start)}, by up to {100 * most:.1f} points.")
    return sentences


def _overall(comparison: Comparison, target: Target | None, start: str, what: str, baseline: str) -> Saving | None:
    if target is None or baseline not in comparison.starts() or start not in comparison.starts():
        return None
    return comparison.saving(target, start, what, True, comparison.plan.partitions, baseline)


def _share(saving: Saving | None) -> str:
    if saving is None or saving.spread is None:
        return "an unknown share"
    return f"{BOUND_WORDS.get(saving.spread.bound, '')}{100 * saving.spread.mean:.0f}%"


def cells_text(saving: Saving) -> str:
    """How many cells a mean is over; how many of them count at the budget, and how many tell nothing."""
    text = str(saving.count)
    if saving.undefined:
        text += f" of {saving.count + saving.undefined}"
    return text + (f", {saving.at_budget} at the budget" if saving.at_budget else "")


def _goal(target: Target, rounds: int) -> str:
    if target.reference is None:
        return f"{100 * target.value:.4g}% accuracy"
    if target.reference == CENTRAL:
        return target.label
    share = "" if target.value == 1 else f"{100 * target.value:.4g}% of "
    start = "a random start" if target.reference == "random" else "the best local model"
    return f"{share}the best accuracy of {rounds} rounds from {start}"
