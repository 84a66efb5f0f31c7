"""experiments/compare.py over silos that exist: plans, calls over programs that only pretend to train, and real runs.

    HEADSTART_BIN=build/release /usr/bin/python3 -m unittest tests/integration/compare_silos_test.py
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.errors import CompareError  # noqa: E402
from common.vocabulary import Vocabulary  # noqa: E402
from comparison.plan import Plan  # noqa: E402
from comparison.remote import Lobby, what_silos_run  # noqa: E402
from comparison.silos import silos_at  # noqa: E402

MARY = {"name": "st-mary", "data": {"set": "tensors", "path": "/data/mary"}}
BERN = {"name": "b", "worker.command": "python3 train.py"}
PLACE = {"listen.address": "0.0.0.0", "listen.port": 9840}


def plan_of(**document: Any) -> Plan:
    plan = Plan.from_json(document, "p.json")
    plan.check()
    return plan


class Plans(unittest.TestCase):
    def check_message(self, said: str, **document: Any) -> None:
        with self.assertRaises(CompareError) as caught:
            plan_of(**document)
        self.assertIn(said, str(caught.exception))
        self.assertEqual(caught.exception.code, 2)

    def test_silos_take_the_place_of_partitions_and_are_counted(self) -> None:
        plan = plan_of(silos=[MARY, BERN], seeds=[1, 2])
        self.assertEqual((plan.partitions, plan.mode, plan.clients), (["existing"], "processes", 2))
        self.assertEqual([run.name for run in plan.runs()],
                         [f"existing-seed{seed}-{start}" for seed in (1, 2) for start in ("random", "best", "kd-student")])
        again = Plan.from_json(json.loads(json.dumps(plan.to_json())), "plan.json")
        again.check()
        self.assertEqual(again, plan)

    def test_what_does_not_go_with_silos_is_refused(self) -> None:
        silos = [MARY, BERN]
        self.check_message("partitions: with silos nothing is drawn; leave uniform out", silos=silos, partitions=["uniform"])
        self.check_message("silos have their own; take mode processes", silos=silos, mode="simulation")
        self.check_message("central_points: with silos nobody has all data", silos=silos, central_points=[5])
        self.check_message("clients: expected 2, the number of silos, got 3", silos=silos, clients=3)
        self.check_message("setting draw.test: with silos nothing is drawn", silos=silos, settings={"draw": {"test": 5}})
        self.check_message("partition existing stands for silos that exist: name them", partitions=["existing"])
        self.check_message("setting store.pretrained: compare.py sets it", silos=silos, settings={"store.pretrained": "x"})
        self.check_message("setting data.manifest: compare.py sets it", settings={"data.manifest": "public.json"})
        self.check_message("silos: 'a' is not dict", silos=["a"])
        self.check_message("silos: expected list", silos="a")

    def test_a_silo_needs_a_name_of_its_own_and_data(self) -> None:
        self.check_message("silos: 'st-mary' stands twice", silos=[MARY, BERN, MARY])
        for name in ("St Mary", "", ".hidden", "x" * 65, "a/b", 3, None):
            self.check_message(f"got {name!r}", silos=[MARY | {"name": name}])
        self.check_message("got None", silos=[{"data.path": "x"}])
        self.check_message("silo a: nothing says where its data are", silos=[{"name": "a", "data.set": "tensors"}])
        self.check_message("silo a: leave store.pretrained out", silos=[{"name": "a", "data.path": "x", "store": {"pretrained": "y"}}])
        self.check_message("silo a: leave server out", silos=[{"name": "a", "data.path": "x", "server": "ws://h:1"}])

    def test_words_of_a_silos_settings_are_checked(self) -> None:
        vocabulary = Vocabulary({
            "partitions": {"settings": ["partition.kind"], "words": [{"name": "uniform"}]},
            "sharing": {"settings": ["share_model"], "words": [{"name": "server"}, {"name": "peers"}]}})
        plan_of(silos=[MARY | {"share_model": "peers"}]).check_words(vocabulary)
        with self.assertRaisesRegex(CompareError, "unknown share_model 'pears': did you mean 'peers'"):
            plan_of(silos=[MARY | {"share_model": "pears"}]).check_words(vocabulary)

    def test_starts_on_public_data_need_the_servers_manifest(self) -> None:
        for start in ("kd-public", "kd-public-worst-equal", "kd-answers", "kd-lifted", "kd-joint+head", "kd-bounded", "auto"):
            self.check_message(f"start {start} distils on public data, and the server has none: name a manifest that says which "
                               "samples of the server are public by data.manifest (headstart-lab partition), or take kd-student",
                               silos=[MARY], starts=["random", start])
            plan_of(silos=[MARY], starts=["random", start], settings={"data.manifest": "public.json"})
        self.check_message("start random-feddf distils on public data", silos=[MARY], starts=["random-feddf"])
        self.check_message("federation.strategy=feddf distils on public data", silos=[MARY], starts=["random"],
                           settings={"federation": {"strategy": "feddf"}})
        self.check_message("validation.source=server rates models on data of the server, and it has none", silos=[MARY],
                           settings={"validation.source": "server"})
        plan_of(silos=[MARY], starts=["random", "best", "average", "kd-student", "kd-student-untrained", "best+head"])
        plan_of(silos=[MARY], starts=["auto"], settings={"start.candidates": ["random", "best_local"]})

    def test_remote_needs_one_place_and_the_number_of_silos(self) -> None:
        self.check_message("say how many silos there are (clients), or name them (silos)", mode="remote", settings=PLACE)
        self.check_message("set listen.address", mode="remote", clients=3, settings={"listen.port": 9840})
        self.check_message("set listen.port", mode="remote", clients=3, settings=PLACE | {"listen.port": 0})
        self.check_message("jobs: in mode remote runs use one port", mode="remote", clients=3, settings=PLACE, jobs=2)
        self.check_message("mode processes only", mode="remote", clients=3, settings=PLACE | {"client.threads": 2})
        self.check_message("silo st-mary: data.set is for its own people to set", mode="remote", silos=[MARY], settings=PLACE)
        self.check_message("start kd-public distils on public data", mode="remote", clients=3, settings=PLACE, starts=["kd-public"])
        self.assertEqual(plan_of(mode="remote", clients=3, settings=PLACE).partitions, ["existing"])
        self.assertEqual(plan_of(mode="remote", silos=[{"name": "a"}, {"name": "b"}], settings=PLACE).clients, 2)

    def test_the_silos_people_are_told_what_to_run(self) -> None:
        named = plan_of(mode="remote", silos=[{"name": "a"}, {"name": "b"}],
                        settings=PLACE | {"listen.address": "10.0.0.1", "data.set": "tensors", "data.path": "/central"})
        first, *commands = what_silos_run(named)
        self.assertIn("2 silos start, once for all runs", first)
        self.assertEqual(commands[1], "  headstart-client --server ws://10.0.0.1:9840 --name b --set data.set=tensors --set "
                                      "data.path=ITS-FOLDER --set store.pretrained=A-FOLDER --set share_model=peers --forever")
        several = plan_of(mode="remote", clients=3, starts=["random"], settings=PLACE | {"tls": {"certificate": "c.pem"}})
        [command] = what_silos_run(several)[1:]
        self.assertIn("--server wss://THIS-MACHINE:9840 --name NAME", command)
        self.assertIn("tls.key=ITS.key", command)
        self.assertNotIn("share_model", command)


class Folders(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_each_folder_with_labels_or_a_table_is_a_silo_in_the_order_of_names(self) -> None:
        for place in ("b/train-labels.npy", "a/train.csv", "c/notes.txt", "d/deep/train-labels.npy"):
            (self.folder / place).parent.mkdir(parents=True)
            (self.folder / place).touch()
        (self.folder / "train-labels.npy").touch()
        entries, others = silos_at(self.folder)
        self.assertEqual(entries, [{"name": name, "data": {"path": str(self.folder / name)}} for name in ("a", "b")])
        self.assertEqual(others, ["c", "d"])

    def test_no_silos_there_are_one_sentence(self) -> None:
        with self.assertRaisesRegex(CompareError, "no folder directly in it holds train-labels.npy or train.csv") as caught:
            silos_at(self.folder)
        self.assertEqual(caught.exception.code, 3)
        with self.assertRaisesRegex(CompareError, "silos.json: No such file"):
            silos_at(self.folder / "silos.json")
        (self.folder / "silos.json").write_text('{"name": "a"}')
        with self.assertRaisesRegex(CompareError, r"silos.json: expected a JSON list, \[...\]"):
            silos_at(self.folder / "silos.json")

    def test_who_is_waited_for_is_read_from_the_audit_log(self) -> None:
        named = Lobby(plan_of(mode="remote", silos=[{"name": name} for name in "abc"], settings=PLACE), self.folder)
        counted = Lobby(plan_of(mode="remote", clients=3, settings=PLACE), self.folder)
        self.assertEqual(named.text(), "waiting for a, b, c; joined: none")
        self.assertEqual(counted.text(), "waiting for 3 silos; joined: none")
        events = [{"event": "server started"}, {"event": "joined", "client": "b"}, {"event": "joined", "client": "a"},
                  {"event": "connection lost", "client": "b"},
                  {"event": "refused", "client": "c", "address": "1.2.3.4", "reason": "other classes"}]
        lines = "".join(json.dumps(event) + "\n" for event in events)
        audit = self.folder / "audit.jsonl"
        audit.write_text(lines + '{"event": "joined", "cli')
        self.assertEqual(named.text(), "waiting for b, c; joined: a; refused: c (other classes)")
        self.assertEqual(counted.text(), "waiting for 2 silos; joined: a; refused: c (other classes)")
        audit.write_text(lines + '{"event": "returned", "client": "b"}\n{"event": "joined", "client": "c"}\n')
        self.assertEqual(named.text(), "")
        audit.write_text(audit.read_text() + '{"event": "connection lost", "client": "b"}\n')
        self.assertEqual(named.text(), "")  # once complete, the run goes on


class Calls(unittest.TestCase):
    """Whole calls of compare.py on three folders."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.out = self.folder / "out"
        self.silos = self.folder / "silos"
        self.silos.mkdir()

    def compare(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, cwd=self.folder,
                              env=os.environ | environment, timeout=240)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "experiments" / "compare.py"), "--bin", str(self.bin), *arguments]

    def config(self, name: str) -> dict[str, Any]:
        return json.loads((self.out / "configs" / f"{name}.json").read_text())

    def files_of_silos(self) -> dict[str, tuple[int, bytes]]:
        return {str(file): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
                for file in sorted(self.silos.rglob("*"))}


class FakeCalls(Calls):
    def setUp(self) -> None:
        super().setUp()
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        fake = Path(__file__).with_name("fake_programs.py")
        for name in ("headstart-lab", "headstart-server", "headstart-client"):
            self.put(name, f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {name} "$@"\n')
        for name in ("gamma", "alpha", "beta"):
            (self.silos / name).mkdir()
            (self.silos / name / "train-labels.npy").touch()

    def put(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def test_each_folder_is_a_client_and_nothing_is_drawn(self) -> None:
        (self.silos / "minutes").mkdir()
        done = self.compare("--silos", "silos", "--starts", "random,best,kd-student", "--rounds", "4", "--out", str(self.out),
                            "--set", "data.path=/central", "--set", "client.threads=2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("silos: no silo, as without data: minutes\n", done.stderr)
        self.assertIn("3 silos: alpha, beta, gamma\n", done.stderr)
        names = (self.out / "runs" / "existing-seed1-best" / "names").read_text().split()
        self.assertEqual(names, [f"{name}:{self.silos / name}" for name in ("alpha", "beta", "gamma")])
        self.assertEqual(self.config("existing-seed1-best")["data"], {"set": "tensors", "path": "/central"})
        self.assertEqual(self.config("existing-seed1-best")["validation"], {"source": "federated"})
        self.assertEqual(self.config("existing-seed1-best.beta"), {
            "share_model": "peers", "data": {"set": "tensors", "path": str(self.silos / "beta")},
            "store": {"pretrained": str(self.out / "pretrained" / "beta")}, "threads": 2})
        self.assertNotIn("share_model", self.config("existing-seed1-random.beta"))
        self.assertFalse((self.out / "manifests").exists())
        self.assertIn("silos as they are  random start", done.stdout)
        table, page = (self.out / "table.md").read_text(), (self.out / "report.html").read_text()
        self.assertIn("tensors, 3 silos as they are (alpha, beta, gamma); 4 rounds, seed 1; a server and client processes.", table)
        for text in (table, done.stdout):
            self.assertNotRegex(text, r"(?<![-\w])existing(?![-\w])")
        self.assertIn("so there is no figure.", page)
        drawn = sorted(file.name for file in (self.out / "figures").iterdir())
        self.assertEqual(drawn, ["accuracy-existing.png", "rounds-to-target-best.png", "rounds-to-target-random.png"])

    def test_what_a_silo_says_of_itself_counts_and_a_worker_has_no_data_here(self) -> None:
        silos = [{"name": "a", "data": {"path": "x", "set": "images"}, "share_model": "server"}, BERN]
        (self.folder / "silos.json").write_text(json.dumps(silos))
        done = self.compare("--silos", "silos.json", "--starts", "kd-student", "--rounds", "2", "--out", str(self.out),
                            "--set", "data.set=tensors", "--set", "data.path=/central")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.config("existing-seed1-kd-student.a"), {
            "share_model": "server", "data": {"path": "x", "set": "images"},
            "store": {"pretrained": str(self.out / "pretrained" / "a")}})
        self.assertEqual(self.config("existing-seed1-kd-student.b"),
                         {"share_model": "peers", "worker": {"command": "python3 train.py"}})

    def test_a_silo_that_fails_ends_its_run_and_resume_repeats_it(self) -> None:
        done = self.compare("--silos", "silos", "--starts", "random,best", "--rounds", "2", "--out", str(self.out),
                            "--set", "data.path=/central", FAKE_CLIENT_FAIL="beta")
        self.assertEqual(done.returncode, 8)
        self.assertIn("beta ended with exit code 3", done.stderr)
        self.assertIn(f"| fake: {self.silos / 'beta'}: no such share", done.stderr)
        done = self.compare("--resume", str(self.out), "--silos", "silos")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--silos: ", done.stderr)
        done = self.compare("--resume", str(self.out))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 runs, 2 to do", done.stderr)

    def test_nothing_is_made_where_the_call_is_refused(self) -> None:
        for said, *arguments in (("start kd-public distils on public data", "--starts", "random,kd-public"),
                                 ("a simulation divides one data set", "--mode", "simulation"),
                                 ("leave uniform out", "--partitions", "uniform")):
            done = self.compare("--silos", "silos", "--out", str(self.out), *arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
        done = self.compare("--silos", "bin", "--out", str(self.out))
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
        self.assertFalse(self.out.exists())

    def test_a_cluster_takes_silos_in_folders_and_no_remote_ones(self) -> None:
        self.put("sbatch", "#!/bin/sh\necho $@ >> jobs\necho 7\n")
        path = f"{self.bin}:{os.environ['PATH']}"
        done = self.compare("--silos", "silos", "--starts", "random,best,kd-student", "--out", str(self.out), "--set",
                            "data.path=/central", "--slurm", PATH=path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([word for word in (self.folder / "jobs").read_text().split() if word.startswith("--array")],
                         ["--array=0,1", "--array=2"])
        for task in "012":
            done = self.compare("--resume", str(self.out), "--task", task)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.compare("--resume", str(self.out), "--report").returncode, 0)
        done = self.compare("--mode", "remote", "--clients", "2", "--set", "listen.address=0.0.0.0", "--set", "listen.port=9840",
                            "--out", "elsewhere", "--slurm", PATH=path)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--slurm: in mode remote the silos dial one machine", done.stderr)
        self.assertFalse((self.folder / "elsewhere").exists())


@unittest.skipUnless("HEADSTART_BIN" in os.environ, "HEADSTART_BIN does not name the folder of the programs")
class RealRuns(Calls):
    SMALL = ("--rounds", "2", "--set", "data.set=tensors", "--set", "data.path=central", "--set", "model.channels=[4,4]", "--set",
             "model.hidden=8", "--set", "pretrain.max_epochs=3", "--set", "consolidation.epochs=2", "--set", "train.lr=0.1")
    NAMES = ("clinic", "st-mary", "town")

    def setUp(self) -> None:
        super().setUp()
        from programs import write_dataset

        self.bin = Path(os.environ["HEADSTART_BIN"]).resolve()
        for index, name in enumerate(self.NAMES):
            write_dataset(self.silos / name, 90 + 30 * index, 3)
        write_dataset(self.folder / "central", 3, 60)

    def test_three_folders_with_three_starts(self) -> None:
        before = self.files_of_silos()
        done = self.compare("--silos", "silos", "--starts", "random,best,kd-student", "--out", str(self.out), *self.SMALL)
        self.assertEqual(done.returncode, 0, done.stderr)
        for start in ("random start", "best local model", "KD, student data"):
            self.assertRegex(done.stdout, rf"\n(silos as they are)? +{start} +\d")
        self.assertEqual(self.files_of_silos(), before)
        summaries = {start: json.loads((self.out / "runs" / f"existing-seed1-{start}" / "summary.json").read_text())
                     for start in ("random", "best", "kd-student")}
        models = {start: {model["client"]: model for model in summaries[start]["models"]} for start in ("best", "kd-student")}
        self.assertEqual([sorted(by_name) for by_name in models.values()], [list(self.NAMES)] * 2)
        for name in self.NAMES:  # trained once, for all starts
            self.assertEqual([models[start][name]["reused"] for start in ("best", "kd-student")], [False, True])
            self.assertEqual(models["best"][name]["model"], models["kd-student"][name]["model"])
        self.assertEqual(summaries["kd-student"]["share_model"]["peers"], list(self.NAMES))
        rounds = (self.out / "runs" / "existing-seed1-random" / "rounds.jsonl").read_text().splitlines()
        self.assertEqual([sorted(json.loads(line)["clients"]) for line in rounds[1:]], [list(self.NAMES)] * 2)

    def test_a_silo_whose_samples_are_of_another_shape_is_told_with_its_sentence(self) -> None:
        from programs import write_npy

        write_npy(self.silos / "town" / "train-images.npy", "|u1", (150, 7, 7), bytes(150 * 49))
        done = self.compare("--silos", "silos", "--starts", "random", "--out", str(self.out), *self.SMALL)
        self.assertEqual(done.returncode, 8)
        self.assertIn("town ended with exit code 6", done.stderr)
        self.assertRegex(done.stderr, r"logs/existing-seed1-random/town\.log:\n  \| .*samples of 1x7x7 in 3 classes")

    def test_silos_elsewhere_join_one_run_after_the_other(self) -> None:
        from programs import CLIENT, wait_for

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        (self.folder / "silos.json").write_text(json.dumps([{"name": name} for name in self.NAMES]))
        call = subprocess.Popen(
            self.command("--mode", "remote", "--silos", "silos.json", "--starts", "random,best", "--out", str(self.out),
                         *self.SMALL, "--set", "listen.address=127.0.0.1", "--set", f"listen.port={port}"),
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder)
        children = []
        try:
            for start in ("random", "best"):
                listening = self.out / "runs" / f"existing-seed1-{start}" / "port"
                wait_for(lambda: listening.exists() or call.poll() is not None, "the server of a run")
                children = [subprocess.Popen(
                    [str(CLIENT), "--server", f"ws://127.0.0.1:{port}", "--name", name, "--set", "data.set=tensors", "--set",
                     f"data.path={self.silos / name}", "--set", "share_model=peers"], cwd=self.folder,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in self.NAMES]
                self.assertEqual([child.wait(timeout=120) for child in children], [0, 0, 0])
            out, said = call.communicate(timeout=120)
        finally:
            for process in (call, *children):
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        self.assertEqual(call.returncode, 0, said)
        self.assertIn(f"  headstart-client --server ws://127.0.0.1:{port} --name clinic --set data.set=tensors", said)
        self.assertIn("best local model", out)
        self.assertEqual(list((self.out / "logs" / "existing-seed1-best").iterdir()),
                         [self.out / "logs" / "existing-seed1-best" / "server.log"])
        plan = plan_of(mode="remote", silos=[{"name": name} for name in (*self.NAMES, "late")], settings=PLACE)
        text = Lobby(plan, self.out / "runs" / "existing-seed1-best").text()
        said, _, joined = text.partition("; joined: ")
        self.assertEqual((said, sorted(joined.split(", "))), ("waiting for late", list(self.NAMES)))


if __name__ == "__main__":
    unittest.main()
