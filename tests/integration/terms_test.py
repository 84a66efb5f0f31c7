"""What a sample means, over real processes: silos whose classes, pixels or numbers of classes are others than the run's,
a coordinator without data, and model files that say what they are."""

import json
import struct
import subprocess
import sys
import unittest
from pathlib import Path

from tests.integration.programs import CLIENT, LAB, SERVER, ProgramsTest, wait_for, write_npy

try:
    import numpy
    import torch
except ImportError:
    torch = None

try:
    from PIL import Image
except ImportError:
    Image = None

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def noise(i, place):
    return (i * 37 + place * 101 + i * place * 13) % 60


def write_samples(folder, split, labels, value=lambda byte: byte, descr="|u1", meta=None):
    """Images of 1x8x8 whose class is where they are bright; `value` makes of a byte what is stored."""
    folder.mkdir(parents=True, exist_ok=True)
    values = [value((180 if 21 * label <= place < 21 * label + 21 else 10) + noise(i, place))
              for i, label in enumerate(labels) for place in range(64)]
    data = bytes(values) if descr == "|u1" else struct.pack(f"<{len(values)}f", *values)
    write_npy(folder / f"{split}-images.npy", descr, (len(labels), 1, 8, 8), data)
    write_npy(folder / f"{split}-labels.npy", "<i8", (len(labels),), struct.pack(f"<{len(labels)}q", *labels))
    if meta is not None:
        (folder / "meta.json").write_text(json.dumps(meta))


def of_classes(count, *classes):
    return [classes[i % len(classes)] for i in range(count)]


def metadata_of(file):
    raw = file.read_bytes()
    return json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]


class Terms(ProgramsTest):
    def setUp(self):
        super().setUp()
        self.central = self.folder / "central"
        write_samples(self.central, "test", of_classes(60, 0, 1, 2))

    def serve(self, run="run", clients=2, data="tensors", path=None, environment=None, **settings):
        base = {"run.folder": self.folder / run, "listen.port": 0, "federation.clients": clients,
                "federation.rounds": 5, "model.channels": "[4,4]", "model.kernel": 2, "model.hidden": 16,
                "train.lr": 0.05, "train.epochs": 3, "train.batch_size": 8, "data.set": data, "data.path": path or self.central}
        base.update(settings)
        words = [word for key, value in base.items() if value != "" for word in ("--set", f"{key}={value}")]
        server = self.start(SERVER, *words)
        port = self.folder / run / "port"
        wait_for(lambda: port.exists() or server.poll() is not None, "the server's port")
        self.assertIsNone(server.poll(), server.stderr.read() if server.poll() is not None else "")
        return server, int(port.read_text())

    def client_words(self, port, name, path, *more, data="tensors"):
        return [CLIENT, "--server", f"ws://127.0.0.1:{port}", "--name", name, "--set", f"data.set={data}",
                "--set", f"data.path={path}", *more]

    def check_and_join(self, port, path, *more, data="tensors"):
        """What --check says and what joining says, of a silo that does not fit."""
        words = self.client_words(port, "odd", path, *more, data=data)
        return self.run_program(*words, "--check"), self.run_program(*words)

    def assert_refused(self, port, path, *parts, data="tensors"):
        check, join = self.check_and_join(port, path, data=data)
        self.assert_fails(check, 3, *parts)
        self.assert_fails(join, 6, *(part.replace('"', "'") for part in parts))  # a quotation holds no mark of its own

    def assert_run(self, server, clients, accuracy=0.99):
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, out + err)
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        last = json.loads((self.folder / "run/rounds.jsonl").read_text().splitlines()[-1])
        if accuracy:
            self.assertGreaterEqual(last["accuracy"], accuracy)
        return last

    def test_values_and_classes_that_are_not_the_runs_are_refused_and_what_silos_lack_is_not(self):
        (self.central / "meta.json").write_text(json.dumps({"classes": ["low", "mid", "high"], "mean": [0.3],
                                                           "deviation": [0.25]}))
        server, port = self.serve(clients=4)
        silos = self.folder / "silos"
        write_samples(silos / "floats", "train", of_classes(30, 0, 1, 2), float, "<f4")
        self.assert_refused(port, silos / "floats", "float32 from", "uint8, divided by 255,", "Divide the values by 255")
        write_samples(silos / "signed", "train", of_classes(30, 0, 1, 2), lambda byte: byte / 127.5 - 1, "<f4")
        self.assert_refused(port, silos / "signed", "cannot be those of the run")
        write_samples(silos / "order", "train", of_classes(30, 0, 1, 2), meta={"classes": ["mid", "low", "high"]})
        self.assert_refused(port, silos / "order", '"mid", "low", "high"', '"low", "mid", "high"')
        write_samples(silos / "four", "train", of_classes(30, 0, 1, 2), meta={"num_classes": 4})
        self.assert_refused(port, silos / "four", "4 classes", "the run has 3")
        write_samples(silos / "beyond", "train", of_classes(30, 0, 3))
        for words in (["--check"], []):
            done = self.run_program(*self.client_words(port, "odd", silos / "beyond"), *words)
            self.assert_fails(done, 3, "train-labels.npy, index 1: label 3, expected 0 to 2")
        # These take part.
        write_samples(silos / "inverted", "train", of_classes(30, 0, 1, 2), lambda byte: 255 - byte)
        done = self.run_program(*self.client_words(port, "odd", silos / "inverted"), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("WARNING     the values of its samples lie far from the run's", done.stdout)
        write_samples(silos / "lacking", "train", of_classes(40, 0, 1))
        done = self.run_program(*self.client_words(port, "odd", silos / "lacking"), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('no samples of "high" are here', done.stdout)
        self.assertIn("do not name their classes", done.stdout)
        write_samples(silos / "own", "train", of_classes(60, 0, 1, 2), meta={"num_classes": 3, "mean": [0.5],
                                                                            "deviation": [0.01]})
        write_samples(silos / "only", "train", of_classes(40, 2))
        write_samples(silos / "unit", "train", of_classes(60, 0, 1, 2), lambda byte: byte / 255, "<f4")
        clients = [self.start(*self.client_words(port, name, silos / name)) for name in
                   ("lacking", "own", "only", "unit")]
        self.assert_run(server, clients)
        self.assertEqual(json.loads(metadata_of(self.folder / "run/final.safetensors")["mean"]), [0.3])
        audit = (self.folder / "run/audit.jsonl").read_text()
        self.assertEqual(audit.count("cannot be those of the run"), 2)
        self.assertEqual(audit.count("its classes are"), 1)
        self.assertEqual(audit.count("its data have 4 classes"), 1)

    def test_a_check_knows_how_many_samples_a_client_may_announce(self):
        _, port = self.serve(clients=1, **{"limits.examples": 20})
        write_samples(self.folder / "many", "train", of_classes(30, 0, 1, 2))
        self.assert_refused(port, self.folder / "many", "training samples; limits.examples of the server allows 20")

    def test_a_far_mean_is_a_warning_at_both_ends(self):
        server, port = self.serve(clients=1)
        write_samples(self.folder / "inverted", "train", of_classes(30, 0, 1, 2), lambda byte: 255 - byte)
        client = self.start(*self.client_words(port, "odd", self.folder / "inverted"))
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, err)
        self.assertIn("odd joins, and the values of its samples lie far from the run's", out + err)
        self.assertIn("the values of its samples lie far from the run's", self.finish(client)[2])
        self.assertIn('"samples differ"', (self.folder / "run/audit.jsonl").read_text())

    def test_check_prints_the_runs_terms_in_five_lines(self):
        write_samples(self.folder / "silo", "train", of_classes(30, 0, 1, 2))
        server, port = self.serve(**{"federation.rounds": 3, "train.lr": 0.1, "train.epochs": 2, "start.model": "best_local", "validation.source": "federated"})
        words = self.client_words(port, "silo", self.folder / "silo")
        done = self.run_program(*words, "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("ok  rounds"))
        terms = lines[first:first + 5]
        for line, parts in zip(terms, (["rounds", "3"], ["epochs", "2 a round"], ["learning rate 0.1"],
                                       ["start", "best_local"], ["share_model", "peers is wanted", "says: server"])):
            for part in parts:
                self.assertIn(part, line)
        server.kill()

    def test_check_compares_the_sha256_of_a_script(self):
        write_samples(self.folder / "silo", "train", of_classes(30, 0, 1, 2))
        for split in ("train", "test"):
            labels = of_classes(30, 0, 1, 2)
            write_npy(self.folder / "silo" / f"{split}-images.npy", "|u1", (30, 1, 4, 4), bytes(30 * 16))
            write_npy(self.folder / "silo" / f"{split}-labels.npy", "<i8", (30,), struct.pack("<30q", *labels))
        mine, theirs = GOLDEN / "scripted/batch_norm.pt", GOLDEN / "scripted/gated.pt"
        server, port = self.serve(path=self.folder / "silo", **{"model.name": f"script:{theirs}", "model.channels": "[4,4]"})
        words = self.client_words(port, "silo", self.folder / "silo")
        done = self.run_program(*words, "--set", f"model.script={theirs}", "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.run_program(*words, "--set", f"model.script={mine}", "--check")
        self.assert_fails(done, 3, "would train 'script sha256=", "the run trains 'script sha256=", "model.script")
        server.kill()

    @unittest.skipIf(Image is None, "python3-pil is not installed")
    def test_class_folders_count_by_their_names(self):
        def put(home, split, name, count):
            folder = self.folder / home / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                light = 160 if name.lower() == "pneumonia" else 20
                data = bytes(light + noise(i, place) for place in range(3 * 64))
                Image.frombytes("RGB", (8, 8), data).save(folder / f"{i}.png")
        put("hospital", "test", "NORMAL", 20)
        put("hospital", "test", "PNEUMONIA", 20)
        put("whole", "train", "NORMAL", 20)
        put("whole", "train", "PNEUMONIA", 20)
        put("otherwise", "train", "normal", 20)
        put("otherwise", "train", "Pneumonia", 20)
        put("lacking", "train", "PNEUMONIA", 20)
        put("empty", "train", "PNEUMONIA", 20)
        (self.folder / "empty/train/NORMAL").mkdir()
        side = ["--set", "data.side=8"]
        server, port = self.serve(clients=3, data="images", path=self.folder / "hospital", **{"data.side": 8})
        check, join = self.check_and_join(port, self.folder / "otherwise", *side, data="images")
        for done, code, mark in ((check, 3, '"'), (join, 6, "'")):
            self.assert_fails(done, code, '"Pneumonia", "normal"'.replace('"', mark),
                              '"NORMAL", "PNEUMONIA"'.replace('"', mark), "upper and lower case")
        clients = [self.start(*self.client_words(port, name, self.folder / name, *side, data="images"))
                   for name in ("whole", "lacking", "empty")]
        self.assert_run(server, clients)
        self.assertEqual(metadata_of(self.folder / "run/final.safetensors")["classes"], '["NORMAL","PNEUMONIA"]')

    def test_a_coordinator_without_data_compares_silos_with_each_other(self):
        empty = {"evaluation.central": "false", "checkpoints.best": "false"}
        words = [SERVER, "--set", f"run.folder={self.folder / 'none'}", "--set", "evaluation.central=false",
                 "--set", "data.set=tensors"]
        self.assert_fails(self.run_program(*words), 2, "data.classes and data.shape")
        server, port = self.serve(clients=2, path=self.folder / "nowhere",
                                  **{"data.classes": "low,mid,high", "data.shape": "[1,8,8]", **empty})
        silos = self.folder / "silos"
        write_samples(silos / "first", "train", of_classes(30, 0, 1, 2))
        write_samples(silos / "floats", "train", of_classes(30, 0, 1, 2), float, "<f4")
        first = self.start(*self.client_words(port, "first", silos / "first"))
        wait_for(lambda: '"joined"' in (self.folder / "run/audit.jsonl").read_text(), "the first silo")
        self.assert_refused(port, silos / "floats", "float32 from", 'at "first"')
        write_samples(silos / "second", "train", of_classes(30, 0, 1))
        second = self.start(*self.client_words(port, "second", silos / "second"))
        self.assert_run(server, [first, second], accuracy=None)
        self.assertEqual(metadata_of(self.folder / "run/final.safetensors")["classes"], '["low","mid","high"]')

    def test_more_classes_or_larger_samples_than_clients_read_are_refused_at_the_start(self):
        many = self.folder / "many"
        write_npy(self.folder / "labels", "<i8", (2,), struct.pack("<2q", 0, 2999))
        many.mkdir()
        for split in ("train", "test"):
            write_npy(many / f"{split}-images.npy", "|u1", (2, 1, 2, 2), bytes(8))
            write_npy(many / f"{split}-labels.npy", "<i8", (2,), struct.pack("<2q", 0, 2999))
        wide = self.folder / "wide"
        wide.mkdir()
        for split in ("train", "test"):
            write_npy(wide / f"{split}-images.npy", "|u1", (2, 1, 1, 70000), bytes(140000))
            write_npy(wide / f"{split}-labels.npy", "<i8", (2,), struct.pack("<2q", 0, 1))
        for path, number, bound in ((many, "3000", "2048"), (wide, "70000", "65536")):
            words = ["--set", "data.set=tensors", "--set", f"data.path={path}", "--set", f"run.folder={path / 'run'}"]
            self.assert_fails(self.run_program(SERVER, *words), 3, number, bound)
            self.assertFalse((path / "run").exists())
            manifest = path / "manifest.json"
            done = self.run_program(LAB, "partition", *words[:4], "--set", "partition.clients=2", "--set",
                                    "partition.kind=uniform", "--set", "partition.min_samples=1", "--out", manifest,
                                    *[word for draw in ("validation", "clients", "public_large", "public_small",
                                                        "public_labeled", "test")
                                      for word in ("--set", f"draw.{draw}=0")])
            if path == wide:
                self.assert_fails(done, 3, number, bound)
                continue
            self.assertEqual(done.returncode, 0, done.stderr)
            done = self.run_program(LAB, "simulate", *words, "--set", f"data.manifest={manifest}", "--set",
                                    "federation.clients=2")
            self.assert_fails(done, 3, number, bound)

    @unittest.skipIf(torch is None, "python3-torch or python3-numpy is not installed")
    def test_with_the_metadata_alone_ten_lines_of_python_predict_what_the_server_measured(self):
        page = (Path(__file__).resolve().parents[2] / "server/run_files.md").read_text()
        program = "".join(block.split("```")[0] for block in page.split("```python\n")[1:])
        meta = {"classes": ["low", "mid", "high"], "mean": [0.3], "deviation": [0.25]}
        write_samples(self.central, "test", of_classes(61, 0, 1, 2), meta=meta)
        write_samples(self.central, "train", of_classes(60, 0, 1, 2), meta=meta)

        class Scripted(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
                self.norm = torch.nn.BatchNorm2d(4)
                self.head = torch.nn.Linear(256, 3)

            def forward(self, x):
                return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))

        torch.manual_seed(1)
        script = self.folder / "model.pt"
        torch.jit.script(Scripted()).save(str(script))
        for name, settings in (("cnn", {}), ("resnet18", {"model.name": "resnet18", "model.width": 4}),
                               ("mlp", {"model.name": "mlp", "model.norm": "batch"}),
                               ("mlp-layer-norm", {"model.name": "mlp", "model.norm": "group", "model.second_head": "true"}),
                               ("linear", {"model.name": "linear"}),
                               ("script", {"model.name": f"script:{script}", "model.channels": "[4,4]"})):
            run = f"run-{name}"
            server, port = self.serve(run, clients=1, **{"federation.rounds": 1, "train.lr": 0.003, **settings})
            client = self.start(*self.client_words(port, "silo", self.central),
                                *(["--set", f"model.script={script}"] if name == "script" else []))
            self.assertEqual(self.finish(server)[0], 0)
            self.assertEqual(self.finish(client)[0], 0)
            home = self.folder / run
            if name == "script":
                (home / "model.pt").write_bytes(script.read_bytes())
            numpy.save(home / "images.npy", numpy.load(self.central / "test-images.npy"))
            done = subprocess.run([sys.executable, "-c", program], cwd=home, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            names = done.stdout.split()
            labels = numpy.load(self.central / "test-labels.npy")
            right = sum(name == meta["classes"][label] for name, label in zip(names, labels))
            self.assertEqual(len(names), 61)
            last = json.loads((home / "rounds.jsonl").read_text().splitlines()[-1])
            self.assertAlmostEqual(right / 61, last["accuracy"], places=9, msg=name)


if __name__ == "__main__":
    unittest.main()
