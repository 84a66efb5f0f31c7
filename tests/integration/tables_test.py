"""Tables over real processes: silos with CSV files, mean and deviation from sums over all of them, models for rows."""

import csv
import json
import math
import random
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from tests.integration.programs import CLIENT, LAB, SERVER, ProgramsTest, wait_for

try:
    import numpy
    import torch
except ImportError:
    torch = None

NUMBERS = [f"measure {i}" for i in range(30)]
SIDES = ["left", "right", "both"]


def patients(count, seed, start=0):
    """Rows of 30 measures of very different scale, one with holes, and a category; two classes that they tell apart."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        label = draw.random() < 0.4
        row = {"id": str(start + i), "diagnosis": "M" if label else "B", "side": SIDES[draw.randrange(3)]}
        for j, name in enumerate(NUMBERS):
            row[name] = f"{10 ** (j % 5 - 1) * (5 + draw.gauss(0, 1) + (1.0 if label and j % 3 == 0 else 0)):.9g}"
        if draw.random() < 0.1:
            row[NUMBERS[4]] = draw.choice(["", "NA", "?"])
        rows.append(row)
    return rows


def write_csv(file, rows, columns=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


class Tables(ProgramsTest):
    def setUp(self):
        super().setUp()
        self.central = self.folder / "central"
        write_csv(self.central / "test.csv", patients(150, 1))
        self.silos = {}
        for i, count in enumerate((60, 90, 40)):
            name = f"silo-{i}"
            rows = self.silos[name] = patients(count, 2 + i, 1000 * i)
            columns = list(rows[0])
            write_csv(self.folder / name / "train.csv", rows, columns if i != 1 else columns[::-1])

    def serve(self, run="run", **settings):
        base = {"run.folder": self.folder / run, "listen.port": 0, "federation.clients": 3, "federation.rounds": 4,
                "model.name": "mlp", "model.hidden_layers": "[16]", "train.lr": 0.1, "train.epochs": 5,
                "train.batch_size": 16, "data.set": "csv", "data.path": self.central, "data.label": "diagnosis",
                "data.drop": '["id"]', "data.categorical": '["side"]', "data.missing": "indicator",
                "data.statistics": "federated", "data.held_out": 0, "evaluation.federated": "false"}
        base.update(settings)
        words = [word for key, value in base.items() if value is not None for word in ("--set", f"{key}={value}")]
        port = self.folder / run / "port"
        port.unlink(missing_ok=True)
        server = self.start(SERVER, *words)
        wait_for(lambda: port.exists() or server.poll() is not None, "the server's port")
        self.assertIsNone(server.poll(), server.stderr.read() if server.poll() is not None else "")
        return server, int(port.read_text())

    def words(self, port, name, path=None, **settings):
        words = [CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", name, "--set", "data.set=csv",
                 "--set", f"data.path={path or self.folder / name}"]
        return words + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def start_silos(self, port, **settings):
        return [self.start(*self.words(port, name, **settings)) for name in self.silos]

    def assert_done(self, server, clients):
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, out + err)
        for client in clients:
            code, out, err = self.finish(client)
            self.assertEqual(code, 0, out + err)

    def run_json(self, run="run"):
        return json.loads((self.folder / run / "run.json").read_text())

    def rounds(self, run="run"):
        return [json.loads(line) for line in (self.folder / run / "rounds.jsonl").read_text().splitlines()]

    @unittest.skipIf(torch is None, "python3-torch or python3-numpy is not installed")
    def test_three_silos_train_on_one_normalisation_and_the_file_predicts_what_was_measured(self):
        server, port = self.serve()
        self.assert_done(server, self.start_silos(port))
        rounds = self.rounds()
        self.assertGreaterEqual(rounds[-1]["accuracy"], 0.9)

        statistics = self.run_json()["statistics"]
        self.assertEqual(statistics["silos"], sorted(self.silos))
        self.assertEqual(statistics["silent"], [])
        rows = [row for name in self.silos for row in self.silos[name]]
        for name in NUMBERS:
            place = statistics["features"].index(name)
            there = numpy.array([row[name] for row in rows if row[name] not in ("", "NA", "?")], "float32")
            self.assertEqual(statistics["count"][place], len(there))
            self.assertEqual(statistics["missing"][place], len(rows) - len(there))
            values = there.astype("float64")
            self.assertTrue(math.isclose(statistics["mean"][place], values.mean(), rel_tol=1e-9))
            self.assertTrue(math.isclose(statistics["deviation"][place], values.std(), rel_tol=1e-9))
        for name in ("side=left", "side is missing", NUMBERS[0] + " is missing"):
            place = statistics["features"].index(name)
            self.assertEqual((statistics["mean"][place], statistics["deviation"][place]), (0, 1))
        self.assertEqual((statistics["least"], statistics["greatest"]), (None, None))
        audit = [json.loads(line) for line in (self.folder / "run/audit.jsonl").read_text().splitlines()]
        self.assertEqual(sum(line.get("what") == "statistics of the features" for line in audit), 3)
        self.assertEqual(sum(line.get("what") == "normalisation" for line in audit), 3)

        page = (Path(__file__).resolve().parents[2] / "server/run_files.md").read_text()
        program = "".join(block.split("```")[0] for block in page.split("```python\n")[1:])
        program = program.replace('numpy.load("images.npy")', 'rows("test.csv", meta)')
        home = self.folder / "run"
        (home / "test.csv").write_bytes((self.central / "test.csv").read_bytes())
        done = subprocess.run([sys.executable, "-c", program], cwd=home, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        right = sum(said == row["diagnosis"] for said, row in zip(done.stdout.split(), patients(150, 1)))
        self.assertAlmostEqual(right / 150, rounds[-1]["accuracy"], places=9)

    def test_a_head_from_sums_over_the_silos_for_models_of_rows(self):
        for model, least in (("linear", 0.9), ("mlp", 0.75)):  # the hidden layers of the latter are untrained
            server, port = self.serve(model, **{"model.name": model, "start.head": "sums", "federation.rounds": 1,
                                                "train.lr": 0.001, "data.missing": "mean"})
            self.assert_done(server, self.start_silos(port))
            self.assertGreaterEqual(self.rounds(model)[0]["accuracy"], least, model)

    @unittest.skipIf(torch is None, "python3-torch or python3-numpy is not installed")
    def test_statistics_of_images_are_those_of_their_channels_and_the_run_is_as_if_they_had_been_given(self):
        self.draw()

        def simulate(run, **more):
            settings = {"run.folder": self.folder / run, "data.manifest": self.manifest, "federation.clients": 3,
                        "federation.rounds": 1, "model.channels": "[4,4]", "model.hidden": 8, "pretrain.max_epochs": 3,
                        "validation.source": "server", "start.model": "kd", "consolidation.transfer": "public",
                        "consolidation.weights": "experts", "consolidation.epochs": 3, "data.held_out": 0,
                        "evaluation.federated": "false", "share_model": "peers", **more}
            done = self.run_program(LAB, "simulate", *self.data_settings(),
                                    *[word for key, value in settings.items() for word in ("--set", f"{key}={value}")])
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads((self.folder / run / "summary.json").read_text())["model_digest"]

        digest = simulate("run", **{"data.statistics": "federated"})
        statistics = self.run_json()["statistics"]
        own = sum(json.loads(self.manifest.read_text())["clients"], [])
        pixels = numpy.load(self.data / "train-images.npy")[own].astype("float64") / 255
        self.assertEqual((statistics["features"], statistics["count"]), (["0"], [pixels.size]))
        self.assertTrue(math.isclose(statistics["mean"][0], pixels.mean(), rel_tol=1e-7))
        self.assertTrue(math.isclose(statistics["deviation"][0], pixels.std(), rel_tol=1e-7))
        given = {f"data.{key}": json.dumps(statistics[key]) for key in ("mean", "deviation")}
        self.assertEqual(simulate("given", **given), digest)

    def test_a_silo_that_says_nothing_of_few_samples_takes_part_all_the_same(self):
        server, port = self.serve()
        clients = self.start_silos(port, **{"statistics.min_samples": 50, "statistics.range": "true"})
        self.assert_done(server, clients)
        statistics = self.run_json()["statistics"]
        self.assertEqual((statistics["silos"], statistics["silent"]), (["silo-0", "silo-1"], ["silo-2"]))
        firsts = [float(row[NUMBERS[0]]) for name in ("silo-0", "silo-1") for row in self.silos[name]]
        place = statistics["features"].index(NUMBERS[0])
        self.assertEqual(statistics["count"][place], 150)
        self.assertAlmostEqual(statistics["least"][place], min(firsts), places=5)
        self.assertAlmostEqual(statistics["greatest"][place], max(firsts), places=5)
        self.assertEqual(len(self.rounds()[-1]["clients"]), 3)

    def test_the_server_names_a_silo_with_a_feature_in_another_unit_and_none_for_one_that_does_not_vary(self):
        for name, rows in self.silos.items():
            for row in rows:
                row[NUMBERS[7]] = "0.1"
                if name == "silo-1":
                    row[NUMBERS[2]] = str(100 * float(row[NUMBERS[2]]))
            write_csv(self.folder / name / "train.csv", rows)
        server, port = self.serve(**{"federation.rounds": 1, "data.missing": "zero"})
        clients = self.start_silos(port)
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, out + err)
        notes = [line for line in out.splitlines() if "in another unit there?" in line]
        self.assertTrue(any(f'silo-1: feature "{NUMBERS[2]}" has mean' in line for line in notes), out)
        self.assertFalse(any(NUMBERS[7] in line for line in notes), notes)
        statistics = self.run_json()["statistics"]
        self.assertEqual(statistics["deviation"][statistics["features"].index(NUMBERS[7])], 1)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)

    def test_a_silo_whose_columns_are_not_the_runs_is_told_so_before_and_at_joining(self):
        _, port = self.serve()
        good = self.silos["silo-0"]
        cases = {
            "column": ([{("Measure 3" if key == "measure 3" else key): value for key, value in row.items()} for row in good],
                       ('train.csv, line 1: expected the run\'s column "measure 3"', 'did you mean "Measure 3"?')),
            "category": ([{**good[0], "side": "middle"}, *good[1:]],
                         ('line 2, column "side": expected one of "both", "left", "right", got "middle"',)),
            "number": ([good[0], {**good[1], "measure 0": "high"}, *good[2:]],
                       ('line 3, column "measure 0": expected a number, got "high"',)),
            "class": ([{**good[0], "diagnosis": "m"}, *good[1:]],
                      ('line 2, column "diagnosis": expected a class, "B", "M", got "m"',))}
        for name, (rows, parts) in cases.items():
            write_csv(self.folder / name / "train.csv", rows)
            for more in (["--check"], []):
                self.assert_fails(self.run_program(*self.words(port, name), *more), 3, *parts)
        done = self.run_program(*self.words(port, "silo-0"), "--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn('columns "id" are none of the run\'s and are left aside', done.stdout)

    def test_a_server_that_is_killed_goes_on_with_the_statistics_that_it_had(self):
        settings = {"federation.rounds": 60, "checkpoints.keep": 1}
        server, port = self.serve(**settings)
        clients = self.start_silos(port)
        wait_for(lambda: len(self.rounds()) > 2, "two rounds")
        server.send_signal(signal.SIGKILL)
        server.communicate()
        before = self.run_json()
        server, _ = self.serve(**{**settings, "listen.port": port})
        self.assert_done(server, clients)
        self.assertEqual(self.run_json()["statistics"], before["statistics"])
        audit = (self.folder / "run/audit.jsonl").read_text()
        self.assertEqual(audit.count('"statistics of the features"'), 3)

    def test_a_coordinator_without_data_says_what_the_columns_are_in_a_schema(self):
        schema = self.folder / "columns.json"
        columns = [{"name": name} for name in NUMBERS] + [{"name": "side", "categories": SIDES}]
        schema.write_text(json.dumps({"label": "diagnosis", "classes": ["B", "M"], "columns": columns}))
        server, port = self.serve(**{"data.path": None, "data.label": None, "data.drop": None, "data.categorical": None,
                                     "data.schema": schema, "evaluation.central": "false", "checkpoints.best": "false",
                                     "evaluation.federated": "true", "data.held_out": 0.2})
        self.assert_done(server, self.start_silos(port, **{"data.schema": schema}))
        self.assertGreaterEqual(self.rounds()[-1]["federated"]["accuracy"], 0.8)

    def test_a_simulation_over_a_manifest_and_rules_that_need_a_mean(self):
        write_csv(self.central / "train.csv", [row for name in self.silos for row in self.silos[name]])
        data = ["--set", "data.set=csv", "--set", f"data.path={self.central}", "--set", "data.label=diagnosis",
                "--set", 'data.drop=["id"]', "--set", 'data.categorical=["side"]', "--set", "data.missing=mean"]
        done = self.run_program(LAB, "partition", *data, "--set", "partition.clients=3", "--set",
                                "partition.kind=uniform", "--set", "draw.validation=30", "--set", "draw.clients=0",
                                *[word for draw in ("public_large", "public_small", "public_labeled", "test")
                                  for word in ("--set", f"draw.{draw}=0")], "--out", self.manifest)
        self.assertEqual(done.returncode, 0, done.stderr)
        run = [LAB, "simulate", *data, "--set", f"data.manifest={self.manifest}", "--set", "federation.clients=3",
               "--set", "federation.rounds=2", "--set", "model.name=mlp", "--set", "validation.source=server",
               "--set", "start.model=best_local", "--set", "share_model=peers", "--set", "pretrain.max_epochs=20"]
        self.assert_fails(self.run_program(*run, "--set", f"run.folder={self.folder / 'none'}"), 2, "data.missing mean",
                          "data.statistics federated")
        done = self.run_program(*run, "--set", f"run.folder={self.folder / 'run'}", "--set",
                                "data.statistics=federated")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreaterEqual(self.rounds()[0]["accuracy"], 0.8)


if __name__ == "__main__":
    unittest.main()
