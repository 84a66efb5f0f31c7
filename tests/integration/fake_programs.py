"""Stands in for headstart-lab, headstart-server, headstart-client and headstart-peer: takes their command lines, trains
nothing, and writes a run's folder with invented accuracies.

    fake_programs.py PROGRAM ARGUMENTS...

In the environment: FAKE_FAIL, FAKE_HANG name a run folder whose run fails, or never ends, after round 1; a hanging run
first writes its process id to the named pipe FAKE_PIPE. FAKE_CLIENT_FAIL names a client that ends with an error.
FAKE_PEER_FAIL=METHOD:NAME names a peer that ends with an error, while the others hang; FAKE_PEER_HANG=METHOD a method
whose peers all hang, after they have written their process ids to FAKE_PIPE.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import sys
from pathlib import Path

MODEL_BYTES = 2_000_000
CEILING = {"uniform": 0.86, "quantity-skew": 0.85, "specialized": 0.80, "random-chunks": 0.83, "label-dirichlet": 0.86}
FIRST = {"random": 0.1, "best_local": 0.70, "average": 0.55, "kd": 0.76}
PACE = {"random": 5.0, "best_local": 6.0, "average": 5.0, "kd": 8.0}
FEDERATION_SECTIONS = ("run", "federation", "start", "consolidation", "validation", "data", "model", "train",
                       "pretrain", "targets", "store", "listen", "share_model")
SIMULATION_SECTIONS = (*FEDERATION_SECTIONS, "simulate")
CENTRAL_SECTIONS = ("run", "data", "model", "pretrain")
CLIENT_SECTIONS = ("data", "store", "threads", "device", "share_model", "worker")
PARTITION_SECTIONS = ("data", "partition", "draw", "seed")


def load(arguments: list[str], sections: tuple[str, ...]) -> dict:
    config = json.loads(Path(arguments[arguments.index("--config") + 1]).read_text())
    for key in config:
        if key not in sections:
            fail(2, f"unknown key '{key}'")
    return config


def fail(code: int, message: str) -> None:
    print(f"fake: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def partition(arguments: list[str]) -> None:
    config = load(arguments, PARTITION_SECTIONS)
    kind, clients = config["partition"]["kind"], config["partition"]["clients"]
    generator = random.Random(f"{kind} {config['seed']}")
    skew = {"uniform": 0.0, "quantity-skew": 0.2}.get(kind, 2.0)
    counts = [[int(60 * math.exp(skew * generator.gauss(0, 1))) for _ in range(10)] for _ in range(clients)]
    manifest = {"clients": [], "class_counts": counts, "seed": config["seed"], "settings": config}
    Path(arguments[arguments.index("--out") + 1]).write_text(json.dumps(manifest))


def pretrain(config: dict, name: str) -> tuple[float, bool]:
    """Seconds of pre-training, and whether the store had the models."""
    model = Path(config["store"]["pretrained"]) / name
    was_there = model.is_file()
    model.parent.mkdir(parents=True, exist_ok=True)
    model.touch()
    return 50.0, was_there


def accuracy_of(kind: str, start: str, seed: int, number: int) -> float:
    generator = random.Random(f"{kind} {start} {seed} {number}")
    shift = random.Random(f"{kind} {seed}").gauss(0, 0.008)
    top = CEILING.get(kind, 0.85) + (0.0 if start == "kd" else -0.06 if start == "random" else -0.02)
    first = min(FIRST[start], top)
    return round(top - (top - first) * math.exp(-number / PACE[start]) + shift + generator.gauss(0, 0.004), 4)


def federate(config: dict, exchange_seconds: float = 10.0) -> None:
    folder = Path(config["run"]["folder"])
    clients, start, seed = config["federation"]["clients"], config["start"]["model"], config["run"]["seed"]
    is_on_student_data = config.get("consolidation", {}).get("transfer") == "student"
    # Silos that exist have no manifest.
    manifest = Path(config["data"]["manifest"]) if "manifest" in config.get("data", {}) else None
    kind = json.loads(manifest.read_text())["settings"]["partition"]["kind"] if manifest else "existing"
    before = {"seconds": 0.0, "bytes_up": 0, "bytes_down": 0, "pretrain_seconds": 0.0}
    if start != "random":
        seconds, was_there = pretrain(config, manifest.name if manifest else "silos")
        before = {"seconds": exchange_seconds + seconds, "bytes_up": clients * MODEL_BYTES,
                  "bytes_down": MODEL_BYTES // 2, "pretrain_seconds": seconds,
                  "pretrain_reused_seconds": seconds if was_there else 0.0}
    run = {"program": "headstart-fake", "version": "0.1.0", "reproducible_with": {"libtorch": "1.13.1"}, "seed": seed, "config": config}
    (folder / "run.json").write_text(json.dumps(run))
    rounds, targets = [], config["targets"]
    with (folder / "rounds.jsonl").open("w") as file:
        for number in range(config["federation"]["rounds"] + 1):
            accuracy = accuracy_of(kind, start, seed, number) - 0.015 * is_on_student_data
            moved = MODEL_BYTES * clients if number else 0
            rounds.append({"round": number, "accuracy": accuracy, "loss": 1.0,
                           "seconds": before["seconds"] + 0.5 + 4.0 * number, "bytes_up": moved, "bytes_down": moved,
                           "clients": [f"silo-{i}" for i in range(clients)], "rejected": []})
            file.write(json.dumps(rounds[-1]) + "\n")
            file.flush()
            misbehave(folder, number)
            if targets["stop"] and rounds[-1]["accuracy"] >= targets["accuracies"][0]:
                break
    accuracies = [line["accuracy"] for line in rounds]
    ensemble = {"equal": 0.78, "adaptive": 0.81, "precision": 0.82} if start != "random" else None
    summary = {"start": start, "rounds": len(rounds) - 1, "final_accuracy": accuracies[-1],
               "best_accuracy": max(accuracies), "before_rounds": before, "ensemble": ensemble}
    (folder / "summary.json").write_text(json.dumps(summary))


def misbehave(folder: Path, number: int) -> None:
    if number != 1:
        return
    if os.environ.get("FAKE_FAIL") == folder.name:
        fail(8, "the training diverged")
    if os.environ.get("FAKE_HANG") == folder.name and "FAKE_UNTIL" in os.environ:
        Path(os.environ["FAKE_UNTIL"]).read_text()
    elif os.environ.get("FAKE_HANG") == folder.name:
        Path(os.environ["FAKE_PIPE"]).write_text(str(os.getpid()))
        signal.pause()


def make_folder(config: dict) -> Path:
    folder = Path(config["run"]["folder"])
    try:
        folder.mkdir()
    except FileExistsError:
        fail(4, f"{folder} exists already")
    return folder


def simulate(arguments: list[str]) -> None:
    config = load(arguments, SIMULATION_SECTIONS)
    make_folder(config)
    print("pre-training: 10 of 10 clients", file=sys.stderr, flush=True)
    federate(config)


def central(arguments: list[str]) -> None:
    config = load(arguments, CENTRAL_SECTIONS)
    folder, seed = make_folder(config), config["run"]["seed"]
    (folder / "run.json").write_text(json.dumps({
        "program": "headstart-fake", "version": "0.1.0", "reproducible_with": {"libtorch": "1.13.1"}, "config": config}))
    summary = {"central": True, "accuracy": round(0.89 - 0.01 * seed, 2), "num_examples": 6000, "epochs": 5,
               "best_epoch": 4, "validation_accuracy": 0.9, "seconds": 3.0}
    (folder / "summary.json").write_text(json.dumps(summary))


def words(arguments: list[str]) -> None:
    if arguments != ["--json"]:
        fail(2, f"words {arguments}")
    known = {"partitions": ("partition.kind", CEILING), "starts": ("start.model", FIRST)}
    print(json.dumps({name: {"settings": [setting], "words": [{"name": word} for word in there]}
                      for name, (setting, there) in known.items()}))


def serve(arguments: list[str]) -> None:
    config = load(arguments, FEDERATION_SECTIONS)
    folder = make_folder(config)
    listener = socket.create_server(("127.0.0.1", config["listen"]["port"]))
    listener.settimeout(30)
    (folder / "port").write_text(str(listener.getsockname()[1]))
    peers = [listener.accept()[0] for _ in range(config["federation"]["clients"])]
    names = sorted(peer.recv(100).decode() for peer in peers)
    (folder / "names").write_text(" ".join(names))
    federate(config | {"store": {"pretrained": str(folder.parent.parent / "pretrained")}})


def client(arguments: list[str]) -> None:
    config = load(arguments, CLIENT_SECTIONS)
    name = arguments[arguments.index("--name") + 1]
    data = config.get("data", {})
    share = arguments[arguments.index("--set") + 1] if "--set" in arguments else data.get("path", "its own")
    if os.environ.get("FAKE_CLIENT_FAIL") == name:
        fail(3, f"{data.get('manifest', share)}: no such share")
    port = int(arguments[arguments.index("--server") + 1].rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{name}:{share}".encode())
        connection.recv(1)


PEER_START = {"kd": 0.6, "alone": 0.6, "gossip": 0.1}
PEER_GAIN = {"kd": 0.05, "alone": 0.02, "gossip": 0.3}


def peer(arguments: list[str]) -> None:
    peers = json.loads(Path(arguments[arguments.index("--peers") + 1]).read_text())
    name = arguments[arguments.index("--name") + 1]
    values = dict(word.split("=", 1) for word in arguments[arguments.index("--set") + 1::2])
    method, names = peers["peers"]["method"], [member["name"] for member in peers["members"]]
    index, others = names.index(name), [other for other in names if other != name]
    if values["data.share"] != str(index):
        fail(2, f"data.share {values['data.share']} for {name}")
    if os.environ.get("FAKE_PEER_FAIL") == f"{method}:{name}":
        fail(5, "port in use")
    if os.environ.get("FAKE_PEER_FAIL", "").startswith(f"{method}:") or os.environ.get("FAKE_PEER_HANG") == method:
        if "FAKE_PIPE" in os.environ:
            with open(os.environ["FAKE_PIPE"], "w") as pipe:
                pipe.write(f"{os.getpid()}\n")
        signal.pause()
    folder = Path(values["run.folder"])
    folder.mkdir()
    lines = []
    for number in range(peers["peers"]["rounds"] + 1):
        overall = PEER_START[method] + (PEER_GAIN[method] * number + 0.01 * index if number else 0.0)
        lines.append({"round": number, "sha256": f"{method if method == 'gossip' else 'start'}-{name}-{number}",
                      "figures": {"answering": 1, "global": [0.0, overall], "own": [0.0, overall + 0.1]},
                      "bytes_sent": 0 if method == "alone" or not number else 1_500_000, "seconds_working": 2.0,
                      "seconds_waiting": 0.5 * index})
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"headstart": "0.1.0", "reproducible_with": {"libtorch": "1.13.1"}}))
    (folder / "summary.json").write_text(json.dumps({"neighbours": others, "num_samples": 54 + index, "missing": {}}))


def main() -> None:
    program, *arguments = sys.argv[1:]
    if program == "headstart-lab":
        {"partition": partition, "simulate": simulate, "central": central, "words": words}[arguments[0]](arguments[1:])
    else:
        {"headstart-server": serve, "headstart-client": client, "headstart-peer": peer}[program](arguments)


if __name__ == "__main__":
    main()
