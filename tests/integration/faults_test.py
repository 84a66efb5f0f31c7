"""Real processes and what befalls them: killed, stopped, cut off, out of disk, clocks that jump. The model is the same."""

import json
import os
import random
import re
import resource
import signal
import socket
import threading
import unittest
from datetime import datetime, timezone
from pathlib import Path

from tests.integration.programs import LAB, SERVER, ProgramsTest, wait_for

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Wire:
    """A TCP relay between clients and a server that can be cut (connections reset, new ones refused) or muted (packets
    vanish, connections stay open)."""

    def __init__(self, server_port):
        self.server_port = server_port
        self.is_cut = False
        self.is_muted = threading.Event()
        self.ends = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self.is_cut:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.server_port))
                except OSError:
                    near.close()
                    continue
                self.ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self.relay, args=(source, target), daemon=True).start()

    def relay(self, source, target):
        try:
            while data := source.recv(1 << 16):
                if not self.is_muted.is_set():
                    target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            self.end(end)

    @staticmethod
    def end(connection):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()

    def cut(self):
        with self.lock:
            self.is_cut = True
            for end in self.ends:
                self.end(end)
            self.ends = []

    def mend(self):
        with self.lock:
            self.is_cut = False
        self.is_muted.clear()

    def close(self):
        self.listener.close()
        self.cut()


class Faults(ProgramsTest):
    ROUNDS = 12
    EVENTS_BEFORE_ROUNDS = 13  # that a run journals: its roster, each model thrice, the seed, the start, the model
    SETTINGS = {"federation.rounds": ROUNDS, "start.model": "kd", "checkpoints.every": 1}

    def setUp(self):
        super().setUp()
        self.draw()

    def undisturbed_model(self, run="whole", **settings):
        done = self.run_program(LAB, "simulate", *self.server_arguments(run, **self.SETTINGS | settings)[1:], "--set",
                                "share_model=peers")
        self.assertEqual(done.returncode, 0, done.stderr)
        return (self.folder / run / "final.safetensors").read_bytes()

    def num_journaled(self, run):
        return (self.folder / run / "journal").read_text().count("\n")

    def events(self, run, kind):
        lines = (self.folder / run / "audit.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def assert_same_model(self, run, expected):
        summary = json.loads((self.folder / run / "summary.json").read_text())
        self.assertFalse(summary["degraded"], summary["left_out"])
        self.assertEqual((self.folder / run / "final.safetensors").read_bytes(), expected)

    def finish_all(self, server, clients):
        code, _, err = self.finish(server)
        self.assertEqual(code, 0, err)
        for client in clients:
            code, _, err = self.finish(client)
            self.assertEqual(code, 0, err)

    def test_a_lost_client_costs_its_updates_only(self):
        rounds_in_all = 500  # many more than pass before the client is killed
        server, port = self.start_server(**{"federation.rounds": rounds_in_all, "timeouts.absence": 0.5})
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        rounds = self.folder / "run/rounds.jsonl"
        wait_for(lambda: rounds.exists() and rounds.read_text().count("\n") > 3, "some rounds")
        clients[1].kill()
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, err)
        self.assertIn("without silo-1", out)
        last = json.loads(rounds.read_text().splitlines()[-1])
        self.assertEqual(last["round"], rounds_in_all)
        self.assertEqual(last["clients"], ["silo-0", "silo-2"])

    def test_killed_at_any_moment_and_started_again_the_model_is_the_same(self):
        """kill -9 of the server or a client at random moments, on both transfer sets, in the clear and under mutual TLS
        in turn; HEADSTART_LONG: 200 runs."""
        self.make_authority()
        self.tls = {"server": self.certify("server", "--server", "--host", "127.0.0.1"),
                    **{i: self.certify(f"silo-{i}") for i in range(3)}}
        transfer_sets = ("public", "student")
        expected = {transfer: self.undisturbed_model(f"whole-{transfer}", **{"consolidation.transfer": transfer})
                    for transfer in transfer_sets}
        draw = random.Random(20240)
        for trial in range(200 if "HEADSTART_LONG" in os.environ else 4):
            with self.subTest(trial=trial):
                transfer, has_tls = transfer_sets[trial % 2], trial // 2 % 2 == 1
                self.kill_somebody(f"killed-{trial}", draw, has_tls, {"consolidation.transfer": transfer})
                model = (self.folder / f"killed-{trial}/final.safetensors").read_bytes()
                self.assertEqual(model, expected[transfer])

    def kill_somebody(self, run, draw, has_tls, settings):
        # Who is gone when the clients are told that the run is over is waited for that long.
        settings = {**self.SETTINGS, **settings, "timeouts.absence": 15}
        if has_tls:
            settings |= self.tls["server"]
        server, port = self.start_server(run, **settings)
        settings["listen.port"] = port

        def start_client(i):
            patience = ("--set", "connect.patience=60")
            return self.start(*(self.tls_client(i, port, self.tls[i]) if has_tls else self.client_arguments(i, port)),
                              *patience)

        clients = [start_client(i) for i in range(3)]
        survivors = set(range(3))
        num_events = self.EVENTS_BEFORE_ROUNDS + 2 * self.ROUNDS
        for _ in range(draw.randint(1, 3)):
            # A moment by what the run has achieved, so that the same moments are met on a slow machine.
            moment = draw.randint(0, num_events)
            wait_for(lambda: server.poll() is not None or self.num_journaled(run) >= moment, "that moment")
            victim = draw.randint(0, 3)
            child = server if victim == 3 else clients[victim]
            if child.poll() is not None:
                break
            child.kill()
            child.communicate()
            if victim == 3:
                server = self.start(*self.server_arguments(run, **settings))
            else:
                clients[victim] = start_client(victim)
                survivors.discard(victim)
        code, _, err = self.finish(server)
        self.assertEqual(code, 0, err)
        for i, client in enumerate(clients):
            if client.poll() is None:
                client.kill()  # killed after it was told, it would look for its server for an hour
            _, log = client.communicate()
            if i in survivors:
                self.assert_nothing_was_done_twice(log)
        summary = json.loads((self.folder / run / "summary.json").read_text())
        self.assertFalse(summary["degraded"], summary["left_out"])

    def assert_nothing_was_done_twice(self, log):
        """`log`: of a client that was there all the time. What it had done or was at is marked as such when a server that
        was started again asks for it."""
        begun = re.findall(r"info +(pre-training|exchange of models|consolidation of \d+ models|round \d+)$", log, re.M)
        self.assertIn("pre-training", begun)
        self.assertEqual(sorted(begun), sorted(set(begun)))

    def test_stopped_until_the_other_side_gives_up_the_connection_and_continued(self):
        """SIGSTOP and SIGCONT of the server and of a client, at random moments; HEADSTART_LONG: 20 of each."""
        expected = self.undisturbed_model()
        draw = random.Random(20241)
        for trial in range(20 if "HEADSTART_LONG" in os.environ else 1):
            for victim in ("silo-1", "server"):
                with self.subTest(trial=trial, victim=victim):
                    run = f"stopped-{trial}-{victim}"
                    self.stop_somebody(run, victim, draw.randint(1, self.EVENTS_BEFORE_ROUNDS + self.ROUNDS))
                    self.assert_same_model(run, expected)

    def stop_somebody(self, run, victim, moment):
        server, port = self.start_server(run, **self.SETTINGS, **{"timeouts.silence": 1, "timeouts.handshake": 1})
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        wait_for(lambda: self.num_journaled(run) >= moment, "that moment")
        if victim == "server":
            # Its clients' heartbeats stay unanswered; they hang up and look for it again.
            server.send_signal(signal.SIGSTOP)
            self.wait_for_line(clients[0], "trying again")
            server.send_signal(signal.SIGCONT)
        else:
            clients[1].send_signal(signal.SIGSTOP)
            wait_for(lambda: self.events(run, "connection lost"), "the server to miss it")
            clients[1].send_signal(signal.SIGCONT)
        self.finish_all(server, clients)
        self.assertTrue(self.events(run, "returned"))

    def test_under_tls_a_new_process_of_a_client_takes_the_place_of_one_that_hangs(self):
        expected = self.undisturbed_model()
        self.make_authority()
        tls = {i: self.certify(f"silo-{i}") for i in range(3)}
        server, port = self.start_server("run", **self.SETTINGS, **self.certify("server", "--server", "--host", "127.0.0.1"))
        hanging = self.start(*self.tls_client(0, port, tls[0]))
        wait_for(lambda: self.events("run", "joined"), "the first of them")
        hanging.send_signal(signal.SIGSTOP)  # its connection stands, as far as the server can tell
        clients = [self.start(*self.tls_client(i, port, tls[i])) for i in range(3)]
        self.finish_all(server, clients)
        self.assert_same_model("run", expected)
        # Before the run has begun or after.
        arrivals = self.events("run", "joined") + self.events("run", "returned")
        self.assertEqual([event["client"] for event in arrivals].count("silo-0"), 2)

    def wait_for_line(self, child, words):
        while words not in child.stderr.readline():
            self.assertIsNone(child.poll(), f"ended while '{words}' was waited for")

    def test_a_network_that_is_cut_or_swallows_packets_and_comes_back(self):
        expected = self.undisturbed_model()
        for fault in ("cut", "muted"):
            run = f"network-{fault}"
            server, port = self.start_server(run, **self.SETTINGS, **{"timeouts.silence": 1, "timeouts.handshake": 1})
            wire = Wire(port)
            self.addCleanup(wire.close)
            clients = [self.start(*self.client_arguments(i, wire.port)) for i in range(3)]
            for moment in (9, 20):
                wait_for(lambda: self.num_journaled(run) >= moment, "that moment")
                num_lost = len(self.events(run, "connection lost"))
                if fault == "cut":
                    wire.cut()
                else:
                    wire.is_muted.set()
                wait_for(lambda: len(self.events(run, "connection lost")) >= num_lost + 3, "all to be missed")
                wire.mend()
            self.finish_all(server, clients)
            self.assert_same_model(run, expected)

    def test_a_disk_that_is_full_ends_the_server_in_order_and_the_same_command_goes_on_with_the_same_clients(self):
        expected = self.undisturbed_model()
        whole = self.folder / "whole"
        # No file may grow beyond a part of what the journal, or the audit log, comes to in the end.
        for trial, limit in enumerate((whole / "journal", whole / "audit.jsonl")):
            limit = limit.stat().st_size * 2 // 3
            self.assertLess((whole / "run.json").stat().st_size, limit)
            run = f"full-{trial}"
            arguments = [str(a) for a in self.server_arguments(run, **self.SETTINGS)]
            server = self.start(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
                                restore_signals=False)
            port_file = self.folder / run / "port"
            port = int(wait_for(lambda: port_file.exists() and port_file.read_text(), "the server's port"))
            clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
            code, _, err = self.finish(server)
            self.assertEqual(code, 4, err)
            self.assertIn("File too large", err)
            self.assertIn(run, err)
            self.assertIn("the clients wait for it", err)
            for client in clients:
                self.assertIsNone(client.poll(), "a client has ended, and the run can be gone on with")
            server, _ = self.start_server(run, **self.SETTINGS, **{"listen.port": port})
            self.finish_all(server, clients)
            self.assert_same_model(run, expected)

    @unittest.skipUnless(FAKETIME.exists(), f"{FAKETIME} is not there (Debian's package faketime)")
    def test_clocks_that_jump_change_nothing(self):
        many = {"federation.rounds": 200}  # more than pass while the clock is looked at
        expected = self.undisturbed_model(**many)
        offset = self.folder / "offset"
        offset.write_text("+0")
        environment = {**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset),
                       "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        server, port = self.start_server("jump", **self.SETTINGS | many, environment=environment)
        clients = [self.start(*self.client_arguments(i, port), env=environment) for i in range(3)]

        def days_away():
            sent = self.events("jump", "sent")
            last = datetime.fromisoformat(sent[-1]["at"]) if sent else datetime.now(timezone.utc)
            return round((last - datetime.now(timezone.utc)).total_seconds() / 86400)

        wait_for(lambda: self.num_journaled("jump") >= 8, "some rounds")
        for jump, days in (("+400d", 400), ("-30d", -30), ("+0", 0)):
            offset.write_text(jump)
            wait_for(lambda: days_away() == days, f"the clock to be {days} days away")
        self.finish_all(server, clients)
        self.assert_same_model("jump", expected)
        self.assertFalse(self.events("jump", "connection lost"))

    @unittest.skipUnless(FAKETIME.exists(), f"{FAKETIME} is not there (Debian's package faketime)")
    def test_check_finds_a_clock_that_is_wrong(self):
        server, port = self.start_server()
        environment = {**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        for offset, code, words in (("+20", 0, "ahead of the server's"), ("-1h", 2, "behind the server's: certificates")):
            done = self.run_program(*self.client_arguments(0, port), "--check", env={**environment, "FAKETIME": offset})
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(words, done.stdout + done.stderr)
        server.send_signal(signal.SIGTERM)
        self.finish(server)


if __name__ == "__main__":
    unittest.main()
