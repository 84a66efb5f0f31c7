"""The worker's side of the protocol between headstart-client and its worker (shared/worker_process/README.md)."""

from __future__ import annotations

import json
import math
import os
import re
import select
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from . import safetensors
from ._version import VERSION
from .errors import Closed, HeadstartError, Stopped, cause_of
from .safetensors import Array, State
from .seeds import Seed
from .terms import Terms
from .worker import Evaluation, Schema, Task, Teacher, Worker, require_schema, schema_of

PROTOCOL = 1
VARIABLE = "HEADSTART_WORKER_FD"
instead: Callable[[Worker], None] | None = None
"""What serve() does in place of serving, for whoever wants a script's worker (scripts.worker_of)."""
_MAGIC = b"HSW1"
_METRIC, _MAX_METRICS = re.compile(r"[A-Za-z0-9_.-]{1,64}"), 32
_MAX_HEADER = 4 << 20
_REPORT_EVERY_S = 1.0


@dataclass
class Frame:
    header: dict[str, Any]
    state: State = field(default_factory=dict)


class Connection:
    """Frames over a socket. Whatever fails on the way raises Closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def send(self, frame: Frame) -> None:
        text = json.dumps(frame.header, allow_nan=False).encode()
        parts = safetensors.parts_of(frame.state) if frame.state else []
        size = safetensors.total_bytes(parts)
        head = _MAGIC + len(text).to_bytes(4, "little") + size.to_bytes(8, "little") + text
        try:
            self._channel.sendall(head)
            for part in parts:
                self._channel.sendall(part)
        except OSError:
            raise Closed from None

    def receive(self) -> Frame:
        head = bytearray(16)
        self._fill(memoryview(head))
        length, size = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:16], "little")
        if head[:4] != _MAGIC or length > _MAX_HEADER:
            raise HeadstartError("the client sent bytes that are no frame of the worker protocol; use the same version of "
                                 "headstart on both sides", "internal")
        text = bytearray(length)
        self._fill(memoryview(text))
        header = json.loads(text.decode())
        state = safetensors.read(self._fill, size, "the body of the client's frame")[0] if size else {}
        return Frame(header, state)

    def has_frame(self) -> bool:
        """Whether the client has begun to send something, or has gone."""
        return bool(select.select([self._channel], [], [], 0)[0])

    def _fill(self, buffer: memoryview) -> None:
        while len(buffer) > 0:
            try:
                count = self._channel.recv_into(buffer)
            except OSError:
                raise Closed from None
            if count == 0:
                raise Closed
            buffer = buffer[count:]


class Conversation:
    """Answers the client's frames by a worker. It knows no socket: try_out() uses it as serve() does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._terms = Terms()
        self._schema: Schema = {}
        self._start: IO[bytes] | None = None

    def hello(self) -> Frame:
        return Frame({"type": "hello", "protocol": PROTOCOL, "software": f"headstart-python {VERSION}",
                      "tasks": self._worker.tasks()})

    def answer(self, frame: Frame, report: Callable[[int, int], None] = lambda done, total: None) -> Frame:
        """The frame to send back for `join` and `task`. `report` is told the progress of a task."""
        number = frame.header.get("id", 0)
        try:
            return self._join(frame.header) if frame.header["type"] == "join" else self._perform(frame, report)
        except Stopped:
            return _failed(number, "it was stopped by the client", "internal")
        except Exception as error:  # of the user's own code, too
            if not isinstance(error, HeadstartError):
                traceback.print_exc()
            return _failed(number, str(error) or type(error).__name__, cause_of(error))

    def _join(self, header: Mapping[str, Any]) -> Frame:
        self._terms = Terms.of(header.get("terms", {}), str(header.get("client", "")))
        brought = self._worker.join(self._terms, Seed(int(header.get("seed", 0))))
        if not self._terms.client:  # at a server, which has no part in training
            brought.examples = brought.held_out = 0
        trained = self._worker.trained()
        state = self._worker.state()
        self._schema = schema_of(state)
        self._keep_start(state)
        model = [{"name": name, "dtype": word, "shape": list(shape), "trained": name in trained}
                 for name, (word, shape) in self._schema.items()]
        answer: dict[str, Any] = {"type": "joined", "examples": brought.examples, "held_out": brought.held_out,
                                  "model": model}
        for key, value in (("classes", brought.classes), ("shape", brought.shape), ("remarks", brought.remarks)):
            if value:
                answer[key] = value
        return Frame(answer)

    def _perform(self, frame: Frame, report: Callable[[int, int], None]) -> Frame:
        header, settings = frame.header, frame.header.get("settings", {})
        kind = str(header["kind"])
        if kind not in self._worker.tasks():
            raise HeadstartError(f"the client asks for the task '{kind}', which this worker does not offer", "internal")
        inputs = _inputs_of(frame)
        known = {"train": {"model"}, "distill": {"student", "teacher", "weights"}}.get(
            kind, {"model", "samples", "gradient"})
        for name, _, _ in inputs:
            if name not in known:
                raise HeadstartError(f"the run's strategy sends '{name}' beside the model, which Python workers cannot "
                                     "use; choose another federation.strategy")
        task = Task(kind, self._terms, Seed(int(settings.get("seed", 0))), int(settings.get("round", 0)),
                    int(settings.get("counted_round", 0)), float(settings.get("temperature", 1)),
                    float(settings.get("alpha", 0.5)), str(settings.get("of", "samples")),
                    bool(settings.get("training", False)),
                    bool(settings.get("scores", False)), report)
        figures, state = self._do(task, inputs)
        return Frame({"type": "result", "id": header["id"], "figures": figures}, state)

    def _do(self, task: Task, inputs: list[tuple[str, str, State]]) -> tuple[dict[str, Any], State]:
        worker = self._worker
        if task.kind == "distill":
            teachers = [Teacher(owner, state) for name, owner, state in inputs if name == "teacher"]
            return {}, self._checked(worker.distill(task, self._model(inputs, "student"), teachers,
                                                    _only(_input(inputs, "weights"), "weights")))
        is_sent = any(name == "model" for name, _, _ in inputs)
        model = self._model(inputs, "model") if is_sent or task.kind != "pretrain" else self._started()
        if task.kind == "train":
            return {}, self._checked(worker.train(task, model))
        if task.kind == "evaluate":
            found = worker.evaluate(task, model)
            if not task.scores or found.scored is None:
                return _figures_of(found), {}
            logits, labels = found.scored
            return _figures_of(found), {"logits": np.asarray(logits, np.float32), "labels": np.asarray(labels, np.int64)}
        if task.kind == "pretrain":
            done = worker.pretrain(task, model)
            return {"epochs": done.epochs, "best_epoch": done.best_epoch}, self._checked(done.state)
        if task.kind == "backward":
            return {}, self._checked(worker.backward(task, model, _only(_input(inputs, "samples"), "samples"),
                                                     _only(_input(inputs, "gradient"), "gradient")))
        if task.kind == "logits":
            samples = _only(_input(inputs, "samples"), "samples")
            return {}, {"logits": np.asarray(worker.logits(task, model, samples), np.float32)}
        given = None if task.of == "training" else _only(_input(inputs, "samples"), "samples")
        return {}, {"features": np.asarray(worker.features(task, model, given), np.float32)}

    def _model(self, inputs: list[tuple[str, str, State]], name: str) -> State:
        state = _input(inputs, name)
        require_schema(state, self._schema, "the model that the client sent")
        return state

    def _keep_start(self, state: State) -> None:
        """A run over a state of its own (`model.name=state:FILE`) sends no untrained model: pre-training then begins with
        the worker's own, which later tasks overwrite. On disk, so that it takes no memory."""
        model = self._terms.all.get("model", {})
        if self._start is None and "pretrain" in self._worker.tasks() and str(model.get("name", "")).startswith("state"):
            self._start = tempfile.TemporaryFile()
            for part in safetensors.parts_of(state):
                self._start.write(part)

    def _started(self) -> State:
        if self._start is None:
            raise HeadstartError("the client sent a task 'pretrain' without the input 'model'", "internal")
        size = self._start.seek(0, os.SEEK_END)
        self._start.seek(0)
        return safetensors.read(safetensors.filler(self._start), size, "the worker's own start")[0]

    def _checked(self, state: State) -> State:
        require_schema(state, self._schema, "what the task returned")
        return state


class Reporter:
    """Tells the client of progress, once a second, and hears from it whether the task is to stop."""

    def __init__(self, connection: Connection, task: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection, self._task, self._clock = connection, task, clock
        self._told_at = clock()

    def __call__(self, done: int, total: int) -> None:
        while self._connection.has_frame():
            header = self._connection.receive().header
            if header.get("type") == "bye":
                raise Closed
            if header.get("type") == "stop" and header.get("id") == self._task:
                raise Stopped
        if self._clock() - self._told_at >= _REPORT_EVERY_S:
            self._told_at = self._clock()
            self._connection.send(Frame({"type": "progress", "id": self._task, "done": int(done), "total": int(total)}))


def serve(worker: Worker) -> None:
    """Does the tasks of the client that started this process, until it ends. Returns then. Outside of a client it says
    so and ends the process."""
    if instead is not None:
        instead(worker)
        return
    number = os.environ.pop(VARIABLE, "")  # processes that the worker starts have nothing to do with it
    try:
        channel = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        sys.exit(_said("this script is a worker: start it by headstart-client --worker 'python3 "
                       f"{os.path.basename(sys.argv[0]) or 'train.py'}', or try it with headstart.try_out(worker)"))
    channel.setblocking(True)
    for stream in (sys.stdout, sys.stderr):  # the client's log has each line when it is printed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    with channel:
        try:
            converse(worker, Connection(channel))
        except Closed:
            return
        except HeadstartError as error:
            sys.exit(_said(str(error)))


def converse(worker: Worker, connection: Connection) -> None:
    """serve() over a connection that there is. Returns after `bye`; raises Closed where the client is gone."""
    conversation = Conversation(worker)
    connection.send(conversation.hello())
    while True:
        frame = connection.receive()
        kind = frame.header.get("type")
        if kind == "bye":
            return
        if kind == "join":
            connection.send(conversation.answer(frame))
        elif kind == "task":
            connection.send(conversation.answer(frame, Reporter(connection, int(frame.header["id"]))))


def _said(sentence: str) -> int:
    print(f"headstart: {sentence}", file=sys.stderr, flush=True)
    return 2


def _failed(number: Any, reason: str, cause: str) -> Frame:
    reason = reason.encode("utf-8", "replace").decode()[:1000]  # of the user's code, which may say anything
    print(f"headstart: the task failed: {reason}", file=sys.stderr, flush=True)
    return Frame({"type": "failed", "id": number, "reason": reason, "cause": cause})


def _inputs_of(frame: Frame) -> list[tuple[str, str, State]]:
    """Name, owner and tensors of each input; takes the tensors out of the frame."""
    inputs = []
    for one in frame.header.get("inputs", []):
        prefix = str(one["prefix"])
        state = {name[len(prefix):]: array for name, array in frame.state.items() if name.startswith(prefix)}
        inputs.append((str(one["name"]), str(one.get("owner", "")), state))
    frame.state = {}
    return inputs


def _input(inputs: list[tuple[str, str, State]], wanted: str) -> State:
    for name, _, state in inputs:
        if name == wanted:
            return state
    raise HeadstartError(f"the client sent a task without the input '{wanted}'", "internal")


def _only(state: State, name: str) -> Array:
    if len(state) != 1:
        raise HeadstartError(f"the client's input '{name}' has {len(state)} tensors; one is expected", "internal")
    return next(iter(state.values()))


def _figures_of(found: Evaluation) -> dict[str, Any]:
    figures: dict[str, Any] = {"correct": [int(count) for count in found.correct],
                               "total": [int(count) for count in found.total],
                               "predicted": [int(count) for count in found.predicted],
                               "loss_sum": found.loss_sum if math.isfinite(found.loss_sum) else 0.0}
    if not math.isfinite(found.loss_sum):
        figures["diverged"] = True
    odd = [name for name in found.own if not _METRIC.fullmatch(name)]
    if odd or len(found.own) > _MAX_METRICS:
        told = f"'{odd[0]}' is none" if odd else f"there are {len(found.own)}"
        raise HeadstartError("an evaluation has at most 32 metrics of the worker's own, with names of 1 to 64 letters, digits, "
                             f"'_', '.' or '-'; {told}")
    own = {name: {"value": float(value), "weight": float(weight)} for name, (value, weight) in found.own.items()
           if math.isfinite(value) and math.isfinite(weight) and weight > 0}
    if own:
        figures["own"] = own
    return figures
