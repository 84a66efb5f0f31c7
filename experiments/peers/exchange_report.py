"""The outcome of a folder of compare_peers.py: tables, sentences, report.html."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import save_json
from common.page import details, document, image
from common.style import save
from common.table import Table
from common.text import number

from .exchange_drawing import graphs_figure, rounds_figure
from .exchange_results import Result, Results, RoundOfPeers, read_results
from .plan import load_plan

CONTROL = "alone"
WHAT_METHODS_DO = {"kd": "distils the neighbours' models into its own", "gossip": "averages its model with theirs",
                   "alone": "trains as long on its own labels and sends no model"}


def write_report(folder: Path) -> Table:
    """Writes table.md, numbers.json, figures/ and report.html of `folder`; returns the table."""
    results = read_results(load_plan(folder / "plan.json"), folder)
    table = outcome_table(results)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    drawn = {}
    if results.results:
        drawn = {"rounds": save(rounds_figure(results), figures / "accuracy-over-rounds.png"),
                 "graph": save(graphs_figure(results), figures / "graph.png")}
    save_json(as_json(results), folder / "numbers.json")
    (folder / "table.md").write_text("\n".join([f"# {results.plan.title}", "", *findings(results), "",
                                                setting_sentence(results), "", table.markdown()]))
    (folder / "report.html").write_text(_page(results, table, drawn, folder))
    return table


# Tables

def outcome_table(results: Results) -> Table:
    table = Table("Peers before and after", ["partition", "method", "global accuracy, %", "own accuracy, %",
                                             "MB a peer and round", "seconds"], note=table_note(results))
    for one in results.results:
        first, last = one.rounds[0], one.rounds[-1]
        table.rows.append([one.run.partition, one.run.method, _course(first.overall, last.overall),
                           _course(first.own, last.own), f"{one.bytes_a_round / 1e6:.2f}", f"{one.seconds:.0f}"])
    return table


def _course(before: Sequence[float], after: Sequence[float]) -> str:
    return (f"{100 * statistics.fmean(before):.1f} → {100 * statistics.fmean(after):.1f} "
            f"({100 * min(after):.1f} to {100 * max(after):.1f})")


def table_note(results: Results) -> str:
    text = ("Test accuracy, mean over the peers, before the first round and after the last one; in brackets the worst and "
            "the best peer. Global: mean recall over all classes; own: on the classes as in the peer's own samples. MB: "
            "what a peer sent, protocol included, as it measured it. Seconds: of all rounds, without the pre-training, at "
            "the slowest peer; all peers share this machine.")
    apart = [f"{', '.join(others)} ({partition})" for partition in results.plan.partitions
             if (others := [one.run.method for one in results.of(partition)
                            if one.run.method not in results.start_alike(partition)])]
    if apart:
        text += (f" Does not begin with the same models as the first method of its partition: {'; '.join(apart)}.")
        if "gossip" in results.plan.methods:
            text += (" gossip begins with one untrained model at all peers, unless peers.gossip_start is pretrained.")
    lost = sum(one.missing for one in results.results)
    if lost:
        text += f" Rounds went on without {lost} messages."
    if results.missing():
        text += f" Missing: {', '.join(run.name for run in results.missing())}."
    return text


def peers_table(results: Results) -> Table:
    methods = [method for method in results.plan.methods if any(one.run.method == method for one in results.results)]
    table = Table("Each peer after the last round, global / own accuracy, %",
                  ["partition", "peer", "samples", "neighbours", *methods],
                  note="Samples: those that a peer has, held-out ones included.")
    for partition, holdings in results.holdings.items():
        neighbours = results.of(partition)[0].neighbours
        for index, peer in enumerate(holdings):
            row = [partition, peer.name, f"{sum(peer.classes):,}", str(len(neighbours[index]))]
            for method in methods:
                one = results.find(partition, method)
                row.append("–" if one is None else f"{100 * one.rounds[-1].overall[index]:.1f} / "
                                                   f"{100 * one.rounds[-1].own[index]:.1f}")
            table.rows.append(row)
    return table


# Sentences

def findings(results: Results) -> list[str]:
    """What the figures show, and what they do not: a sentence a partition, and one on what they are worth."""
    if not results.results:
        return ["No run is finished."]
    said = [_finding(results, partition) for partition in results.plan.partitions if results.of(partition)]
    return [*said, f"This is one seed ({results.plan.seed}): it shows no difference between methods for certain."]


def _finding(results: Results, partition: str) -> str:
    control = results.find(partition, CONTROL)
    there = results.of(partition)
    if control is None or len(there) < 2:
        levels = ", ".join(f"{one.run.method} at {100 * _mean(one).overall:.1f}% global and {100 * _mean(one).own:.1f}% own "
                           "accuracy" for one in there)
        return f"{partition}: after {_rounds(results)}, {levels}."
    mine = _mean(control)
    leads = ", ".join(f"{one.run.method} {_points(_mean(one).overall - mine.overall)} global and "
                      f"{_points(_mean(one).own - mine.own)} own" for one in there if one is not control)
    return (f"{partition}: after {_rounds(results)} alone has {100 * mine.overall:.1f}% global and {100 * mine.own:.1f}% own "
            f"accuracy; the others against it, in points: {leads}.")


class _Level:
    def __init__(self, line: RoundOfPeers) -> None:
        self.overall, self.own = statistics.fmean(line.overall), statistics.fmean(line.own)


def _mean(result: Result) -> _Level:
    return _Level(result.rounds[-1])


def _points(value: float) -> str:
    return number(100 * value, "+.1f")


def _rounds(results: Results) -> str:
    count = results.plan.rounds
    return f"{count} round{'s' * (count > 1)}"


def setting_sentence(results: Results) -> str:
    plan = results.plan
    data = plan.draw.get("data", {}).get("set", "fashion-mnist")
    graph = plan.settings.get("graph", {})
    kind = graph.get("kind", "full")
    degree = f" of degree {graph['degree']}" if kind == "regular" and "degree" in graph else ""
    training = [samples for peers in results.holdings.values() for samples in (peer.num_samples for peer in peers)]
    sizes = f", {min(training):,} to {max(training):,} training samples each" if training else ""
    return (f"{data}, {plan.peers} peers as processes of one machine{sizes}; {kind} graph{degree}; partitions "
            f"{', '.join(plan.partitions)}; {_rounds(results)}, seed {plan.seed}.")


# Files

def as_json(results: Results) -> dict[str, Any]:
    def level(line: RoundOfPeers) -> dict[str, Any]:
        return {"global": list(line.overall), "own": list(line.own), "bytes_sent": list(line.bytes_sent)}

    return {"findings": findings(results), "plan": results.plan.to_json(),
            "missing": [run.name for run in results.missing()],
            "runs": [{"partition": one.run.partition, "method": one.run.method, "edges": one.edges,
                      "bytes_a_peer_and_round": one.bytes_a_round, "seconds": one.seconds,
                      "missing_messages": one.missing, "rounds": [level(line) for line in one.rounds]}
                     for one in results.results]}


def _page(results: Results, table: Table, drawn: dict[str, Path], folder: Path) -> str:
    plan = results.plan
    parts = [f"<h1>{html.escape(plan.title)}</h1>", f'<p class="facts">{html.escape(setting_sentence(results))}</p>',
             f'<p class="lead">{"<br>".join(map(html.escape, findings(results)))}</p>']
    known = [f"<b>{method}</b> {html.escape(WHAT_METHODS_DO[method])}" for method in plan.methods if method in WHAT_METHODS_DO]
    if known:
        parts.append(f"<p>In each round a peer {'; '.join(known)}. No server takes part.</p>")
    parts.append(table.html())
    if drawn:
        parts += ["<h2>Accuracy over rounds</h2>", CURVES, image(drawn["rounds"]),
                  "<h2>Who exchanges with whom</h2>", GRAPH, image(drawn["graph"]),
                  details("Each peer", peers_table(results).html())]
    return document(plan.title, [*parts, "<h2>How it was made</h2>", *_provenance(results, folder)])


CURVES = """<p>Lines are means over the peers, bands reach from the worst to the best peer. Round 0 is before anything is
sent. kd and alone then answer with a second head, which is untrained until round 1: a fall from round 0 to round 1 is
that.</p>"""

GRAPH = """<p>A line joins neighbours: only they send each other anything. Each peer shows the classes of its own
samples.</p>"""


def _provenance(results: Results, folder: Path) -> list[str]:
    versions = "; ".join(sorted({version for one in results.results for version in one.versions})) or "no program yet"
    commit = "".join(_lines_of(folder / "commit.txt")[:1])
    parts = [f"<p>{html.escape(f'Made by {versions}' + (f', commit {commit}' if commit else '') + '.')}</p>"]
    if calls := _lines_of(folder / "calls.txt"):
        parts.append(f"<p>Call</p><pre>{html.escape(chr(10).join(calls))}</pre>")
    parts.append(details("Plan and settings", f"<pre>{html.escape(json.dumps(results.plan.to_json(), indent=2))}</pre>"))
    commands = _lines_of(folder / "commands.txt")
    parts.append(details(f"The {len(commands)} commands behind it", f"<pre>{html.escape(chr(10).join(commands))}</pre>"))
    return parts


def _lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []
