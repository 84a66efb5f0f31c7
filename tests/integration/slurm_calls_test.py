"""Which programs the batch scripts of experiments/slurm call, and with what: over a program that only writes down its
call, without Slurm.

    python3 -m unittest tests/integration/slurm_calls_test.py
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments/slurm"
LAB = """#!/usr/bin/python3
import json, os, pathlib, sys
calls = pathlib.Path(os.environ["CALLS"])
with calls.open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
if "--study" in sys.argv:
    pathlib.Path(sys.argv[sys.argv.index("--study") + 1]).touch()
sys.exit(int(os.environ.get("EXIT", "0")))
"""


class StudyCalls(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.home = Path(temporary.name)
        self.folder = self.home / "a study"
        self.calls = self.home / "calls"
        lab = self.home / "bin/headstart-lab"
        lab.parent.mkdir()
        lab.write_text(LAB)
        lab.chmod(0o755)

    def run_script(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        held = {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls)} | environment
        done = subprocess.run(["bash", SCRIPTS / script, *arguments], env=held, text=True, capture_output=True, timeout=60,
                              check=False)
        return done.returncode, done.stderr

    def task(self, index: int, count: int, *more: str, **environment: str) -> tuple[int, str]:
        return self.run_script("study.sbatch", "pairs", "plan.json", str(self.folder), *more, SLURM_ARRAY_TASK_ID=str(index),
                               SLURM_ARRAY_TASK_COUNT=str(count), SLURM_CPUS_PER_TASK="3", **environment)

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    def test_each_task_takes_its_share_in_a_database_of_its_own_and_merge_takes_them_all(self) -> None:
        for index in (2, 0, 1):
            self.assertEqual(self.task(index, 3), (0, ""))
        self.assertEqual(self.run_script("merge.sbatch", str(self.folder)), (0, ""))
        *tasks, merge = self.called()
        for index, call in zip((2, 0, 1), tasks):
            self.assertEqual(call, ["pairs", "--config", "plan.json", "--study", f"{self.folder}/share-{index}.sqlite",
                                    "--share", f"{index}/3", "--models", f"{self.folder}/models", "--jobs", "3"])
        self.assertEqual(merge, ["merge", "--into", f"{self.folder}/study.sqlite",
                                 *(f"{self.folder}/share-{index}.sqlite" for index in range(3))])

    def test_a_task_repeated_alone_needs_the_number_of_shares(self) -> None:
        self.task(0, 3)
        code, said = self.task(0, 1)
        self.assertEqual(code, 2)
        self.assertIn("begun with 3 shares, not 1", said)
        self.assertEqual(self.task(2, 1, "3"), (0, ""))
        self.assertIn("2/3", self.called()[-1])

    def test_tasks_are_numbered_from_0(self) -> None:
        code, said = self.task(3, 3)
        self.assertEqual(code, 2)
        self.assertIn("--array=0-2", said)
        self.assertFalse(self.calls.exists())

    def test_the_exit_code_is_the_programs(self) -> None:
        self.assertEqual(self.task(0, 1, EXIT="8")[0], 8)

    def test_outside_a_job_array_it_says_how(self) -> None:
        code, said = self.run_script("study.sbatch", "pairs", "plan.json", str(self.folder))
        self.assertNotEqual(code, 0)
        self.assertIn("--array", said)
        for words in ([], ["pairs"], ["pairs", "plan.json"], ["friends", "plan.json", "folder"],
                      ["peers", "plan.json", "folder", "x", "y"]):
            self.assertEqual(self.run_script("study.sbatch", *words)[0], 2)
        self.assertEqual(self.task(0, 2, "two")[0], 2)

    def test_merge_names_the_share_that_is_missing(self) -> None:
        self.assertEqual(self.run_script("merge.sbatch", str(self.folder))[0], 3)
        self.task(0, 2)
        code, said = self.run_script("merge.sbatch", str(self.folder))
        self.assertEqual(code, 3)
        self.assertIn("share-1.sqlite", said)
        self.assertIn("--array=1", said)


if __name__ == "__main__":
    unittest.main()
