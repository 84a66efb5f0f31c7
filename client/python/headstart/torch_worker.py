"""A worker for a PyTorch module: rounds, pre-training, evaluation, answers and distillation, with the user's own data,
loss, optimiser, schedule and metrics where there are any."""

from __future__ import annotations

import contextlib
import importlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .errors import HeadstartError
from .safetensors import BFLOAT16, Array, State, is_bfloat16
from .seeds import Seed, held_out_split
from .terms import ConsolidationTerms, Optimiser, Terms
from .torch_data import ArraySamples, LoaderSamples, OwnBatches, Samples, SetSamples
from .worker import Brought, Evaluation, Pretrained, Task, Teacher, Worker, labels_of

Data = Union["DataLoader[Any]", "Dataset[Any]", tuple[Any, Any]]
"""Batches (x, y); samples (x, y); or arrays x [n, ...] and y [n]."""
Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], Union[float, tuple[float, float]]]

Loop = Callable[[nn.Module, Any, torch.optim.Optimizer], Any]

_EVALUATION_BATCH = 256  # headstart-client's, too


class TorchWorker(Worker):
    """A PyTorch module as a worker. What is not given follows the run's terms; a silo that gives nothing but arrays
    computes what headstart-client computes.

    model: answers a batch by logits [n, C]. Training happens where its parameters are. Where it has methods `features(x)`
        and `head(features)`, its features are these; else its logits stand for them.
    train, held_out: a DataLoader of batches (x, y), a Dataset of samples (x, y), or arrays (x, y). A worker at a server
        (`headstart-server --worker`) has neither. Without `held_out`
        the fraction `data.held_out` of the run is held out of a Dataset or of arrays; of a DataLoader nothing is.
        Arrays of uint8 are divided by 255, and arrays are normalised by the run's constants. Texts as labels are looked
        up in the run's classes.
    loss(outputs, y): the mean over a batch; cross-entropy by default.
    optimizer(parameters): a fresh optimiser for each round and each pre-training; by the terms by default.
    epochs: of a round, in place of the terms'.
    metrics: name -> metric(outputs [n, C], y [n]) over all held-out samples, on the CPU. It returns a value, or a value
        and its weight; by default the weight is the number of samples.
    loop(model, batches, optimizer): a pass over the batches, in place of one by the loss: the function of a script that
        there is. It takes gradients and steps as it likes, and batches report progress by themselves. FedProx and clipping
        of the run's terms are then its own business.
    schedule(epoch): a factor of the learning rates in that epoch. Epochs count from 0 over all rounds of the run; in
        pre-training and distillation they count by themselves.
    classes: names of the classes by label, to be held against the run's.
    examples: number of training samples, where a DataLoader does not know it."""

    def __init__(self, model: nn.Module, train: Data | None = None, *, held_out: Data | None = None,
                 loss: Loss | None = None, optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
                 epochs: int | None = None, metrics: Mapping[str, Metric] | None = None, loop: Loop | None = None,
                 schedule: Callable[[int], float] | None = None,
                 classes: Sequence[str] | None = None, examples: int | None = None) -> None:
        self.model = model
        self._given, self._given_held_out = train, held_out
        self._loss: Loss = loss or nn.functional.cross_entropy
        self._optimizer, self._epochs, self._schedule = optimizer, epochs, schedule
        self._metrics, self._loop = dict(metrics or {}), loop
        self._class_names = list(classes) if classes else None
        self._examples = examples
        self._terms = Terms()
        self._training: Samples
        self._held_out: Samples | None = None

    # ---- what it is

    def state(self) -> State:
        return {name: array_of(tensor) for name, tensor in self.model.state_dict().items()}

    def trained(self) -> set[str]:
        return {name for name, tensor in self.model.state_dict(keep_vars=True).items() if tensor.requires_grad}

    def tasks(self) -> list[str]:
        return super().tasks() if self._given is not None else ["logits", "backward"]

    def classes(self) -> int | None:
        if self._class_names or self._given is None:
            return len(self._class_names) if self._class_names else None
        x, _ = self._samples_of(self._given, Terms()).first()
        with torch.no_grad(), self._mode(training=False):
            return int(self._forward(_moved(x, self._device)).shape[-1])

    def restore(self, model: State) -> None:
        self._load(model)

    def join(self, terms: Terms, seed: Seed) -> Brought:
        self._terms = terms
        if self._given is None:
            return Brought(0, classes=self._class_names)
        remarks = []
        training = self._samples_of(self._given, terms, self._examples)
        if self._given_held_out is not None:
            self._held_out = self._samples_of(self._given_held_out, terms)
        elif terms.data.held_out > 0 and not isinstance(training, LoaderSamples):
            kept, held_out = held_out_split(training.labels(), terms.data.held_out, seed.child("held out"))
            training, self._held_out = training.part(kept), training.part(held_out)
        else:
            self._held_out = None
            if terms.data.held_out > 0:
                remarks.append("nothing is held out of a DataLoader, so this silo has no part in the evaluation; give "
                               "TorchWorker held_out=")
        if self._loop is not None and (terms.train.proximal_mu > 0 or terms.train.clip > 0):
            remarks.append("the run has train.proximal_mu or train.clip, which a loop of one's own does not follow")
        self._training = training
        examples = training.count()
        held_out_count = self._held_out.count() if self._held_out else 0
        shape = training.shape() or (self._held_out.shape() if self._held_out else None)
        return Brought(examples, held_out_count, self._class_names, shape, remarks)

    # ---- what it does

    def train(self, task: Task, model: State) -> State:
        terms = self._terms.train
        self._begin(task, model)
        received = [tensor_of(model[name]).to(parameter.device)
                    for name, parameter in self._parameters()] if terms.proximal_mu > 0 else []
        optimizer = self._new_optimizer(terms)
        epochs = self._epochs or terms.epochs
        first = (task.round - 1) * epochs if task.round > 0 else 0

        def correct_gradients() -> None:
            for (_, parameter), start in zip(self._parameters(), received):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start, alpha=terms.proximal_mu)
            if terms.clip > 0:
                self._clip(terms.clip)

        for epoch in range(epochs):
            self._set_rates(optimizer, first + epoch)
            self._pass(task, optimizer, terms.batch_size, epoch, epochs, correct_gradients)
        return self._finished()

    def pretrain(self, task: Task, model: State) -> Pretrained:
        terms = self._terms.pretrain
        self._begin(task, model)
        optimizer = self._new_optimizer(terms)
        best: Evaluation | None = None
        best_epoch = epoch = 0
        count = self._training.count()
        for epoch in range(1, terms.max_epochs + 1):
            self._set_rates(optimizer, epoch - 1)
            self._pass(task, optimizer, terms.batch_size, epoch - 1, terms.max_epochs)
            if self._held_out is None or self._held_out.count() == 0:
                continue
            now = self._judge(lambda: task.progress(epoch * count, terms.max_epochs * count))
            if best is None or now.is_better_than(best):
                best, best_epoch = now, epoch
                # Kept in the memory that the untrained model came in.
                for name, tensor in self.model.state_dict().items():
                    tensor_of(model[name]).copy_(tensor)
            if epoch - best_epoch >= terms.patience:
                break
        if best is None:
            return Pretrained(self._finished(), epoch, epoch)
        self._finished()
        return Pretrained(model, epoch, best_epoch)

    def evaluate(self, task: Task, model: State) -> Evaluation:
        self._load(model)
        if self._held_out is None or self._held_out.count() == 0:
            return Evaluation.of_none(self._num_classes())
        total, done = self._held_out.count(), 0
        outputs: list[Tensor] = []
        labels: list[Tensor] = []

        def keep(logits: Tensor, y: Tensor) -> None:
            nonlocal done
            done += len(y)
            task.progress(min(done, total), total)
            if self._metrics or task.scores:
                outputs.append(logits)
                labels.append(y)

        found = self._judge(keep=keep)
        for name, metric in self._metrics.items():
            value = metric(torch.cat(outputs), torch.cat(labels))
            found.own[name] = (float(value[0]), float(value[1])) if isinstance(value, tuple) else (
                float(value), float(found.samples))
        if task.scores:
            found.scored = (torch.cat(outputs).float().cpu().numpy(), torch.cat(labels).cpu().numpy())
        return found

    def logits(self, task: Task, model: State, samples: Array) -> Array:
        if not task.training:
            self._load(model)
            return self._answers(task, self._batches_of_array(samples), len(samples), self._forward)
        self._begin(task, model)
        with torch.no_grad(), self._mode(training=True):
            return self._forward(torch.from_numpy(samples).to(self._device)).float().cpu().numpy()

    def backward(self, task: Task, model: State, samples: Array, gradient: Array) -> State:
        self._begin(task, model)
        with self._mode(training=task.training):
            outputs: Any = self._forward(torch.from_numpy(samples).to(self._device))
            outputs.backward(torch.from_numpy(gradient).to(self._device))
        found = {name: parameter.grad for name, parameter in self.model.state_dict(keep_vars=True).items()
                 if parameter.requires_grad}
        state = self._finished()  # lets go of the gradients, which `found` keeps
        for name, one in found.items():
            state[name] = np.zeros_like(state[name]) if one is None else array_of(one)
        return state

    def features(self, task: Task, model: State, samples: Array | None) -> Array:
        self._load(model)
        shown: Any = getattr(self.model, "features", None) if hasattr(self.model, "head") else None
        shown = shown or self._forward
        if samples is not None:
            return self._answers(task, self._batches_of_array(samples), len(samples), shown)
        return self._answers(task, (x for x, _ in self._training.ordered(_EVALUATION_BATCH)), self._training.count(),
                             shown)

    def distill(self, task: Task, student: State, teachers: Sequence[Teacher], weights: Array) -> State:
        from .distillation import Guide, require_known

        terms = self._terms.consolidation
        require_known(terms)
        guide = Guide(terms, task.temperature, torch.from_numpy(np.array(weights, np.float64)).to(self._device))
        targets: Tensor | None = None
        epochs, count = terms.epochs, self._training.count()
        asked = 0
        if isinstance(self._training, ArraySamples):
            # The same samples in each epoch: their teachers are asked once, each in the model's own place.
            answers = []
            for number, teacher in enumerate(teachers):
                self._load(teacher.state)
                answers.append(torch.from_numpy(self._answers(
                    task, (x for x, _ in self._training.ordered(_EVALUATION_BATCH)), count, self._forward,
                    before=number * count, total=count * (len(teachers) + epochs))))
            targets = guide.targets(torch.stack(answers).to(self._device), [teacher.owner for teacher in teachers])
            asked = len(teachers)
        self._begin(task, student)
        optimizer = _optimizer_of(terms, [parameter for _, parameter in self._parameters()])
        own = [] if targets is not None else [
            {name: tensor_of(array).to(self._device) for name, array in teacher.state.items()} for teacher in teachers]

        def loss_of(x: Any, y: Tensor, rows: Tensor | None) -> Tensor:
            if targets is not None and rows is not None:
                target = targets.index_select(0, rows)
            else:
                target = guide.targets(self._asked(own, x), [teacher.owner for teacher in teachers])
            outputs = self._forward(x)
            return (1 - task.alpha) * self._loss(outputs, y) + task.alpha * guide.term(outputs, target)

        for epoch in range(epochs):
            self._set_rates(optimizer, epoch)
            self._epoch(task, optimizer, loss_of, terms.batch_size, epoch, epochs, before=asked)
        return self._finished()

    # ---- what a subclass may change

    def compute_loss(self, x: Any, y: Tensor, rows: Tensor | None = None) -> Tensor:
        """The loss of a batch, on the model's device: a scalar. rows: places of the samples among the training samples,
        where these are a Dataset or arrays."""
        return self._loss(self._forward(x), y)

    # ---- private

    @property
    def _device(self) -> torch.device:
        first = next(iter(self.model.parameters()), None)
        return torch.device("cpu") if first is None else first.device

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def _samples_of(self, data: Data, terms: Terms, examples: int | None = None) -> Samples:
        if isinstance(data, DataLoader):
            return LoaderSamples(data, examples)
        if isinstance(data, Dataset):
            return SetSamples(data)
        if isinstance(data, (tuple, list)) and len(data) == 2:
            x, y = data
            labels = y.cpu().numpy() if isinstance(y, Tensor) else y
            return ArraySamples.of(x, labels_of(labels, terms.samples.classes), terms, self._device)
        raise HeadstartError(f"TorchWorker was given samples as {type(data).__name__}; expected is a DataLoader, a Dataset "
                             "or a pair of arrays (x, y)")

    def _num_classes(self) -> int:
        return self._terms.task.classes or self.classes() or 0

    def _begin(self, task: Task, model: State) -> None:
        """Everything that draws at random begins at the task's seed."""
        torch.manual_seed(task.seed.value & (2**63 - 1))
        np.random.seed(task.seed.low)
        random.seed(task.seed.value)
        self._load(model)

    def _load(self, model: State) -> None:
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(tensor_of(model[name]))

    def _finished(self) -> State:
        for parameter in self.model.parameters():
            parameter.grad = None
        return self.state()

    def _forward(self, x: Any) -> Tensor:
        precision = self._terms.run.precision
        if precision == "float32":
            return self.model(x)
        autocast: Any = getattr(torch, "autocast")
        with autocast(self._device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.model(x)
        return outputs.float()

    @contextlib.contextmanager
    def _mode(self, training: bool) -> Any:
        before = self.model.training
        self.model.train(training)
        try:
            yield
        finally:
            self.model.train(before)

    def _new_optimizer(self, terms: Optimiser) -> torch.optim.Optimizer:
        parameters = [parameter for _, parameter in self._parameters()]
        return self._optimizer(parameters) if self._optimizer else _optimizer_of(terms, parameters)

    def _set_rates(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        if self._schedule is None:
            return
        factor = self._schedule(epoch)
        for group in optimizer.param_groups:
            group.setdefault("headstart_lr", group["lr"])
            group["lr"] = group["headstart_lr"] * factor

    def _clip(self, limit: float) -> None:
        """As torch.nn.utils.clip_grad_norm_ computes it, but that a smaller gradient stays as it is."""
        gradients: list[Any] = [parameter.grad for _, parameter in self._parameters() if parameter.grad is not None]
        norms: Any = torch.stack([gradient.norm() for gradient in gradients]) if gradients else torch.zeros(1)
        norm = float(norms.norm())
        if norm > limit:
            for gradient in gradients:
                gradient.mul_(limit / (norm + 1e-6))

    def _pass(self, task: Task, optimizer: torch.optim.Optimizer, batch_size: int, epoch: int, epochs: int,
              correct_gradients: Callable[[], None] | None = None) -> None:
        """One pass by the loss, or by the user's own loop."""
        if self._loop is None:
            self._epoch(task, optimizer, self.compute_loss, batch_size, epoch, epochs, correct_gradients)
            return
        self.model.train()
        self._loop(self.model, OwnBatches(self._training, task, epoch, epochs, batch_size), optimizer)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise _diverged(f"epoch {epoch + 1} leaves parameters that are not finite")

    def _epoch(self, task: Task, optimizer: torch.optim.Optimizer,
               loss_of: Callable[[Any, Tensor, Tensor | None], Tensor], batch_size: int, epoch: int, epochs: int,
               correct_gradients: Callable[[], None] | None = None, before: int = 0) -> None:
        """One pass. before: passes of the task that were not epochs (asking teachers)."""
        self.model.train()
        count = self._training.count()
        losses = torch.zeros((), dtype=torch.float64, device=self._device)
        seen = 0
        batches = self._training.epoch(task.seed.child(epoch), batch_size)
        for x, y, rows in task.batches(batches, (before + epochs) * count, (before + epoch) * count,
                                       size=lambda batch: len(batch[1])):
            x, y = _moved(x, self._device), y.to(self._device)
            optimizer.zero_grad(set_to_none=True)
            loss: Any = loss_of(x, y, None if rows is None else rows.to(self._device))
            loss.backward()
            if correct_gradients is not None:
                with torch.no_grad():
                    correct_gradients()
            optimizer.step()
            losses += loss.detach().double() * len(y)
            seen += len(y)
        if seen == 0:
            raise HeadstartError("the training data have no batches; look at batch_size and drop_last", "data")
        mean = float(losses) / seen
        if not math.isfinite(mean):
            raise _diverged(f"the mean loss of epoch {epoch + 1} is {mean}")

    def _judge(self, tell: Callable[[], None] = lambda: None,
               keep: Callable[[Tensor, Tensor], None] | None = None) -> Evaluation:
        """Counts on the held-out samples. Tells after each batch, or hands its logits and labels over."""
        assert self._held_out is not None
        classes = self._num_classes()
        found = Evaluation.of_none(classes)
        with torch.no_grad(), self._mode(training=False):
            for x, y in self._held_out.ordered(_EVALUATION_BATCH):
                logits, labels = self._forward(_moved(x, self._device)).float().cpu(), y.cpu()
                found.add(Evaluation.of(logits.numpy(), labels.numpy(), classes))
                keep(logits, labels) if keep else tell()
        return found

    def _batches_of_array(self, samples: Array) -> Iterable[Tensor]:
        whole = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        return (whole[begin:begin + _EVALUATION_BATCH] for begin in range(0, max(1, len(whole)), _EVALUATION_BATCH))

    def _answers(self, task: Task, batches: Iterable[Any], count: int, compute: Callable[[Any], Tensor],
                 before: int = 0, total: int | None = None) -> Array:
        found = []
        with torch.no_grad(), self._mode(training=False):
            for x in task.batches(batches, count if total is None else total, before):
                found.append(compute(_moved(x, self._device)).float().cpu())
        return torch.cat(found).numpy()

    def _asked(self, teachers: Sequence[Mapping[str, Tensor]], x: Any) -> Tensor:
        """What teachers answer to a batch: [K, n, C]. Their tensors stand in for the model's own, which stay."""
        with torch.no_grad(), self._mode(training=False):
            return torch.stack([_call_with(self.model, teacher, x).float() for teacher in teachers])


def _diverged(how: str) -> HeadstartError:
    return HeadstartError(f"training diverged: {how}; look for values that are not finite in the data, or lower the "
                          "learning rate", "training")


def _optimizer_of(terms: Optimiser, parameters: Any) -> torch.optim.Optimizer:
    if terms.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=terms.lr, weight_decay=terms.weight_decay)
    if terms.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=terms.lr, momentum=terms.momentum, weight_decay=terms.weight_decay)
    raise HeadstartError(f"the run asks for the optimiser '{terms.optimizer}'; this worker knows sgd and adam")


def _call_with(model: nn.Module, tensors: Mapping[str, Tensor], x: Any) -> Tensor:
    """The module's answer with these tensors in place of its own."""
    place = "torch.func" if hasattr(torch, "func") else "torch.nn.utils.stateless"  # before 2.0
    call: Any = importlib.import_module(place)
    return call.functional_call(model, dict(tensors), (x,))


def _moved(x: Any, device: torch.device) -> Any:
    if isinstance(x, Tensor):
        return x.to(device)
    if isinstance(x, dict):
        return {key: _moved(value, device) for key, value in x.items()}
    if isinstance(x, (tuple, list)):
        return type(x)(_moved(value, device) for value in x)
    return x


def array_of(tensor: Tensor) -> Array:
    """A view of a CPU tensor's memory; of others a copy."""
    here = tensor.detach().cpu().contiguous()
    if here.dtype == torch.bfloat16:
        return here.view(torch.int16).numpy().view(BFLOAT16)
    return here.numpy()


def tensor_of(array: Array) -> Tensor:
    """A view of an array's memory."""
    if is_bfloat16(array):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
