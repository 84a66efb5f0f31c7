"""The outcome of a pair study: what its report says and shows (common/study_report.py writes it)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.answers import COMPARABLE, Answer
from common.estimate import FEWEST_SEEDS
from common.study_report import Report, seeds_of, write_report

from . import analysis, tuner
from .directions import all_directions
from .multi_teacher import MultiTeacher
from .rows import Study
from .sections import all_sections, by_partition, lines_of


def write_study_report(study: Study, multi: MultiTeacher | None, out: Path, command: str, overwrite: bool) -> Report:
    def make(figures: Path) -> Report:
        answers = all_directions(study.pairs, multi)
        return Report(files=study.files, title=title_of(study), setting=setting_sentence(study), rule=RULE,
                      meaning=MEANING, settings=study.settings, versions=study.versions,
                      sections=all_sections(study, multi, figures), answers=answers,
                      numbers=numbers(study, answers, multi), command=command)

    return write_report(make, out, overwrite)


def setting_sentence(study: Study) -> str:
    counts = f"{study.done:,} of {study.planned:,} cells finished"
    pairs = {(p.partition, p.seed, p.teacher, p.student) for p in study.pairs}
    seeds, partitions = study.seeds, study.partitions
    images = study.setting("draw.clients")
    size = f"{images:,} training images" if isinstance(images, int) and images > 0 else "all training images"
    return (f"{study.setting('data.set', 'own data')}, {size} over {study.num_participants} participants, model "
            f"{study.setting('model.name', 'unnamed')}, {study.setting('kd.epochs', '?')} epochs of distillation; "
            f"partition{'s' * (len(partitions) > 1)} {', '.join(partitions)}; "
            f"{seeds_of(seeds)}; {len(study.pairs):,} results of {len(pairs)} teacher-student pairs; {counts}.")


def title_of(study: Study) -> str:
    return "Pair study: " + ", ".join(file.stem for file in study.files)


RULE = ("A statement about means holds when its whole 95% interval lies on the stated side and does not when the whole "
        "interval lies on the other; two methods are comparable only where the whole interval of their difference lies "
        f"within {100 * COMPARABLE:.0f} points of 0; one about all of several cases holds when the mean agrees in each "
        "and the interval in one or more, and does not when the interval of one contradicts it. Errors are clustered by "
        "student and by teacher; they tell nothing about partitions and seeds that were not drawn. Multi-teacher KD has "
        f"intervals over seeds, from {FEWEST_SEEDS} on. Directions are those of Alballa & Canini (arXiv 2402.14922 "
        "and EuroMLSys 2023).")


MEANING = """<p>Gain: test accuracy afterwards less before. A teacher is strong when its test accuracy is above the
student's. T and alpha (the weight of the distillation term) were chosen by validation data; test data measure and
decide nothing. All methods of a pair begin with the same student.</p>"""


def numbers(study: Study, answers: Sequence[Answer], multi: MultiTeacher | None) -> dict[str, Any]:
    """What stands behind figures and tables, for other programs. Accuracies 0..1."""
    lines = [line for _, pairs in by_partition(study) for line in lines_of(pairs)]
    return {
        "directions": [dataclasses.asdict(answer) for answer in answers],
        "summary": [{"partition": line.partition, "transfer": line.transfer, "method": line.method,
                     "gain": dataclasses.asdict(line.gain), "learning": line.learning, "forgetting": line.forgetting,
                     "positive": line.positive, "positive_strong": line.positive_strong,
                     "positive_weak": line.positive_weak, "seconds": line.seconds} for line in lines],
        "best_teachers": [
            {"partition": best.student.partition, "seed": best.student.seed, "transfer": best.student.transfer,
             "method": best.student.method, "student": best.student.student,
             "teachers": [pair.teacher for pair in best.teachers], "gain": best.teachers[0].gain,
             "is_strongest": best.is_strongest}
            for best in analysis.best_teachers(study.pairs, study.num_participants)],
        "positions": [{"partition": partition, "method": cell[0].method, "transfer": cell[0].transfer,
                       "seed": cell[0].seed, "rows": [dataclasses.asdict(row) for row in analysis.positions(cell)]}
                      for partition, pairs in by_partition(study) for cell in [analysis.position_cell(pairs)]],
        "tuner": [{"partition": part.partition, "seed": part.seed, "pairs": len(part.cases),
                   "grid_gain": part.grid_gain,
                   "choices": [{"name": rival.name, "gain": float(rival.gains.mean()), "share": part.share(rival),
                                "epochs": rival.epochs, "seconds": rival.seconds, "note": rival.note,
                                "regret": [float(value) for value in part.regret(rival)]} for rival in part.rivals]}
                  for part in tuner.measurements(study.pairs)],
        "multi_teacher": None if multi is None else multi.accuracy,
    }
