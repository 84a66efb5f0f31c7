"""The program's own networks in PyTorch, with the same names of tensors. Sizes are those of the tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import HeadstartError
from .safetensors import Metadata, State
from .torch_worker import tensor_of

Shapes = Mapping[str, tuple[int, ...]]


class Loaded(nn.Module):
    """A model with what its file says of it. forward(x): logits [n, C] of samples that are ready for the model.
    features(x): what the last layer, `head`, reads."""

    metadata: Metadata

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def head(self) -> nn.Module:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits

    @property
    def classes(self) -> list[str]:
        """Names of the classes by label."""
        return _json_of(self.metadata, "classes")

    def prepared(self, stored: Any) -> Tensor:
        """Samples as a silo stores them (uint8 or float32, [n, ...]) as the model reads them."""
        values = np.asarray(stored)
        scale = _json_of(self.metadata, "scale").get(str(values.dtype))
        if scale is None:
            raise HeadstartError(f"the samples are {values.dtype}; the model knows those stored as "
                                 f"{' and '.join(_json_of(self.metadata, 'scale'))}", "data")
        shape = _json_of(self.metadata, "input_shape")
        if values[:1].size != math.prod(shape):
            raise HeadstartError(f"a sample has the shape {list(values.shape[1:])}; the model reads {shape}", "data")
        x = torch.from_numpy(values.astype(np.float32)).reshape(-1, *shape) / scale
        mean, deviation = (torch.tensor(_json_of(self.metadata, key), dtype=torch.float32).reshape(
            -1, *[1] * (len(shape) - 1)) for key in ("mean", "deviation"))
        return (x - mean) / deviation

    def predict(self, stored: Any, batch_size: int = 256) -> list[str]:
        """The class of each sample, by name."""
        device = next(self.parameters()).device
        was_training = self.training
        self.eval()
        with torch.no_grad():
            labels = [self(batch.to(device)).argmax(1).cpu() for batch in torch.split(self.prepared(stored), batch_size)]
        self.train(was_training)
        names = self.classes
        return [names[label] for label in torch.cat(labels).tolist()] if labels else []


class Cnn(Loaded):
    """Twice convolution, normalisation, pooling and ReLU; then a hidden and an output layer."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        for number in ("1", "2"):
            out, into, kernel, _ = shapes[f"conv{number}.weight"]
            setattr(self, f"conv{number}", nn.Conv2d(into, out, kernel))
            setattr(self, f"norm{number}", _norm(shapes, f"norm{number}", out))
        self.fc1, self.fc2 = _linear(shapes, "fc1"), _linear(shapes, "fc2")

    def features(self, x: Tensor) -> Tensor:
        stages: Any = ((self.conv1, self.norm1), (self.conv2, self.norm2))
        for convolution, norm in stages:
            x = torch.relu(torch.max_pool2d(norm(convolution(x)), 2))
        return torch.relu(self.fc1(x.flatten(1)))

    @property
    def head(self) -> nn.Module:
        return self.fc2


class _Block(nn.Module):
    def __init__(self, shapes: Shapes, at: str, stride: int) -> None:
        super().__init__()
        out, into, _, _ = shapes[at + "conv1.weight"]
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = _norm(shapes, at + "bn1", out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = _norm(shapes, at + "bn2", out)
        self.downsample: nn.Module = nn.Identity()
        if at + "downsample.0.weight" in shapes:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False),
                                            _norm(shapes, at + "downsample.1", out))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet18(Loaded):
    """ResNet-18 with the stem for small images."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, into, _, _ = shapes["conv1.weight"]
        self.conv1 = nn.Conv2d(into, width, 3, 1, 1, bias=False)
        self.bn1 = _norm(shapes, "bn1", width)
        for stage in (1, 2, 3, 4):
            setattr(self, f"layer{stage}", nn.Sequential(*(
                _Block(shapes, f"layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1) for block in (0, 1))))
        self.fc = _linear(shapes, "fc")

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        stages: Any = (self.layer1, self.layer2, self.layer3, self.layer4)
        for stage in stages:
            x = stage(x)
        return x.mean((2, 3))

    @property
    def head(self) -> nn.Module:
        return self.fc


class Mlp(Loaded):
    """Linear layers fc1, fc2, ..., each but the last with normalisation and ReLU."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._last = max(int(name[2:-7]) for name in shapes if name.startswith("fc") and name.endswith(".weight"))
        for number in range(1, self._last + 1):
            layer = _linear(shapes, f"fc{number}")
            self.add_module(f"fc{number}", layer)
            if number < self._last:
                self.add_module(f"norm{number}", _norm(shapes, f"norm{number}", layer.out_features, of_units=True))

    def features(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for number in range(1, self._last):
            x = torch.relu(self.get_submodule(f"norm{number}")(self.get_submodule(f"fc{number}")(x)))
        return x

    @property
    def head(self) -> nn.Module:
        return self.get_submodule(f"fc{self._last}")


class Linear(Loaded):
    """One layer: multinomial logistic regression."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.fc = _linear(shapes, "fc")

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    @property
    def head(self) -> nn.Module:
        return self.fc


class _SecondHead(nn.Module):
    """F, F, F / 2 and C units, ReLU between; reads what the first head reads."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (_linear(shapes, f"head2.fc{number}") for number in (1, 2, 3))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(features)))))
        return logits


NETWORKS: dict[str, type[Any]] = {"cnn": Cnn, "resnet18": ResNet18, "mlp": Mlp, "linear": Linear}


def loaded(state: State, metadata: Metadata, what: str) -> Loaded:
    """The network that `metadata` names, with these tensors; `what` names the file."""
    name = (metadata["architecture"].split() or [""])[0]
    if name not in NETWORKS:
        remedy = "torch.jit.load() its file, and load_state()" if name == "script" else "load_state() and your own module"
        raise HeadstartError(f"{what} is a model of '{name}', which load() does not build; it builds "
                             f"{', '.join(NETWORKS)}. Use {remedy}", "data")
    shapes = {tensor: array.shape for tensor, array in state.items()}
    try:
        network: Loaded = NETWORKS[name](shapes)
        if "head2.fc1.weight" in shapes:
            network.add_module("head2", _SecondHead(shapes))
        network.load_state_dict({tensor: tensor_of(array) for tensor, array in state.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise HeadstartError(f"{what} says that it is a {name}, and its tensors are not those of one: {error}",
                             "data") from None
    network.metadata = dict(metadata)
    return network.eval()


def _linear(shapes: Shapes, name: str) -> nn.Linear:
    out, into = shapes[name + ".weight"]
    return nn.Linear(into, out)


def _norm(shapes: Shapes, name: str, channels: int, of_units: bool = False) -> nn.Module:
    """Of a convolution's channels, or of a layer's units, which are one group."""
    if name + ".running_mean" in shapes:
        return nn.BatchNorm1d(channels) if of_units else nn.BatchNorm2d(channels)
    if name + ".weight" in shapes:
        return nn.GroupNorm(1 if of_units else math.gcd(channels, 32), channels)
    return nn.Identity()


def _json_of(metadata: Metadata, key: str) -> Any:
    if key not in metadata:
        raise HeadstartError(f"the model's file does not say its '{key}'; it was written by another program, or by an older "
                             "version of this one", "data")
    return json.loads(metadata[key])
