"""The figures of a pair study over its pairs, in the papers' layout. What is told by colour is told by marker, dash,
hatch or place as well, for print in grey and for the colour-blind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.style import COLOURS, GREY
from common.text import grouped, in_order, number, points

from . import analysis
from .analysis import strong, weak
from .rows import LABELED, METHOD_TITLES, METHODS, TRANSFERS, Pair, Study

VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
METHOD_STYLES: dict[str, tuple[str, str, str]] = {  # colour, marker, dash
    "vanilla": (BLUE, "s", "-"), "dml": (GREEN, "^", "--"), "dp-kd": (PINK, "D", "-."),
    "dp-kd-supervised": (BLACK, "v", ":"), "dp-kd-unsupervised": (GREY, "<", ":"),
    "tuned": (VERMILLION, "X", "-"), "grid": (ORANGE, "P", "--"), "auto": (SKY, "o", "-.")}
STRONG, WEAK = (BLUE, "o", "strong teacher (better than the student)"), (VERMILLION, "v", "weak teacher")
POINTS = FuncFormatter(lambda value, _: number(value, "+.3g") if abs(value) > 1e-9 else "0")


def method_title(method: str) -> str:
    return METHOD_TITLES.get(method, method)


def transfer_title(study: Study, transfer: str) -> str:
    if transfer == "student":
        return "student's data"
    if transfer not in TRANSFERS:
        return transfer
    kind = "labeled" if transfer in LABELED else "unlabeled"
    size = study.setting("draw." + transfer.replace("-", "_"))
    return f"public, {size:,} {kind}" if isinstance(size, int) else f"public, {kind}"


def count_of(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def style_of(method: str) -> tuple[str, str, str]:
    return METHOD_STYLES.get(method, (BLACK, "*", ":"))


def _zero_lines(axes: Axes, vertical: bool = True) -> None:
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    if vertical:
        axes.axvline(0, color="black", linewidth=0.8, zorder=1)


def scatter_figure(study: Study, pairs: Sequence[Pair]) -> Figure:
    """Gain against the teacher-student difference, a row a method, a column a transfer set."""
    methods = in_order((pair.method for pair in pairs), METHODS)
    transfers = [word for word in study.transfers if any(pair.transfer == word for pair in pairs)]
    size = (max(5.6, 1.0 + 2.6 * len(transfers)), 0.8 + 2.05 * len(methods))
    figure, grid = plt.subplots(len(methods), len(transfers), figsize=size, sharex=True, sharey=True, squeeze=False,
                                layout="constrained")
    for row, method in zip(grid, methods):
        for axes, transfer in zip(row, transfers):
            here = [pair for pair in pairs if pair.method == method and pair.transfer == transfer]
            _scatter(axes, here)
            if method == methods[0]:
                axes.set_title(transfer_title(study, transfer), fontsize=10)
            if transfer == transfers[0]:
                axes.set_ylabel(f"{method_title(method)}\ngain, points")
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(low, high + 0.16 * (high - low))
    figure.supxlabel("test accuracy of the teacher less the student's, points", fontsize=10)
    handles = [_spot(STRONG), _spot(WEAK), Line2D([], [], color="black", linestyle="--", linewidth=1.3,
                                                  label="mean gain")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, frameon=False)
    return figure


def _spot(style: tuple[str, str, str]) -> Line2D:
    colour, marker, label = style
    face = colour if marker == STRONG[1] else "white"
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, linestyle="none", markersize=5.5,
                  label=label)


def _scatter(axes: Axes, pairs: Sequence[Pair]) -> None:
    _zero_lines(axes)
    axes.xaxis.set_major_formatter(POINTS)
    axes.yaxis.set_major_formatter(POINTS)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if not pairs:
        axes.text(0.5, 0.6, "no pairs", transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=8)
        return
    size = 17 if len(pairs) <= 120 else 9
    for (colour, marker, _), group in ((STRONG, strong(pairs)), (WEAK, weak(pairs))):
        axes.scatter([100 * pair.difference for pair in group], [100 * pair.gain for pair in group], s=size,
                     marker=marker, color=colour if marker == STRONG[1] else "white", edgecolors=colour,
                     linewidths=0.9, alpha=0.85, zorder=3)
    gain = float(np.mean([pair.gain for pair in pairs]))
    axes.axhline(100 * gain, color="black", linestyle="--", linewidth=1.1, zorder=2)
    axes.text(0.03, 0.97, f"mean {points(gain)}, {count_of(len(pairs), 'pair')}", transform=axes.transAxes, va="top",
              fontsize=8, zorder=5, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0})


def _panels(study: Study, pairs: Sequence[Pair], draw: Callable[[Axes, list[Pair]], None], width: float = 2.9,
            height: float = 3.0, share_x: bool = True) -> tuple[Figure, list[Axes]]:
    """A panel a transfer set, side by side."""
    transfers = [word for word in study.transfers if any(pair.transfer == word for pair in pairs)]
    figure, grid = plt.subplots(1, len(transfers), figsize=(max(5.0, 0.8 + width * len(transfers)), height),
                                sharex=share_x, sharey=True, squeeze=False, layout="constrained")
    for axes, transfer in zip(grid[0], transfers):
        draw(axes, [pair for pair in pairs if pair.transfer == transfer])
        axes.set_title(transfer_title(study, transfer), fontsize=10)
    return figure, list(grid[0])


def _method_legend(figure: Figure, methods: Sequence[str]) -> None:
    handles = [Line2D([], [], color=colour, marker=marker, linestyle=dash, markersize=5.5, label=method_title(method))
               for method in methods for colour, marker, dash in [style_of(method)]]
    columns = len(handles) if len(handles) <= 6 else 4
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=columns, frameon=False)


def cumulative_figure(study: Study, pairs: Sequence[Pair]) -> Figure:
    """Gain added up over the pairs from the weakest teacher to the strongest; it ends at the mean gain."""
    methods = in_order((pair.method for pair in pairs), METHODS)

    def draw(axes: Axes, here: list[Pair]) -> None:
        _zero_lines(axes, vertical=False)
        for method, group in grouped(here, lambda pair: pair.method).items():
            colour, marker, dash = style_of(method)
            _, sums = analysis.cumulative(group)
            share = np.arange(len(sums) + 1) / len(sums)
            axes.plot(100 * share, 100 * np.concatenate([[0.0], sums]), color=colour, linestyle=dash, linewidth=1.6,
                      marker=marker, markersize=4.5, markevery=max(1, len(sums) // 6))
        weak_share = len(weak(here)) / len(here)
        axes.axvspan(0, 100 * weak_share, color="#eef0f2", zorder=0, linewidth=0)
        axes.text(50 * weak_share, 0.98, "weak teachers", transform=axes.get_xaxis_transform(), ha="center", va="top",
                  fontsize=8, color=GREY)
        axes.yaxis.set_major_formatter(POINTS)
        axes.set_xlim(0, 101)
        axes.set_xticks((0, 25, 50, 75, 100))

    figure, panels = _panels(study, pairs, draw)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high + 0.08 * (high - low))
    panels[0].set_ylabel("gain so far, points a pair")
    figure.supxlabel("pairs from the weakest teacher to the strongest (teacher less student), %", fontsize=10)
    _method_legend(figure, methods)
    return figure


def best_teacher_figure(study: Study, pairs: Sequence[Pair]) -> Figure | None:
    """For how many students the weakest, the second, ... participant was the best teacher; mean over seeds."""
    found = analysis.best_teachers(pairs, study.num_participants)
    if not found:
        return None
    methods = in_order((best.student.method for best in found), METHODS)
    transfers = [word for word in study.transfers if any(best.student.transfer == word for best in found)]
    figure, grid = plt.subplots(1, len(transfers), figsize=(max(5.0, 0.8 + 3.0 * len(transfers)), 3.0), sharex=True,
                                sharey=True, squeeze=False, layout="constrained")
    for axes, transfer in zip(grid[0], transfers):
        for index, method in enumerate(methods):
            mine = [best for best in found if best.student.method == method and best.student.transfer == transfer]
            if mine:
                colour, marker, dash = style_of(method)
                ranks, shares, accuracies = analysis.frequencies_by_rank(mine)
                axes.plot(ranks + 0.1 * (index - (len(methods) - 1) / 2), 100 * shares, color=colour, marker=marker,
                          linestyle=dash, linewidth=0.8, markersize=5)
                axes.set_xticks(ranks, [f"{100 * accuracy:.0f}" for accuracy in accuracies], fontsize=8)
        axes.set_title(transfer_title(study, transfer), fontsize=10)
        axes.grid(axis="x", visible=False)
    grid[0, 0].set_ylabel("best teacher for,\n% of students")
    figure.supxlabel("participants as teachers, weakest first: test accuracy, %", fontsize=10)
    _method_legend(figure, methods)
    return figure


def _bars(study: Study, pairs: Sequence[Pair], draw: Callable[[Axes, float, Sequence[Pair], bool], None]) -> \
        tuple[Figure, list[Axes]]:
    """A panel a transfer set; for each method a place for strong teachers and one for weak ones."""
    methods = in_order((pair.method for pair in pairs), METHODS)

    def panel(axes: Axes, here: list[Pair]) -> None:
        for index, method in enumerate(methods):
            mine = [pair for pair in here if pair.method == method]
            draw(axes, index - 0.21, strong(mine), True)
            draw(axes, index + 0.21, weak(mine), False)
        axes.set_xticks(range(len(methods)), [method_title(method) for method in methods], rotation=40, ha="right",
                        rotation_mode="anchor")
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.6, len(methods) - 0.4)

    return _panels(study, pairs, panel, width=max(2.2, 0.75 + 0.48 * len(methods)), height=3.7)


def learning_figure(study: Study, pairs: Sequence[Pair]) -> Figure:
    """Mean learning upwards and forgetting downwards; the diamond is the gain, their difference."""

    def draw(axes: Axes, x: float, here: Sequence[Pair], is_strong: bool) -> None:
        if not here:
            return
        won = 100 * float(np.mean([pair.learning for pair in here]))
        lost = 100 * float(np.mean([pair.forgetting for pair in here]))
        hatch = "" if is_strong else "////"
        axes.bar(x, won, 0.38, color="#8EC1E8", edgecolor=BLUE, hatch=hatch, linewidth=0.8)
        axes.bar(x, -lost, 0.38, color="#F3C19E", edgecolor=VERMILLION, hatch=hatch, linewidth=0.8)
        gain = 100 * float(np.mean([pair.gain for pair in here]))
        axes.plot(x, gain, marker="D", color="black", markersize=4.5, markeredgecolor="white", zorder=4)

    figure, panels = _bars(study, pairs, draw)
    for axes in panels:
        _zero_lines(axes, vertical=False)
        axes.yaxis.set_major_formatter(POINTS)
    panels[0].set_ylabel("mean over pairs, points")
    handles: list[Patch | Line2D] = [
        Patch(facecolor="#8EC1E8", edgecolor=BLUE, label="learning"),
        Patch(facecolor="#F3C19E", edgecolor=VERMILLION, label="forgetting"),
        Line2D([], [], color="black", marker="D", linestyle="none", markersize=5, label="gain"),
        Patch(facecolor="white", edgecolor=GREY, label="strong teachers"),
        Patch(facecolor="white", edgecolor=GREY, hatch="////", label="weak teachers")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=5, frameon=False)
    return figure


def positive_figure(study: Study, pairs: Sequence[Pair]) -> Figure:
    """Share of the pairs whose student gets better."""

    def draw(axes: Axes, x: float, here: Sequence[Pair], is_strong: bool) -> None:
        share = analysis.share_positive(here)
        if share is None:
            return
        colour, face = (BLUE, "#8EC1E8") if is_strong else (VERMILLION, "#F3C19E")
        axes.bar(x, 100 * share, 0.38, color=face, edgecolor=colour, hatch="" if is_strong else "////", linewidth=0.8)
        axes.text(x, 100 * share + 1.5, str(len(here)), ha="center", va="bottom", fontsize=7, color=GREY)

    figure, panels = _bars(study, pairs, draw)
    panels[0].set_ylim(0, 109)
    panels[0].set_yticks(range(0, 101, 25))
    panels[0].set_ylabel("pairs with a gain above 0, %")
    handles = [Patch(facecolor="#8EC1E8", edgecolor=BLUE, label="strong teachers"),
               Patch(facecolor="#F3C19E", edgecolor=VERMILLION, hatch="////", label="weak teachers"),
               Line2D([], [], linestyle="none", marker="$n$", color=GREY, label="number of pairs")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, frameon=False)
    return figure


def position_figure(pairs: Sequence[Pair]) -> Figure:
    """What each participant gets as the student and as the teacher, relative to its own start, one mark a partner."""
    everything = analysis.positions(pairs)
    accuracies = analysis.accuracies_of(pairs)
    order = analysis.weakest_first(accuracies)
    figure, axes = plt.subplots(figsize=(1.6 + 0.75 * len(order), 3.6), layout="constrained")
    axes.axhline(0, color="black", linewidth=0.8)
    for place, number in enumerate(order):
        mine = [position for position in everything if position.participant == number]
        for shift, colour, marker, values in ((-0.16, BLUE, "o", [position.as_student for position in mine]),
                                              (0.16, VERMILLION, "v", [position.as_teacher for position in mine])):
            known = [100 * value for value in values if value is not None]
            if not known:
                continue
            axes.plot([place + shift] * len(known), known, linestyle="none", marker=marker, markersize=5,
                      markerfacecolor=colour if marker == "o" else "white", color=colour, alpha=0.85)
            axes.plot([place + shift - 0.12, place + shift + 0.12], [float(np.mean(known))] * 2, color="black",
                      linewidth=1.8)
    axes.set_xticks(range(len(order)), [f"{number}\n{100 * accuracies[number]:.0f}%" for number in order])
    axes.set_xlabel("participant and its accuracy at the start, weakest first")
    axes.set_ylabel("accuracy in the end less\nthe participant's start, points")
    axes.yaxis.set_major_formatter(POINTS)
    axes.grid(axis="x", visible=False)
    handles = [Line2D([], [], color=BLUE, marker="o", linestyle="none", label="as the student"),
               Line2D([], [], color=VERMILLION, marker="v", markerfacecolor="white", linestyle="none",
                      label="as the teacher: the model of the partner it taught"),
               Line2D([], [], color="black", linewidth=1.8, label="mean over partners")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, frameon=False)
    return figure
