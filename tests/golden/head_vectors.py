#!/usr/bin/python3
"""Vectors for the head from sums, computed by PyTorch in float64: tests/golden/head_vectors.json.

The gradient is autograd's of the summed log-likelihood, the moments are the definition, and the steps are written out
with a solved linear system, so that none of it is the program's own way to the same numbers.
"""

import json
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)


def flat(tensor):
    return {"shape": list(tensor.shape), "values": tensor.flatten().tolist()}


def gradient(inputs, labels, head):
    leaf = head.clone().requires_grad_(True)
    likelihood = torch.log_softmax(inputs @ leaf, 1)[torch.arange(len(labels)), labels].sum()
    likelihood.backward()
    return leaf.grad


def main():
    generator = torch.Generator().manual_seed(18)
    features, classes, count, damping = 5, 3, 40, 0.01
    x = torch.randn(count, features, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    x[torch.arange(count), labels] += 1.5
    inputs = torch.cat([x, torch.ones(count, 1)], 1)
    head = 0.1 * torch.randn(features + 1, classes, generator=generator)

    moments = sum(torch.outer(u, u) for u in inputs)
    mean = moments / count
    scale = mean.diagonal()[:-1].mean()
    damped = mean + torch.diag(torch.tensor([damping * scale] * features + [1e-6 * scale]))
    points, old, point, momentum = [], head, head, 1.0
    for _ in range(6):
        points.append(flat(point))
        new = point + 2 * torch.linalg.solve(damped, gradient(inputs, labels, point) / count)
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        point = new + (momentum - 1) / following * (new - old)
        old, momentum = new, following
    rows, columns = torch.tril_indices(features + 1, features + 1)
    document = {"damping": damping, "inputs": flat(inputs), "labels": labels.tolist(), "head": flat(head),
                "moments": flat(moments[rows, columns]), "gradient": flat(gradient(inputs, labels, head)),
                "points": points}
    Path(__file__).with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
