#!/usr/bin/python3
"""Writes pair_vectors.json: masks, losses and gradients of data-partitioning KD and deep mutual learning as PyTorch
computes them in float64, written out in full. Run it where PyTorch is installed; the output is committed."""
import json
import pathlib

import torch
import torch.nn.functional as F

CLASSES, BATCH = 5, 9


def numbers(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().double().reshape(-1).tolist()}


def value_and_gradient(objective, logits):
    leaf = logits.clone().requires_grad_(True)
    value = objective(leaf)
    value.backward()
    return {"value": value.item(), "gradient": numbers(leaf.grad)}


def divergence(target, logits, temperature):
    """KL(softmax(target / T) || softmax(logits / T)) of each sample."""
    p, q = F.softmax(target / temperature, dim=1), F.softmax(logits / temperature, dim=1)
    return (p * (p.log() - q.log())).sum(dim=1)


def partitioning_case(temperature, labels, student, teacher, copy):
    p_t, p_st = F.softmax(teacher, dim=1), F.softmax(copy, dim=1)
    if labels is None:
        mask = p_t.max(dim=1).values > p_st.max(dim=1).values
    else:
        rows = torch.arange(BATCH)
        mask = p_t[rows, labels] > p_st[rows, labels]
    m = mask.double()

    def objective(logits):
        each = m * divergence(teacher, logits, temperature) + (1 - m) * divergence(copy, logits, temperature)
        return each.mean() * temperature**2

    return {"temperature": temperature, "labeled": labels is not None, "mask": mask.tolist(),
            "loss": value_and_gradient(objective, student)}


def mutual_case(labels, logits, peer):
    def objective(leaf):
        loss = divergence(peer, leaf, 1.0).mean()
        return loss if labels is None else F.cross_entropy(leaf, labels) + loss

    return {"labeled": labels is not None, "loss": value_and_gradient(objective, logits)}


def main():
    torch.manual_seed(20231027)
    torch.set_default_dtype(torch.float64)
    student = torch.randn(BATCH, CLASSES) * 2
    teacher = torch.randn(BATCH, CLASSES) * 3
    copy = torch.randn(BATCH, CLASSES) * 3
    copy[4] = teacher[4]  # a tie, which stays with the copy
    labels = torch.randint(CLASSES, (BATCH,))
    document = {
        "student": numbers(student), "teacher": numbers(teacher), "copy": numbers(copy), "labels": labels.tolist(),
        "partitioning": [partitioning_case(temperature, y, student, teacher, copy)
                         for temperature in (1.0, 3.0) for y in (labels, None)],
        "mutual": [mutual_case(y, student, teacher) for y in (labels, None)],
    }
    target = pathlib.Path(__file__).with_name("pair_vectors.json")
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
