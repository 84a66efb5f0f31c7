"""Silos whose work is done by processes of their own, which die, hang, and break the protocol."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from plain_worker import CLASSES, FEATURES, one_hot, read_body, silo_data, trained, write_body  # noqa: E402
from programs import CLIENT, SERVER, ProgramsTest, wait_for  # noqa: E402

WORKER = f"/usr/bin/python3 {Path(__file__).resolve().parents[1] / 'support/plain_worker.py'}"
START = {"fc.weight": np.zeros((CLASSES, FEATURES), np.float32), "fc.bias": np.zeros(CLASSES, np.float32)}


class WorkerTest(ProgramsTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "start.safetensors"
        self.model.write_bytes(write_body(START))

    def server_arguments(self, run="run", **settings):
        base = {"run.folder": self.folder / run, "listen.port": 0, "model.name": f"state:{self.model}",
                "data.set": "tensors", "data.classes": '["a","b","c"]', "data.shape": f"[{FEATURES}]",
                "evaluation.central": "false", "federation.clients": 3, "federation.rounds": 3, "train.lr": 0.5}
        base.update(settings)
        arguments = [SERVER]
        for key, value in base.items():
            arguments += ["--set", f"{key}={value}"]
        return arguments

    def worker(self, silo, port, *more, fault="", command=WORKER):
        environment = dict(os.environ, PLAIN_SILO=str(silo), PLAIN_FAULT=fault)
        return self.start(CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", f"silo-{silo}", "--worker", command,
                          "--set", "share_model=peers", *more, env=environment)

    def final(self, run="run"):
        return read_body((self.folder / run / "final.safetensors").read_bytes())

    def run_with(self, run="run", faults=("", "", ""), more=((), (), ()), **settings):
        """The server's and the three clients' exit codes and words, once all have ended."""
        server, port = self.start_server(run, **settings)
        clients = [self.worker(silo, port, *more[silo], fault=faults[silo]) for silo in range(3)]
        ended = [self.finish(child) for child in clients]
        return [self.finish(server), *ended]

    def assert_done(self, ended):
        for code, out, err in ended:
            self.assertEqual(code, 0, out + err)

    def expected(self, rounds=3, start=None):
        """FedAvg over the three silos, computed here."""
        state = start or START
        for _ in range(rounds):
            updates = [trained(state, x, one_hot(y), 0.5, 2) for x, y in (silo_data(silo) for silo in range(3))]
            state = {name: np.mean([u[name].astype(np.float64) for u in updates], axis=0).astype(np.float32)
                     for name in START}
        return state

    def test_a_model_that_the_server_cannot_compute_is_averaged_and_measured_at_the_silos(self):
        ended = self.run_with(**{"evaluation.federated": "true"})
        self.assert_done(ended)
        for name, value in self.expected().items():
            np.testing.assert_allclose(self.final()[name], value, atol=1e-6)
        lines = [json.loads(line) for line in (self.folder / "run/rounds.jsonl").read_text().splitlines()]
        state, correct = self.expected(), 0
        for silo in range(3):
            x, y = silo_data(100 + silo, 30)
            correct += int(((x @ state["fc.weight"].T + state["fc.bias"]).argmax(axis=1) == y).sum())
        self.assertAlmostEqual(lines[-1]["federated"]["accuracy"], correct / 90, places=12)
        self.assertIn("worker: ready", ended[1][1] + ended[1][2])
        self.assertIn("softmax regression", ended[1][1] + ended[1][2])

    def central_data(self):
        """A coordinator's folder and the manifest of its public set."""
        folder = self.folder / "central"
        folder.mkdir()
        for split, seed, count in (("train", 50, 300), ("test", 60, 90)):
            x, y = silo_data(seed, count)
            np.save(folder / f"{split}-images.npy", x)
            np.save(folder / f"{split}-labels.npy", y.astype(np.int64))
        self.data = folder
        self.draw()
        return {"data.path": folder, "data.manifest": self.manifest, "data.classes": "[]", "data.shape": "[]",
                "evaluation.central": "true"}

    def test_a_worker_at_the_server_measures_and_distils_as_the_server_itself_does(self):
        own = {**self.central_data(), "model.name": "linear", "federation.rounds": 2, "start.model": "kd",
               "consolidation.transfer": "public", "consolidation.student": "untrained", "consolidation.weights": "equal",
               "validation.source": "server", "consolidation.epochs": 20,
               "consolidation.lr": 0.05}
        untrained = {**own, "start.model": "random", "federation.rounds": 0}
        self.assert_done(self.run_with("untrained", **untrained))
        self.model.write_bytes(write_body(self.final("untrained")))
        self.assert_done(self.run_with("own", **own))
        os.environ.pop("PLAIN_FAULT", None)
        by_worker = {**own, "model.name": f"state:{self.model}", "worker.command": WORKER}
        self.assert_done(self.run_with("by-worker", **by_worker))
        for name, value in self.final("own").items():
            np.testing.assert_allclose(self.final("by-worker")[name], value, atol=1e-5)
        lines = [[json.loads(line) for line in (self.folder / run / "rounds.jsonl").read_text().splitlines()]
                 for run in ("own", "by-worker")]
        for mine, theirs in zip(*lines):
            self.assertAlmostEqual(mine["loss"], theirs["loss"], places=5)
            self.assertEqual(mine["accuracy"], theirs["accuracy"])
        self.assertGreater(lines[1][0]["accuracy"], 0.5)  # the distilled start has learned

    def test_silos_with_and_without_workers_train_one_model(self):
        x, y = silo_data(2)
        folder = self.folder / "silo-2"
        folder.mkdir()
        np.save(folder / "train-images.npy", x)
        np.save(folder / "train-labels.npy", y.astype(np.int64))
        settings = {"model.name": "linear", "data.held_out": 0, "train.batch_size": 60, "train.weight_decay": 0,
                    "evaluation.federated": "false", "federation.rounds": 3, "checkpoints.keep": 9}
        server, port = self.start_server(**settings)
        clients = [self.worker(0, port), self.worker(1, port),
                   self.start(CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", "silo-2", "--set",
                              "data.set=tensors", "--set", f"data.path={folder}")]
        self.assert_done([self.finish(child) for child in (*clients, server)])
        self.model.write_bytes(write_body(START))
        start = read_body((self.folder / "run/checkpoints/round-00000.safetensors").read_bytes())
        for name, value in self.expected(3, start).items():
            np.testing.assert_allclose(self.final()[name], value, atol=1e-5)

    def test_a_silo_keeps_the_last_and_the_best_model_and_a_line_a_round(self):
        kept = self.folder / "kept"
        ended = self.run_with(more=(("--set", f"keep.folder={kept}"), (), ()),
                              **{"evaluation.federated": "true", "validation.source": "federated"})
        self.assert_done(ended)
        terms = json.loads((self.folder / "run/run.json").read_text())["terms"]
        run = kept / terms[:12]
        for mine, servers in (("last", "final"), ("best", "best")):
            with self.subTest(mine):
                state = read_body((self.folder / f"run/{servers}.safetensors").read_bytes())
                for name, value in read_body((run / f"{mine}.safetensors").read_bytes()).items():
                    np.testing.assert_array_equal(value, state[name])
        lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
        self.assertEqual([line["round"] for line in lines], [0, 1, 2, 3])
        self.assertEqual(lines[-1]["took_part"], ["silo-0", "silo-1", "silo-2"])
        x, y = silo_data(100, 30)
        state = self.expected()
        right = ((x @ state["fc.weight"].T + state["fc.bias"]).argmax(axis=1) == y).mean()
        self.assertAlmostEqual(lines[-1]["held_out"]["accuracy"], right, places=12)
        self.assertEqual(json.loads((run / "terms.json").read_text())["plan"]["rounds"], 3)
        self.assertIn("round 3 of 3: the global model of 3 clients (silo-0, silo-1, silo-2)", ended[1][1] + ended[1][2])

    def test_scores_and_metrics_of_workers_add_up_over_silos(self):
        own = ("--set", "share_metrics=silo")
        self.assert_done(self.run_with(more=(own, (), ()), **{"evaluation.scores": "true", "validation.metric": "auc",
                                                              "validation.source": "federated"}))
        line = json.loads((self.folder / "run/rounds.jsonl").read_text().splitlines()[-1])
        federated, state = line["metrics"]["federated"], self.expected()
        x, y = (np.concatenate(parts) for parts in zip(*(silo_data(100 + silo, 30) for silo in range(3))))
        logits = x.astype(np.float64) @ state["fc.weight"].T + state["fc.bias"]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for label in range(CLASSES):
            mine, others = probabilities[y == label, label], probabilities[y != label, label]
            area = np.mean((mine[:, None] > others) + 0.5 * (mine[:, None] == others))
            self.assertLessEqual(abs(federated["class_auc"][label] - area), federated["class_auc_error"][label] + 1e-9)
        self.assertLess(max(federated["class_auc_error"]), 0.05)
        # Means by weight: 0.25, 0.5 and 0.75 with weights 1, 2 and 3.
        self.assertAlmostEqual(line["metrics"]["own"]["dice"], (0.25 + 2 * 0.5 + 3 * 0.75) / 6, places=12)
        self.assertEqual(list(line["silo_metrics"]), ["silo-0"])

    def test_workers_teach_and_are_students(self):
        ended = self.run_with(**{"start.model": "kd", "consolidation.transfer": "student",
                                 "validation.source": "federated", "federation.rounds": 1})
        self.assert_done(ended)
        summary = json.loads((self.folder / "run/summary.json").read_text())
        self.assertEqual(summary["start_used"], "kd")
        self.assertEqual(summary["left_out"], [])
        self.assertEqual({model["client"] for model in summary["models"]}, {"silo-0", "silo-1", "silo-2"})

    def test_a_worker_that_fails_once_costs_time_and_no_bits(self):
        self.assert_done(self.run_with("undisturbed"))
        undisturbed = self.final("undisturbed")
        marks = [self.folder / f"mark-{i}" for i in range(3)]
        ended = self.run_with(faults=[f"train=die@{marks[0]}", f"train=garbage@{marks[1]}", f"train=stop@{marks[2]}"],
                              more=((), (), ("--set", "worker.silence=1")))
        self.assert_done(ended)
        for name, value in undisturbed.items():
            np.testing.assert_array_equal(self.final()[name], value)
        self.assertEqual(json.loads((self.folder / "run/summary.json").read_text())["left_out"], [])
        words = [out + err for _, out, err in ended[1:]]
        for word in ("killed by signal 9", "worker: about to die", "started again (1 of 3)"):
            self.assertIn(word, words[0])
        self.assertIn("broke the protocol of workers", words[1])
        self.assertIn("reported nothing for 1 s", words[2])

    def test_a_worker_that_always_fails_costs_its_silo_and_not_the_run(self):
        for fault, word in (("train=die", "killed by signal 9"), ("train=schema", "another schema")):
            run = fault.replace("=", "-")
            with self.subTest(fault):
                ended = self.run_with(run, faults=["", "", fault], more=((), (), ("--set", "worker.restarts=1")),
                                      **{"federation.min_clients": 2, "federation.rounds": 1})
                self.assertEqual(ended[0][0], 0, ended[0][2])
                line = json.loads((self.folder / run / "rounds.jsonl").read_text().splitlines()[-1])
                self.assertEqual(sorted(line["clients"]), ["silo-0", "silo-1"])
                self.assertIn("its worker process", json.dumps(line) + ended[0][1] + ended[0][2])
                self.assertIn(word, ended[3][1] + ended[3][2])
                self.assertIn("worker.restarts", ended[3][1] + ended[3][2])

    def test_a_task_that_the_worker_declines_is_told_by_its_kind_alone(self):
        ended = self.run_with(faults=["", "", "train=fail"], **{"federation.min_clients": 2, "federation.rounds": 1})
        self.assertEqual(ended[0][0], 0, ended[0][2])
        self.assertIn("scan 17 of ward 3 is unreadable", ended[3][1] + ended[3][2])
        self.assertNotIn("started again", ended[3][1] + ended[3][2])
        told = ended[0][1] + ended[0][2] + "".join(
            path.read_text(errors="replace") for path in (self.folder / "run").glob("*.json*"))
        self.assertNotIn("ward 3", told)
        self.assertIn("its data", told)

    def test_a_worker_that_cannot_serve_is_refused_at_once(self):
        def refused(*words, fault="", command=WORKER, more=()):
            client = self.worker(0, 1, *more, fault=fault, command=command)
            code, out, err = self.finish(client)
            self.assertEqual(code, 2, out + err)
            for word in words:
                self.assertIn(word, out + err)
            self.assertNotIn("internal error", out + err)
        refused("no-such-trainer", "exit status 127", command="no-such-trainer --gpu")
        refused("No module named 'monai'", "exit status 1", fault="hello=exit")
        refused("speaks version 99", "version 1", fault="version")
        refused("reported nothing for 0.3 s", fault="hello=stop", more=("--set", "worker.start=0.3"))
        refused("HSW1", fault="hello=garbage")
        refused("data.path and worker.command exclude each other", more=("--set", "data.path=/data"))

    def test_check_tells_what_a_worker_brings_and_a_silo_without_one_what_it_needs(self):
        _, port = self.start_server()
        checking = self.worker(0, port, "--check")
        code, out, err = self.finish(checking)
        self.assertEqual(code, 0, out + err)
        self.assertIn("60 training and 30 held-out samples", out)
        self.assertIn("note        softmax regression", out)
        done = self.run_program(CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", "silo-1", *self.data_settings(),
                                "--check")
        self.assert_fails(done, 2, "--worker")

    def test_a_worker_of_another_model_is_refused_with_the_tensor(self):
        _, port = self.start_server(**{"model.name": "cnn", "data.shape": "[1,12,12]"})
        code, out, err = self.finish(self.worker(0, port))
        self.assertNotEqual(code, 0)
        self.assertIn("the worker's model is not the run's, 'cnn", out + err)

    def test_the_server_says_at_its_start_what_it_cannot_compute(self):
        for settings, words in (
                ({"evaluation.central": "true"}, "evaluation.central"),
                ({"validation.source": "server"}, "validation.source=federated"),
                ({"start.model": "kd", "validation.source": "federated"}, "consolidation.transfer=student"),
                ({"start.head": "sums"}, "start.head"),
                ({"model.name": "state:/no/such.safetensors"}, "/no/such.safetensors")):
            with self.subTest(settings):
                done = self.run_program(*self.server_arguments(**settings))
                self.assertIn(done.returncode, (2, 3), done.stderr)
                self.assertIn(words, done.stderr)
                self.assertNotIn("internal error", done.stderr)

    def test_a_file_that_is_no_start_is_refused(self):
        self.model.write_bytes(write_body({**START, "fc.bias": np.array([0, np.nan, 0], np.float32)}))
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "fc.bias", "not finite")
        self.model.write_bytes(write_body({"steps": np.array(3)}))
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "no tensor of it is trained")

    def test_a_client_that_ends_takes_its_worker_along(self):
        _, port = self.start_server()
        pids = self.folder / "pid"
        client = self.worker(0, port, command=f"echo $$ > {pids}; exec {WORKER}")
        wait_for(lambda: pids.exists() and pids.read_text().strip(), "the worker")
        wait_for(lambda: json.loads((self.folder / "run/status.json").read_text())["present"]
                 if (self.folder / "run/status.json").exists() else True, "the client")
        client.send_signal(signal.SIGTERM)
        self.finish(client)
        pid = int(pids.read_text())
        wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2],
                 "the worker's end")
