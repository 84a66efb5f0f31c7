"""The figures of a comparison, drawn for screen and print, safe for the colour-blind."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.files import read_json
from common.style import COLOURS, GREY, MARKERS, save

from .accounting import Comparison, Cost, Result, Target
from .headline import hardest_targets
from .programs import CENTRAL, needs_models, title_of_partition, title_of_start

ROUND_TICKS = [1, 2, 5, 10]
FIXED_STYLE = {"random": 6, "best": 4, "average": 3, "kd-public": 1, "kd-student": 2}
# The overview leaves out a random start's first rounds, where nothing is compared, to part the curves above.
OVERVIEW_POINTS = 0.45
REFERENCE_LABELS = {"random": "random's best", "best": "best local's best"}
DASHES: dict[str | None, str | tuple[int, tuple[int, ...]]] = {"random": "--", "best": ":", CENTRAL: "-.",
                                                               None: (0, (6, 3, 1, 3, 1, 3))}


def fixed_style(start: str, starts: list[str]) -> int | None:
    """Weights by precision look like the published weights where these are not there to be confused with."""
    published = start.removesuffix("-precision")
    return FIXED_STYLE.get(start if published in starts else published)


def style_of(start: str, starts: list[str]) -> tuple[str, str]:
    """Colour and marker: the same start looks the same in every comparison."""
    fixed = {name: fixed_style(name, starts) for name in starts}
    if (style := fixed[start]) is not None:
        return COLOURS[style], MARKERS[style]
    taken = set(fixed.values())
    free = [index for index in range(len(COLOURS)) if index not in taken] or list(range(len(COLOURS)))
    place = [name for name in starts if fixed[name] is None].index(start)
    index = free[place % len(free)]
    return COLOURS[index], MARKERS[(index + place // len(free)) % len(MARKERS)]


def draw_all(comparison: Comparison, manifests: Path, out: Path) -> dict[str, list[Path]]:
    """Draws what the runs carry; file names by kind, in the order in which a report shows them."""
    out.mkdir(exist_ok=True)
    partitions = [name for name in comparison.plan.partitions
                  if any(comparison.results(name, start) for start in comparison.starts())]
    drawn: dict[str, list[Path]] = {"accuracy": [], "rounds": [], "seed": [], "partition": []}
    if len(partitions) > 1:
        drawn["accuracy"].append(save(accuracy_overview(comparison, partitions), out / "accuracy.png"))
    for name in partitions:
        drawn["accuracy"].append(save(accuracy_figure(comparison, name), out / f"accuracy-{name}.png"))
    for reference in dict.fromkeys(target.reference for target in comparison.targets):
        targets = [target for target in comparison.targets if target.reference == reference]
        file = out / f"rounds-to-target-{reference or 'accuracy'}.png"
        if partitions:
            drawn["rounds"].append(save(rounds_figure(comparison, partitions, targets), file))
    rated = [start for start in comparison.starts() if seed_accuracies(comparison, start, partitions)]
    if len(rated) > 1:
        drawn["seed"].append(save(seed_figure(comparison, rated, partitions), out / "seed.png"))
    for name in comparison.plan.partitions:
        seed = comparison.plan.seeds[0]
        manifest = manifests / f"{name}-seed{seed}.json"
        if manifest.is_file():
            counts = np.array(read_json(manifest)["class_counts"], dtype=float)
            drawn["partition"].append(save(partition_figure(counts, name, seed), out / f"partition-{name}.png"))
    return drawn


def accuracy_figure(comparison: Comparison, partition: str) -> Figure:
    """All of it at the left; where the targets lie, and the starts part, at the right."""
    figure, (whole, near) = plt.subplots(1, 2, figsize=(10.4, 4.2), layout="constrained",
                                         gridspec_kw={"width_ratios": [1, 1.25]})
    for axes in (whole, near):
        _draw_accuracy(axes, comparison, partition)
    whole.set_title(f"Test accuracy over rounds: {title_of_partition(partition)}", loc="left")
    whole.set_ylabel("test accuracy")
    near.set_title("the upper part", loc="left")
    near.set_ylim(*_upper_part(comparison, partition))
    near.yaxis.set_major_formatter(PercentFormatter(1.0))
    levels = _target_levels(comparison, partition)
    hardest = hardest_targets(comparison)
    _draw_levels(whole, [pair for pair in levels if pair[1] in hardest])
    _draw_levels(near, levels)
    _name_levels(near, levels)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=_legend_columns(comparison),
                  frameon=False)
    return figure


def _upper_part(comparison: Comparison, partition: str) -> tuple[float, float]:
    """From the lowest target or pre-trained start up to the highest target or accuracy."""
    results = [result for start in comparison.starts() for result in comparison.results(partition, start)]
    levels = [level for level, _ in _target_levels(comparison, partition)]
    high = max([*levels, *(result.best_accuracy for result in results)])
    seeds = [result.seed_accuracy for result in results if needs_models(result.run.start)]
    low = min([high - 0.1, *levels, *(seed for seed in seeds if seed > high - 0.35)])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def accuracy_overview(comparison: Comparison, partitions: list[str]) -> Figure:
    columns, hardest = min(3, len(partitions)), hardest_targets(comparison)
    rows = -(-len(partitions) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.7 * columns, 3.1 * rows), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")
    for axes, partition in zip(grid.flat, partitions):
        _draw_accuracy(axes, comparison, partition)
        _draw_levels(axes, [pair for pair in _target_levels(comparison, partition) if pair[1] in hardest])
        axes.set_title(title_of_partition(partition), loc="left")
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("test accuracy")
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(max(low, high - OVERVIEW_POINTS), high)
    by_label = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
    by_label |= {_short_label(target): Line2D([], [], color=GREY, linestyle=DASHES[target.reference], linewidth=0.9)
                 for target in hardest}
    labels, handles = list(by_label), list(by_label.values())
    spare = list(grid.flat)[len(partitions):]
    for axes in spare:
        axes.axis("off")
    if spare:
        spare[0].legend(handles, labels, loc="center left", frameon=False, fontsize=10)
    else:
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False,
                      ncol=_legend_columns(comparison))
    return figure


def _legend_columns(comparison: Comparison) -> int:
    return min(4, len(comparison.starts()))


def _draw_accuracy(axes: Axes, comparison: Comparison, partition: str) -> None:
    for start in comparison.starts():
        results = comparison.results(partition, start)
        if results:
            _draw_curve(axes, results, start, comparison.starts())
    axes.set_xlabel("round (0: the start model)")
    axes.set_xlim(-0.4, comparison.plan.rounds + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_TICKS))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _draw_curve(axes: Axes, results: list[Result], start: str, starts: list[str]) -> None:
    """Mean over the seeds and the band from the lowest to the highest, as far as every seed goes: a mean over those
    that did not stop at a target yet would fall."""
    colour, marker = style_of(start, starts)
    length = min(len(result.rounds) for result in results)
    table = np.array([[line.accuracy for line in result.rounds[:length]] for result in results])
    numbers = np.arange(length)
    axes.plot(numbers, table.mean(axis=0), color=colour, marker=marker, markersize=4, linewidth=1.6,
              label=title_of_start(start))
    if len(results) > 1:
        axes.fill_between(numbers, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.16, linewidth=0)


def _target_levels(comparison: Comparison, partition: str) -> list[tuple[float, Target]]:
    """The accuracies to reach, mean over the seeds, ascending."""
    levels = []
    for target in comparison.targets:
        found = [comparison.threshold(target, partition, seed) for seed in comparison.plan.seeds]
        known = [level for level in found if level is not None]
        if known:
            levels.append((float(np.mean(known)), target))
    return sorted(levels, key=lambda pair: pair[0])


def _draw_levels(axes: Axes, levels: list[tuple[float, Target]]) -> None:
    for level, target in levels:
        axes.axhline(level, color=GREY, linestyle=DASHES[target.reference], linewidth=0.9, zorder=1)


def _name_levels(axes: Axes, levels: list[tuple[float, Target]]) -> None:
    """Beside the axes; names that would overlap move up, their lines stay."""
    low, high = axes.get_ylim()
    gap = 0.048 * (high - low)
    place = low - gap
    for level, target in levels:
        place = max(level, place + gap)
        axes.annotate(_short_label(target), (1.0, level), xytext=(1.05, place), xycoords=("axes fraction", "data"),
                      textcoords=("axes fraction", "data"), va="center", fontsize=8, color=GREY, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0})


def _short_label(target: Target) -> str:
    if target.reference is None:
        return f"{100 * target.value:.4g}%"
    if target.reference == CENTRAL:
        return f"central − {target.value:.4g}"
    return ("" if target.value == 1 else f"{100 * target.value:.4g}% of ") + REFERENCE_LABELS[target.reference]


def rounds_figure(comparison: Comparison, partitions: list[str], targets: list[Target]) -> Figure:
    """A panel a target: for each partition and start the charged rounds of every seed, their mean, and how far the
    start's own cost moved it."""
    starts = comparison.starts()
    height = 1.5 + len(partitions) * (0.35 + 0.24 * len(starts))
    figure, grid = plt.subplots(1, len(targets), figsize=(max(6.0, 3.7 * len(targets)), height), sharey=True,
                                sharex=True, squeeze=False, layout="constrained")
    longest = max(_draw_costs(axes, comparison, partitions, target) for axes, target in zip(grid.flat, targets))
    grid[0, 0].set_yticks(range(len(partitions)), [title_of_partition(name) for name in partitions])
    grid[0, 0].set_ylim(len(partitions) - 0.5, -0.5)
    grid[0, 0].set_xlim(0, 1.08 * max(1.0, longest))
    figure.legend(handles=_rounds_legend(starts), loc="upper center", bbox_to_anchor=(0.5, 0.0),
                  ncol=min(4, len(starts) + 3), frameon=False)
    return figure


def _draw_costs(axes: Axes, comparison: Comparison, partitions: list[str], target: Target) -> float:
    """One panel; returns the highest number of rounds in it."""
    starts = comparison.starts()
    step, longest = 0.8 / len(starts), 0.0
    for i, partition in enumerate(partitions):
        for j, start in enumerate(starts):
            costs = [(comparison.cost(target, result, True), comparison.cost(target, result, False))
                     for result in comparison.results(partition, start)]
            known = [(charged, plain) for charged, plain in costs if charged is not None and plain is not None]
            if known:
                _draw_cost(axes, i + (j - (len(starts) - 1) / 2) * step, known, style_of(start, starts))
                longest = max(longest, *(charged.rounds for charged, _ in known))
    axes.set_title(target.label[0].upper() + target.label[1:], loc="left", fontsize=10)
    axes.set_xlabel("rounds, own cost included")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_TICKS))
    axes.grid(axis="y", visible=False)
    for boundary in range(1, len(partitions)):
        axes.axhline(boundary - 0.5, color=GREY, linewidth=0.5, alpha=0.5)
    return longest


def _draw_cost(axes: Axes, y: float, costs: list[tuple[Cost, Cost]], style: tuple[str, str]) -> None:
    colour, marker = style
    charged = [cost.rounds for cost, _ in costs]
    mean = float(np.mean(charged))
    uncharged = float(np.mean([plain.rounds for _, plain in costs]))
    if len(charged) > 1:
        axes.plot([min(charged), max(charged)], [y, y], color=colour, linewidth=3.2, alpha=0.35, solid_capstyle="butt")
        axes.plot(charged, [y] * len(charged), linestyle="none", marker="|", markersize=6, color=colour)
    if uncharged != mean:
        axes.plot(uncharged, y, marker=marker, markersize=6, markerfacecolor="white", color=colour, clip_on=False,
                  zorder=3)
    axes.plot(mean, y, marker=marker, markersize=7, color=colour, clip_on=False, zorder=4)
    if any(cost.is_censored for cost, _ in costs):
        axes.annotate("≥", (max(charged), y), xytext=(7, 0), textcoords="offset points", va="center", color=colour,
                      fontweight="bold", annotation_clip=False)


def _rounds_legend(starts: list[str]) -> list[Line2D]:
    handles = []
    for start in starts:
        colour, marker = style_of(start, starts)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=7,
                              label=title_of_start(start)))
    handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", markerfacecolor="white", markersize=6,
                          label="cost before round 1 left out"))
    handles.append(Line2D([], [], color=GREY, marker="|", linewidth=3.2, alpha=0.5, markersize=6, label="single seeds"))
    handles.append(Line2D([], [], color=GREY, marker="$\\geq$", linestyle="none", markersize=7,
                          label="target not reached in a run"))
    return handles


def seed_accuracies(comparison: Comparison, start: str, partitions: list[str]) -> dict[str, tuple[float, float]]:
    """Accuracy before round 1 by the validation source and on the test set: by partition, means over the seeds."""
    found = {}
    for partition in partitions:
        rated = [(result.validation_accuracy, result.seed_accuracy) for result in comparison.results(partition, start)
                 if result.validation_accuracy is not None]
        if rated:
            validation, test = np.mean(np.array(rated), axis=0)
            found[partition] = (float(validation), float(test))
    return found


def seed_figure(comparison: Comparison, starts: list[str], partitions: list[str]) -> Figure:
    """A row a start, the best by validation first: what the validation source says of it, by partition and in the mean."""
    by_start = {start: seed_accuracies(comparison, start, partitions) for start in starts}
    means = {start: np.mean(list(found.values()), axis=0) for start, found in by_start.items()}
    ranked = sorted(starts, key=lambda start: -means[start][0])
    figure, axes = plt.subplots(figsize=(8.0, 1.4 + 0.36 * len(ranked)), layout="constrained")
    for y, start in enumerate(ranked):
        for partition, (validation, _) in by_start[start].items():
            index = partitions.index(partition) % len(COLOURS)
            axes.plot(validation, y, marker=MARKERS[index], color=COLOURS[index], markersize=6, linestyle="none")
        validation, test = means[start]
        axes.plot(validation, y, marker="|", color="black", markersize=16, markeredgewidth=2.2, linestyle="none")
        axes.plot(test, y, marker="o", color="black", markerfacecolor="white", markersize=5, linestyle="none")
    axes.set_yticks(range(len(ranked)), [title_of_start(start) for start in ranked])
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("accuracy before round 1, by the validation source")
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], linestyle="none",
                      markersize=6, label=title_of_partition(partition)) for i, partition in enumerate(partitions)]
    handles.append(Line2D([], [], color="black", marker="|", markersize=12, markeredgewidth=2.2, linestyle="none",
                          label="mean"))
    handles.append(Line2D([], [], color="black", marker="o", markerfacecolor="white", markersize=5, linestyle="none",
                          label="mean on the test set, which decides nothing"))
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=4, frameon=False)
    return figure


def partition_figure(counts: np.ndarray, partition: str, seed: int) -> Figure:
    """counts: [clients, classes]. Bubbles by area, the client's total above."""
    clients, classes = counts.shape
    width, height = min(11.0, 2.0 + 0.5 * clients), min(9.0, 2.0 + 0.32 * classes)
    figure, (bars, bubbles) = plt.subplots(2, 1, figsize=(width, height), sharex=True, layout="constrained",
                                           gridspec_kw={"height_ratios": [1, max(2.0, classes / 4)]})
    bars.bar(range(clients), counts.sum(axis=1), color="#56B4E9", width=0.62)
    bars.set_ylabel("samples")
    bars.set_title(f"Who holds what: {partition}, seed {seed}", loc="left")
    bars.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    bars.grid(axis="x", visible=False)
    x, y = np.meshgrid(range(clients), range(classes), indexing="ij")
    cell_points = 72 * min(0.72 * width / clients, 0.62 * height / classes)
    areas = (0.92 * cell_points) ** 2 * counts / max(1.0, counts.max())
    bubbles.scatter(x.ravel(), y.ravel(), s=areas.ravel(), color="#0072B2", linewidths=0)
    bubbles.set_xlabel("client")
    bubbles.set_ylabel("class")
    bubbles.set_xlim(-0.6, clients - 0.4)
    bubbles.set_ylim(-0.6, classes - 0.4)
    bubbles.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    bubbles.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    if clients <= 20:
        bubbles.set_xticks(range(clients))
    if classes <= 20:
        bubbles.set_yticks(range(classes))
    figure.supxlabel(f"area: samples of a class at a client; the largest bubble is {int(counts.max()):,} samples",
                     fontsize=8, color=GREY)
    return figure
