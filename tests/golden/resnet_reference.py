"""Logits of a CIFAR ResNet-18 with torchvision's tensor names, its weights given by a formula that both programs know.

Usage: python3 tests/golden/resnet_reference.py    (writes tests/golden/resnet/reference.json)
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, CLASSES = 8, 10


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet18(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = norm(WIDTH)
        inputs = WIDTH
        for stage in range(4):
            outputs = WIDTH << stage
            layer = nn.Sequential(
                Block(inputs, outputs, 1 if stage == 0 else 2, norm), Block(outputs, outputs, 1, norm))
            setattr(self, f"layer{stage + 1}", layer)
            inputs = outputs
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def wave(shape, phase):
    """sin(0.7 i + phase), element by element, in float64."""
    n = math.prod(shape)
    return torch.sin(torch.arange(n, dtype=torch.float64) * 0.7 + phase).reshape(shape)


def fill(model):
    """Tensor t in order of its name: a small wave of phase t; norm weights and variances around 1."""
    for t, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        around = 1.0 if tensor.dim() == 1 and (name.endswith("weight") or name.endswith("running_var")) else 0.0
        tensor.copy_(around + 0.1 * wave(tensor.shape, t))


def logits_of(norm):
    model = ResNet18(norm)
    with torch.no_grad():
        fill(model)
        x = wave((3, 3, 32, 32), 0.5).float()
        evaluation = model.eval()(x)
        training = model.train()(x)
    return {"names": sorted(model.state_dict()), "evaluation": evaluation.tolist(), "training": training.tolist()}


def main():
    torch.set_num_threads(1)
    document = {
        "width": WIDTH,
        "batch": logits_of(nn.BatchNorm2d),
        "group": logits_of(lambda channels: nn.GroupNorm(math.gcd(channels, 32), channels)),
    }
    target = pathlib.Path(__file__).parent / "resnet" / "reference.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
