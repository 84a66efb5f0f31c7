"""What settings of a study of peers are called in its report."""

from __future__ import annotations

from .rows import Setting

MEASURE_TITLES = {"ce": "CE", "kl": "KL", "js": "JS", "sed": "SED", "td": "TD", "msed": "MSED"}
METHOD_TITLES = {"kd": "kd", "gossip": "gossip averaging", "def-kt": "Def-KT", "proxyfl": "ProxyFL", "fedmd": "FedMD",
                 "alone": "alone"}
AVERAGE_TITLES = {"probabilities": "mean of probabilities", "logits": "mean of logits", "none": "sum of pairs"}
SHORT_AVERAGES = {"probabilities": "probabilities", "logits": "logits", "none": "sum"}
STRENGTH_TITLES = {"plain": "equal alpha", "matched": "matched strength"}


def measure_title(measure: str) -> str:
    return MEASURE_TITLES.get(measure, measure)


def title_of(setting: Setting) -> str:
    """Of the measure, or of a method that has none."""
    return measure_title(setting.measure) if setting.is_kd else METHOD_TITLES.get(setting.method, setting.method)


def strength_title(setting: Setting) -> str:
    return setting.strength + (", published reduction" if setting.reduction == "published" else "")


def full_title(setting: Setting) -> str:
    """In one line."""
    if not setting.is_kd:
        return title_of(setting)
    more = "".join(f", {word}" for word, usual in ((setting.strength, "plain"), (setting.reduction, "mean"))
                   if word != usual)
    heat = "" if setting.temperature == 1 else f", T {setting.temperature:g}"
    average = SHORT_AVERAGES.get(setting.average, setting.average)
    return f"{title_of(setting)}, {average}, alpha {setting.alpha:g}{heat}{more}"


def case_title(partition: str, graph: str, graphs: list[str]) -> str:
    """The graph where there are several."""
    return partition if len(graphs) < 2 else f"{partition}, {graph}"
