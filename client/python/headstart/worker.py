"""What a worker is: whoever trains and measures for a silo. The client keeps the connection, the identity and the
consent; a worker answers its tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from .errors import HeadstartError
from .safetensors import Array, State, is_floating, type_word
from .seeds import Seed
from .terms import Terms

Item = TypeVar("Item")

KINDS = ("train", "evaluate", "pretrain", "logits", "features", "distill", "backward")
"""The kinds of task, each a method of Worker."""


@dataclass
class Brought:
    """What a worker brings to a run."""

    examples: int
    """Training samples, without those held out."""
    held_out: int = 0
    classes: list[str] | None = None
    """Names of the classes by label, where the worker knows them. They must be the run's."""
    shape: list[int] | None = None
    """Of one sample, where the worker knows it. It must be the run's."""
    remarks: list[str] = field(default_factory=list)
    """Sentences for the silo's log."""


@dataclass
class Teacher:
    """A model that teaches, and the silo that trained it (empty: the server made it)."""

    owner: str
    state: State


@dataclass
class Pretrained:
    state: State
    epochs: int
    """Epochs run."""
    best_epoch: int
    """From 1: the epoch whose model this is."""


@dataclass
class Evaluation:
    """Counts by class, over the held-out samples. Each list has a number a class."""

    correct: list[int]
    total: list[int]
    """By true class."""
    predicted: list[int]
    loss_sum: float
    """Sum of the samples' cross-entropies; infinite where the model diverged."""
    own: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Metrics of the worker: name -> value and weight. The server averages them by weight."""
    scored: tuple[Array, Array] | None = None
    """Logits [n, C] and labels [n] of the held-out samples, where the task asks for scores: the client counts them."""

    @staticmethod
    def of_none(num_classes: int) -> Evaluation:
        return Evaluation([0] * num_classes, [0] * num_classes, [0] * num_classes, 0.0)

    @staticmethod
    def of(logits: Array, labels: Array, num_classes: int) -> Evaluation:
        """logits: [n, num_classes]; labels: integers [n]. Throws where a label is no class of the run."""
        scores, truth = np.asarray(logits, np.float64), np.asarray(labels).astype(np.int64)
        if scores.ndim != 2 or scores.shape[1] != num_classes or len(scores) != len(truth):
            raise HeadstartError(f"the model answers {len(truth)} samples with an array {list(scores.shape)}; expected "
                                 f"are logits [{len(truth)}, {num_classes}], one a class of the run")
        if len(truth) == 0:
            return Evaluation.of_none(num_classes)
        if truth.min() < 0 or truth.max() >= num_classes:
            odd = int(truth.min() if truth.min() < 0 else truth.max())
            raise HeadstartError(f"a held-out sample has the label {odd}; the run's classes are 0 to {num_classes - 1}",
                                 "data")
        answers = scores.argmax(1)
        with np.errstate(invalid="ignore", over="ignore"):
            above = scores - scores.max(1, keepdims=True)
            losses = np.log(np.exp(above).sum(1)) - above[np.arange(len(truth)), truth]
        loss_sum = max(0.0, float(losses.sum())) if np.isfinite(losses).all() else math.inf
        correct, total, predicted = (np.bincount(classes, minlength=num_classes).tolist()
                                     for classes in (truth[answers == truth], truth, answers))
        return Evaluation(correct, total, predicted, loss_sum)

    def add(self, other: Evaluation) -> None:
        """Takes in the counts of further samples; `own` stays."""
        for mine, theirs in ((self.correct, other.correct), (self.total, other.total),
                             (self.predicted, other.predicted)):
            mine[:] = [a + b for a, b in zip(mine, theirs)]
        self.loss_sum += other.loss_sum

    @property
    def samples(self) -> int:
        return sum(self.total)

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / self.samples if self.samples else 0.0

    @property
    def loss(self) -> float:
        return self.loss_sum / self.samples if self.samples else 0.0

    def is_better_than(self, other: Evaluation) -> bool:
        """By accuracy, ties by the lower loss."""
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass
class Task:
    """A task under way. Report what is done between batches: there a task that is not wanted any more ends."""

    kind: str
    terms: Terms
    seed: Seed
    """Whoever draws from it alone repeats the task bit by bit."""
    round: int = 0
    """Of `train`, from 1."""
    counted_round: int = 0
    """Of `train`: the last round whose result of this silo is in the model; 0: none."""
    temperature: float = 1.0
    alpha: float = 0.5
    """Of `distill`."""
    of: str = "samples"
    """Of `features`: `samples` or `training`."""
    training: bool = False
    """Of `logits` and `backward` at a server: whether it is a pass in training mode, drawing from the seed."""
    scores: bool = False
    """Of `evaluate`: whether the run counts samples by score (AUC, calibration)."""
    report: Callable[[int, int], None] = lambda done, total: None

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` samples. Call it as often as you like: the client hears it once a second."""
        self.report(done, total)

    def batches(self, batches: Iterable[Item], total: int, before: int = 0,
                size: Callable[[Item], int] | None = None) -> Iterator[Item]:
        """The same batches, with progress reported after each of them. total: samples of the whole task, of which
        `before` are done. size: samples of a batch, by default the length of it or of its first part."""
        done = before
        for batch in batches:
            yield batch
            done += size(batch) if size else size_of(batch)
            self.progress(min(done, total), total)


def size_of(batch: Any) -> int:
    """Samples of a batch: the length of its first part, however deep."""
    while isinstance(batch, (tuple, list, dict)) and len(batch) > 0:
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch) if hasattr(batch, "__len__") else 1


class Worker:
    """Base of all workers. A subclass has `state`, `join`, `train`, and whichever of the other kinds it can do: what it
    does not override it does not offer. Whatever a method raises goes to the silo's log, and the task fails; raise
    HeadstartError for a fault that people can mend.

    A state that comes in is the worker's: it may keep and change the arrays. One that goes out is sent before the next
    task, so it may be views of the model's own memory. So a task needs one model's memory beside the model."""

    def state(self) -> State:
        """The model as it is, before any task: its names, types and shapes are what the run must have."""
        raise NotImplementedError

    def trained(self) -> set[str]:
        """Names of the tensors that training changes by gradients. By default all of floating-point type."""
        return {name for name, tensor in self.state().items() if is_floating(tensor)}

    def join(self, terms: Terms, seed: Seed) -> Brought:
        """Takes up a run's terms; `seed` is where this silo's random streams start. Called again where they change."""
        raise NotImplementedError

    def train(self, task: Task, model: State) -> State:
        """The model after a round's training."""
        raise NotImplementedError

    def evaluate(self, task: Task, model: State) -> Evaluation:
        """Of the held-out samples."""
        raise NotImplementedError

    def pretrain(self, task: Task, model: State) -> Pretrained:
        """The best model that comes of the untrained one on this silo's data alone."""
        raise NotImplementedError

    def logits(self, task: Task, model: State, samples: Array) -> Array:
        """samples: float32 [n, ...], ready for the model. Returns float32 [n, C]."""
        raise NotImplementedError

    def features(self, task: Task, model: State, samples: Array | None) -> Array:
        """What the last layer reads, of these samples or (None) of the training samples: float32 [n, F]. A model without
        such a layer returns its logits."""
        raise NotImplementedError

    def distill(self, task: Task, student: State, teachers: Sequence[Teacher], weights: Array) -> State:
        """The student after learning from teachers on this silo's data. weights: float64 [K, C], by class."""
        raise NotImplementedError

    def backward(self, task: Task, model: State, samples: Array, gradient: Array) -> State:
        """At a server: of each trained tensor the gradient of sum(logits * gradient), gradient being [n, C]; the other
        tensors as they are after that forward pass."""
        raise NotImplementedError

    def classes(self) -> int | None:
        """How many classes the model tells apart, where it knows."""
        return None

    def restore(self, model: State) -> None:
        """Goes back to an earlier state(), after a trial."""

    def tasks(self) -> list[str]:
        """The kinds of task that it offers."""
        return [kind for kind in KINDS if getattr(type(self), kind) is not getattr(Worker, kind)]


class NumpyWorker(Worker):
    """A worker of plain functions over arrays by name.

    start: the model's tensors, whose values count in try_out() and save_model() alone. train(model, task): the model
    after a round. evaluate(model): an Evaluation, or labels [n] and logits [n, C]. logits(model, samples): [n, C].
    trained: names of the tensors that training changes (by default all floating-point ones)."""

    def __init__(self, start: State, train: Callable[[State, Task], Mapping[str, Array]], examples: int, *,
                 held_out: int = 0,
                 evaluate: Callable[[State], Evaluation | tuple[Array, Array]] | None = None,
                 logits: Callable[[State, Array], Array] | None = None,
                 trained: Iterable[str] | None = None, classes: Sequence[str] | None = None,
                 shape: Sequence[int] | None = None) -> None:
        self._start = {name: np.asarray(tensor) for name, tensor in start.items()}
        self._train, self._evaluate, self._logits = train, evaluate, logits
        self._trained = None if trained is None else set(trained)
        self._brought = Brought(examples, held_out, list(classes) if classes else None, list(shape) if shape else None)
        self._classes = 0

    def state(self) -> State:
        return self._start

    def trained(self) -> set[str]:
        return super().trained() if self._trained is None else self._trained

    def join(self, terms: Terms, seed: Seed) -> Brought:
        self._classes = terms.task.classes
        return self._brought

    def train(self, task: Task, model: State) -> State:
        after = self._train(writable(model), task)
        return {name: np.asarray(tensor) for name, tensor in after.items()}

    def evaluate(self, task: Task, model: State) -> Evaluation:
        assert self._evaluate is not None
        found = self._evaluate(model)
        if isinstance(found, Evaluation):
            return found
        labels, logits = found
        counts = Evaluation.of(logits, labels, self._classes)
        counts.scored = (logits, labels)
        return counts

    def logits(self, task: Task, model: State, samples: Array) -> Array:
        assert self._logits is not None
        return np.asarray(self._logits(model, samples), np.float32)

    def classes(self) -> int | None:
        return len(self._brought.classes) if self._brought.classes else None

    def tasks(self) -> list[str]:
        has = {"train": True, "evaluate": self._evaluate is not None, "logits": self._logits is not None}
        return [kind for kind in KINDS if has.get(kind, False)]


def writable(model: State) -> State:
    """A state whose arrays may be changed: those that may not are copied."""
    return {name: array if array.flags.writeable else array.copy() for name, array in model.items()}


Schema = dict[str, tuple[str, tuple[int, ...]]]
"""Tensors by name: type in words of safetensors, and shape."""


def schema_of(state: Mapping[str, Array]) -> Schema:
    """Throws where a tensor is of a type that models cannot have."""
    return {name: (type_word(array, name), array.shape) for name, array in state.items()}


def require_schema(state: Mapping[str, Array], expected: Schema, whose: str) -> None:
    """Throws where `state` has other names, types or shapes than the worker's own model."""
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        told = [f"it lacks '{missing[0]}'" if missing else "", f"it has '{extra[0]}' beyond" if extra else ""]
        raise HeadstartError(f"{whose} is not this worker's model: {' and '.join(filter(None, told))} "
                             f"({len(state)} tensors, expected {len(expected)})")
    for name, (word, shape) in schema_of(state).items():
        if (word, shape) != expected[name]:
            raise HeadstartError(f"{whose} is not this worker's model: tensor '{name}' is {word} {list(shape)}, expected "
                                 f"{expected[name][0]} {list(expected[name][1])}")


def labels_of(values: Any, names: Sequence[str]) -> Array:
    """Labels as integers [n]: texts are looked up in the run's names of classes. Throws where one is no class."""
    labels = np.asarray(values)
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64)
    if labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels)):
        return labels.astype(np.int64)
    place = {name: label for label, name in enumerate(names)}
    unknown = sorted({str(value) for value in labels.tolist()} - place.keys())
    if unknown:
        raise HeadstartError(f"a sample is of the class '{unknown[0]}'; the run's classes are {', '.join(names)}", "data")
    return np.asarray([place[str(value)] for value in labels.tolist()], np.int64)
