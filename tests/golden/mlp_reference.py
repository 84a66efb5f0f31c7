"""Logits of mlp and linear as plain torch.nn.Sequential modules, their weights given by a formula that both programs know.

Usage: python3 tests/golden/mlp_reference.py    (writes tests/golden/mlp/reference.json)
"""

import json
import pathlib
from collections import OrderedDict

import torch
from torch import nn

from resnet_reference import fill, wave

SHAPE, LAYERS, CLASSES = (2, 3), (6, 4), 3
NORMS = {"none": lambda units: [], "batch": lambda units: [nn.BatchNorm1d(units)], "group": lambda units: [nn.LayerNorm(units)]}


def mlp(norm):
    modules, size = OrderedDict(flatten=nn.Flatten()), SHAPE[0] * SHAPE[1]
    for number, units in enumerate(LAYERS, 1):
        modules[f"fc{number}"] = nn.Linear(size, units)
        modules.update({f"norm{number}": module for module in NORMS[norm](units)})
        modules[f"relu{number}"] = nn.ReLU()
        size = units
    modules[f"fc{len(LAYERS) + 1}"] = nn.Linear(size, CLASSES)
    return nn.Sequential(modules)


def linear():
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(SHAPE[0] * SHAPE[1], CLASSES)))


def logits_of(model):
    with torch.no_grad():
        fill(model)
        x = 3 * wave((5, *SHAPE), 0.5).float()
        evaluation = model.eval()(x)
        training = model.train()(x)
    return {"names": sorted(model.state_dict()), "evaluation": evaluation.tolist(), "training": training.tolist()}


def main():
    torch.set_num_threads(1)
    document = {norm: logits_of(mlp(norm)) for norm in NORMS}
    document["linear"] = logits_of(linear())
    target = pathlib.Path(__file__).parent / "mlp" / "reference.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
