"""Models of the user's in real programs: what PyTorch makes of the same file, and what is said before a run."""

import json
import struct
import unittest
from pathlib import Path

from tests.integration.programs import LAB, ProgramsTest, write_npy

try:
    import torch
except ImportError:
    torch = None

SCRIPTS = Path(__file__).resolve().parents[1] / "golden/user_scripts"
TYPES = {"F32": "float32", "I64": "int64"}


def script(name: str) -> str:
    return f"script:{SCRIPTS / name}.pt"


def sample(i: int) -> list:
    """4x4 values: bright in the rows of the sample's class, under a little of anything."""
    return [(0.6 if row == i % 3 else 0.1) + (i * 7 + row * 13 + column * 29) % 40 / 100
            for row in range(4) for column in range(4)]


def write_small_dataset(folder: Path):
    for split, count in (("train", 300), ("test", 60)):
        values = [value for i in range(count) for value in sample(i)]
        write_npy(folder / f"{split}-images.npy", "<f4", (count, 1, 4, 4), struct.pack(f"<{count * 16}f", *values))
        labels = [i % 3 for i in range(count)]
        write_npy(folder / f"{split}-labels.npy", "<i8", (count,), struct.pack(f"<{count}q", *labels))


def header_of(file: Path) -> dict:
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + length])
    return {name: (entry, raw[8 + length:]) for name, entry in header.items() if name != "__metadata__"}


def state_of(file: Path) -> dict:
    state = {}
    for name, (entry, data) in header_of(file).items():
        begin, end = entry["data_offsets"]
        values = torch.frombuffer(bytearray(data[begin:end]), dtype=getattr(torch, TYPES[entry["dtype"]]))
        state[name] = values.reshape(entry["shape"])
    return state


class Scripts(ProgramsTest):
    def setUp(self):
        super().setUp()
        write_small_dataset(self.data)

    def simulate(self, name, **settings):
        if not self.manifest.exists():
            self.draw()
        settings = {"model.name": script(name), "federation.rounds": 10, "train.lr": 0.1, **settings}
        arguments = self.server_arguments(name, **settings)[1:]
        done = self.run_program(LAB, "simulate", *arguments, "--set", "share_model=peers")
        return done, self.folder / name

    def test_the_final_model_is_pytorchs(self):
        if torch is None:
            self.skipTest("needs PyTorch (python3-torch)")
        images = torch.tensor([sample(i) for i in range(60)]).reshape(60, 1, 4, 4)
        labels = torch.arange(60) % 3
        for name in ("EditsInput", "ReassignsInside", "InfiniteMask", "ExpandedBuffer", "Tied", "SharedModule"):
            with self.subTest(name):
                done, run = self.simulate(name, **{"checkpoints.best": "true"})
                self.assertEqual(done.returncode, 0, done.stderr)
                model = torch.jit.load(str(SCRIPTS / f"{name}.pt"))
                for module in model.modules():  # PyTorch itself cannot load into an expanded buffer
                    for key, buffer in list(module.named_buffers(recurse=False)):
                        setattr(module, key, buffer.clone(memory_format=torch.contiguous_format))
                model.load_state_dict(state_of(run / "best.safetensors"), strict=True)
                model.load_state_dict(state_of(run / "final.safetensors"), strict=True)
                with torch.no_grad():
                    logits = model.eval()(images.clone())
                last = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])
                self.assertEqual(last["round"], 10)
                self.assertEqual(last["accuracy"], (logits.argmax(1) == labels).double().mean().item())
                self.assertAlmostEqual(last["loss"], torch.nn.functional.cross_entropy(logits, labels).item(), places=5)

    def test_files_have_what_pytorch_expects_and_the_wire_does_not(self):
        done, run = self.simulate("Tied", **{"federation.rounds": 1})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(header_of(run / "final.safetensors")),
                         ["a.bias", "a.weight", "b.weight", "c.bias", "c.weight"])
        kept = next((run / "checkpoints").glob("*.safetensors"))
        self.assertEqual(sorted(header_of(kept)), ["a.bias", "a.weight", "c.bias", "c.weight"])

    def test_a_script_that_cannot_be_trained_is_refused_before_the_server_listens(self):
        self.draw()
        for name, words in {"HalfLogits": "got float16 [2, 3]; end forward() with .float()",
                            "TupleInTraining": "got a tuple of 2 values in training mode",
                            "WrongSize": "mat1 and mat2 shapes cannot be multiplied (2x16 and 784x3)"}.items():
            done = self.run_program(*self.server_arguments(name, **{"model.name": script(name)}))
            self.assert_fails(done, 3, f"{name}.pt: ", words)
            self.assertNotIn("Traceback", done.stderr)
            self.assertFalse((self.folder / name / "port").exists())

    def test_a_warning_is_given_once_at_the_server_and_by_check(self):
        self.draw()
        server, port = self.start_server(**{"model.name": script("Probabilities")})
        settings = ["--set", f"model.script={SCRIPTS / 'Probabilities'}.pt"]
        done = self.run_program(*self.client_arguments(0, port, *settings, "--check"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((done.stdout + done.stderr).count("its outputs are probabilities that sum to one"), 1)
        server.terminate()
        code, out, err = self.finish(server)
        self.assertEqual((out + err).count("its outputs are probabilities that sum to one"), 1)


if __name__ == "__main__":
    unittest.main()
