"""The report of a study as a folder of files: figures, report.html, tables.md, directions.md, numbers.json."""

from __future__ import annotations

import html
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .answers import Answer, answers_html, answers_markdown, headline
from .errors import STORAGE, CompareError
from .files import save_json
from .page import details, document, image
from .style import save
from .table import Table

MARK = "numbers.json"  # of a folder that an earlier call made


@dataclass
class Section:
    """What it shows in a sentence, its figures and its tables. missing: why there is nothing to show."""

    title: str
    text: str
    images: list[Path] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)
    missing: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.images and not self.tables

    def add(self, figure: Figure | None, file: Path, name: str = "") -> None:
        """name: written above the figure."""
        if figure is None:
            return
        if name:
            figure.suptitle(name, x=0.01, ha="left", fontsize=11, fontweight="bold")
        self.images.append(save(figure, file))


@dataclass
class Report:
    """All that is written. rule: how verdicts come about. meaning: HTML on what the figures are. numbers: without what
    all reports have."""

    files: list[Path]
    title: str
    setting: str
    rule: str
    meaning: str
    settings: list[dict[str, Any]]
    versions: list[str]
    sections: list[Section]
    answers: list[Answer]
    numbers: dict[str, Any]
    command: str

    @property
    def headline(self) -> str:
        return headline(self.answers)

    def write(self, folder: Path) -> None:
        common = {"studies": [str(file) for file in self.files], "setting": self.setting, "headline": self.headline}
        save_json(common | self.numbers, folder / MARK)
        (folder / "tables.md").write_text(self._tables_markdown())
        (folder / "directions.md").write_text(self._directions_markdown())
        (folder / "report.html").write_text(self._page())

    def _tables_markdown(self) -> str:
        lines = [f"# {self.title}", "", self.setting, ""]
        for section in self.sections:
            if section.tables or section.details:
                lines += [f"## {section.title}", "", section.text, ""]
                lines += [table.markdown() for table in (*section.tables, *section.details)]
        return "\n".join(lines)

    def _directions_markdown(self) -> str:
        lines = [f"# Directions of the papers in {', '.join(file.stem for file in self.files)}", "", self.headline, "",
                 self.setting, "", self.rule, "", *answers_markdown(self.answers)]
        return "\n".join([*lines, f"Drawn by `{self.command}`.", ""])

    def _page(self) -> str:
        parts = [f"<h1>{html.escape(self.title)}</h1>", f'<p class="facts">{html.escape(self.setting)}</p>',
                 f'<p class="lead">{html.escape(self.headline)}</p>']
        for index, section in enumerate(section for section in self.sections if not section.is_empty):
            parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
            parts += [image(file) for file in section.images]
            parts += [table.html() for table in section.tables]
            if section.details:
                parts.append(details("In full", "".join(table.html() for table in section.details)))
            if index == 0:
                parts += ["<h2>What the papers report, and what is found here</h2>",
                          answers_html(self.answers, self.rule)]
        left_out = [f"{section.title}: {section.missing}." for section in self.sections if section.is_empty]
        if left_out:
            listed = "".join(f"<li>{html.escape(text)}</li>" for text in left_out)
            parts.append(f"<h2>Left out</h2><ul>{listed}</ul>")
        return document(self.title, [*parts, "<h2>How it was made</h2>", *self._provenance()])

    def _provenance(self) -> list[str]:
        own = (f"Figures: Python {platform.python_version()}, NumPy {np.__version__}, Matplotlib "
               f"{matplotlib.__version__}.")
        parts = [f"<p>Made by</p><pre>{html.escape(self.command)}</pre>",
                 "<p>Cells computed by</p><pre>" + html.escape("\n".join(self.versions)) + f"</pre><p>{own}</p>",
                 self.meaning]
        for file, settings in zip(self.files, self.settings):
            text = html.escape(json.dumps(settings, indent=2))
            parts.append(details(f"Settings of {file.name}", f"<pre>{text}</pre>"))
        return parts


def write_report(make: Callable[[Path], Report], out: Path, overwrite: bool) -> Report:
    """`make` draws into a folder of figures. All of it or nothing: made beside `out`, then put there. An earlier report
    is replaced only where asked for."""
    check_target(out, overwrite)
    draft = _draft(out)
    try:
        (draft / "figures").mkdir()
        report = make(draft / "figures")
        report.write(draft)
        draft.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        draft.rename(out)
    except OSError as error:
        raise CompareError(STORAGE, f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


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


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def seeds_of(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
