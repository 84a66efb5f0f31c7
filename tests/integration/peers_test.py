"""headstart-peer as real processes: the bytes of the simulation, kills, mutual TLS, and what is refused."""

import json
import os
import random
import signal
import socket
import sqlite3
import unittest
from pathlib import Path

from tests.integration.programs import BIN, LAB, ProgramsTest, wait_for

PEER = BIN / "client/peer/headstart-peer"
STUDY = {"model": {"name": "cnn", "channels": [4, 4], "hidden": 8, "second_head": True},
         "pretrain": {"max_epochs": 2, "batch_size": 8},
         "kd": {"epochs": 1, "batch_size": 8}, "train": {"epochs": 1, "batch_size": 8}}


def free_ports(count: int) -> list:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class PeersTest(ProgramsTest):
    def describe(self, count, method="gossip", rounds=2, scheme="ws", **more):
        """Writes peers.json. The last member does not listen."""
        members = [{"name": f"silo-{i}", "address": f"{scheme}://127.0.0.1:{port}"}
                   for i, port in enumerate(free_ports(count))]
        del members[-1]["address"]
        document = {"seed": 1, "data": {"set": "tensors", "classes": 3, "shape": [1, 12, 12]}, **STUDY,
                    "peers": {"method": method, "rounds": rounds}, "members": members}
        for section, values in more.items():
            document[section] = {**document.get(section, {}), **values}
        self.peers = self.folder / "peers.json"
        self.peers.write_text(json.dumps(document))
        return document

    def arguments(self, index, *more, peers=None):
        return [PEER, "--peers", peers or self.peers, "--name", f"silo-{index}", *self.data_settings(),
                "--set", f"data.manifest={self.manifest}", "--set", f"data.share={index}",
                "--set", f"run.folder={self.folder}/peer-{index}", *more]

    def settings(self, credentials):
        return [word for key, value in credentials.items() for word in ("--set", f"{key}={value}")]

    def finish_well(self, children):
        for child in children:
            code, _, err = self.finish(child)
            self.assertEqual(code, 0, err)

    def lines(self, index):
        text = (self.folder / f"peer-{index}" / "rounds.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def digests(self, count):
        return [self.lines(i)[-1]["sha256"] for i in range(count)]

    def studied_digests(self, method, count, rounds):
        """What the study computes for the same peers, in one process."""
        plan = {"study": {"partitions": ["uniform"], "seeds": [1], "graphs": ["full"], "methods": [method],
                          "measures": ["kl"], "averages": ["probabilities"]},
                "data": {"set": "tensors", "path": str(self.data)},
                "draw": {"validation": 30, "public_large": 60, "public_small": 0, "public_labeled": 0, "clients": 0,
                         "test": 0},
                "partition": {"clients": count}, **STUDY, "peers": {"rounds": rounds}}
        (self.folder / "plan.json").write_text(json.dumps(plan))
        study = self.folder / "study.sqlite"
        done = self.run_program(LAB, "peers", "--config", self.folder / "plan.json", "--study", study)
        self.assertEqual(done.returncode, 0, done.stderr)
        with sqlite3.connect(study) as connection:
            return json.loads(connection.execute("select metrics from cells").fetchone()[0])["digests"]


class SameBytes(PeersTest):
    def test_processes_compute_what_the_study_computes(self):
        self.draw(clients=3)
        for method in ("kd", "gossip", "fedmd"):
            with self.subTest(method):
                self.describe(3, method)
                folder = self.folder
                children = [self.start(*self.arguments(i)) for i in range(3)]
                self.finish_well(children)
                self.assertEqual(self.digests(3), self.studied_digests(method, 3, 2))
                for i in range(3):
                    summary = json.loads((folder / f"peer-{i}/summary.json").read_text())
                    self.assertEqual(summary["missing"], {})
                    (folder / f"peer-{i}").rename(folder / f"{method}-{i}")
                (folder / "study.sqlite").unlink()

    def test_a_peer_that_was_stopped_goes_on_and_a_finished_one_says_so(self):
        self.draw(clients=2)
        self.describe(2, rounds=3)
        first = self.start(*self.arguments(0))
        wait_for(lambda: (self.folder / "peer-0/rounds.jsonl").exists() and self.lines(0), "the pre-training")
        first.send_signal(signal.SIGTERM)
        code, _, err = self.finish(first)
        self.assertEqual(code, 130, err)
        children = [self.start(*self.arguments(i)) for i in range(2)]
        self.finish_well(children)
        self.assertEqual(self.lines(0)[-1]["round"], 3)
        again = self.run_program(*self.arguments(0))
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("the run is over", again.stdout + again.stderr)


class Kills(PeersTest):
    COUNT = 6

    def arguments(self, index, *more, peers=None):
        # Nobody reads the pipes of the others while one is waited for: they must not fill.
        return super().arguments(index, "--set", "log=error", *more, peers=peers)

    def test_killed_at_random_moments_and_started_again_they_end_in_the_same_bytes(self):
        """HEADSTART_LONG: 40 kills."""
        kills = 40 if "HEADSTART_LONG" in os.environ else 6
        rounds = kills + 12
        self.draw(clients=self.COUNT)
        graph = {"graph": {"kind": "ring"}}
        document = self.describe(self.COUNT, rounds=rounds, **graph)
        document["members"][-1]["address"] = f"ws://127.0.0.1:{free_ports(1)[0]}"  # any edge of the ring
        self.peers.write_text(json.dumps(document))
        children = [self.start(*self.arguments(i)) for i in range(self.COUNT)]
        draw = random.Random(1)
        done = 0
        while done < kills:
            victim = draw.randrange(self.COUNT)
            before = self.progress(victim)
            if before >= rounds - 1:
                break
            wait_for(lambda: self.progress(victim) > before or children[victim].poll() is not None, "another round")
            children[victim].kill()
            children[victim].communicate()
            done += 1
            children[victim] = self.start(*self.arguments(victim))
        self.assertGreater(done, kills // 2)
        self.finish_well(children)
        disturbed = self.digests(self.COUNT)
        for i in range(self.COUNT):
            self.assertEqual([line["round"] for line in self.lines(i)], list(range(rounds + 1)))
            self.assertTrue(all(not line["missing"] for line in self.lines(i)))
            (self.folder / f"peer-{i}").rename(self.folder / f"disturbed-{i}")
        self.finish_well([self.start(*self.arguments(i)) for i in range(self.COUNT)])
        self.assertEqual(self.digests(self.COUNT), disturbed)

    def progress(self, index):
        file = self.folder / f"peer-{index}/rounds.jsonl"
        return file.read_text().count("\n") if file.exists() else 0


class Certificates(PeersTest):
    def setUp(self):
        super().setUp()
        self.draw(clients=2)
        self.make_authority()

    def test_peers_under_mutual_tls(self):
        self.describe(2, scheme="wss")
        credentials = [self.certify(f"silo-{i}", "--peer") for i in range(2)]
        children = [self.start(*self.arguments(i, *self.settings(credentials[i]))) for i in range(2)]
        self.finish_well(children)
        audit = [json.loads(line) for line in (self.folder / "peer-0/audit.jsonl").read_text().splitlines()]
        self.assertIn("silo-1", [event.get("certificate") for event in audit if event["event"] == "connected"])
        self.assertTrue([event for event in audit if event["event"] == "received" and event["accepted"]])

    def test_a_clients_certificate_is_none_of_a_peer(self):
        self.describe(2, scheme="wss")
        listening = self.start(*self.arguments(0, *self.settings(self.certify("silo-0", "--peer"))))
        wait_for(lambda: (self.folder / "peer-0/port").exists(), "the port")
        done = self.run_program(*self.arguments(1, "--check", *self.settings(self.certify("silo-1"))))
        self.assertEqual(done.returncode, 5, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"FAILED +silo-0: .*certificate")
        self.assertIsNone(listening.poll())

    def test_the_certificate_of_another_peer_is_refused(self):
        self.describe(2, scheme="wss")
        listening = self.start(*self.arguments(0, *self.settings(self.certify("silo-0", "--peer"))))
        wait_for(lambda: (self.folder / "peer-0/port").exists(), "the port")
        done = self.run_program(*self.arguments(1, "--check", *self.settings(self.certify("mallory", "--peer"))))
        self.assertEqual(done.returncode, 5, done.stdout + done.stderr)
        self.assertIn("it calls itself 'silo-1', and its certificate is that of 'mallory'", done.stdout)
        self.assertIsNone(listening.poll())


class BeforeTheRun(PeersTest):
    def setUp(self):
        super().setUp()
        self.draw(clients=2)

    def refusal(self, *arguments):
        done = self.run_program(*arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr.strip().splitlines()[-1]

    def test_check_greets_the_neighbours_and_says_what_differs(self):
        self.describe(2)
        done = self.run_program(*self.arguments(1, "--check"))
        self.assertEqual(done.returncode, 5)
        self.assertRegex(done.stdout, r"FAILED +silo-0: .*refused")
        listening = self.start(*self.arguments(0))
        wait_for(lambda: (self.folder / "peer-0/port").exists(), "the port")
        done = self.run_program(*self.arguments(1, "--check"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"ok +silo-0 answers at ws://127.0.0.1:\d+, 0 rounds done")
        other = self.folder / "other.json"
        document = json.loads(self.peers.read_text())
        document["train"]["lr"] = 0.02
        other.write_text(json.dumps(document))
        done = self.run_program(*self.arguments(1, "--check", peers=other))
        self.assertEqual(done.returncode, 5)
        self.assertIn("it differs from this peer in train; all peers need the same peers.json", done.stdout)
        self.assertIsNone(listening.poll())
        done = self.run_program(*self.arguments(0, "--check"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("silo-1 dials this peer", done.stdout)

    def test_what_cannot_be_is_said_in_a_sentence(self):
        self.describe(2)
        self.assertIn("'silo-7' is no member of this run; its members are silo-0, silo-1",
                      self.refusal(*self.arguments(7)))
        self.assertIn("--peers peers.json is needed", self.refusal(PEER, "--name", "silo-0"))
        self.assertIn("--name is needed", self.refusal(PEER, "--peers", self.peers))
        self.assertIn("missing.json", self.refusal(*self.arguments(0, peers=self.folder / "missing.json")))
        document = json.loads(self.peers.read_text())
        document["members"][0]["address"] = "wss://127.0.0.1:1"
        self.peers.write_text(json.dumps(document))
        self.assertIn("the address of 'silo-0' is wss://127.0.0.1:1, and tls.* is not set",
                      self.refusal(*self.arguments(0)))
        (self.folder / "peer-0").mkdir()
        (self.folder / "peer-0/notes").write_text("mine")
        self.describe(2)
        self.assertIn("is not empty and holds no run of a peer", self.refusal(*self.arguments(0)))
        self.describe(2, data={"shape": [1, 10, 10]})
        self.assertIn("do not fit peers.json", self.refusal(*self.arguments(1)))

    def test_metrics(self):
        self.describe(2)
        self.start(*self.arguments(0, "--set", "admin.port=0"))
        port = wait_for(lambda: (self.folder / "peer-0/admin-port").exists() and
                        (self.folder / "peer-0/admin-port").read_text().strip(), "the port of metrics")
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        self.assertIn('headstart_peer_neighbour_connected{neighbour="silo-1"} 0', text)
        self.assertIn("headstart_peer_rounds_configured 2", text)


if __name__ == "__main__":
    unittest.main()
