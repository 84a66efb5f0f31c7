"""What the peers of headstart-peer left in their folders, and what follows from it. Accuracies are 0..1, of the test
set."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DATA, CompareError
from common.files import read_json, read_rounds

from .plan import PeerPlan, Run
from .rows import Peer


@dataclass(frozen=True)
class RoundOfPeers:
    """One number a peer. overall: the accuracy `global`, which is a word of Python. seconds: at work and waiting."""

    overall: tuple[float, ...]
    own: tuple[float, ...]
    bytes_sent: tuple[int, ...]
    seconds: tuple[float, ...]
    states: tuple[str, ...]  # digests


@dataclass(frozen=True)
class Result:
    """One finished exchange."""

    run: Run
    rounds: tuple[RoundOfPeers, ...]  # from 0, before anything is sent
    neighbours: tuple[tuple[int, ...], ...]
    samples: tuple[int, ...]
    versions: tuple[str, ...]
    missing: int  # messages that a round went on without

    @property
    def edges(self) -> list[tuple[int, int]]:
        return sorted({(min(one, other), max(one, other))
                       for one, others in enumerate(self.neighbours) for other in others})

    @property
    def bytes_a_round(self) -> float:
        """That a peer sent, mean over peers and rounds."""
        return statistics.fmean(count for line in self.rounds[1:] for count in line.bytes_sent)

    @property
    def seconds(self) -> float:
        """Of all rounds but the pre-training before them, at the slowest peer."""
        return max(sum(times) for times in zip(*(line.seconds for line in self.rounds[1:])))


@dataclass
class Results:
    plan: PeerPlan
    results: list[Result]
    holdings: dict[str, list[Peer]]  # of each partition

    def find(self, partition: str, method: str) -> Result | None:
        return next((one for one in self.results if one.run == Run(partition, method)), None)

    def of(self, partition: str) -> list[Result]:
        return [one for one in self.results if one.run.partition == partition]

    def missing(self) -> list[Run]:
        there = [one.run for one in self.results]
        return [run for run in self.plan.runs() if run not in there]

    def start_alike(self, partition: str) -> list[str]:
        """Methods that began with the same states as the first of the partition, and that one."""
        there = self.of(partition)
        return [one.run.method for one in there if one.rounds[0].states == there[0].rounds[0].states]


def read_results(plan: PeerPlan, folder: Path) -> Results:
    """Runs without a summary.json of every peer are left out."""
    runs = [run for run in plan.runs() if all((_run_folder(folder, run, name) / "summary.json").is_file()
                                              for name in plan.names)]
    results = [_result(plan, folder, run) for run in runs]
    return Results(plan, results, {one.run.partition: _holdings(plan, folder, one) for one in results})


def _run_folder(folder: Path, run: Run, name: str) -> Path:
    return folder / "runs" / run.name / name / "run"


def _result(plan: PeerPlan, folder: Path, run: Run) -> Result:
    folders = [_run_folder(folder, run, name) for name in plan.names]
    lines = [read_rounds(one) for one in folders]
    for one, found in zip(folders, lines):
        if [line.get("round") for line in found] != list(range(plan.rounds + 1)):
            raise CompareError(DATA, f"{one / 'rounds.jsonl'}: expected one line a round from 0 to {plan.rounds}")
    summaries = [read_json(one / "summary.json") for one in folders]
    try:
        places = {name: index for index, name in enumerate(plan.names)}
        rounds = tuple(_round([found[number] for found in lines]) for number in range(plan.rounds + 1))
        return Result(run, rounds, tuple(tuple(places[name] for name in one["neighbours"]) for one in summaries),
                      tuple(int(one["num_samples"]) for one in summaries),
                      tuple(sorted({_version(read_json(one / "run.json")) for one in folders})),
                      sum(sum(one["missing"].values()) for one in summaries))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CompareError(DATA, f"{folder / 'runs' / run.name}: a file of a peer is not as headstart-peer writes it "
                                 f"({error!r})") from error


def _round(lines: list[dict[str, Any]]) -> RoundOfPeers:
    def answers(accuracy: str) -> tuple[float, ...]:
        """Of the head that answers."""
        return tuple(float(line["figures"][accuracy][line["figures"]["answering"]]) for line in lines)

    return RoundOfPeers(answers("global"), answers("own"), tuple(int(line["bytes_sent"]) for line in lines),
                        tuple(float(line["seconds_working"] + line["seconds_waiting"]) for line in lines),
                        tuple(str(line["sha256"]) for line in lines))


def _version(run: dict[str, Any]) -> str:
    return f"headstart-peer {run['headstart']}, LibTorch {run['reproducible_with'].get('libtorch', '?')}"


def _holdings(plan: PeerPlan, folder: Path, result: Result) -> list[Peer]:
    file = folder / "manifests" / f"{result.run.partition}.json"
    counts = read_json(file).get("class_counts")
    if not isinstance(counts, list) or len(counts) != plan.peers:
        raise CompareError(DATA, f"{file}: expected the class counts of {plan.peers} clients")
    return [Peer(name, samples, tuple(int(count) for count in own))
            for name, samples, own in zip(plan.names, result.samples, counts)]
