"""The outcome of a study as files: figures, report.html, tables.md, directions.md, numbers.json."""

from __future__ import annotations

import dataclasses
import html
import json
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from common.errors import STORAGE, CompareError
from common.files import save_json
from common.page import details, document, image
from common.table import Table

from . import analysis, tuner
from .directions import COMPARABLE, FAILS, FEWEST_SEEDS, HOLDS, OPEN, Answer, all_directions
from .multi_teacher import MultiTeacher
from .rows import Study
from .sections import Section, all_sections, by_partition, lines_of

MARK = "numbers.json"  # of a folder that an earlier call made


def write_study_report(study: Study, multi: MultiTeacher | None, out: Path, command: str,
                       overwrite: bool) -> list[Answer]:
    """All of it or nothing: drawn beside `out`, then put there. An earlier report is replaced only where asked for."""
    check_target(out, overwrite)
    draft = _draft(out)
    try:
        (draft / "figures").mkdir()
        sections = all_sections(study, multi, draft / "figures")
        answers = all_directions(study.pairs, multi)
        save_json(numbers(study, answers, multi), draft / MARK)
        (draft / "tables.md").write_text(tables_markdown(study, sections))
        (draft / "directions.md").write_text(directions_markdown(study, answers, command))
        (draft / "report.html").write_text(page(study, sections, answers, command))
        draft.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        draft.rename(out)
    except OSError as error:
        raise CompareError(STORAGE, f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return answers


def check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise CompareError(STORAGE, f"{out} exists already: name another by --out, or replace it by --overwrite")
    if not (out / MARK).is_file():
        raise CompareError(STORAGE, f"{out} exists and was not made by this program; it is left alone")


def _draft(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise CompareError(STORAGE, f"{out}: cannot be made ({error.strerror})") from error


def headline(study: Study, answers: Sequence[Answer]) -> str:
    counts = {verdict: sum(answer.verdict == verdict for answer in answers) for verdict in (HOLDS, FAILS, OPEN)}
    bare = sum(not answer.has_rows for answer in answers)
    why = f" ({bare} of them for want of rows)" if bare else ""
    return (f"Of {len(answers)} directions that the papers report, {counts[HOLDS]} hold here, {counts[FAILS]} do not, "
            f"and {counts[OPEN]} cannot be told from this study{why}.")


def setting_sentence(study: Study) -> str:
    counts = f"{study.done:,} of {study.planned:,} cells finished"
    pairs = {(p.partition, p.seed, p.teacher, p.student) for p in study.pairs}
    seeds, partitions = study.seeds, study.partitions
    images = study.setting("draw.clients")
    size = f"{images:,} training images" if isinstance(images, int) and images > 0 else "all training images"
    return (f"{study.setting('data.set', 'own data')}, {size} over {study.num_participants} participants, model "
            f"{study.setting('model.name', 'unnamed')}, {study.setting('kd.epochs', '?')} epochs of distillation; "
            f"partition{'s' * (len(partitions) > 1)} {', '.join(partitions)}; "
            f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; {len(study.pairs):,} results of {len(pairs)} "
            f"teacher-student pairs; {counts}.")


def title_of(study: Study) -> str:
    return "Pair study: " + ", ".join(file.stem for file in study.files)


def tables_markdown(study: Study, sections: Sequence[Section]) -> str:
    lines = [f"# {title_of(study)}", "", setting_sentence(study), ""]
    for section in sections:
        if section.tables or section.details:
            lines += [f"## {section.title}", "", section.text, ""]
            lines += [table.markdown() for table in (*section.tables, *section.details)]
    return "\n".join(lines)


def directions_markdown(study: Study, answers: Sequence[Answer], command: str) -> str:
    lines = [f"# Directions of the papers in {', '.join(file.stem for file in study.files)}", "",
             headline(study, answers), "", setting_sentence(study), "", RULE, ""]
    for topic, group in analysis.grouped(answers, lambda answer: answer.topic).items():
        lines += [f"## {topic}", ""]
        lines += [f"- {answer.statement} **{answer.verdict[0].upper() + answer.verdict[1:]}.** {answer.numbers}"
                  for answer in group]
        lines.append("")
    return "\n".join([*lines, f"Drawn by `{command}`.", ""])


RULE = ("A statement about means holds when its whole 95% interval lies on the stated side and does not when the whole "
        "interval lies on the other; two methods are comparable only where the whole interval of their difference lies "
        f"within {100 * COMPARABLE:.0f} points of 0; one about all of several cases holds when the mean agrees in each "
        "and the interval in one or more, and does not when the interval of one contradicts it. Errors are clustered by "
        "student and by teacher; they tell nothing about partitions and seeds that were not drawn. Multi-teacher KD has "
        f"intervals over seeds, from {FEWEST_SEEDS} on. Directions are those of Alballa & Canini (arXiv 2402.14922 "
        "and EuroMLSys 2023).")


def directions_html(answers: Sequence[Answer]) -> str:
    table = Table("Directions of the papers", ["topic", "direction", "here", "numbers"])
    table.rows = [[answer.topic, answer.statement, answer.verdict, answer.numbers] for answer in answers]
    return f'<div class="words">{table.html()}</div><p class="note">{html.escape(RULE)}</p>'


def page(study: Study, sections: Sequence[Section], answers: Sequence[Answer], command: str) -> str:
    shown = [section for section in sections if not section.is_empty]
    parts = [f"<h1>{html.escape(title_of(study))}</h1>",
             f'<p class="facts">{html.escape(setting_sentence(study))}</p>',
             f'<p class="lead">{html.escape(headline(study, answers))}</p>']
    for index, section in enumerate(shown):
        parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
        parts += [image(file) for file in section.images]
        parts += [table.html() for table in section.tables]
        if section.details:
            parts.append(details("In full", "".join(table.html() for table in section.details)))
        if index == 0:
            parts += ["<h2>What the papers report, and what is found here</h2>", directions_html(answers)]
    left_out = [f"{section.title}: {section.missing}." for section in sections if section.is_empty]
    if left_out:
        parts.append("<h2>Left out</h2><ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in left_out) + "</ul>")
    return document(title_of(study), [*parts, "<h2>How it was made</h2>", *provenance(study, command)])


def provenance(study: Study, command: str) -> list[str]:
    own = (f"Figures: Python {platform.python_version()}, NumPy {np.__version__}, Matplotlib {matplotlib.__version__}.")
    parts = [f"<p>Made by</p><pre>{html.escape(command)}</pre>",
             "<p>Cells computed by</p><pre>" + html.escape("\n".join(study.versions)) + f"</pre><p>{own}</p>", MEANING]
    for file, settings in zip(study.files, study.settings):
        parts.append(details(f"Settings of {file.name}", f"<pre>{html.escape(json.dumps(settings, indent=2))}</pre>"))
    return parts


MEANING = """<p>Gain: test accuracy afterwards less before. A teacher is strong when its test accuracy is above the
student's. T and alpha (the weight of the distillation term) were chosen by validation data; test data measure and
decide nothing. All methods of a pair begin with the same student.</p>"""


def numbers(study: Study, answers: Sequence[Answer], multi: MultiTeacher | None) -> dict[str, Any]:
    """What stands behind figures and tables, for other programs. Accuracies 0..1."""
    lines = [line for _, pairs in by_partition(study) for line in lines_of(pairs)]
    return {
        "studies": [str(file) for file in study.files],
        "setting": setting_sentence(study),
        "headline": headline(study, answers),
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
