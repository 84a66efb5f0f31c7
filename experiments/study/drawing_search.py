"""Figures about temperature and alpha: what searches chose, the surface that a grid measured, the tuner's regret; and
the multi-teacher table."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from common.style import COLOURS, GREY
from common.text import number

from . import analysis
from .analysis import strong, weak
from .drawing import POINTS, count_of, transfer_title
from .multi_teacher import MultiTeacher, column_title, published
from .published import TABLE_TWO_STARTS
from .rows import METHOD_TITLES, SEARCHED, Pair, Study
from .tuner import Measurement

# Grows in lightness alone, so that print in grey keeps the order; numbers in the cells say the rest.
MAP = "cividis"


def _ink(share: float) -> str:
    return "white" if share < 0.55 else "black"


def _heat(axes: Axes, values: np.ndarray, steps: Sequence[float], names: Sequence[str]) -> None:
    """values drawn by their place among the steps of the grid, which are not evenly spaced; the value stands in its
    cell."""
    places = np.full(values.shape, np.nan)
    for index in zip(*np.where(~np.isnan(values))):
        places[index] = int(np.argmin([abs(step - values[index]) for step in steps]))
    colours = plt.get_cmap(MAP)(np.linspace(0, 1, max(2, len(steps))))
    norm = BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours))
    palette = ListedColormap(colours)
    palette.set_bad("#f0f0f0")
    axes.imshow(places, cmap=palette, norm=norm, aspect="equal")
    size = 7.5 if len(names) <= 10 else 5.5
    for row, column in zip(*np.where(~np.isnan(values))):
        axes.text(column, row, f"{values[row, column]:.2g}".removeprefix("0"), ha="center", va="center",
                  fontsize=size, color=_ink(places[row, column] / max(1, len(steps) - 1)))
    for i in range(len(names)):
        axes.plot([i - 0.35, i + 0.35], [i - 0.35, i + 0.35], color="#bbbbbb", linewidth=0.8)
    edges = np.arange(-0.5, len(names))
    axes.hlines(edges, -0.5, len(names) - 0.5, color="white", linewidth=0.8)
    axes.vlines(edges, -0.5, len(names) - 0.5, color="white", linewidth=0.8)
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.grid(visible=False)


def heat_figure(study: Study, pairs: Sequence[Pair], method: str) -> Figure | None:
    """The T (above) and alpha (below) that a search chose, teacher by student, a column a transfer set."""
    own = [pair for pair in pairs if pair.method == method and pair.temperature is not None]
    transfers = [word for word in study.transfers if any(pair.transfer == word for pair in own)]
    if not own or method not in SEARCHED:
        return None
    accuracies = study.accuracies(own[0].partition)
    heats = [analysis.heat_of([pair for pair in own if pair.transfer == word], accuracies) for word in transfers]
    temperatures = study.setting("grid.temperatures") or sorted({pair.temperature for pair in own})
    alphas = study.setting("grid.alphas") or sorted({pair.alpha for pair in own if pair.alpha is not None})
    has_alpha = any(heat.alpha is not None for heat in heats)
    if len(transfers) == 1:  # side by side
        figure, grid = plt.subplots(1, 1 + has_alpha, squeeze=False, layout="constrained",
                                    figsize=(1.2 + 3.4 * (1 + has_alpha), 4.2))
        grid = grid.T
    else:
        figure, grid = plt.subplots(1 + has_alpha, len(transfers), squeeze=False, layout="constrained",
                                    figsize=(1.2 + 2.9 * len(transfers), 0.9 + 3.5 * (1 + has_alpha)))
        # The layout does not see what squares leave of their places.
        figure.get_layout_engine().set(hspace=0.06)
    for column, (heat, transfer) in enumerate(zip(heats, transfers)):
        _heat(grid[0, column], heat.temperature, temperatures, heat.names)
        grid[0, column].set_title(f"best T: {transfer_title(study, transfer)}", fontsize=9.5)
        if has_alpha and heat.alpha is not None:
            _heat(grid[1, column], heat.alpha, alphas, heat.names)
            grid[1, column].set_title("best alpha", fontsize=9.5)
        elif has_alpha:
            grid[1, column].axis("off")
            grid[1, column].text(0.5, 0.5, "no labels:\nalpha has no effect", transform=grid[1, column].transAxes,
                                 ha="center", va="center", color=GREY, fontsize=9)
    figure.supxlabel("student, weakest first", fontsize=10)
    figure.supylabel("teacher, weakest first", fontsize=10)
    return figure


def surface_figure(study: Study, pairs: Sequence[Pair]) -> Figure | None:
    """Mean validation gain over T and alpha, from the grid's trials, for weak and for strong teachers."""
    own = [pair for pair in pairs if pair.method == "grid"]
    rows = []
    for transfer in study.transfers:
        here = [pair for pair in own if pair.transfer == transfer]
        surfaces = [analysis.surface_of(weak(here)), analysis.surface_of(strong(here))]
        if any(surface is not None for surface in surfaces):
            rows.append((transfer, surfaces))
    if not rows:
        return None
    kinds = [(place, word) for place, word in enumerate(("weak", "strong"))
             if any(surfaces[place] is not None for _, surfaces in rows)]
    heights = [2.5 if any(s is not None and None in s.alphas for s in surfaces) else 3.0 for _, surfaces in rows]
    figure, grid = plt.subplots(len(rows), len(kinds), squeeze=False, layout="constrained",
                                figsize=(0.4 + 4.8 * len(kinds), 0.6 + sum(heights)),
                                gridspec_kw={"height_ratios": heights})
    for axes_row, (transfer, surfaces) in zip(grid, rows):
        known = [surface for surface in surfaces if surface is not None]
        limits = (min(float(np.nanmin(s.values)) for s in known), max(float(np.nanmax(s.values)) for s in known))
        for axes, (place, kind) in zip(axes_row, kinds):
            surface = surfaces[place]
            count = count_of(0 if surface is None else surface.count, "pair")
            axes.set_title(f"{transfer_title(study, transfer)}: {kind} teachers, {count}", fontsize=9.5)
            if surface is None:
                axes.axis("off")
            else:
                _draw_surface(axes, surface, limits)
    return figure


def _draw_surface(axes: Axes, surface: analysis.Surface, limits: tuple[float, float]) -> None:
    temperatures = [f"{value:g}" for value in surface.temperatures]
    best = np.unravel_index(np.nanargmax(surface.values), surface.values.shape)
    if surface.alphas == [None]:
        axes.plot(range(len(temperatures)), 100 * surface.values[:, 0], color=COLOURS[1], marker="o", markersize=4.5)
        axes.plot(best[0], 100 * surface.values[best], marker="o", markersize=10, markerfacecolor="none",
                  color="black", markeredgewidth=1.4)
        axes.set_xticks(range(len(temperatures)), temperatures, fontsize=8)
        axes.yaxis.set_major_formatter(POINTS)
        margin = 0.12 * (limits[1] - limits[0]) + 1e-4
        axes.set_ylim(100 * (limits[0] - margin), 100 * (limits[1] + margin))
        axes.tick_params(axis="y", labelsize=8)
        axes.set_ylabel("validation gain, points", fontsize=9)
        axes.set_xlabel("T", fontsize=9)
        return
    values = surface.values.T
    axes.imshow(values, cmap=MAP, vmin=limits[0], vmax=max(limits[1], limits[0] + 1e-9), aspect="auto")
    span = max(limits[1] - limits[0], 1e-9)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, number(100 * value, ".1f"), ha="center", va="center", fontsize=7,
                      color=_ink((value - limits[0]) / span))
    axes.add_patch(plt.Rectangle((best[0] - 0.5, best[1] - 0.5), 1, 1, fill=False, edgecolor=COLOURS[0],
                                 linewidth=2.4))
    axes.set_xticks(range(len(temperatures)), temperatures, fontsize=8)
    axes.set_yticks(range(len(surface.alphas)), [f"{alpha:g}" for alpha in surface.alphas], fontsize=8)
    axes.set_xlabel("T", fontsize=9)
    axes.set_ylabel("alpha", fontsize=9)
    axes.grid(visible=False)


RIVAL_STYLES = {"auto": (COLOURS[1], "o", "-"), "tuned": (COLOURS[0], "X", "--"), "default": (COLOURS[6], "s", ":"),
                "best single": (COLOURS[2], "^", "-."), "best single by validation": (COLOURS[4], "v", "-.")}
RIVAL_TITLES = {"auto": "tuner", "tuned": METHOD_TITLES["tuned"], "default": "default (T 1, alpha 0.5)",
                "best single": "best single setting (oracle)",
                "best single by validation": "best single setting by validation"}


def regret_figure(whole: Measurement, parts: Sequence[Measurement]) -> Figure:
    """Left: the share of pairs whose regret is at most so much. Right: shares of the grid's mean gain by part."""
    shown = [part for part in (parts or [whole])]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, max(3.9, 1.6 + 0.34 * len(shown))), layout="constrained")
    for rival in whole.rivals:
        colour, marker, dash = RIVAL_STYLES[rival.name]
        regret = np.sort(100 * whole.regret(rival))
        left.plot(regret, np.arange(1, len(regret) + 1) / len(regret), color=colour, marker=marker, linestyle=dash,
                  markersize=4, markevery=max(1, len(regret) // 12), linewidth=1.5)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_xlabel("regret: gain of the grid less the choice's, points")
    left.set_ylabel("share of the pairs")
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.set_ylim(0, 1.02)
    left.xaxis.set_major_formatter(POINTS)
    for place, part in enumerate(shown):
        for index, rival in enumerate(part.rivals):
            share = part.share(rival)
            if share is not None:
                colour, marker, _ = RIVAL_STYLES[rival.name]
                right.plot(share, place + 0.13 * (index - (len(part.rivals) - 1) / 2), marker=marker, color=colour,
                           markersize=6, linestyle="none")
    right.axvline(1.0, color="black", linewidth=0.8)
    right.axvline(0.95, color=GREY, linewidth=0.9, linestyle="--")
    names = [part.partition if part.seed == "all" else f"{part.partition}, seed {part.seed}" for part in shown]
    right.set_yticks(range(len(shown)), names, fontsize=8.5)
    right.set_ylim(len(shown) - 0.5, -0.5)
    right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.set_xlabel("share of the grid's mean gain (dashed: 95%)")
    handles = [Line2D([], [], color=RIVAL_STYLES[r.name][0], marker=RIVAL_STYLES[r.name][1],
                      linestyle=RIVAL_STYLES[r.name][2], markersize=5.5, label=RIVAL_TITLES[r.name])
               for r in whole.rivals]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, frameon=False)
    return figure


def multi_teacher_figure(multi: MultiTeacher) -> Figure:
    """Each partition a panel: the ten cells here (filled) and as published (hollow)."""
    figure, grid = plt.subplots(1, len(multi.partitions), figsize=(1.6 + 2.2 * len(multi.partitions), 3.9),
                                sharey=True, squeeze=False, layout="constrained")
    for axes, partition in zip(grid[0], multi.partitions):
        for place, start in enumerate(TABLE_TWO_STARTS):
            mine, theirs = multi.mean(partition, start), published(partition, start)
            if mine is not None and theirs is not None:
                axes.plot([100 * mine, 100 * theirs], [place, place], color="#bbbbbb", linewidth=1.2, zorder=1)
            if theirs is not None:
                axes.plot(100 * theirs, place, marker="s", markerfacecolor="white", color=COLOURS[0], markersize=5.5)
            if mine is not None:
                axes.plot(100 * mine, place, marker="o", color=COLOURS[1], markersize=6, zorder=3)
        axes.set_title(partition, fontsize=10)
        axes.set_xlim(0, 100)
        axes.set_xticks((0, 25, 50, 75))
        axes.axhline(5.5, color=GREY, linewidth=0.6)
    grid[0, 0].set_yticks(range(len(TABLE_TWO_STARTS)), [column_title(start) for start in TABLE_TWO_STARTS],
                          fontsize=8.5)
    grid[0, 0].set_ylim(len(TABLE_TWO_STARTS) - 0.5, -0.5)
    figure.supxlabel("test accuracy before round 1, %", fontsize=10)
    handles = [Line2D([], [], color=COLOURS[1], marker="o", linestyle="none", label="here"),
               Line2D([], [], color=COLOURS[0], marker="s", markerfacecolor="white", linestyle="none",
                      label="published (CIFAR-10, ResNet-18)")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=2, frameon=False)
    return figure
