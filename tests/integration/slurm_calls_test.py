"""Which programs the batch scripts of experiments/slurm call, and which jobs compare.py submits: over programs that only
write down their calls, without Slurm.

    python3 -m unittest tests/integration/slurm_calls_test.py
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "experiments/slurm"
LAB = """#!/usr/bin/python3
import json, os, pathlib, sys
calls = pathlib.Path(os.environ["CALLS"])
with calls.open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
if "--study" in sys.argv:
    pathlib.Path(sys.argv[sys.argv.index("--study") + 1]).touch()
sys.exit(int(os.environ.get("EXIT", "0")))
"""

# A queue that only grows: numbers its jobs from 1, and squeue has those that the file $QUEUED names.
SBATCH = """#!/usr/bin/python3
import json, os, pathlib, sys
calls = pathlib.Path(os.environ["CALLS"])
number = len(calls.read_text().splitlines()) + 1 if calls.exists() else 1
if os.environ.get("REFUSE_JOB") == str(number):
    sys.exit("sbatch: error: invalid partition\\nsbatch: error: Batch job submission failed")
with calls.open("a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
print(number)
"""
SQUEUE = """#!/bin/sh
cat "$QUEUED"
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



class CompareCalls(unittest.TestCase):
    """compare.py --slurm over an sbatch that runs nothing; tasks and report are called here as the script calls them."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.home = Path(temporary.name)
        self.bin, self.out = self.home / "bin", self.home / "out"
        self.bin.mkdir()
        fake = Path(__file__).with_name("fake_programs.py")
        self.put("headstart-lab", f'#!/bin/sh\nexec "{sys.executable}" "{fake}" headstart-lab "$@"\n')
        self.put("sbatch", SBATCH)
        self.put("squeue", SQUEUE)
        self.calls, self.queued = self.home / "calls", self.home / "queued"
        self.queued.touch()
        self.plan = self.home / "plan.json"
        self.plan.write_text(json.dumps({"seeds": [1, 2], "rounds": 4, "starts": [
            "random", "best", "kd-public", {"start": "kd-student", "stop_at": 1.0}]}))

    def put(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def compare(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        held = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "CALLS": str(self.calls),
                             "QUEUED": str(self.queued)} | environment
        return subprocess.run([sys.executable, str(ROOT / "experiments/compare.py"), *arguments], env=held, text=True,
                              capture_output=True, cwd=self.home, timeout=120, check=False)

    def submit(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.compare("--plan", "plan.json", "--out", "out", "--bin", str(self.bin), "--slurm", *arguments, **environment)

    def again(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.compare("--resume", "out", "--bin", str(self.bin), *arguments, **environment)

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    def shapes(self, since: int = 0) -> list[list[str]]:
        """What tells a job from the others."""
        return [[word for word in call if word.startswith(("--array", "--dependency"))] for call in self.called()[since:]]

    def test_an_array_has_what_pre_trains_or_sets_a_target_the_next_what_needs_it_and_the_last_job_is_the_report(self) -> None:
        done = self.submit("--jobs", "3", "--", "--time=2:00:00", "-p", "long")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.shapes(), [["--array=0,1,4,5%3"], ["--array=2,3,6,7%3", "--dependency=afterany:1"],
                                         ["--dependency=afterany:1:2"]])
        first, _, last = self.called()
        self.assertEqual(first[:5], ["--parsable", "--output=out/slurm/%A_%a.log", "--time=2:00:00", "-p", "long"])
        script = first.index(str(SCRIPTS / "compare.sbatch"))
        self.assertEqual(first[script + 3:], ["--resume", "out", "--bin", "bin"])
        self.assertEqual(last[script:], first[script:])
        self.assertIn("8 runs, 8 to do", done.stderr)
        self.assertEqual(sorted(file.name for file in (self.out / "manifests").iterdir()),
                         ["label-dirichlet-seed1.json", "label-dirichlet-seed2.json"])
        self.assertFalse((self.out / "runs").exists())

    def test_the_script_calls_a_task_in_an_array_and_the_report_outside(self) -> None:
        self.put("call", LAB)
        script = ["bash", SCRIPTS / "compare.sbatch"]
        for index, more in (("7", ["--task", "7"]), ("", ["--report"])):
            held = os.environ | {"CALLS": str(self.calls), "SLURM_ARRAY_TASK_ID": index, "EXIT": "8"}
            done = subprocess.run([*script, self.bin / "call", "--resume", "a b"], env=held, check=False)
            self.assertEqual((done.returncode, self.called()[-1]), (8, ["--resume", "a b", *more]))
        self.assertEqual(subprocess.run(script, capture_output=True, check=False).returncode, 2)

    def test_tasks_do_their_runs_once_in_files_of_their_own_and_the_report_is_that_of_one_process(self) -> None:
        self.assertEqual(self.submit().returncode, 0)
        shared = {name: (self.out / name).read_bytes() for name in ("plan.json", "calls.txt", "commands.txt")}
        for task in (1, 0, 5, 4, 3, 2, 7, 6):
            done = self.again("--task", str(task))
            self.assertEqual(done.returncode, 0, done.stderr)
        for name, content in shared.items():
            self.assertEqual((self.out / name).read_bytes(), content, name)
        self.assertEqual(len(list((self.out / "commands").iterdir())), 8)
        self.assertFalse((self.out / "table.json").exists())
        summary = self.out / "runs/label-dirichlet-seed1-best/summary.json"
        before = summary.stat()
        done = self.again("--task", "1")
        self.assertEqual((done.returncode, done.stderr), (0, "task 1: label-dirichlet-seed1-best is finished\n"))
        self.assertEqual(summary.stat(), before)
        done = self.again("--report")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        alone = self.compare("--plan", "plan.json", "--out", "alone", "--bin", str(self.bin))
        self.assertEqual(alone.returncode, 0, alone.stderr)
        self.assertEqual(done.stdout.replace("out/", "alone/"), alone.stdout)
        for name in ("table.md", "table.json"):
            self.assertEqual((self.out / name).read_bytes(), (self.home / "alone" / name).read_bytes(), name)
        self.assertIn("The 10 commands behind it", (self.out / "report.html").read_text())

    def test_a_failed_task_names_run_and_log_and_the_next_submission_has_what_is_missing(self) -> None:
        self.assertEqual(self.submit().returncode, 0)
        failed, log = "label-dirichlet-seed2-best", "out/logs/label-dirichlet-seed2-best/simulate.log"
        for task in range(8):
            done = self.again("--task", str(task), FAKE_FAIL=failed)
            self.assertEqual(done.returncode, 8 if task >= 5 else 0, done.stderr)
            if task == 5:
                self.assertIn(f"FAILED   {failed}", done.stderr)
                self.assertIn(f"last lines of {log}", done.stderr)
            elif task > 5:
                self.assertIn(f"not run: it needs {failed}. {failed} is not finished; {log} ends with: fake: the training "
                              "diverged", done.stderr)
        done = self.again("--report")
        self.assertEqual(done.returncode, 8)
        self.assertIn(f"{failed} is not finished; {log} ends with: fake: the training diverged\n", done.stderr)
        self.assertIn("label-dirichlet-seed2-kd-public has not begun.\n", done.stderr)
        self.assertIn("3 of 8 runs are missing. Continue by: experiments/compare.py --resume out --slurm\n", done.stderr)
        self.assertEqual(self.again("--slurm").returncode, 0)
        self.assertEqual(self.shapes(since=3), [["--array=5"], ["--array=6,7", "--dependency=afterany:4"],
                                                ["--dependency=afterany:4:5"]])
        for task in (5, 6, 7):
            self.assertEqual(self.again("--task", str(task)).returncode, 0)
        self.assertEqual(self.again("--report").returncode, 0)
        self.assertEqual(self.again("--slurm").returncode, 0)
        self.assertEqual(self.shapes(since=6), [[]])  # the report alone

    def test_two_that_would_do_the_same_run_are_kept_apart(self) -> None:
        self.assertEqual(self.submit().returncode, 0)
        self.queued.write_text("1\n1\n3\n17\n")
        done = self.again("--slurm")
        self.assertEqual(done.returncode, 4)
        self.assertIn("out: jobs of it are in the queue (1, 3); wait for them, or end them by: scancel 1 3", done.stderr)
        self.assertEqual(len(self.called()), 3)
        (self.out / ".locks").mkdir()
        with (self.out / ".locks/label-dirichlet-seed1-random").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            done = self.again("--task", "0")
        self.assertEqual(done.returncode, 4)
        self.assertIn("label-dirichlet-seed1-random: another task works on it", done.stderr)
        with (self.out / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # a task is under way
            self.assertIn("another compare.py works in it", self.again().stderr)
            self.assertEqual(self.again("--task", "1").returncode, 0)

    def test_what_sbatch_refuses_is_told_with_what_is_in_the_queue(self) -> None:
        done = self.submit(REFUSE_JOB="2")
        self.assertEqual(done.returncode, 2)
        self.assertIn("sbatch took no job of out: sbatch: error: invalid partition; sbatch: error: Batch job submission failed; "
                      "end what is in the queue by: scancel 1\nContinue by: experiments/compare.py --resume out --slurm\n", done.stderr)

    def test_options_that_do_not_go_together_and_a_task_that_is_none_are_one_sentence(self) -> None:
        for said, *arguments in (("--task is for a folder that there is: name it by --resume DIR", "--task", "0"),
                                 ("--report is for a folder that there is: name it by --resume DIR", "--report"),
                                 ("'--time=1' is no option of compare.py; --slurm hands it to sbatch", "--", "--time=1")):
            done = self.compare("--plan", "plan.json", "--out", "out", "--bin", str(self.bin), *arguments)
            self.assertEqual((done.returncode, done.stderr), (2, f"compare: {said}\n"))
        done = self.submit(PATH="/usr/bin/none")
        self.assertEqual(done.returncode, 2)
        self.assertIn("sbatch is not on the PATH", done.stderr)
        self.assertFalse(self.out.exists())
        self.assertEqual(self.submit().returncode, 0)
        for task in ("8", "-1"):
            done = self.again(f"--task={task}")
            self.assertEqual(done.returncode, 2)
            self.assertIn(f"task {task}: out/plan.json has 8 runs, tasks 0 to 7", done.stderr)
        self.assertEqual(self.again("--slurm", "--task", "1").returncode, 2)


if __name__ == "__main__":
    unittest.main()
