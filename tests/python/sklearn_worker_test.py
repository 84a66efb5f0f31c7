"""scikit-learn workers: state as tensors, rounds that are partial_fit, promises by a trial. Skipped where scikit-learn is
not installed."""

import contextlib
import io
import unittest

import numpy

import headstart
from headstart.worker import Task, Teacher

try:
    import sklearn
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.neural_network import MLPClassifier
except ImportError:
    sklearn = None
    print("scikit-learn is not installed here")  # ctest shows the test as skipped


def blobs(count, classes=3, seed=0):
    draws = numpy.random.RandomState(seed)
    y = numpy.arange(count) % classes
    return draws.standard_normal((count, 4)) + 2 * numpy.eye(classes, 4)[y], y


def copied(state):
    return {name: numpy.array(array) for name, array in state.items()}


def joined(worker, seed=5, **terms):
    worker.join(headstart.Terms.of({"task.classes": worker.classes(), "data.held_out": 0.0,
                                    **{key.replace("__", "."): value for key, value in terms.items()}}),
                headstart.Seed(seed))
    return worker


def task(worker, kind, seed=3, **more):
    return Task(kind, worker._terms, headstart.Seed(seed), **more)


@unittest.skipIf(sklearn is None, "scikit-learn is not installed here")
class Sklearn(unittest.TestCase):
    def estimators(self):
        return [SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05), LogisticRegression(),
                MLPClassifier((8,), random_state=1, learning_rate_init=0.01, batch_size=16),
                MLPClassifier((8, 5), solver="sgd", activation="tanh", learning_rate_init=0.05, batch_size=16)]

    def test_every_promise_is_kept(self):
        for classes in (2, 3):
            for estimator in self.estimators():
                with self.subTest(estimator=str(estimator), classes=classes):
                    worker = headstart.SklearnWorker(estimator, blobs(60, classes), classes=classes)
                    with contextlib.redirect_stdout(io.StringIO()) as out:
                        found = headstart.try_out(worker)
                    self.assertTrue(found.is_ok, out.getvalue())

    def test_a_round_is_partial_fit_in_the_order_of_the_seed(self):
        x, y = blobs(50)
        plain = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, shuffle=False)
        worker = joined(headstart.SklearnWorker(plain, (x, y), classes=3), train__epochs=2)
        after = worker.train(task(worker, "train", round=1), copied(worker.state()))
        for epoch in range(2):
            order = headstart.permutation(50, headstart.Seed(3).child(epoch))
            plain.partial_fit(x[order], y[order], classes=[0, 1, 2])
        numpy.testing.assert_allclose(after["coef"], plain.coef_, atol=1e-12)
        numpy.testing.assert_allclose(after["intercept"], plain.intercept_, atol=1e-12)

    def test_rounds_learn_and_answers_are_scikit_learns(self):
        x, y = blobs(150)
        held_out = blobs(60, seed=1)
        for estimator in self.estimators():
            with self.subTest(str(estimator)):
                worker = joined(headstart.SklearnWorker(
                    estimator, (x, y), classes=3, held_out=held_out,
                    metrics={"mean": lambda scores, labels: float(numpy.exp(scores).sum(1).mean())}), train__epochs=30)
                before = worker.evaluate(task(worker, "evaluate"), copied(worker.state()))
                after = copied(worker.train(task(worker, "train", round=1), copied(worker.state())))
                found = worker.evaluate(task(worker, "evaluate"), copied(after))
                self.assertGreater(found.accuracy, max(0.6, before.accuracy - 1e-9))
                self.assertEqual(found.total, [20, 20, 20])
                self.assertAlmostEqual(found.own["mean"][0], 1.0)
                scores = worker.logits(task(worker, "logits"), after, held_out[0].astype("f4"))
                numpy.testing.assert_allclose(numpy.exp(scores), worker._estimator.predict_proba(held_out[0]), atol=1e-5)

    def test_a_silo_without_some_classes_takes_part(self):
        x, y = blobs(60)
        for estimator in self.estimators():
            worker = joined(headstart.SklearnWorker(estimator, (x[y != 1], y[y != 1]), classes=3, held_out=(x, y)))
            after = worker.train(task(worker, "train", round=1), copied(worker.state()))
            self.assertEqual(sum(worker.evaluate(task(worker, "evaluate"), copied(after)).total), 60)

    def test_distillation_follows_the_teachers(self):
        x, y = blobs(200)
        for estimator in self.estimators():
            with self.subTest(str(estimator)):
                # The silo's labels say nothing; a teacher that was trained on true ones does.
                teacher = joined(headstart.SklearnWorker(estimator, (x, y), classes=3), train__epochs=40)
                taught = copied(teacher.train(task(teacher, "train", round=1), copied(teacher.state())))
                student = joined(headstart.SklearnWorker(estimator, (x, numpy.zeros(200, int)), classes=3,
                                                         held_out=blobs(60, seed=1)), consolidation__epochs=60)
                after = student.distill(task(student, "distill", alpha=1.0), copied(student.state()),
                                        [Teacher("a", taught)], numpy.ones((1, 3)))
                self.assertGreater(student.evaluate(task(student, "evaluate"), copied(after)).accuracy, 0.6)

    def test_what_cannot_be_trained_in_rounds_is_refused(self):
        for estimator, words in ((SGDClassifier(), "gives no probabilities"),
                                 (LogisticRegression(solver="liblinear"), "cannot go on from a model"),
                                 (MLPClassifier(solver="lbfgs"), "cannot be trained in rounds"),
                                 (SGDClassifier(loss="log_loss", average=True), "coefficients that do not travel"),
                                 (object(), "NumpyWorker")):
            with self.assertRaisesRegex(headstart.HeadstartError, words):
                headstart.SklearnWorker(estimator, blobs(9), classes=3)
        with self.assertRaisesRegex(headstart.HeadstartError, "3 classes; the run has 4"):
            headstart.SklearnWorker(LogisticRegression(), blobs(9), classes=3).join(
                headstart.Terms.of({"task.classes": 4}), headstart.Seed(1))
        with self.assertRaisesRegex(headstart.HeadstartError, "a sample is of the class 'cat'; the run's classes are a, b, c"):
            joined(headstart.SklearnWorker(LogisticRegression(), (blobs(3)[0], ["a", "cat", "b"]), classes=["a", "b", "c"]))


if __name__ == "__main__":
    unittest.main()
