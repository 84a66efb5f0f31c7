#!/usr/bin/python3
"""Vectors for measures of classifiers, by scikit-learn and, of the calibration error, by its definition with NumPy:
tests/golden/metric_vectors.json. Needs scikit-learn beside the distribution's Python.
"""

import json
from pathlib import Path

import numpy as np
from sklearn import metrics


def softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def calibration_error(probabilities, labels, bins=15):
    """Guo et al. 2017, equation 3: bin m of M has ((m - 1) / M, m / M]."""
    confidence, answers = probabilities.max(1), probabilities.argmax(1)
    edges = np.arange(bins + 1) / bins
    error = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs((answers[inside] == labels[inside]).mean() - confidence[inside].mean())
    return error


def case(name, logits, labels):
    probabilities = softmax(logits)
    answers = probabilities.argmax(1)
    classes = logits.shape[1]
    every = list(range(classes))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, answers, labels=every, zero_division=0)
    # Log-odds order samples as probabilities do, and do not round to 1. To the grid, as rounding breaks ties.
    odds = np.stack([logits[:, c] - np.log(np.exp(np.delete(logits, c, 1)).sum(1)) for c in every], 1)
    odds = np.round(odds * 2**30) / 2**30
    areas = []
    for c in every:
        is_class = labels == c
        areas.append(metrics.roc_auc_score(is_class, odds[:, c]) if 0 < is_class.sum() < len(labels) else None)
    return {
        "name": name, "logits": logits.tolist(), "labels": labels.tolist(),
        "confusion": metrics.confusion_matrix(labels, answers, labels=every).tolist(),
        "accuracy": metrics.accuracy_score(labels, answers),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, answers),
        "precision": precision.tolist(), "recall": recall.tolist(), "f1": f1.tolist(),
        "f1_mean": metrics.f1_score(labels, answers, average="macro", zero_division=0),
        "log_loss": metrics.log_loss(labels, probabilities, labels=every),
        "auc": areas, "auc_mean": float(np.mean([area for area in areas if area is not None])),
        "calibration_error": calibration_error(probabilities, labels),
    }


def main():
    random = np.random.default_rng(23)

    def drawn(count, shares, strength):
        labels = random.choice(len(shares), count, p=shares)
        logits = random.normal(size=(count, len(shares)))
        logits[np.arange(count), labels] += strength
        return np.round(logits * 1024) / 1024, labels

    balanced = drawn(200, [0.25, 0.25, 0.25, 0.25], 1.5)
    rare = drawn(400, [0.965, 0.035], 1.0)
    # Answers that lean to the majority, as such classifiers do.
    rare[0][:, 0] += 1.5
    # The last class has neither samples nor predictions, the one before predictions alone.
    absent = drawn(120, [0.6, 0.4, 0.0, 0.0], 0.5)
    absent[0][:5, 2] += 9
    absent[0][:, 3] -= 9
    # Few different scores: many ties.
    coarse = drawn(150, [0.3, 0.3, 0.4], 1.0)
    coarse = (np.round(coarse[0]), coarse[1])
    # Both classes equally likely has no certain answer: none of these rows has two largest logits.
    coarse[0][:, 1] += 0.25
    coarse[0][:, 2] += 0.5
    cases = [case("balanced", *balanced), case("one in thirty", *rare), case("absent classes", *absent),
             case("ties", *coarse)]
    Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
