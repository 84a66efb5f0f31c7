#!/usr/bin/python3
"""Runs one of the examples on this machine: a server, and three clients whose silos' work is done by the example's script.
Federated learning from a distilled start and from the untrained model is compared with training at each silo alone.

    experiments/examples/run_example.py imbalanced_images
    experiments/examples/run_example.py breast_cancer --bin build/release --out runs/breast-cancer
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "client/python"
sys.path[:0] = [str(HERE.parent), str(PACKAGE)]

import headstart  # noqa: E402
import silos  # noqa: E402
from common.errors import INTERRUPTED, RUN_FAILED, CompareError  # noqa: E402
from common.files import make_new_folder  # noqa: E402
from common.paths import plain_path  # noqa: E402
from common.processes import Child, Interruption, stop_all  # noqa: E402
from common.programs import find_program, folder_of_programs  # noqa: E402
from common.table import Table  # noqa: E402

Array = npt.NDArray[Any]
SERVER, CLIENT = "headstart-server", "headstart-client"
POLL_S = 0.1


def balanced_accuracy(logits: Array, y: Array) -> float:
    right = logits.argmax(1) == y
    return float(np.mean([right[y == label].mean() for label in np.unique(y)]))


def recall_of_rare(logits: Array, y: Array) -> float:
    right = logits.argmax(1) == y
    return float(np.mean([right[y == label].mean() for label in silos.RARE]))


def area_under_curve(logits: Array, y: Array) -> float:
    """The share of pairs of one sample of each class that are in the right order; ties count half."""
    score = logits[:, 1] - logits[:, 0]
    ahead = score[y == 1][:, None] - score[y == 0][None, :]
    return float(((ahead > 0) + 0.5 * (ahead == 0)).mean())


def scaled_images(x: Array, mine: Array) -> Array:
    return x.astype(np.float32)[:, None] / 255


def standardised(x: Array, mine: Array) -> Array:
    return ((x - mine.mean(0)) / mine.std(0)).astype(np.float32)


@dataclass(frozen=True)
class Example:
    script: str
    prepare: Callable[[Path], None]
    metric: Callable[[Array, Array], float]
    metric_words: str
    classes: list[str]
    shape: list[int]
    ready: Callable[[Array, Array], Array]
    """The test samples as a silo's model reads them; the second are the silo's own samples."""
    rounds: int = 10
    settings: dict[str, Any] = field(default_factory=dict)


GARMENTS = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
EXAMPLES = {
    "imbalanced_images": Example(
        "imbalanced_images/train.py", silos.imbalanced_images, recall_of_rare, "recall of the three rare classes", GARMENTS,
        [1, 28, 28], scaled_images, settings={"pretrain.max_epochs": 30, "pretrain.patience": 8, "consolidation.epochs": 10}),
    "breast_cancer": Example(
        "breast_cancer/train.py", silos.breast_cancer, area_under_curve, "area under the ROC curve", ["malignant", "benign"],
        [30], standardised, settings={"train.epochs": 1, "pretrain.max_epochs": 50, "consolidation.epochs": 10}),
    "existing_script": Example(
        "existing_script/after.py", silos.existing_script, balanced_accuracy, "balanced accuracy", GARMENTS, [1, 28, 28],
        scaled_images, settings={"pretrain.max_epochs": 40, "consolidation.epochs": 15})}
STARTS: dict[str, dict[str, Any]] = {
    "FedAvg": {"start.model": "random", "share_model": "server"},
    "KD start, FedAvg": {"start.model": "kd", "consolidation.transfer": "student", "consolidation.temperature": 3,
                         "validation.source": "federated", "share_model": "peers"}}


class Work:
    """One example in one folder."""

    def __init__(self, name: str, folder: Path, programs: Path | None, rounds: int | None) -> None:
        self.example = EXAMPLES[name]
        self.folder, self.rounds = folder, rounds or self.example.rounds
        self.server, self.client = (find_program(program, programs) for program in (SERVER, CLIENT))
        self.script = HERE / self.example.script
        self.wish = Interruption()
        self.example.prepare(folder / "data")
        self.test = self._samples("test")
        self.terms = headstart.Terms.of({"task.classes": len(self.example.classes), "samples.classes": self.example.classes,
                                         **self.example.settings}, "example")
        self.workers = [self._worker(silo) for silo in range(silos.SILOS)]
        headstart.save_model(folder / "start.safetensors", self.workers[0])

    def local(self) -> list[float]:
        """Of each silo alone, pre-trained with early stopping as for the distilled start."""
        found = []
        for silo, worker in enumerate(self.workers):
            task = headstart.Task("pretrain", self.terms, headstart.Seed(silo))
            start = headstart.load_state(self.folder / "start.safetensors")[0]
            found.append(self._measured(silo, {name: np.array(array) for name, array in
                                               worker.pretrain(task, start).state.items()}))
        return found

    def federated(self, start: str) -> list[float]:
        """After each round, from 0."""
        run = self.folder / start.split()[0].lower()
        settings = {"run.folder": run, "listen.port": 0, "data.set": "tensors", "data.classes": json.dumps(self.example.classes),
                    "data.shape": json.dumps(self.example.shape), "model.name": f"state:{self.folder / 'start.safetensors'}",
                    "evaluation.central": "false", "evaluation.federated": "true", "federation.clients": silos.SILOS,
                    "federation.rounds": self.rounds, "checkpoints.keep": self.rounds + 1, **self.example.settings,
                    **STARTS[start]}
        share = settings.pop("share_model")
        children = [Child("server", [self.server, *_words(settings)], run.with_suffix(".server.log"))]
        try:
            port = run / "port"
            self._wait(lambda: port.exists(), children)
            for silo in range(silos.SILOS):
                worker = shlex.join([sys.executable, str(self.script), str(self.folder / f"data/silo-{silo}")])
                command = [self.client, "--server", f"ws://127.0.0.1:{port.read_text().strip()}", "--name", f"silo-{silo}",
                           "--worker", worker, *_words({"share_model": share})]
                children.append(Child(f"silo-{silo}", command, run.with_suffix(f".silo-{silo}.log")))
            self._wait(lambda: all(child.exit_code() == 0 for child in children), children)
        finally:
            stop_all(children)
        files = sorted((run / "checkpoints").glob("round-*.safetensors"))
        return [self._mean(headstart.load_state(file)[0]) for file in files]

    def _wait(self, is_done: Callable[[], bool], children: list[Child]) -> None:
        while not is_done():
            if self.wish.is_asked:
                raise CompareError(INTERRUPTED, "stopped")
            failed = next((child for child in children if child.exit_code() not in (None, 0)), None)
            if failed:
                raise CompareError(RUN_FAILED, f"{failed.name} ended with exit code {failed.exit_code()}: "
                                               f"{' / '.join(failed.last_lines(2))} ({failed.log})")
            time.sleep(POLL_S)

    def _worker(self, silo: int) -> headstart.Worker:
        worker = headstart.worker_of(self.script, self.folder / f"data/silo-{silo}")
        worker.join(self.terms, headstart.Seed(silo))
        return worker

    def _samples(self, name: str) -> tuple[Array, Array]:
        place = self.folder / "data" / name
        return np.load(place / "x.npy"), np.load(place / "y.npy")

    def _measured(self, silo: int, state: headstart.State) -> float:
        x = self.example.ready(self.test[0], self._samples(f"silo-{silo}")[0])
        task = headstart.Task("logits", self.terms, headstart.Seed(0))
        return self.example.metric(self.workers[silo].logits(task, state, x), self.test[1])

    def _mean(self, state: headstart.State) -> float:
        """Over the silos, which may prepare a sample each in its own way."""
        return float(np.mean([self._measured(silo, state) for silo in range(silos.SILOS)]))


def _words(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def table_of(work: Work) -> Table:
    shown = sorted({1, min(3, work.rounds), work.rounds})
    table = Table(f"{work.example.metric_words}, on a test set that no silo has",
                  ["method", "", "before round 1", *(f"round {number}" for number in shown)])
    alone = work.local()
    table.rows.append(["each silo alone", "mean of three", f"{np.mean(alone):.4f}", *[""] * len(shown)])
    table.rows.append(["each silo alone", "best", f"{max(alone):.4f}", *[""] * len(shown)])
    for start in STARTS:
        found = work.federated(start)
        table.rows.append([start, "", *(f"{found[number]:.4f}" for number in (0, *shown))])
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("--bin", type=plain_path, metavar="DIR",
                        help="where the programs are (default: build/, build/release/, then PATH)")
    parser.add_argument("--out", type=plain_path, metavar="DIR", help="a new folder (default: runs/EXAMPLE-TIME)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of FedAvg (default: 10)")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
    try:
        folder = options.out or Path("runs") / f"{options.example}-{time.strftime('%Y%m%d-%H%M%S')}"
        make_new_folder(folder, "name another by --out")
        work = Work(options.example, folder.resolve(), folder_of_programs(ROOT, options.bin, SERVER), options.rounds)
        table = table_of(work)
        (folder / "table.md").write_text(table.markdown())
        print(table.text())
    except CompareError as error:
        print(f"run_example.py: {error}", file=sys.stderr)
        return error.code
    except headstart.HeadstartError as error:
        print(f"run_example.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
