"""A silo's samples for PyTorch: arrays, a Dataset or a DataLoader, behind one face."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler

from .errors import HeadstartError
from .safetensors import Array
from .seeds import Indices, Seed, batches_of
from .terms import Terms
from .worker import Task


class Samples:
    """Samples with labels."""

    def count(self) -> int:
        raise NotImplementedError

    def epoch(self, seed: Seed, batch_size: int) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        """One pass in the order that `seed` draws: x, y, and the places of the samples where they are known."""
        raise NotImplementedError

    def ordered(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """One pass in the order of the samples."""
        raise NotImplementedError

    def labels(self) -> Array:
        """All of them, integers [n]."""
        raise NotImplementedError

    def part(self, rows: Indices) -> Samples:
        """Of those at `rows`."""
        raise NotImplementedError

    def shape(self) -> list[int] | None:
        """Of a sample, where it is known without loading one."""
        return None

    def first(self) -> tuple[Any, Tensor]:
        """The first batch, of one sample where samples can be had one by one."""
        return next(iter(self.ordered(1)))


def order_of(size: int, seed: Seed) -> Tensor:
    """seeds.permutation() as PyTorch draws it."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed.low))


class ArraySamples(Samples):
    """x [n, ...] ready for the model and y int64 [n], on the model's device."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x, y

    @staticmethod
    def of(x: Any, labels: Array, terms: Terms, device: torch.device) -> ArraySamples:
        """Scaled and normalised as headstart-client does it: uint8 by 255, then by the run's mean and deviation."""
        stored = x if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x))
        if len(stored) != len(labels):
            raise HeadstartError(f"there are {len(stored)} samples and {len(labels)} labels; expected is one label a "
                                 "sample", "data")
        if len(stored) == 0:
            raise HeadstartError("there are no samples; a worker needs at least one to train on", "data")
        values = stored.float() if stored.dtype in (torch.uint8, torch.float64) else stored
        if stored.dtype == torch.uint8:
            values = values / 255
        wanted = terms.task.shape
        if wanted and list(values.shape[1:]) != wanted and values[0].numel() == int(np.prod(wanted)):
            values = values.reshape(len(values), *wanted)
        mean, deviation = terms.samples.mean, terms.samples.deviation
        if mean:
            if len(mean) != values.shape[1] or len(deviation) != values.shape[1]:
                raise HeadstartError(f"the run's mean and deviation are of {len(mean)} and {len(deviation)} channels, the "
                                     f"samples here have {values.shape[1]}", "data")
            by_channel = [-1] + [1] * (values.dim() - 2)
            values = (values - torch.tensor(mean).reshape(by_channel)) / torch.tensor(deviation).reshape(by_channel)
        return ArraySamples(values.to(device), torch.from_numpy(labels).to(device))

    def count(self) -> int:
        return len(self._y)

    def epoch(self, seed: Seed, batch_size: int) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        order = order_of(len(self._y), seed).numpy()
        for rows in batches_of(order, batch_size):
            batch = torch.from_numpy(rows).to(self._y.device)
            yield self._x.index_select(0, batch), self._y.index_select(0, batch), batch

    def ordered(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        for begin in range(0, len(self._y), batch_size):
            yield self._x[begin:begin + batch_size], self._y[begin:begin + batch_size]

    def labels(self) -> Array:
        return self._y.cpu().numpy()

    def part(self, rows: Indices) -> ArraySamples:
        batch = torch.from_numpy(rows).to(self._y.device)
        return ArraySamples(self._x.index_select(0, batch), self._y.index_select(0, batch))

    def shape(self) -> list[int] | None:
        return list(self._x.shape[1:])


class SetSamples(Samples):
    """A Dataset with a length, whose samples are pairs (x, y)."""

    def __init__(self, data: Dataset[Any]) -> None:
        self._data = data
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise HeadstartError(f"the Dataset {type(data).__name__} has no length; give TorchWorker a DataLoader of it, and "
                                 "examples=")
        if self.count() == 0:
            raise HeadstartError(f"the Dataset {type(data).__name__} has no samples; a worker needs at least one", "data")

    def count(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def _loader(self, batches: Sequence[list[int]]) -> Iterator[tuple[Any, Tensor]]:
        sampler: Any = batches
        return iter(DataLoader(self._data, batch_sampler=sampler))

    def epoch(self, seed: Seed, batch_size: int) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        batches = batches_of(order_of(self.count(), seed).numpy(), batch_size)
        for rows, batch in zip(batches, self._loader([rows.tolist() for rows in batches])):
            x, y = pair_of(batch)
            yield x, y, torch.from_numpy(rows)

    def ordered(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        rows = range(self.count())
        for batch in self._loader([list(rows[begin:begin + batch_size]) for begin in range(0, len(rows), batch_size)]):
            yield pair_of(batch)

    def labels(self) -> Array:
        known: Any = getattr(self._data, "targets", None)  # torchvision's sets have them at hand
        if known is None or len(known) != self.count():
            known = [int(pair_of(self._data[row])[1]) for row in range(self.count())]
        return np.asarray(known, np.int64)

    def part(self, rows: Indices) -> SetSamples:
        return SetSamples(Subset(self._data, rows.tolist()))


class LoaderSamples(Samples):
    """A DataLoader, in batches and an order of its own."""

    def __init__(self, loader: DataLoader[Any], examples: int | None = None) -> None:
        self.loader, self._examples = loader, examples

    def count(self) -> int:
        if self._examples is not None:
            return self._examples
        sampler: Any = self.loader.sampler
        try:
            return len(sampler) if isinstance(sampler, SubsetRandomSampler) else len(self.loader.dataset)  # type: ignore[arg-type]
        except TypeError:
            raise HeadstartError("the DataLoader's set has no length; say the number of training samples: "
                                 "TorchWorker(..., examples=)") from None

    def epoch(self, seed: Seed, batch_size: int) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        # Where the loader draws from generators of its own, they begin anew. Others draw from the global one, which
        # began at the task's seed.
        samplers: list[Any] = [self.loader, self.loader.sampler, self.loader.batch_sampler]
        for number, drawer in enumerate(samplers):
            generator = getattr(drawer, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed.child(number).low)
        torch.manual_seed(seed.low)
        np.random.seed(seed.low)
        random.seed(seed.value)
        for batch in self.loader:
            x, y = pair_of(batch)
            yield x, y, None

    def ordered(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        for batch in self.loader:
            yield pair_of(batch)


class OwnBatches:
    """The batches of an epoch for a loop of the user's own: iterable, as long as the loader is, and with the loader's
    other attributes where it is one."""

    def __init__(self, samples: Samples, task: Task, epoch: int, epochs: int, batch_size: int) -> None:
        self._samples, self._task = samples, task
        self._epoch, self._epochs, self._batch_size = epoch, epochs, batch_size

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        count = self._samples.count()
        batches = self._samples.epoch(self._task.seed.child(self._epoch), self._batch_size)
        for x, y, _ in self._task.batches(batches, self._epochs * count, self._epoch * count,
                                          size=lambda batch: len(batch[1])):
            yield x, y

    def __len__(self) -> int:
        if isinstance(self._samples, LoaderSamples):
            return len(self._samples.loader)
        return len(batches_of(np.arange(self._samples.count()), self._batch_size))

    def __getattr__(self, name: str) -> Any:
        if isinstance(self._samples, LoaderSamples):
            return getattr(self._samples.loader, name)
        raise AttributeError(f"the batches have no '{name}'; give TorchWorker a DataLoader for that")


def pair_of(batch: Any) -> tuple[Any, Tensor]:
    """x and y of a batch or a sample."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    raise HeadstartError(f"the data give {type(batch).__name__} where a pair (x, y) is expected; wrap them in a Dataset "
                         "that gives pairs", "data")
