"""What all figures of the experiments share: fonts, a palette that is safe for the colour-blind, how they are saved."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe & Ito's palette; markers and dashes carry the same distinction in grey.
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["X", "s", "^", "D", "v", "P", "o"]
GREY = "#555555"

plt.rcParams.update({
    "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9, "figure.dpi": 100,
    "savefig.dpi": 160, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "font.family": "DejaVu Sans"})


def save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return file
