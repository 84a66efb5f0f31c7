"""Random streams, the same as those of headstart-client: from the same seed it draws the same orders and the same
held-out samples. NumPy alone; where PyTorch is, `torch.randperm` gives the same."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import HeadstartError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Seed:
    """A node of the tree of seeds. A child is named by a label or by a number; the same place is the same stream,
    whenever it is asked for."""

    value: int

    def child(self, label: str | int) -> Seed:
        """First eight bytes, little-endian, of SHA-256(value as 8 little-endian bytes, then the label). A number n has
        the label "#n"."""
        text = f"#{label}" if isinstance(label, int) else label
        digest = hashlib.sha256(self.value.to_bytes(8, "little") + text.encode()).digest()
        return Seed(int.from_bytes(digest[:8], "little"))

    @property
    def low(self) -> int:
        """The low 32 bits, which is what a Mersenne Twister takes."""
        return self.value & 0xFFFFFFFF


def permutation(size: int, seed: Seed) -> Indices:
    """A random order of 0..size-1: what `torch.randperm(size)` draws on a CPU from a generator of this seed."""
    order = list(range(size))
    if size > 1:
        # PyTorch seeds its twister as NumPy's old interface does, and takes one 32-bit number a place.
        bits: Any = np.random.RandomState(seed.low)._bit_generator  # type: ignore[attr-defined]
        draws = bits.random_raw(size - 1).astype(np.int64) % np.arange(size, 1, -1)
        for place, ahead in enumerate(draws.tolist()):
            other = place + ahead
            order[place], order[other] = order[other], order[place]
    return np.asarray(order, dtype=np.int64)


def held_out_split(labels: Array, fraction: float, seed: Seed) -> tuple[Indices, Indices]:
    """Indices of the training samples and of the held-out ones, both ascending. Held out are floor(fraction n) samples,
    at most n - 1, stratified by class with largest remainders. labels: integers [n] of 0 or more."""
    size = len(labels)
    if size == 0:
        raise HeadstartError("there are no samples; a worker needs at least one to train on", "data")
    wanted = min(math.floor(fraction * size + 1e-9), size - 1)  # 0.29 * 100 is a little below 29
    pools = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    quotas = [wanted * len(pool) // size for pool in pools]
    by_remainder = sorted(range(len(pools)), key=lambda label: -(wanted * len(pools[label]) % size))
    for label in by_remainder[: wanted - sum(quotas)]:
        quotas[label] += 1
    drawn = [pool[permutation(len(pool), seed.child(label))][:quota]
             for label, (pool, quota) in enumerate(zip(pools, quotas)) if wanted > 0]
    held_out = np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(size), held_out), held_out


def batches_of(order: Indices, batch_size: int) -> list[Indices]:
    """Cut in sequence, the last batch smaller. A last batch of one sample is joined to the one before, as BatchNorm
    cannot train on one sample."""
    cuts = list(range(0, len(order), max(1, batch_size)))
    if batch_size > 1 and len(cuts) > 1 and len(order) - cuts[-1] == 1:
        cuts.pop()
    return [order[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(order)])]
