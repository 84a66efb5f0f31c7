"""A worker for scikit-learn: linear classifiers and multi-layer perceptrons."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import numpy as np
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier

from .errors import HeadstartError
from .safetensors import Array, State
from .seeds import Seed, held_out_split, permutation
from .terms import Terms
from .worker import Brought, Evaluation, Pretrained, Task, Teacher, Worker, labels_of

Metric = Callable[[Array, Array], Union[float, tuple[float, float]]]


class SklearnWorker(Worker):
    """A scikit-learn classifier as a worker: SGDClassifier (of loss log_loss), LogisticRegression (of any solver but
    liblinear) or MLPClassifier (of solver adam or sgd).

    estimator: not fitted. Its coefficients travel as tensors: `coef` and `intercept` of a linear model, `coefs.0`,
        `intercepts.0` and so on of a perceptron. It begins at zeros, or for a perceptron at weights drawn from its
        random_state. What an optimiser remembers stays at the silo and begins anew in each round.
    train, held_out: arrays (x [n, columns], y [n]). Without `held_out` the run's `data.held_out` is held out. Texts as
        labels are looked up in the run's classes. The run's mean and deviation are applied.
    classes: number of classes, or their names by label.
    columns: of a sample, where there are no training samples: for a worker at a server, which gives logits alone.
    epochs: of a round, in place of the terms'. An epoch of LogisticRegression is 5 iterations of its solver.
    metrics: name -> metric(scores [n, C], y [n]) over the held-out samples; scores are log-probabilities."""

    def __init__(self, estimator: Any, train: tuple[Any, Any] | None, *, classes: int | Sequence[str],
                 columns: int | None = None, held_out: tuple[Any, Any] | None = None, epochs: int | None = None,
                 metrics: Mapping[str, Metric] | None = None) -> None:
        if not isinstance(estimator, (SGDClassifier, LogisticRegression, MLPClassifier)):
            raise HeadstartError(f"SklearnWorker was given {type(estimator).__name__}; it knows SGDClassifier, "
                                 "LogisticRegression and MLPClassifier. Another estimator goes with headstart.NumpyWorker")
        _require_known(estimator)
        self._given, self._given_held_out = train, held_out
        self._names = None if isinstance(classes, int) else list(classes)
        self._num_classes = classes if isinstance(classes, int) else len(classes)
        self._epochs, self._metrics = epochs, dict(metrics or {})
        self._terms = Terms()
        self._columns = int(np.asarray(train[0]).reshape(len(train[0]), -1).shape[1]) if train else columns or 0
        if self._columns < 1:
            raise HeadstartError("SklearnWorker was given no training samples; say how many columns a sample has: columns=")
        self._estimator = self._begun(estimator)
        self._x, self._y = np.zeros((0, self._columns)), np.zeros(0, np.int64)
        self._held_x, self._held_y = self._x, self._y

    # ---- what it is

    def state(self) -> State:
        model = self._estimator
        if isinstance(model, MLPClassifier):
            return {**{f"coefs.{place}": layer for place, layer in enumerate(model.coefs_)},
                    **{f"intercepts.{place}": layer for place, layer in enumerate(model.intercepts_)}}
        return {"coef": model.coef_, "intercept": model.intercept_}

    def tasks(self) -> list[str]:
        return super().tasks() if self._given is not None else ["logits"]

    def classes(self) -> int | None:
        return self._num_classes

    def restore(self, model: State) -> None:
        self._load(model)

    def join(self, terms: Terms, seed: Seed) -> Brought:
        if terms.task.classes and terms.task.classes != self._num_classes:
            raise HeadstartError(f"SklearnWorker was given {self._num_classes} classes; the run has {terms.task.classes}")
        self._terms = terms
        if self._given is None:
            return Brought(0, classes=self._names, shape=[self._columns])
        self._x, self._y = self._samples_of(self._given)
        if self._given_held_out is not None:
            self._held_x, self._held_y = self._samples_of(self._given_held_out)
        else:
            kept, held_out = held_out_split(self._y, terms.data.held_out, seed.child("held out"))
            self._held_x, self._held_y = self._x[held_out], self._y[held_out]
            self._x, self._y = self._x[kept], self._y[kept]
        return Brought(len(self._y), len(self._held_y), self._names, [self._columns])

    # ---- what it does

    def train(self, task: Task, model: State) -> State:
        self._load(model)
        epochs = self._epochs or self._terms.train.epochs
        for epoch in range(epochs):
            self._fit(task.seed.child(epoch), self._x, self._y)
            task.progress((epoch + 1) * len(self._y), epochs * len(self._y))
        return self._finished("training")

    def pretrain(self, task: Task, model: State) -> Pretrained:
        """Epochs of the same kind, with early stopping on the held-out samples."""
        self._load(model)
        terms = self._terms.pretrain
        best, best_state, best_epoch, epoch = None, self._copied(), 0, 0
        for epoch in range(1, terms.max_epochs + 1):
            self._fit(task.seed.child(epoch - 1), self._x, self._y)
            task.progress(epoch * len(self._y), terms.max_epochs * len(self._y))
            if len(self._held_y) == 0:
                continue
            now = self._judge()
            if best is None or now.is_better_than(best):
                best, best_state, best_epoch = now, self._copied(), epoch
            if epoch - best_epoch >= terms.patience:
                break
        if best is None:
            return Pretrained(self._finished("training"), epoch, epoch)
        self._load(best_state)
        return Pretrained(self._finished("training"), epoch, best_epoch)

    def evaluate(self, task: Task, model: State) -> Evaluation:
        self._load(model)
        found = self._judge()
        if len(self._held_y) > 0:
            scores = self._scores(self._held_x)
            for name, metric in self._metrics.items():
                value = metric(scores, self._held_y)
                found.own[name] = (float(value[0]), float(value[1])) if isinstance(value, tuple) else (
                    float(value), float(len(self._held_y)))
            found.scored = (scores, self._held_y)
        return found

    def logits(self, task: Task, model: State, samples: Array) -> Array:
        self._load(model)
        return self._scores(samples.reshape(len(samples), -1)).astype(np.float32)

    def features(self, task: Task, model: State, samples: Array | None) -> Array:
        """Of a linear model the columns themselves; of a perceptron its last hidden layer."""
        self._load(model)
        x = self._x if samples is None else samples.reshape(len(samples), -1)
        if isinstance(self._estimator, MLPClassifier):
            act = _ACTIVATIONS[self._estimator.activation]
            for weight, bias in list(zip(self._estimator.coefs_, self._estimator.intercepts_))[:-1]:
                x = act(x @ weight + bias)
        return np.asarray(x, np.float32)

    def distill(self, task: Task, student: State, teachers: Sequence[Teacher], weights: Array) -> State:
        """As scikit-learn takes no soft labels: samples with labels drawn from (1 - alpha) the true ones and alpha the
        teachers' targets at temperature T, anew in each epoch. The expected loss is that of the soft labels."""
        terms = self._terms.consolidation
        if terms.measure not in ("ce", "kl") or terms.average != "probabilities" or terms.standardise:
            raise HeadstartError("SklearnWorker distils by consolidation.measure ce or kl and average probabilities alone; "
                                 f"the run has measure={terms.measure}, average={terms.average}, "
                                 f"standardise={str(terms.standardise).lower()}")
        targets = np.zeros((len(self._y), self._num_classes))
        for teacher, weight in zip(teachers, weights):
            self._load(teacher.state)
            targets += _softmax(self._scores(self._x) / task.temperature) * weight
        total = targets.sum(1, keepdims=True)
        targets = np.where(total > 0, targets / np.where(total > 0, total, 1), 1 / self._num_classes)
        mixed = (1 - task.alpha) * np.eye(self._num_classes)[self._y] + task.alpha * targets
        self._load(student)
        for epoch in range(terms.epochs):
            seed = task.seed.child(epoch)
            draws = np.random.RandomState(seed.child("labels").low).random_sample((len(mixed), 1))
            labels = np.minimum((mixed.cumsum(1) < draws).sum(1), self._num_classes - 1)
            self._fit(seed, self._x, labels)
            task.progress((epoch + 1) * len(self._y), terms.epochs * len(self._y))
        return self._finished("distillation")

    # ---- private

    def _begun(self, estimator: Any) -> Any:
        """A copy that has coefficients of the run's shape: zeros, or a perceptron's first draws."""
        model = copy.deepcopy(estimator)
        labels = np.arange(self._num_classes)
        if isinstance(model, MLPClassifier):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a batch is larger than these samples
                model.partial_fit(np.zeros((self._num_classes, self._columns)), labels, labels)
            draws = np.random.RandomState(estimator.random_state if isinstance(estimator.random_state, int) else 0)
            factor = 2.0 if model.activation == "logistic" else 6.0  # scikit-learn's own first values
            for place, layer in enumerate(model.coefs_):
                bound = (factor / sum(layer.shape)) ** 0.5
                model.coefs_[place] = draws.uniform(-bound, bound, layer.shape)
                model.intercepts_[place] = draws.uniform(-bound, bound, layer.shape[1])
            return model
        rows = 1 if self._num_classes == 2 else self._num_classes
        if isinstance(model, SGDClassifier):
            model.partial_fit(np.zeros((self._num_classes, self._columns)), labels, labels)
        model.coef_, model.intercept_ = np.zeros((rows, self._columns)), np.zeros(rows)
        model.classes_ = labels
        return model

    def _samples_of(self, data: tuple[Any, Any]) -> tuple[Array, Array]:
        stored, labels = np.asarray(data[0]), labels_of(data[1], self._names or self._terms.samples.classes)
        if len(stored) != len(labels) or len(labels) == 0:
            raise HeadstartError(f"there are {len(stored)} samples and {len(labels)} labels; expected is one label a sample, "
                                 "and at least one sample", "data")
        x = stored.reshape(len(stored), -1).astype(np.float64) / (255 if stored.dtype == np.uint8 else 1)
        if labels.min() < 0 or labels.max() >= self._num_classes:
            raise HeadstartError(f"a sample has the label {int(labels.max())}; expected are 0 to {self._num_classes - 1}",
                                 "data")
        mean, deviation = self._terms.samples.mean, self._terms.samples.deviation
        if mean and len(mean) != x.shape[1]:
            raise HeadstartError(f"the run's mean is of {len(mean)} columns, the samples here have {x.shape[1]}", "data")
        return ((x - mean) / deviation if mean else x), labels

    def _load(self, model: State) -> None:
        one = self._estimator
        if isinstance(one, MLPClassifier):
            one.coefs_ = [np.array(model[f"coefs.{place}"]) for place in range(len(one.coefs_))]
            one.intercepts_ = [np.array(model[f"intercepts.{place}"]) for place in range(len(one.intercepts_))]
            if hasattr(one, "_optimizer"):  # what Adam or the momentum remember belongs to another round
                del one._optimizer
        else:
            one.coef_, one.intercept_ = np.array(model["coef"]), np.array(model["intercept"])
            one.t_ = 1.0

    def _fit(self, seed: Seed, x: Array, y: Array) -> None:
        """One epoch."""
        model = self._estimator
        model.random_state = seed.low
        labels = np.arange(self._num_classes)
        if isinstance(model, LogisticRegression):
            _iterate(model, x, y, labels)
            return
        order = permutation(len(y), seed)
        model.partial_fit(x[order], y[order], classes=labels)

    def _scores(self, x: Array) -> Array:
        """Log-probabilities [n, C]."""
        if len(x) == 0:
            return np.zeros((0, self._num_classes))
        if isinstance(self._estimator, MLPClassifier):
            return self._estimator.predict_log_proba(x)
        margins = x @ self._estimator.coef_.T + self._estimator.intercept_
        logits = np.hstack([np.zeros_like(margins), margins]) if self._num_classes == 2 else margins
        if isinstance(self._estimator, SGDClassifier) and self._num_classes > 2:  # one against the rest
            logits = -np.logaddexp(0, -margins)
        return np.log(np.maximum(_softmax(logits), 1e-300))

    def _judge(self) -> Evaluation:
        return Evaluation.of(self._scores(self._held_x), self._held_y, self._num_classes)

    def _copied(self) -> State:
        return {name: np.array(array) for name, array in self.state().items()}

    def _finished(self, work: str) -> State:
        state = self.state()
        if not all(np.isfinite(array).all() for array in state.values()):
            raise HeadstartError(f"{work} diverged: coefficients are not finite; standardise the columns, or lower the "
                                 "learning rate", "training")
        return state


_ITERATIONS = 5
"""Of LogisticRegression's solver, in what is an epoch of others."""

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "identity": lambda x: x,
    "logistic": lambda x: 1 / (1 + np.exp(-x))}


def _require_known(estimator: Any) -> None:
    """Throws where an estimator cannot be trained in rounds."""
    if isinstance(estimator, SGDClassifier) and estimator.loss != "log_loss":
        raise HeadstartError(f"SGDClassifier(loss='{estimator.loss}') gives no probabilities; use loss='log_loss'")
    if isinstance(estimator, SGDClassifier) and estimator.average:
        raise HeadstartError("SGDClassifier(average=True) has coefficients that do not travel; use average=False")
    if isinstance(estimator, LogisticRegression) and estimator.solver == "liblinear":
        raise HeadstartError("LogisticRegression(solver='liblinear') cannot go on from a model; use solver='lbfgs'")
    if isinstance(estimator, MLPClassifier) and (estimator.solver == "lbfgs" or estimator.early_stopping):
        raise HeadstartError("MLPClassifier cannot be trained in rounds by solver='lbfgs' or with early_stopping; use "
                             "solver='adam' or 'sgd'")


def _iterate(model: Any, x: Array, y: Array, labels: Array) -> None:
    """Some iterations of LogisticRegression's solver from where it stands. The silo may lack classes, which the solver
    would not accept: a sample of weight 0 stands for each."""
    missing = np.setdiff1d(labels, y)
    padded_x = np.vstack([x, np.zeros((len(missing), x.shape[1]))])
    weights = np.concatenate([np.ones(len(y)), np.zeros(len(missing))])
    model.set_params(warm_start=True, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(padded_x, np.concatenate([y, missing]), sample_weight=weights)


def _softmax(logits: Array) -> Array:
    above = np.exp(logits - logits.max(1, keepdims=True))
    return above / above.sum(1, keepdims=True)
