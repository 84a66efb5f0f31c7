"""What experiments/figures.py finds in databases of studies of pairs and of peers with known values, and whole calls of
it.

    python3 -m unittest tests/integration/figures_test.py
"""

from __future__ import annotations

import copy
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
sys.path.insert(0, str(Path(__file__).parent))

from compare_test import ExternalReferences  # noqa: E402
from common.errors import CompareError  # noqa: E402
from common.study_file import kind_of  # noqa: E402
from common.vocabulary import read_vocabulary  # noqa: E402
from peers import analysis as peer_analysis  # noqa: E402
from peers import directions as peer_directions  # noqa: E402
from peers import names as peer_names  # noqa: E402
from peers import rows as peer_rows  # noqa: E402
from study import analysis, directions, tuner  # noqa: E402
from study.directions import FAILS, HOLDS, OPEN  # noqa: E402
from study.drawing import METHOD_STYLES, method_title, transfer_title  # noqa: E402
from study.multi_teacher import MultiTeacher, published  # noqa: E402
from study.published import TABLE_TWO, TABLE_TWO_STARTS  # noqa: E402
from study.rows import (LABELED, METHOD_TITLES, METHODS, PARTITIONS, SEARCHED, TRANSFERS, Pair, Trial,  # noqa: E402
                        read_studies)

SETTINGS: dict[str, Any] = {
    "data": {"set": "fashion-mnist"}, "partition": {"clients": 4}, "kd": {"epochs": 10}, "model": {"name": "cnn"},
    "draw": {"clients": 6000, "public_large": 2000, "public_small": 500, "public_labeled": 500},
    "grid": {"temperatures": [0.5, 1.0, 4.0], "alphas": [0.1, 0.5, 0.9]}, "threads": 1}
ACCURACIES = (0.2, 0.4, 0.6, 0.8)  # of the participants at the start
Row = tuple[str, dict[str, Any], dict[str, Any] | None]


def row(method: str, teacher: int, student: int, gain: float, *, transfer: str = "student", seed: int = 1,
        partition: str = "label-dirichlet", forgetting: float = 0.01, **metrics: Any) -> Row:
    """A finished cell as headstart-lab writes it."""
    settings = copy.deepcopy(SETTINGS)
    settings["partition"]["kind"] = partition
    settings["pair"] = {"seed": seed, "student": student, "teacher": teacher, "transfer": transfer, "method": method}
    start, above = ACCURACIES[student], ACCURACIES[teacher]
    values = {"accuracy": start + gain, "start": start, "teacher": above, "gain": gain,
              "learning": gain + forgetting, "forgetting": forgetting, "is_strong": above > start, "epochs": 10,
              "temperature": 1.0, "alpha": 0.5, "validation": {"start": start, "teacher": above}} | metrics
    return f"{partition}/seed-{seed}/{transfer}/{method}/{teacher}-to-{student}", settings, values


def participant_row(number: int, partition: str = "label-dirichlet") -> Row:
    settings = copy.deepcopy(SETTINGS)
    settings["partition"]["kind"] = partition
    settings["pair"] = {"seed": 1, "student": number}
    return (f"{partition}/seed-1/participant-{number}", settings,
            {"accuracy": ACCURACIES[number], "classes": [3, 0, 4], "num_samples": 7})


def all_pairs(method: str, gain: Any, **more: Any) -> list[Row]:
    """gain(teacher, student) for all twelve ordered pairs."""
    return [row(method, teacher, student, gain(teacher, student), **more)
            for teacher in range(4) for student in range(4) if teacher != student]


def trials_of(start: float, gains: dict[tuple[float, float | None], tuple[float, float]]) -> list[dict[str, Any]]:
    """(T, alpha) -> (validation gain, test gain), ten epochs each."""
    return [{"temperature": t, "alpha": a, "epochs": 10, "validation_accuracy": start + validation,
             "validation_loss": 1.0, "accuracy": start + test} for (t, a), (validation, test) in gains.items()]


def write_study(file: Path, rows: list[Row], *, settings: dict[str, Any] | None = None, version: int = 1,
                application: int = 0x48535444) -> Path:
    connection = sqlite3.connect(file)
    connection.executescript(f"""
      CREATE TABLE study (settings TEXT NOT NULL) STRICT;
      CREATE TABLE cells (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, worker INTEGER,
                          metrics TEXT, seconds REAL, version TEXT) STRICT;
      PRAGMA application_id = {application}; PRAGMA user_version = {version};""")
    connection.execute("INSERT INTO study VALUES (?)", [json.dumps(settings or SETTINGS)])
    connection.executemany(
        "INSERT INTO cells (key, settings, metrics, seconds, version) VALUES (?, ?, ?, ?, ?)",
        [(key, json.dumps(which), None if metrics is None else json.dumps(metrics), 2.0 if metrics else None,
          "headstart 0.1.0, libtorch 1.13.0" if metrics else None) for key, which, metrics in rows])
    connection.commit()
    connection.close()
    return file


PEER_SETTINGS: dict[str, Any] = {
    "data": {"set": "fashion-mnist"}, "partition": {"clients": 3}, "model": {"name": "cnn"}, "draw": {"clients": 6000},
    "graph": {"degree": 4}, "peers": {"rounds": 1}, "kd": {"epochs": 10}, "threads": 1}
STARTS = {"uniform": (0.80, 0.80), "primary": (0.40, 0.90), "label-dirichlet": (0.60, 0.85)}  # global, own
ENSEMBLE = 0.10  # how far the ensemble is ahead of the start
EDGES = {"full": [[0, 1], [0, 2], [1, 2]], "star": [[0, 1], [0, 2]]}
Gains = tuple[float, float]


def peer_row(method: str, gains: Gains, *, partition: str = "primary", seed: int = 1, graph: str = "full",
             measure: str = "kl", average: str = "probabilities", strength: str = "plain", reduction: str = "mean",
             alpha: float = 0.5, rounds: int = 1, sent: int = 1000, validation: float | None = 0.5, shift: float = 0.0) \
        -> Row:
    """A finished cell of a study of peers as headstart-lab writes it. gains: of global and own accuracy, by the last
    round. shift: of all that the seed's models reach."""
    settings = copy.deepcopy(PEER_SETTINGS)
    settings["partition"]["kind"], settings["graph"]["kind"], settings["peers"]["method"] = partition, graph, method
    settings["kd"] |= {"measure": measure, "average": average, "strength": strength, "reduction": reduction,
                       "alpha": alpha, "temperature": 1.0}
    settings["peer"] = {"seed": seed}
    courses = [[start + shift + 0.01 * seed + gain * number / rounds for number in range(rounds + 1)]
               for start, gain in zip(STARTS[partition], gains)]
    bytes_sent = 0 if method == "alone" else sent

    def of_round(number: int) -> dict[str, Any]:
        values = {name: [course[number] + apart for apart in (-0.02, 0.0, 0.02)]
                  for name, course in zip(("global", "own"), courses)}
        chosen = {} if validation is None else {"validation": [validation] * 3}
        # What diverged is null.
        return values | chosen | {"loss": [None, 1.0, 1.0], "bytes": [bytes_sent * (number > 0)] * 3}

    def level(number: int) -> dict[str, float]:
        return {"global": courses[0][number], "own": courses[1][number], "spread": 0.04}

    key = f"{partition}/seed-{seed}/{graph}/{method}"
    if method == "kd":
        key += f"/{measure}/{average}/alpha-{alpha:g}/T-1" + "/matched" * (strength == "matched")
        key += "/published" * (reduction == "published")
    return key, settings, {
        "edges": EDGES[graph], "before": level(0), "after": level(rounds), "gain": gains[0], "bytes": bytes_sent * rounds,
        "peers": [{"name": f"silo-{i}", "num_samples": 7, "classes": [3, i, 4 - i]} for i in range(3)],
        "rounds": [of_round(number) for number in range(rounds + 1)], "ensemble": courses[0][0] + ENSEMBLE}


def every_peer_row(gains: Any, *, seeds: tuple[int, ...] = (1, 2, 3), partitions: tuple[str, ...] = ("uniform", "primary"),
                   measures: tuple[str, ...] = ("kl", "js", "sed"), averages: tuple[str, ...] = ("probabilities", "none"),
                   alphas: tuple[float, ...] = (0.2, 0.8), **more: Any) -> list[Row]:
    """gains(partition, measure, average, alpha, seed) for each kd cell."""
    return [peer_row("kd", gains(partition, measure, average, alpha, seed), partition=partition, seed=seed,
                     measure=measure, average=average, alpha=alpha, **more)
            for partition in partitions for seed in seeds for measure in measures for average in averages
            for alpha in alphas]


def controls(method: str, gains: Gains, *, seeds: tuple[int, ...] = (1, 2, 3),
             partitions: tuple[str, ...] = ("uniform", "primary"), **more: Any) -> list[Row]:
    return [peer_row(method, gains, partition=partition, seed=seed, **more) for partition in partitions for seed in seeds]


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def pairs(self, rows: list[Row]) -> list[Pair]:
        file = self.folder / "study.sqlite"
        file.unlink(missing_ok=True)
        return read_studies([write_study(file, rows)]).pairs

    def peers(self, rows: list[Row]) -> peer_rows.Study:
        file = self.folder / "peers.sqlite"
        file.unlink(missing_ok=True)
        return peer_rows.read_studies([write_study(file, rows, settings=PEER_SETTINGS)])


class Analysis(Folder):
    def test_gain_learning_forgetting_and_positive_transfer(self) -> None:
        pairs = self.pairs(all_pairs("vanilla", lambda t, s: 0.1 if t > s else -0.05))
        for pair in pairs:
            self.assertAlmostEqual(pair.gain, pair.learning - pair.forgetting)
            self.assertEqual(pair.is_strong, pair.teacher > pair.student)
        line = analysis.line_of(pairs)
        self.assertAlmostEqual(line.gain.value, 0.025)
        self.assertAlmostEqual(line.learning - line.forgetting, line.gain.value)
        self.assertEqual((line.positive, line.positive_strong, line.positive_weak), (0.5, 1.0, 0.0))

    def test_cumulative_gain_goes_from_the_weakest_teacher_to_the_mean(self) -> None:
        pairs = self.pairs(all_pairs("vanilla", lambda t, s: 0.01 * (t - s) + 0.02))
        differences, sums = analysis.cumulative(pairs)
        self.assertTrue(np.all(np.diff(differences) >= 0))
        self.assertAlmostEqual(sums[0], -0.01 / 12)
        self.assertAlmostEqual(sums[-1], 0.02)

    def test_best_teachers_and_their_frequencies(self) -> None:
        # 3 teaches best, but for student 3 itself, whom 0 and 1 teach equally well.
        rows = all_pairs("vanilla", lambda t, s: 0.1 if t == 3 or (s == 3 and t < 2) else 0.02)
        rows += [row("tuned", 3, 0, 0.2)]  # one teacher alone is no choice
        best = analysis.best_teachers(self.pairs(rows), 4)
        self.assertEqual([(b.student.student, [p.teacher for p in b.teachers], b.is_strongest) for b in best],
                         [(1, [3], True), (2, [3], True), (3, [0, 1], False), (0, [3], True)])
        found = {number: value for (_, _, number), value in analysis.best_frequencies(best).items()}
        self.assertEqual(found, {0: (0.2, 0.5), 1: (0.4, 0.5), 2: (0.6, 0.0), 3: (0.8, 3.0)})
        ranks, shares, accuracies = analysis.frequencies_by_rank(best)
        self.assertEqual((list(ranks), list(shares), list(accuracies)),
                         ([0, 1, 2, 3], [0.125, 0.125, 0, 0.75], [0.2, 0.4, 0.6, 0.8]))

    def test_positions_and_their_identity(self) -> None:
        pairs = self.pairs(all_pairs("tuned", lambda t, s: 0.03 * t - 0.01 * s * t))
        everything = {(p.participant, p.partner): p for p in analysis.positions(pairs)}
        self.assertEqual(len(everything), 12)
        for (me, partner), position in everything.items():
            other = everything[partner, me]
            self.assertAlmostEqual(position.as_teacher - other.as_student, other.start - position.start)
        self.assertAlmostEqual(everything[0, 3].as_student, 0.09)
        self.assertAlmostEqual(everything[0, 3].as_teacher, 0.8 - 0.2)

    def test_positions_take_student_data_and_the_fullest_method(self) -> None:
        rows = [row("tuned", 3, 0, 0.1), *all_pairs("dml", lambda t, s: 0.0), *all_pairs("vanilla", lambda t, s: 0.0),
                *all_pairs("tuned", lambda t, s: 0.0, transfer="public-large")]
        cell = analysis.position_cell(self.pairs(rows))
        self.assertEqual({(pair.method, pair.transfer) for pair in cell}, {("vanilla", "student")})

    def test_an_interval_is_students_t_where_every_pair_has_its_own_participants(self) -> None:
        pairs = [Pair("uniform", seed, "student", "vanilla", 0, 1, 0.4, 0.6, 0.4 + gain, gain, 0.0)
                 for seed, gain in enumerate((0.01, 0.02, 0.03, 0.06))]
        found = analysis.mean_gain(pairs)
        error = np.std([0.01, 0.02, 0.03, 0.06], ddof=1) / 2
        self.assertAlmostEqual(found.value, 0.03)
        self.assertAlmostEqual(found.high - found.value, 3.182 * error)
        self.assertIsNone(analysis.mean_gain(pairs[:3]).low)
        self.assertEqual(analysis.mean_gain(pairs[:3]).sign, 0)
        # The same four results twice say no more than once.
        twice = analysis.mean_gain([*pairs, *pairs])
        self.assertAlmostEqual(twice.high, found.high)

    def test_a_slope_and_a_difference_of_means(self) -> None:
        pairs = self.pairs(all_pairs("vanilla", lambda t, s: 0.0))
        x = [pair.difference for pair in pairs]
        found = analysis.slope(pairs, x, [2 * value + 1 for value in x])
        self.assertAlmostEqual(found.value, 2)
        self.assertAlmostEqual(found.high - found.low, 0)
        strong, weak = analysis.strong(pairs), analysis.weak(pairs)
        apart = analysis.difference(strong, [3.0] * len(strong), weak, [1.0] * len(weak))
        self.assertAlmostEqual(apart.value, 2)
        self.assertEqual(apart.sign, 1)

    def test_chosen_settings_stand_by_rank_and_have_a_surface(self) -> None:
        trials = trials_of(0.4, {(1.0, 0.5): (0.02, 0.0), (4.0, 0.5): (0.04, 0.0)})
        rows = [row("grid", 3, 1, 0.1, temperature=4.0, alpha=0.9, trials=trials),
                row("grid", 2, 1, 0.1, temperature=1.0, alpha=0.1, trials=trials_of(0.4, {
                    (1.0, 0.5): (0.04, 0.0), (4.0, 0.5): (0.0, 0.0)}))]
        file = write_study(self.folder / "s", [participant_row(number) for number in range(4)] + rows)
        study = read_studies([file])
        pairs = study.pairs
        heat = analysis.heat_of(pairs, study.accuracies("label-dirichlet"))
        self.assertEqual(heat.names, ["0", "1", "2", "3"])
        self.assertEqual((heat.temperature[3, 1], heat.alpha[2, 1]), (4.0, 0.1))
        self.assertEqual(np.isnan(heat.temperature).sum(), 14)
        surface = analysis.surface_of(pairs)
        self.assertEqual((surface.temperatures, surface.alphas, surface.count), ([1.0, 4.0], [0.5], 2))
        np.testing.assert_allclose(surface.values, [[0.03], [0.02]])


class Tuner(Folder):
    def test_shares_costs_and_regret(self) -> None:
        first = {(1.0, 0.5): (0.01, 0.02), (4.0, 0.5): (0.10, 0.09), (4.0, 0.9): (0.12, 0.10)}
        second = {(1.0, 0.5): (0.06, 0.05), (4.0, 0.5): (0.02, 0.03), (4.0, 0.9): (0.00, -0.02)}
        rows = [row("grid", 3, 0, 0.10, trials=trials_of(0.2, first), epochs=550),
                row("grid", 0, 3, 0.05, trials=trials_of(0.8, second), epochs=550),
                row("auto", 3, 0, 0.09, epochs=60), row("auto", 0, 3, 0.05, epochs=50),
                row("grid", 1, 2, 0.5, epochs=550)]  # without the tuner's cell: no case
        parts = tuner.measurements(self.pairs(rows))
        self.assertEqual(len(parts), 1)
        whole = parts[0]
        self.assertEqual(len(whole.cases), 2)
        self.assertAlmostEqual(whole.grid_gain, 0.075)
        auto, default = whole.rival("auto"), whole.rival("default")
        self.assertAlmostEqual(whole.share(auto), 0.14 / 0.15)
        self.assertAlmostEqual(auto.epochs, 110 / 1100)
        self.assertAlmostEqual(auto.seconds, 1.0)
        np.testing.assert_allclose(sorted(whole.regret(auto)), [0, 0.01], atol=1e-12)
        self.assertAlmostEqual(whole.share(default), 0.07 / 0.15)
        self.assertAlmostEqual(default.epochs, 20 / 1100)
        oracle, validated = whole.rival("best single"), whole.rival("best single by validation")
        self.assertEqual(tuner.best_single(whole.cases), (4.0, 0.5))  # 0.12 against 0.07 and 0.08
        self.assertAlmostEqual(whole.share(oracle), 0.12 / 0.15)
        self.assertIn("oracle", oracle.note)
        self.assertEqual(validated.note, "T 4, alpha 0.5")
        self.assertRegex(tuner.verdict(whole), r"93\.3% of the grid's .* for 10\.0% of its epochs .* it beats .*: "
                                               "not reached")

    def test_a_tuner_that_does_what_is_asked(self) -> None:
        trials = trials_of(0.2, {(1.0, 0.5): (0.01, 0.02), (4.0, 0.5): (0.02, 0.03)})
        rows = [row("grid", 3, 0, 0.10, trials=trials, epochs=550), row("auto", 3, 0, 0.10, epochs=80)]
        self.assertRegex(tuner.verdict(tuner.measurements(self.pairs(rows))[0]), ": reached")
        losing = [row("grid", 3, 0, 0.03, trials=trials, epochs=550), row("auto", 3, 0, 0.03, epochs=80)]
        self.assertIn("does not beat best single", tuner.verdict(tuner.measurements(self.pairs(losing))[0]))
        nothing = [row("grid", 3, 0, -0.1, trials=trials, epochs=550), row("auto", 3, 0, 0.0, epochs=80)]
        self.assertIn("no share", tuner.verdict(tuner.measurements(self.pairs(nothing))[0]))

    def test_without_labels_alpha_says_nothing(self) -> None:
        grid = Pair("uniform", 1, "public-large", "grid", 1, 0, 0.2, 0.4, 0.3, 0.1, 0.0,
                    trials=(Trial(1.0, None, 10, 0.3, 0.25),))
        case = tuner.Case(grid, grid, None)
        self.assertAlmostEqual(case.gain_at((1.0, 0.9)), 0.05)
        self.assertIsNone(case.gain_at((2.0, 0.5)))

    def test_each_partition_and_seed_is_measured_too(self) -> None:
        trials = trials_of(0.2, {(1.0, 0.5): (0.01, 0.02)})
        rows = [row(method, 3, 0, gain, seed=seed, partition=partition, trials=trials, epochs=10)
                for method, gain in (("grid", 0.1), ("auto", 0.05)) for seed in (1, 2)
                for partition in ("uniform", "specialized")]
        parts = tuner.measurements(self.pairs(rows))
        self.assertEqual([(part.partition, part.seed) for part in parts],
                         [("all", "all"), ("specialized", "1"), ("specialized", "2"), ("uniform", "1"),
                          ("uniform", "2")])
        self.assertTrue(all(abs(part.share(part.rivals[0]) - 0.5) < 1e-9 for part in parts))


class Directions(Folder):
    def verdicts(self, rows: list[Row], multi: MultiTeacher | None = None) -> dict[str, str]:
        return {answer.statement: answer.verdict for answer in directions.all_directions(self.pairs(rows), multi)}

    def find(self, found: dict[str, str], text: str) -> str:
        return next(verdict for statement, verdict in found.items() if text in statement)

    def test_what_the_rows_bear_out_and_contradict(self) -> None:
        noise = lambda t, s: 0.001 * ((3 * t + s) % 3)  # noqa: E731
        rows = (all_pairs("vanilla", lambda t, s: 0.03 + noise(t, s), transfer="public-large")
                + all_pairs("vanilla", lambda t, s: 0.01 + noise(s, t), transfer="public-small")
                + all_pairs("dml", lambda t, s: -0.1 + noise(t, s), transfer="public-large")
                + all_pairs("vanilla", lambda t, s: 0.05 - noise(t, s))
                + all_pairs("dml", lambda t, s: 0.08 if t < s else 0.05)
                + all_pairs("dp-kd", lambda t, s: 0.07 + noise(t, s)))
        found = self.verdicts(rows)
        self.assertEqual(self.find(found, "Bigger public sets"), HOLDS)
        self.assertEqual(self.find(found, "Without labels it does harm"), HOLDS)
        self.assertEqual(self.find(found, "Without labels it gains less"), HOLDS)
        self.assertEqual(self.find(found, "With labels, a weak teacher"), OPEN)  # no interval: three weak teachers
        self.assertEqual(self.find(found, "In label-dirichlet, vanilla KD beats DP-KD"), FAILS)
        self.assertEqual(self.find(found, "In specialized, vanilla KD beats DP-KD"), OPEN)
        self.assertEqual(self.find(found, "It is best everywhere"), OPEN)
        self.assertEqual(self.find(found, "The best start wins"), OPEN)

    def test_comparable_methods_by_partition(self) -> None:
        for gap, expected in ((0.001, HOLDS), (0.1, FAILS)):
            rows = (all_pairs("vanilla", lambda t, s: 0.05 + gap, partition="uniform")
                    + all_pairs("dp-kd", lambda t, s: 0.05, partition="uniform"))
            self.assertEqual(self.find(self.verdicts(rows), "In uniform, the two are comparable"), expected)

    def test_tuning_and_the_settings_it_chooses(self) -> None:
        # Strong teachers want alpha 0.9 and T 4, weak ones alpha 0.1 and T 0.5; tuning helps by the difference.
        rows = all_pairs("vanilla", lambda t, s: 0.02) + [
            row("tuned", t, s, 0.02 + 0.02 * abs(t - s), temperature=4.0 if t > s else 0.5, alpha=0.9 if t > s else 0.1,
                seed=1) for t in range(4) for s in range(4) if t != s]
        found = self.verdicts(rows)
        for text in ("It is best everywhere", "It helps most where", "In the non-IID partitions it adds",
                     "Most pairs want settings other", "Strong teachers want a larger alpha",
                     "Strong teachers want a larger T"):
            self.assertEqual(self.find(found, text), HOLDS, text)
        self.assertEqual(self.find(found, "In the uniform partition it adds"), OPEN)
        worse = all_pairs("vanilla", lambda t, s: 0.05) + all_pairs("tuned", lambda t, s: 0.02)
        self.assertEqual(self.find(self.verdicts(worse), "It is best everywhere"), FAILS)

    def test_specialized_beside_the_others(self) -> None:
        rows = [row("tuned", t, s, 0.1, partition=partition, alpha=alpha, temperature=temperature)
                for partition, alpha, temperature in (("specialized", 0.1, 0.5), ("uniform", 0.9, 0.5))
                for t in range(4) for s in range(4) if t != s]
        found = self.verdicts(rows)
        self.assertEqual(self.find(found, "Specialized wants a lower alpha"), HOLDS)
        self.assertEqual(self.find(found, "Specialized wants a lower T"), OPEN)

    def published_table(self, seeds: int) -> dict[str, dict[str, list[float]]]:
        """The published accuracies, the same in each seed."""
        return {partition: {start: [value / 100] * seeds for start, value in zip(TABLE_TWO_STARTS, values)}
                for partition, values in TABLE_TWO.items()}

    def of_table(self, accuracy: dict[str, dict[str, list[float]]], text: str) -> directions.Answer:
        answers = directions.all_directions([], MultiTeacher(Path("table"), {}, accuracy))
        return next(answer for answer in answers if answer.topic == "Multi-teacher KD" and text in answer.statement)

    def test_the_published_table_in_three_seeds_gives_the_published_directions(self) -> None:
        accuracy = self.published_table(3)
        answers = directions.all_directions([], MultiTeacher(Path("table"), {}, accuracy))
        multi = [answer for answer in answers if answer.topic == "Multi-teacher KD"]
        self.assertEqual([answer.verdict for answer in multi], [HOLDS] * 7)
        self.assertIn("Ahead of both others in 10 of 10", multi[0].numbers)
        self.assertIn("Untrained ahead in 3 of 10; untrained less worst −0.5 points (95% over the cells: −1.5 to +0.5)",
                      multi[1].numbers)
        self.assertEqual(published("label-dirichlet", "kd-student-equal"), 0.63)
        del accuracy["uniform"]
        self.assertEqual(self.of_table(accuracy, "all ten").verdict, OPEN)
        accuracy["specialized"]["kd-public"] = [0.40, 0.41, 0.42]
        self.assertEqual(self.of_table(accuracy, "all ten").verdict, FAILS)

    def test_one_seed_tells_nothing_however_large_the_difference(self) -> None:
        answers = directions.all_directions([], MultiTeacher(Path("table"), {}, self.published_table(1)))
        multi = [answer for answer in answers if answer.topic == "Multi-teacher KD"]
        self.assertEqual([answer.verdict for answer in multi], [OPEN] * 7)
        for answer in multi:
            self.assertTrue(answer.has_rows)
            self.assertIn("1 seed: too few for an interval.", answer.numbers)

    def test_seeds_that_disagree_leave_it_open(self) -> None:
        accuracy = self.published_table(3)
        accuracy["uniform"]["kd-public"] = [value + shift for value, shift in
                                            zip(accuracy["uniform"]["kd-public"], (-0.02, 0.0, 0.02))]
        self.assertEqual(self.of_table(accuracy, "all ten").verdict, OPEN)
        self.assertEqual(self.of_table(accuracy, "hurt in uniform").verdict, OPEN)

    def test_no_clear_difference_is_a_finding_only_within_the_bound(self) -> None:
        for gaps, expected in (((0.001,) * 5, HOLDS), ((0.05,) * 5, FAILS), ((-0.1, -0.05, 0.0, 0.05, 0.1), OPEN)):
            accuracy = self.published_table(3)
            for gap, starts in zip(gaps, accuracy.values()):
                for weights in ("", "-equal"):
                    starts[f"kd-public-untrained{weights}"] = [
                        value + gap for value in starts[f"kd-public-worst{weights}"]]
            self.assertEqual(self.of_table(accuracy, "are comparable: on average").verdict, expected, gaps)


@unittest.skipUnless("HEADSTART_BIN" in os.environ, "HEADSTART_BIN does not name the folder of the programs")
class Words(Folder):
    """Studies are read without the program; their words are the program's all the same."""

    def setUp(self) -> None:
        super().setUp()
        self.vocabulary = read_vocabulary(str(Path(os.environ["HEADSTART_BIN"]) / "experiments" / "headstart-lab"))

    def entries(self, name: str, fact: str) -> set[str]:
        return {entry["name"] for entry in self.vocabulary.entries(name) if entry[fact]}

    def test_every_word_has_its_place_and_title_and_no_other_has(self) -> None:
        for mine, name in ((METHODS, "pair_methods"), (METHOD_TITLES, "pair_methods"), (METHOD_STYLES, "pair_methods"),
                           (TRANSFERS, "pair_transfer_sets"), (PARTITIONS, "partitions")):
            with self.subTest(name=name):
                self.assertEqual(sorted(mine), sorted(self.vocabulary.words(name)))
        study = read_studies([write_study(self.folder / "s", [row("vanilla", 0, 1, 0.1)])])
        for word in METHODS:
            self.assertNotEqual(method_title(word), word)
        for word in TRANSFERS:
            self.assertNotEqual(transfer_title(study, word), word)
        self.assertEqual(transfer_title(study, "public-small"), "public, 500 unlabeled")
        self.assertLessEqual(set(TABLE_TWO), set(PARTITIONS))

    def test_words_of_studies_of_peers(self) -> None:
        for mine, name in ((peer_rows.MEASURES, "measures"), (peer_rows.AVERAGES, "teacher_averages"),
                           (peer_rows.STRENGTHS, "measure_strengths"), (peer_rows.REDUCTIONS, "reductions"),
                           (peer_rows.METHODS, "peer_methods"), (peer_names.METHOD_TITLES, "peer_methods"),
                           (peer_names.MEASURE_TITLES, "measures"), (peer_names.AVERAGE_TITLES, "teacher_averages"),
                           (peer_names.STRENGTH_TITLES, "measure_strengths"), (peer_rows.GRAPHS, "graphs")):
            known = self.vocabulary.words(name)
            if not known and name in ("peer_methods", "graphs"):
                continue  # a program without headstart-lab peers
            with self.subTest(name=name):
                self.assertEqual(sorted(mine), sorted(known))

    def test_what_searches_and_what_has_labels(self) -> None:
        self.assertEqual(set(SEARCHED), self.entries("pair_methods", "is_searched"))
        self.assertEqual(set(LABELED), self.entries("pair_transfer_sets", "has_labels"))


class Peers(Folder):
    def test_pairs_are_of_the_same_seed_and_the_same_pre_trained_models(self) -> None:
        rows = [peer_row("kd", (0.01 * seed, 0.0), seed=seed) for seed in (1, 2, 3, 4)]
        rows += [peer_row("alone", (0.0, 0.0), seed=seed, shift=0.5 * (seed == 4)) for seed in (1, 2, 3, 4)]
        cells = self.peers(rows).cells
        value = peer_analysis.ACCURACIES["global"]
        kd, alone = (peer_analysis.of_method(cells, method) for method in ("kd", "alone"))
        found = peer_analysis.differences(kd, alone, value)
        self.assertEqual(list(found), [1, 2, 3])
        np.testing.assert_allclose(list(found.values()), [0.01, 0.02, 0.03])
        lead = peer_analysis.advantage(kd, alone, value)
        self.assertAlmostEqual(lead.value, 0.02)
        self.assertAlmostEqual(lead.high - lead.value, 4.303 * 0.01 / 3 ** 0.5)
        self.assertIsNone(peer_analysis.advantage(kd[:2], alone, value).low)
        self.assertEqual(peer_analysis.unpaired(cells), 1)

    def test_a_choice_is_of_validation_and_of_each_seed_by_itself(self) -> None:
        rows = [peer_row("kd", (0.1 * alpha, 0.0), alpha=alpha, seed=seed, validation=validation)
                for seed, ratings in ((1, (0.6, 0.5)), (2, (0.1, 0.3))) for alpha, validation in zip((0.2, 0.8), ratings)]
        cells = self.peers(rows).cells
        self.assertEqual([cell.setting.alpha for cell in peer_analysis.chosen(cells)], [0.2, 0.8])
        self.assertEqual(peer_analysis.chosen_setting(cells).alpha, 0.8)  # by the means, 0.35 and 0.4
        self.assertEqual([setting.alpha for setting in peer_analysis.chosen_settings(cells)], [0.8])
        blind = self.peers([peer_row("kd", (0.0, 0.0), alpha=alpha, validation=None) for alpha in (0.2, 0.8)]).cells
        self.assertEqual(len(peer_analysis.chosen(blind)), 2)
        self.assertEqual(len(peer_analysis.chosen_settings(blind)), 2)

    def test_the_share_of_the_ensembles_lead_and_gains_over_alone(self) -> None:
        study = self.peers([peer_row("kd", (0.04, -0.01), graph="star"), peer_row("gossip", (0.02, 0.0), graph="star"),
                            peer_row("proxyfl", (0.02, 0.0)), peer_row("alone", (0.01, 0.0))])
        self.assertEqual(study.graphs, ["star"])
        cells = study.of("primary", "star")  # what is the same in every graph is among them
        self.assertEqual(len(cells), 4)
        self.assertAlmostEqual(peer_analysis.lead_share(cells[:1]), 0.4)
        gains = {gain.family.method: gain for gain in peer_analysis.gains_over_alone(cells)}
        self.assertAlmostEqual(gains["kd"].overall.value, 0.03)
        self.assertAlmostEqual(gains["kd"].own.value, -0.01)
        self.assertAlmostEqual(gains["gossip"].overall.value, 0.01)


class PeerDirections(Folder):
    def answers(self, rows: list[Row]) -> dict[tuple[str, str], peer_directions.Answer]:
        """(topic, statement) -> answer"""
        return {(answer.topic, answer.statement): answer for answer in peer_directions.all_directions(self.peers(rows))}

    def find(self, found: dict[tuple[str, str], peer_directions.Answer], text: str, accuracy: str = "Global",
             strength: str = "equal alpha") -> peer_directions.Answer:
        return next(answer for (topic, statement), answer in found.items()
                    if topic == f"{accuracy} accuracy, {strength}" and text in statement)

    @staticmethod
    def papers(partition: str, measure: str, average: str, alpha: float, seed: int) -> Gains:
        """Alike in uniform; skewed, kl is ahead in global accuracy and behind in own, and the sum is worse in both."""
        noise = 0.0005 * ((seed + int(10 * alpha)) % 3)
        if partition == "uniform":
            return 0.03 + noise, 0.03 + noise
        is_kl, is_sum = measure == "kl", average == "none"
        return 0.05 + 0.1 * is_kl * alpha - 0.02 * is_sum + noise, -0.1 * is_kl * alpha - 0.03 * is_sum - noise

    def test_each_accuracy_has_a_verdict_of_its_own(self) -> None:
        found = self.answers(every_peer_row(self.papers) + controls("alone", (0.01, 0.05))
                             + controls("gossip", (0.2, -0.3), sent=1050))
        self.assertEqual(len(found), 24)
        for text, overall, own in (("iid (uniform)", HOLDS, HOLDS), ("the measure matters", HOLDS, HOLDS),
                                   ("SED and JS are ahead", FAILS, HOLDS), ("beats the sum", OPEN, OPEN),
                                   ("beats training alone", HOLDS, FAILS), ("beats gossip", FAILS, HOLDS)):
            verdicts = [self.find(found, text, accuracy).verdict for accuracy in ("Global", "Own")]
            self.assertEqual(verdicts, [overall, own], text)
            for accuracy in ("Global", "Own"):
                answer = self.find(found, text, accuracy, "matched strength")
                self.assertEqual((answer.verdict, answer.has_rows), (OPEN, False))
        self.assertIn("primary, SED less KL −5.0 points (95%: −5.0 to −5.0; 3 seeds), by alpha 0.2 −2.0, 0.8 −8.0",
                      self.find(found, "SED and JS").numbers)
        self.assertIn("primary +2.0 points", self.find(found, "beats the sum").numbers)

    def test_the_average_where_it_is_ahead_everywhere(self) -> None:
        rows = every_peer_row(lambda p, m, average, a, s: (0.02 * (average != "none"), 0.0))
        self.assertEqual(self.find(self.answers(rows), "beats the sum").verdict, HOLDS)
        self.assertEqual(self.find(self.answers(rows), "beats the sum", "Own").verdict, OPEN)

    def test_matched_strength_is_told_apart(self) -> None:
        rows = every_peer_row(lambda p, measure, v, a, s: (0.05 * (measure == "kl"), 0.0))
        rows += every_peer_row(lambda p, measure, v, a, s: (0.001 * (measure == "kl"), 0.0), strength="matched")
        found = self.answers(rows)
        for strength, iid, skewed in (("equal alpha", FAILS, HOLDS), ("matched strength", HOLDS, FAILS)):
            self.assertEqual(self.find(found, "iid (uniform)", strength=strength).verdict, iid)
            self.assertEqual(self.find(found, "the measure matters", strength=strength).verdict, skewed)

    def test_two_seeds_tell_nothing_however_large_the_difference(self) -> None:
        rows = every_peer_row(self.papers, seeds=(1, 2)) + controls("alone", (-0.3, -0.3), seeds=(1, 2))
        for answer in self.answers(rows).values():
            self.assertEqual(answer.verdict, OPEN)
            if answer.has_rows:
                self.assertIn("(2 seeds: too few for an interval)", answer.numbers)

    def test_seeds_and_alphas_that_disagree_leave_it_open(self) -> None:
        swinging = every_peer_row(lambda p, measure, v, a, seed: (0.04 * (measure == "kl") * (seed - 2), 0.0))
        found = self.answers(swinging)
        self.assertEqual(self.find(found, "iid (uniform)").verdict, OPEN)
        self.assertEqual(self.find(found, "the measure matters").verdict, OPEN)
        # Ahead on average, and not at each alpha.
        crossing = every_peer_row(lambda p, measure, v, alpha, s: (0.0 if measure == "kl" else alpha - 0.3, 0.0))
        answer = self.find(self.answers(crossing), "SED and JS")
        self.assertEqual(answer.verdict, OPEN)
        self.assertIn("SED less KL +20.0 points (95%: +20.0 to +20.0; 3 seeds), by alpha 0.2 −10.0, 0.8 +50.0",
                      answer.numbers)

    def test_cross_entropy_and_kl_are_one_measure(self) -> None:
        rows = every_peer_row(lambda p, measure, v, a, s: (0.05 * (measure == "kl"), 0.0), measures=("ce", "kl"))
        self.assertFalse(self.find(self.answers(rows), "iid (uniform)").has_rows)

    def test_gossip_is_compared_at_the_same_bytes_alone(self) -> None:
        kd = every_peer_row(lambda *_: (0.05, 0.05), sent=760)
        for sent, verdict, text in ((1000, OPEN, "uniform is not compared: kd sends 0.76 times the bytes of gossip"),
                                    (800, HOLDS, "kd at validation's choice less gossip: uniform +4.0 points")):
            answer = self.find(self.answers(kd + controls("gossip", (0.01, 0.01), sent=sent)), "beats gossip")
            self.assertEqual((answer.verdict, answer.has_rows), (verdict, True))
            self.assertIn(text, answer.numbers)

    def test_kd_stands_where_validation_puts_it_and_at_its_mean_without(self) -> None:
        for validation, value in ((0.9, "+1.0"), (None, "+3.0")):
            rows = [peer_row("kd", (gain, 0.0), alpha=alpha, seed=seed,
                             validation=None if validation is None else validation - alpha)
                    for seed in (1, 2, 3) for alpha, gain in ((0.2, 0.01), (0.8, 0.05))]
            rows += [peer_row("alone", (0.0, 0.0), seed=seed, validation=validation) for seed in (1, 2, 3)]
            answer = self.find(self.answers(rows), "beats training alone")
            self.assertIn(f"primary {value} points", answer.numbers)
            self.assertIn("mean over 2 settings", answer.numbers)


class WholeCalls(Folder):
    def figures(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(ROOT / "experiments" / "figures.py"), *map(str, arguments)],
                              capture_output=True, text=True, check=False, cwd=self.folder, timeout=120)

    def refused(self, code: int, pattern: str, *arguments: object) -> None:
        done = self.figures(*arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertTrue(done.stderr.startswith("figures: "))
        self.assertEqual(done.stderr.count("\n"), 1)

    def whole_study(self) -> Path:
        gain = lambda t, s: 0.02 * (t - s) + 0.01  # noqa: E731
        rows: list[Row] = [participant_row(number) for number in range(4)]
        for method, transfer in (("vanilla", "student"), ("dml", "student"), ("vanilla", "public-large")):
            rows += all_pairs(method, gain, transfer=transfer)
        grid = {(t, a): (0.01 * t, 0.01 * t + 0.02 * a) for t in (0.5, 1.0, 4.0) for a in (0.1, 0.5, 0.9)}
        for student in (0, 1):
            start = ACCURACIES[student]
            rows += [row("grid", 3, student, 0.06, trials=trials_of(start, grid), epochs=90),
                     row("auto", 3, student, 0.05, temperature=4.0, epochs=10),
                     row("tuned", 3, student, 0.05, temperature=4.0, alpha=0.9, epochs=50)]
        open_cell = row("tuned", 0, 1, 0.0)
        return write_study(self.folder / "small.sqlite", [*rows, (open_cell[0], open_cell[1], None)])

    def multi_teacher(self) -> Path:
        folder = self.folder / "table-two"
        folder.mkdir()
        runs = [{"run": "x", "partition": partition, "seed": 1, "start": start, "seed_accuracy": value / 100}
                for partition, values in TABLE_TWO.items() for start, value in zip(TABLE_TWO_STARTS, values)]
        (folder / "table.json").write_text(json.dumps({"plan": {"seeds": [1], "settings": {}}, "runs": runs}))
        return folder

    def test_the_report_is_whole_self_contained_and_never_replaced_in_silence(self) -> None:
        study = self.whole_study()
        before = study.read_bytes()
        done = self.figures(study, "--multi-teacher", self.multi_teacher())
        self.assertEqual(done.returncode, 0, done.stderr)
        out = self.folder / "small-figures"
        self.assertIn(f"Report: {out / 'report.html'}", done.stdout)
        self.assertEqual(sorted(file.name for file in out.iterdir()),
                         ["directions.md", "figures", "numbers.json", "report.html", "tables.md"])
        figures = sorted(file.stem for file in (out / "figures").iterdir())
        name = "label-dirichlet"
        self.assertEqual(figures, sorted([
            "multi-teacher", "tuner", *(f"{kind}-{name}" for kind in (
                "best-teachers", "cumulative-gain", "gain", "learning", "positions", "positive-transfer", "surface")),
            *(f"settings-{name}-{method}" for method in ("tuned", "grid", "auto"))]))
        page = (out / "report.html").read_text()
        references = ExternalReferences()
        references.feed(page)
        self.assertEqual((references.found, references.images), ([], len(figures)))
        self.assertNotRegex(page, r"url\(|@import")
        for text in ("headstart 0.1.0, libtorch 1.13.0", "46 of 47 cells finished", "12 teacher-student pairs",
                     "figures.py", "Matplotlib", "seed 1", "83.3% of the grid", "an oracle", "71.6"):
            self.assertTrue(text in page, text)
        numbers = json.loads((out / "numbers.json").read_text())
        vanilla = next(line for line in numbers["summary"] if line["method"] == "vanilla")
        self.assertAlmostEqual(vanilla["gain"]["value"], 0.01)
        self.assertEqual(vanilla["positive_weak"], 0.0)
        self.assertAlmostEqual(numbers["tuner"][0]["choices"][0]["share"], 0.05 / 0.06)
        text = (out / "directions.md").read_text()
        for answer in numbers["directions"]:
            self.assertTrue(answer["statement"] in text and answer["numbers"] in text, answer)
        self.assertEqual(study.read_bytes(), before)
        (out / "notes").write_text("mine")
        self.refused(4, "exists already: .*--overwrite", study)
        self.assertTrue((out / "notes").is_file())
        done = self.figures(study, "--overwrite", "--methods", "vanilla")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse((out / "figures" / "tuner.png").exists())
        self.assertTrue("The automatic tuner: the study has no pair" in (out / "report.html").read_text())
        self.assertEqual([file.name for file in self.folder.iterdir() if file.name.startswith(".")], [])

    def whole_peers(self) -> Path:
        gains = lambda p, measure, average, alpha, s: (0.05 + 0.05 * alpha * (measure == "kl"), -0.05 * alpha)  # noqa: E731
        rows = every_peer_row(gains, rounds=2, partitions=("primary",))
        rows += every_peer_row(gains, rounds=2, partitions=("primary",), strength="matched", alphas=(0.5,), graph="star")
        rows += controls("gossip", (0.03, -0.02), rounds=2, partitions=("primary",))
        rows += controls("def-kt", (0.02, -0.01), rounds=2, partitions=("primary",))
        rows += controls("a-later-method", (0.02, -0.03), rounds=2, partitions=("primary",))
        rows += controls("alone", (0.01, 0.0), rounds=2, partitions=("primary",))
        open_cell = peer_row("kd", (0.0, 0.0), alpha=0.9)
        return write_study(self.folder / "peers.sqlite", [*rows, (open_cell[0], open_cell[1], None)],
                           settings=PEER_SETTINGS)

    def test_the_report_of_peers_is_whole_and_self_contained(self) -> None:
        study = self.whole_peers()
        before = study.read_bytes()
        done = self.figures(study, "--out", "out")
        self.assertEqual(done.returncode, 0, done.stderr)
        out = self.folder / "out"
        self.assertEqual(sorted(file.name for file in out.iterdir()),
                         ["directions.md", "figures", "numbers.json", "report.html", "tables.md"])
        figures = sorted(file.stem for file in (out / "figures").iterdir())
        # Seven courses over rounds take two figures.
        self.assertEqual(figures, sorted(["rounds-primary-full-2", *(f"{kind}-{graph}" for graph in ("full", "star")
                                          for kind in ("own-global", "gain-over-alone", "rounds-primary", "graph"))]))
        page = (out / "report.html").read_text()
        references = ExternalReferences()
        references.feed(page)
        self.assertEqual((references.found, references.images), ([], len(figures)))
        for text in ("Study of peers: peers", "66 of 67 cells finished", "over 3 peers", "2 rounds of exchange",
                     "headstart 0.1.0, libtorch 1.13.0", "graphs full, star", "Test accuracy is reported"):
            self.assertTrue(text in page, text)
        numbers = json.loads((out / "numbers.json").read_text())
        line = next(line for line in numbers["settings"] if (line["graph"], line.get("measure"), line.get("average"),
                                                             line.get("alpha")) == ("full", "kl", "none", 0.8))
        self.assertEqual([row["seed"] for row in line["seeds"]], [1, 2, 3])
        self.assertAlmostEqual(line["seeds"][1]["after"]["global"], 0.40 + 0.02 + 0.05 + 0.04)
        self.assertEqual(line["seeds"][0]["bytes"], 2000)
        self.assertAlmostEqual(line["lead_share"], 0.9)
        text = (out / "directions.md").read_text()
        for answer in numbers["directions"]:
            self.assertTrue(answer["statement"] in text and answer["numbers"] in text, answer)
        tables = (out / "tables.md").read_text()
        self.assertIn("| KL | sum of pairs | plain | 0.8 | 1 | 3 | 42.0 → 51.0 (50.0 to 52.0) | 92.0 → 88.0 (87.0 to 89.0) "
                      "| 4.0 (4.0 to 4.0) | 90% | 0.00 | 2.0 |", tables)
        self.assertEqual(study.read_bytes(), before)
        self.refused(4, "exists already: .*--overwrite", study, "--out", "out")

    def test_what_is_no_study_of_peers(self) -> None:
        def write(name: str, rows: list[Row], settings: dict[str, Any] = PEER_SETTINGS) -> Path:
            return write_study(self.folder / name, rows, settings=settings)

        one = peer_row("kd", (0.1, 0.1))
        self.refused(3, r"young: no cell is finished yet \(of 1\)", write("young", [(*one[:2], None)]))
        self.refused(3, "odd: is a study of a kind that this program does not know",
                     write("odd", [one], {"data": {"set": "fashion-mnist"}}))
        pairs = write_study(self.folder / "pairs", [row("vanilla", 0, 1, 0.1)])
        peers = write("peers", [one])
        self.refused(2, "pairs is a pair study and .*peers is a study of peers: one call draws studies of one kind", pairs,
                     peers)
        self.refused(3, "cell .*vanilla/0-to-1 is not of a study of peers",
                     write("mixed", [one, row("vanilla", 0, 1, 0.1)]))
        for name, spoil in (("rounds", lambda metrics: metrics["rounds"].pop()),
                            ("after", lambda metrics: metrics.pop("after")),
                            ("edges", lambda metrics: metrics["edges"].append([0, 7])),
                            ("peers", lambda metrics: metrics["rounds"][1]["own"].pop())):
            broken = copy.deepcopy(one)
            spoil(broken[2])
            self.refused(3, "cell primary/.* is not of a study of peers", write(f"broken-{name}", [broken]))
        for option in ("--methods", "--transfers", "--multi-teacher"):
            self.refused(2, f"{option} is for pair studies", peers, option, "x")
        self.assertEqual((kind_of([peers]), kind_of([pairs])), ("peer", "pair"))

    def test_a_folder_of_somebody_else_is_left_alone(self) -> None:
        study = write_study(self.folder / "s.sqlite", [row("vanilla", 0, 1, 0.1)])
        (self.folder / "s-figures").mkdir()
        (self.folder / "s-figures" / "precious").write_text("x")
        self.refused(4, "not made by this program", study, "--overwrite")
        self.refused(4, "cannot be made", study, "--out", study / "figures")
        self.assertEqual((self.folder / "s-figures" / "precious").read_text(), "x")

    def test_what_is_no_study(self) -> None:
        self.refused(3, "nowhere.sqlite: is not there", self.folder / "nowhere.sqlite")
        self.refused(3, "is no study, but a folder", self.folder)
        text = self.folder / "text"
        text.write_text("no database at all, but long enough to be looked at\n" * 100)
        self.refused(3, "text: is no study, or is damaged", text)
        self.refused(3, "not of a study", write_study(self.folder / "other", [], application=7))
        self.refused(3, "is of version 2 of the format", write_study(self.folder / "new", [], version=2))
        self.refused(3, r"no pair is finished yet \(1 of 2 cells are",
                     write_study(self.folder / "young", [participant_row(0), (*row("vanilla", 0, 1, 0.1)[:2], None)]))
        broken = write_study(self.folder / "broken", [row("vanilla", 0, 1, 0.1)])
        connection = sqlite3.connect(broken)
        connection.execute("UPDATE cells SET metrics = '{\"accuracy\": 1}'")
        connection.commit()
        connection.close()
        self.refused(3, "cell .*vanilla/0-to-1 is not of a pair study", broken)
        cut = write_study(self.folder / "cut", all_pairs("vanilla", lambda t, s: 0.1))
        cut.write_bytes(cut.read_bytes()[:5000])
        self.refused(3, "cut: is (no study, or is )?damaged", cut)

    def test_words_and_folders_that_are_not_there(self) -> None:
        study = write_study(self.folder / "s.sqlite", [row("vanilla", 0, 1, 0.1)])
        self.refused(2, "unknown method 'vanila': did you mean 'vanilla'", study, "--methods", "vanila")
        self.refused(2, "no pair of method tuned is finished in .*; there are: vanilla", study, "--methods", "tuned")
        self.refused(2, "no pair of transfer set public-large", study, "--transfers", "public-large")
        self.refused(3, "holds no table.json", study, "--multi-teacher", self.folder)
        self.refused(2, "named twice", study, study)
        self.assertEqual(self.figures().returncode, 2)

    def test_several_studies_are_of_one_kind_and_agree(self) -> None:
        first = write_study(self.folder / "a", all_pairs("vanilla", lambda t, s: 0.1))
        second = write_study(self.folder / "b", all_pairs("vanilla", lambda t, s: 0.2, partition="uniform")
                             + [row("vanilla", 0, 1, 0.1)])
        both = read_studies([first, second])
        self.assertEqual((both.partitions, len(both.pairs), both.done, both.planned),
                         (["uniform", "label-dirichlet"], 24, 24, 24))
        moved = SETTINGS | {"data": SETTINGS["data"] | {"path": "/elsewhere"}}
        read_studies([first, write_study(self.folder / "moved", [row("vanilla", 0, 1, 0.1)], settings=moved)])
        other = SETTINGS | {"kd": {"epochs": 3}}
        self.refused(2, "c is not of the same kind as .*a: kd.epochs is 3, was 10", first,
                     write_study(self.folder / "c", [row("vanilla", 0, 1, 0.1)], settings=other))
        with self.assertRaises(CompareError) as caught:
            read_studies([first, write_study(self.folder / "d", [row("vanilla", 0, 1, 0.3)])])
        self.assertRegex(str(caught.exception), "cell .*0-to-1 has another result in .*d than in .*a")


if __name__ == "__main__":
    unittest.main()
