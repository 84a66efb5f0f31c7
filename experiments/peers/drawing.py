"""The figures of a study of peers, in colours that are safe for the colour-blind. Averages are told by marker and dash,
too; measures by place, but for own against global accuracy: there the tables tell them in grey."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Wedge
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.estimate import Estimate
from common.style import COLOURS, GREY
from common.text import grouped, in_order, number

from . import analysis
from .names import AVERAGE_TITLES, STRENGTH_TITLES, full_title, measure_title, title_of
from .rows import AVERAGES, MEASURES, METHODS, STRENGTHS, Cell, Peer, Setting, Study
from .tables import first_cell

VERMILLION, BLUE, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
MEASURE_COLOURS = {"ce": SKY, "kl": BLUE, "js": GREEN, "sed": VERMILLION, "td": PINK, "msed": ORANGE}
AVERAGE_MARKERS = {"probabilities": "o", "logits": "s", "none": "^"}
AVERAGE_DASHES = {"probabilities": "-", "logits": "--", "none": ":"}
OTHER_MARKERS = {"gossip": "P", "def-kt": "X", "proxyfl": "v", "fedmd": "p", "alone": "D"}
# Tol's muted palette; more classes than it has grow in lightness alone.
CLASS_COLOURS = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
                 "#DDDDDD"]
POINTS = FuncFormatter(lambda value, _: number(value, "+.3g") if abs(value) > 1e-9 else "0")
MOST_COLUMNS = 3  # panels side by side
MOST_COURSES = 6  # courses over rounds side by side
NARROWEST = 5.0  # points of accuracy that an axis spans at least
MOST_PEERS_DRAWN = 24  # with the shares of their classes; beyond, as dots
MOST_CLASSES_DRAWN = 20


def colour_of(setting: Setting) -> str:
    return MEASURE_COLOURS.get(setting.measure, GREY) if setting.is_kd else BLACK


def marker_of(setting: Setting) -> str:
    return AVERAGE_MARKERS.get(setting.average, "v") if setting.is_kd else OTHER_MARKERS.get(setting.method, "h")


# Own against global accuracy

def plane_figure(study: Study, graph: str, temperature: float, reduction: str) -> Figure | None:
    """A panel a partition and strength, a point a setting; the panels of a partition have the same axes."""
    drawn = {partition: [cell for cell in study.of(partition, graph) if not cell.setting.is_kd or (
        cell.setting.temperature == temperature and cell.setting.reduction == reduction)]
        for partition in study.partitions}
    own = [cell.setting for cells in drawn.values() for cell in cells if cell.setting.is_kd]
    if not own:
        return None
    alphas, strengths = sorted({setting.alpha for setting in own}), in_order((s.strength for s in own), STRENGTHS)
    columns = min(MOST_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, grid = plt.subplots(rows * len(strengths), columns, squeeze=False, layout="constrained",
                                figsize=(max(5.4, 4.1 * columns), 3.8 * rows * len(strengths)))
    for axes in grid.flat:
        axes.set_visible(False)
    for block, strength in enumerate(strengths):
        for axes, (partition, cells) in zip(grid[rows * block:].flat, drawn.items()):
            here = [cell for cell in cells if not cell.setting.is_kd or cell.setting.strength == strength]
            if not here:
                continue
            axes.set_visible(True)
            axes.set_title(partition if len(strengths) < 2 else f"{partition}, {STRENGTH_TITLES[strength]}")
            _plane(axes, here, alphas)
            _limits(axes, cells)
    for axes in grid[:, 0]:
        axes.set_ylabel("own accuracy, %")
    figure.supxlabel("global accuracy, %", fontsize=10)
    _plane_legend(figure, own, [cell.setting.method for cells in drawn.values() for cell in cells], alphas)
    return figure


def _limits(axes: Axes, cells: Sequence[Cell]) -> None:
    """Never so narrow that noise fills a panel."""
    groups = analysis.by_setting(cells).values()
    x = [analysis.mean_of(group, lambda cell: cell.after.overall) for group in groups]
    y = [analysis.mean_of(group, lambda cell: cell.after.own) for group in groups]
    x += [analysis.mean_of(cells, value) for value in (lambda cell: cell.before.overall, lambda cell: cell.ensemble)]
    y += [analysis.mean_of(cells, lambda cell: cell.before.own)]
    for values, set_limits in ((x, axes.set_xlim), (y, axes.set_ylim)):
        middle, reach = 50 * (min(values) + max(values)), max(NARROWEST / 2, 54 * (max(values) - min(values)))
        set_limits(middle - reach, middle + reach)


def _size(alpha: float, alphas: Sequence[float]) -> float:
    """Of a marker, its diameter in points: larger for a larger alpha."""
    return 4.5 if len(alphas) < 2 else 3.5 + 5.0 * alphas.index(alpha) / (len(alphas) - 1)


def _plane(axes: Axes, cells: Sequence[Cell], alphas: Sequence[float]) -> None:
    settings = analysis.by_setting(cells)
    at = {setting: (100 * analysis.mean_of(group, lambda cell: cell.after.overall),
                    100 * analysis.mean_of(group, lambda cell: cell.after.own)) for setting, group in settings.items()}
    curves = grouped([setting for setting in at if setting.is_kd], analysis.family)
    for name, curve in curves.items():
        colour = colour_of(name)
        axes.plot([at[setting][0] for setting in curve], [at[setting][1] for setting in curve], color=colour,
                  linestyle=AVERAGE_DASHES.get(name.average, "-."), linewidth=0.9, alpha=0.6, zorder=2)
        for setting in curve:
            axes.plot(*at[setting], color=colour, marker=marker_of(name), markersize=_size(setting.alpha, alphas),
                      markeredgewidth=0.5, markeredgecolor="white", alpha=0.9, zorder=3)
    for setting, place in at.items():
        if not setting.is_kd:
            axes.plot(*place, color=BLACK, marker=marker_of(setting), markersize=9, markeredgecolor="white",
                      markeredgewidth=0.6, zorder=4)
    before = (100 * analysis.mean_of(cells, lambda cell: cell.before.overall),
              100 * analysis.mean_of(cells, lambda cell: cell.before.own))
    axes.plot(*before, color=BLACK, marker="*", markersize=12, markerfacecolor="white", zorder=4)
    axes.axvline(100 * analysis.mean_of(cells, lambda cell: cell.ensemble), color=GREY, linestyle=(0, (6, 2)),
                 linewidth=1.2, zorder=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))


def _plane_legend(figure: Figure, own: Sequence[Setting], methods: Sequence[str], alphas: Sequence[float]) -> None:
    """Four columns: measures, averages, alphas, and what they are held against. own: those of kd."""
    measures = [Line2D([], [], color=MEASURE_COLOURS.get(word, GREY), marker="o", linestyle="none",
                       label=measure_title(word)) for word in in_order((s.measure for s in own), MEASURES)]
    averages = [Line2D([], [], color=GREY, marker=AVERAGE_MARKERS.get(word, "v"), linewidth=0.9,
                       linestyle=AVERAGE_DASHES.get(word, "-."), label=AVERAGE_TITLES.get(word, word))
                for word in in_order((s.average for s in own), AVERAGES)]
    sizes = [Line2D([], [], color=GREY, marker="o", linestyle="none", markersize=_size(alpha, alphas),
                    label=f"alpha {alpha:g}") for alpha in alphas]
    others = [Line2D([], [], color=BLACK, marker=OTHER_MARKERS.get(word, "h"), linestyle="none", markersize=7,
                     label=title_of(Setting(word))) for word in in_order(set(methods) - {"kd"}, METHODS)]
    others += [Line2D([], [], color=BLACK, marker="*", markerfacecolor="white", linestyle="none", markersize=10,
                      label="start, before anything is sent"),
               Line2D([], [], color=GREY, linestyle=(0, (6, 2)), linewidth=1.2, label="ensemble of the start (global)")]
    _columns_legend(figure, [measures, averages, sizes, others])


def _columns_legend(figure: Figure, columns: Sequence[list[Line2D]]) -> None:
    """Each list in a column of its own."""
    height = max(len(column) for column in columns)
    blank = Line2D([], [], linestyle="none", label=" ")
    handles = [handle for column in columns if column for handle in [*column, *[blank] * (height - len(column))]]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False,
                  ncol=sum(bool(column) for column in columns))


# Accuracy over rounds

def rounds_figures(study: Study, partition: str, graph: str) -> list[Figure]:
    """A column a method or measure (kd: as validation chooses it), global accuracy above, own below; of the first
    seed, a thin line a peer and a thick one for their mean. All have the same axes."""
    everything = study.of(partition, graph)
    if not everything or study.num_rounds < 2:
        return []
    seed = min(cell.seed for cell in everything)
    groups = grouped(everything, lambda cell: (cell.setting.method, cell.setting.measure))
    chosen = analysis.sorted_settings(analysis.chosen_setting(group) for group in groups.values())
    cells = [cell for setting in chosen for cell in everything if cell.setting == setting and cell.seed == seed]
    figures = [_rounds_figure(cells[begin:begin + MOST_COURSES]) for begin in range(0, len(cells), MOST_COURSES)]
    for row in (0, 1) if figures else ():
        panels = [figure.axes[row * (len(figure.axes) // 2)] for figure in figures]
        lows, highs = zip(*(axes.get_ylim() for axes in panels))
        for axes in panels:
            axes.set_ylim(min(lows), max(highs))
    return figures


def _rounds_figure(cells: Sequence[Cell]) -> Figure:
    figure, grid = plt.subplots(2, len(cells), figsize=(max(5.4, 0.9 + 1.8 * len(cells)), 5.0), squeeze=False,
                                sharex=True, sharey="row", layout="constrained")
    for column, cell in zip(grid.T, cells):
        colour, count = colour_of(cell.setting), len(cell.rounds)
        for axes, courses in zip(column, ([one.overall for one in cell.rounds], [one.own for one in cell.rounds])):
            values = 100 * np.array(courses)
            axes.plot(range(count), values, color=colour, linewidth=0.8, alpha=0.55)
            axes.plot(range(count), values.mean(axis=1), color=colour, linewidth=2.6, marker=marker_of(cell.setting),
                      markersize=5, markeredgecolor="white", markevery=max(1, count // 8))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        column[0].axhline(100 * cell.ensemble, color=GREY, linestyle=(0, (6, 2)), linewidth=1.2)
        column[0].set_title(full_title(cell.setting).replace(", ", "\n", 1), fontsize=9)
    grid[0, 0].set_ylabel("global accuracy, %")
    grid[1, 0].set_ylabel("own accuracy, %")
    figure.supxlabel(f"rounds (seed {cells[0].seed})", fontsize=10)
    handles = [Line2D([], [], color=GREY, linewidth=0.8, label="a peer"),
               Line2D([], [], color=GREY, linewidth=2.6, label="mean over peers"),
               Line2D([], [], color=GREY, linestyle=(0, (6, 2)), linewidth=1.2, label="ensemble of the start (global)")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, frameon=False)
    return figure


# Gain over alone

def gains_figure(study: Study, partitions: Sequence[str], graph: str) -> Figure | None:
    """A column a partition, global accuracy above, own below; a place a measure, a mark an average."""
    panels = {partition: gains for partition in partitions
              if (gains := analysis.gains_over_alone(study.of(partition, graph)))}
    if not panels:
        return None
    families = analysis.sorted_settings(gain.family for gains in panels.values() for gain in gains)
    places = list(dict.fromkeys(title_of(name) for name in families))
    is_crowded = len(places) > 5
    width = max(3.0, 0.6 + (0.45 if is_crowded else 0.62) * len(places))
    figure, grid = plt.subplots(2, len(panels), figsize=(max(5.4, width * len(panels)), 5.4), squeeze=False, sharex=True,
                                sharey="row", layout="constrained")
    for column, (partition, gains) in zip(grid.T, panels.items()):
        column[0].set_title(partition)
        for axes, attribute in zip(column, ("overall", "own")):
            axes.axhline(0, color="black", linewidth=0.8, zorder=1)
            for gain in gains:
                alike = [name for name in families if title_of(name) == title_of(gain.family)]
                shift = 0.72 * ((alike.index(gain.family) + 0.5) / len(alike) - 0.5)
                _whisker(axes, places.index(title_of(gain.family)) + shift, getattr(gain, attribute), gain.family)
            axes.yaxis.set_major_formatter(POINTS)
            axes.set_xlim(-0.6, len(places) - 0.4)
            axes.grid(axis="x", visible=False)
        if is_crowded:
            column[1].set_xticks(range(len(places)), places, rotation=40, ha="right", rotation_mode="anchor")
        else:
            column[1].set_xticks(range(len(places)), [place.replace(" ", "\n") for place in places])
    for axes in grid[:, 0]:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, (low + high - NARROWEST) / 2), max(high, (low + high + NARROWEST) / 2))
    grid[0, 0].set_ylabel("global accuracy\nover alone, points")
    grid[1, 0].set_ylabel("own accuracy\nover alone, points")
    own = [name for name in families if name.is_kd]
    handles = [Line2D([], [], color=GREY, marker=AVERAGE_MARKERS.get(word, "v"), linestyle="none",
                      label=AVERAGE_TITLES.get(word, word)) for word in in_order((n.average for n in own), AVERAGES)]
    if len(in_order((name.strength for name in own), STRENGTHS)) > 1:
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", markerfacecolor="white",
                              label="hollow: matched strength"))
    if any(name.reduction == "published" for name in own):
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", alpha=0.5,
                              label="pale: published reduction"))
    if any(gain.overall.low is not None for gains in panels.values() for gain in gains):
        handles.append(Line2D([], [], color=GREY, marker="|", markersize=9, label="95% over seeds"))
    if handles:
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=min(5, len(handles)),
                      frameon=False)
    return figure


def _whisker(axes: Axes, x: float, estimate: Estimate, name: Setting) -> None:
    colour, fade = colour_of(name), 0.5 if name.reduction == "published" else 1.0
    if estimate.low is not None and estimate.high is not None:
        axes.plot([x, x], [100 * estimate.low, 100 * estimate.high], color=colour, linewidth=1.3, alpha=fade, zorder=2)
    axes.plot(x, 100 * estimate.value, color=colour, marker=marker_of(name), markersize=6, alpha=fade, zorder=3,
              markerfacecolor="white" if name.strength == "matched" else colour)


# The graph

def graph_figure(study: Study, graph: str) -> Figure | None:
    """The peers in a circle, the edges between them, and of which classes their samples are; a panel a partition."""
    cells = {partition: cell for partition in study.partitions
             if (cell := first_cell(study, partition, graph)) is not None}
    if not cells:
        return None
    columns = min(MOST_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(max(4.4, 3.9 * columns), 3.4 * rows), squeeze=False,
                                layout="constrained")
    for axes in grid.flat:
        axes.set_axis_off()
    in_full = is_drawn_in_full([cell.peers for cell in cells.values()])
    for axes, (partition, cell) in zip(grid.flat, cells.items()):
        axes.set_title(f"{partition}, seed {cell.seed}")
        draw_graph(axes, cell.peers, cell.edges, in_full)
    if in_full:
        class_legend(figure, max(len(peer.classes) for cell in cells.values() for peer in cell.peers))
    return figure


def is_drawn_in_full(panels: Sequence[Sequence[Peer]]) -> bool:
    """With the shares of the classes: while there are not too many of either to tell apart."""
    most_classes = max(len(peer.classes) for peers in panels for peer in peers)
    return max(len(peers) for peers in panels) <= MOST_PEERS_DRAWN and most_classes <= MOST_CLASSES_DRAWN


def class_legend(figure: Figure, num_classes: int) -> None:
    handles = [Patch(facecolor=_class_colour(number, num_classes), label=str(number)) for number in range(num_classes)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=min(10, num_classes),
                  frameon=False, title="shares of the classes in a peer's samples; in brackets its number of neighbours",
                  title_fontsize=9, columnspacing=1.0, handlelength=1.2)


def _class_colour(number: int, count: int) -> object:
    if count <= len(CLASS_COLOURS):
        return CLASS_COLOURS[number]
    return matplotlib.colormaps["cividis"](number / (count - 1))


def draw_graph(axes: Axes, peers: Sequence[Peer], edges: Sequence[tuple[int, int]], in_full: bool) -> None:
    """in_full: peers with their names and the shares of their classes, else as dots."""
    count = len(peers)
    angles = np.pi / 2 - 2 * np.pi * np.arange(count) / count
    places = np.column_stack([np.cos(angles), np.sin(angles)])
    radius = min(0.25, 0.8 * np.sin(np.pi / count)) if count > 1 else 0.25
    for one, other in edges:
        axes.plot(*places[[one, other]].T, color=GREY, linewidth=min(1.4, max(0.4, 40 / len(edges))), zorder=1)
    for index, (peer, place, angle) in enumerate(zip(peers, places, angles)):
        if not in_full:
            axes.add_patch(Circle(tuple(place), min(0.03, radius), facecolor=BLUE, zorder=2))
            continue
        turn = 90.0
        for number, share in enumerate(np.array(peer.classes) / max(1, sum(peer.classes))):
            if share > 0:
                colour = _class_colour(number, len(peer.classes))
                axes.add_patch(Wedge(tuple(place), radius, turn - 360 * share, turn, zorder=2, linewidth=0.4,
                                     facecolor=colour, edgecolor="white" if share > 0.03 else colour))
            turn -= 360 * share
        axes.add_patch(Circle(tuple(place), radius, fill=False, edgecolor=BLACK, linewidth=0.8, zorder=3))
        sideways = np.cos(angle)
        axes.text(*(place * (1 + (radius + 0.06))), f"{peer.name} ({sum(index in edge for edge in edges)})", fontsize=8,
                  ha="center" if abs(sideways) < 0.3 else "left" if sideways > 0 else "right",
                  va="center" if abs(np.sin(angle)) < 0.3 else "bottom" if np.sin(angle) > 0 else "top", zorder=4)
    axes.set_xlim(-1.7 - radius, 1.7 + radius)
    axes.set_ylim(places[:, 1].min() - radius - 0.25, places[:, 1].max() + radius + 0.25)
    axes.set_aspect("equal")
