"""The parts of a self-contained HTML report: one file that can be sent, and printed."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff;
       max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #d8dde3; padding-bottom: .25rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .5rem; }
.lead { font-size: 1.15rem; border-left: 4px solid #0072b2; padding: .2rem 0 .2rem 1rem; margin: 1.2rem 0; }
.facts { color: #4a525c; margin: 0; }
.note { color: #4a525c; font-size: .88rem; margin: .4rem 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: .28rem .55rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #1b1f24; white-space: normal; font-weight: 600; vertical-align: bottom; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
td:first-child { font-weight: 600; }
tbody tr:last-child td { border-bottom: 1px solid #1b1f24; }
tr.group td { border-top: 1px solid #d8dde3; }
.spread { color: #4a525c; font-size: .84em; }
.words td, .words th { text-align: left; vertical-align: top; }
.words td:nth-child(n+2) { white-space: normal; min-width: 7rem; }
figure { margin: 1rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
.pair figure { max-width: 36rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: .5rem 1.5rem; }
pre { background: #f5f7f9; padding: .7rem .9rem; overflow-x: auto; font-size: .82rem; line-height: 1.45; }
summary { cursor: pointer; font-weight: 600; margin: .7rem 0; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } .scroll { overflow: visible; }
               pre { white-space: pre-wrap; } h2, h3 { break-after: avoid; } table { font-size: 7.5pt; }
               th, td { padding: 1pt 4pt; } }
"""


def document(title: str, parts: Sequence[str]) -> str:
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}'
            f"</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n")


def image(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    alt = file.stem.replace("-", " ")
    return f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def details(title: str, body: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"
