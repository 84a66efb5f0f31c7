"""Child programs: a federation in one process, or a server and its clients; started, watched and stopped."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import RUN_FAILED, CompareError
from common.files import save_json
from common.processes import Child, stop_all

from .plan import Plan, Run
from .programs import (PEER_CONSENT, PROCESSES, REMOTE, SIMULATION, STARTS, Programs, Settings, central_settings, client_settings,
                       draw_settings, federation_settings, form_settings, is_finished, needs_peer_consent, nested, port_of,
                       settings_of_clients)
from .remote import Lobby
from .silos import Silo

# Generous bounds: they end a run that hangs, and never hurry one that works.
PORT_SECONDS = 120.0
GOODBYE_SECONDS = 30.0


@dataclass
class Study:
    """A compare.py folder: where everything of it lies."""

    folder: Path
    plan: Plan
    programs: Programs
    commands: str = "commands.txt"  # the file in it that notes what is started

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run_folder(self, run: Run) -> Path:
        return self.runs / run.name

    def logs(self, run: Run) -> Path:
        return self.folder / "logs" / run.name

    def manifest(self, cell: tuple[str, int]) -> Path:
        return self.folder / "manifests" / f"{cell[0]}-seed{cell[1]}.json"

    def config(self, name: str) -> Path:
        return self.folder / "configs" / f"{name}.json"

    def unfinished(self) -> list[Run]:
        return [run for run in self.plan.all_runs() if not is_finished(self.run_folder(run))]

    def note_command(self, command: list[str]) -> None:
        notes = self.folder / self.commands
        notes.parent.mkdir(exist_ok=True)
        with notes.open("a") as file:
            file.write(shlex.join(command) + "\n")

    def draw(self, cell: tuple[str, int]) -> Path:
        """Draws a cell's manifest unless it is there, and returns its file."""
        manifest = self.manifest(cell)
        if manifest.is_file():
            return manifest
        partition, seed = cell
        config = self.config(f"draw-{partition}-seed{seed}")
        settings = draw_settings(self.plan.settings) | {
            "partition.kind": partition, "partition.clients": self.plan.clients, "seed": seed}
        save_json(nested(settings), config)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        command = self.programs.partition(config, manifest)
        self.note_command(command)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                              start_new_session=True)  # Ctrl-C is for this program to handle
        if done.returncode != 0 or not manifest.is_file():
            said = done.stderr.strip() or "it wrote no manifest"
            raise CompareError(done.returncode if done.returncode > 0 else RUN_FAILED, f"drawing {partition}, seed {seed}: {said}")
        return manifest

    def federation_config(self, run: Run, stop_accuracy: float | None) -> Path:
        # Full participation: a round that lost a client is no round of the comparison.
        complete = {"federation.min_clients": self.plan.clients}
        settings = complete | federation_settings(self.plan.settings, self.plan.mode) | STARTS[run.start] | {
            "run.folder": str(self.run_folder(run)), "run.seed": run.seed,
            "federation.clients": self.plan.clients, "federation.rounds": run.plan.rounds,
            "targets.accuracies": self.plan.accuracies if stop_accuracy is None else [stop_accuracy],
            "targets.stop": stop_accuracy is not None}
        settings |= {"data.manifest": str(self.manifest(run.cell))} if self.plan.draws_partitions else {}
        if self.plan.mode == SIMULATION:
            settings |= {"store.pretrained": str(self.folder / "pretrained")}
            settings |= PEER_CONSENT if needs_peer_consent(run.start) else {}
        else:
            settings = {"listen.port": 0} | settings
        return self._save_config(run.name, settings)

    def central_config(self, run: Run) -> Path:
        settings = central_settings(self.plan.settings) | {
            "run.folder": str(self.run_folder(run)), "run.seed": run.seed, "data.manifest": str(self.manifest(run.cell))}
        return self._save_config(run.name, settings)

    def client_config(self, run: Run) -> Path:
        settings = client_settings(self.plan.settings) | {
            "data.manifest": str(self.manifest(run.cell)), "store.pretrained": str(self.folder / "pretrained")}
        settings |= PEER_CONSENT if needs_peer_consent(run.start) else {}
        return self._save_config(run.name + ".client", settings)

    def silo_config(self, run: Run, silo: Silo) -> Path:
        """What the silo says itself counts, its consent above all. A worker has no data or model here."""
        settings = dict(PEER_CONSENT) if needs_peer_consent(run.start) else {}
        if not silo.has_worker:
            settings |= form_settings(self.plan.settings) | {"store.pretrained": str(self.folder / "pretrained" / silo.name)}
        settings |= settings_of_clients(self.plan.settings) | silo.settings
        return self._save_config(f"{run.name}.{silo.name}", settings)

    def client_commands(self, run: Run, port: int) -> list[tuple[str, list[str]]]:
        """The clients of a run by name."""
        if self.plan.silos:
            return [(silo.name, self.programs.client(port, silo.name, self.silo_config(run, silo)))
                    for silo in self.plan.silo_list()]
        config = self.client_config(run)
        return [(f"silo-{index}", self.programs.client_of_share(port, index, config)) for index in range(self.plan.clients)]

    def _save_config(self, name: str, settings: Settings) -> Path:
        save_json(nested(settings), self.config(name))
        return self.config(name)


def move_aside(path: Path) -> Path | None:
    """NAME becomes NAME.interrupted-1 (or the next free number); None where there is nothing to move."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.interrupted-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


@dataclass
class Failure:
    """Why a run did not end well, and whose logs tell more."""

    reason: str
    children: list[Child]


@dataclass
class ActiveRun:
    """A run under way. In mode processes the clients follow once the server has written its port; in mode remote they come
    by themselves."""

    study: Study
    run: Run
    stop_accuracy: float | None
    started: float = field(default_factory=time.monotonic)
    main: Child = field(init=False)
    clients: list[Child] = field(default_factory=list)
    failure: Failure | None = None
    lobby: Lobby | None = None
    _ended: float | None = None

    def __post_init__(self) -> None:
        programs = self.study.programs
        if self.run.is_central:
            command, name = programs.central(self.study.central_config(self.run)), "central"
        elif self.study.plan.mode != SIMULATION:
            command, name = programs.serve(self.study.federation_config(self.run, self.stop_accuracy)), "server"
        else:
            command, name = programs.simulate(self.study.federation_config(self.run, self.stop_accuracy)), "simulate"
        self.study.runs.mkdir(exist_ok=True)
        self.study.note_command(command)
        self.main = Child(name, command, self.study.logs(self.run) / f"{name}.log")
        if self.study.plan.mode == REMOTE:
            self.lobby = Lobby(self.study.plan, self.study.run_folder(self.run))

    @property
    def _has_clients(self) -> bool:
        return self.study.plan.mode == PROCESSES and not self.run.is_central

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def is_over(self) -> bool:
        """To be called again and again; afterwards `failure` tells how it went, and no child is left."""
        code = self.main.exit_code()
        if code is not None:
            return self._is_over_after(code)
        if self._has_clients:
            self._watch_clients()
        if self.failure is not None:
            self.stop()
            return True
        return False

    def _watch_clients(self) -> None:
        if not self.clients:
            port = port_of(self.study.run_folder(self.run))
            if port is not None:
                self._start_clients(port)
            elif self.elapsed > PORT_SECONDS:
                self.failure = Failure(f"the server did not listen within {PORT_SECONDS:.0f} s", [self.main])
        for child in self._failed_clients():
            self.failure = Failure(f"{child.name} ended with exit code {child.exit_code()}", [child])

    def _start_clients(self, port: int) -> None:
        for name, command in self.study.client_commands(self.run, port):
            self.study.note_command(command)
            self.clients.append(Child(name, command, self.study.logs(self.run) / f"{name}.log"))

    def _is_over_after(self, code: int) -> bool:
        if code == 0 and is_finished(self.study.run_folder(self.run)):
            self._ended = self._ended or time.monotonic()
            if any(child.exit_code() is None for child in self.clients):
                if time.monotonic() - self._ended < GOODBYE_SECONDS:
                    return False
        elif code == 0:
            self.failure = Failure(f"{self.main.name} ended without writing summary.json", [self.main])
        else:
            tellers = [self.main, *self._failed_clients()]
            self.failure = Failure(f"{self.main.name} ended with exit code {code}", tellers)
        self.stop()
        return True

    def _failed_clients(self) -> list[Child]:
        """The first client that failed, if any: one log is enough to read."""
        return [child for child in self.clients if child.exit_code() not in (None, 0)][:1]

    def stop(self) -> list[str]:
        """Asks every child to end, waits, and ends by force those that do not; names those."""
        return stop_all([self.main, *self.clients])


def launch(study: Study, run: Run, stop_accuracy: float | None, say: Callable[[str], None]) -> ActiveRun:
    for leftover in (study.run_folder(run), study.logs(run)):
        aside = move_aside(leftover)
        if aside is not None and leftover == study.run_folder(run):
            say(f"{run.name} was not finished: kept as {aside}, begun anew")
    return ActiveRun(study, run, stop_accuracy)
