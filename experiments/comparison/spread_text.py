"""A spread as the text of a table's cell."""

from __future__ import annotations

from common.table import NOTHING

from .accounting import Spread


def percent(spread: Spread | None, digits: int = 1) -> str:
    return _spread_text(spread, 100, digits, "%")


def points(spread: Spread | None) -> str:
    return _spread_text(spread, 100, 1, "", "+")


def amount(spread: Spread | None, scale: float = 1.0, digits: int = 1) -> str:
    return _spread_text(spread, scale, digits, "")


def _spread_text(spread: Spread | None, scale: float, digits: int, unit: str, sign: str = "") -> str:
    if spread is None:
        return NOTHING
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in (spread.mean, spread.low, spread.high))
    bound = f"{spread.bound} " if spread.bound else ""
    if low == high:
        return bound + (mean.removesuffix(".0") if not unit and not sign else mean) + unit
    return f"{bound}{mean}{unit} ({low.removesuffix('.0')} to {high.removesuffix('.0')})"
