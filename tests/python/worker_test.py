"""The worker's side of the protocol: frames over a real socket to a real process, written and read here by their
definition (shared/worker_process/README.md)."""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy

import headstart
from headstart import safetensors
from headstart.errors import Stopped
from headstart.serving import Connection, Reporter

PATIENCE = 60
SCRIPT = """
import itertools, numpy, headstart

def train(model, task):
    print("training of", task.terms.client)
    if task.round == 13:
        raise headstart.HeadstartError("the scanner is off", "data")
    if task.round == 14:
        return {"w": model["w"]}
    if task.round == 15:
        return 1 / 0
    draws = numpy.random.RandomState(task.seed.low)
    for batch in task.batches(itertools.repeat([0] * 10, 10**9 if task.round == 99 else 3), 30):
        model["w"] += draws.standard_normal(2).astype("float32")
    return model

def evaluate(model):
    return numpy.array([0, 1, 1]), numpy.array([[2.0, 0.0], [0.0, 3.0], [1.0, model["b"][0]]])

worker = headstart.NumpyWorker({"w": numpy.zeros(2, "float32"), "b": numpy.zeros(1, "float64")}, train, 30, held_out=3,
                               evaluate=evaluate, trained=["w"])
headstart.serve(worker)
"""


def tensors_of(body):
    """By the definition of the format."""
    length = struct.unpack("<Q", body[:8])[0]
    header, data = json.loads(body[8:8 + length]), body[8 + length:]
    kinds = {"F32": "<f4", "F64": "<f8", "BF16": "<u2"}
    return {name: numpy.frombuffer(data[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items() if name != "__metadata__"}


def body_of(**tensors):
    header, data = {}, b""
    for name, (kind, array) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Client:
    """The client's side of the socket."""

    def __init__(self, script, folder):
        file = Path(folder) / "train.py"
        file.write_text(script)
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE)
        self.process = subprocess.Popen([sys.executable, str(file)], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True,
                                        env=dict(os.environ, HEADSTART_WORKER_FD=str(theirs.fileno())))
        theirs.close()

    def send(self, body=b"", **header):
        text = json.dumps(header).encode()
        self.channel.sendall(b"HSW1" + struct.pack("<IQ", len(text), len(body)) + text + body)

    def receive(self):
        head = self._read(16)
        assert head[:4] == b"HSW1", head
        length, size = struct.unpack("<IQ", head[4:])
        return json.loads(self._read(length)), self._read(size)

    def _read(self, size):
        data = b""
        while len(data) < size:
            more = self.channel.recv(size - len(data))
            assert more, "the worker closed the socket"
            data += more
        return data

    def join(self, **terms):
        self.send(type="join", client="st-mary", terms={"task": {"classes": 2}, **terms}, seed=5)
        return self.receive()[0]

    def ask_train(self, number=1, round=1, seed=3, w=(0, 0), prefix="0/"):
        body = body_of(**{prefix + "w": ("F32", numpy.array(w, "<f4")), prefix + "b": ("F64", numpy.array([4.0]))})
        self.send(body, type="task", id=number, kind="train", settings={"round": round, "counted_round": 0, "seed": seed},
                  inputs=[{"name": "model", "owner": "", "prefix": prefix}])

    def end(self):
        """Closes the socket; exit code and what the worker printed."""
        self.channel.close()
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


class Protocol(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def start(self, script=SCRIPT):
        client = Client(script, self.folder.name)
        self.addCleanup(lambda: client.process.poll() is None and client.process.kill())
        return client

    def test_a_run_goes_by_the_page(self):
        client = self.start()
        hello, body = client.receive()
        self.assertEqual((hello["type"], hello["protocol"], body), ("hello", 1, b""))
        self.assertEqual(hello["tasks"], ["train", "evaluate"])
        self.assertTrue(hello["software"].startswith("headstart-python "))
        joined = client.join()
        self.assertEqual((joined["type"], joined["examples"], joined["held_out"]), ("joined", 30, 3))
        self.assertEqual(joined["model"], [{"name": "w", "dtype": "F32", "shape": [2], "trained": True},
                                           {"name": "b", "dtype": "F64", "shape": [1], "trained": False}])
        results = []
        for number in (7, 8):
            client.ask_train(number)
            result, body = client.receive()
            self.assertEqual(result, {"type": "result", "id": number, "figures": {}})
            results.append(body)
        self.assertEqual(results[0], results[1], "the same model and seed")
        draws = numpy.random.RandomState(3).standard_normal(6).astype("f4").reshape(3, 2)
        numpy.testing.assert_array_equal(tensors_of(results[0])["w"], ((0 + draws[0]) + draws[1]) + draws[2])
        self.assertEqual(tensors_of(results[0])["b"], 4.0)
        client.send(body_of(**{"m/w": ("F32", numpy.zeros(2, "<f4")), "m/b": ("F64", numpy.array([0.0]))}), type="task",
                    id=9, kind="evaluate", settings={}, inputs=[{"name": "model", "owner": "", "prefix": "m/"}])
        figures = client.receive()[0]["figures"]
        loss = sum(numpy.log1p(numpy.exp(x)) for x in (-2, -3, 1))
        self.assertEqual({key: figures[key] for key in ("correct", "total", "predicted")},
                         {"correct": [1, 1], "total": [1, 2], "predicted": [2, 1]})
        self.assertAlmostEqual(figures["loss_sum"], loss, places=12)
        client.send(type="bye")
        code, out, err = client.end()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.splitlines(), ["training of st-mary"] * 2)

    def test_a_task_that_fails_is_told_and_the_worker_goes_on(self):
        client = self.start()
        client.receive()
        client.join()
        for round, cause, words in ((13, "data", "the scanner is off"), (14, "settings", "it lacks 'b'"),
                                    (15, "internal", "division by zero")):
            client.ask_train(round, round)
            failed, body = client.receive()
            self.assertEqual((failed["type"], failed["id"], failed["cause"], body), ("failed", round, cause, b""))
            self.assertIn(words, failed["reason"])
        client.send(body_of(**{"w": ("F32", numpy.zeros(3, "<f4")), "b": ("F64", numpy.zeros(1))}), type="task", id=16,
                    kind="train", settings={}, inputs=[{"name": "model", "owner": "", "prefix": ""}])
        self.assertIn("tensor 'w' is F32 [3], expected F32 [2]", client.receive()[0]["reason"])
        client.send(type="task", id=17, kind="distill", settings={}, inputs=[])
        self.assertIn("'distill', which this worker does not offer", client.receive()[0]["reason"])
        client.ask_train(18)
        self.assertEqual(client.receive()[0]["type"], "result")
        code, _, err = client.end()
        self.assertEqual(code, 0)
        # The traceback is of the fault that is no sentence, and goes to the silo's log alone.
        self.assertEqual(err.count("Traceback"), 1)
        self.assertIn("ZeroDivisionError", err)

    def test_stop_ends_a_task_between_batches(self):
        client = self.start()
        client.receive()
        client.join()
        client.ask_train(1, round=99)
        client.send(type="stop", id=0)  # of another task
        client.send(type="stop", id=1)
        while (answer := client.receive()[0])["type"] == "progress":
            self.assertEqual((answer["id"], answer["total"]), (1, 30))
        self.assertEqual((answer["type"], answer["id"]), ("failed", 1))
        client.send(type="stop", id=1)  # its task is over
        client.ask_train(2)
        self.assertEqual(client.receive()[0]["id"], 2)
        self.assertEqual(client.end()[0], 0)

    def test_the_worker_ends_when_the_client_is_gone(self):
        for is_training in (False, True):
            client = self.start()
            client.receive()
            client.join()
            if is_training:
                client.ask_train(1, round=99)
                self.assertEqual(client.receive()[0]["type"], "progress")
            self.assertEqual(client.end()[0], 0)

    def test_terms_that_are_none_fail_the_join(self):
        client = self.start()
        client.receive()
        failed = client.join(train={"lr": "fast"})
        self.assertEqual((failed["type"], failed["cause"]), ("failed", "settings"))
        self.assertIn("train.lr is 'fast'", failed["reason"])
        self.assertEqual(client.join(train={"lr": 1}, later={"x": 1})["type"], "joined")
        self.assertEqual(client.end()[0], 0)

    def test_bytes_that_are_no_frame_end_the_worker_with_a_sentence(self):
        client = self.start()
        client.receive()
        client.channel.sendall(b"GET / HTTP/1.1\r\n\r\n")
        code, _, err = client.end()
        self.assertEqual(code, 2)
        self.assertIn("no frame of the worker protocol", err)
        self.assertNotIn("Traceback", err)

    def test_outside_of_a_client_the_script_says_what_it_is(self):
        file = Path(self.folder.name) / "train.py"
        file.write_text(SCRIPT)
        for number in ("", "999", "three"):
            done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=PATIENCE,
                                  env=dict(os.environ, HEADSTART_WORKER_FD=number))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(done.stderr, "headstart: this script is a worker: start it by headstart-client --worker "
                                          "'python3 train.py', or try it with headstart.try_out(worker)\n")

    def test_progress_is_told_once_a_second(self):
        mine, theirs = socket.socketpair()
        with mine, theirs:
            now = 0.0
            report = Reporter(Connection(theirs), 4, lambda: now)
            for step in range(25):
                now = step / 10
                report(step, 25)
            theirs.shutdown(socket.SHUT_WR)
            raw = b""
            while more := mine.recv(1 << 16):
                raw += more
        headers = []
        while raw:
            length = struct.unpack("<I", raw[4:8])[0]
            headers.append(json.loads(raw[16:16 + length]))
            raw = raw[16 + length:]
        self.assertEqual([(one["type"], one["id"], one["done"], one["total"]) for one in headers],
                         [("progress", 4, 10, 25), ("progress", 4, 20, 25)])

    def test_a_stop_is_no_exception_that_a_loop_would_catch(self):
        self.assertFalse(issubclass(Stopped, Exception))


class Safetensors(unittest.TestCase):
    def test_arrays_go_to_bytes_and_back_without_copies(self):
        state = {"w": numpy.arange(6, dtype="f4").reshape(2, 3), "n": numpy.array(7), "flag": numpy.array([True]),
                 "none": numpy.zeros((0, 4), "f8"), "half": numpy.array([1.5], "f2"),
                 "brain": numpy.array([0x3fc0], "u2").view(safetensors.BFLOAT16)}
        parts = safetensors.parts_of(state, {"key": "value"})
        self.assertTrue(any(numpy.shares_memory(numpy.frombuffer(part, "u1"), state["w"]) for part in parts))
        read, metadata = safetensors.read_bytes(b"".join(parts), "the test")
        self.assertEqual(metadata, {"key": "value"})
        self.assertEqual(read.keys(), state.keys())
        for name, array in state.items():
            self.assertEqual((read[name].dtype, read[name].shape), (array.dtype, array.shape), name)
            numpy.testing.assert_array_equal(read[name], array)
            self.assertEqual(read[name].ctypes.data % read[name].itemsize, 0)
        self.assertTrue(safetensors.is_bfloat16(read["brain"]) and safetensors.is_floating(read["brain"]))
        self.assertTrue(all(array.flags.writeable for array in read.values()))

    def test_what_is_written_is_what_the_format_says(self):
        raw = b"".join(safetensors.parts_of({"a": numpy.array([1, 2], ">i4"), "b": numpy.eye(2).T[::-1]}))
        length = struct.unpack("<Q", raw[:8])[0]
        self.assertEqual(length % 8, 0)
        header = json.loads(raw[8:8 + length])
        self.assertEqual(header, {"b": {"dtype": "F64", "shape": [2, 2], "data_offsets": [0, 32]},
                                  "a": {"dtype": "I32", "shape": [2], "data_offsets": [32, 40]}})
        self.assertEqual(raw[8 + length:], struct.pack("<4d2i", 0, 1, 1, 0, 1, 2))

    def test_damaged_files_are_refused_with_a_sentence(self):
        good = body_of(w=("F32", numpy.zeros(2, "<f4")))
        head = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        cases = {b"": "0 bytes", struct.pack("<Q", 1 << 40) + b"{}": "its header would have", good[:-1]: "do not fit",
                 good + b"x": "belong to no tensor", struct.pack("<Q", 2) + b"[]": "no JSON object",
                 struct.pack("<Q", 2) + b"{x": "no JSON",
                 struct.pack("<Q", len(head) - 1) + head.replace(b"F32", b"F8") + b"\0" * 8: "tensor 'w' is none",
                 struct.pack("<Q", len(head)) + head.replace(b"[2]", b"[3]") + b"\0" * 8: "do not fit its shape [3]",
                 struct.pack("<Q", len(head)) + head.replace(b"[0,8]", b"[1,9]") + b"\0" * 9: "a gap at byte 0"}
        for raw, words in cases.items():
            with self.assertRaises(headstart.HeadstartError) as caught:
                safetensors.read_bytes(raw, "FILE")
            self.assertIn(words, str(caught.exception))
            self.assertTrue(str(caught.exception).startswith("FILE is no safetensors file"))

    def test_types_that_models_cannot_have_are_named(self):
        with self.assertRaisesRegex(headstart.HeadstartError, "tensor 'w' is of type complex64"):
            safetensors.parts_of({"w": numpy.zeros(1, "c8")})


if __name__ == "__main__":
    unittest.main()
