"""Small TorchScript models, as a user would export them from PyTorch.

Usage: python3 tests/golden/scripted_models.py    (writes tests/golden/scripted/*.pt)
"""

import pathlib

import torch
import torch.nn.functional as F
from torch import nn


class Tied(nn.Module):
    """One weight under two names, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))


class Gated(nn.Module):
    """Its gate is what TorchScript's profiling executor differentiates in its own way."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.head((x * torch.sigmoid(x)).flatten(1))


class FunctionalDropout(nn.Module):
    """Draws in a free function, where no module shows it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(F.dropout(x.flatten(1), 0.5, self.training))


def main():
    torch.manual_seed(1)
    folder = pathlib.Path(__file__).parent / "scripted"
    folder.mkdir(exist_ok=True)
    models = {
        "batch_norm": nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        "dropout": nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
        "functional_dropout": FunctionalDropout(),
        "gated": Gated(),
        "tied": Tied(),
    }
    for name, model in models.items():
        torch.jit.script(model).save(str(folder / f"{name}.pt"))


if __name__ == "__main__":
    main()
