"""The outcome of a study of peers: what its report says and shows (common/study_report.py writes it)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.answers import Answer
from common.study_report import Report, counted, seeds_of, write_report

from . import analysis
from .analysis import ACCURACIES
from .directions import RULE, all_directions, measure_pairs
from .rows import STRENGTHS, Cell, Setting, Study
from .sections import all_sections


def write_peer_report(study: Study, out: Path, command: str, overwrite: bool) -> Report:
    def make(figures: Path) -> Report:
        answers = all_directions(study)
        return Report(files=study.files, title=title_of(study), setting=setting_sentence(study), rule=RULE,
                      meaning=MEANING, settings=study.settings, versions=study.versions,
                      sections=all_sections(study, figures), answers=answers, numbers=numbers(study, answers),
                      command=command)

    return write_report(make, out, overwrite)


def title_of(study: Study) -> str:
    return "Study of peers: " + ", ".join(file.stem for file in study.files)


def setting_sentence(study: Study) -> str:
    images = study.setting("draw.clients")
    size = f"{images:,} training images" if isinstance(images, int) and images > 0 else "all training images"
    partitions, graphs, apart = study.partitions, study.graphs, analysis.unpaired(study.cells)
    text = (f"{study.setting('data.set', 'own data')}, {size} over {counted(len(study.cells[0].peers), 'peer')}, model "
            f"{study.setting('model.name', 'unnamed')}, {counted(study.num_rounds, 'round')} of exchange, "
            f"{counted(study.setting('kd.epochs', 0), 'epoch')} of distillation each; "
            f"partition{'s' * (len(partitions) > 1)} {', '.join(partitions)}; "
            f"graph{'s' * (len(graphs) > 1)} {', '.join(graphs)}; {seeds_of(study.seeds)}; "
            f"{study.done:,} of {study.planned:,} cells finished.")
    if apart:
        text += (f" {counted(apart, 'cell')} began with other pre-trained models than the rest of the same partition "
                 "and seed, and no difference is taken to them.")
    return text


MEANING = """<p>Global accuracy: mean recall over the classes of the test set. Own accuracy: what is to be expected on
data with the classes of the peer's own training samples. Both are means over the peers, of the head that answers: the
first before anything is sent, the second after a distillation. All cells of a partition and seed begin with the same
pre-trained models. Alone trains as long on its own labels. The ensemble is the mean of all peers' predictions before
anything is sent: who could hold all models would have it, and no peer does. Matched strength multiplies a measure so
that it is as strong as KL where the student is near its teachers.</p>"""


def numbers(study: Study, answers: Sequence[Answer]) -> dict[str, Any]:
    """What stands behind figures and tables, for other programs. Accuracies 0..1; rounds: means over the peers."""
    cases = [(partition, graph) for partition in study.partitions for graph in study.graphs]
    return {
        "directions": [dataclasses.asdict(answer) for answer in answers],
        "settings": [row for case in cases for row in _setting_rows(study, *case)],
        "measures": [{"partition": pair.partition, "graph": pair.graph, "strength": strength, "accuracy": accuracy,
                      "measure": pair.measure, "less": pair.other, "lead": dataclasses.asdict(pair.lead)}
                     for case in cases for strength in STRENGTHS for accuracy, value in ACCURACIES.items()
                     for pair in measure_pairs(study, *case, strength, value)],
        "gains_over_alone": [{"partition": partition, "graph": graph, **_words(gain.family, without_place=True),
                              "global": dataclasses.asdict(gain.overall), "own": dataclasses.asdict(gain.own)}
                             for partition, graph in cases
                             for gain in analysis.gains_over_alone(study.of(partition, graph))],
    }


def _words(setting: Setting, without_place: bool = False) -> dict[str, Any]:
    """without_place: without alpha and temperature."""
    if not setting.is_kd:
        return {"method": setting.method}
    words = dataclasses.asdict(setting)
    return {name: word for name, word in words.items() if not (without_place and name in ("alpha", "temperature"))}


def _setting_rows(study: Study, partition: str, graph: str) -> list[dict[str, Any]]:
    cells = study.of(partition, graph)
    chosen = analysis.chosen_settings(cells) if analysis.has_validation(cells) else {}
    return [{"partition": partition, "graph": graph, **_words(setting), "is_chosen": setting in chosen,
             "lead_share": analysis.lead_share(group), "seeds": [_seed_row(cell) for cell in group]}
            for setting, group in analysis.by_setting(cells).items()]


def _seed_row(cell: Cell) -> dict[str, Any]:
    def level(found: Any) -> dict[str, float]:
        return {"global": found.overall, "own": found.own, "spread": found.spread}

    return {"seed": cell.seed, "before": level(cell.before), "after": level(cell.after), "ensemble": cell.ensemble,
            "validation": cell.validation, "bytes": cell.bytes, "seconds": cell.seconds,
            "rounds": {"global": [float(np.mean(one.overall)) for one in cell.rounds],
                       "own": [float(np.mean(one.own)) for one in cell.rounds]}}
