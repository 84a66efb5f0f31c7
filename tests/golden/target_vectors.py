#!/usr/bin/python3
"""Writes target_vectors.json: soft targets beyond equation 6, and the gradient of a standardised student, as PyTorch
computes them in float64. Run it where PyTorch is installed; the output is committed."""
import json
import pathlib

import torch
import torch.nn.functional as F

CLASSES, BATCH, TEACHERS = 5, 6, 3


def numbers(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().double().reshape(-1).tolist()}


def z_scores(logits):
    mean = logits.mean(dim=-1, keepdim=True)
    variance = ((logits - mean) ** 2).sum(dim=-1, keepdim=True) / (logits.shape[-1] - 1)
    return (logits - mean) / (variance.sqrt() + 1e-7)


def targets(teachers, weights, temperature, average, standardise, normalise):
    z = z_scores(teachers) if standardise else teachers
    if average == "logits":
        z = z - z.mean(dim=-1, keepdim=True)
        mean = torch.zeros(BATCH, CLASSES)
        for c in range(CLASSES):
            share = weights[:, c] / weights[:, c].sum() if weights[:, c].sum() > 0 else torch.full((TEACHERS,), 1 / TEACHERS)
            mean[:, c] = sum(share[k] * z[k, :, c] for k in range(TEACHERS))
        return F.softmax(mean / temperature, dim=1)
    q = sum(weights[k] * F.softmax(z[k] / temperature, dim=1) for k in range(TEACHERS))
    return q / q.sum(dim=1, keepdim=True) if normalise else q


def main():
    torch.manual_seed(20240403)
    torch.set_default_dtype(torch.float64)
    teachers = torch.randn(TEACHERS, BATCH, CLASSES) * 3
    weights = torch.rand(TEACHERS, CLASSES)
    weights[:, 3] = 0  # a class that no teacher knows
    student = torch.randn(BATCH, CLASSES) * 2
    predicted = torch.tensor([12, 0, 3, 40, 5])
    cases = []
    for average in ("probabilities", "logits"):
        for standardise in (False, True):
            for normalise in (False, True):
                for temperature in (1.0, 3.0):
                    q = targets(teachers, weights, temperature, average, standardise, normalise)
                    leaf = student.clone().requires_grad_(True)
                    z = z_scores(leaf) if standardise else leaf
                    loss = -(q * F.log_softmax(z / temperature, dim=1)).sum(dim=1).mean() * temperature**2
                    loss.backward()
                    cases.append({"average": average, "standardise": standardise, "normalise": normalise,
                                  "temperature": temperature, "targets": numbers(q), "gradient": numbers(leaf.grad)})
    prior = (predicted.double() + 1) / (predicted.sum() + CLASSES)
    corrected = F.softmax(teachers[0], dim=1) / prior
    document = {
        "teachers": numbers(teachers), "weights": numbers(weights), "student": numbers(student), "cases": cases,
        "predicted": predicted.tolist(), "without_prior": numbers(corrected / corrected.sum(dim=1, keepdim=True)),
    }
    target = pathlib.Path(__file__).with_name("target_vectors.json")
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
