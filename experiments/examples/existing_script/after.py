"""A training script as many are: it trains on one site's samples and prints how good the model is."""
import sys
from pathlib import Path

import headstart
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader_of(x, y, shuffle):
    return DataLoader(TensorDataset(torch.from_numpy(x).float() / 255, torch.from_numpy(y)), 32, shuffle=shuffle)


def train(model, loader, optimizer):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.05)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()


def balanced_accuracy(outputs, y):
    is_right = (outputs.argmax(1) == y).float()
    return float(torch.stack([is_right[y == label].mean() for label in y.unique()]).mean())


def test(model, loader):
    model.eval()
    with torch.no_grad():
        outputs, y = zip(*((model(x), y) for x, y in loader))
    return balanced_accuracy(torch.cat(outputs), torch.cat(y))


folder = Path(sys.argv[1])
x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
train_loader, test_loader = loader_of(x[100:], y[100:], True), loader_of(x[:100], y[:100], False)
torch.manual_seed(1)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
headstart.serve(headstart.TorchWorker(
    model, train_loader, held_out=test_loader, loop=train, metrics={"balanced_accuracy": balanced_accuracy},
    optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3)))
