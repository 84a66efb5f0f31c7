"""PyTorch workers: the same numbers as the C++ trainer from the same seeds, the formulas of distillation, and what a
trial of a worker finds."""

import contextlib
import io
import json
import math
import socket
import struct
import threading
import tracemalloc
import unittest
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import headstart
from headstart import safetensors, seeds
from headstart.distillation import Guide
from headstart.serving import Connection, converse
from headstart.terms import ConsolidationTerms
from headstart.torch_data import order_of
from headstart.worker import Task, Teacher

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def tensor_of(numbers, dtype=torch.float64):
    return torch.tensor(numbers["values"], dtype=dtype).reshape(numbers["shape"])


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, classes)

    def features(self, x):
        return torch.relu(self.norm(self.body(x)))

    def forward(self, x):
        return self.head(self.features(x))


def new_net():
    torch.manual_seed(1)
    return Net()


def blobs(count, seed=0):
    draws = numpy.random.RandomState(seed)
    y = numpy.arange(count) % 3
    return (draws.standard_normal((count, 4)) + 2 * numpy.eye(3, 4)[y]).astype("f4"), y


def copied(state):
    return {name: numpy.array(array) for name, array in state.items()}


def joined(worker, seed=5, **terms):
    terms = {"task.classes": 3, "data.held_out": 0.0, **{key.replace("__", "."): value for key, value in terms.items()}}
    worker.join(headstart.Terms.of(terms), headstart.Seed(seed))
    return worker


def task(worker, kind, seed=3, **more):
    return Task(kind, worker._terms, headstart.Seed(seed), **more)


class Orders(unittest.TestCase):
    def test_streams_are_those_of_the_trainer(self):
        vectors = golden("order_vectors.json")
        for one in vectors["children"]:
            self.assertEqual(headstart.Seed(one["seed"]).child(one["label"]).value, one["child"])
        place = vectors["silo"]
        silo = headstart.Seed(place["run"]).child("client").child(place["name"])
        train = silo.child("train").child(place["round"])
        self.assertEqual(train.value, place["seed"])
        for one in vectors["orders"]:
            for epoch, order in enumerate(one["epochs"]):
                self.assertEqual(headstart.permutation(one["size"], train.child(epoch)).tolist(), order)
                self.assertEqual(order_of(one["size"], train.child(epoch)).tolist(), order)
        for one in vectors["held_out"]:
            kept, held_out = headstart.held_out_split(numpy.array(one["labels"]), one["fraction"], silo.child("held out"))
            self.assertEqual(held_out.tolist(), one["held_out"])
            self.assertEqual(sorted([*kept.tolist(), *one["held_out"]]), list(range(len(one["labels"]))))

    def test_a_last_batch_of_one_is_joined(self):
        def lengths(size, batch_size):
            return [len(batch) for batch in seeds.batches_of(numpy.arange(size), batch_size)]

        self.assertEqual([lengths(21, 10), lengths(20, 10), lengths(22, 10), lengths(1, 10), lengths(11, 10), lengths(3, 1)],
                         [[10, 11], [10, 10], [10, 10, 2], [1], [11], [1, 1, 1]])


class Rounds(unittest.TestCase):
    def test_three_rounds_are_those_that_the_trainer_is_held_against(self):
        reference = golden("fedavg/reference.json")
        channels, side, filters = reference["channels"], reference["side"], reference["filters"]

        class Cnn(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1, self.norm1 = nn.Conv2d(channels, filters[0], reference["kernel"]), nn.BatchNorm2d(filters[0])
                self.conv2, self.norm2 = nn.Conv2d(filters[0], filters[1], reference["kernel"]), nn.BatchNorm2d(filters[1])
                self.fc1 = nn.Linear(filters[1], reference["hidden"])
                self.fc2 = nn.Linear(reference["hidden"], reference["classes"])

            def forward(self, x):
                for layers in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
                    x = torch.max_pool2d(torch.relu(layers[1](layers[0](x))), 2)
                return self.fc2(torch.relu(self.fc1(x.flatten(1))))

        class Given:
            """The order of each epoch, in batches."""

            def __init__(self, orders):
                self.orders = iter(orders)

            def __iter__(self):
                order = numpy.array(next(self.orders))
                return iter([batch.tolist() for batch in seeds.batches_of(order, reference["batch_size"])])

        state = {name: tensor_of(value, torch.int64 if name.endswith("tracked") else torch.float32).numpy()
                 for name, value in reference["start"].items()}
        workers = []
        for number, client in enumerate(reference["clients"]):
            x = torch.tensor(client["x"]).reshape(-1, channels, side, side)
            orders = [order for of_round in reference["orders"] for order in of_round[number]]
            loader = DataLoader(TensorDataset(x, torch.tensor(client["y"])), batch_sampler=Given(orders))
            workers.append(joined(headstart.TorchWorker(Cnn(), loader), train__lr=reference["lr"], task__classes=4,
                                  train__momentum=reference["momentum"], train__weight_decay=reference["weight_decay"]))
        sizes = [len(client["y"]) for client in reference["clients"]]
        for number, expected in enumerate(reference["float32"]):
            updates = [worker.train(task(worker, "train", round=number + 1), copied(state)) for worker in workers]
            state = {name: (sum(update[name].astype("f8") * size for update, size in zip(updates, sizes)) / sum(sizes))
                     .astype(array.dtype) if array.dtype == numpy.float32
                     else numpy.max([update[name] for update in updates], 0) for name, array in state.items()}
            for name, array in state.items():
                numpy.testing.assert_allclose(array, tensor_of(expected[name]).numpy(), rtol=0, atol=1e-5, err_msg=name)

    def test_arrays_a_dataset_and_plain_pytorch_agree(self):
        x, y = blobs(41)
        terms = {"train__lr": 0.1, "train__momentum": 0.9, "train__batch_size": 8, "train__proximal_mu": 0.5,
                 "train__clip": 0.7, "train__epochs": 2}
        net = new_net()
        received = [parameter.detach().clone() for parameter in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=4e-4)
        for epoch in range(2):
            order = torch.tensor(headstart.permutation(41, headstart.Seed(3).child(epoch)).tolist())
            for batch in (order[0:8], order[8:16], order[16:24], order[24:32], order[32:41]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(torch.from_numpy(x)[batch]), torch.from_numpy(y)[batch]).backward()
                for parameter, start in zip(net.parameters(), received):
                    parameter.grad += 0.5 * (parameter.detach() - start)
                nn.utils.clip_grad_norm_(net.parameters(), 0.7)
                optimizer.step()
        expected = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
        pairs = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        for data in ((x, y), (torch.from_numpy(x), torch.from_numpy(y)), pairs):
            worker = joined(headstart.TorchWorker(new_net(), data), **terms)
            after = worker.train(task(worker, "train", round=1), copied(worker.state()))
            for name, array in after.items():
                numpy.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6, err_msg=name)

    def test_stored_values_are_scaled_and_normalised_as_the_client_does_it(self):
        seen = []

        class Sees(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(8, 2)

            def forward(self, x):
                seen.append(x)
                return self.head(x.flatten(1))

        x = numpy.arange(24, dtype="u1").reshape(3, 2, 4)
        worker = joined(headstart.TorchWorker(Sees(), (x, [0, 1, 0]), held_out=(x, [0, 1, 0])), task__classes=2,
                        task__shape=[2, 2, 2], samples__mean=[0.5, 0.25], samples__deviation=[2.0, 4.0])
        worker.evaluate(task(worker, "evaluate"), copied(worker.state()))
        scaled = torch.from_numpy(x).reshape(3, 2, 2, 2) / 255
        expected = torch.stack([(scaled[:, 0] - 0.5) / 2, (scaled[:, 1] - 0.25) / 4], 1)
        torch.testing.assert_close(seen[0], expected)
        with self.assertRaisesRegex(headstart.HeadstartError, "of 3 and 3 channels, the samples here have 2"):
            joined(headstart.TorchWorker(Sees(), (x, [0, 1, 0])), samples__mean=[0.0] * 3, samples__deviation=[1.0] * 3)

    def test_held_out_samples_are_the_clients_own(self):
        x, y = blobs(50)
        worker = headstart.TorchWorker(new_net(), (x, y))
        brought = worker.join(headstart.Terms.of({"task.classes": 3, "data.held_out": 0.2}), headstart.Seed(9))
        kept, held_out = headstart.held_out_split(y, 0.2, headstart.Seed(9).child("held out"))
        self.assertEqual((brought.examples, brought.held_out, brought.shape), (40, 10, [4]))
        found = worker.evaluate(task(worker, "evaluate"), copied(worker.state()))
        self.assertEqual(found.total, numpy.bincount(y[held_out]).tolist())
        loader = headstart.TorchWorker(new_net(), DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), 5))
        brought = loader.join(headstart.Terms.of({"task.classes": 3}), headstart.Seed(9))
        self.assertEqual((brought.examples, brought.held_out), (50, 0))
        self.assertIn("nothing is held out of a DataLoader", brought.remarks[0])
        self.assertEqual(loader.evaluate(task(loader, "evaluate"), copied(loader.state())).total, [0, 0, 0])

    def test_own_loss_optimiser_epochs_schedule_and_metrics_are_used(self):
        x, y = blobs(30)
        rates = []

        class Recorded(torch.optim.SGD):
            def step(self, closure=None):
                rates.append(self.param_groups[0]["lr"])
                return super().step(closure)

        def loss(outputs, labels):
            return nn.functional.cross_entropy(outputs, labels, weight=torch.tensor([1.0, 2.0, 3.0]))

        worker = joined(headstart.TorchWorker(
            new_net(), (x, y), held_out=blobs(12, 1), loss=loss, epochs=3, schedule=lambda epoch: 0.5**epoch,
            optimizer=lambda parameters: Recorded(parameters, lr=0.8),
            metrics={"sum": lambda outputs, labels: float(labels.sum()), "pair": lambda outputs, labels: (0.25, 2)}),
            train__batch_size=30)
        start = copied(worker.state())
        after = worker.train(task(worker, "train", round=2), copied(start))
        # Epochs count over the rounds: the second round begins at epoch 3.
        self.assertEqual(rates, [0.8 * 0.5**3, 0.8 * 0.5**4, 0.8 * 0.5**5])
        found = worker.evaluate(task(worker, "evaluate"), after)
        self.assertEqual(found.own, {"sum": (12.0, 12.0), "pair": (0.25, 2.0)})
        plain = joined(headstart.TorchWorker(new_net(), (x, y), epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)),
                       train__batch_size=30)
        weighted = joined(headstart.TorchWorker(new_net(), (x, y), epochs=1, loss=loss,
                                                optimizer=lambda p: torch.optim.SGD(p, lr=0.1)), train__batch_size=30)
        states = [copied(one.train(task(one, "train", round=1), copied(start))) for one in (plain, weighted)]
        self.assertFalse(numpy.allclose(states[0]["head.bias"], states[1]["head.bias"]))

    def test_a_loop_of_ones_own_trains_as_the_loss_does(self):
        x, y = blobs(41)
        pairs = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        lengths = []

        def loop(model, batches, optimizer):
            lengths.append(len(batches))
            for place, (inputs, labels) in enumerate(batches):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()

        for data, batches in (((x, y), 5), (pairs, 5), (DataLoader(pairs, 9, shuffle=True), 5)):
            states, reports = [], []
            for own in (None, loop):
                worker = joined(headstart.TorchWorker(new_net(), data, loop=own), train__batch_size=8)
                done = task(worker, "train", round=1, report=lambda *done: reports.append(done))
                states.append(copied(worker.train(done, copied(worker.state()))))
            for name, array in states[0].items():
                numpy.testing.assert_array_equal(array, states[1][name], err_msg=name)
            self.assertEqual(lengths, [batches] * 2)
            self.assertEqual(reports[:len(reports) // 2], reports[len(reports) // 2:])
            lengths.clear()
        worker = headstart.TorchWorker(new_net(), (x, y), loop=lambda model, *_: model.head.weight.data.fill_(math.nan))
        brought = worker.join(headstart.Terms.of({"task.classes": 3, "train.clip": 1.0}), headstart.Seed(1))
        self.assertIn("train.clip, which a loop of one's own does not follow", brought.remarks[0])
        with self.assertRaisesRegex(headstart.HeadstartError, "epoch 1 leaves parameters that are not finite"):
            worker.train(task(worker, "train", round=1), copied(worker.state()))

    def test_random_layers_and_shuffled_loaders_repeat_from_the_seed_alone(self):
        x, y = blobs(40)
        pairs = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        for loader in (DataLoader(pairs, 8, shuffle=True),
                       DataLoader(pairs, 8, shuffle=True, generator=torch.Generator().manual_seed(1))):
            net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
            worker = joined(headstart.TorchWorker(net, loader))
            start = copied(worker.state())
            states = []
            for seed in (3, 3, 4):
                torch.rand(7)  # what others draw changes nothing
                states.append(copied(worker.train(task(worker, "train", seed, round=1), copied(start))))
            numpy.testing.assert_array_equal(states[0]["0.weight"], states[1]["0.weight"])
            self.assertFalse(numpy.array_equal(states[0]["0.weight"], states[2]["0.weight"]))

    def test_training_that_diverges_says_so(self):
        x, y = blobs(30)
        x[3, 2] = math.nan
        worker = joined(headstart.TorchWorker(nn.Linear(4, 3), (x, y)))
        with self.assertRaisesRegex(headstart.HeadstartError, "training diverged: the mean loss of epoch 1 is nan"):
            worker.train(task(worker, "train", round=1), copied(worker.state()))

    def test_bfloat16_models_travel(self):
        x, y = blobs(20)
        worker = joined(headstart.TorchWorker(nn.Linear(4, 3).to(torch.bfloat16), (torch.from_numpy(x).bfloat16(), y)))
        state = copied(worker.state())
        self.assertTrue(safetensors.is_bfloat16(state["weight"]))
        before = worker.model.weight.detach().clone()
        with torch.no_grad():
            worker.model.weight.zero_()
        worker.restore(state)
        self.assertTrue(torch.equal(worker.model.weight, before))


class Pretraining(unittest.TestCase):
    def test_it_keeps_the_best_epoch_and_stops_after_patience(self):
        x, y = blobs(60)
        held_out = blobs(30, 1)
        worker = joined(headstart.TorchWorker(new_net(), (x, y), held_out=held_out), pretrain__max_epochs=40,
                        pretrain__patience=3, pretrain__lr=0.02)
        start = copied(worker.state())
        done = worker.pretrain(task(worker, "pretrain"), copied(start))
        best = copied(done.state)
        self.assertEqual(done.epochs, min(40, done.best_epoch + 3))
        again = joined(headstart.TorchWorker(new_net(), (x, y), held_out=held_out), pretrain__max_epochs=done.best_epoch,
                       pretrain__patience=3, pretrain__lr=0.02)
        shorter = again.pretrain(task(again, "pretrain"), copied(start))
        self.assertEqual(shorter.best_epoch, done.best_epoch)
        for name, array in best.items():
            numpy.testing.assert_array_equal(array, shorter.state[name], err_msg=name)
        best_found = worker.evaluate(task(worker, "evaluate"), best)
        for epochs in range(1, done.best_epoch):
            one = joined(headstart.TorchWorker(new_net(), (x, y), held_out=held_out), pretrain__max_epochs=epochs,
                         pretrain__patience=100, pretrain__lr=0.02)
            earlier = one.evaluate(task(one, "evaluate"), copied(one.pretrain(task(one, "pretrain"), copied(start)).state))
            self.assertTrue(best_found.is_better_than(earlier), epochs)

    def test_without_held_out_samples_all_epochs_run_and_the_last_is_kept(self):
        worker = joined(headstart.TorchWorker(new_net(), blobs(30)), pretrain__max_epochs=4, pretrain__patience=1)
        done = worker.pretrain(task(worker, "pretrain"), copied(worker.state()))
        self.assertEqual((done.epochs, done.best_epoch), (4, 4))


class Distillation(unittest.TestCase):
    def test_losses_and_gradients_are_the_golden_ones(self):
        vectors = golden("distill_vectors.json")
        teachers, labels = tensor_of(vectors["teachers"]), torch.tensor(vectors["labels"])
        equal = torch.full(vectors["adaptive"]["shape"], 1 / 3, dtype=torch.float64)
        for case in vectors["cases"]:
            weights = tensor_of(vectors["adaptive"]) if case["weighting"] == "adaptive" else equal
            terms = ConsolidationTerms(scale_by_t2=case["scale_by_t2"])
            guide = Guide(terms, case["temperature"], weights)
            targets = guide.targets(teachers, ["a", "b", "c"])
            for key, alpha in (("unlabeled", 1.0), ("labeled", case["alpha"])):
                student = tensor_of(vectors["student"]).requires_grad_(True)
                loss = alpha * guide.term(student, targets)
                if key == "labeled":
                    loss = loss + (1 - alpha) * nn.functional.cross_entropy(student, labels)
                loss.backward()
                self.assertAlmostEqual(loss.item() + alpha * case["constant"], case[key]["value"], places=9)
                torch.testing.assert_close(student.grad, tensor_of(case[key]["gradient"]), rtol=0, atol=1e-10)

    def test_targets_are_the_golden_ones(self):
        vectors = golden("target_vectors.json")
        for case in vectors["cases"]:
            for measure in ("ce", "kl"):
                terms = ConsolidationTerms(average=case["average"], standardise=case["standardise"],
                                           normalise=case["normalise"], measure=measure)
                guide = Guide(terms, case["temperature"], tensor_of(vectors["weights"]))
                targets = guide.targets(tensor_of(vectors["teachers"]), ["a", "b", "c"])
                torch.testing.assert_close(targets, tensor_of(case["targets"]), rtol=0, atol=1e-10)
                student = tensor_of(vectors["student"]).requires_grad_(True)
                guide.term(student, targets).backward()
                torch.testing.assert_close(student.grad, tensor_of(case["gradient"]), rtol=0, atol=1e-9)

    def test_a_teacher_that_is_not_finite_leaves_its_weight_to_the_others(self):
        logits = torch.randn(3, 4, 5, dtype=torch.float64)
        weights = torch.rand(3, 5, dtype=torch.float64)
        broken = logits.clone()
        broken[1, 2, 0] = math.nan
        with contextlib.redirect_stdout(io.StringIO()) as told:
            found = Guide(ConsolidationTerms(), 2.0, weights).targets(broken, ["a", "b", "c"])
        self.assertEqual(told.getvalue(), "headstart: the model of 'b' does not teach, its logits are not finite\n")
        rest = weights[[0, 2]]
        expected = Guide(ConsolidationTerms(), 2.0, rest / rest.sum(0) * weights.sum(0)).targets(logits[[0, 2]], ["a", "c"])
        torch.testing.assert_close(found, expected)
        with self.assertRaisesRegex(headstart.HeadstartError, "no teacher has finite logits"):
            Guide(ConsolidationTerms(), 2.0, weights).targets(logits * math.nan, ["a", "b", "c"])

    def test_arrays_and_datasets_distil_alike(self):
        x, y = blobs(33)
        students = []
        for data in ((x, y), TensorDataset(torch.from_numpy(x), torch.from_numpy(y))):
            worker = joined(headstart.TorchWorker(new_net(), data), consolidation__epochs=3, consolidation__batch_size=16)
            start = copied(worker.state())
            teachers = [Teacher(owner, {name: numpy.array(array + change, array.dtype) for name, array in start.items()})
                        for owner, change in (("a", 0.1), ("b", -0.2))]
            weights = numpy.array([[0.2, 0.5, 0.7], [0.8, 0.5, 0.3]])
            students.append(copied(worker.distill(task(worker, "distill", temperature=3.0, alpha=0.7), start, teachers,
                                                  weights)))
            self.assertEqual(students[-1]["norm.num_batches_tracked"], 6)
        for name, array in students[0].items():
            numpy.testing.assert_allclose(array, students[1][name], rtol=0, atol=1e-5, err_msg=name)

    def test_measures_that_are_not_known_are_refused(self):
        worker = joined(headstart.TorchWorker(new_net(), blobs(30)), consolidation__measure="js")
        with self.assertRaisesRegex(headstart.HeadstartError, "consolidation.measure=js, which Python workers do not know"):
            worker.distill(task(worker, "distill"), copied(worker.state()), [], numpy.zeros((0, 3)))


class Answers(unittest.TestCase):
    def test_logits_and_features_are_the_models_in_evaluation(self):
        worker = joined(headstart.TorchWorker(new_net(), blobs(300)))
        samples = blobs(261, 4)[0]
        state = copied(worker.state())
        worker.model.eval()
        with torch.no_grad():
            features = worker.model.features(torch.from_numpy(samples))
            logits = worker.model.head(features)
        worker.model.train()
        found = worker.logits(task(worker, "logits"), copied(state), samples)
        self.assertEqual((found.dtype, found.shape), (numpy.float32, (261, 3)))
        numpy.testing.assert_allclose(found, logits.numpy(), atol=1e-6)
        numpy.testing.assert_allclose(worker.features(task(worker, "features"), copied(state), samples), features.numpy(),
                                      atol=1e-6)
        self.assertEqual(worker.features(task(worker, "features", of="training"), state, None).shape, (300, 8))
        self.assertEqual(worker.logits(task(worker, "logits"), copied(state), samples[:0]).shape, (0, 3))
        plain = joined(headstart.TorchWorker(nn.Linear(4, 3), blobs(30)))  # its logits stand for features
        state = copied(plain.state())
        numpy.testing.assert_array_equal(plain.features(task(plain, "features"), copied(state), samples),
                                         plain.logits(task(plain, "logits"), state, samples))

    def test_a_server_has_gradients_from_a_worker_without_samples(self):
        worker = headstart.TorchWorker(new_net())
        self.assertEqual(worker.tasks(), ["logits", "backward"])
        brought = worker.join(headstart.Terms.of({"task.classes": 3}), headstart.Seed(0))
        self.assertEqual((brought.examples, brought.held_out), (0, 0))
        x, y = blobs(20)
        state = copied(worker.state())
        net = new_net()
        labels = torch.from_numpy(y)
        logits = net(torch.from_numpy(x))
        nn.functional.cross_entropy(logits, labels).backward()
        answers = worker.logits(task(worker, "logits", training=True), copied(state), x)
        numpy.testing.assert_allclose(answers, logits.detach().numpy(), atol=1e-6)
        upstream = torch.from_numpy(answers).requires_grad_(True)
        nn.functional.cross_entropy(upstream, labels).backward()
        found = worker.backward(task(worker, "backward", training=True), copied(state), x, upstream.grad.numpy())
        for name, parameter in net.named_parameters():
            numpy.testing.assert_allclose(found[name], parameter.grad.numpy(), atol=1e-6, err_msg=name)
        for name, buffer in net.named_buffers():
            numpy.testing.assert_allclose(found[name], buffer.numpy(), atol=1e-6, err_msg=name)
        self.assertIsNone(worker.model.body.weight.grad)
        found, steps = Trials.trial(self, worker)
        self.assertIn("try_out() is for workers of silos", steps["join"].words)

    def test_a_model_of_other_classes_is_refused_with_a_sentence(self):
        worker = joined(headstart.TorchWorker(nn.Linear(4, 1), blobs(30), held_out=blobs(9)))
        with self.assertRaisesRegex(headstart.HeadstartError, r"expected are logits \[9, 3\], one a class of the run"):
            worker.evaluate(task(worker, "evaluate"), copied(worker.state()))


class Memory(unittest.TestCase):
    def test_a_task_takes_one_model_beside_the_model(self):
        """Of NumPy and Python, which is what could copy a state on its way; gradients and optimisers are PyTorch's."""
        net = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 2))
        size = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
        x, y = numpy.zeros((8, 1000), "f4"), numpy.arange(8) % 2
        worker = headstart.TorchWorker(net, (x, y), held_out=(x, y))
        state = copied(worker.state())
        body = b"".join(safetensors.parts_of({"0/" + name: array for name, array in state.items()}))
        for kind, settings in (("train", {"round": 1, "seed": 1}), ("pretrain", {"seed": 1})):
            mine, theirs = socket.socketpair()
            with mine, theirs:
                thread = threading.Thread(target=converse, args=(worker, Connection(theirs)))
                thread.start()
                terms = {"task": {"classes": 2}, "pretrain": {"max_epochs": 3}, "train": {"proximal_mu": 0.1}}
                read_frame(mine)
                mine.sendall(frame({"type": "join", "client": "a", "terms": terms, "seed": 1}, 0))
                read_frame(mine)
                head = frame({"type": "task", "id": 1, "kind": kind, "settings": settings,
                              "inputs": [{"name": "model", "owner": "", "prefix": "0/"}]}, len(body))
                tracemalloc.start()
                mine.sendall(head)
                mine.sendall(body)
                header = read_frame(mine)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.assertEqual(header["type"], "result", header)
                self.assertLess(peak, 1.1 * size, kind)
                mine.sendall(frame({"type": "bye"}, 0))
                thread.join()


def frame(header, size):
    text = json.dumps(header).encode()
    return b"HSW1" + struct.pack("<IQ", len(text), size) + text


def read_frame(channel):
    """The header; the body is read and let go."""
    head = channel.recv(16, socket.MSG_WAITALL)
    length, size = struct.unpack("<IQ", head[4:])
    header = json.loads(channel.recv(length, socket.MSG_WAITALL))
    while size > 0:
        size -= len(channel.recv(min(size, 1 << 14)))
    return header if header["type"] != "progress" else read_frame(channel)


class Trials(unittest.TestCase):
    def trial(self, worker, **terms):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            found = headstart.try_out(worker, terms)
        self.assertEqual(out.getvalue(), str(found) + "\n")
        return found, {finding.step: finding for finding in found.findings}

    def test_a_sound_worker_keeps_every_promise_and_its_model(self):
        worker = headstart.TorchWorker(new_net(), blobs(60))
        before = copied(worker.state())
        found, steps = self.trial(worker)
        self.assertTrue(found.is_ok, str(found))
        self.assertEqual(list(steps), ["join", "pretrain", "train", "again", "evaluate", "logits", "features", "distill"])
        for name, array in worker.state().items():
            numpy.testing.assert_array_equal(array, before[name])

    def test_what_is_wrong_is_said(self):
        class Forgets(headstart.TorchWorker):
            rounds = 0

            def train(self, task, model):
                state = super().train(task, model)
                self.rounds += 1
                state["head.bias"] = state["head.bias"] + numpy.float32(self.rounds)
                return state

            def evaluate(self, task, model):
                found = super().evaluate(task, model)
                found.predicted[0] += 1
                return found

            def logits(self, task, model, samples):
                return super().logits(task, model, samples) / 0

            def pretrain(self, task, model):
                raise KeyError("lost")

        found, steps = self.trial(Forgets(new_net(), blobs(60)))
        self.assertFalse(found.is_ok)
        self.assertEqual({step for step, one in steps.items() if not one.is_ok}, {"pretrain", "again", "evaluate", "logits"})
        self.assertIn("lost", steps["pretrain"].words)
        self.assertIn("give another tensor 'head.bias' the second time", steps["again"].words)
        self.assertIn("'total' adds up to 6, 'predicted' to 7", steps["evaluate"].words)
        self.assertIn("not finite in 'logits'", steps["logits"].words)

    def test_names_of_metrics_that_the_client_would_refuse_are_named(self):
        worker = headstart.TorchWorker(new_net(), blobs(60), metrics={"top 1": lambda outputs, labels: 0.5})
        _, steps = self.trial(worker)
        self.assertFalse(steps["evaluate"].is_ok)
        self.assertIn("'top 1' is none", steps["evaluate"].words)

    def test_a_worker_that_does_not_train_is_found(self):
        _, steps = self.trial(headstart.TorchWorker(nn.Linear(4, 3), blobs(60)), **{"train.lr": 0.0})
        self.assertEqual((steps["train"].is_ok, steps["train"].words), (False, "training changes nothing of the model"))


if __name__ == "__main__":
    unittest.main()
