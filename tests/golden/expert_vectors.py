#!/usr/bin/python3
"""Vectors for experts' weights and for heads in closed form, by PyTorch in float64: tests/golden/expert_vectors.json.

The log-odds come from LBFGS on the objective itself, the heads from the samples and not from sums over them, so that
none of it is the program's own way to the same numbers.
"""

import json
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)


def flat(tensor):
    return {"shape": list(tensor.shape), "values": tensor.flatten().tolist()}


def log_odds(own, public, penalty):
    mean, deviation = public.mean(0), public.std(0, unbiased=False) + 0.1
    own, public = (own - mean) / deviation, (public - mean) / deviation
    weights = torch.zeros(own.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=2000, tolerance_grad=1e-13, tolerance_change=0,
                                  line_search_fn="strong_wolfe", history_size=50)

    def objective():
        optimiser.zero_grad()
        loss = (0.5 * torch.nn.functional.softplus(-(own @ weights + bias)).mean() +
                0.5 * torch.nn.functional.softplus(public @ weights + bias).mean() + penalty * weights.square().sum())
        loss.backward()
        return loss

    for _ in range(20):
        optimiser.step(objective)
    return (public @ weights + bias).detach()


def with_ones(x):
    return torch.cat([x, torch.ones(len(x), 1)], 1)


def ridge(u, labels, classes, damping):
    """Least squares as the longer system [u / sqrt(n); sqrt(damping)] W = [y - 1/C; 0]."""
    count = len(u)
    targets = torch.nn.functional.one_hot(labels, classes).double() - 1 / classes
    scale = (u.square().sum(0) / count)[:-1].mean()
    penalty = torch.full((u.shape[1],), damping) * scale
    penalty[-1] = 1e-6 * scale
    system = torch.cat([u / count**0.5, penalty.sqrt().diag()])
    right = torch.cat([targets / count**0.5, torch.zeros(u.shape[1], classes)])
    return torch.linalg.lstsq(system, right).solution


def gaussian(x, labels, classes, damping):
    means = torch.stack([x[labels == c].mean(0) for c in range(classes)])
    centred = x - means[labels]
    covariance = centred.T @ centred / len(x)
    covariance = covariance + damping * covariance.diagonal().mean() * torch.eye(x.shape[1])
    inverse = torch.linalg.inv(covariance)
    weights = inverse @ means.T
    bias = -0.5 * torch.stack([m @ inverse @ m for m in means])
    return torch.cat([weights, bias.unsqueeze(0)])


def main():
    generator = torch.Generator().manual_seed(19)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    features, classes, penalty, damping, lifted = 4, 3, 0.01, 0.01, 6
    own = normal(30, features) + torch.tensor([1.0, 0.0, -0.5, 0.0])
    public = normal(50, features) * torch.tensor([1.0, 2.0, 1.0, 0.3])
    odds = log_odds(own, public, penalty)

    logits = normal(2, 5, classes) * 2
    weights = torch.rand(2, 5, generator=generator)
    weights[:, 4] = 0
    temperature = 3.0
    rows = (weights.unsqueeze(2) * torch.softmax(logits / temperature, 2)).sum(0)
    targets = torch.where(rows.sum(1, True) > 0, rows / rows.sum(1, True).clamp_min(1e-30), torch.full_like(rows, 1 / classes))

    x = normal(60, features)
    labels = torch.randint(classes, (60,), generator=generator)
    x[torch.arange(60), labels] += 1.5
    projection = torch.cat([torch.diag(1 / public.std(0, unbiased=False)), torch.zeros(1, features)])
    lift = torch.cat([normal(features, lifted) * 1.5 / features**0.5, normal(1, lifted)])
    scaled = with_ones(x) @ projection
    u = with_ones(torch.cat([scaled, torch.relu(with_ones(scaled) @ lift)], 1))

    document = {
        "penalty": penalty, "damping": damping, "temperature": temperature,
        "own": flat(own), "public": flat(public), "log_odds": flat(odds),
        "logits": flat(logits), "weights": flat(weights), "targets": flat(targets),
        "features": flat(x), "labels": labels.tolist(), "projection": flat(projection), "lift": flat(lift),
        "mapped": flat(u), "ridge": flat(ridge(u, labels, classes, damping)),
        "gaussian": flat(gaussian(x, labels, classes, damping)),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
