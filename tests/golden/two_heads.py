#!/usr/bin/python3
"""Scripts that return more than one tensor, for samples of 1 x 12 x 12 in 4 classes.

Usage: python3 tests/golden/two_heads.py    (writes tests/golden/two_heads/*.pt; the output is committed)
"""

import pathlib

import torch
from torch import nn

FEATURES, CLASSES = 12, 4


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(144, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())
        self.head1 = nn.Linear(FEATURES, CLASSES)
        self.head2 = nn.Linear(FEATURES, CLASSES)


class Pair(Base):
    """As client/scripts.md has it."""

    def forward(self, x):
        features = self.backbone(x)
        return self.head1(features), self.head2(features)


class Unnamed(nn.Module):
    """Its second head has another name."""

    def __init__(self):
        super().__init__()
        self.pair = Pair()

    def forward(self, x):
        return self.pair(x)


class Three(Base):
    def forward(self, x):
        features = self.backbone(x)
        return self.head1(features), self.head2(features), features


class Wide(Base):
    """Features where the second logits belong."""

    def forward(self, x):
        features = self.backbone(x)
        return self.head1(features), torch.relu(features + self.head2(features).mean())


class Sum(Base):
    """One answer, of two parts."""

    def forward(self, x):
        features = self.backbone(x)
        return self.head1(features) + self.head2(features)


def main():
    torch.manual_seed(1)
    folder = pathlib.Path(__file__).parent / "two_heads"
    folder.mkdir(exist_ok=True)
    for model in (Pair(), Unnamed(), Three(), Wide(), Sum()):
        torch.jit.script(model).save(str(folder / f"{type(model).__name__}.pt"))


if __name__ == "__main__":
    main()
