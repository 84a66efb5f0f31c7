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

from common.errors import CompareError  # noqa: E402
from common.vocabulary import Vocabulary  # noqa: E402
from comparison.accounting import (CentralResult, Comparison, Result, RoundLine, Saving, Spread, Target,  # noqa: E402
                                   read_central, read_result)
from comparison.figures import FIXED_STYLE, seed_accuracies, seed_figure  # noqa: E402
from comparison.headline import hardest_target, headline  # noqa: E402
from comparison.jobs import Study  # noqa: E402
from comparison.plan import Plan, Run, StartPlan, load_plan, prerequisites  # noqa: E402
from comparison.programs import (CENTRAL, START_TITLES, STARTS, STUDENTS, WEIGHTS, Programs,  # noqa: E402
                                 central_settings, client_settings, draw_settings, federation_settings, flat, nested,
                                 title_of_start)
from comparison.savings import partition_saving_tables, saving_table  # noqa: E402
from comparison.tables import ENSEMBLES, summary_table, target_table, validation_table  # noqa: E402

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


def replace_targets(runs: Comparison, *targets: Target) -> Comparison:
    runs.targets = list(targets)
    return runs


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
        plain = runs.saving(RANDOM_BEST, "kd-public", "rounds", False, ["uniform", "specialized"])
        self.assertAlmostEqual(plain.spread.mean, (0.9 + 0.7 + 0.6 + 0.2) / 4)
        self.assertAlmostEqual(plain.spread.low, 0.2)
        self.assertEqual((plain.count, plain.at_budget, plain.undefined), (4, 0, 0))
        charged = runs.saving(RANDOM_BEST, "kd-public", "rounds", True, ["uniform"])
        self.assertAlmostEqual(charged.spread.mean, (0.8 + 0.6) / 2)

    def test_saving_marks_bounds_and_counts_what_neither_run_reached_at_the_budget(self) -> None:
        never, at_2, at_0 = [0.0] * 5, [0.0, 0.0, 0.9, 0.9, 0.9], [0.9] * 5
        for random, kd, bound in ((at_2, never, "<="), (never, at_2, ">="), (at_2, at_0, "")):
            runs = comparison(result("random", random), result("kd-public", kd))
            self.assertEqual(runs.saving(Target(0.9), "kd-public", "rounds", False, ["uniform"]).spread.bound, bound)
        neither = comparison(result("random", never), result("kd-public", never, before_bytes=1))
        saving = neither.saving(Target(0.9), "kd-public", "rounds", True, ["uniform"])
        self.assertEqual(saving, Saving(Spread(-0.25, -0.25, -0.25, 1, "~"), 1, 0))  # 4 rounds and the charge, of 4
        begins_there = comparison(result("random", at_0), result("kd-public", at_2))
        saving = begins_there.saving(Target(0.9), "kd-public", "rounds", False, ["uniform"])
        self.assertEqual(saving, Saving(None, 0, 1))
        mixed = comparison(result("random", at_2), result("kd-public", never), result("random", never, seed=2),
                           result("kd-public", at_2, seed=2))
        self.assertEqual(mixed.saving(Target(0.9), "kd-public", "rounds", False, ["uniform"]).spread.bound, "~")

    def test_a_cell_that_neither_run_reaches_does_not_flatter_the_mean(self) -> None:
        """Two cells: a saving of 60%, and one in which both fail, where the charge makes the distilled start longer."""
        reach, fail = [0.0] * 5 + [0.9], [0.0] * 6
        runs = comparison(result("random", reach), result("kd-public", [0.0, 0.9], rounds=5, before_bytes=1),
                          result("random", fail, seed=2), result("kd-public", fail, seed=2, before_bytes=1))
        saving = runs.saving(Target(0.9), "kd-public", "rounds", True, ["uniform"])
        self.assertAlmostEqual(saving.spread.mean, ((1 - 2 / 5) + (1 - 6 / 5)) / 2)
        self.assertEqual((saving.count, saving.at_budget, saving.spread.bound), (2, 1, "~"))
        self.assertEqual(saving_table(replace_targets(runs, Target(0.9)), "random").rows[0][-1], "2, 1 at the budget")

    def test_a_run_that_was_too_short_to_reach_the_target_saves_nothing(self) -> None:
        """A start that gives up after two of five rounds has not saved three."""
        runs = comparison(result("random", [0.0] * 5 + [0.9]), result("kd-public", [0.5, 0.6, 0.7], before_bytes=1))
        saving = runs.saving(Target(0.9), "kd-public", "rounds", True, ["uniform"])
        self.assertEqual((saving.spread, saving.count, saving.undefined), (None, 0, 1))

    def test_savings_against_the_best_local_model_in_rounds_bytes_and_seconds(self) -> None:
        """KD needs one round less, and twice the bytes and seconds before round 1: it says in what it is slower."""
        best = result("best", [0.5, 0.6, 0.7, 0.8], before_bytes=ROUND_BYTES, before_seconds=10.0)
        kd = result("kd-public", [0.6, 0.7, 0.8, 0.8], before_bytes=3 * ROUND_BYTES, before_seconds=30.0)
        runs = comparison(best, kd, fractions=[1.0])
        target = Target(1.0, "best")
        savings = {what: runs.saving(target, "kd-public", what, True, ["uniform"], "best").spread.mean
                   for what in ("rounds", "bytes", "seconds")}
        self.assertEqual(savings, {"rounds": 1 - 5 / 4, "bytes": 1 - 5 / 4, "seconds": 1 - 34 / 16})
        plain = runs.saving(target, "kd-public", "rounds", False, ["uniform"], "best")
        self.assertAlmostEqual(plain.spread.mean, 1 - 2 / 3)
        table = saving_table(runs, "best")
        self.assertEqual(table.rows, [["the best-local start's best", "KD, public data", "-25.0%", "-25.0%", "-112.5%",
                                       "33.3%", "1", "1 / 1 / 1 of 1"]])
        [by_partition] = partition_saving_tables(runs, "best")
        self.assertEqual(by_partition.rows[0][-1], "slower in rounds, MB and seconds")
        [_, row] = summary_table(runs).rows
        self.assertEqual(row[-1], "-25% slower")

    def test_targets_below_centralised_training_are_taken_per_seed(self) -> None:
        runs = Comparison(Plan(starts=["best"], references=[], central_points=[5, 2], seeds=[1, 2], rounds=2),
                          [result("best", [0.7, 0.81, 0.9], partition="label-dirichlet")],
                          [CentralResult(1, 0.86, {"num_examples": 600}, {})])
        five, two = runs.targets
        self.assertEqual([five.label, two.label], ["centralised training less 5 points",
                                                   "centralised training less 2 points"])
        self.assertAlmostEqual(runs.threshold(two, "label-dirichlet", 1), 0.84)
        self.assertIsNone(runs.threshold(two, "label-dirichlet", 2))
        one = runs.result("label-dirichlet", 1, "best")
        self.assertEqual([runs.cost(target, one, False).rounds for target in (five, two)], [1, 2])
        self.assertEqual([run.name for run in runs.missing()], ["central-seed2", "label-dirichlet-seed2-best"])
        self.assertEqual(hardest_target(runs, "central"), two)

    def test_the_headline_names_the_best_local_model_and_rounds_that_undo_the_start(self) -> None:
        runs = comparison(result("random", [0.1, 0.2, 0.3, 0.4, 0.5]),
                          result("best", [0.5, 0.6, 0.55, 0.7, 0.7], before_bytes=1),
                          result("kd-public", [0.72, 0.7, 0.6, 0.6, 0.68], before_bytes=1), fractions=[1.0])
        said = headline(runs)
        self.assertTrue(said.startswith("Against the best local model, a distilled start (KD, public data) saves 75% of "
                                        "its rounds"), said)
        self.assertIn("(1 cells;", said)
        self.assertIn("Against a random start it saves 75% of the communication rounds to the best accuracy of 4 rounds "
                      "from a random start", said)
        self.assertIn("the best local model alone saves 75%", said)
        self.assertIn("The last round is below round 0 in 1 of 1 runs of KD, public data, by up to 4.0 points.", said)
        self.assertNotIn("runs of best local model", said)

    def test_targets_that_starts_have_before_round_1_are_told(self) -> None:
        runs = comparison(result("random", [0.1, 0.2, 0.5]), result("kd-public", [0.6, 0.7, 0.7], before_bytes=1),
                          fractions=[1.0])
        rows = target_table(runs, RANDOM_BEST).rows
        self.assertEqual([(row[1], row[3], row[4]) for row in rows],
                         [("random start", "1 of 1", "0"), ("KD, public data", "1 of 1", "1")])

    def test_feddf_is_said_to_be_untuned(self) -> None:
        one = result("random-feddf", [0.1, 0.2])
        tuned = replace(one, info={"config": {"feddf": {"epochs": 2, "lr": 0.001, "batch_size": 128}}})
        self.assertIn("FedDF is not tuned (feddf: epochs 2, lr 0.001, batch_size 128)", summary_table(comparison(tuned)).note)
        self.assertNotIn("FedDF", summary_table(comparison(result("random", [0.1, 0.2]))).note)

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

    def test_centralised_training_is_read_from_its_summary(self) -> None:
        (self.folder / "run.json").write_text("{}")
        (self.folder / "summary.json").write_text('{"central": true, "accuracy": 0.875}')
        run = Run("uniform", 3, StartPlan("central", 0))
        self.assertEqual((run.name, read_central(run, self.folder).accuracy), ("central-seed3", 0.875))
        (self.folder / "summary.json").write_text('{"rounds": 3}')
        with self.assertRaisesRegex(CompareError, "summary.json: expected the accuracy of centralised training, got None"):
            read_central(run, self.folder)

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
        self.assertEqual(counts, {"beyond": 165, "cifar10-starts": 50, "claims": 18, "demo": 3, "feddf": 20, "heads": 120,
                                  "main-table": 60, "quick": 3, "starts": 240, "starts-bytes": 13, "table-two": 50})

    def test_mistakes_are_named_with_what_is_near(self) -> None:
        self.check_message({"sedes": [1]}, "p.json: unknown key 'sedes': did you mean 'seeds'")
        self.check_message({"starts": ["kd-pubilc"]}, "unknown start 'kd-pubilc': did you mean 'kd-public'")
        self.check_message({"seeds": [1, 1]}, "seeds: .* none twice")
        self.check_message({"seeds": ["1"]}, "seeds: '1' is not int")
        self.check_message({"rounds": "20"}, "rounds: expected int")
        self.check_message({"fractions": [1.5]}, "at most 1, got 1.5")
        self.check_message({"settings": {"run": {"seed": 3}}}, "run.seed: .*--seeds")
        self.check_message({"settings": {"client.threads": 2}}, "client.threads: .*mode processes")
        self.check_message({"settings": {"train": 1, "train.lr": 1}}, "'train' is a value")
        self.check_message({"starts": ["best", {"start": "kd-public", "stop_at": 1.0}]}, "add the start 'random'")
        self.check_message({"rounds": 4, "starts": [{"start": "best", "rounds": 5}]}, "expected 1 to 4 rounds, got 5")

    def test_words_are_checked_by_what_the_program_lists(self) -> None:
        vocabulary = Vocabulary({
            "partitions": {"settings": ["partition.kind"], "words": [{"name": "uniform"}]},
            "sharing": {"settings": ["share_model"], "words": [{"name": "server"}, {"name": "peers"}]},
            "norms": {"settings": ["model.norm"], "words": [{"name": "batch"}, {"name": "group"}]}})

        def check(**plan: Any) -> None:
            one = Plan(**{"partitions": ["uniform"]} | plan)
            one.check()
            one.check_words(vocabulary)

        check(settings={"model.norm": "group", "model.name": "mlp", "federation.strategy": "of another vocabulary"})
        check(mode="processes", settings={"client.share_model": "peers"})
        for said, plan in (
                ("unknown partition.kind 'unifrom': did you mean 'uniform'", {"partitions": ["unifrom"]}),
                ("unknown model.norm 'groop': did you mean 'group'", {"settings": {"model": {"norm": "groop"}}}),
                ("unknown model.norm '3': known: batch, group", {"settings": {"model.norm": 3}}),
                ("unknown share_model 'pears'", {"mode": "processes", "settings": {"client.share_model": "pears"}})):
            with self.assertRaisesRegex(CompareError, said) as caught:
                check(**plan)
            self.assertEqual(caught.exception.code, 2)
        starts = Vocabulary({"starts": {"settings": ["start.model"], "words": [{"name": "random"}]}})
        with self.assertRaisesRegex(CompareError, "unknown start.model 'best_local': known: random"):
            Plan(starts=["best"]).check_words(starts)

    def test_each_program_gets_the_settings_it_knows(self) -> None:
        settings = flat({"data": {"set": "mnist", "held_out": 0.2}, "draw": {"test": 5},
                         "partition": {"min_samples": 3}, "train": {"lr": 0.1}, "pretrain": {"lr": 0.2},
                         "client": {"threads": 2}, "simulate": {"threads": 1}})
        self.assertEqual(draw_settings(settings), {"data.set": "mnist", "draw.test": 5, "partition.min_samples": 3})
        served = {"data.set": "mnist", "data.held_out": 0.2, "train.lr": 0.1, "pretrain.lr": 0.2}
        self.assertEqual(federation_settings(settings, "simulation"), served | {"simulate.threads": 1})
        self.assertEqual(federation_settings(settings, "processes"), served)
        self.assertEqual(central_settings(settings), {"data.set": "mnist", "data.held_out": 0.2, "pretrain.lr": 0.2})
        self.assertEqual(client_settings(settings), {"data.set": "mnist", "threads": 2})
        self.assertEqual(flat(nested(settings)), settings)

    def test_the_ten_cells_of_the_published_table_are_starts(self) -> None:
        published = {"start.model", "consolidation.student", "consolidation.transfer", "consolidation.weights"}
        cells = {tuple(value for key, value in sorted(settings.items()) if key.startswith("consolidation."))
                 for name, settings in STARTS.items() if settings["start.model"] == "kd" and set(settings) == published}
        # Students, transfer sets and weights, and experts on public data; the published have neither these nor precision.
        self.assertEqual(len(cells), 3 * 2 * 3 + 3)
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


@unittest.skipUnless("HEADSTART_BIN" in os.environ, "HEADSTART_BIN does not name the folder of the programs")
class Words(unittest.TestCase):
    """What the scripts say of the programs' words, against the program."""

    def setUp(self) -> None:
        self.vocabulary = Programs(Path(os.environ["HEADSTART_BIN"])).vocabulary()

    def test_starts_are_made_of_the_words_of_the_program_and_leave_none_out(self) -> None:
        for name, settings in STARTS.items():
            for key, value in settings.items():
                with self.subTest(start=name, key=key):
                    if isinstance(value, str):
                        self.assertIn(value, self.vocabulary.words_of(key))
        self.assertEqual({settings["start.model"] for settings in STARTS.values()}, set(self.vocabulary.words("starts")))
        self.assertEqual(set(STUDENTS), set(self.vocabulary.words("students")))
        self.assertEqual(set(WEIGHTS), set(self.vocabulary.words("teacher_weights")))
        # The server has no ensemble weighted by sample: densities are asked for where they teach.
        self.assertEqual({*ENSEMBLES, "experts"}, set(self.vocabulary.words("teacher_weights")))

    def test_every_start_has_a_title_and_every_title_a_start(self) -> None:
        for start in (*STARTS, CENTRAL):
            self.assertNotEqual(title_of_start(start), start)
        self.assertLessEqual(set(START_TITLES), {*STARTS, CENTRAL})
        self.assertLessEqual(set(FIXED_STYLE), set(STARTS))

    def test_the_words_of_every_plan_are_known(self) -> None:
        for file in sorted((ROOT / "experiments" / "plans").glob("*.json")):
            with self.subTest(plan=file.stem):
                plan = load_plan(file)
                plan.check()
                plan.check_words(self.vocabulary)

    def test_people_get_a_list(self) -> None:
        lab = Programs(Path(os.environ["HEADSTART_BIN"])).path("headstart-lab")
        done = subprocess.run([lab, "words"], capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("partition.kind, study.partitions\n  uniform\n", done.stdout)
        self.assertRegex(done.stdout, r"federation\.strategy\n  fedavg +\w+")


@unittest.skipUnless("HEADSTART_BIN" in os.environ, "HEADSTART_BIN does not name the folder of the programs")
class ShippedPlans(unittest.TestCase):
    """The programs accept the settings of every plan of the repository, in both modes. Nothing runs: after the settings'
    file each program is given a value that it must refuse, and its words tell that the file was no obstacle."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.programs = Programs(Path(os.environ["HEADSTART_BIN"]))

    def check(self, command: list[str], key: str) -> None:
        done = subprocess.run([*command, "--set", f"{key}=no number"], capture_output=True, text=True, check=False,
                              cwd=self.folder, timeout=120)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, f"setting '{key}': expected .*, got \"no number\"")

    def test_plans_of_comparisons(self) -> None:
        for file in sorted((ROOT / "experiments" / "plans").glob("*.json")):
            for mode in ("simulation", "processes"):
                with self.subTest(plan=file.stem, mode=mode):
                    plan = load_plan(file)
                    plan.mode = mode
                    plan.check()
                    study = Study(self.folder / file.stem / mode, plan, self.programs)
                    run = plan.runs()[-1]
                    if mode == "processes":
                        self.check(self.programs.serve(study.federation_config(run, None)), "run.seed")
                        self.check(self.programs.client_of_share(1, 0, study.client_config(run)), "data.share")
                        continue
                    self.check(self.programs.simulate(study.federation_config(run, None)), "run.seed")
                    for central in plan.central_runs()[:1]:
                        self.check(self.programs.central(study.central_config(central)), "run.seed")

    def test_plans_of_pair_studies(self) -> None:
        for file in sorted((ROOT / "experiments" / "plans" / "pairs").glob("*.json")):
            with self.subTest(plan=file.stem):
                self.check([self.programs.path("headstart-lab"), "pairs", "--config", str(file), "--study", "no.sqlite"],
                           "kd.epochs")


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
        said = json.loads((self.out / "table.json").read_text())["headline"]
        self.assertRegex(said, r"^Against the best local model, .* saves .*\d+% of its rounds")
        self.assertRegex(said, r"Against a random start it saves .*\d+% of the communication rounds")
        self.assertIn(said, (self.out / "table.md").read_text())
        commit = (self.out / "commit.txt").read_text().strip()
        self.assertIn(f"Made by headstart-fake 0.1.0, LibTorch 1.13.1, commit {commit}.",
                      (self.out / "table.md").read_text())
        self.assertIn("LibTorch 1.13.1", page)
        drawn = json.loads((self.out / "configs" / "draw-uniform-seed2.json").read_text())
        self.assertEqual(drawn, {"partition": {"kind": "uniform", "clients": 10}, "seed": 2})

    def test_centralised_training_runs_once_a_seed_and_sets_targets(self) -> None:
        (self.folder / "plan.json").write_text(json.dumps(
            {"rounds": 4, "seeds": [1, 2], "partitions": ["uniform", "specialized"], "central_points": [5, 2],
             "settings": {"pretrain": {"max_epochs": 3}, "train": {"epochs": 2}}}))
        done = self.compare("--plan", "plan.json", "--out", str(self.out))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("14 runs, 14 to do", done.stderr)
        config = json.loads((self.out / "configs" / "central-seed2.json").read_text())
        self.assertEqual(config, {"pretrain": {"max_epochs": 3}, "run": {"folder": f"{self.out}/runs/central-seed2",
                                                                         "seed": 2},
                                  "data": {"manifest": f"{self.out}/manifests/uniform-seed2.json"}})
        table = json.loads((self.out / "table.json").read_text())
        self.assertEqual([central["accuracy"] for central in table["central"]], [0.88, 0.87])
        overview = (self.out / "table.md").read_text().split("### Rounds to each target")[1].splitlines()
        self.assertRegex(overview[4], r"^\| uniform \| \d+\.\d%; .*, .*, .*, .* \|")
        self.assertIn("(3) centralised training less 5 points; (4) centralised training less 2 points", "".join(overview))
        targets = {(run["seed"], target["target"]): target["accuracy"] for run in table["runs"]
                   for target in run["targets"]}
        self.assertAlmostEqual(targets[2, "centralised training less 5 points"], 0.82)
        self.assertTrue((self.out / "figures" / "rounds-to-target-central.png").is_file())
        again = self.compare("--resume", str(self.out))
        self.assertIn("14 runs, 0 to do", again.stderr)

    def test_a_plan_of_a_simulation_runs_with_processes_too(self) -> None:
        done = self.begin("--starts", "random", "--mode", "processes", "--set", "simulate.threads=1")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_starts_from_one_silos_weights_need_the_silos_consent(self) -> None:
        done = self.begin("--starts", "random,average,best,kd-public,kd-student", "--mode", "processes")
        self.assertEqual(done.returncode, 0, done.stderr)
        for start, consent in (("random", None), ("average", "peers"), ("best", "peers"), ("kd-public", "peers"),
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

    def test_a_word_that_the_program_lacks_is_named_before_a_folder_is_made(self) -> None:
        done = self.begin("--partitions", "uniform,specialised")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr, "compare: unknown partition.kind 'specialised': did you mean 'specialized'?\n")
        self.assertFalse(self.out.exists())

    def test_a_program_that_lists_no_words_is_one_sentence(self) -> None:
        lab = self.bin / "headstart-lab"
        for script in ("exit 2", "echo '[1]'", "echo '{}'", "echo '{\"partitions\": 3}'", None):
            with self.subTest(script=script):
                lab.write_text("#!/no/such/shell\n" if script is None else f"#!/bin/sh\n{script}\n")
                done = self.begin()
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertRegex(done.stderr, r"^compare: .*headstart-lab words --json: .*build the project again.*\n$")
                self.assertEqual(len(done.stderr.splitlines()), 1)
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

    def test_a_reader_that_leaves_and_a_terminal_that_ends_stop_no_work(self) -> None:
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        call = subprocess.Popen(["nohup", *self.command("--out", str(self.out), "--rounds", "4")], text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder,
                                env=os.environ | {"FAKE_HANG": "label-dirichlet-seed1-best", "FAKE_UNTIL": str(pipe)})
        assert call.stdout is not None and call.stderr is not None
        with pipe.open("w") as until:  # a run is under way
            call.stdout.close()
            call.stderr.close()
            call.send_signal(signal.SIGHUP)
            until.write("go on")
        self.assertEqual(call.wait(timeout=60), 0)
        self.assertTrue((self.out / "report.html").is_file())

    def test_a_path_that_only_a_shell_knows_and_a_key_that_stands_twice_are_refused(self) -> None:
        for option in ("--out=~/first", "--plan=~/plan.json", "--resume=~", "--out="):
            done = self.compare(option)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("expected a path written in full", done.stderr)
        self.assertEqual([entry.name for entry in self.folder.iterdir() if "~" in entry.name], [])
        plan = self.folder / "plan.json"
        plan.write_text('{"rounds": 3,\n "settings": {"train.lr": 0.1, "train.lr": 0.2}}')
        done = self.compare("--plan", str(plan))
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn(f"{plan}: the key 'train.lr' stands twice", done.stderr)

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
