"""What experiments/compare_peers.py makes of the folders of peers, and whole calls of it: over programs that only
pretend to train, and one over the real ones.

    python3 -m unittest tests/integration/compare_peers_test.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from compare_test import ExternalReferences  # noqa: E402
from common.errors import CompareError  # noqa: E402
from common.vocabulary import Vocabulary, read_vocabulary  # noqa: E402
from peers.exchange import free_ports  # noqa: E402
from peers.exchange_report import findings, outcome_table, peers_table  # noqa: E402
from peers.exchange_results import Result, Results, RoundOfPeers  # noqa: E402
from peers.plan import PeerPlan, Run, load_plan  # noqa: E402
from peers.rows import Peer  # noqa: E402
from programs import BIN, LAB, write_dataset  # noqa: E402

DEMO = ROOT / "experiments/plans/exchange/demo.json"


def result(partition: str, method: str, before: tuple[float, ...], after: tuple[float, ...], *, sent: int = 2_000_000,
           states: tuple[str, ...] = ("a", "b"), missing: int = 0) -> Result:
    """Two peers; own accuracy is 0.2 above global."""
    def line(overall: tuple[float, ...], count: int) -> RoundOfPeers:
        return RoundOfPeers(overall, tuple(value + 0.2 for value in overall), (count, count), (3.0, 4.0), states)

    return Result(Run(partition, method), (line(before, 0), line(before, sent // 2), line(after, sent)), ((1,), (0,)),
                  (90, 180), ("headstart-peer 0.1.0",), missing)


def results(*found: Result, **plan: Any) -> Results:
    values = {"partitions": list(dict.fromkeys(one.run.partition for one in found)), "peers": 2,
              "methods": list(dict.fromkeys(one.run.method for one in found)), "settings": {"peers": {"rounds": 2}}}
    holdings = [Peer("silo-0", 90, (100, 0)), Peer("silo-1", 180, (50, 150))]
    return Results(PeerPlan(**values | plan), list(found), {one.run.partition: holdings for one in found})


class Outcome(unittest.TestCase):
    def test_a_row_has_means_the_worst_and_the_best_peer_bytes_a_round_and_the_slowest_peers_seconds(self) -> None:
        table = outcome_table(results(result("primary", "kd", (0.5, 0.6), (0.62, 0.7))))
        self.assertEqual(table.rows, [["primary", "kd", "55.0 → 66.0 (62.0 to 70.0)", "75.0 → 86.0 (82.0 to 90.0)", "1.50",
                                       "8"]])

    def test_each_peer_has_a_row(self) -> None:
        table = peers_table(results(result("primary", "kd", (0.5, 0.6), (0.62, 0.7)),
                                    result("primary", "alone", (0.5, 0.6), (0.5, 0.6))))
        self.assertEqual(table.headers[4:], ["kd", "alone"])
        self.assertEqual(table.rows[1], ["primary", "silo-1", "200", "1", "70.0 / 90.0", "60.0 / 80.0"])

    def test_the_note_says_who_began_with_other_models_and_what_is_missing(self) -> None:
        kd, alone = (result("primary", method, (0.5, 0.6), (0.5, 0.6)) for method in ("kd", "alone"))
        self.assertNotIn("begin", outcome_table(results(kd, alone)).note)
        gossip = result("primary", "gossip", (0.1, 0.1), (0.7, 0.7), states=("c", "c"), missing=3)
        there = results(kd, gossip, methods=["kd", "gossip", "alone"])
        note = outcome_table(there).note
        self.assertIn("the first method of its partition: gossip (primary).", note)
        self.assertIn("Rounds went on without 3 messages.", note)
        self.assertIn("Missing: primary-alone.", note)

    def test_findings_are_against_training_alone_and_one_seed_is_said_to_show_little(self) -> None:
        there = results(result("primary", "kd", (0.5, 0.5), (0.7, 0.6)), result("primary", "alone", (0.5, 0.5), (0.6, 0.6)),
                        result("uniform", "kd", (0.5, 0.5), (0.6, 0.6)), seed=7)
        self.assertEqual(findings(there), [
            "primary: after 2 rounds alone has 60.0% global and 80.0% own accuracy; the others against it, in points: kd "
            "+5.0 global and +5.0 own.",
            "uniform: after 2 rounds, kd at 60.0% global and 80.0% own accuracy.",
            "This is one seed (7): it shows no difference between methods for certain."])
        self.assertEqual(findings(results(partitions=["primary"], methods=["kd"])), ["No run is finished."])


class Plans(unittest.TestCase):
    words = Vocabulary({"partitions": {"settings": ["partition.kind"], "words": [{"name": "primary"}]},
                        "peer_methods": {"settings": ["peers.method"], "words": [{"name": "kd"}, {"name": "alone"}]}})

    def refused(self, pattern: str, **plan: Any) -> None:
        with self.assertRaisesRegex(CompareError, pattern) as caught:
            PeerPlan(**{"partitions": ["primary"], "methods": ["kd"]} | plan).check(self.words)
        self.assertEqual(caught.exception.code, 2)

    def test_what_a_plan_may_not_say(self) -> None:
        self.refused("unknown peers.method 'allone': did you mean 'alone'", methods=["allone"])
        self.refused("unknown partition.kind 'unifrom'", partitions=["unifrom"])
        self.refused("methods: expected at least one and none twice", methods=["kd", "kd"])
        self.refused("partitions: expected at least one", partitions=[])
        self.refused("an exchange needs 2", peers=1)
        self.refused("plan key peers: expected int, got '10'", peers="10")
        self.refused(r"settings.members: compare_peers.py writes it itself \(see the plan's peers\)", settings={"members": []})
        self.refused("settings.peers.method", settings={"peers": {"method": "kd"}})
        self.refused("settings.peers.rounds: expected 1 at least, got 0", settings={"peers": {"rounds": 0}})
        self.refused("settings.kd: expected a section", settings={"kd": 1})
        self.refused("unknown section of draw 'graph'", draw={"graph": {}})

    def test_the_shipped_plan_has_words_that_the_programs_know(self) -> None:
        load_plan(DEMO).check(read_vocabulary(str(LAB)))

    def test_ports_are_free_and_differ(self) -> None:
        self.assertEqual(len(set(free_ports(20))), 20)


class WholeCalls(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.bin, self.out = self.folder / "bin", self.folder / "out"
        self.bin.mkdir()
        fake = Path(__file__).with_name("fake_programs.py")
        for name in ("headstart-lab", "headstart-peer"):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {name} "$@"\n')
            script.chmod(0o755)
        self.plan = self.write_plan({})

    def write_plan(self, changes: dict[str, Any]) -> Path:
        file = self.folder / "plan.json"
        file.write_text(json.dumps({
            "title": "Three <peers>", "peers": 3, "partitions": ["label-dirichlet", "uniform"],
            "methods": ["kd", "gossip", "alone"], "settings": {"peers": {"rounds": 2}}} | changes))
        return file

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, str(ROOT / "experiments/compare_peers.py"), *map(str, arguments)]

    def call(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, cwd=self.folder,
                              env=os.environ | environment, timeout=300)

    def begin(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.call("--plan", self.plan, "--bin", self.bin, "--out", self.out, *arguments, **environment)

    def refused(self, code: int, pattern: str, done: subprocess.CompletedProcess[str]) -> None:
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertNotIn("Traceback", done.stderr)

    def test_the_table_and_the_report_are_whole_and_self_contained(self) -> None:
        done = self.begin()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("6 runs of 3 peers, 2 rounds each", done.stderr)
        rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
        self.assertIn("label-dirichlet kd 60.0 → 71.0 (70.0 to 72.0) 70.0 → 81.0 (80.0 to 82.0) 1.50 6", rows)
        self.assertIn("gossip 10.0 → 71.0 (70.0 to 72.0) 20.0 → 81.0 (80.0 to 82.0) 1.50 6", rows)
        self.assertIn("alone 60.0 → 65.0 (64.0 to 66.0) 70.0 → 75.0 (74.0 to 76.0) 0.00 6", rows)
        self.assertIn("gossip (label-dirichlet); gossip (uniform).", done.stdout)
        page = (self.out / "report.html").read_text()
        references = ExternalReferences()
        references.feed(page)
        self.assertEqual((references.found, references.images), ([], 2))
        for text in ("Three &lt;peers&gt;", "one seed (1)", "kd +6.0 global and +6.0 own", "silo-2", "The 20 commands",
                     "Made by headstart-peer 0.1.0, LibTorch 1.13.1, commit "):
            self.assertIn(text, page)
        numbers = json.loads((self.out / "numbers.json").read_text())
        self.assertEqual(numbers["runs"][0]["edges"], [[0, 1], [0, 2], [1, 2]])
        self.assertEqual(numbers["missing"], [])

    def test_all_methods_have_the_same_seed_partition_and_store_and_ports_of_their_own(self) -> None:
        self.assertEqual(self.begin().returncode, 0)
        files = {method: json.loads((self.out / f"configs/uniform-{method}.json").read_text())
                 for method in ("kd", "gossip", "alone")}
        for method, file in files.items():
            self.assertEqual(file["peers"], {"rounds": 2, "method": method})
            self.assertEqual(file["seed"], 1)
            self.assertEqual(len({member["address"] for member in file["members"]}), 3)
        peers = [line for line in (self.out / "commands.txt").read_text().splitlines() if "headstart-peer" in line]
        self.assertEqual(len(peers), 18)
        self.assertTrue(all(f"store.pretrained={self.out}/pretrained" in line for line in peers))

    def test_a_folder_is_drawn_again_and_damage_is_one_sentence(self) -> None:
        self.assertEqual(self.begin().returncode, 0)
        (self.out / "runs/uniform-alone/silo-1/run/summary.json").unlink()
        done = self.call("--draw", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Missing: uniform-alone.", done.stdout)
        lines = self.out / "runs/uniform-kd/silo-0/run/rounds.jsonl"
        whole = lines.read_text()
        lines.write_text(whole.splitlines()[0] + "\n")
        self.refused(3, r"rounds.jsonl: expected one line a round from 0 to 2", self.call("--draw", self.out))
        lines.write_text(whole.replace('"answering"', '"head"'))
        self.refused(3, r"uniform-kd: a file of a peer is not as headstart-peer writes it", self.call("--draw", self.out))
        self.refused(2, "takes no other option", self.call("--draw", self.out, "--plan", self.plan))
        self.refused(3, "plan.json: No such file", self.call("--draw", self.folder / "none"))

    def test_an_existing_folder_is_refused_and_left_alone(self) -> None:
        self.out.mkdir()
        self.refused(4, f"{self.out} exists already: name another by --out", self.begin())
        self.assertEqual(list(self.out.iterdir()), [])

    def test_what_is_wrong_is_said_before_a_folder_is_made(self) -> None:
        for name in ("headstart-peer", "headstart-lab"):
            hidden = (self.bin / name).rename(self.folder / "hidden")
            self.refused(2, f"{name} not found in .*: build the project first", self.begin())
            hidden.rename(self.bin / name)
        self.write_plan({"partitions": ["unifrom"]})
        self.refused(2, "did you mean 'uniform'", self.begin())
        self.write_plan({"round": 3})
        self.refused(2, "plan.json: unknown key 'round'", self.begin())
        self.assertFalse(self.out.exists())

    def test_a_peer_that_fails_is_named_with_its_last_line_and_the_others_are_stopped(self) -> None:
        done = self.begin(FAKE_PEER_FAIL="gossip:silo-1")
        self.refused(8, r"label-dirichlet-gossip failed. silo-1 ended with exit code 5: fake: port in use \(.*silo-1/peer.log",
                     done)
        self.assertTrue((self.out / "runs/label-dirichlet-kd/silo-0/run/summary.json").is_file())
        self.assertFalse((self.out / "runs/label-dirichlet-alone").exists())

    def test_an_interrupted_call_leaves_no_child(self) -> None:
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        command = self.command("--plan", self.plan, "--bin", self.bin, "--out", self.out)
        with subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"FAKE_PEER_HANG": "kd", "FAKE_PIPE": str(pipe)}) as call:
            # Held open for writing too: a reader sees no end between two peers.
            with os.fdopen(os.open(pipe, os.O_RDWR), "r") as reader:
                children = [int(reader.readline()) for _ in range(3)]
            call.send_signal(signal.SIGINT)
            _, said = call.communicate(timeout=60)
        self.assertEqual(call.returncode, 130)
        self.assertIn("Interrupted. All peers are stopped.", said)
        for child in children:
            with self.assertRaises(ProcessLookupError):
                os.kill(child, 0)

    def test_real_peers(self) -> None:
        data = self.folder / "data"
        write_dataset(data)
        training = {"optimizer": "sgd", "lr": 0.05, "batch_size": 16}
        self.write_plan({
            "partitions": ["uniform"], "methods": ["kd", "alone"],
            "draw": {"data": {"set": "tensors", "path": str(data)}, "draw": {
                "validation": 0, "public_large": 0, "public_small": 0, "public_labeled": 0, "clients": 0, "test": 0}},
            "settings": {"data": {"set": "tensors", "classes": 3, "shape": [1, 12, 12], "mean": [0.5], "deviation": [0.5]},
                         "model": {"channels": [2, 2], "kernel": 3, "hidden": 8, "second_head": True},
                         "pretrain": training | {"max_epochs": 2}, "train": training | {"epochs": 1},
                         "kd": training | {"epochs": 1}, "peers": {"rounds": 2}}})
        done = self.call("--plan", self.plan, "--bin", BIN, "--out", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Does not begin with the same models", done.stdout)
        kd, alone = json.loads((self.out / "numbers.json").read_text())["runs"]
        self.assertEqual([len(kd["rounds"]), kd["missing_messages"]], [3, 0])
        self.assertGreater(kd["bytes_a_peer_and_round"], alone["bytes_a_peer_and_round"])
        self.assertEqual(kd["rounds"][0]["global"], alone["rounds"][0]["global"])


if __name__ == "__main__":
    unittest.main()
