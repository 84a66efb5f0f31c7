"""A silo of imbalanced images: a model of its own, a loss with class weights, augmentation and a schedule."""
import sys
from pathlib import Path

import headstart
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Images(Dataset):
    """Grey images; shifted and mirrored at random where they are trained on."""

    def __init__(self, x, y, augments):
        self.x, self.y, self.augments = torch.from_numpy(x).float().unsqueeze(1) / 255, torch.from_numpy(y), augments

    def __len__(self):
        return len(self.y)

    def __getitem__(self, place):
        x = self.x[place]
        if self.augments:
            x = torch.roll(x, tuple(torch.randint(-2, 3, (2,)).tolist()), (1, 2))
            x = x.flip(2) if torch.rand(()) < 0.5 else x
        return x, self.y[place]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def features(self, x):
        return self.layers(x)

    def forward(self, x):
        return self.head(self.features(x))


def recall_of_rare(outputs, y):
    rare = (y == 2) | (y == 4) | (y == 6)
    return float((outputs.argmax(1) == y)[rare].float().mean()) if rare.any() else 0.0, float(rare.sum())


folder = Path(sys.argv[1])
x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
is_held_out = np.arange(len(y)) % 5 == 0
weights = 1 / np.sqrt(np.bincount(y[~is_held_out], minlength=10) + 10)
torch.manual_seed(1)
headstart.serve(headstart.TorchWorker(
    Net(), Images(x[~is_held_out], y[~is_held_out], True), held_out=Images(x[is_held_out], y[is_held_out], False),
    loss=nn.CrossEntropyLoss(weight=torch.tensor(weights / weights.mean(), dtype=torch.float32)),
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3), schedule=lambda epoch: 0.97**epoch,
    metrics={"recall_of_rare": recall_of_rare}))
