"""Samples of three silos and a test set, for the examples: x.npy and y.npy in a folder each."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SILOS = 3
RARE = (2, 4, 6)  # pullover, coat, shirt: hard to tell apart


def fashion_mnist(split: str) -> tuple[Array, Array]:
    """Images uint8 [n, 28, 28] and labels; split: train or t10k."""
    with gzip.open(FASHION_MNIST / f"{split}-images-idx3-ubyte.gz") as images:
        x = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FASHION_MNIST / f"{split}-labels-idx1-ubyte.gz") as labels:
        y = np.frombuffer(labels.read(), np.uint8, offset=8).astype(np.int64)
    return x, y


def _write(folder: Path, x: Array, y: Array) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)


def _images(folder: Path, per_class: dict[int, int], concentration: float, seed: int) -> None:
    """Of each class so many samples, dealt out to the silos by shares from a Dirichlet distribution; a test set of 100 a
    class."""
    draws = np.random.RandomState(seed)
    x, y = fashion_mnist("train")
    rows: list[list[int]] = [[] for _ in range(SILOS)]
    for label, count in per_class.items():
        drawn = draws.permutation(np.flatnonzero(y == label))[:count]
        cuts = (np.cumsum(draws.dirichlet([concentration] * SILOS))[:-1] * count).astype(int)
        for silo, part in enumerate(np.split(drawn, cuts)):
            rows[silo] += part.tolist()
    for silo, mine in enumerate(rows):
        order = draws.permutation(mine)
        _write(folder / f"silo-{silo}", x[order], y[order])
    x, y = fashion_mnist("t10k")
    order = np.concatenate([np.flatnonzero(y == label)[:100] for label in range(10)])
    _write(folder / "test", x[order], y[order])


def imbalanced_images(folder: Path) -> None:
    """Three of ten classes are rare: 60 samples each in all silos together, of the others 400."""
    _images(folder, {label: 60 if label in RARE else 400 for label in range(10)}, 1.0, 7)


def existing_script(folder: Path) -> None:
    """Labels are skewed: each silo has much of some classes and little of others."""
    _images(folder, {label: 300 for label in range(10)}, 0.3, 5)


def breast_cancer(folder: Path) -> None:
    """UCI Breast Cancer Wisconsin (Diagnostic), 30 columns; banks of 40, 60 and 260 biopsies, the first with few malignant
    ones, the second with many. The test set has 200."""
    from sklearn.datasets import load_breast_cancer

    draws = np.random.RandomState(3)
    x, y = load_breast_cancer(return_X_y=True)
    order = draws.permutation(len(y))
    test, rest = order[:200], order[200:]
    malignant, benign = rest[y[rest] == 0].tolist(), rest[y[rest] == 1].tolist()
    for silo, (count, share) in enumerate(((40, 0.1), (60, 0.8))):
        few = round(count * share)
        mine = draws.permutation(malignant[:few] + benign[:count - few])
        malignant, benign = malignant[few:], benign[count - few:]
        _write(folder / f"silo-{silo}", x[mine], y[mine])
    mine = draws.permutation(malignant + benign)[:260]
    _write(folder / "silo-2", x[mine], y[mine])
    _write(folder / "test", x[test], y[test])
