"""What the tests of real processes share: a small data set, the programs' command lines, children that end with the test."""

import json
import os
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

BIN = Path(os.environ["HEADSTART_BIN"])
SERVER, CLIENT, LAB = BIN / "server/headstart-server", BIN / "client/headstart-client", BIN / "experiments/headstart-lab"
PKI = BIN / "server/pki/headstart-pki"
PATIENCE = 60


def write_npy(path: Path, descr: str, shape: tuple, data: bytes) -> None:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def write_dataset(folder: Path, num_train: int = 300, num_test: int = 60) -> None:
    """Images of 12x12 whose class is the bright third of their rows."""
    folder.mkdir()
    for split, count in (("train", num_train), ("test", num_test)):
        images, labels = bytearray(), []
        for i in range(count):
            label = i % 3
            labels.append(label)
            for row in range(12):
                bright = 200 if 4 * label <= row < 4 * label + 4 else 20
                images += bytes((bright + (i * 7 + row * 13 + column * 29) % 40) for column in range(12))
        write_npy(folder / f"{split}-images.npy", "|u1", (count, 12, 12), bytes(images))
        write_npy(folder / f"{split}-labels.npy", "<i8", (count,), struct.pack(f"<{count}q", *labels))


def wait_for(condition, what: str):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


class ProgramsTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.data = self.folder / "data"
        write_dataset(self.data)
        self.manifest = self.folder / "manifest.json"
        self.children = []

    def tearDown(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        self.temporary.cleanup()

    def run_program(self, *arguments, **options):
        return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=PATIENCE, **options)

    def start(self, *arguments, **options):
        child = subprocess.Popen([str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 **options)
        self.children.append(child)
        return child

    def data_settings(self):
        return ["--set", "data.set=tensors", "--set", f"data.path={self.data}"]

    def draw(self, clients=3):
        done = self.run_program(LAB, "partition", *self.data_settings(), "--set", f"partition.clients={clients}",
                                "--set", "partition.kind=uniform", "--set", "draw.validation=30", "--set", "draw.clients=0",
                                "--set", "draw.public_large=60", "--set", "draw.public_small=0",
                                "--set", "draw.public_labeled=0", "--set", "draw.test=0", "--out", self.manifest)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def server_arguments(self, run="run", **settings):
        base = {"run.folder": self.folder / run, "listen.port": 0, "data.manifest": self.manifest,
                "federation.clients": 3, "federation.rounds": 2, "model.channels": "[4,4]", "model.hidden": 8,
                "pretrain.max_epochs": 2, "consolidation.epochs": 2, "validation.source": "server"}
        base.update(settings)
        arguments = [SERVER, *self.data_settings()]
        for key, value in base.items():
            arguments += ["--set", f"{key}={value}"]
        return arguments

    def client_arguments(self, index, port, *more):
        return [CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", f"silo-{index}", *self.data_settings(),
                "--set", f"data.manifest={self.manifest}", "--set", f"data.share={index}",
                "--set", "share_model=peers", *more]

    def make_authority(self):
        done = self.run_program(PKI, "init", "--folder", self.folder / "pki")
        self.assertEqual(done.returncode, 0, done.stderr)

    def certify(self, name, *options):
        """The settings of one who was certified."""
        home = self.folder / f"home-{name}"
        self.assertEqual(self.run_program(PKI, "request", "--name", name, "--out", home).returncode, 0)
        done = self.run_program(PKI, "sign", home / f"{name}.csr", "--folder", self.folder / "pki", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {"tls.authority": self.folder / "pki/authority.pem", "tls.certificate": done.stdout.splitlines()[0],
                "tls.key": home / f"{name}.key"}

    def tls_client(self, index, port, credentials):
        settings = [word for key, value in credentials.items() for word in ("--set", f"{key}={value}")]
        arguments = self.client_arguments(index, port, *settings)
        return [str(a).replace("ws://", "wss://") for a in arguments]

    def start_server(self, run="run", environment=None, **settings):
        port_file = self.folder / run / "port"
        port_file.unlink(missing_ok=True)  # of an earlier server
        server = self.start(*self.server_arguments(run, **settings), env=environment)
        wait_for(lambda: port_file.exists() or server.poll() is not None, "the server's port")
        self.assertIsNone(server.poll(), server.stderr.read() if server.poll() is not None else "")
        return server, int(port_file.read_text())

    def finish(self, child):
        out, err = child.communicate(timeout=PATIENCE)
        return child.returncode, out, err

    def assert_fails(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertNotIn("internal error", done.stderr)
