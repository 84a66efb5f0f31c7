#!/usr/bin/python3
"""Writes peer_graphs.json: random graphs drawn as shared/learn/peers draws them, from the definitions of the seed tree
and of std::mt19937_64. The output is committed."""
import hashlib
import json
import math
import pathlib

MASK = 2**64 - 1


def child(seed, label):
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "little") + label.encode()).digest()[:8], "little")


def mt19937_64(seed):
    state = [seed]
    for i in range(1, 312):
        state.append((6364136223846793005 * (state[-1] ^ state[-1] >> 62) + i) & MASK)
    while True:
        for i in range(312):
            x = state[i] & MASK << 31 & MASK | state[(i + 1) % 312] & 0x7FFFFFFF
            state[i] = state[(i + 156) % 312] ^ x >> 1 ^ (0xB5026F5AA96619E9 if x & 1 else 0)
        for x in state:
            x ^= x >> 29 & 0x5555555555555555
            x ^= x << 17 & 0x71D67FFFEDA60000
            x ^= x << 37 & 0xFFF7EEE000000000
            yield x ^ x >> 43


def below(stream, count):
    while True:
        drawn = next(stream)
        if drawn >= 2**64 % count:
            return drawn % count


def happens(stream, chance):
    return next(stream) >> 32 < round(chance * 2**32)


def everybody(n):
    return {(i, j) for i in range(n) for j in range(i + 1, n)}


def paired(stream, n, degree):
    open_ends, edges = [i for i in range(n) for _ in range(degree)], set()
    idle = 0
    while open_ends and idle < 20:
        for i in range(len(open_ends) - 1, 0, -1):
            k = below(stream, i + 1)
            open_ends[i], open_ends[k] = open_ends[k], open_ends[i]
        left = []
        for a, b in zip(open_ends[::2], open_ends[1::2]):
            if a == b or (min(a, b), max(a, b)) in edges:
                left += [a, b]
            edges |= {(min(a, b), max(a, b))} if a != b else set()
        idle = 0 if len(left) < len(open_ends) else idle + 1
        open_ends = left
    return None if open_ends else edges


def regular(stream, n, degree):
    if 2 * degree <= n - 1:
        return paired(stream, n, degree)
    missing = paired(stream, n, n - 1 - degree)
    return None if missing is None else everybody(n) - missing


def small_world(stream, n, degree, rewiring):
    steps = [(i, (i + reach) % n) for reach in range(1, degree // 2 + 1) for i in range(n)]
    edges = {frozenset(step) for step in steps}
    for near, far in steps:
        if happens(stream, rewiring) and sum(near in edge for edge in edges) < n - 1:
            end = near
            while end == near or frozenset((near, end)) in edges:
                end = below(stream, n)
            edges = edges - {frozenset((near, far))} | {frozenset((near, end))}
    return {tuple(sorted(edge)) for edge in edges}


def erdos_renyi(stream, n, chance):
    return {edge for edge in sorted(everybody(n)) if happens(stream, chance)}


def is_connected(n, edges):
    reached, size = {0}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {b for edge in edges for a, b in (edge, edge[::-1]) if a in reached}
    return len(reached) == n


def connected(seed, n, draw, *settings):
    for number in range(1000):
        edges = draw(mt19937_64(child(child(seed, "graph"), f"#{number}")), n, *settings)
        if edges is not None and is_connected(n, edges):
            return {"peers": n, "seed": seed, "draws": number + 1, "edges": sorted(edges)}


def main():
    # What the standard of C++ says of the 10,000th number.
    stream = mt19937_64(5489)
    assert [next(stream) for _ in range(10000)][-1] == 9981545732273789042
    graphs = []
    for n, seed in ((8, 1), (9, 2), (12, 3)):
        for degree in (2, 4, 6):
            graphs.append({"kind": "regular", "degree": degree, **connected(seed, n, regular, degree)})
        for degree, rewiring in ((2, 0.2), (4, 0.2), (4, 1)):
            graphs.append({"kind": "small-world", "degree": degree, "rewiring": rewiring,
                           **connected(seed, n, small_world, degree, rewiring)})
        for given in (0, 0.3):
            chance = given or min(1, 2 * math.log(n) / n)
            graphs.append({"kind": "erdos-renyi", "edge_probability": given, **connected(seed, n, erdos_renyi, chance)})
    lines = ",\n".join(json.dumps(graph) for graph in graphs)
    pathlib.Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n")


main()
