"""The terms of a run: what all its silos do alike, as the server says it (shared/wire/README.md#terms)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from .errors import HeadstartError


@dataclass
class Optimiser:
    """Weight decay is L2 in the gradient (PyTorch's SGD and Adam, not AdamW)."""

    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 4e-4
    batch_size: int = 64


@dataclass
class TrainTerms(Optimiser):
    """A round."""

    epochs: int = 2
    proximal_mu: float = 0.0
    """FedProx: mu (w - x) is added to the gradient, x being the model as received. 0: it is not."""
    clip: float = 0.0
    """L2 norm, over all parameters, that a step's gradient is scaled down to. 0: it is as it is."""


@dataclass
class PretrainTerms(Optimiser):
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 32
    max_epochs: int = 100
    patience: int = 10
    """Epochs without a better held-out accuracy (ties by lower loss) before training stops."""


@dataclass
class ConsolidationTerms(Optimiser):
    """Distillation (shared/learn/README.md#distillation)."""

    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 32
    epochs: int = 30
    temperature: float = 1.0
    alpha: float = 0.5
    measure: str = "ce"
    strength: str = "plain"
    reduction: str = "mean"
    scale_by_t2: bool = True
    average: str = "probabilities"
    standardise: bool = False
    normalise: bool = False


@dataclass
class TaskTerms:
    shape: list[int] = field(default_factory=list)
    """Of one sample; empty where nobody has said it."""
    classes: int = 0


@dataclass
class SampleTerms:
    classes: list[str] = field(default_factory=list)
    """Names by label."""
    stored: str = "unknown"
    mean: list[float] = field(default_factory=list)
    deviation: list[float] = field(default_factory=list)
    """One number a channel (first dimension of a sample): the model sees (value - mean) / deviation. Empty: as it is."""


@dataclass
class RunTerms:
    seed: int = 1
    precision: str = "float32"


@dataclass
class DataTerms:
    held_out: float = 0.1
    """Fraction of a silo's samples that it keeps for early stopping and evaluation."""


@dataclass
class Terms:
    run: RunTerms = field(default_factory=RunTerms)
    task: TaskTerms = field(default_factory=TaskTerms)
    samples: SampleTerms = field(default_factory=SampleTerms)
    data: DataTerms = field(default_factory=DataTerms)
    pretrain: PretrainTerms = field(default_factory=PretrainTerms)
    train: TrainTerms = field(default_factory=TrainTerms)
    consolidation: ConsolidationTerms = field(default_factory=ConsolidationTerms)
    client: str = ""
    """The silo's name in the run."""
    all: dict[str, Any] = field(default_factory=dict)
    """The terms as they came, with what this class does not name."""

    @staticmethod
    def of(document: Mapping[str, Any], client: str = "") -> Terms:
        """`document`: the object of the protocol, or a part of it; keys may be dotted ("train.lr"). What it does not say
        has the server's default. Unknown keys are left in `all`."""
        nested = _nested(document)
        terms = Terms(client=client, all=nested)
        for section in fields(terms):
            target, said = getattr(terms, section.name), nested.get(section.name)
            if is_dataclass(target) and isinstance(said, dict):
                _fill(target, said, section.name)
        return terms


def _nested(document: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in document.items():
        section, _, rest = key.partition(".")
        if rest:
            result.setdefault(section, {})[rest] = value
        elif isinstance(value, Mapping):
            result.setdefault(section, {}).update(value)
        else:
            result[section] = value
    return result


def _fill(target: Any, said: Mapping[str, Any], section: str) -> None:
    for one in fields(target):
        if said.get(one.name) is None:
            continue
        before, value = getattr(target, one.name), said[one.name]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(before, float) and is_number:
            value = float(value)
        elif isinstance(before, int) and not isinstance(before, bool) and is_number and value == int(value):
            value = int(value)
        if type(value) is not type(before):
            raise HeadstartError(f"terms of the run: {section}.{one.name} is {value!r}; expected is a value like "
                                 f"{before!r}")
        setattr(target, one.name, value)
