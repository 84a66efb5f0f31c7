"""Numbers as readers want them: a true minus sign, no negative zero."""

from __future__ import annotations


def number(value: float, form: str) -> str:
    text = f"{value:{form}}"
    is_zero = not text.strip("+-0.")
    return text.lstrip("+-") if is_zero else text.replace("-", "−")


def points(value: float) -> str:
    """Of accuracy: 0.123 is +12.3."""
    return number(100 * value, "+.1f")
