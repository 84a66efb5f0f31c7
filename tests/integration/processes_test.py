"""Real processes: a server and its clients, and every mistake a user can make with an exit code that says which."""

import importlib.util
import json
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from tests.integration.programs import (CLIENT, LAB, PATIENCE, PKI, SERVER, ProgramsTest, wait_for, write_dataset,
                                        write_npy)


def bench_module():
    path = Path(__file__).resolve().parents[2] / "experiments/bench/bench.py"
    spec = importlib.util.spec_from_file_location("bench", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Benchmarks(unittest.TestCase):
    def finished(self, *codes):
        """What a benchmark makes of clients that end with these codes, beside a server that ends well."""
        bench = bench_module()
        ended = lambda code: subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        federation = bench.Federation.__new__(bench.Federation)
        federation.server, federation.children = ended(0), [ended(code) for code in codes]
        federation.watcher = threading.Thread(target=lambda: None)
        federation.watcher.start()
        federation.rounds = lambda: [{"seconds": 1.0}, {"seconds": 3.0}]
        return federation.finish()

    def test_there_is_no_figure_where_a_client_failed(self):
        self.assertEqual(self.finished(0, 0), [2.0])
        with self.assertRaisesRegex(SystemExit, r"^1 of 3 client processes failed, \S+ with code 1: no figure$"):
            self.finished(0, 1, 0)


class Processes(ProgramsTest):
    def test_a_whole_run_equals_its_simulation(self):
        self.draw()
        for start in ("random", "kd"):
            server, port = self.start_server(f"net-{start}", **{"start.model": start})
            clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
            code, out, err = self.finish(server)
            self.assertEqual(code, 0, err)
            self.assertIn("all 3 clients are there", out)
            for client in clients:
                self.assertEqual(self.finish(client)[0], 0)
            run = self.folder / f"net-{start}"
            lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
            self.assertEqual([line["round"] for line in lines], [0, 1, 2])

            arguments = self.server_arguments(f"sim-{start}", **{"start.model": start})
            done = self.run_program(LAB, "simulate", *arguments[1:], "--set", "share_model=peers")
            self.assertEqual(done.returncode, 0, done.stderr)
            simulated = self.folder / f"sim-{start}"
            self.assertEqual((run / "final.safetensors").read_bytes(), (simulated / "final.safetensors").read_bytes())

    def study_arguments(self, *more, **settings):
        base = {"data.set": "tensors", "data.path": self.data, "study.methods": '["vanilla"]',
                "study.transfers": '["student"]', "partition.clients": 2, "study.partitions": '["uniform"]',
                "draw.validation": 30, "draw.public_large": 30, "draw.public_small": 0, "draw.public_labeled": 0,
                "draw.clients": 120, "draw.test": 0, "model.channels": "[4,4]", "model.hidden": 8,
                "pretrain.max_epochs": 1, "kd.epochs": 1}
        base.update(settings)
        arguments = [LAB, "pairs", "--study", self.folder / "study.sqlite", *more]
        for key, value in base.items():
            arguments += ["--set", f"{key}={value}"]
        return arguments

    def test_a_call_that_finds_no_data_leaves_no_study_that_blocks_the_next(self):
        done = self.run_program(*self.study_arguments(**{"data.path": self.folder / "nowhere"}))
        self.assert_fails(done, 3, "nowhere: no such folder")
        self.assertFalse((self.folder / "study.sqlite").exists())
        done = self.run_program(*self.study_arguments(**{"draw.validation": 3000}))
        self.assert_fails(done, 2, "draw")
        done = self.run_program(*self.study_arguments())
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_study_whose_data_have_moved_goes_on_and_is_repeatable(self):
        self.assertEqual(self.run_program(*self.study_arguments()).returncode, 0)
        moved = self.folder / "moved"
        self.data.rename(moved)
        done = self.run_program(*self.study_arguments(**{"data.path": moved}))
        self.assertEqual(done.returncode, 0, done.stderr)
        repeat = [LAB, "repeat", "--study", self.folder / "study.sqlite", "uniform/seed-1/participant-0"]
        self.assert_fails(self.run_program(*repeat), 3, f"{self.data}: the study's data are not there; --data")
        done = self.run_program(*repeat, "--data", moved)
        self.assertEqual((done.returncode, done.stdout), (0, "uniform/seed-1/participant-0: the same\n"), done.stderr)
        write_dataset(self.data, num_train=303)
        self.assert_fails(self.run_program(*repeat), 3, "study.sqlite: the study is of other data (data.train_digest")

    def ask(self, port, path):
        """Status and body of a GET; None where nobody listens any more."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_probes_and_metrics_on_a_port_of_their_own(self):
        self.draw()
        server, port = self.start_server(**{"federation.rounds": 100000})
        admin = int((self.folder / "run/admin-port").read_text())
        self.assertNotEqual(admin, port)
        self.assertEqual(self.ask(admin, "/healthz"), (200, "ok\n"))
        self.assertEqual(self.ask(admin, "/readyz"), (200, "ready\n"))
        self.assertEqual(self.ask(admin, "/run.json")[0], 404)
        self.assertIn('headstart_phase_info{phase="lobby"} 1', self.ask(admin, "/metrics")[1])
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        wait_for(lambda: 'headstart_phase_info{phase="round"} 1' in self.ask(admin, "/metrics")[1], "a round")
        metrics = self.ask(admin, "/metrics")[1]
        self.assertIn("headstart_clients_connected 3", metrics)
        self.assertIn('headstart_client_connected{client="silo-1"} 1', metrics)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(server)[0], 130)
        with self.assertRaises(urllib.error.URLError):
            self.ask(admin, "/healthz")
        for client in clients:
            client.send_signal(signal.SIGTERM)
            self.assertEqual(self.finish(client)[0], 130)

    def test_the_admin_port_can_be_left_out_and_is_refused_where_it_is_taken(self):
        self.draw()
        server, port = self.start_server(**{"admin.port": -1})
        self.assertFalse((self.folder / "run/admin-port").exists())
        self.assert_fails(self.run_program(*self.server_arguments("other", **{"admin.port": port})), 5,
                          f"cannot listen on 127.0.0.1:{port}")
        server.send_signal(signal.SIGTERM)
        self.finish(server)

    def test_logs_as_json_are_one_object_a_line(self):
        self.draw()
        json_log = {"run.log_format": "json"}
        server, port = self.start_server(**json_log)
        clients = [self.start(*self.client_arguments(i, port, "--set", "log_format=json")) for i in range(3)]
        code, out, err = self.finish(server)
        self.assertEqual((code, out), (0, ""))
        logs = [err] + [self.finish(client)[2] for client in clients]
        for log in logs:
            lines = [json.loads(line) for line in log.splitlines()]
            self.assertEqual({tuple(sorted(line)) for line in lines}, {("level", "message", "program", "time")})
        self.assertIn("round 2/2", logs[0])

    def test_a_client_waits_for_a_server_that_comes_later(self):
        self.draw()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        client = self.start(*self.client_arguments(0, port))
        self.assertIn("trying again in", client.stderr.readline())
        server, _ = self.start_server(**{"listen.port": port})
        others = [self.start(*self.client_arguments(i, port)) for i in (1, 2)]
        for child in (server, client, *others):
            self.assertEqual(self.finish(child)[0], 0)

    def test_check_says_what_fits_and_what_does_not_and_leaves_no_trace(self):
        self.draw()
        server, port = self.start_server()
        done = self.run_program(*self.client_arguments(0, port), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line.split()[1] for line in done.stdout.splitlines()],
                         ["server", "name", "clock", "rounds", "epochs", "rate", "start", "share_model", "data", "classes",
                          "values", "model"])
        strange = self.folder / "strange"
        strange.mkdir()
        write_npy(strange / "train-images.npy", "|u1", (20, 9, 9), bytes(20 * 81))
        write_npy(strange / "train-labels.npy", "<i8", (20,), struct.pack("<20q", *([0, 1, 2, 1] * 5)))
        self.assert_fails(self.run_program(CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", "silo-0", "--check",
                                           "--set", "data.set=tensors", "--set", f"data.path={strange}"), 3,
                          "1x9x9 in 3 classes, the run has 1x12x12")
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        self.assertEqual(self.finish(server)[0], 0)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        self.assert_fails(self.run_program(*self.client_arguments(0, port), "--check"), 5, f"127.0.0.1:{port}")

    def test_check_log_and_metrics_say_what_ends_soon(self):
        self.draw()
        self.make_authority()
        revoked = {"tls.revoked": self.folder / "pki/revoked.pem"}
        certified = self.certify("server", "--server", "--host", "127.0.0.1", "--days", "25")
        server, port = self.start_server(**certified, **revoked)
        done = self.run_program(*self.tls_client(0, port, self.certify("silo-0", "--days", "20") | revoked), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[1] for line in lines],
                         ["certificate", "revocations", "server", "name", "clock", "rounds", "epochs", "rate", "start",
                          "share_model", "data", "classes", "values", "model"])
        self.assertRegex(lines[0], r" EXPIRES SOON: \d{4}-\d\d-\d\d, 19 days; have it signed anew$")
        self.assertRegex(lines[1], r" until \d{4}-\d\d-\d\d, 364 days$")
        self.assertRegex(lines[2], r"that of 'server', EXPIRES SOON: \d{4}-\d\d-\d\d, 24 days; tell the coordinator$")
        done = self.run_program(*self.tls_client(1, port, self.certify("silo-1")), "--check")
        self.assertRegex(done.stdout.splitlines()[0], r" until \d{4}-\d\d-\d\d, 364 days$")
        self.assertNotIn("revocations", done.stdout)

        admin = int((self.folder / "run/admin-port").read_text())
        metrics = self.ask(admin, "/metrics")[1]
        for name, days in (("certificate", 25), ("revocation_list", 365)):
            end = re.search(rf"^headstart_{name}_expiry_timestamp_seconds (\S+)$", metrics, re.MULTILINE)
            self.assertIsNotNone(end, metrics)
            self.assertAlmostEqual(float(end.group(1)), time.time() + 86400 * days, delta=2 * PATIENCE)
        self.assertEqual(self.run_program(PKI, "renew-list", "--folder", self.folder / "pki").returncode, 0)
        self.ask(admin, "/metrics")  # the server looks at its files
        server.send_signal(signal.SIGTERM)
        log = self.finish(server)[2]
        for line in (r"warn\S* .*certificate \S+: EXPIRES SOON: .*, 24 days; have it renewed",
                     r"info .*revocation list \S+: until .*, 364 days"):
            self.assertEqual(len(re.findall(line, log)), 2, log)

    def test_only_its_owner_may_enter_a_runs_folder_and_a_store(self):
        self.draw()
        mode = lambda *parts: self.folder.joinpath(*parts).stat().st_mode & 0o777
        for run in ("run", "ready"):
            if run == "ready":
                (self.folder / run).mkdir()
                (self.folder / run).chmod(0o755)
            server, _ = self.start_server(run)
            self.assertEqual(mode(run), 0o700 if run == "run" else 0o755)
            self.assertEqual((mode(run, "models"), mode(run, "staging")), (0o700, 0o700))
            server.send_signal(signal.SIGTERM)
            self.finish(server)
        self.run_program(*self.client_arguments(0, 1, "--set", f"store.pretrained={self.folder / 'store'}"), "--check")
        self.assertEqual((mode("store"), mode("store", "models")), (0o700, 0o700))

    def test_settings_of_an_own_model_that_is_not_named_are_refused(self):
        self.draw()
        for setting, words in (("own.width=16", "own_model is not set"), ("own.name=resnet18", "own.name")):
            self.assert_fails(self.run_program(*self.client_arguments(0, 1), "--set", setting), 2, words)

    def test_under_mutual_tls_the_same_model_and_no_impostors(self):
        self.draw()
        self.make_authority()
        allowed = self.folder / "allowed"
        allowed.write_text("silo-0\nsilo-1\nsilo-2\n")
        credentials = [self.certify(f"silo-{i}") for i in range(4)]
        server, port = self.start_server(**self.certify("server", "--server", "--host", "127.0.0.1"),
                                         **{"tls.revoked": self.folder / "pki/revoked.pem", "listen.allowed": allowed})
        self.assert_fails(self.run_program(*self.tls_client(2, port, credentials[1])), 6,
                          "calls itself silo-2, its certificate is that of silo-1")
        self.assert_fails(self.run_program(*self.tls_client(3, port, credentials[3]), "--set", "data.share=2"), 6,
                          "silo-3 is not on the list")
        self.assert_fails(self.run_program(*self.client_arguments(0, port), "--set", "connect.patience=0"), 5, "ws://127.0.0.1")
        clients = [self.start(*self.tls_client(i, port, credentials[i])) for i in range(3)]
        code, _, err = self.finish(server)
        self.assertEqual(code, 0, err)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        done = self.run_program(LAB, "simulate", *self.server_arguments("simulated")[1:])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "run/final.safetensors").read_bytes(),
                         (self.folder / "simulated/final.safetensors").read_bytes())

    def test_the_authority_keeps_keys_to_itself_and_knows_whom_it_certified(self):
        self.make_authority()
        self.certify("silo-1")
        self.assertEqual((self.folder / "pki/authority.key").stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.folder / "home-silo-1/silo-1.key").stat().st_mode & 0o777, 0o600)
        key = (self.folder / "home-silo-1/silo-1.key").read_bytes()
        self.assert_fails(self.run_program(PKI, "request", "--name", "silo-1", "--out", self.folder / "home-silo-1"), 4,
                          "silo-1.key", "never overwritten")
        self.assertEqual((self.folder / "home-silo-1/silo-1.key").read_bytes(), key)
        self.assert_fails(self.run_program(PKI, "init", "--folder", self.folder / "pki"), 4, "exists")
        self.assert_fails(self.run_program(PKI, "revoke", "silo-11", "--folder", self.folder / "pki"), 2,
                          "did you mean 'silo-1'?")
        request = self.folder / "home-silo-1/silo-1.csr"
        self.assert_fails(self.run_program(PKI, "sign", request, "--server", "--folder", self.folder / "pki"), 2, "--host")
        for host in ("wss://fl.example.org", "fl.example.org:9840", "a.example,b.example", ""):
            self.assert_fails(self.run_program(PKI, "sign", request, "--server", "--host", host, "--folder",
                                               self.folder / "pki"), 2, "--host", "alone")
        self.assert_fails(self.run_program(PKI, "init", "--folder", self.folder / "brief", "--name", ""), 2, "--name")
        self.assertFalse((self.folder / "brief").exists())
        self.assertEqual(self.run_program(PKI, "init", "--folder", self.folder / "brief", "--days", "30").returncode, 0)
        self.assert_fails(self.run_program(PKI, "sign", request, "--days", "31", "--folder", self.folder / "brief"), 2,
                          "--days 31", "ends in")
        self.assert_fails(self.run_program(PKI, "sign", self.folder / "pki/authority.pem", "--folder",
                                           self.folder / "pki"), 3, "holds no certificate request")
        self.assert_fails(self.run_program(PKI, "sign", request, "--server", "--peer", "--folder", self.folder / "pki"), 2,
                          "--peer")
        self.certify("silo-2", "--days", "5")
        self.certify("silo-3", "--peer")
        self.assertEqual(self.run_program(PKI, "revoke", "silo-1", "--folder", self.folder / "pki").returncode, 0)
        listed = self.run_program(PKI, "list", "--folder", self.folder / "pki").stdout.splitlines()
        self.assertRegex(listed[0], r"^silo-1 +client +[0-9A-F]{32}  revoked \d{4}-\d\d-\d\d$")
        self.assertRegex(listed[1], r"^silo-2 +client +[0-9A-F]{32}  EXPIRES SOON: ")
        self.assertRegex(listed[2], r"^silo-3 +peer +[0-9A-F]{32}  ")
        again = self.run_program(PKI, "revoke", "silo-1", "--folder", self.folder / "pki")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("all of 'silo-1' were revoked before; the list was signed anew", again.stdout)

    def test_an_authority_is_made_whole_or_not_at_all(self):
        def init(limit=resource.RLIM_INFINITY):
            """With no file above `limit` bytes: what a write() does to pass it is cut off, the next one kills."""
            def restrain():
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return self.run_program(PKI, "init", "--folder", self.folder / "pki", preexec_fn=restrain)

        self.assert_fails(init(100), 4, "authority.key: cannot be written")
        self.assertEqual(list(self.folder.glob("pki*")), [])
        self.assertEqual(init(300).returncode, -signal.SIGXFSZ)
        self.assertEqual([path.name for path in self.folder.glob("pki*")], ["pki.part"])
        key = (self.folder / "pki.part/authority.key").read_bytes()
        done = init()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([path.name for path in self.folder.glob("pki*")], ["pki"])
        self.assertNotEqual((self.folder / "pki/authority.key").read_bytes(), key)
        self.certify("silo-1")

    def test_the_final_model_opens_with_a_ten_line_reader(self):
        self.draw()
        done = self.run_program(LAB, "simulate", *self.server_arguments()[1:])
        self.assertEqual(done.returncode, 0, done.stderr)
        raw = (self.folder / "run/final.safetensors").read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:8 + length])
        self.assertEqual(header["__metadata__"]["rounds"], "2")
        shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        self.assertIn([4, 1, 3, 3], shapes.values())
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        self.assertEqual(len(raw), 8 + length + end)

    def test_interrupt_says_what_was_kept(self):
        self.draw()
        server, port = self.start_server(**{"federation.rounds": 100000})
        clients = [self.start(*self.client_arguments(i, port, "--set", "connect.patience_once_in=0.1")) for i in range(3)]
        rounds = self.folder / "run/rounds.jsonl"
        wait_for(lambda: rounds.exists() and rounds.read_text().count("\n") > 3, "some rounds")
        server.send_signal(signal.SIGINT)
        code, _, err = self.finish(server)
        self.assertEqual(code, 130, err)
        self.assertIn("stopped after round", err)
        self.assertIn("kept in", err)
        self.assertTrue((self.folder / "run/interrupted.json").exists())
        for client in clients:
            self.assertEqual(self.finish(client)[0], 5)

    def test_a_finished_run_goes_back_to_a_round_and_ends_in_the_same_model(self):
        self.draw()
        back = [*self.server_arguments(), "--back-to-round", "1"]
        self.assert_fails(self.run_program(*back), 2, "--back-to-round", "holds no run")
        server, port = self.start_server()
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        self.assertEqual(self.finish(server)[0], 0)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        run = self.folder / "run"
        model = (run / "final.safetensors").read_bytes()
        self.assert_fails(self.run_program(*back[:-1], "0"), 2, "--back-to-round 0", "checkpoints: 1, 2")
        (run / "port").unlink()
        server = self.start(*back)
        wait_for(lambda: (run / "port").exists(), "the server's port")
        port = int((run / "port").read_text())
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, err)
        self.assertIn("gone back to the model of round 1", out)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        self.assertEqual((run / "final.safetensors").read_bytes(), model)
        self.assertEqual((run / "taken-back-1/final.safetensors").read_bytes(), model)
        self.assertTrue((run / "taken-back-1/checkpoints/round-00002.safetensors").exists())

    def test_configuration_mistakes(self):
        self.draw()
        self.assert_fails(self.run_program(*self.server_arguments(**{"train.lt": 1})), 2, "train.lt", "did you mean 'train.lr'")
        self.assert_fails(self.run_program(*self.server_arguments(**{"train.lr": -1})), 2, "train.lr", "at least 0", "-1")
        self.assert_fails(self.run_program(*self.server_arguments(**{"start.model": "best_local", "validation.source": "none"})),
                          2, "start.model best_local needs validation.source")
        self.assert_fails(self.run_program(SERVER, "--config", self.folder / "none.json"), 2, "none.json")
        bad = self.folder / "bad.json"
        bad.write_text('{"run": \n{"seed": }}')
        self.assert_fails(self.run_program(SERVER, "--config", bad), 2, "bad.json", "line 2")
        self.assert_fails(self.run_program(*self.server_arguments(**{"listen.address": "0.0.0.0"})), 2, "no TLS", "--insecure")
        self.assert_fails(self.run_program(*self.server_arguments(**{"model.name": "resnet19"})), 2, "resnet19")
        self.assert_fails(self.run_program(CLIENT, "--name", "a"), 2, "--server")
        self.assert_fails(self.run_program(CLIENT, "--name", "a b", "--server", "ws://127.0.0.1:1"), 2, "--name")
        self.assert_fails(self.run_program(CLIENT, "--name", "a", "--server", "http://x"), 2, "ws://")
        self.assertEqual(self.run_program(LAB, "nonsense").returncode, 2)

    def help_of(self, *call):
        done = self.run_program(*call)
        self.assertEqual((done.returncode, done.stderr), (0, ""), call)
        return done.stdout

    def test_help_fits_on_two_screens_and_shows_settings_by_group(self):
        for program in ([SERVER], [CLIENT], [LAB, "simulate"], [LAB, "partition"], [LAB, "central"], [LAB, "pairs"],
                        [LAB, "export"], [LAB, "advise"]):
            with self.subTest(program=program):
                short = self.help_of(*program, "--help")
                lines = short.splitlines()
                self.assertLessEqual(len(lines), 80)
                self.assertEqual([line for line in lines if len(line) > 100], [])
                self.assertIn("Exit codes:\n  0    done\n", short)
                everything = self.help_of(*program, "--help", "all")
                self.assertIn("Exit codes:\n  0    done\n", everything)
                keys = re.findall(r"^  (\S+)  \(.*; default ", everything, re.MULTILINE)
                if "Groups of settings" not in short:  # there is only one
                    self.assertEqual(re.findall(r"^  (\S+)  \(.*; default ", short, re.MULTILINE), keys)
                    continue
                rows = short.split("Groups of settings", 1)[1].split("\n\n")[0].splitlines()[1:]
                # Name, number, words: the row of a group without words is none.
                groups = [re.fullmatch(r"  (\S+) +(\d+)  (\S.*)", row) for row in rows]
                self.assertNotIn(None, groups, rows)
                shown = []
                for name, number, _ in (group.groups() for group in groups):
                    paragraphs = self.help_of(*program, "--help", name)
                    self.assertIn(paragraphs.splitlines()[0], everything)
                    own = re.findall(r"^  (\S+)  \(.*; default ", paragraphs, re.MULTILINE)
                    self.assertEqual(len(own), int(number), name)
                    shown += own
                self.assertEqual(sorted(shown), sorted(keys))

    def test_help_of_an_unknown_group_names_the_nearest_and_all(self):
        self.assert_fails(self.run_program(SERVER, "--help", "lisetn"), 2, "--help: unknown group 'lisetn'",
                          "did you mean 'listen'", "federation", "checkpoints and all")
        self.assert_fails(self.run_program(CLIENT, "--help", "own_modle"), 2, "did you mean 'own_model'", "connect")
        self.assert_fails(self.run_program(LAB, "simulate", "--help", "simulat"), 2, "did you mean 'simulate'")
        self.assertIn("Exit codes:", self.help_of(LAB, "--help"))

    def test_data_mistakes(self):
        self.draw()
        images = self.data / "test-images.npy"
        whole = images.read_bytes()
        images.write_bytes(whole[:-100])
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "test-images.npy")
        images.write_bytes(whole)
        (self.data / "test-labels.npy").rename(self.data / "gone")
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "test-labels.npy")
        (self.data / "gone").rename(self.data / "test-labels.npy")
        other = self.folder / "other"
        write_dataset(other, num_train=200)
        self.assert_fails(self.run_program(*self.server_arguments(**{"data.path": other})), 3, "manifest.json")
        self.manifest.write_text("{}")
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "manifest.json")

    def test_storage_and_network_mistakes(self):
        self.draw()
        again = self.run_program(LAB, "partition", *self.data_settings(), "--out", self.manifest)
        self.assert_fails(again, 4, "never overwritten")
        (self.folder / "taken").mkdir()
        (self.folder / "taken/notes.txt").write_text("mine")
        self.assert_fails(self.run_program(*self.server_arguments("taken")), 4, "taken", "never overwritten")
        blocker = self.folder / "file"
        blocker.write_text("")
        self.assert_fails(self.run_program(*self.server_arguments("file/run")), 4, "file")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            self.assert_fails(self.run_program(*self.server_arguments(**{"listen.port": port})), 5, str(port))
        self.assert_fails(self.run_program(*self.client_arguments(0, port), "--set", "connect.patience=0"), 5, f"127.0.0.1:{port}")

    def test_the_server_names_who_does_not_fit(self):
        self.draw()
        server, port = self.start_server()
        first = self.start(*self.client_arguments(0, port, "--set", "connect.patience_once_in=0.1"))
        wait_for(lambda: server.poll() is not None or self.lobby_has(server, "1 of 3"), "the first client")
        self.assert_fails(self.run_program(*self.client_arguments(0, port), "--set", "connect.patience=0"), 6, "silo-0", "already")
        strange = self.folder / "strange"
        strange.mkdir()
        write_npy(strange / "train-images.npy", "|u1", (20, 9, 9), bytes(20 * 81))
        write_npy(strange / "train-labels.npy", "<i8", (20,), struct.pack("<20q", *([0, 1, 2, 1] * 5)))
        done = self.run_program(CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", "other", "--set", "data.set=tensors",
                                "--set", f"data.path={strange}")
        self.assert_fails(done, 6, "1x9x9", "1x12x12")
        server.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(server)[0], 130)
        self.assertNotEqual(self.finish(first)[0], 0)

    def lobby_has(self, server, words):
        line = server.stdout.readline()
        return words in line


if __name__ == "__main__":
    unittest.main()
