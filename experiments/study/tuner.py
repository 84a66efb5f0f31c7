"""The automatic tuner measured against the whole grid, on the pairs that have both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.text import grouped

from .analysis import matched
from .rows import Pair, Trial

# What issue and README promise of it.
SHARE_GOAL, COST_GOAL = 0.95, 0.15
DEFAULT = (1.0, 0.5)

Setting = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """One pair: what the grid found, what the tuner found, and every trial of the grid measured on the test set."""

    grid: Pair
    auto: Pair
    staged: Pair | None  # alpha first, then T: the papers' tuned KD

    def trial(self, setting: Setting) -> Trial | None:
        """Without labels alpha has no effect: any alpha means the trial at that temperature."""
        return self._trials.get(setting) or self._trials.get((setting[0], None))

    @cached_property
    def _trials(self) -> dict[tuple[float, float | None], Trial]:
        return {(trial.temperature, trial.alpha): trial for trial in self.grid.trials}

    def gain_at(self, setting: Setting) -> float | None:
        trial = self.trial(setting)
        return None if trial is None or trial.accuracy is None else trial.accuracy - self.grid.start


def cases_of(pairs: Sequence[Pair]) -> list[Case]:
    staged = {pair.place: pair for pair in pairs if pair.method == "tuned"}
    both = matched([pair for pair in pairs if pair.method == "grid"], [pair for pair in pairs if pair.method == "auto"])
    return [Case(grid, auto, staged.get(grid.place)) for grid, auto in both]


def common_settings(cases: Sequence[Case]) -> list[Setting]:
    """Those that every grid tried and measured."""
    temperatures = {trial.temperature for case in cases for trial in case.grid.trials}
    alphas = {trial.alpha for case in cases for trial in case.grid.trials if trial.alpha is not None} or {DEFAULT[1]}
    everything = sorted((t, a) for t in temperatures for a in alphas)
    return [setting for setting in everything if all(case.gain_at(setting) is not None for case in cases)]


def best_single(cases: Sequence[Case]) -> Setting | None:
    """The setting with the highest mean gain over all pairs on the test set: an oracle, which nobody can know."""
    return max(common_settings(cases), key=lambda s: float(np.mean([case.gain_at(s) for case in cases])), default=None)


def best_single_by_validation(cases: Sequence[Case]) -> Setting | None:
    """The one that validation data would choose, could one search over all pairs at once."""

    def rating(setting: Setting) -> float:
        trials = [case.trial(setting) for case in cases]
        return float(np.mean([t.validation_accuracy for t in trials if t is not None
                              and t.validation_accuracy is not None] or [0.0]))

    return max(common_settings(cases), key=rating, default=None)


@dataclass(frozen=True)
class Rival:
    """One way to choose T and alpha: its gains over the cases, and what it cost of the grid's epochs and seconds."""

    name: str
    gains: np.ndarray
    epochs: float | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """Over some cases. Shares are of the grid's mean gain; None where that is not above 0."""

    partition: str
    seed: str
    cases: list[Case]
    grid_gain: float
    rivals: list[Rival]

    def share(self, rival: Rival) -> float | None:
        return float(rival.gains.mean()) / self.grid_gain if self.grid_gain > 0 else None

    def regret(self, rival: Rival) -> np.ndarray:
        return self.grid_gains - rival.gains

    @property
    def grid_gains(self) -> np.ndarray:
        return np.array([case.grid.gain for case in self.cases])

    def rival(self, name: str) -> Rival | None:
        return next((rival for rival in self.rivals if rival.name == name), None)


def setting_text(setting: Setting) -> str:
    return f"T {setting[0]:g}, alpha {setting[1]:g}"


@dataclass(frozen=True)
class SingleSettings:
    """One setting for all pairs, each chosen in its way; None where the grids share none."""

    oracle: Setting | None
    by_validation: Setting | None

    @staticmethod
    def of(cases: Sequence[Case]) -> SingleSettings:
        return SingleSettings(best_single(cases), best_single_by_validation(cases))


def measure(cases: Sequence[Case], single: SingleSettings, partition: str = "all", seed: str = "all") -> Measurement:
    grid_epochs = sum(case.grid.epochs for case in cases)
    grid_seconds = sum(case.grid.seconds for case in cases)

    def rival(name: str, found: Sequence[Pair], note: str = "") -> Rival:
        return Rival(name, np.array([pair.gain for pair in found]),
                     sum(pair.epochs for pair in found) / grid_epochs if grid_epochs else None,
                     sum(pair.seconds for pair in found) / grid_seconds if grid_seconds else None, note)

    rivals = [rival("auto", [case.auto for case in cases])]
    staged = [case.staged for case in cases if case.staged is not None]
    if len(staged) == len(cases):
        rivals.append(rival("tuned", staged))
    for name, setting, note in (("default", DEFAULT, ""),
                                ("best single", single.oracle, "an oracle: chosen on the test set"),
                                ("best single by validation", single.by_validation, "")):
        gains = [None if setting is None else case.gain_at(setting) for case in cases]
        if setting is not None and all(gain is not None for gain in gains):
            trials = [case.trial(setting) for case in cases]
            epochs = sum(trial.epochs for trial in trials if trial is not None)
            rivals.append(Rival(name, np.array(gains, dtype=float), epochs / grid_epochs if grid_epochs else None, None,
                                setting_text(setting) + (f"; {note}" if note else "")))
    return Measurement(partition, seed, list(cases), float(np.mean([case.grid.gain for case in cases])), rivals)


def measurements(pairs: Sequence[Pair]) -> list[Measurement]:
    """Over all pairs first, then each partition and seed, and each transfer set where there are several."""
    cases = cases_of(pairs)
    if not cases:
        return []
    single = SingleSettings.of(cases)
    result = [measure(cases, single)]
    cells = grouped(cases, lambda case: (case.grid.partition, case.grid.seed))
    if len(cells) > 1:
        result += [measure(group, single, partition, str(seed)) for (partition, seed), group in sorted(cells.items())]
    transfers = grouped(cases, lambda case: case.grid.transfer)
    if len(transfers) > 1:
        result += [measure(group, single, f"all, on {transfer}") for transfer, group in sorted(transfers.items())]
    return result


def verdict(whole: Measurement) -> str:
    """Whether the tuner does what is asked of it, in a sentence."""
    auto = whole.rivals[0]
    share = whole.share(auto)
    if share is None:
        return (f"The grid gains nothing on average over these {len(whole.cases)} pairs, so that no share of it can be "
                "stated.")
    beaten = [rival for rival in whole.rivals if rival.name in ("default", "best single")]
    better = [f"{rival.name} ({100 * (whole.share(rival) or 0):.1f}%)" for rival in beaten
              if rival.gains.mean() >= auto.gains.mean()]
    cost = auto.epochs
    text = (f"Over {len(whole.cases)} pairs the tuner reaches {100 * share:.1f}% of the grid's mean gain "
            f"(asked: at least {100 * SHARE_GOAL:.0f}%)")
    if cost is not None:
        text += f" for {100 * cost:.1f}% of its epochs (asked: at most {100 * COST_GOAL:.0f}%)"
    if auto.seconds is not None:
        text += f" and {100 * auto.seconds:.1f}% of its seconds"
    text += ("; it beats the untuned default and the best single setting" if not better
             else f"; it does not beat {' and '.join(better)}") if beaten else ""
    is_reached = share >= SHARE_GOAL and cost is not None and cost <= COST_GOAL and not better
    return f"{text}: {'reached' if is_reached else 'not reached'}."
