"""The examples are as short as they say, and their scripts are sound workers."""

import contextlib
import difflib
import io
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy

import headstart

EXAMPLES = Path(__file__).resolve().parents[2] / "experiments/examples"

try:
    import torch
except ImportError:
    torch = None

try:
    import sklearn
except ImportError:
    sklearn = None


class Examples(unittest.TestCase):
    def silo(self, shape, classes, kind):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        draws = numpy.random.RandomState(2)
        y = numpy.arange(240) % classes
        x = draws.randint(0, 100, (240, *shape)) + 100 * (y[:, None] == numpy.arange(shape[-1])).reshape(
            240, *[1] * (len(shape) - 1), shape[-1])
        numpy.save(Path(folder.name) / "x.npy", x.astype(kind))
        numpy.save(Path(folder.name) / "y.npy", y)
        return folder.name

    def assert_sound(self, script, shape, classes, kind="u1"):
        worker = headstart.worker_of(EXAMPLES / script, self.silo(shape, classes, kind))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            found = headstart.try_out(worker)
        self.assertTrue(found.is_ok, out.getvalue())
        return worker

    @unittest.skipIf(torch is None, "PyTorch is not installed here")
    def test_imbalanced_images(self):
        self.assert_sound("imbalanced_images/train.py", (28, 28), 10)

    @unittest.skipIf(sklearn is None, "scikit-learn is not installed here")
    def test_breast_cancer(self):
        self.assert_sound("breast_cancer/train.py", (30,), 2, "f8")

    @unittest.skipIf(torch is None, "PyTorch is not installed here")
    def test_an_existing_script_runs_before_and_after(self):
        folder = self.silo((28, 28), 10, "u1")
        done = subprocess.run([sys.executable, EXAMPLES / "existing_script/before.py", folder], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        last = done.stdout.splitlines()[-1]
        self.assertGreater(float(last.rsplit(" ", 1)[1]), 0.5, last)  # by chance: 0.1
        worker = self.assert_sound("existing_script/after.py", (28, 28), 10)
        self.assertIn("pretrain", worker.tasks())

    def test_the_existing_script_changes_by_at_most_ten_lines(self):
        before, after = ((EXAMPLES / f"existing_script/{name}.py").read_text().splitlines() for name in ("before", "after"))
        changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
        self.assertLessEqual(len(changed), 10)
        shown = (EXAMPLES / "existing_script/README.md").read_text().split("```diff\n")[1].split("```")[0].splitlines()
        self.assertEqual(sorted(line[2:] for line in shown if line[0] in "<>"), sorted(line[2:] for line in changed))

    def test_scripts_have_at_most_sixty_lines(self):
        for script in ("imbalanced_images/train.py", "breast_cancer/train.py", "existing_script/after.py"):
            self.assertLessEqual(len((EXAMPLES / script).read_text().splitlines()), 60, script)


if __name__ == "__main__":
    unittest.main()
