"""A comparison, and a study of pairs, as job arrays of the Slurm cluster that answers here, against one process each.
Skipped where none answers. The jobs are tiny: about 30, of a second or two each.

    HEADSTART_BIN=build/release /usr/bin/python3 -m unittest -v tests/integration/slurm_cluster_test.py

All nodes must see this checkout and the build tree, in which the test makes a folder of its own. Options of sbatch come
from its own variables, as SBATCH_PARTITION and SBATCH_ACCOUNT. HEADSTART_SLURM_PATIENCE is how many seconds a queue may
take (default 600).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from programs import BIN, LAB, write_dataset  # noqa: E402

PATIENCE = float(os.environ.get("HEADSTART_SLURM_PATIENCE", "600"))
RUNS = 8


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, check=False,
                          **options)


def setUpModule() -> None:
    try:
        nodes = run("sinfo", "--noheader", "--states=idle,mixed,allocated", "--responding").stdout.strip()
        answers = nodes != "" and run("sbatch", "--version").returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    if not answers:
        print("No Slurm cluster answers here (sbatch, sinfo): nothing is tried.", file=sys.stderr)
        raise unittest.SkipTest("no Slurm cluster")


def without_times(value: Any) -> Any:
    """All figures of a table but how long it took, which the headline tells too, and bytes: clients report seconds, and
    their digits are counted."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items()
                if not any(word in key for word in ("seconds", "headline", "bytes", "charge_exact"))}
    return [without_times(part) for part in value] if isinstance(value, list) else value


class Cluster(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(dir=BIN.resolve(), prefix="slurm-test-")
        self.addCleanup(temporary.cleanup)
        self.home = Path(temporary.name)
        write_dataset(self.home / "data", num_train=600, num_test=90)
        self.jobs: list[str] = []
        self.addCleanup(self.cancel)  # before the folder goes

    def cancel(self) -> None:
        if self.queue():
            run("scancel", *self.jobs)
            self.wait()

    def queue(self) -> list[str]:
        """What of this test is in the queue. Slurm forgets jobs: those that it does not know are not."""
        return run("squeue", "--noheader", f"--jobs={','.join(self.jobs)}").stdout.splitlines() if self.jobs else []

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while self.queue():
            self.assertLess(time.monotonic(), end, f"still in the queue after {PATIENCE:.0f} s: {self.queue()}")
            time.sleep(1)

    def must(self, *command: object, **options: Any) -> subprocess.CompletedProcess[str]:
        done = run(*command, cwd=self.home, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done


class Comparison(Cluster):
    def setUp(self) -> None:
        super().setUp()
        settings = {"data": {"set": "tensors", "path": str(self.home / "data")}, "model": {"channels": [4, 4], "hidden": 8},
                    "draw": {"validation": 60, "public_large": 60, "public_small": 20, "public_labeled": 20,
                             "clients": 240, "test": 90},
                    "train": {"lr": 0.1, "batch_size": 8}, "pretrain": {"max_epochs": 6, "lr": 0.02},
                    "consolidation": {"epochs": 2}, "validation": {"source": "server"}, "simulate": {"threads": 1}}
        (self.home / "plan.json").write_text(json.dumps({
            "rounds": 3, "clients": 3, "seeds": [1, 2], "fractions": [0.9, 1.0], "accuracies": [0.5], "settings": settings,
            "starts": ["random", "best", "kd-public", {"start": "kd-student", "stop_at": 1.0}]}))
        self.out, self.alone = self.home / "out", self.home / "alone"

    def compare(self, *arguments: object) -> list[object]:
        return [sys.executable, ROOT / "experiments/compare.py", "--bin", BIN.resolve(), *arguments]

    def submit(self, *arguments: object) -> list[str]:
        """Returns the jobs of this submission."""
        known = len(self.jobs)
        self.must(*self.compare(*arguments))
        self.jobs = (self.out / "slurm/jobs.txt").read_text().split()
        return self.jobs[known:]

    def begin(self, *options: str) -> list[str]:
        return self.submit("--plan", "plan.json", "--out", "out", "--slurm", "--", "--time=10", *options)

    def said(self, job: str) -> str:
        return (self.out / f"slurm/{job}.log").read_text()

    def check_against_one_process(self) -> None:
        self.must(*self.compare("--plan", "plan.json", "--out", "alone"))
        tables = [json.loads((folder / "table.json").read_text()) for folder in (self.out, self.alone)]
        self.assertEqual(tables[0]["missing"], [])
        self.assertEqual(*map(without_times, tables))
        for ours, theirs in zip(*(table["runs"] for table in tables)):
            for key in ("bytes_before_rounds", "round_bytes"):
                self.assertAlmostEqual(ours[key], theirs[key], delta=0.01 * theirs[key], msg=f"{ours['run']}, {key}")
        runs = sorted(folder.name for folder in (self.alone / "runs").iterdir())
        self.assertEqual(len(runs), RUNS)
        for name in runs:
            models = [(folder / "runs" / name / "final.safetensors").read_bytes() for folder in (self.out, self.alone)]
            self.assertEqual(*models, name)
        kept = [sorted(file.name for file in (folder / "pretrained/models").iterdir()) for folder in (self.out, self.alone)]
        self.assertEqual(*kept)

    def test_a_plan_as_job_arrays_gives_the_table_and_the_models_of_one_process(self) -> None:
        *_, report = self.begin()
        self.wait()
        self.assertIn("Report: out/report.html", self.said(f"{report}_report"))
        self.check_against_one_process()
        self.assertEqual(len(list((self.out / "commands").iterdir())), RUNS)
        table = json.loads((self.out / "table.json").read_text())
        reused = {one["run"]: one["pretrain_seconds_reused"] > 0 for one in table["runs"]}
        for seed in (1, 2):  # the first start that needs models trained them, and the others found them
            cell = f"label-dirichlet-seed{seed}-"
            self.assertEqual([reused[cell + start] for start in ("best", "kd-public", "kd-student")], [False, True, True])

    def test_a_task_that_was_cancelled_is_named_and_the_next_submission_does_what_is_missing_alone(self) -> None:
        first, second, report = self.begin("--hold")
        refused = run(*self.compare("--resume", "out", "--slurm"), cwd=self.home)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn(f"jobs of it are in the queue ({first}, {second}, {report})", refused.stderr)
        self.must("scancel", f"{first}_5")  # the run that pre-trains the second seed
        self.must("scontrol", "release", *self.jobs)
        self.wait()
        cancelled = "label-dirichlet-seed2-best"
        self.assertIn(f"{cancelled} has not begun.", self.said(f"{report}_report"))
        self.assertIn("3 of 8 runs are missing. Continue by: ", self.said(f"{report}_report"))
        self.assertIn(f"not run: it needs {cancelled}.", self.said(f"{second}_6"))
        states = self.must("scontrol", "--oneliner", "show", "job", report).stdout
        self.assertIn("ExitCode=8:0", states)
        finished = {file: file.stat().st_mtime_ns for file in self.out.glob("runs/*/summary.json")}
        self.assertEqual(len(finished), RUNS - 3)
        again = self.submit("--resume", "out", "--slurm", "--", "--time=10")
        self.wait()
        tasks = {log.stem for job in again for log in self.out.glob(f"slurm/{job}_*.log")}
        self.assertEqual(tasks, {f"{again[0]}_5", f"{again[1]}_6", f"{again[1]}_7", f"{again[2]}_report"})
        self.assertEqual({file: file.stat().st_mtime_ns for file in finished}, finished)
        self.check_against_one_process()


class PairStudy(Cluster):
    def test_the_shares_of_an_array_merge_into_the_study_of_one_process(self) -> None:
        (self.home / "study.json").write_text(json.dumps({
            "study": {"partitions": ["label-dirichlet"], "seeds": [1], "methods": ["vanilla", "dml"],
                      "transfers": ["student"]},
            "partition": {"clients": 3}, "data": {"set": "tensors", "path": str(self.home / "data")},
            "draw": {"validation": 60, "public_large": 60, "public_small": 0, "public_labeled": 0, "clients": 240, "test": 90},
            "model": {"channels": [4, 4], "hidden": 8}, "pretrain": {"max_epochs": 6, "lr": 0.02}, "kd": {"epochs": 2, "lr": 0.02}}))
        environment = os.environ | {"HEADSTART_LAB": str(LAB.resolve())}
        scripts = ROOT / "experiments/slurm"
        options = ["--parsable", "--time=10", f"--output={self.home}/%A_%a.log"]
        array = self.must("sbatch", *options, "--array=0-2", scripts / "study.sbatch", "pairs", "study.json", "pairs",
                          env=environment).stdout.strip()
        self.jobs.append(array)
        merge = self.must("sbatch", *options, f"--dependency=afterok:{array}", "--kill-on-invalid-dep=yes",
                          scripts / "merge.sbatch", "pairs", env=environment).stdout.strip()
        self.jobs.append(merge)
        self.wait()
        merged = self.home / "pairs/study.sqlite"
        self.assertTrue(merged.is_file(), "".join(log.read_text() for log in sorted(self.home.glob("*.log"))))
        self.assertEqual(len(list((self.home / "pairs").glob("share-*.sqlite"))), 3)
        self.must(LAB.resolve(), "pairs", "--config", "study.json", "--study", "alone.sqlite")
        self.assertEqual(*(self.contents(file) for file in (merged, self.home / "alone.sqlite")))

    def contents(self, file: Path) -> Any:
        """All cells of a study and its settings, but how long they took and which worker did them."""
        with contextlib.closing(sqlite3.connect(file)) as study:
            cells = study.execute("SELECT key, settings, metrics, version FROM cells ORDER BY key").fetchall()
            settings = study.execute("SELECT settings FROM study").fetchall()
        self.assertEqual(len(cells), 3 + 2 * 6)  # participants; methods x ordered pairs
        self.assertNotIn(None, [metrics for _, _, metrics, _ in cells])
        return settings, [(key, own, without_times(json.loads(metrics)), version) for key, own, metrics, version in cells]


if __name__ == "__main__":
    unittest.main()
