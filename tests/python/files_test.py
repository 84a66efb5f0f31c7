"""What the package reads and writes of runs: models, rounds, studies; TensorBoard's event files by an independent
reading of their format, and MLflow by a module that records calls."""

import contextlib
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path

import numpy

import headstart
from headstart import __main__ as command
from headstart import follow, safetensors, tensorboard

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

try:
    import pandas
except ImportError:
    pandas = None

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
BEGIN = 1767225600.125  # 2026-01-01T00:00:00.125Z


class Folder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def make_run(self, rounds=3, name="run"):
        folder = self.folder / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({
            "program": "headstart", "version": "0.1.0", "architecture": "cnn", "terms": "ab",
            "config": {"train": {"lr": 0.1, "epochs": 2}, "model": {"channels": [4, 4]}},
            "samples": {"classes": ["cat", "dog"]}}))
        (folder / "audit.jsonl").write_text('{"at":"2026-01-01T00:00:00.125Z","event":"server started"}\n')
        for number in range(rounds):
            self.add_round(folder, number)
        return folder

    @staticmethod
    def add_round(folder, number, **more):
        record = {"round": number, "accuracy": 0.5 + number / 10, "loss": None if number == 1 else 2.0,
                  "class_accuracy": [0.25, 0.75], "seconds": 10.0 * number, "bytes_up": 2**40 * number,
                  "clients": ["a", "b"] if number else [], "norms": {"a": 1.5} if number else {}, "model": "ff",
                  "federated": {"accuracy": 0.5, "class_accuracy": [0.0, 1.0]} if number else None, **more}
        with open(folder / "rounds.jsonl", "a") as lines:
            lines.write(json.dumps(record) + "\n")

    def call(self, *arguments):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = command.main([str(argument) for argument in arguments])
        return code, out.getvalue(), err.getvalue()

    def assert_sentence(self, words, call, *arguments, **named):
        with self.assertRaises(headstart.HeadstartError) as caught:
            call(*arguments, **named)
        self.assertIn(words, str(caught.exception))


class Runs(Folder):
    def test_rounds_are_columns(self):
        folder = self.make_run()
        with open(folder / "rounds.jsonl", "a") as lines:
            lines.write('{"round": 3, "accu')  # being written
        run = headstart.read_run(folder)
        self.assertEqual((len(run.rounds), run.summary, run.is_over), (3, None, False))
        self.assertEqual(run.settings["config"]["train"]["lr"], 0.1)
        numpy.testing.assert_array_equal(run.rounds["round"], [0, 1, 2])
        numpy.testing.assert_array_equal(run.rounds["accuracy"], [0.5, 0.6, 0.7])
        numpy.testing.assert_array_equal(run.rounds["loss"], [2.0, numpy.inf, 2.0])
        numpy.testing.assert_array_equal(run.rounds["class_accuracy"], [[0.25, 0.75]] * 3)
        numpy.testing.assert_array_equal(run.rounds["federated.accuracy"], [numpy.nan, 0.5, 0.5])
        numpy.testing.assert_array_equal(run.rounds["federated.class_accuracy"],
                                         [[numpy.nan, numpy.nan], [0.0, 1.0], [0.0, 1.0]])
        numpy.testing.assert_array_equal(run.rounds["norms.a"], [numpy.nan, 1.5, 1.5])
        self.assertEqual(run.rounds["clients"].tolist(), [[], ["a", "b"], ["a", "b"]])
        self.assertNotIn("federated", run.rounds)
        (folder / "summary.json").write_text('{"rounds": 3}')
        self.assertEqual(headstart.read_run(folder).summary, {"rounds": 3})
        self.assert_sentence("there is no column 'acuracy'; there are round, accuracy", run.rounds.__getitem__, "acuracy")

    @unittest.skipIf(pandas is None, "pandas is not installed here")
    def test_rounds_are_a_data_frame(self):
        frame = headstart.read_run(self.make_run()).rounds.to_frame()
        self.assertEqual(frame["accuracy"].tolist(), [0.5, 0.6, 0.7])
        self.assertEqual(frame["class_accuracy.1"].tolist(), [0.75] * 3)
        self.assertEqual(len(frame), 3)

    @unittest.skipIf(pandas is not None, "pandas is installed here")
    def test_without_pandas_a_data_frame_is_refused_with_a_sentence(self):
        self.assert_sentence("to_frame() needs pandas", headstart.read_run(self.make_run()).rounds.to_frame)

    def test_what_is_no_run_is_named(self):
        self.assert_sentence("is no folder of a run: it has no run.json", headstart.read_run, self.folder)
        folder = self.make_run()
        (folder / "rounds.jsonl").write_text('{"round": 0}\n{"round"\n{"round": 2}\n')
        self.assert_sentence("rounds.jsonl, line 2: is no JSON", headstart.read_run, folder)
        (folder / "run.json").write_text("{")
        self.assert_sentence("run.json: is no JSON", headstart.read_run, folder)

    def make_study(self, version=1, application=0x48535444):
        """The tables of experiments/lab/study_store.cpp."""
        source = (ROOT / "experiments/lab/study_store.cpp").read_text()
        tables = source.split('R"sql(')[1].split(')sql"')[0]
        file = self.folder / "study.db"
        file.unlink(missing_ok=True)
        connection = sqlite3.connect(file)
        connection.executescript(tables)
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("INSERT INTO study VALUES (?)", [json.dumps({"grid": {"rate_epochs": 1}, "draw": {"test": 9}})])
        for number, accuracy in ((0, 0.25), (1, 0.5), (2, None)):
            metrics = None if accuracy is None else json.dumps({"accuracy": accuracy, "classes": [1, number]})
            connection.execute("INSERT INTO cells (key, settings, metrics, seconds) VALUES (?, ?, ?, ?)",
                               [str(number), json.dumps({"pair": {"seed": number, "method": "dml"}}), metrics, 1.5])
        connection.commit()
        connection.close()
        return file

    def test_a_study_is_a_row_a_finished_cell(self):
        study = headstart.read_study(self.make_study())
        self.assertEqual((study.kind, study.planned, len(study.cells)), ("pair", 3, 2))
        self.assertEqual(study.settings["draw"], {"test": 9})
        numpy.testing.assert_array_equal(study.cells["accuracy"], [0.25, 0.5])
        numpy.testing.assert_array_equal(study.cells["pair.seed"], [0, 1])
        numpy.testing.assert_array_equal(study.cells["classes"], [[1, 0], [1, 1]])
        numpy.testing.assert_array_equal(study.cells["seconds"], [1.5, 1.5])
        self.assertEqual(study.cells["pair.method"].tolist(), ["dml", "dml"])

    def test_what_is_no_study_is_named(self):
        self.assert_sentence("there is no such file", headstart.read_study, self.folder / "none.db")
        (self.folder / "text.db").write_text("x" * 5000)
        self.assert_sentence("is no study, or is damaged", headstart.read_study, self.folder / "text.db")
        self.assert_sentence("but not of a study", headstart.read_study, self.make_study(application=7))
        self.assert_sentence("is of version 2 of the format", headstart.read_study, self.make_study(version=2))


def records_of(raw):
    """TFRecords: length and its masked sum, data and theirs."""
    while raw:
        length = struct.unpack("<Q", raw[:8])[0]
        assert struct.unpack("<I", raw[8:12])[0] == masked(raw[:8])
        data = raw[12:12 + length]
        assert struct.unpack("<I", raw[12 + length:16 + length])[0] == masked(data)
        yield data
        raw = raw[16 + length:]


def masked(data):
    """By the polynomial's division, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
    value ^= 0xFFFFFFFF
    return ((value >> 15) | (value << 17) & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF


def fields_of(message):
    """Protocol buffers: number and value of each field, by wire type."""
    def varint():
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while message:
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        value, message = message[:size], message[size:]
        yield key >> 3, struct.unpack("<d" if size == 8 else "<f", value)[0] if key & 7 in (1, 5) else value


def event_of(data):
    """Time, step, and scalars by tag or what else it has."""
    event = dict(fields_of(data))
    scalars = {}
    if 5 in event:
        for number, value in fields_of(event[5]):
            assert number == 1
            one = dict(fields_of(value))
            scalars[one[1].decode()] = one[2]
    return event[1], event.get(2, 0), scalars or event.get(3) or dict(fields_of(event[7]))


class TensorBoard(Folder):
    def events(self, folder):
        files = list(folder.iterdir())
        self.assertEqual(len(files), 1)
        self.assertIn("tfevents", files[0].name)
        return [event_of(data) for data in records_of(files[0].read_bytes())]

    def test_sums_are_those_of_the_standard(self):
        # RFC 3720, B.4, and the first bytes of every event file.
        for data, expected in ((b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
                               (bytes(range(32)), 0x46DD794E)):
            self.assertEqual(tensorboard.crc32c(data), expected)
        self.assertEqual(tensorboard.record(tensorboard.first_event(1.5))[:13], bytes.fromhex("1800000000000000a37f4b2209"))

    def test_each_round_is_an_event_with_its_numbers(self):
        run = self.make_run()
        for _ in range(2):  # again: the same file
            self.assertEqual(self.call("tensorboard", run, "--out", self.folder / "log/run")[0], 0)
        first, *rounds = self.events(self.folder / "log/run")
        self.assertEqual(first, (BEGIN, 0, b"brain.Event:2"))
        self.assertEqual([(time, step) for time, step, _ in rounds], [(BEGIN, 0), (BEGIN + 10, 1), (BEGIN + 20, 2)])
        tags = rounds[1][2]
        self.assertEqual(set(tags), {"accuracy", "class_accuracy/cat", "class_accuracy/dog", "seconds", "bytes_up", "clients",
                                     "norms/a", "federated/accuracy", "federated/class_accuracy/cat",
                                     "federated/class_accuracy/dog"})
        self.assertAlmostEqual(tags["accuracy"], 0.6, places=6)
        self.assertEqual((tags["bytes_up"], tags["clients"], tags["norms/a"]), (2.0**40, 2.0, 1.5))
        self.assertEqual(rounds[2][2]["loss"], 2.0)

    def test_it_follows_a_run_to_its_end(self):
        run, found = self.make_run(1), []

        def next_round():
            number = len(found)
            if number < 4:
                self.add_round(run, number)
            if number == 2:  # an early end before the server was started again does not count
                (run / "interrupted.json").write_text("{}")
                os.utime(run / "interrupted.json", (1, 1))
            if number == 3:
                (run / "summary.json").write_text("{}")

        for point in follow.points(run, True, next_round):
            found.append(point.round)
        self.assertEqual(found, [0, 1, 2, 3])
        self.assertEqual([point.round for point in follow.points(run, False)], [0, 1, 2, 3])

    def test_a_run_that_was_taken_back_starts_its_steps_anew(self):
        run, pauses = self.make_run(3), []

        def taken_back():
            pauses.append(1)
            (run / "rounds.jsonl").write_text("".join((run / "rounds.jsonl").read_text().splitlines(True)[:1]))
            self.add_round(run, 1, accuracy=0.9)
            (run / "summary.json").write_text("{}")

        found = list(follow.points(run, True, taken_back))
        self.assertEqual([(point.round, point.is_again) for point in found],
                         [(0, False), (1, False), (2, False), (1, True)])
        events = [event_of(data) for data in tensorboard.events_of(found[-1])]
        self.assertEqual([(step, what) for _, step, what in events][0], (1, {1: 1}))  # SessionLog.START
        self.assertAlmostEqual(events[1][2]["accuracy"], 0.9, places=6)

    def test_faults_are_sentences_with_exit_codes(self):
        code, _, err = self.call("tensorboard", self.folder, "--out", self.folder / "log")
        self.assertEqual((code, "is no folder of a run" in err), (3, True))
        self.assertFalse((self.folder / "log").exists())
        (self.folder / "file").write_text("")
        code, _, err = self.call("tensorboard", self.make_run(), "--out", self.folder / "file")
        self.assertEqual((code, "cannot be written" in err), (4, True), err)

    def test_the_command_is_a_program(self):
        done = subprocess.run([sys.executable, "-m", "headstart", "tensorboard", str(self.make_run()), "--out",
                               str(self.folder / "log")], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.events(self.folder / "log")), 4)


class Mlflow(Folder):
    def test_settings_rounds_and_documents_are_logged(self):
        calls = []
        module = types.ModuleType("mlflow")
        for name in ("set_experiment", "log_params", "set_tags", "log_metrics", "log_artifact"):
            setattr(module, name, lambda *values, _name=name, **named: calls.append((_name, *values, named)))

        @contextlib.contextmanager
        def start_run(run_name):
            calls.append(("start_run", run_name))
            yield types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))
            calls.append(("end_run",))

        module.start_run = start_run
        run = self.make_run()
        document = json.loads((run / "run.json").read_text())
        document["config"]["many"] = {f"key{place}": "x" * 600 for place in range(150)}
        document["samples"]["classes"] = ["cat (big)", "dog"]
        (run / "run.json").write_text(json.dumps(document))
        (run / "summary.json").write_text("{}")
        sys.modules["mlflow"] = module
        try:
            self.assertEqual(self.call("mlflow", run, "--experiment", "silos"), (0, "logged: r1\n", ""))
        finally:
            del sys.modules["mlflow"]
        self.assertEqual(calls[:2], [("set_experiment", "silos", {}), ("start_run", "run")])
        params = [call[1] for call in calls if call[0] == "log_params"]
        self.assertEqual([len(values) for values in params], [100, 53])
        merged = {key: value for values in params for key, value in values.items()}
        self.assertEqual((merged["train.lr"], merged["model.channels"], len(merged["many.key0"])), ("0.1", "[4, 4]", 500))
        metrics = [(call[1], call[2]["step"]) for call in calls if call[0] == "log_metrics"]
        self.assertEqual([step for _, step in metrics], [0, 1, 2])
        self.assertEqual(metrics[1][0]["class_accuracy/cat _big_"], 0.25)
        self.assertNotIn("loss", metrics[1][0])
        self.assertEqual([Path(call[1]).name for call in calls if call[0] == "log_artifact"],
                         ["run.json", "rounds.jsonl", "summary.json"])
        self.assertEqual(calls[-1], ("end_run",))

    def test_without_mlflow_it_says_what_is_missing(self):
        sys.modules["mlflow"] = None  # as if it were not installed
        try:
            code, _, err = self.call("mlflow", self.make_run())
        finally:
            del sys.modules["mlflow"]
        self.assertEqual((code, err), (2, "headstart: this needs the package mlflow, which is not installed here: pip "
                                          "install mlflow\n"))


def metadata(architecture):
    return {"architecture": architecture, "input_shape": "[2, 10, 10]", "scale": '{"uint8": 255, "float32": 1}',
            "mean": "[0.5, 0.25]", "deviation": "[2.0, 4.0]", "classes": '["a", "b", "c", "d"]'}


class Models(Folder):
    def test_a_state_is_a_start(self):
        state = {"w": numpy.ones((2, 3), "f4"), "count": numpy.array(5), "mean": numpy.zeros(2)}
        file = self.folder / "start.safetensors"
        headstart.save_model(file, state)
        read, found = headstart.load_state(file)
        self.assertEqual(found, {})
        numpy.testing.assert_array_equal(read["w"], state["w"])
        headstart.save_model(str(file), state, trained=["w"])
        self.assertEqual(headstart.load_state(file)[1], {"headstart.trained": '["w"]'})
        self.assertEqual([path.name for path in self.folder.iterdir()], ["start.safetensors"])
        worker = headstart.NumpyWorker(state, lambda model, task: model, 1, trained=["w", "mean"])
        headstart.save_model(file, worker)
        self.assertEqual(json.loads(headstart.load_state(file)[1]["headstart.trained"]), ["w", "mean"])
        self.assert_sentence("trained names 'v', which is no tensor of the model", headstart.save_model, file, state, ["v"])
        self.assert_sentence("save_model was given int", headstart.save_model, file, 5)
        self.assert_sentence("cannot be written", headstart.save_model, self.folder / "none/x", state)
        self.assert_sentence("cannot be read", headstart.load_state, self.folder / "none")
        self.assert_sentence("does not say what model it is", headstart.load, file)
        file.write_bytes(file.read_bytes()[:-1])
        self.assert_sentence("is no safetensors file, or is damaged", headstart.load_state, file)

    @unittest.skipIf(torch is None, "PyTorch is not installed here")
    def test_a_module_is_a_start_with_its_trained_tensors(self):
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        net[2].bias.requires_grad_(False)
        file = self.folder / "start.safetensors"
        for model in (net, headstart.TorchWorker(net, (numpy.zeros((2, 2), "f4"), [0, 1]))):
            headstart.save_model(file, model)
            state, found = headstart.load_state(file)
            self.assertEqual(json.loads(found["headstart.trained"]),
                             ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"])
            self.assertEqual(state.keys(), net.state_dict().keys())
            numpy.testing.assert_array_equal(state["0.weight"], net[0].weight.detach().numpy())
        headstart.save_model(file, net.state_dict())
        self.assertEqual(headstart.load_state(file)[1], {})

    @unittest.skipIf(torch is None, "PyTorch is not installed here")
    def test_the_programs_networks_answer_as_their_functions_on_the_page_do(self):
        """server/run_files.md defines them."""
        page = (ROOT / "server/run_files.md").read_text()
        scope = {}
        exec(page.split("```python")[1].split("```")[0], scope)
        torch.manual_seed(3)
        golden = json.loads((GOLDEN / "fedavg/reference.json").read_text())
        shapes = {name: value["shape"] for name, value in golden["start"].items()}
        states = {"cnn channels=4,6": shapes, "cnn group": {name: shape for name, shape in shapes.items() if "running" not in
                                                            name and "tracked" not in name},
                  "cnn none": {name: shape for name, shape in shapes.items() if "norm" not in name}}
        for norm in ("batch", "group", "none"):
            states[f"resnet18 {norm}"] = resnet_shapes(4, norm)
        states["cnn two"] = {**states["cnn none"], "head2.fc1.weight": [12, 12], "head2.fc1.bias": [12],
                             "head2.fc2.weight": [6, 12], "head2.fc2.bias": [6], "head2.fc3.weight": [4, 6],
                             "head2.fc3.bias": [4]}
        layers = {"fc1.weight": [6, 200], "fc1.bias": [6], "fc2.weight": [5, 6], "fc2.bias": [5], "fc3.weight": [4, 5],
                  "fc3.bias": [4]}
        affine = {f"norm{i}.{part}": [6 if i == 1 else 5] for i in (1, 2) for part in ("weight", "bias")}
        running = {f"norm{i}.{part}": [6 if i == 1 else 5] for i in (1, 2) for part in ("running_mean", "running_var")}
        counts = {f"norm{i}.num_batches_tracked": [] for i in (1, 2)}
        states |= {"mlp none": layers, "mlp group": {**layers, **affine}, "mlp batch": {**layers, **affine, **running, **counts},
                   "linear": {"fc.weight": [4, 200], "fc.bias": [4]}}
        x = numpy.random.RandomState(0).randint(0, 256, (5, 2, 10, 10)).astype("u1")
        for architecture, of_tensors in states.items():
            with self.subTest(architecture):
                w = {name: torch.tensor(3) if name.endswith("tracked") else torch.rand(shape) - (0.0 if "var" in name else 0.5)
                     for name, shape in of_tensors.items()}
                file = self.folder / "final.safetensors"
                file.write_bytes(b"".join(safetensors.parts_of({name: tensor.numpy() for name, tensor in w.items()},
                                                               metadata(architecture))))
                model = headstart.load(file)
                ready = (torch.from_numpy(x) / 255 - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / torch.tensor(
                    [2.0, 4.0]).view(2, 1, 1)
                torch.testing.assert_close(model.prepared(x), ready)
                expected = scope[architecture.split()[0]](w, ready)
                torch.testing.assert_close(model(ready), expected)
                torch.testing.assert_close(model.head(model.features(ready)), expected)
                self.assertEqual(model.predict(x), ["abcd"[label] for label in expected.argmax(1)])
                self.assertEqual((model.classes, model.metadata["architecture"]), (list("abcd"), architecture))
                self.assertEqual(list(model.state_dict()), list(dict.fromkeys(model.state_dict())))
                self.assertEqual(set(model.state_dict()), set(w))
        self.assert_sentence("the samples are int64; the model knows those stored as uint8 and float32", model.prepared,
                             x.astype(int))
        self.assert_sentence("a sample has the shape [2, 10]; the model reads [2, 10, 10]", model.prepared, x[:, :, 0])

    @unittest.skipIf(torch is None, "PyTorch is not installed here")
    def test_models_that_are_not_what_they_say_are_refused(self):
        file = self.folder / "final.safetensors"
        for architecture, words in (("script sha256=ab", "torch.jit.load() its file"), ("wide 3", "which load() does not build"),
                                    ("cnn channels=1,2", "its tensors are not those of one")):
            file.write_bytes(b"".join(safetensors.parts_of({"w": numpy.zeros(1)}, metadata(architecture))))
            self.assert_sentence(words, headstart.load, file)


def resnet_shapes(width, norm):
    def norms(name, channels):
        if norm == "none":
            return {}
        parts = {f"{name}.weight": [channels], f"{name}.bias": [channels]}
        if norm == "batch":
            parts.update({f"{name}.running_mean": [channels], f"{name}.running_var": [channels],
                          f"{name}.num_batches_tracked": []})
        return parts

    shapes = {"conv1.weight": [width, 2, 3, 3], **norms("bn1", width)}
    into = width
    for stage in range(4):
        out = width << stage
        for block in range(2):
            at = f"layer{stage + 1}.{block}."
            shapes |= {at + "conv1.weight": [out, into, 3, 3], **norms(at + "bn1", out),
                       at + "conv2.weight": [out, out, 3, 3], **norms(at + "bn2", out)}
            if into != out:
                shapes |= {at + "downsample.0.weight": [out, into, 1, 1], **norms(at + "downsample.1", out)}
            into = out
    return {**shapes, "fc.weight": [4, into], "fc.bias": [4]}


class Package(Folder):
    def test_it_has_the_programs_version(self):
        project = (ROOT / "CMakeLists.txt").read_text().split("project(headstart VERSION ")[1].split()[0]
        self.assertEqual(headstart.__version__, project)
        self.assertIn(f'version = "{project}"', (ROOT / "client/python/pyproject.toml").read_text())

    def test_it_installs_without_a_network_and_needs_numpy_alone(self):
        target = self.folder / "site"
        source = self.folder / "source"
        subprocess.run(["cp", "-r", ROOT / "client/python", source], check=True)  # setuptools writes beside its sources
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-index", "--no-deps",
                               "--quiet", "--target", target, source], capture_output=True, text=True, timeout=120)
        if "No module named pip" in done.stderr or "Cannot import 'setuptools" in done.stderr:
            self.skipTest("pip or setuptools is not installed here")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue((target / "headstart/py.typed").exists())
        script = ("import sys\n"
                  "for name in ('torch', 'sklearn', 'pandas', 'mlflow'): sys.modules[name] = None\n"
                  "import headstart\n"
                  "assert headstart.__file__.startswith(sys.argv[1]), headstart.__file__\n"
                  "for name in headstart.__all__:\n"
                  "    try: getattr(headstart, name)\n"
                  "    except headstart.HeadstartError as error: print(error)\n")
        done = subprocess.run([sys.executable, "-c", script, str(target)], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONPATH": str(target)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(line.split(",")[0] for line in done.stdout.splitlines()),
                         ["headstart.Loaded needs PyTorch", "headstart.SklearnWorker needs scikit-learn",
                          "headstart.TorchWorker needs PyTorch"])


if __name__ == "__main__":
    unittest.main()
