#!/usr/bin/python3
"""Tables, figures and the self-contained report.html of a folder that compare.py filled; or one run.

    experiments/report.py DIR      draws them again from the runs that DIR holds
    experiments/report.py RUN      draws the folder of one run: curves.png and page.html in it
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from pathlib import Path

from common.errors import CompareError
from common.files import save_json
from common.page import details, document, image
from common.paths import plain_path
from common.run_report import is_run, write_run_report
from common.table import Table
from comparison.accounting import Comparison, read_comparison
from comparison.documents import as_json
from comparison.figures import draw_all
from comparison.headline import headline
from comparison.plan import Plan, load_plan
from comparison.programs import PROCESSES, REMOTE, title_of_start
from comparison.tables import all_tables, front_tables, target_tables


def write_report(folder: Path) -> list[Table]:
    """Writes table.md, table.json, figures/ and report.html of `folder`; returns the tables."""
    comparison = read_comparison(load_plan(folder / "plan.json"), folder / "runs")
    tables = all_tables(comparison)
    figures = draw_all(comparison, folder / "manifests", folder / "figures")
    save_json(as_json(comparison), folder / "table.json")
    (folder / "table.md").write_text(markdown(comparison, tables, folder))
    (folder / "report.html").write_text(page(comparison, figures, folder))
    return tables


def markdown(comparison: Comparison, tables: list[Table], folder: Path) -> str:
    lines = [f"# {comparison.plan.title}", "", headline(comparison), "", setting_sentence(comparison), "",
             made_by(comparison, folder), ""]
    return "\n".join(lines) + "\n" + "\n".join(table.markdown() for table in tables)


def setting_sentence(comparison: Comparison) -> str:
    plan = comparison.plan
    data = plan.settings.get("data.set", "fashion-mnist")
    how = {PROCESSES: "a server and client processes", REMOTE: "a server, and clients elsewhere"}
    seeds = ", ".join(str(seed) for seed in plan.seeds)
    return (f"{data}, {_whose_data(plan)}; {plan.rounds} rounds, seed{'s' * (len(plan.seeds) > 1)} {seeds}; "
            f"{how.get(plan.mode, 'simulation in one process')}.")


def _whose_data(plan: Plan) -> str:
    if plan.draws_partitions:
        return f"{plan.clients} clients, partition{'s' * (len(plan.partitions) > 1)} {', '.join(plan.partitions)}"
    names = ", ".join(silo.name for silo in plan.silo_list())
    return f"{plan.clients} silos as they are" + (f" ({names})" if names else "")


def made_by(comparison: Comparison, folder: Path) -> str:
    """The programs of the runs, and the state of the code when the folder was begun."""
    made = [*comparison.all_results(), *comparison.central.values()]
    versions = "; ".join(sorted({version_of(result.info) for result in made})) or "no program yet"
    commit = "".join(_lines_of(folder / "commit.txt")[:1])
    return f"Made by {versions}" + (f", commit {commit}" if commit else "") + "."


def page(comparison: Comparison, figures: dict[str, list[Path]], folder: Path) -> str:
    plan = comparison.plan
    missing = len(comparison.missing())
    missing_text = f" {missing} of {len(plan.all_runs())} runs are missing." if missing else ""
    front = front_tables(comparison)
    parts = [
        f"<h1>{html.escape(plan.title)}</h1>",
        f'<p class="facts">{html.escape(setting_sentence(comparison) + missing_text)}</p>',
        f'<p class="lead">{html.escape(headline(comparison))}</p>',
        *(table.html() for table in front[:1]),
        "<h2>Accuracy over rounds</h2>", CURVES,
        *_accuracy_figures(figures["accuracy"]),
        "<h2>Rounds to target</h2>", *(image(file) for file in figures["rounds"]),
        *(image(file) for file in figures["seed"]),
        *(table.html() for table in front[1:]),
        "<h3>Every target</h3>", details("Rounds, seconds and megabytes to each target",
                                         "".join(table.html() for table in target_tables(comparison))),
        "<h2>Who holds what</h2>", *_partitions(plan, figures["partition"]),
        "<h2>How it was made</h2>", *_provenance(comparison, folder),
    ]
    return document(plan.title, parts)


def _partitions(plan: Plan, files: list[Path]) -> list[str]:
    if plan.draws_partitions:
        return [f'<div class="pair">{"".join(image(file) for file in files)}</div>']
    return ["<p>The silos hold their data as they are. A run does not record how many samples of each class a silo holds, so "
            "there is no figure.</p>"]


def _accuracy_figures(files: list[Path]) -> list[str]:
    if len(files) <= 1:
        return [image(file) for file in files]
    return [image(files[0]), details("One figure a partition, with the targets named",
                                     "".join(image(file) for file in files[1:]))]


def _provenance(comparison: Comparison, folder: Path) -> list[str]:
    plan = comparison.plan
    parts = [f"<p>{html.escape(made_by(comparison, folder))}</p>"]
    calls = _lines_of(folder / "calls.txt")
    # Each task of a cluster notes its commands in a file of its own.
    notes = [folder / "commands.txt", *(folder / "commands" / f"{run.name}.txt" for run in plan.all_runs())]
    commands = [line for file in notes for line in _lines_of(file)]
    if calls:
        parts.append(f"<p>Calls</p><pre>{html.escape(chr(10).join(calls))}</pre>")
    parts.append(ACCOUNTING)
    parts.append(details("Plan and settings", f"<pre>{html.escape(json.dumps(plan.to_json(), indent=2))}</pre>"))
    for start in comparison.starts():
        example = next((result for result in comparison.all_results() if result.run.start == start), None)
        if example is not None:
            config = json.dumps(example.info.get("config", {}), indent=2)
            parts.append(details(f"Resolved configuration of a run: {title_of_start(start)} ({example.run.name})",
                                 f"<pre>{html.escape(config)}</pre>"))
    for central in list(comparison.central.values())[:1]:
        config = json.dumps(central.info.get("config", {}), indent=2)
        parts.append(details(f"Resolved configuration of centralised training (seed {central.seed})",
                             f"<pre>{html.escape(config)}</pre>"))
    parts.append(details(f"The {len(commands)} commands behind it",
                         f"<pre>{html.escape(chr(10).join(commands))}</pre>"))
    return parts


CURVES = """<p>Lines are means over the seeds, bands reach from the lowest to the highest seed. Dashed: targets set by
the random start; dotted: by the best local model; dash-dotted: below centralised training.</p>"""

ACCOUNTING = """<p>Accounting: round r counts from 0, the start model before round 1. A start that needs the clients'
models is charged all bytes moved before round 1, in rounds: divided by the bytes of a FedAvg round, rounded up, at
least 1. Its seconds begin with the first pre-training step. A run that does not reach a target counts as its budget
and its charge, and marks the mean with &ge;; a cell in which neither of two runs reaches it counts at both budgets, is
marked with ~ and counted beside the mean. Centralised training has the clients' data in one place; its epoch is chosen
on validation data. Test data measure and decide nothing; best, worst and weights come from
the validation source named in the configuration.</p>"""


def version_of(info: dict[str, object]) -> str:
    return f"{info.get('program', 'headstart')} {info.get('version', '?')}, LibTorch {_reproducible_with(info).get('libtorch', '?')}"


def _reproducible_with(info: dict[str, object]) -> dict[str, object]:
    found = info.get("reproducible_with")
    return found if isinstance(found, dict) else {}


def _lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=plain_path, metavar="DIR", help="a folder that compare.py made, or that of a run")
    parser.add_argument("--bin", type=plain_path, help="folder of headstart-lab, for the page of a run (default: the build)")
    arguments = parser.parse_args()
    try:
        if is_run(arguments.folder):
            for file in write_run_report(arguments.folder, Path(__file__).resolve().parents[1], arguments.bin):
                print(file)
            return 0
        tables = write_report(arguments.folder)
    except CompareError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.code
    print("\n\n".join(table.text() for table in tables[:1]))
    print(f"\nReport: {arguments.folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
