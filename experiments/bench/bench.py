#!/usr/bin/env python3
"""The project's measured claims: each subcommand runs ours and its floor alternately and prints median and range.

    experiments/bench/bench.py WHAT [--bin build/bench]   (--help lists them)

Build first: cmake --preset bench && cmake --build --preset bench. What each measures stands in its function.
"""

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

RESNET18_BYTES = 44_696_104  # 11,173,962 parameters, 9,600 running statistics in float32, 20 counters in int64


def spread(values: list[float]) -> str:
    return f"median {statistics.median(values):.4g}, range {min(values):.4g} .. {max(values):.4g} ({len(values)} runs)"


def output_of(*command) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def alternate(repeats: int, ours, floor) -> tuple[list[float], list[float]]:
    """Each repeat runs both, the order swapped every time."""
    results: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        pair = [(0, ours), (1, floor)]
        for which, measure in pair if repeat % 2 == 0 else reversed(pair):
            results[which].append(measure())
    return results


def report(name: str, unit: str, ours: list[float], floor: list[float], bound: str) -> None:
    print(f"{name}\n  ours   {spread(ours)} {unit}\n  floor  {spread(floor)} {unit}")
    print(f"  ratio ours/floor, run by run: {spread([a / b for a, b in zip(ours, floor)])}; bound: {bound}")


def training(bench: Path, arguments) -> None:
    """Images/s of local training against a bare LibTorch loop: same model, batch, threads, tensors in memory."""
    shape = [600, 64, 20]
    ours, floor = alternate(arguments.repeats, lambda: float(output_of(bench / "our_training", *shape)),
                            lambda: float(output_of(bench / "floor_training", *shape)))
    report("local training, one thread", "images/s", ours, floor, "at least 0.97")


def clients(bench: Path, arguments) -> None:
    """Ten training processes on all cores against as many bare processes as there are cores: summed images/s."""
    def total(program: str, count: int, epochs: int) -> float:
        begin = time.monotonic()
        children = [subprocess.Popen([str(bench / program), "600", "64", str(epochs)], stdout=subprocess.PIPE, text=True)
                    for _ in range(count)]
        for child in children:
            child.communicate()
            if child.returncode != 0:
                raise SystemExit(f"{program} ended with code {child.returncode}: no figure")
        return count * 600 * (epochs + 1) / (time.monotonic() - begin)

    cores = os.cpu_count() or 1
    ours, floor = alternate(arguments.repeats, lambda: total("our_training", 10, 8),
                            lambda: total("floor_training", cores, 8 * 10 // cores))
    report(f"ten clients on {cores} cores, process start included", "images/s in all", ours, floor, "at least 0.95")


def write_npy(path: Path, descr: str, shape: tuple, data: bytes) -> None:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def resident(pid: int, key: str) -> int:
    """VmRSS or VmHWM of a process in bytes."""
    match = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match.group(1)) * 1024 if match else 0


class Authority:
    """Certificates for a server on loopback and its clients, by headstart-pki."""

    def __init__(self, bench: Path, folder: Path):
        self.pki, self.folder = bench.parent.parent / "server/pki/headstart-pki", folder
        output_of(self.pki, "init", "--folder", folder / "pki")

    def certify(self, name: str, *options) -> list[Path]:
        """Authority, certificate, key."""
        output_of(self.pki, "request", "--name", name, "--out", self.folder)
        signed = output_of(self.pki, "sign", self.folder / f"{name}.csr", "--folder", self.folder / "pki", *options)
        return [self.folder / "pki/authority.pem", Path(signed.splitlines()[0]), self.folder / f"{name}.key"]


class Federation:
    """A real server and echo clients: everything but training and evaluation."""

    def __init__(self, bench: Path, folder: Path, count: int, settings: dict, has_tls: bool = False,
                 is_watched: bool = True):
        self.bench, self.folder, self.count = bench, folder, count
        data = folder / "data"
        data.mkdir()
        side, channels = (28, 1) if settings.get("model.name") == "cnn" else (32, 3)
        write_npy(data / "test-images.npy", "|u1", (20, channels, side, side), bytes(20 * channels * side * side))
        write_npy(data / "test-labels.npy", "<i8", (20,), struct.pack("<20q", *(list(range(10)) * 2)))
        base = {"run.folder": folder / "run", "listen.port": 0, "data.set": "tensors", "data.path": data,
                "federation.clients": count, "evaluation.central": "false", "evaluation.federated": "false",
                "checkpoints.every": 0, "model.name": "resnet18", "run.log": "warn"}
        base.update(settings)
        self.authority = Authority(bench, folder) if has_tls else None
        if self.authority:
            files = self.authority.certify("server", "--server", "--host", "127.0.0.1")
            base.update(zip(("tls.authority", "tls.certificate", "tls.key"), files))
        command = [str(bench.parent.parent / "server/headstart-server")]
        for key, value in base.items():
            command += ["--set", f"{key}={value}"]
        log = folder / "server.log"  # no pipe: with a thousand clients nobody would empty it in time
        with log.open("w") as out:
            self.server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while "waiting for clients" not in log.read_text():
            if self.server.poll() is not None:
                raise SystemExit(f"the server did not start: {log.read_text()}")
            time.sleep(0.02)
        self.before = resident(self.server.pid, "VmRSS")
        self.peak = self.before
        port = (folder / "run/port").read_text().strip()
        self.url = f"{'wss' if self.authority else 'ws'}://127.0.0.1:{port}"
        self.rounds_file = folder / "run/rounds.jsonl"
        self.children = self.start_clients()
        self.peak_total = 0
        # Watching takes some percent of a core, of which a measurement of time has no use.
        self.watcher = threading.Thread(target=self.watch if is_watched else lambda: None)
        self.watcher.start()

    def start_clients(self) -> list[subprocess.Popen]:
        names = [f"silo-{i}" for i in range(self.count)]
        return [subprocess.Popen([str(self.bench / "echo_client"), self.url, name,
                                  *map(str, self.authority.certify(name) if self.authority else [])]) for name in names]

    def watch(self) -> None:
        while self.server.poll() is None:
            try:
                self.peak = max(self.peak, resident(self.server.pid, "VmHWM"))
                self.peak_total = max(self.peak_total, resident(self.server.pid, "VmRSS") +
                                      sum(resident(c.pid, "VmRSS") for c in self.children if c.poll() is None))
            except FileNotFoundError:
                return
            time.sleep(0.02)

    def finish(self) -> list[float]:
        """Seconds of each round."""
        self.server.wait()
        for child in self.children:
            child.wait()
        self.watcher.join()
        if self.server.returncode != 0:
            raise SystemExit(f"the server ended with {self.server.returncode}: "
                             f"{(self.folder / 'server.log').read_text()[-2000:]}")
        failed = [child for child in self.children if child.returncode != 0]
        if failed:
            raise SystemExit(f"{len(failed)} of {len(self.children)} client processes failed, {Path(failed[0].args[0]).name} "
                             f"with code {failed[0].returncode}: no figure")
        seconds = [line["seconds"] for line in self.rounds()]
        return [b - a for a, b in zip(seconds, seconds[1:])]

    def rounds(self) -> list[dict]:
        return [json.loads(line) for line in self.rounds_file.read_text().splitlines()]


def run_federation(bench: Path, count: int, settings: dict, has_tls: bool = False,
                   is_watched: bool = True) -> Federation:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(bench, Path(folder), count, settings, has_tls, is_watched)
        federation.seconds = federation.finish()
        return federation


def median_round(bench: Path, has_tls: bool = False) -> float:
    """Seconds of a round of ten clients, of five after one that warms up."""
    return statistics.median(run_federation(bench, 10, {"federation.rounds": 6}, has_tls, False).seconds[1:])


def communication_round(bench: Path, arguments) -> None:
    """A round without training, ResNet-18, ten client processes, against ten bare sockets with the same bytes."""
    def floor() -> float:
        seconds = [float(s) for s in output_of(bench / "floor_round", 10, RESNET18_BYTES, 6).split()]
        return statistics.median(seconds[1:])

    report("communication round, ResNet-18, ten clients", "s",
           *alternate(arguments.repeats, lambda: median_round(bench), floor), "at most 2")


def tls_round(bench: Path, arguments) -> None:
    """The same round under mutual TLS against the one in the clear."""
    secured, plain = alternate(arguments.repeats, lambda: median_round(bench, True), lambda: median_round(bench))
    report("communication round, ResNet-18, ten clients: mutual TLS over plain", "s", secured, plain, "at most 2")


def memory(bench: Path, arguments) -> None:
    """Peak server memory above what is resident before the first client joins, in models of 44.7 MB, over rounds."""
    for count in (10, 40):
        used = [(f.peak - f.before) / RESNET18_BYTES
                for f in (run_federation(bench, count, {"federation.rounds": 4}) for _ in range(arguments.repeats))]
        print(f"server memory in rounds, {count} clients: {spread(used)} models; bound: at most 6, no more with 40")


def exchange(bench: Path, arguments) -> None:
    """The same over the exchange of pre-trained models: one-shot average, all clients upload at once."""
    for count in (10, 40):
        settings = {"federation.rounds": 0, "start.model": "average"}
        used = [(f.peak - f.before) / RESNET18_BYTES
                for f in (run_federation(bench, count, settings) for _ in range(arguments.repeats))]
        print(f"server memory in the exchange of models, {count} clients: {spread(used)} models; bound: at most 6")


def large(bench: Path, _arguments) -> None:
    """A state of 3 GB with one tensor above 2^31 bytes, to a client and back; server and client together."""
    federation = run_federation(bench, 1, {"federation.rounds": 1, "model.name": "cnn", "model.hidden": 470_000})
    print(f"3.0 GB state, one round: {federation.seconds[0]:.1f} s; server and client together at most "
          f"{federation.peak_total / 1e9:.2f} GB; bound: 16 GB")


def distill(bench: Path, arguments) -> None:
    """KD from nine teachers, 30 epochs: cached logits (the one-time pass included) against recomputing per batch."""
    lines = output_of(bench / "distill_bench", 500, 30, arguments.repeats).splitlines()
    print(f"distillation, recomputed/cached seconds: {spread([float(line.split()[2]) for line in lines])}; bound: at least 3")


def compute(bench: Path, arguments) -> None:
    """Peak memory of evaluation (batches of 256) and distillation (batches of 32) of a ResNet-18 as the server does
    them, against a bare loop of the same batches."""
    for work in ("evaluate", "distill"):
        ours, floor = alternate(arguments.repeats, lambda: float(output_of(bench / "compute_memory", "ours", work)),
                                lambda: float(output_of(bench / "compute_memory", "floor", work)))
        report(f"memory to {work}, ResNet-18", "MB", ours, floor, "none; stated apart")


class Soak(Federation):
    """A thousand clients in four processes. Looks at the server once a round, as soon as the round has its line."""

    warm_up = 10  # rounds

    def __init__(self, bench: Path, folder: Path, count: int, num_rounds: int, drop_every: int):
        self.drop_every = drop_every
        self.samples: list[dict] = []
        # All come from one address, which may have a fourth of the handshakes.
        settings = {"federation.rounds": num_rounds, "limits.handshakes": 4 * count, "model.name": "cnn",
                    "model.channels": "[4,4]", "model.hidden": 64, "checkpoints.every": 1,
                    "evaluation.federated": "true"}
        super().__init__(bench, folder, count, settings, has_tls=True)

    def start_clients(self) -> list[subprocess.Popen]:
        certified = []
        for i in range(self.count):
            name = f"silo-{i:04}"
            certified.append(" ".join([name, *map(str, self.authority.certify(name))]))
        children = []
        for part in range(4):
            child = subprocess.Popen([str(self.bench / "soak_clients"), self.url, str(self.drop_every)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            child.stdin.write("\n".join(certified[part::4]))
            child.stdin.close()
            children.append(child)
        return children

    def watch(self) -> None:
        pids = [self.server.pid, *(child.pid for child in self.children)]
        while self.server.poll() is None:
            done = self.rounds_file.read_text().count("\n") - 1  # the first line is the start model's
            if done > len(self.samples):
                try:
                    self.samples.append({"round": done, "memory": [resident(pid, "VmRSS") for pid in pids],
                                         "descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]})
                except FileNotFoundError:
                    return
            time.sleep(0.01)

    def report(self) -> None:
        seconds = self.finish()
        connections = sum(int(child.stdout.read()) for child in self.children)
        kept = [sample for sample in self.samples if sample["round"] >= self.warm_up]
        first, last = kept[0], kept[-1]
        lost = f"{connections - self.count} connections lost on the way" if self.drop_every else "no connection lost"
        print(f"{self.count} clients, {len(seconds)} rounds, {lost}: "
              f"{statistics.median(seconds):.2f} s a round (range {min(seconds):.2f} .. {max(seconds):.2f}), "
              f"{sum(len(line['clients']) for line in self.rounds()[1:]) / len(seconds):.1f} updates a round")
        for who, i in [("server", 0), *((f"clients {k}", k) for k in range(1, 5))]:
            rounds, memory = [s["round"] for s in kept], [s["memory"][i] / 1e6 for s in kept]
            print(f"  {who}: {memory[0]:.1f} MB after round {first['round']}, at most {max(memory):.1f} MB after it, "
                  f"{memory[-1]:.1f} MB after round {last['round']}, slope "
                  f"{1000 * statistics.linear_regression(rounds, memory).slope:+.1f} kB a round; descriptors "
                  f"{first['descriptors'][i]}, at most {max(s['descriptors'][i] for s in kept)}, "
                  f"{last['descriptors'][i]}")


def soak(bench: Path, arguments) -> None:
    """A thousand clients under mutual TLS, a hundred rounds with a small model, checkpoints and journal: memory and
    descriptors of server and clients after each round; then the same with connections that are lost all the time."""
    for drop_every in (0, 250):
        with tempfile.TemporaryDirectory() as folder:
            Soak(bench, Path(folder), arguments.clients, arguments.rounds, drop_every).report()


def flood(bench: Path, arguments) -> None:
    """Rounds of a ResNet-18 with four clients under mutual TLS, in peace and while 400 hostile connections stand at the
    door (flood.py), which come before the clients do: memory of the server, seconds of a round, what the flood met."""
    def federation(has_flood: bool) -> Federation:
        with tempfile.TemporaryDirectory() as folder:
            flooded = Flooded(bench, Path(folder), has_flood)
            flooded.seconds = flooded.finish()
            log = (Path(folder) / "server.log").read_text().splitlines()
            if has_flood:
                print(f"  {flooded.met}; at most {flooded.descriptors} descriptors, {len(log)} lines of output")
            return flooded

    flooded, peaceful = [], []
    alternate(arguments.repeats, lambda: flooded.append(federation(True)), lambda: peaceful.append(federation(False)))
    for name, runs in (("in the flood", flooded), ("in peace", peaceful)):
        print(f"{name}: seconds of a round {spread([statistics.median(run.seconds) for run in runs])}; server memory above "
              f"its start {spread([(run.peak - run.before) / RESNET18_BYTES for run in runs])} models")
    more = [(a.peak - a.before - b.peak + b.before) / RESNET18_BYTES for a, b in zip(flooded, peaceful)]
    print(f"memory that the flood costs: {spread(more)} models; bound: at most 1")


class Flooded(Federation):
    def __init__(self, bench: Path, folder: Path, has_flood: bool):
        self.has_flood, self.descriptors = has_flood, 0
        allowed = folder / "allowed"
        allowed.write_text("".join(f"silo-{i}\n" for i in range(4)))
        super().__init__(bench, folder, 4, {"federation.rounds": 4, "listen.allowed": allowed}, has_tls=True)

    def start_clients(self) -> list[subprocess.Popen]:
        if self.has_flood:
            port = self.url.rsplit(":", 1)[1]
            command = [sys.executable, str(Path(__file__).with_name("flood.py")), port,
                       *map(str, self.authority.certify("mallory"))]
            self.flood = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            time.sleep(5)  # the doors are full by then
        return super().start_clients()

    def watch(self) -> None:
        watching = threading.Thread(target=self.watch_descriptors)
        watching.start()
        super().watch()
        watching.join()
        if self.has_flood:
            self.flood.terminate()
            self.met = self.flood.communicate()[0].strip()

    def watch_descriptors(self) -> None:
        while self.server.poll() is None:
            try:
                self.descriptors = max(self.descriptors, len(os.listdir(f"/proc/{self.server.pid}/fd")))
            except FileNotFoundError:
                return
            time.sleep(0.1)


def journal(bench: Path, arguments) -> None:
    """What checkpoint and journal cost a round: of a ResNet-18, over a round of two clients with 100 images and two
    epochs each, a small fraction of what a silo has; of the small CNN, in milliseconds. Same disk, same run."""
    def kept(model: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return statistics.median(map(float, output_of(bench / "journal_bench", Path(folder) / "run", model, 9).split()))

    def trained() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return statistics.median(Trained(bench, Path(folder)).finish())

    resnet, rounds = alternate(arguments.repeats, lambda: kept("resnet18"), trained)
    print(f"checkpoint and journal of a ResNet-18: {spread(resnet)} s a round; the round with training: {spread(rounds)} s")
    print(f"  ratio, run by run: {spread([a / (b - a) for a, b in zip(resnet, rounds)])}; bound: 0.05")
    small = [1000 * kept("cnn") for _ in range(arguments.repeats)]
    print(f"the same of the CNN (2.3 MB): {spread(small)} ms a round, whatever its number of updates; bound: 20")


class Trained(Federation):
    """Real clients that train a ResNet-18 in each of three rounds, with checkpoints."""

    def __init__(self, bench: Path, folder: Path):
        super().__init__(bench, folder, 2, {"federation.rounds": 3, "checkpoints.every": 1, "data.held_out": 0})

    def start_clients(self) -> list[subprocess.Popen]:
        data = self.folder / "data"
        write_npy(data / "train-images.npy", "|u1", (100, 3, 32, 32), os.urandom(100 * 3 * 32 * 32))
        write_npy(data / "train-labels.npy", "<i8", (100,), struct.pack("<100q", *(list(range(10)) * 10)))
        client = self.bench.parent.parent / "client/headstart-client"
        return [subprocess.Popen([str(client), "--server", self.url, "--name", f"silo-{i}", "--set", "data.set=tensors",
                                  "--set", f"data.path={data}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for i in range(self.count)]


COMMANDS = {"training": training, "clients": clients, "round": communication_round, "tls": tls_round, "memory": memory,
            "exchange": exchange, "large": large, "distill": distill, "compute": compute, "soak": soak,
            "flood": flood, "journal": journal}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--bin", type=Path, default=Path("build/bench"), help="build folder (default build/bench)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=1000, help="soak: how many")
    parser.add_argument("--rounds", type=int, default=100, help="soak: how many")
    arguments = parser.parse_args()
    COMMANDS[arguments.what](arguments.bin / "experiments/bench", arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
