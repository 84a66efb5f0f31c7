"""Runs of headstart-peer: one process a peer on this machine, started together, watched, and stopped together."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RUN_FAILED, CompareError
from common.files import read_rounds, save_json
from common.processes import Child, last_lines, stop_all
from common.programs import find_program

from .plan import PeerPlan, Run

LAB, PEER = "headstart-lab", "headstart-peer"
POLL_SECONDS = 0.2


@dataclass
class Exchanges:
    """A folder of compare_peers.py: where everything of it lies. bin: folder of the programs; None: the PATH."""

    folder: Path
    plan: PeerPlan
    bin: Path | None

    def manifest(self, partition: str) -> Path:
        return self.folder / "manifests" / f"{partition}.json"

    def peer_folder(self, run: Run, name: str) -> Path:
        """With its log, and its run's folder `run`."""
        return self.folder / "runs" / run.name / name

    def note_command(self, command: list[str]) -> None:
        with (self.folder / "commands.txt").open("a") as file:
            file.write(shlex.join(command) + "\n")

    def draw(self, partition: str) -> None:
        """The partition's manifest, unless it is there."""
        if self.manifest(partition).is_file():
            return
        draw, config = self.plan.draw, self.folder / "configs" / f"draw-{partition}.json"
        sizes = {"kind": partition, "clients": self.plan.peers}
        save_json(draw | {"partition": draw.get("partition", {}) | sizes, "seed": self.plan.seed}, config)
        self.manifest(partition).parent.mkdir(exist_ok=True)
        command = [find_program(LAB, self.bin), "partition", "--config", str(config), "--out",
                   str(self.manifest(partition))]
        self.note_command(command)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                              start_new_session=True)  # Ctrl-C is for this program to handle
        if done.returncode != 0:
            raise CompareError(done.returncode if done.returncode > 0 else RUN_FAILED,
                               f"drawing {partition}: {done.stderr.strip()}")

    def peers_file(self, run: Run) -> Path:
        """peers.json of a run: the same at all its peers."""
        sections: dict[str, Any] = self.plan.settings
        members = [{"name": name, "address": f"ws://127.0.0.1:{port}"}
                   for name, port in zip(self.plan.names, free_ports(self.plan.peers))]
        file = self.folder / "configs" / f"{run.name}.json"
        save_json(sections | {"seed": self.plan.seed, "members": members,
                              "peers": sections.get("peers", {}) | {"method": run.method}}, file)
        return file

    def command(self, run: Run, index: int, peers_file: Path) -> list[str]:
        name = self.plan.names[index]
        data = self.plan.draw.get("data", {})
        settings = {f"data.{key}": value for key, value in data.items()} | {
            "data.manifest": self.manifest(run.partition), "data.share": index, "data.test": "true",
            "store.pretrained": self.folder / "pretrained", "run.folder": self.peer_folder(run, name) / "run"}
        command = [find_program(PEER, self.bin), "--peers", str(peers_file), "--name", name]
        return command + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def free_ports(count: int) -> list[int]:
    """Held together while they are chosen, so that no two are the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def rounds_done(exchanges: Exchanges, run: Run) -> list[int]:
    """Of each peer; -1: it has not trained its own model yet."""
    return [len(read_rounds(exchanges.peer_folder(run, name) / "run")) - 1 for name in exchanges.plan.names]


def exchange(exchanges: Exchanges, run: Run, is_interrupted: Callable[[], bool],
             tell: Callable[[list[int]], None]) -> None:
    """Runs all peers to their end. tell: told now and then how many rounds each has done. No child is left behind."""
    exchanges.draw(run.partition)
    peers_file = exchanges.peers_file(run)
    children: list[Child] = []
    try:
        for index, name in enumerate(exchanges.plan.names):
            command = exchanges.command(run, index, peers_file)
            exchanges.note_command(command)
            children.append(Child(name, command, exchanges.peer_folder(run, name) / "peer.log"))
        _watch(children, run, is_interrupted, lambda: tell(rounds_done(exchanges, run)))
    finally:
        stop_all(children)
    for name in exchanges.plan.names:
        if not (exchanges.peer_folder(run, name) / "run" / "summary.json").is_file():
            raise CompareError(RUN_FAILED, f"{run.name}: {name} ended without a summary.json; its log: "
                                           f"{exchanges.peer_folder(run, name) / 'peer.log'}")


def _watch(children: list[Child], run: Run, is_interrupted: Callable[[], bool], tell: Callable[[], None]) -> None:
    while any(child.exit_code() is None for child in children):
        if is_interrupted():
            raise KeyboardInterrupt
        if any(child.exit_code() not in (None, 0) for child in children):
            break
        tell()
        time.sleep(POLL_SECONDS)
    failed = [child for child in children if child.exit_code() not in (None, 0)]
    if failed:
        raise CompareError(RUN_FAILED, f"{run.name} failed. " + " ".join(_failure(child) for child in failed))


def _failure(child: Child) -> str:
    code = child.exit_code() or 0
    how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
    said = (last_lines(child.log, 1) or ["it said nothing"])[0]
    return f"{child.name} {how}: {said} ({child.log})"
