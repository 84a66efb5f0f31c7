#!/usr/bin/python3
"""Writes order_vectors.json: what training draws from a seed, as hashlib and torch.randperm draw it. The C++ trainer and
the Python package are both held against it, so that a silo may change from one to the other."""
import hashlib
import json
import math
import pathlib

import torch


def child(value, label):
    digest = hashlib.sha256(value.to_bytes(8, "little") + label.encode()).digest()
    return int.from_bytes(digest[:8], "little")


def permutation(size, seed):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed % 2**32)).tolist()


def held_out(labels, fraction, seed):
    """Stratified by class: the floor of each class's quota, then the largest remainders, the lower class first."""
    size = len(labels)
    wanted = min(math.floor(fraction * size + 1e-9), size - 1)
    pools = [[i for i, label in enumerate(labels) if label == c] for c in range(max(labels) + 1)]
    quotas = [wanted * len(pool) // size for pool in pools]
    remainders = sorted((-(wanted * len(pool) % size), c) for c, pool in enumerate(pools))
    for _, c in remainders[:wanted - sum(quotas)]:
        quotas[c] += 1
    return sorted(pool[place] for c, pool in enumerate(pools)
                  for place in permutation(len(pool), child(seed, f"#{c}"))[:quotas[c]])


def main():
    silo = child(child(7, "client"), "st-mary")
    round_seed = child(child(silo, "train"), "#3")
    labels = [[(i * i + i // 3) % classes for i in range(size)] for size, classes in ((1, 1), (10, 3), (97, 5), (60, 2))]
    document = {
        "children": [{"seed": seed, "label": label, "child": child(seed, label)}
                     for seed, label in ((0, ""), (1, "a"), (2**64 - 1, "train"), (silo, "#12"))],
        "silo": {"run": 7, "name": "st-mary", "round": 3, "seed": round_seed},
        "orders": [{"size": size, "epochs": [permutation(size, child(round_seed, f"#{epoch}")) for epoch in range(2)]}
                   for size in (1, 2, 17, 65, 200)],
        "held_out": [{"labels": values, "fraction": fraction, "held_out": held_out(values, fraction, child(silo, "held out"))}
                     for values in labels for fraction in (0.0, 0.1, 0.29, 0.9)],
    }
    target = pathlib.Path(__file__).with_name("order_vectors.json")
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
