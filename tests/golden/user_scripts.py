"""TorchScript files as users write them, right and wrong, for samples [n, 1, 4, 4] in 3 classes; and what PyTorch makes of
the right ones in ten rounds of FedAvg.

Usage: python3 tests/golden/user_scripts.py            (writes tests/golden/user_scripts/*.pt and reference.json)
       python3 tests/golden/user_scripts.py --newer    (the same of a few, to tests/golden/user_scripts_newer; run it with
                                                        the PyTorch 2.6 of Debian 13)
"""

import json
import pathlib
import sys
from typing import Dict, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUNDS, BATCH, LR, MOMENTUM, DECAY = 10, 4, 0.02, 0.9, 1e-3
CLIENTS = (12, 8)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 8), nn.Linear(8, 3)

    def logits(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


# ---- right: what PyTorch computes is what counts


class EditsInput(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).mul_(2.0)
        return self.logits(x)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.view(-1).sub_(0.25)
        return x


class EditsInputInside(Plain):
    """A submodule edits a view of the input."""

    def __init__(self):
        super().__init__()
        self.centred = Centred()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.centred(x))


class Statistics(nn.Module):
    """Running statistics by assignment."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        m, v = self.mean, self.var
        if self.training:
            m, v = x.mean(0), x.var(0, unbiased=False)
            self.mean = 0.8 * self.mean + 0.2 * m.detach()
            self.var = 0.8 * self.var + 0.2 * v.detach()
            self.seen = self.seen + 1
        return (x - m) / torch.sqrt(v + 1e-5)


class ReassignsBuffers(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.8 * self.mean + 0.2 * x.mean(0)
        return self.logits(x - self.mean)


class ReassignsInside(Plain):
    """In a module of a list of a submodule."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Flatten(), nn.Sequential(Statistics())])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.logits(x)


class ReassignsView(Plain):
    """Its buffers become views: of the input, of another buffer, and one whose elements share memory."""

    def __init__(self):
        super().__init__()
        self.register_buffer("first", torch.zeros(16))
        self.register_buffer("part", torch.zeros(8))
        self.register_buffer("level", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.first = x[0]
            self.part = self.first[:8]
            self.level = x.mean().reshape(1).expand(16)
        return self.logits(x - 0.1 * self.first - self.level) + 0.1 * self.part.sum()


class Norm(nn.Module):
    """BatchNorm by hand, as older PyTorch counted its batches: by assignment."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(16))
        self.register_buffer("running_var", torch.ones(16))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        m, v = self.running_mean, self.running_var
        if self.training:
            m, v = x.mean(0), x.var(0, unbiased=False)
            self.running_mean = 0.9 * self.running_mean + 0.1 * m.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * v.detach()
            self.num_batches_tracked = self.num_batches_tracked + 1
        return (x - m) / torch.sqrt(v + 1e-5)


class ReassignedNorm(Plain):
    def __init__(self):
        super().__init__()
        self.norm = Norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.norm(x.flatten(1)))


class InfiniteMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.f = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        self.register_buffer("floor", torch.tensor([-1e9, 1e-12]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1)
        w = torch.softmax(self.q(x) @ x.transpose(1, 2) + self.mask, -1)
        return self.f((w @ x)[:, -1].clamp_min(self.floor[0])) + self.floor[1]


class ExpandedBuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.full((1,), 0.5).expand(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.flatten(1) + self.shift)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.relu(self.a(x.flatten(1)))))


class Levelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("level", torch.zeros(16))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.detach().mean(0)
            self.calls.add_(1)
        return self.linear(x - self.level)


class SharedModule(nn.Module):
    """One layer with running statistics under two names."""

    def __init__(self):
        super().__init__()
        self.first = Levelled()
        self.second = self.first
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.relu(self.first(x.flatten(1)))))


class ConvNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


class ConstantAttribute(Plain):
    """A plain tensor that nothing changes, and one that is kept for others to look at."""

    last: Optional[Tensor]

    def __init__(self):
        super().__init__()
        self.scale = torch.linspace(0.5, 1.5, 16)
        self.last = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) * self.scale
        self.last = x
        return self.logits(x)


def double(self, inputs: Tuple[Tensor], out: Tensor) -> Tensor:
    return 2 * out


class Hooked(Plain):
    """Its hook is part of every call."""

    def __init__(self):
        super().__init__()
        self.register_forward_hook(double)


# ---- wrong: refused




class HalfLogits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).half()


class BfloatLogits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).to(torch.bfloat16)


class DoubleLogits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).double()


class ComplexLogits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(self.logits(x), self.logits(x))


class IntegerLogits(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return (self.logits(x) * 1000).long()


class TupleInTraining(Plain):
    def forward(self, x: Tensor) -> Union[Tensor, Tuple[Tensor, Tensor]]:
        h = self.logits(x)
        if self.training:
            return (h, h)
        else:
            return h


class ListOutput(Plain):
    def forward(self, x: Tensor) -> List[Tensor]:
        return [self.logits(x)]


class Transposed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).t()


class SqueezesSingles(Plain):
    """Right for batches, not for one sample."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).squeeze()


class WrongSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(784, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.flatten(1))


class Raises(Plain):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) != 3:
            raise ValueError("colour images only")
        return self.logits(x)


class ReturnsInput(Plain):
    """No parameter has a part in it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


class Detached(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).detach()


class NanParameters(Plain):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.a.weight[0, 0] = float("nan")


class NotFinite(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x) / 0.0


class NanGradient(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x) + torch.sqrt(self.a.weight - self.a.weight).sum()


class AssignsAttribute(Plain):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.8 * self.mean + 0.2 * x.mean(0)
        return self.logits(x - self.mean)


def accumulate(total: Tensor, x: Tensor) -> Tensor:
    return total.view(-1).mul_(0.8).add_(x, alpha=0.2)


class EditsAttribute(Plain):
    """In place, in a function, through a view."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            accumulate(self.mean, x.mean(0))
        return self.logits(x - self.mean)


class Counts(Plain):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.logits(x) / (1 + self.steps)


class Remembers(Plain):
    history: List[Tensor]

    def __init__(self):
        super().__init__()
        self.history = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.history.append(x.mean())
        return self.logits(x) + len(self.history)


@torch.jit.script
class Tracker:
    def __init__(self):
        self.steps = 0

    def count(self) -> int:
        self.steps += 1
        return self.steps


class Tracks(Plain):
    """State in an object that is no module."""

    def __init__(self):
        super().__init__()
        self.tracker = Tracker()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.logits(x) / self.tracker.count()
        return self.logits(x)


class LazyBuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = x.mean(0)
        return self.logits(x)


class ChangesType(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 0.5
        return self.logits(x)


class Undetached(Plain):
    """The second step goes back through the first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x.flatten(1)))
        if self.training:
            self.mean = 0.8 * self.mean + 0.2 * h.mean(0)
        return self.b(h - self.mean)


class LearnsInEvaluation(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        self.mean.mul_(0.999999).add_(x.mean(0), alpha=0.000001)
        return self.logits(x - self.mean)


class NoiseInEvaluation(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x + torch.randn_like(x))


class AlwaysDrops(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x.flatten(1)), 0.01))


class InfiniteMinimum(Plain):
    """A changing buffer that stays infinite where nothing came."""

    def __init__(self):
        super().__init__()
        self.register_buffer("low", torch.full((17,), float("inf")))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.low[:16] = torch.minimum(self.low[:16], x.flatten(1).amin(0))
        return self.logits(x)


class ComplexBuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.ones(16, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits((x.flatten(1) * self.turns).real)


class ExpandedParameter(Plain):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1).expand(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.flatten(1) + self.shift)


class AssignsParameter(Plain):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.shift = self.shift * 0.9
        return self.logits(x.flatten(1) + self.shift)


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


# ---- odd: warned of


class Probabilities(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.logits(x), 1)


class Sigmoid(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))


class MixesSamples(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.logits(x - x.mean(0))


class OrderMatters(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x) + torch.arange(x.size(0)).unsqueeze(1)


class UnusedLayer(Plain):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(16, 3)


class TrainableAttribute(Plain):
    def __init__(self):
        super().__init__()
        self.gains: Dict[str, int] = {"a": 1}
        self.scale = torch.ones(16, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.flatten(1) * self.scale * self.gains["a"])


def regular(training: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 8),
                         nn.Dropout(0.5), nn.Linear(8, 3)).train(training)


class Attention(nn.Module):
    """Uses an operator that LibTorch has since 2.0."""

    def __init__(self):
        super().__init__()
        self.q, self.f = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1)
        return self.f(F.scaled_dot_product_attention(self.q(x), x, x)[:, -1])


RIGHT = [Plain, EditsInput, EditsInputInside, ReassignsBuffers, ReassignsInside, ReassignsView, ReassignedNorm,
         InfiniteMask, ExpandedBuffer, Tied, SharedModule, ConvNorm, ConstantAttribute, Hooked]
OTHERS = [HalfLogits, BfloatLogits, DoubleLogits, ComplexLogits, IntegerLogits, TupleInTraining, ListOutput, Transposed,
          SqueezesSingles, WrongSize, Raises, ReturnsInput, Detached, NanParameters, NotFinite, NanGradient,
          AssignsAttribute, EditsAttribute, Counts, Remembers, Tracks, LazyBuffer, ChangesType, Undetached, LearnsInEvaluation,
          NoiseInEvaluation, AlwaysDrops, InfiniteMinimum, ComplexBuffer, ExpandedParameter, AssignsParameter,
          NoParameters, Probabilities, Sigmoid, MixesSamples, OrderMatters, UnusedLayer, TrainableAttribute]
NEWER = [ReassignsInside, InfiniteMask, Tied, SharedModule, ConvNorm]


def samples(client: int) -> Tuple[Tensor, Tensor]:
    """By a formula, so that they need not be stored."""
    n = CLIENTS[client]
    i = torch.arange(n * 16)
    x = ((i * i % 97).double() / 97 - 0.4 + 0.1 * client).reshape(n, 1, 4, 4)
    return x.float(), (torch.arange(n) * 2 + client) % 3


def train(model, x: Tensor, y: Tensor):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    for begin in range(0, len(x), BATCH):
        optimizer.zero_grad()
        batch = slice(begin, begin + BATCH)
        F.cross_entropy(model(x[batch].clone()), y[batch]).backward()
        optimizer.step()


def own_buffers(model):
    """PyTorch cannot load into buffers whose elements share memory."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if 0 in buffer.stride():
                setattr(module, name, buffer.detach().clone(memory_format=torch.contiguous_format))


def reference(file: pathlib.Path) -> dict:
    model = torch.jit.load(str(file))
    own_buffers(model)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for _ in range(ROUNDS):
        updates = []
        for client in range(len(CLIENTS)):
            own_buffers(model)
            model.load_state_dict(state)
            train(model, *samples(client))
            updates.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        for name, tensor in state.items():
            if tensor.is_floating_point():
                total = sum(n * update[name].double() for n, update in zip(CLIENTS, updates))
                state[name] = (total / sum(CLIENTS)).to(tensor.dtype)
            else:
                state[name] = torch.stack([update[name] for update in updates]).amax(0)
    own_buffers(model)
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        logits = model(samples(0)[0].clone())
    numbers = lambda tensor: [float(f"{value:.8g}") for value in tensor.double().flatten().tolist()]
    # JSON has no infinity.
    finite = lambda tensor: tensor.nan_to_num(neginf=-1e30) if tensor.is_floating_point() else tensor
    return {"state": {name: {"shape": list(tensor.shape), "values": numbers(finite(tensor))}
                      for name, tensor in state.items()},
            "logits": numbers(logits)}


def main():
    newer = "--newer" in sys.argv[1:]
    folder = pathlib.Path(__file__).parent / ("user_scripts_newer" if newer else "user_scripts")
    folder.mkdir(exist_ok=True)
    right = NEWER if newer else RIGHT
    modules = {kind.__name__: kind for kind in right + ([Attention] if newer else OTHERS)}
    for name, kind in modules.items():
        torch.manual_seed(1)
        torch.jit.script(kind()).save(str(folder / f"{name}.pt"))
    if not newer:
        for name, training in {"TracedInTraining": True, "TracedInEvaluation": False}.items():
            torch.manual_seed(1)
            traced = torch.jit.trace(regular(training), torch.rand(2, 1, 4, 4), check_trace=False)
            traced.save(str(folder / f"{name}.pt"))
    results = {kind.__name__: reference(folder / f"{kind.__name__}.pt") for kind in right}
    (folder / "reference.json").write_text(json.dumps({"torch": torch.__version__, "models": results}) + "\n")


if __name__ == "__main__":
    main()
