#!/usr/bin/python3
"""Scripts that say what their head reads, for samples of 1 x 12 x 12 in 4 classes, and one that says it wrongly.

Usage: python3 tests/golden/named_heads.py    (writes tests/golden/named_heads/*.pt; the output is committed)
"""

import pathlib

import torch
from torch import nn

FEATURES, CLASSES = 12, 4


class Named(nn.Module):
    """As client/scripts.md has it."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(144, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, CLASSES)

    @torch.jit.export
    def features(self, x):
        return self.backbone(x)

    def forward(self, x):
        return self.head(self.features(x))


class Scaled(Named):
    """Its logits are not the head's."""

    def forward(self, x):
        return 2 * self.head(self.features(x))


class Narrow(Named):
    """Its features are not what the head reads."""

    @torch.jit.export
    def features(self, x):
        return self.backbone(x)[:, :3]

    def forward(self, x):
        return self.head(self.backbone(x))


def main():
    folder = pathlib.Path(__file__).with_suffix("")
    folder.mkdir(exist_ok=True)
    for kind in (Named, Scaled, Narrow):
        torch.manual_seed(7)
        torch.jit.script(kind()).save(str(folder / f"{kind.__name__}.pt"))


if __name__ == "__main__":
    main()
