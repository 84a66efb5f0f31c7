"""A worker process in plain Python and NumPy, written from shared/worker_process/README.md alone: softmax regression.

Its samples are those of PLAIN_SILO (see silo_data); PLAIN_FAULT has it misbehave: "KIND=WHAT", or "KIND=WHAT@FILE",
which happens once, as FILE is made then. KIND is a kind of task, "hello" or "join".
"""

import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

import numpy as np

CLASSES, FEATURES = 3, 8


def silo_data(silo: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Samples whose class moves their mean; each silo has others."""
    random = np.random.default_rng(1000 + silo)
    labels = np.arange(count) % CLASSES
    means = np.eye(CLASSES, FEATURES) * 2
    return (means[labels] + random.normal(size=(count, FEATURES))).astype(np.float32), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def trained(model: dict, x: np.ndarray, targets: np.ndarray, lr: float, epochs: int) -> dict:
    """Full-batch gradient steps of cross-entropy, one an epoch."""
    w, b = model["fc.weight"].astype(np.float64), model["fc.bias"].astype(np.float64)
    for _ in range(epochs):
        error = (softmax(x @ w.T + b) - targets) / len(x)
        w, b = w - lr * error.T @ x, b - lr * error.sum(axis=0)
    return {"fc.weight": w.astype(np.float32), "fc.bias": b.astype(np.float32)}


def gradients(model: dict, x: np.ndarray, of_logits: np.ndarray) -> dict:
    """Of sum(logits * of_logits)."""
    return {"fc.weight": (of_logits.T @ x).astype(np.float32), "fc.bias": of_logits.sum(axis=0).astype(np.float32)}


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(CLASSES)[labels]


def write_body(tensors: dict) -> bytes:
    head, parts, offset = {}, [], 0
    for name, value in tensors.items():
        dtype = {"float32": "F32", "float64": "F64", "int64": "I64"}[value.dtype.name]
        head[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
        parts.append(np.ascontiguousarray(value).tobytes())
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def read_body(body: bytes) -> dict:
    (length,) = struct.unpack_from("<Q", body)
    tensors = {}
    for name, entry in json.loads(body[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = {"F32": np.float32, "F64": np.float64, "I64": np.int64}[entry["dtype"]]
        tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(entry["shape"])
    return tensors


class PlainWorker:
    def __init__(self):
        self.socket = socket.socket(fileno=int(os.environ["HEADSTART_WORKER_FD"]))
        self.file = self.socket.makefile("rwb")
        self.silo = silo = int(os.environ.get("PLAIN_SILO", 0))
        self.x, self.y = silo_data(silo)
        self.held_x, self.held_y = silo_data(100 + silo, 30)

    def send(self, header: dict, tensors: dict | None = None) -> None:
        text, body = json.dumps(header).encode(), write_body(tensors) if tensors else b""
        self.file.write(b"HSW1" + struct.pack("<IQ", len(text), len(body)) + text + body)
        self.file.flush()

    def receive(self) -> tuple[dict, dict]:
        prefix = self.file.read(16)
        if len(prefix) < 16:
            sys.exit(0)
        header_bytes, body_bytes = struct.unpack("<IQ", prefix[4:])
        header = json.loads(self.file.read(header_bytes))
        return header, read_body(self.file.read(body_bytes)) if body_bytes else {}

    def misbehave(self, kind: str, task: int = 0) -> dict | None:
        """What is to be sent in place of the result; None: all is well."""
        when, _, what = os.environ.get("PLAIN_FAULT", "").partition("=")
        what, _, marker = what.partition("@")
        if when != kind or what == "schema" or (marker and Path(marker).exists()):
            return None
        if marker:
            Path(marker).touch()
        if what == "die":
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            print("ModuleNotFoundError: No module named 'monai'", file=sys.stderr)
            sys.exit(1)
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "garbage":
            self.file.write(b"Epoch 1/10 loss=0.3" * 100)
            self.file.flush()
            signal.pause()
        if what == "fail":
            return {"type": "failed", "id": task, "reason": "scan 17 of ward 3 is unreadable", "cause": "data"}
        raise ValueError(what)

    def join(self, message: dict) -> None:
        self.train = message["terms"]["train"]
        fault = self.misbehave("join")
        model = [{"name": "fc.weight", "dtype": "F32", "shape": [CLASSES, FEATURES], "trained": True},
                 {"name": "fc.bias", "dtype": "F32", "shape": [CLASSES], "trained": True}]
        is_server = message["client"] == ""
        self.send(fault or {"type": "joined", "examples": 0 if is_server else len(self.x),
                            "held_out": 0 if is_server else len(self.held_x), "model": model,
                            "shape": [FEATURES], "remarks": ["softmax regression"]})

    def do(self, message: dict, body: dict) -> None:
        kind, task = message["kind"], message["id"]
        inputs = {}
        for entry in message["inputs"]:
            part = {name[len(entry["prefix"]):]: value for name, value in body.items()
                    if name.startswith(entry["prefix"])}
            inputs.setdefault(entry["name"], []).append(part)
        self.send({"type": "progress", "id": task, "done": 0, "total": len(self.x)})
        fault = self.misbehave(kind, task)
        if fault:
            return self.send(fault)
        figures, state = getattr(self, f"do_{kind}")(message["settings"], inputs)
        if os.environ.get("PLAIN_FAULT") == f"{kind}=schema":
            state["fc.bias"] = np.zeros(7, np.float32)
        self.send({"type": "result", "id": task, "figures": figures}, state)

    def do_train(self, settings: dict, inputs: dict):
        return {}, trained(inputs["model"][0], self.x, one_hot(self.y), self.train["lr"], self.train["epochs"])

    def do_pretrain(self, settings: dict, inputs: dict):
        blank = {"fc.weight": np.zeros((CLASSES, FEATURES), np.float32), "fc.bias": np.zeros(CLASSES, np.float32)}
        return {"epochs": 5, "best_epoch": 5}, trained(blank, self.x, one_hot(self.y), 0.5, 5)

    def do_evaluate(self, settings: dict, inputs: dict):
        model = inputs["model"][0]
        probabilities = softmax(self.held_x.astype(np.float64) @ model["fc.weight"].T + model["fc.bias"])
        guess = probabilities.argmax(axis=1)
        count = lambda labels: np.bincount(labels, minlength=CLASSES).tolist()
        scored = {"logits": np.log(probabilities).astype(np.float32), "labels": self.held_y.astype(np.int64)}
        return {"correct": count(self.held_y[guess == self.held_y]), "total": count(self.held_y),
                "predicted": count(guess), "own": {"dice": {"value": 0.25 * (1 + self.silo), "weight": 1 + self.silo}},
                "loss_sum": float(-np.log(probabilities[np.arange(len(guess)), self.held_y]).sum())}, (
                    scored if settings.get("scores") else None)

    def do_logits(self, settings: dict, inputs: dict):
        model, x = inputs["model"][0], inputs["samples"][0]["samples"]
        return {}, {"logits": (x @ model["fc.weight"].T + model["fc.bias"]).astype(np.float32)}

    def do_backward(self, settings: dict, inputs: dict):
        return {}, gradients(inputs["model"][0], inputs["samples"][0]["samples"], inputs["gradient"][0]["gradient"])

    def do_features(self, settings: dict, inputs: dict):
        return {}, {"features": self.x if settings["of"] == "training" else inputs["samples"][0]["samples"]}

    def do_distill(self, settings: dict, inputs: dict):
        targets = np.mean([softmax((self.x @ t["fc.weight"].T + t["fc.bias"]) / settings["temperature"])
                           for t in inputs["teacher"]], axis=0)
        return {}, trained(inputs["student"][0], self.x, targets, 0.5, 5)

    def run(self) -> None:
        fault = self.misbehave("hello")
        version = 99 if os.environ.get("PLAIN_FAULT") == "version" else 1
        self.send(fault or {"type": "hello", "protocol": version, "software": "plain worker",
                            "tasks": ["train", "evaluate", "pretrain", "logits", "features", "distill", "backward"]})
        print("ready", flush=True)
        while True:
            message, body = self.receive()
            if message["type"] == "join":
                self.join(message)
            elif message["type"] == "task":
                self.do(message, body)
            elif message["type"] == "bye":
                return


if __name__ == "__main__":
    PlainWorker().run()
