"""What the system does to the programs: signals, pipes that nobody reads, closed streams, paths that lead nowhere."""

import json
import os
import re
import signal
import subprocess
import unittest

from tests.integration.programs import CLIENT, LAB, PATIENCE, PKI, SERVER, ProgramsTest, wait_for, write_dataset


class Streams(ProgramsTest):
    def finish_run(self, server, port):
        clients = [self.start(*self.client_arguments(i, port)) for i in range(3)]
        self.assertEqual(server.wait(timeout=PATIENCE), 0)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        self.assertTrue((self.folder / "run/final.safetensors").exists())

    def launch(self, *arguments, **options):
        child = subprocess.Popen([str(a) for a in arguments], **options)
        self.children.append(child)
        port_file = self.folder / "run/port"
        wait_for(lambda: port_file.exists() or child.poll() is not None, "the server's port")
        self.assertIsNone(child.poll())
        return child, int(port_file.read_text())

    def test_a_run_goes_on_when_nobody_reads_its_output_any_more(self):
        self.draw()
        ours, theirs = os.pipe()
        server, port = self.launch(*self.server_arguments(), stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.read(ours, 20)
        os.close(ours)  # as `| head` does
        self.finish_run(server, port)

    def test_a_run_without_standard_streams_writes_its_log_into_no_file_of_its_own(self):
        self.draw()
        closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        server, port = self.launch(*closed, *self.server_arguments())
        self.finish_run(server, port)
        for line in (self.folder / "run/journal").read_text().splitlines():
            self.assertRegex(line, r"^[0-9a-f]{64} \{")
        for name in ("rounds.jsonl", "audit.jsonl"):
            for line in (self.folder / "run" / name).read_text().splitlines():
                json.loads(line)

    def test_the_log_has_dates_and_says_first_what_the_server_is_about_to_do(self):
        self.draw()
        server, _ = self.start_server()
        server.send_signal(signal.SIGTERM)
        code, _, err = self.finish(server)
        self.assertEqual(code, 130)
        log = [line for line in err.splitlines() if " info " in line]
        for line in log:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  ")
        said = "\n".join(log)
        for words in (f"data: tensors from {self.data}", "3 are waited for (federation.clients)", "starts from: random",
                      "listening on ws://127.0.0.1:", f"run folder: {self.folder}/run"):
            self.assertIn(words, said)


class Signals(ProgramsTest):
    def test_a_terminal_that_goes_away_stops_server_and_client_as_sigterm_does(self):
        self.draw()
        server, port = self.start_server()
        client = self.start(*self.client_arguments(0, port))
        wait_for(lambda: "1 of 3" in server.stdout.readline(), "the client")
        client.send_signal(signal.SIGHUP)
        self.assertEqual(self.finish(client)[0], 130)
        server.send_signal(signal.SIGHUP)
        code, _, err = self.finish(server)
        self.assertEqual(code, 130)
        self.assertIn("stopped", err)

    def test_nohup_keeps_its_promise(self):
        self.draw()
        arguments = ["nohup", *self.server_arguments()]
        server = self.start(*arguments)
        port_file = self.folder / "run/port"
        wait_for(lambda: port_file.exists() or server.poll() is not None, "the server's port")
        server.send_signal(signal.SIGHUP)
        clients = [self.start(*self.client_arguments(i, int(port_file.read_text()))) for i in range(3)]
        code, _, err = self.finish(server)
        self.assertEqual(code, 0, err)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)


class EncryptedKeys(ProgramsTest):
    def encrypt(self, key):
        done = self.run_program("openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_an_encrypted_key_is_refused_in_a_sentence_and_ends_no_server_that_runs(self):
        self.draw()
        self.make_authority()
        files = self.certify("server", "--server", "--host", "127.0.0.1")
        credentials = self.certify("silo-0")
        key = files["tls.key"]
        plain, encrypted = key.read_text(), self.encrypt(key)
        server, port = self.start_server(**files)
        key.write_text(encrypted)
        client = self.start(*self.tls_client(0, port, credentials))
        wait_for(lambda: "is encrypted with a pass phrase" in server.stderr.readline(), "the warning")
        wait_for(lambda: "1 of 3" in server.stdout.readline(), "the client")  # with the key that was there before
        server.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(server)[0], 130)
        client.send_signal(signal.SIGTERM)
        self.finish(client)
        self.assert_fails(self.run_program(*self.server_arguments("other", **files)), 3,
                          f"{key}: is encrypted with a pass phrase", f"openssl pkey -in {key} -out ")
        key.write_text(plain)
        authority = self.folder / "pki/authority.key"
        authority.write_text(self.encrypt(authority))
        self.assert_fails(self.run_program(PKI, "renew-list", "--folder", self.folder / "pki"), 3,
                          f"{authority}: is encrypted")


class Paths(ProgramsTest):
    def setUp(self):
        super().setUp()
        self.loop = self.folder / "loop"
        self.loop.symlink_to("loop")
        self.long = self.folder / ("x" * 300)
        self.file = self.folder / "file"
        self.file.write_text("")

    def partition(self, **settings):
        base = {"data.set": "tensors", "data.path": self.data, **settings}
        return [LAB, "partition", *(word for key, value in base.items() for word in ("--set", f"{key}={value}"))]

    def test_what_the_system_refuses_has_the_exit_code_of_the_thing_and_its_reason(self):
        self.draw()
        self.make_authority()
        study, pki = self.folder / "study.sqlite", self.folder / "pki"
        request = self.folder / "home/silo-0.csr"
        self.assertEqual(self.run_program(PKI, "request", "--name", "silo-0", "--out", request.parent).returncode, 0)
        client = [CLIENT, "--server", "ws://127.0.0.1:1", "--name", "a", "--set", "connect.patience=0"]
        for bad, reason in ((self.loop, "Too many levels of symbolic links"), (self.long, "File name too long")):
            cases = [
                (2, [SERVER, "--config", bad]),
                (3, self.server_arguments(**{"data.path": bad})),
                (3, self.server_arguments(**{"data.manifest": bad})),
                (3, self.server_arguments(**{"listen.allowed": bad})),
                (3, self.server_arguments(**{"tls.authority": bad, "tls.certificate": bad, "tls.key": bad})),
                (4, self.server_arguments(**{"run.folder": bad})),
                (4, self.server_arguments(**{"run.folder": bad / "run"})),
                (3, [*client, "--set", "data.set=tensors", "--set", f"data.path={bad}"]),
                (3, [*client, *self.data_settings(), "--set", f"data.manifest={bad}", "--set", "data.share=0"]),
                (4, [*self.partition(), "--out", bad]),
                (3, [*self.partition(**{"data.path": bad}), "--out", self.folder / "m.json"]),
                (3, [LAB, "export", *self.data_settings(), "--manifest", bad, "--client", 0, "--out", self.folder / "o"]),
                (4, [LAB, "export", *self.data_settings(), "--manifest", self.manifest, "--client", 0, "--out", bad]),
                (4, [LAB, "pairs", *self.data_settings(), "--study", bad / "study.sqlite"]),
                (3, [LAB, "table", "--study", bad]),
                (3, [LAB, "repeat", "--study", bad, "uniform/seed-1/participant-0"]),
                (3, [LAB, "merge", "--into", study, bad]),
                (3, [LAB, "advise", "--study", bad]),
                (4, [PKI, "init", "--folder", bad / "pki"]),
                (3, [PKI, "list", "--folder", bad]),
                (3, [PKI, "sign", bad, "--folder", pki]),
                (4, [PKI, "request", "--name", "silo-1", "--out", bad]),
            ]
            for code, arguments in cases:
                with self.subTest(arguments=[str(a) for a in arguments]):
                    self.assert_fails(self.run_program(*arguments), code, str(bad), reason)

    def test_files_in_the_place_of_folders_and_folders_in_the_place_of_files(self):
        self.draw()
        for code, arguments in [(3, self.server_arguments(**{"data.path": self.file})),
                                (4, self.server_arguments(**{"run.folder": self.file})),
                                (4, self.server_arguments(**{"run.folder": self.file / "run"})),
                                (3, self.server_arguments(**{"data.manifest": self.data})),
                                (3, self.server_arguments(**{"listen.allowed": self.data})),
                                (2, [SERVER, "--config", self.data]),
                                (4, [PKI, "request", "--name", "a", "--out", self.file])]:
            with self.subTest(arguments=[str(a) for a in arguments]):
                self.assert_fails(self.run_program(*arguments), code)
        (self.data / "meta.json").symlink_to("nowhere")  # not as if there were none
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "meta.json: cannot be read")

    def test_no_folder_is_named_tilde(self):
        self.draw()
        self.make_authority()
        home = {**os.environ, "HOME": str(self.folder)}
        for path in ("~", "~/first", "~mary/first"):
            cases = [self.server_arguments(**{"run.folder": path}), self.server_arguments(**{"data.path": path}),
                     self.server_arguments(**{"model.name": f"script:{path}"}), [SERVER, f"--config={path}"],
                     [CLIENT, "--set", f"store.pretrained={path}"], [CLIENT, "--set", f"own_model=script:{path}"],
                     [CLIENT, "--set", f"tls.key={path}"], [*self.partition(), f"--out={path}"],
                     [LAB, "export", f"--manifest={path}", "--client=0", "--out=x"],
                     [LAB, "pairs", f"--study={path}"], [LAB, "pairs", "--study=s", f"--models={path}"],
                     [LAB, "table", f"--study={path}"], [LAB, "merge", "--into=s", path],
                     [LAB, "simulate", "--set", f"store.pretrained={path}"], [LAB, "advise", f"--study={path}"],
                     [PKI, "init", f"--folder={path}"], [PKI, "request", "--name=a", f"--out={path}"],
                     [PKI, "sign", path]]
            for arguments in cases:
                with self.subTest(arguments=[str(a) for a in arguments]):
                    done = self.run_program(*arguments, cwd=self.folder, env=home)
                    self.assert_fails(done, 2, "expected a path written in full", path)
        self.assertEqual([entry.name for entry in self.folder.iterdir() if "~" in entry.name], [])
        self.assert_fails(self.run_program(PKI, "init", "--folder", ""), 2, "--folder", "empty")
        self.assert_fails(self.run_program(*self.server_arguments(**{"run.folder": ""})), 2, "run.folder is empty")

    def test_what_a_file_says_twice_is_refused_with_key_and_place(self):
        self.draw()
        config = self.folder / "run.json"
        config.write_text('{"train": {"lr": 0.3},\n "train": {"batch_size": 8}}')
        self.assert_fails(self.run_program(SERVER, "--config", config), 2, f'{config}: line 2: the key "train" stands twice')
        config.write_text('{"train.lr": 0.3, "train": {"lr": 0.1}}')
        self.assert_fails(self.run_program(SERVER, "--config", config), 2, f"{config}: setting 'train.lr' stands twice")
        config.write_bytes(b"\xef\xbb\xbf" + b'{"train": {"lr": 2e9}}')
        self.assert_fails(self.run_program(SERVER, "--config", config, "--set", "rounds"), 2, "expected key=value")
        manifest = self.manifest.read_text()
        self.manifest.write_text(manifest.replace('"seed"', '"dataset": "x",\n "seed"', 1))
        self.assert_fails(self.run_program(*self.server_arguments()), 3, str(self.manifest), 'the key "dataset" stands twice')
        self.manifest.write_text(manifest)
        (self.data / "meta.json").write_text('{"num_classes": 3,\n"num_classes": 4}')
        self.assert_fails(self.run_program(*self.server_arguments()), 3, "meta.json: line 2: the key")
        (self.data / "meta.json").unlink()
        allowed = self.folder / "allowed"
        allowed.write_text("silo-0\nst mary\n")
        self.assert_fails(self.run_program(*self.server_arguments(**{"listen.allowed": allowed})), 3,
                          f"listen.allowed: {allowed}, line 2:", "st mary")

    def test_of_two_values_for_one_setting_the_last_counts_and_a_word_is_said(self):
        done = self.run_program(*self.partition(**{"partition.clients": 2}), "--set", "partition.clients=3",
                                "--set", "partition.kind=uniform", "--out", self.manifest)
        note = "note: --set partition.clients=3 takes the place of --set partition.clients=2\n"
        self.assertIn(note, done.stderr)


class SecondCertificates(ProgramsTest):
    def sign(self, request, *options):
        return self.run_program(PKI, "sign", request, "--folder", self.folder / "pki", *options)

    def test_a_second_key_under_a_name_is_certified_only_where_it_is_told(self):
        self.make_authority()
        prints = {}
        for home in ("first", "second"):
            done = self.run_program(PKI, "request", "--name", "st-mary", "--out", self.folder / home)
            prints[home] = re.search(r"^fingerprint (\S+)$", done.stdout, re.MULTILINE).group(1)
        first, second = (self.folder / home / "st-mary.csr" for home in prints)
        self.assertEqual(self.sign(first).returncode, 0)
        self.assert_fails(self.sign(first), 2, "--renew", prints["first"])
        done = self.sign(first, "--renew")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("for 'st-mary' and the key with fingerprint " + prints["first"], done.stdout)
        self.assert_fails(self.sign(second), 2, "--replace", *prints.values())
        self.assert_fails(self.sign(second, "--renew"), 2, "--replace", *prints.values())
        done = self.sign(second, "--replace")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("revoked: "), 2)
        self.assertIn(prints["first"], done.stdout)
        self.assert_fails(self.sign(first, "--replace"), 3, "was revoked on")
        filed = self.folder / "st-paul.csr"
        filed.write_bytes(second.read_bytes())
        self.assert_fails(self.sign(filed), 3, "asks for the name 'st-mary', and is filed as that of 'st-paul'")


if __name__ == "__main__":
    unittest.main()
