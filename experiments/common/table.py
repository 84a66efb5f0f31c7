"""A table as data, as Markdown, as text for a terminal and as HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

NOTHING = "–"
SPREAD, SMALL = re.compile(r" (\([^()]+ to [^()]+\))$"), r' <span class="spread">\1</span>'


@dataclass
class Table:
    """Cells are finished text. Rows with the same first cell belong together."""

    title: str
    headers: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", "| " + " | ".join(self.headers) + " |",
                 "|" + "|".join(["---"] * 2 + ["---:"] * (len(self.headers) - 2)) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines + (["", self.note] if self.note else [])) + "\n"

    def text(self) -> str:
        widths = [max(len(row[i]) for row in [self.headers, *self.rows]) for i in range(len(self.headers))]
        rule = "  ".join("-" * width for width in widths)
        lines = [self.title, self._text_row(self.headers, widths), rule]
        previous = ""
        for row in self.rows:
            shown = ["" if row[0] == previous else row[0], *row[1:]]
            previous = row[0]
            lines.append(self._text_row(shown, widths))
        return "\n".join(lines + ([self.note] if self.note else []))

    @staticmethod
    def _text_row(cells: list[str], widths: list[int]) -> str:
        names = [cell.ljust(width) for cell, width in zip(cells[:2], widths)]
        figures = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:])]
        return "  ".join(names + figures).rstrip()

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(header)}</th>" for header in self.headers)
        body, previous = [], ""
        for row in self.rows:
            first = "" if row[0] == previous else row[0]
            marker = ' class="group"' if first and previous else ""
            previous = row[0]
            cells = "".join(f"<td>{SPREAD.sub(SMALL, html.escape(cell))}</td>" for cell in [first, *row[1:]])
            body.append(f"<tr{marker}>{cells}</tr>")
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return (f'<h3>{html.escape(self.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
                f"<tbody>{''.join(body)}</tbody></table></div>{note}")
