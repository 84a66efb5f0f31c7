"""Statements of the papers, each with what a study says of it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from .table import Table
from .text import grouped

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told from this study"
# Two methods are comparable when their mean gains differ by at most this: the bound of every equivalence.
COMPARABLE = 0.02
NO_ROWS = "No such rows."


@dataclass(frozen=True)
class Answer:
    topic: str
    statement: str
    verdict: str
    numbers: str
    has_rows: bool = True  # whether the study has anything to tell it from


def answer(topic: str, statement: str, verdict: str, numbers: str, rows: object) -> Answer:
    """rows: what it rests on; None or empty: nothing."""
    return Answer(topic, statement, verdict, numbers) if rows else Answer(topic, statement, OPEN, NO_ROWS, False)


def headline(answers: Sequence[Answer]) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in answers) for verdict in (HOLDS, FAILS, OPEN)}
    bare = sum(not one.has_rows for one in answers)
    why = f" ({bare} of them for want of rows)" if bare else ""
    return (f"Of {len(answers)} directions that the papers report, {counts[HOLDS]} hold here, {counts[FAILS]} do not, "
            f"and {counts[OPEN]} cannot be told from this study{why}.")


def answers_html(answers: Sequence[Answer], rule: str) -> str:
    table = Table("Directions of the papers", ["topic", "direction", "here", "numbers"])
    table.rows = [[one.topic, one.statement, one.verdict, one.numbers] for one in answers]
    return f'<div class="words">{table.html()}</div><p class="note">{html.escape(rule)}</p>'


def answers_markdown(answers: Sequence[Answer]) -> list[str]:
    """Lines, a heading a topic."""
    lines = []
    for topic, group in grouped(answers, lambda one: one.topic).items():
        lines += [f"## {topic}", ""]
        lines += [f"- {one.statement} **{one.verdict[0].upper() + one.verdict[1:]}.** {one.numbers}" for one in group]
        lines.append("")
    return lines
