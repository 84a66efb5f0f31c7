"""A worker's promises, tried in this process: how a worker is debugged without a server."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import safetensors
from .errors import HeadstartError
from .safetensors import Array, State, is_bfloat16, is_floating
from .serving import Conversation, Frame
from .worker import Worker

# Short, so that a trial takes seconds where a run takes minutes. Everything else has the server's defaults.
_SHORT = {"pretrain.max_epochs": 2, "consolidation.epochs": 1, "train.epochs": 1}
_SEED = 20240214


@dataclass
class Finding:
    step: str
    is_ok: bool
    words: str


@dataclass
class Trial:
    """What try_out() found."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return all(finding.is_ok for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(f"{one.step:<10} {'ok' if one.is_ok else 'WRONG':<6} {one.words}" for one in self.findings)


class _Broken(Exception):
    """A promise was not kept; the message says which."""


def try_out(worker: Worker, terms: Mapping[str, Any] | None = None) -> Trial:
    """Has the worker join a run of its own and do each kind of task that it offers, checks every promise of the protocol,
    and prints a short table. Nothing is sent anywhere, and the model is afterwards what it was. terms: terms of the run,
    as {"train.lr": 0.1}; by default the server's, with few epochs. An error of the worker's own code is printed with its
    traceback, as in the silo's log."""
    trial = _Trial(worker, {**_SHORT, **(terms or {})})
    for step, check in (("join", trial.join), ("pretrain", trial.pretrain), ("train", trial.train),
                        ("again", trial.train_again), ("evaluate", trial.evaluate), ("logits", trial.logits),
                        ("features", trial.features), ("distill", trial.distill)):
        kind = "train" if step == "again" else step
        if kind != "join" and (kind not in worker.tasks() or not trial.has_joined):
            continue
        begin = time.monotonic()
        try:
            words, is_ok = check(), True
        except (_Broken, HeadstartError) as error:
            words, is_ok = str(error), False
        if time.monotonic() - begin >= 0.1:
            words += f" ({time.monotonic() - begin:.1f} s)"
        trial.found.findings.append(Finding(step, is_ok, words))
    missing = [kind for kind in ("pretrain", "evaluate", "logits", "distill", "features") if kind not in worker.tasks()]
    if missing:
        trial.found.findings.append(Finding("offers", True, f"it does not offer {', '.join(missing)}: runs that need them "
                                                            "refuse it"))
    if trial.has_joined:
        worker.restore(trial.start)
    print(trial.found)
    return trial.found


class _Trial:
    def __init__(self, worker: Worker, terms: dict[str, Any]) -> None:
        self.found = Trial()
        self.has_joined = False
        self._worker, self._terms = worker, terms
        self._conversation = Conversation(worker)
        self.start: State = {}
        self._model: State = {}
        self._trained: State = {}
        self._held_out = 0
        self._classes = 0
        self._samples: Array | None = None

    def join(self) -> str:
        _require("train" in self._worker.tasks(), "it cannot train: try_out() is for workers of silos, which have samples")
        # A classifier does not say the number of its classes, and a run does.
        stated = self._terms.get("task.classes", self._terms.get("task", {}).get("classes"))
        self._classes = int(stated or self._worker.classes() or 0)
        if self._classes < 2:
            raise _Broken('the number of classes is not known: try_out(worker, terms={"task.classes": 3})')
        terms = {"task.classes": self._classes, "samples.classes": [str(label) for label in range(self._classes)],
                 **self._terms}
        answer = self._send({"type": "join", "client": "trial", "terms": terms, "seed": _SEED}).header
        self.start = {name: array.copy() for name, array in self._worker.state().items()}
        self._model = self.start
        examples, self._held_out = answer["examples"], answer["held_out"]
        _require(isinstance(examples, int) and examples > 0, f"it announces {examples} training samples, expected is at "
                                                             "least 1")
        _require(isinstance(self._held_out, int) and self._held_out >= 0, f"it announces {self._held_out} held-out samples")
        _require(any(tensor["trained"] for tensor in answer["model"]), "no tensor of its model is trained")
        _require_finite(self.start, "its untrained model")
        names = answer.get("classes")
        _require(names is None or len(names) == self._classes, f"it names {len(names or [])} classes, the run has "
                                                               f"{self._classes}")
        shape = answer.get("shape")
        if shape:
            self._samples = np.random.RandomState(1).standard_normal((5, *shape)).astype(np.float32)
        self.has_joined = True
        values = sum(array.size for array in self.start.values())
        return (f"{examples:,} training samples, {self._held_out:,} held out; a model of {len(self.start)} tensors, "
                f"{values:,} values" + "".join(f"; {remark}" for remark in answer.get("remarks", [])))

    def pretrain(self) -> str:
        answer = self._task("pretrain", {"seed": _SEED}, self._of(model=self.start))
        epochs, best = answer.header["figures"]["epochs"], answer.header["figures"]["best_epoch"]
        _require(1 <= best <= epochs, f"it says that epoch {best} of {epochs} was the best")
        self._model = self._require_model(answer.state, "the pre-trained model")
        return f"{epochs} epochs, the best was {best}"

    def train(self) -> str:
        self._trained = self._require_model(self._train().state, "the trained model")
        moved = math.sqrt(sum(float(np.sum((_numbers(array) - _numbers(self._model[name])) ** 2))
                              for name, array in self._trained.items() if is_floating(array)))
        _require(moved > 0, "training changes nothing of the model")
        return f"the model moves by {moved:.4g}"

    def train_again(self) -> str:
        _require(bool(self._trained), "not tried, as training failed")
        again = self._train().state
        odd = [name for name in again if not np.array_equal(_bits(again[name]), _bits(self._trained[name]))]
        _require(not odd, f"the same model and seed give another tensor '{odd[0] if odd else ''}' the second time; draw "
                          "from the task's seed alone, and keep nothing from round to round")
        return "the same model and seed give the same bits"

    def evaluate(self) -> str:
        figures = self._task("evaluate", {}, self._of(model=self._model)).header["figures"]
        for key in ("correct", "total", "predicted"):
            _require(len(figures[key]) == self._classes and min(figures[key]) >= 0,
                     f"'{key}' is no list of {self._classes} counts, one a class")
        total = sum(figures["total"])
        _require(total <= self._held_out, f"it counts {total} samples and announced {self._held_out} held-out ones")
        _require(total == sum(figures["predicted"]), f"'total' adds up to {total}, 'predicted' to "
                                                     f"{sum(figures['predicted'])}; both are the held-out samples")
        for label in range(self._classes):
            _require(figures["correct"][label] <= min(figures["total"][label], figures["predicted"][label]),
                     f"of class {label} more samples are right than there are, or than were predicted")
        _require(figures["loss_sum"] >= 0, f"'loss_sum' is {figures['loss_sum']}, and cross-entropies are not below 0")
        if total == 0:
            return "nothing is held out"
        told = [f"accuracy {sum(figures['correct']) / total:.4f}, loss {figures['loss_sum'] / total:.4f}"]
        told += [f"{name} {own['value']:.4f}" for name, own in figures.get("own", {}).items()]
        return ", ".join(told)

    def logits(self) -> str:
        if self._samples is None:
            return "not tried, as the shape of a sample is not known; arrays (x, y) in place of a loader tell it"
        found = self._task("logits", {}, self._of(model=self._model, samples={"samples": self._samples})).state
        return self._require_answers(found, "logits", self._classes)

    def features(self) -> str:
        found = self._task("features", {"of": "training"}, self._of(model=self._model)).state
        rows = found["features"]
        _require(rows.ndim == 2, f"its features are an array {list(rows.shape)}, expected is one row a sample")
        _require_finite(found, "its features")
        if self._samples is None:
            return f"{rows.shape[1]} a sample"
        found = self._task("features", {"of": "samples"}, self._of(model=self._model,
                                                                   samples={"samples": self._samples})).state
        return self._require_answers(found, "features", rows.shape[1])

    def distill(self) -> str:
        _require(bool(self._trained), "not tried, as training failed")
        weights = np.full((2, self._classes), 0.5)
        inputs = [("student", "", self.start), ("teacher", "one", self._model), ("teacher", "two", self._trained),
                  ("weights", "", {"weights": weights})]
        settings = {"seed": _SEED, "temperature": 2.0, "alpha": 0.5}
        student = self._require_model(self._task("distill", settings, inputs).state, "the student")
        odd = [name for name, array in student.items() if not np.array_equal(_bits(array), _bits(self.start[name]))]
        _require(bool(odd), "distillation changes nothing of the student")
        return "two teachers"

    # ---- private

    def _train(self) -> Frame:
        return self._task("train", {"round": 1, "counted_round": 0, "seed": _SEED}, self._of(model=self._model))

    @staticmethod
    def _of(**states: State) -> list[tuple[str, str, State]]:
        return [(name, "", state) for name, state in states.items()]

    def _task(self, kind: str, settings: dict[str, Any], inputs: list[tuple[str, str, State]]) -> Frame:
        body = {f"{place}/{name}": array for place, (_, _, state) in enumerate(inputs) for name, array in state.items()}
        named = [{"name": name, "owner": owner, "prefix": f"{place}/"} for place, (name, owner, _) in enumerate(inputs)]
        return self._send({"type": "task", "id": 1, "kind": kind, "settings": settings, "inputs": named}, body)

    def _send(self, header: dict[str, Any], body: State | None = None) -> Frame:
        """Through the bytes of a safetensors file, both ways, as over a socket."""
        answer = self._conversation.answer(Frame(header, _travelled(body or {})))
        if answer.header["type"] == "failed":
            raise _Broken(answer.header["reason"])
        return Frame(answer.header, _travelled(answer.state))

    def _require_model(self, state: State, what: str) -> State:
        _require_finite(state, what)
        return state

    def _require_answers(self, found: State, name: str, width: int) -> str:
        assert self._samples is not None
        rows = found[name]
        _require(rows.shape == (len(self._samples), width), f"its {name} of {len(self._samples)} samples are an array "
                 f"{list(rows.shape)}, expected is [{len(self._samples)}, {width}]")
        _require_finite(found, f"its {name}")
        return f"{width} a sample"


def _travelled(state: State) -> State:
    return safetensors.read_bytes(b"".join(safetensors.parts_of(state)), "a frame of the trial")[0] if state else {}


def _require(is_kept: bool, broken: str) -> None:
    if not is_kept:
        raise _Broken(broken)


def _require_finite(state: State, what: str) -> None:
    odd = [name for name, array in state.items() if is_floating(array) and not np.isfinite(_numbers(array)).all()]
    _require(not odd, f"{what} has values that are not finite in '{odd[0] if odd else ''}'")


def _numbers(array: Array) -> Array:
    if is_bfloat16(array):
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
