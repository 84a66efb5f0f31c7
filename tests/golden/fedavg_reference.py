"""FedAvg in plain PyTorch: writes the inputs that both programs read and the states after each round.

Usage: python3 tests/golden/fedavg_reference.py    (writes tests/golden/fedavg/reference.json)
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

CLIENT_SIZES = [9, 26, 17, 33]
CHANNELS, SIDE, CLASSES = 2, 10, 4
FILTERS, KERNEL, HIDDEN = [4, 6], 3, 12
ROUNDS, EPOCHS, BATCH = 3, 2, 8
LR, MOMENTUM, WEIGHT_DECAY = 0.05, 0.5, 4e-4


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, FILTERS[0], KERNEL)
        self.norm1 = nn.BatchNorm2d(FILTERS[0])
        self.conv2 = nn.Conv2d(FILTERS[0], FILTERS[1], KERNEL)
        self.norm2 = nn.BatchNorm2d(FILTERS[1])
        self.fc1 = nn.Linear(FILTERS[1], HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def batches(order):
    """Cut in sequence; a last batch of one sample joins the one before."""
    cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    if len(cut) > 1 and len(cut[-1]) == 1:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut


def train(model, x, y, orders):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    for order in orders:
        for batch in batches(order):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()


def average(states):
    total = sum(CLIENT_SIZES)
    mean = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        if first.is_floating_point():
            weighted = sum(v.double() * (n / total) for v, n in zip(values, CLIENT_SIZES))
            mean[name] = weighted.to(first.dtype)
        else:
            mean[name] = torch.stack(values).amax(0)
    return mean


def rounds(start, clients, orders, dtype):
    model = Cnn().to(dtype)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in start.items()}
    after = []
    for r in range(ROUNDS):
        updates = []
        for (x, y), client_orders in zip(clients, orders[r]):
            model.load_state_dict(state)
            train(model, x.to(dtype), y, client_orders)
            updates.append({k: v.clone() for k, v in model.state_dict().items()})
        state = average(updates)
        after.append(state)
    return after


def plain(state):
    return {name: {"shape": list(v.shape), "values": v.flatten().tolist()} for name, v in state.items()}


def main():
    torch.manual_seed(20240214)
    torch.set_num_threads(1)
    start = {k: v.clone() for k, v in Cnn().state_dict().items()}
    clients, orders = [], []
    for size in CLIENT_SIZES:
        # Multiples of 1/64 are short in JSON and exact in both precisions.
        clients.append((torch.round(torch.randn(size, CHANNELS, SIDE, SIDE) * 64) / 64, torch.randint(CLASSES, (size,))))
    for _ in range(ROUNDS):
        orders.append([[torch.randperm(n).tolist() for _ in range(EPOCHS)] for n in CLIENT_SIZES])
    document = {
        "channels": CHANNELS, "side": SIDE, "classes": CLASSES, "filters": FILTERS, "kernel": KERNEL, "hidden": HIDDEN,
        "batch_size": BATCH, "lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY,
        "start": plain(start),
        "clients": [{"x": x.flatten().tolist(), "y": y.tolist()} for x, y in clients],
        "orders": orders,
        "float64": [plain(s) for s in rounds(start, clients, orders, torch.float64)],
        "float32": [plain(s) for s in rounds(start, clients, orders, torch.float32)],
    }
    target = pathlib.Path(__file__).parent / "fedavg" / "reference.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
