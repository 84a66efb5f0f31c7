"""One run drawn from its folder: curves.png, and page.html by headstart-lab."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .errors import DATA, CompareError
from .programs import find_program, folder_of_programs
from .style import COLOURS, GREY, plt, save


def is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() and (folder / "rounds.jsonl").is_file()


def write_run_report(folder: Path, checkout: Path, programs: Path | None) -> list[Path]:
    """Writes curves.png and page.html into `folder`; returns both."""
    rounds = rounds_of(folder)
    figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, key, title, factor in ((accuracy, "accuracy", "Accuracy (%)", 100), (loss, "loss", "Loss", 1)):
        for source, name, colour in (("", "test set", COLOURS[1]), ("federated", "at the clients", COLOURS[0])):
            points = [(line["round"], factor * value[key]) for line in rounds
                      if (value := line.get(source) if source else line) and value.get(key) is not None]
            if points:
                axes.plot(*zip(*points), color=colour, label=name)
        axes.set(xlabel="Round", title=title)
        if axes.lines:
            axes.legend(frameon=False)
    settings = json.loads((folder / "run.json").read_text()).get("config", {}).get("targets", {})
    for target in settings.get("accuracies", []):
        accuracy.axhline(100 * target, color=GREY, linewidth=0.8, linestyle=":")
    curves = save(figure, folder / "curves.png")
    lab = find_program("headstart-lab", folder_of_programs(checkout, programs, "headstart-lab"))
    done = subprocess.run([lab, "page", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompareError(done.returncode, done.stderr.strip().removeprefix("headstart-lab: "))
    return [curves, folder / "page.html"]


def rounds_of(folder: Path) -> list[dict]:
    text = (folder / "rounds.jsonl").read_text()
    lines = text[:text.rfind("\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise CompareError(DATA, f"{folder / 'rounds.jsonl'}: not JSON lines: {error}") from error
