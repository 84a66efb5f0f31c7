#!/usr/bin/python3
"""Writes measure_vectors.json: dissimilarity measures between a student and its teachers, by their definitions in
50-digit arithmetic (python3-mpmath), gradients by central differences. The output is committed."""
import itertools
import json
import pathlib

from mpmath import exp, log, mp, mpf, sqrt

mp.dps = 50
STEP = mpf(10) ** -20


def softmax(logits, temperature=1):
    powers = [exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def entropy(p):
    return -sum(x * log(x) for x in p)


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows)]


def kl(q, p):
    return sum(a * log(a / b) for a, b in zip(q, p))


def js(q, p):
    m = mean([p, q])
    return (kl(q, m) + kl(p, m)) / 2


MEASURES = {
    "ce": lambda q, p: -sum(a * log(b) for a, b in zip(q, p)),
    "kl": kl,
    "js": js,
    "sed": lambda q, p: exp(entropy(mean([p, q]))) / sqrt(exp(entropy(p)) * exp(entropy(q))) - 1,
    "td": lambda q, p: 1 - sum(2 * a * b / (a + b) for a, b in zip(q, p)),
}


def msed(teachers, p):
    everybody = teachers + [p]
    within = sum(entropy(each) for each in everybody) / len(everybody)
    return (exp(entropy(mean(everybody)) - within) - 1) / len(teachers)


def of_sample(measure, average, student, teachers, temperature):
    p = softmax(student, temperature)
    q = [softmax(teacher, temperature) for teacher in teachers]
    if measure == "msed":
        return msed(q, p)
    if average == "probabilities":
        return MEASURES[measure](mean(q), p)
    if average == "logits":
        return MEASURES[measure](softmax(mean(teachers), temperature), p)
    return sum(MEASURES[measure](each, p) for each in q)


def of_batch(measure, average, students, teachers, temperature):
    """teachers: [samples][teachers][classes]."""
    return [of_sample(measure, average, s, t, temperature) for s, t in zip(students, teachers)]


def gradient(measure, average, students, teachers, temperature):
    """Of the mean over the batch."""
    result = []
    for row, column in itertools.product(range(len(students)), range(len(students[0]))):
        sides = []
        for step in (STEP, -STEP):
            moved = [list(student) for student in students]
            moved[row][column] += step
            sides.append(sum(of_batch(measure, average, moved, teachers, temperature)))
        result.append((sides[0] - sides[1]) / (2 * STEP) / len(students))
    return result


def exact(rows):
    return [exact(row) for row in rows] if isinstance(rows, list) else mpf(rows)


def tensor(shape, values):
    return {"shape": shape, "values": [float(value) for value in values]}


def flat(rows):
    return [value for row in rows for value in (flat(row) if isinstance(row, list) else [row])]


def case(name, students, teachers, temperature, labels=None, alpha=None):
    students, teachers, temperature = exact(students), exact(teachers), exact(temperature)
    batch, num_teachers, classes = len(students), len(teachers[0]), len(students[0])
    results = []
    kinds = [(m, a) for m in MEASURES for a in ("probabilities", "logits", "none")] + [("msed", "none")]
    for measure, average in kinds:
        values = of_batch(measure, average, students, teachers, temperature)
        result = {"measure": measure, "average": average, "value": float(sum(values) / batch),
                  "gradient": tensor([batch, classes], gradient(measure, average, students, teachers, temperature))}
        if labels is not None:
            supervised = -sum(log(softmax(s)[y]) for s, y in zip(students, labels)) / batch
            weight = exact(alpha)
            result["objective"] = float((1 - weight) * supervised + weight * sum(values) / batch)
            result["published"] = float((1 - weight) * supervised + weight * sum(values))
        results.append(result)
    by_teacher = [[sample[k] for sample in teachers] for k in range(num_teachers)]
    document = {"name": name, "temperature": float(temperature), "student": tensor([batch, classes], flat(students)),
                "teachers": tensor([num_teachers, batch, classes], flat(by_teacher)), "results": results}
    if labels is not None:
        document |= {"labels": labels, "alpha": float(exact(alpha))}
    return document


def main():
    half, three_quarters = [0, 0], [log(3), 0]
    c, first, second = ["0.5", "-0.25", "1.5", 0], [2, -1, 0, "0.5"], ["-0.5", 1, "0.25", -2]
    cases = [
        case("A", [[1, 0, -1]], [[[0, 2, 1]]], 1),
        case("B", [[1, 0, -1]], [[[0, 2, 1]]], 3),
        case("C", [c], [[first]], "1.5"),
        case("D", [c], [[first, second]], "1.5"),
        case("E", [half], [[three_quarters]], 1),
        case("F", [[1, 0, -1], ["0.5", "0.5", 2]], [[[0, 2, 1], [1, -1, 0]], [[-1, 0, 3], [2, 0, 0]]], 2, [0, 2],
             "0.3"),
    ]
    target = pathlib.Path(__file__).with_name("measure_vectors.json")
    target.write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
