"""The Debian packages: made by CPack, unpacked beside each other, and used from there without the build tree."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from programs import write_dataset  # noqa: E402

BIN = Path(os.environ["HEADSTART_BIN"])
PROGRAMS = {"headstart-server": ["headstart-server", "headstart-pki"], "headstart-lab": ["headstart-lab"],
            "headstart-client": ["headstart-client", "headstart-peer"], "python3-headstart": []}


class PackagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        done = subprocess.run(["cpack", "--config", str(BIN / "CPackConfig.cmake"), "-B", str(cls.folder / "packages")],
                              cwd=cls.folder, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        cls.packages = {path.name.split("_")[0]: path for path in (cls.folder / "packages").glob("*.deb")}
        cls.root = cls.folder / "root"
        for path in cls.packages.values():
            subprocess.run(["dpkg-deb", "-x", str(path), str(cls.root)], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def field(self, package: str, name: str) -> str:
        return subprocess.run(["dpkg-deb", "-f", str(self.packages[package]), name], capture_output=True, text=True,
                              check=True).stdout.strip()

    def environment(self) -> dict:
        return dict(os.environ, PATH=f"{self.root / 'usr/bin'}:{os.environ['PATH']}",
                    PYTHONPATH=str(self.root / "usr/lib/python3/dist-packages"))

    def run_installed(self, *arguments) -> subprocess.CompletedProcess:
        done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=120, cwd=self.folder,
                              env=self.environment())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def test_each_package_has_its_programs_and_says_what_it_needs(self):
        self.assertEqual(set(self.packages), set(PROGRAMS))
        for package, programs in PROGRAMS.items():
            with self.subTest(package):
                for program in programs:
                    self.assertTrue(os.access(self.root / "usr/bin" / program, os.X_OK), program)
                    self.assertIn("libtorch", self.field(package, "Depends"))
                self.assertTrue((self.root / "usr/share/doc" / package / "copyright").is_file())
        self.assertEqual(self.field("python3-headstart", "Architecture"), "all")
        self.assertIn("python3-numpy", self.field("python3-headstart", "Depends"))

    def test_the_unpacked_programs_simulate_and_compare(self):
        write_dataset(self.folder / "data")
        compare = self.root / "usr/share/headstart/experiments/compare.py"
        self.run_installed("/usr/bin/python3", compare, "--starts", "random,best", "--partitions", "uniform", "--rounds", "2", "--set",
                           "data.set=tensors", "--set", f"data.path={self.folder / 'data'}", "--set", "draw.clients=0",
                           "--set", "draw.validation=30", "--set", "draw.public_large=30", "--set", "draw.public_small=0",
                           "--set", "draw.public_labeled=0", "--set", "draw.test=0", "--set", "model.channels=[4,4]",
                           "--set", "model.hidden=8", "--set", "pretrain.max_epochs=2", "--set",
                           "validation.source=server", "--out", self.folder / "out")
        report = (self.folder / "out/report.html").read_text()
        self.assertIn("best local model", report)
        self.assertEqual(len(list((self.folder / "out/runs").glob("*/summary.json"))), 2)

    def test_the_python_package_is_importable_and_of_the_same_version(self):
        done = self.run_installed("/usr/bin/python3", "-c", "import headstart; print(headstart.__version__)")
        self.assertEqual(done.stdout.strip(), self.field("python3-headstart", "Version"))
        self.assertIn(self.field("headstart-server", "Version"),
                      self.run_installed(self.root / "usr/bin/headstart-server", "--version").stdout)


if __name__ == "__main__":
    unittest.main()
