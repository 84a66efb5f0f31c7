#!/usr/bin/python3
"""Writes distill_vectors.json: losses and gradients of knowledge distillation as PyTorch computes them in float64.

The formulas are written out in full (all K teachers, no collapsed target), so that they share nothing with the code
under test but the definitions. Run it where PyTorch is installed; the output is committed."""
import json
import pathlib

import torch
import torch.nn.functional as F

CLASSES, BATCH, TEACHERS, CLIENTS = 5, 7, 3, 4


def numbers(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().reshape(-1).tolist()}


def teacher_weights(kind, teachers, others, student):
    weights = torch.empty_like(teachers)
    for k in range(teachers.shape[0]):
        for c in range(teachers.shape[1]):
            denominator = student[c] + sum(others[j, c] for j in range(others.shape[0]))
            adaptive = kind == "adaptive" and denominator > 0
            weights[k, c] = teachers[k, c] / denominator if adaptive else 1 / teachers.shape[0]
    return weights


def full_distillation(student, teachers, weights, temperature):
    """mean_n sum_k sum_c w[k,c] p_k[n,c] log(p_k[n,c] / p_s[n,c])"""
    total = 0
    p_s = F.softmax(student / temperature, dim=1)
    for k in range(teachers.shape[0]):
        p_k = F.softmax(teachers[k] / temperature, dim=1)
        total = total + (weights[k] * p_k * torch.log(p_k / p_s)).sum(dim=1)
    return total.mean()


def value_and_gradient(objective, student):
    student = student.clone().requires_grad_(True)
    value = objective(student)
    value.backward()
    return {"value": value.item(), "gradient": numbers(student.grad)}


def objective_case(kind, temperature, alpha, scale, inputs):
    student, teachers, labels, weights = inputs["student"], inputs["teachers"], inputs["labels"], inputs[kind]
    factor = temperature**2 if scale else 1.0

    def distillation(logits):
        return factor * full_distillation(logits, teachers, weights, temperature)

    def labeled(logits):
        return (1 - alpha) * F.cross_entropy(logits, labels) + alpha * distillation(logits)

    # The part of the loss that no student changes, which the code under test leaves out of its value.
    p = [F.softmax(t / temperature, dim=1) for t in teachers]
    constant = sum((weights[k] * p[k] * p[k].log()).sum(dim=1) for k in range(len(p))).mean() * factor
    return {
        "weighting": kind, "temperature": temperature, "alpha": alpha, "scale_by_t2": scale,
        "constant": constant.item(),
        "unlabeled": value_and_gradient(distillation, student),
        "labeled": value_and_gradient(labeled, student),
    }


def main():
    torch.manual_seed(20240214)
    torch.set_default_dtype(torch.float64)
    accuracies = torch.rand(CLIENTS, CLASSES)
    accuracies[:, 2] = 0  # nobody knows class 2
    student_accuracy = torch.rand(CLASSES)
    student_accuracy[2] = 0
    teachers = torch.randn(TEACHERS, BATCH, CLASSES) * 3
    inputs = {
        "student": torch.randn(BATCH, CLASSES) * 2,
        "teachers": teachers,
        "labels": torch.randint(CLASSES, (BATCH,)),
        "adaptive": teacher_weights("adaptive", accuracies[:TEACHERS], accuracies, student_accuracy),
        "equal": teacher_weights("equal", accuracies[:TEACHERS], accuracies, student_accuracy),
    }
    cases = [
        objective_case(kind, temperature, alpha, scale, inputs)
        for kind in ("adaptive", "equal")
        for temperature in (0.5, 1.0, 3.0, 7.0)
        for alpha in (0.1, 0.5, 0.9)
        for scale in (True, False)
    ]
    divergences = [
        {
            "temperature": temperature,
            "value": F.kl_div(
                F.log_softmax(inputs["student"] / temperature, dim=1),
                F.softmax(teachers[0] / temperature, dim=1),
                reduction="batchmean",
            ).item(),
        }
        for temperature in (0.5, 1.0, 3.0)
    ]
    document = {
        "student": numbers(inputs["student"]),
        "teachers": numbers(teachers),
        "labels": inputs["labels"].tolist(),
        "teacher_accuracy": numbers(accuracies[:TEACHERS]),
        "others_accuracy": numbers(accuracies),
        "student_accuracy": numbers(student_accuracy),
        "adaptive": numbers(inputs["adaptive"]),
        "cases": cases,
        "kl_teacher_0_to_student": divergences,
    }
    target = pathlib.Path(__file__).with_name("distill_vectors.json")
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
