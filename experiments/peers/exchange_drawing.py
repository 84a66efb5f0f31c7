"""The figures of exchanges between processes, in colours that are safe for the colour-blind."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from common.style import COLOURS, GREY

from .drawing import class_legend, draw_graph, is_drawn_in_full
from .exchange_results import Results

VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
METHOD_COLOURS = {"kd": BLUE, "gossip": VERMILLION, "alone": BLACK, "def-kt": GREEN, "proxyfl": PINK, "fedmd": ORANGE}
METHOD_MARKERS = {"kd": "o", "gossip": "s", "alone": "D", "def-kt": "X", "proxyfl": "v", "fedmd": "p"}
METHOD_DASHES = {"alone": (0, (4, 2))}


def _colour(method: str) -> str:
    return METHOD_COLOURS.get(method, GREY)


def _marker(method: str) -> str:
    return METHOD_MARKERS.get(method, "h")


def rounds_figure(results: Results) -> Figure:
    """A column a partition, global accuracy above, own below; a line a method, a band from the worst to the best
    peer."""
    partitions = list(results.holdings)
    figure, grid = plt.subplots(2, len(partitions), figsize=(max(5.4, 4.6 * len(partitions)), 6.4), squeeze=False,
                                sharex=True, sharey=True, layout="constrained")
    for column, partition in zip(grid.T, partitions):
        column[0].set_title(partition)
        for one in results.of(partition):
            _course(column[0], one.run.method, [line.overall for line in one.rounds])
            _course(column[1], one.run.method, [line.own for line in one.rounds])
        column[1].set_xlabel("rounds")
        column[0].set_ylim(0, 100)
    grid[0, 0].set_ylabel("global accuracy, %")
    grid[1, 0].set_ylabel("own accuracy, %")
    methods = [method for method in results.plan.methods if any(one.run.method == method for one in results.results)]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_colour(method), marker=_marker(method), linestyle=METHOD_DASHES.get(method, "-"),
               linewidth=1.9, markersize=5.5, markeredgecolor="white", label=f"{method}, mean") for method in methods]
    handles.append(Patch(facecolor=GREY, alpha=0.2, label="from the worst to the best peer"))
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=len(handles), frameon=False,
                  handlelength=3.2)
    return figure


def _course(axes: Axes, method: str, courses: list[tuple[float, ...]]) -> None:
    values, places = 100 * np.array(courses), range(len(courses))
    axes.fill_between(places, values.min(axis=1), values.max(axis=1), color=_colour(method), alpha=0.12, linewidth=0)
    axes.plot(places, values.mean(axis=1), color=_colour(method), linestyle=METHOD_DASHES.get(method, "-"), linewidth=1.9,
              marker=_marker(method), markersize=5.5, markeredgecolor="white", markevery=max(1, len(courses) // 10))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def graphs_figure(results: Results) -> Figure:
    """The peers in a circle, the edges between them, and of which classes their samples are; a panel a partition."""
    figure, grid = plt.subplots(1, len(results.holdings), figsize=(max(4.4, 4.6 * len(results.holdings)), 4.0),
                                squeeze=False, layout="constrained")
    in_full = is_drawn_in_full(list(results.holdings.values()))
    for axes, (partition, peers) in zip(grid.flat, results.holdings.items()):
        axes.set_axis_off()
        axes.set_title(partition)
        draw_graph(axes, peers, results.of(partition)[0].edges, in_full)
    if in_full:
        class_legend(figure, max(len(peer.classes) for peers in results.holdings.values() for peer in peers))
    return figure
