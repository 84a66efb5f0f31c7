"""Accounting, plans and whole calls of experiments/compare.py, over programs that only pretend to train.

    python3 -m unittest tests/integration/compare_test.py
"""

from __future__ import annotations

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from comparison.accounting import Comparison, Result, RoundLine, Spread, Target, read_result  # noqa: E402
from comparison.errors import CompareError  # noqa: E402
from comparison.figures import seed_accuracies, seed_figure  # noqa: E402
from comparison.plan import Plan, Run, StartPlan, load_plan, prerequisites  # noqa: E402
from comparison.programs import STARTS, client_settings, draw_settings, federation_settings, flat, nested  # noqa: E402
from comparison.tables import validation_table  # noqa: E402

MODEL = 1000
CLIENTS = 10
ROUND_BYTES = 2 * CLIENTS * MODEL
RANDOM_BEST = Target(1.0, "random")


def result(start: str, accuracies: list[float], *, seed: int = 1, rounds: int | None = None, before_bytes: int = 0,
           before_seconds: float = 0.0, partition: str = "uniform") -> Result:
    """Each round takes 2 s and moves ROUND_BYTES."""
    lines = [RoundLine(n, accuracy, None, before_seconds + 2.0 * n, ROUND_BYTES if n else 0)
             for n, accuracy in enumerate(accuracies)]
    run = Run(partition, seed, StartPlan(start, rounds or len(accuracies) - 1))
    return Result(run, lines, before_seconds, before_bytes, {}, {})


def comparison(*results: Result, **plan: Any) -> Comparison:
    starts = list(dict.fromkeys(one.run.start for one in results))
    seeds = sorted({one.run.seed for one in results})
    rounds = max(one.run.plan.rounds for one in results)
    partitions = list(dict.fromkeys(one.run.partition for one in results))
    values = {"starts": starts, "seeds": seeds, "rounds": rounds, "partitions": partitions} | plan
    return Comparison(Plan(**values), results)


class Accounting(unittest.TestCase):
    def test_charge_is_bytes_before_round_1_in_rounds_rounded_up_and_at_least_1(self) -> None:
        for before, expected in ((0, 1), (1, 1), (ROUND_BYTES, 1), (ROUND_BYTES + 1, 2), (3 * ROUND_BYTES, 3)):
            kd = result("kd-public", [0.5, 0.6], before_bytes=before)
            self.assertEqual(comparison(kd).charge(kd), expected, before)
        random = result("random", [0.5, 0.6], before_bytes=5 * ROUND_BYTES)
        self.assertEqual(comparison(random).charge(random), 0)

    def test_a_run_that_ended_at_round_0_is_charged_by_the_rounds_of_its_cell(self) -> None:
        kd = result("kd-public", [0.9], rounds=5, before_bytes=ROUND_BYTES + 1)
        stranger = result("random", [0.1, 0.2], seed=2)
        self.assertEqual(comparison(kd, result("random", [0.1, 0.2]), stranger).charge(kd), 2)

    def test_cost_to_a_target_with_and_without_the_charge(self) -> None:
        random = result("random", [0.1, 0.4, 0.6, 0.8, 0.7])
        kd = result("kd-public", [0.7, 0.75, 0.85, 0.86, 0.87], before_bytes=ROUND_BYTES + 7, before_seconds=80.0)
        both = comparison(random, kd)
        charged, plain = both.cost(RANDOM_BEST, kd, True), both.cost(RANDOM_BEST, kd, False)
        self.assertEqual((charged.rounds, charged.seconds, charged.bytes, charged.is_censored),
                         (2 + 2, 80 + 4, 3 * ROUND_BYTES + 7, False))
        self.assertEqual((plain.rounds, plain.seconds, plain.bytes), (2, 4, 2 * ROUND_BYTES))
        base = both.cost(RANDOM_BEST, random, True)
        self.assertEqual((base.rounds, base.seconds, base.bytes), (3, 6, 3 * ROUND_BYTES))
        self.assertEqual(both.cost(RANDOM_BEST, random, False), base)

    def test_the_start_model_itself_may_reach_the_target(self) -> None:
        kd = result("kd-public", [0.8, 0.9], before_bytes=1)
        both = comparison(result("random", [0.1, 0.8]), kd)
        self.assertEqual(both.cost(RANDOM_BEST, kd, False).rounds, 0)
        self.assertEqual(both.cost(RANDOM_BEST, kd, False).bytes, 0)
        self.assertEqual(both.cost(RANDOM_BEST, kd, True).rounds, 1)

    def test_a_censored_run_counts_as_its_budget_and_marks_the_mean(self) -> None:
        short = result("best", [0.3, 0.4, 0.5], rounds=5, before_bytes=1)
        runs = comparison(result("random", [0.1] * 9 + [0.8]), short, result("random", [0.1] * 9 + [0.4], seed=2),
                          result("best", [0.3, 0.4], seed=2, rounds=5, before_bytes=1))
        cost = runs.cost(RANDOM_BEST, short, True)
        self.assertEqual((cost.rounds, cost.is_censored), (6, True))
        spread = runs.spread(RANDOM_BEST, "uniform", "best", "rounds", False)
        self.assertEqual(spread, Spread(3.0, 1, 5, 2, ">="))
        self.assertEqual(runs.spread(RANDOM_BEST, "uniform", "random", "rounds", False).bound, "")

    def test_references_are_taken_per_seed_and_fractions_scale_them(self) -> None:
        runs = comparison(result("random", [0.1, 0.8, 0.6]), result("random", [0.1, 0.5, 0.4], seed=2))
        half = Target(0.5, "random")
        self.assertEqual([runs.threshold(half, "uniform", seed) for seed in (1, 2)], [0.4, 0.25])
        self.assertIsNone(runs.threshold(Target(1.0, "best"), "uniform", 1))
        self.assertEqual(runs.threshold(Target(0.75), "uniform", 1), 0.75)

    def test_a_reference_that_stops_early_sets_no_target(self) -> None:
        plan = Plan(starts=["random", {"start": "best", "rounds": 5, "stop_at": 1.0}], fractions=[1.0])
        self.assertEqual(plan.full_references(), ["random"])
        self.assertEqual(Plan(starts=["random", "best"]).full_references(), ["random", "best"])

    def test_saving_averages_over_partitions_and_seeds(self) -> None:
        results = []
        for seed, partition, kd_round in ((1, "uniform", 1), (2, "uniform", 3), (1, "specialized", 4),
                                          (2, "specialized", 8)):
            kd = [0.0] * kd_round + [0.9] * (11 - kd_round)
            results += [result("random", [0.0] * 10 + [0.9], seed=seed, partition=partition),
                        result("kd-public", kd, seed=seed, partition=partition, before_bytes=1)]
        runs = comparison(*results)
        plain = runs.saving(RANDOM_BEST, "kd-public", False, ["uniform", "specialized"])
        self.assertAlmostEqual(plain.mean, (0.9 + 0.7 + 0.6 + 0.2) / 4)
        self.assertAlmostEqual(plain.low, 0.2)
        charged = runs.saving(RANDOM_BEST, "kd-public", True, ["uniform"])
        self.assertAlmostEqual(charged.mean, (0.8 + 0.6) / 2)

    def test_saving_marks_bounds_and_leaves_out_what_tells_nothing(self) -> None:
        never, at_2, at_0 = [0.0] * 5, [0.0, 0.0, 0.9, 0.9, 0.9], [0.9] * 5
        for random, kd, bound in ((at_2, never, "<="), (never, at_2, ">="), (at_2, at_0, "")):
            runs = comparison(result("random", random), result("kd-public", kd))
            self.assertEqual(runs.saving(Target(0.9), "kd-public", False, ["uniform"]).bound, bound)
        for random, kd in ((never, never), (at_0, at_2)):
            runs = comparison(result("random", random), result("kd-public", kd))
            self.assertIsNone(runs.saving(Target(0.9), "kd-public", False, ["uniform"]))
        mixed = comparison(result("random", at_2), result("kd-public", never), result("random", never, seed=2),
                           result("kd-public", at_2, seed=2))
        self.assertEqual(mixed.saving(Target(0.9), "kd-public", False, ["uniform"]).bound, "~")

    def test_lead_compares_the_rounds_that_both_runs_hold(self) -> None:
        runs = comparison(result("best", [0.5, 0.6, 0.7, 0.8]), result("kd-public", [0.6, 0.8, 0.8], rounds=3))
        self.assertAlmostEqual(runs.lead("kd-public", "best", ["uniform"], None).mean, 0.1)
        self.assertAlmostEqual(runs.lead("kd-public", "best", ["uniform"], 8).mean, 0.15)

    def test_every_start_that_was_rated_stands_with_its_seed_by_validation(self) -> None:
        results = []
        for start, rating in (("random", 0.12), ("random-feddf", 0.12), ("best", 0.62), ("kd-public", 0.71),
                              ("average", None)):
            one = result(start, [0.5, 0.6])
            results.append(replace(one, rounds=[replace(one.rounds[0], validation_accuracy=rating), *one.rounds[1:]]))
        runs = comparison(*results)
        rows = [(row[1], row[2]) for row in validation_table(runs).rows]
        self.assertEqual(rows, [("random start", "12.0%"), ("random start, FedDF", "12.0%"),
                                ("best local model", "62.0%"), ("KD, public data", "71.0%")])
        self.assertEqual(seed_accuracies(runs, "average", ["uniform"]), {})
        figure = seed_figure(runs, ["random", "best", "kd-public"], ["uniform"])
        drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        self.assertEqual(drawn, ["KD, public data", "best local model", "random start"])


class RunFolders(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.run_of = Run("uniform", 1, StartPlan("best", 2))

    def write(self, before: dict[str, Any], lines: list[dict[str, Any]], tail: str = "") -> None:
        (self.folder / "summary.json").write_text(json.dumps({"before_rounds": before}))
        (self.folder / "run.json").write_text("{}")
        (self.folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)

    @staticmethod
    def line(number: int) -> dict[str, Any]:
        return {"round": number, "accuracy": 0.5, "loss": 1.0, "seconds": 3.0, "bytes_up": 4, "bytes_down": 5}

    def test_pre_training_done_by_another_run_is_part_of_the_seconds_and_told_apart(self) -> None:
        before = {"seconds": 60, "pretrain_seconds": 50, "pretrain_reused_seconds": 20, "bytes_up": 7, "bytes_down": 8}
        self.write(before, [self.line(0)])
        read = read_result(self.run_of, self.folder)
        self.assertEqual((read.before_seconds, read.reused_seconds, read.before_bytes), (60, 20, 15))

    def test_the_start_model_is_rated_by_round_0_or_by_the_gate(self) -> None:
        rated = self.line(0) | {"validation_accuracy": 0.4}
        for line, gate, expected in ((rated, {}, 0.4), (rated, {"seed_accuracy": 0.3}, 0.4),
                                     (self.line(0), {"seed_accuracy": 0.3}, 0.3), (self.line(0), {}, None)):
            self.write({}, [line, self.line(1) | {"validation_accuracy": 0.9}])
            (self.folder / "summary.json").write_text(json.dumps({"start_report": {"gate": gate}}))
            self.assertEqual(read_result(self.run_of, self.folder).validation_accuracy, expected)

    def test_a_line_still_being_written_is_not_read(self) -> None:
        self.write({}, [self.line(0), self.line(1)], '{"round": 2, "acc')
        self.assertEqual(len(read_result(self.run_of, self.folder).rounds), 2)

    def test_damaged_rounds_are_named(self) -> None:
        for lines, said in (([self.line(0), self.line(2)], r"rounds \[0, 2\]"), ([], r"rounds \[\]"),
                            ([{"round": 0}], "a line without 'accuracy'")):
            self.write({}, lines)
            with self.assertRaisesRegex(CompareError, "rounds.jsonl.*" + said):
                read_result(self.run_of, self.folder)


class Plans(unittest.TestCase):
    def check_message(self, document: dict[str, Any], said: str) -> None:
        with self.assertRaisesRegex(CompareError, said) as caught:
            Plan.from_json(document, "p.json").check()
        self.assertEqual(caught.exception.code, 2)

    def test_the_plans_of_the_repository_are_valid(self) -> None:
        counts = {}
        for file in (ROOT / "experiments" / "plans").glob("*.json"):
            plan = load_plan(file)
            plan.check()
            counts[file.stem] = len(plan.runs())
        self.assertEqual(counts, {"beyond": 165, "claims": 18, "demo": 3, "feddf": 20, "main-table": 60, "quick": 3,
                                  "table-two": 50})

    def test_mistakes_are_named_with_what_is_near(self) -> None:
        self.check_message({"sedes": [1]}, "p.json: unknown key 'sedes': did you mean 'seeds'")
        self.check_message({"starts": ["kd-pubilc"]}, "unknown start 'kd-pubilc': did you mean 'kd-public'")
        self.check_message({"partitions": ["unifrom"]}, "did you mean 'uniform'")
        self.check_message({"seeds": [1, 1]}, "seeds: .* none twice")
        self.check_message({"seeds": ["1"]}, "seeds: '1' is not int")
        self.check_message({"rounds": "20"}, "rounds: expected int")
        self.check_message({"fractions": [1.5]}, "at most 1, got 1.5")
        self.check_message({"settings": {"run": {"seed": 3}}}, "run.seed: .*--seeds")
        self.check_message({"settings": {"client.threads": 2}}, "client.threads: .*mode processes")
        self.check_message({"settings": {"train": 1, "train.lr": 1}}, "'train' is a value")
        self.check_message({"starts": ["best", {"start": "kd-public", "stop_at": 1.0}]}, "add the start 'random'")
        self.check_message({"rounds": 4, "starts": [{"start": "best", "rounds": 5}]}, "expected 1 to 4 rounds, got 5")

    def test_each_program_gets_the_settings_it_knows(self) -> None:
        settings = flat({"data": {"set": "mnist", "held_out": 0.2}, "draw": {"test": 5},
                         "partition": {"min_samples": 3}, "train": {"lr": 0.1}, "client": {"threads": 2}})
        self.assertEqual(draw_settings(settings), {"data.set": "mnist", "draw.test": 5, "partition.min_samples": 3})
        self.assertEqual(federation_settings(settings), {"data.set": "mnist", "data.held_out": 0.2, "train.lr": 0.1})
        self.assertEqual(client_settings(settings), {"data.set": "mnist", "threads": 2})
        self.assertEqual(flat(nested(settings)), settings)

    def test_the_ten_cells_of_the_published_table_are_starts(self) -> None:
        published = {"start.model", "consolidation.student", "consolidation.transfer", "consolidation.weights"}
        cells = {tuple(value for key, value in sorted(settings.items()) if key.startswith("consolidation."))
                 for name, settings in STARTS.items() if settings["start.model"] == "kd" and set(settings) == published}
        self.assertEqual(len(cells), 3 * 2 * 3)  # students, transfer sets, weights; the published have no precision
        self.assertEqual(STARTS["kd-student-worst-equal"]["consolidation.weights"], "equal")
        self.assertEqual(STARTS["kd-student"]["consolidation.weights"], "adaptive")

    def test_what_must_be_there_first_runs_first(self) -> None:
        plan = Plan(starts=["random", "best", {"start": "kd-public", "stop_at": 1.0}, "kd-student"], seeds=[1, 2])
        runs = {run.name: run for run in plan.runs()}
        before = {name: [other.name for other in prerequisites(run, plan.runs())] for name, run in runs.items()}
        cell = "label-dirichlet-seed2-"
        self.assertEqual(before[cell + "random"], [])
        self.assertEqual(before[cell + "best"], [])
        self.assertEqual(before[cell + "kd-public"], [cell + "random", cell + "best"])
        self.assertEqual(before[cell + "kd-student"], [cell + "best"])


class ExternalReferences(html.parser.HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset"):
                self.images += (value or "").startswith("data:image/png;base64,")
                self.found += [] if (value or "").startswith("data:") else [value or ""]


class WholeCalls(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        fake = Path(__file__).with_name("fake_programs.py")
        for name in ("headstart-lab", "headstart-server", "headstart-client"):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {name} "$@"\n')
            script.chmod(0o755)
        self.out = self.folder / "out"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "experiments" / "compare.py"), "--bin", str(self.bin), *arguments]

    def compare(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False,
                              cwd=self.folder, env=os.environ | environment, timeout=120)

    def begin(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.compare("--out", str(self.out), "--rounds", "4", *arguments, **environment)

    def rounds(self, name: str) -> list[dict[str, Any]]:
        text = (self.out / "runs" / name / "rounds.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def run_json(self, start: str) -> dict[str, Any]:
        table = json.loads((self.out / "table.json").read_text())
        return next(run for run in table["runs"] if run["start"] == start)

    def test_the_demo_with_processes(self) -> None:
        done = self.compare("--plan", str(ROOT / "experiments" / "plans" / "demo.json"), "--out", str(self.out))
        self.assertEqual(done.returncode, 0, done.stderr)
        best = max(line["accuracy"] for line in self.rounds("label-dirichlet-seed1-random"))
        for start in ("best", "kd-public-precision"):
            config = json.loads((self.out / "configs" / f"label-dirichlet-seed1-{start}.json").read_text())
            self.assertEqual(config["targets"], {"accuracies": [best], "stop": True})
            lines = self.rounds(f"label-dirichlet-seed1-{start}")
            self.assertTrue(all(line["accuracy"] < best for line in lines[:-1]))
            self.assertTrue(lines[-1]["accuracy"] >= best or lines[-1]["round"] == 5)
        names = (self.out / "runs" / "label-dirichlet-seed1-random" / "names").read_text().split()
        self.assertEqual(names, [f"silo-{i}:data.share={i}" for i in range(10)])
        # The best-local start pre-trained; the KD start found its models and is charged their time all the same.
        self.assertEqual(self.run_json("best")["pretrain_seconds_reused"], 0)
        self.assertEqual(self.run_json("kd-public-precision")["pretrain_seconds_reused"], 50)
        self.assertIn("KD, public data", done.stdout)
        self.assertIn(f"Report: {self.out / 'report.html'}", done.stdout)

    def test_the_report_is_self_contained_and_whole(self) -> None:
        done = self.begin("--partitions", "uniform,specialized", "--seeds", "1,2", "--jobs", "2", "--set",
                          "model.name=cnn")
        self.assertEqual(done.returncode, 0, done.stderr)
        page = (self.out / "report.html").read_text()
        references = ExternalReferences()
        references.feed(page)
        self.assertEqual(references.found, [])
        self.assertNotRegex(page, r"url\(|@import")
        figures = sorted(file.name for file in (self.out / "figures").iterdir())
        self.assertEqual(figures, ["accuracy-specialized.png", "accuracy-uniform.png", "accuracy.png",
                                   "partition-specialized.png", "partition-uniform.png",
                                   "rounds-to-target-best.png", "rounds-to-target-random.png"])
        self.assertEqual(references.images, len(figures))
        headline = json.loads((self.out / "table.json").read_text())["headline"]
        self.assertRegex(headline, r"saves .*\d+% of the communication rounds")
        self.assertIn(headline, (self.out / "table.md").read_text())
        self.assertIn("LibTorch 1.13.1", page)
        drawn = json.loads((self.out / "configs" / "draw-uniform-seed2.json").read_text())
        self.assertEqual(drawn, {"partition": {"kind": "uniform", "clients": 10}, "seed": 2})

    def test_starts_from_one_silos_weights_need_the_silos_consent(self) -> None:
        done = self.begin("--starts", "random,average,best,kd-public,kd-student", "--mode", "processes")
        self.assertEqual(done.returncode, 0, done.stderr)
        for start, consent in (("random", None), ("average", None), ("best", "peers"), ("kd-public", "peers"),
                               ("kd-student", "peers")):
            config = json.loads((self.out / "configs" / f"label-dirichlet-seed1-{start}.client.json").read_text())
            self.assertEqual(config.get("share_model"), consent)

    def test_an_existing_folder_is_refused_and_left_alone(self) -> None:
        self.out.mkdir()
        (self.out / "precious").write_text("x")
        done = self.begin()
        self.assertEqual(done.returncode, 4)
        self.assertRegex(done.stderr, f"{self.out} exists already: .*--resume")
        self.assertEqual([file.name for file in self.out.iterdir()], ["precious"])

    def test_programs_that_are_not_built_are_named_before_a_folder_is_made(self) -> None:
        (self.bin / "headstart-client").unlink()
        done = self.begin("--mode", "processes")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "headstart-client not found in .*--bin")
        self.assertFalse(self.out.exists())

    def test_a_setting_that_a_program_refuses_is_passed_on_with_its_words(self) -> None:
        done = self.begin("--set", "modle.name=cnn")
        self.assertEqual(done.returncode, 8)
        self.assertIn("unknown key 'modle'", done.stderr)
        self.assertIn("exit code 2", done.stderr)

    def test_a_failed_run_is_shown_and_resume_repeats_it_alone(self) -> None:
        failed = "label-dirichlet-seed1-best"
        done = self.begin(FAKE_FAIL=failed)
        self.assertEqual(done.returncode, 8)
        self.assertIn("simulate ended with exit code 8", done.stderr)
        self.assertIn("| fake: the training diverged", done.stderr)
        self.assertIn(f"--resume {self.out}", done.stderr)
        self.assertFalse((self.out / "runs" / "label-dirichlet-seed1-kd-public").exists())
        self.assertIn(f"Missing: {failed}.", (self.out / "table.md").read_text())
        kept = self.out / "runs" / "label-dirichlet-seed1-random" / "rounds.jsonl"
        before = kept.stat()
        done = self.compare("--resume", str(self.out))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(kept.stat().st_mtime_ns, before.st_mtime_ns)
        self.assertEqual(kept.stat().st_ino, before.st_ino)
        self.assertTrue((self.out / "runs" / f"{failed}.interrupted-1" / "run.json").is_file())
        self.assertIn(f"{failed} was not finished: kept as", done.stderr)
        self.assertIn("diverged", (self.out / "logs" / f"{failed}.interrupted-1" / "simulate.log").read_text())
        self.assertEqual(json.loads((self.out / "table.json").read_text())["missing"], [])

    def test_keep_going_runs_the_rest(self) -> None:
        done = self.begin("--keep-going", FAKE_FAIL="label-dirichlet-seed1-best")
        self.assertEqual(done.returncode, 8)
        self.assertTrue((self.out / "runs" / "label-dirichlet-seed1-kd-public" / "summary.json").is_file())

    def test_a_run_whose_target_is_missing_does_not_run(self) -> None:
        plan = {"rounds": 4, "starts": ["random", {"start": "best", "stop_at": 1.0}, "kd-public"]}
        (self.folder / "plan.json").write_text(json.dumps(plan))
        done = self.compare("--plan", "plan.json", "--out", str(self.out), "--keep-going",
                            FAKE_FAIL="label-dirichlet-seed1-random")
        self.assertEqual(done.returncode, 8)
        self.assertIn("best not run: its target needs label-dirichlet-seed1-random, which failed", done.stderr)
        self.assertTrue((self.out / "runs" / "label-dirichlet-seed1-kd-public" / "summary.json").is_file())

    def test_a_client_that_fails_ends_its_run_with_its_own_words(self) -> None:
        done = self.begin("--starts", "random", "--mode", "processes", FAKE_CLIENT_FAIL="silo-3")
        self.assertEqual(done.returncode, 8)
        self.assertIn("silo-3 ended with exit code 3", done.stderr)
        self.assertRegex(done.stderr, r"\| fake: .*manifests/label-dirichlet-seed1.json: no such share")

    def test_an_interrupted_call_leaves_no_child_and_is_resumed(self) -> None:
        hanging, pipe = "label-dirichlet-seed1-best", self.folder / "pipe"
        os.mkfifo(pipe)
        environment = os.environ | {"FAKE_HANG": hanging, "FAKE_PIPE": str(pipe)}
        call = subprocess.Popen(self.command("--out", str(self.out), "--rounds", "4"), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=self.folder, env=environment)
        child = int(pipe.read_text())
        busy = self.compare("--resume", str(self.out))
        self.assertEqual(busy.returncode, 4)
        self.assertIn("another compare.py works in it", busy.stderr)
        call.send_signal(signal.SIGINT)
        _, said = call.communicate(timeout=60)
        self.assertEqual(call.returncode, 130)
        self.assertIn("1 of 3 runs are finished and kept", said)
        self.assertIn(f"--resume {self.out}", said)
        with self.assertRaises(ProcessLookupError):
            os.kill(child, 0)
        done = self.compare("--resume", str(self.out))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.out / "runs" / f"{hanging}.interrupted-1").is_dir())

    def test_resume_takes_the_plan_from_the_folder(self) -> None:
        self.assertEqual(self.begin("--starts", "random").returncode, 0)
        done = self.compare("--resume", str(self.out), "--seeds", "2")
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"--seeds: .*plan.json says what to run")
        again = self.compare("--resume", str(self.out))
        self.assertEqual(again.returncode, 0)
        self.assertTrue(re.search("1 runs, 0 to do", again.stderr))


if __name__ == "__main__":
    unittest.main()
