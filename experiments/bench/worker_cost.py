#!/usr/bin/python3
"""What a worker process costs a round: seconds of a ResNet-18 round whose worker returns the model as it is, less those of
the same run with the client alone and one batch of training, over a round of training by the client itself.

    experiments/bench/worker_cost.py --bin build/ci            # about two minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ECHO = """
import sys
sys.path.insert(0, {package!r})
import headstart
start = headstart.load_state({start!r})[0]
trained = {trained!r}
headstart.serve(headstart.NumpyWorker(start, lambda model, task: model, {samples}, trained=trained))
"""


def run(folder: Path, bin: Path, rounds: int, client: list[str], server: list[str]) -> list[float]:
    """Seconds of each round."""
    folder.mkdir()
    serving = subprocess.Popen([bin / "server/headstart-server", "--set", f"run.folder={folder / 'run'}", "--set",
                                "listen.port=0", "--set", "data.set=tensors", "--set", 'data.classes=["a","b"]', "--set",
                                "data.shape=[3,32,32]", "--set", "evaluation.central=false", "--set",
                                "evaluation.federated=false", "--set", "federation.clients=1", "--set",
                                f"federation.rounds={rounds}", "--set", "model.name=resnet18", "--set", "train.epochs=1",
                                "--set", "train.batch_size=32", *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port = folder / "run/port"
    while not port.exists():
        if serving.poll() is not None:
            sys.exit("the server did not start")
        time.sleep(0.05)
    subprocess.run([bin / "client/headstart-client", "--server", f"ws://127.0.0.1:{port.read_text().strip()}", "--name",
                    "silo-0", *client], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    serving.wait()
    lines = [json.loads(line)["seconds"] for line in (folder / "run/rounds.jsonl").read_text().splitlines()]
    return [after - before for before, after in zip(lines, lines[1:])]


def save(folder: Path, samples: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    np.save(folder / "train-images.npy", random.normal(size=(samples, 3, 32, 32)).astype(np.float32))
    np.save(folder / "train-labels.npy", np.arange(samples) % 2)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bin", type=Path, required=True)
    arguments.add_argument("--samples", type=int, default=1000, help="of the silo that trains by itself")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "whole", given.samples)
        save(folder / "batch", 32)
        held = ["--set", "data.held_out=0"]
        of = lambda which: ["--set", "data.set=tensors", "--set", f"data.path={folder / which}"]
        training = run(folder / "training", given.bin, 2, of("whole"), held)
        batch = run(folder / "batch-run", given.bin, 8, of("batch"), held)
        start = folder / "training/run/final.safetensors"
        echo = folder / "echo.py"
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        sys.path.insert(0, str(ROOT / "client/python"))
        import headstart
        trained = [tensor for tensor in headstart.load_state(start)[0] if not tensor.endswith(buffers)]
        echo.write_text(ECHO.format(package=str(ROOT / "client/python"), start=str(start), trained=trained, samples=32))
        echoing = run(folder / "echo-run", given.bin, 8, ["--worker", f"/usr/bin/python3 {echo}"], held)
    cost, whole = statistics.median(echoing), statistics.median(training)
    print(f"a round of training, {given.samples} samples, one epoch: {whole:.2f} s (of {len(training)})")
    print(f"a round whose worker returns the model: {cost:.3f} s, range {min(echoing):.3f} to {max(echoing):.3f}")
    print(f"a round of one batch without a worker: {statistics.median(batch):.3f} s")
    print(f"the worker's round over the training's: {cost / whole:.4f}")


if __name__ == "__main__":
    main()
