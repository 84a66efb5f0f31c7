"""Knowledge distillation as headstart-client computes it (shared/learn/README.md#distillation), for cross-entropy and KL
divergence, which have the same gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import HeadstartError
from .terms import ConsolidationTerms


def require_known(terms: ConsolidationTerms) -> None:
    """Throws where the run distils by a measure that is not computed here."""
    if terms.measure not in ("ce", "kl"):
        raise HeadstartError(f"the run distils by consolidation.measure={terms.measure}, which Python workers do not know; "
                             "they know ce and kl")
    if terms.average not in ("probabilities", "logits", "none"):
        raise HeadstartError(f"the run distils by consolidation.average={terms.average}, which Python workers do not know; "
                             "they know probabilities, logits and none")


class Guide:
    """What a student is compared with, and how."""

    def __init__(self, terms: ConsolidationTerms, temperature: float, weights: Tensor) -> None:
        """weights: float64 [K, C]."""
        self._terms, self._temperature, self._weights = terms, temperature, weights
        self._num_teachers = len(weights)

    def targets(self, logits: Tensor, owners: Sequence[str]) -> Tensor:
        """Of teachers' logits [K, n, C]: one target a sample, [n, C]. A teacher whose logits are not finite does not
        teach; the others take its weight. owners: for the message."""
        if len(logits) != len(self._weights) or logits.shape[-1] != self._weights.shape[-1]:
            raise HeadstartError(f"there are {len(self._weights)} rows of weights for {self._weights.shape[-1]} classes, and "
                                 f"{len(logits)} teachers that answer by {logits.shape[-1]} logits", "internal")
        logits, weights = _sound(logits, self._weights, owners)
        self._num_teachers = len(logits)
        terms = self._terms
        scaled = _standardised(logits) if terms.standardise else logits
        equal = torch.full_like(weights, 1 / len(weights))
        if terms.average == "logits":
            total = weights.sum(0, keepdim=True)
            share = torch.where(total > 0, weights / total, equal).to(logits.dtype)
            centred = scaled - scaled.mean(-1, keepdim=True)
            return torch.softmax((centred * share.unsqueeze(1)).sum(0) / self._temperature, 1)
        targets = self._weighted(scaled, weights)
        if terms.normalise and terms.average == "probabilities":
            total = targets.sum(1, keepdim=True)
            targets = torch.where(total > 0, targets / total, self._weighted(scaled, equal))
        return targets

    def term(self, student: Tensor, targets: Tensor) -> Tensor:
        """The distillation term of a batch: student's logits [n, C], targets [n, C]."""
        terms = self._terms
        scaled = _standardised(student) if terms.standardise else student
        log_p = torch.log_softmax(scaled / self._temperature, 1)
        each = -(targets * log_p).sum(1)
        if terms.measure == "kl":
            each = each + torch.special.xlogy(targets, targets).sum(1)
        if terms.average == "none":
            each = each * self._num_teachers
        if terms.reduction == "published":
            return each.sum()
        return each.mean() * (self._temperature**2 if terms.scale_by_t2 else 1.0)

    def _weighted(self, logits: Tensor, weights: Tensor) -> Tensor:
        scale = weights.to(logits.dtype)
        targets = torch.zeros_like(logits[0])
        for one, weight in zip(logits, scale):
            targets.addcmul_(torch.softmax(one / self._temperature, 1), weight)
        return targets


def _sound(logits: Tensor, weights: Tensor, owners: Sequence[str]) -> tuple[Tensor, Tensor]:
    is_finite = torch.isfinite(logits).flatten(1).all(1)
    if bool(is_finite.all()):
        return logits, weights
    if not bool(is_finite.any()):
        raise HeadstartError("consolidation: no teacher has finite logits", "training")
    for owner, finite in zip(owners, is_finite.tolist()):
        if not finite:
            print(f"headstart: the model of '{owner}' does not teach, its logits are not finite", flush=True)
    rest = weights[is_finite]
    known = rest.sum(0, keepdim=True)
    share = torch.where(known > 0, rest / known, torch.full_like(rest, 1 / len(rest)))
    return logits[is_finite], share * weights.sum(0, keepdim=True)


def _standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, unbiased=True, keepdim=True) + 1e-7)
