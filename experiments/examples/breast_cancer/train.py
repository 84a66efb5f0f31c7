"""A bank of biopsies: logistic regression by scikit-learn, measured by the area under the ROC curve."""
import sys
from pathlib import Path

import headstart
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score


def auc(scores, y):
    return (roc_auc_score(y, scores[:, 1]), len(y)) if len(set(y)) == 2 else (0.0, 0)


folder = Path(sys.argv[1])
x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
x = (x - x.mean(0)) / x.std(0)  # by what this silo has
headstart.serve(headstart.SklearnWorker(
    SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, alpha=1e-3), (x, y),
    classes=["malignant", "benign"], metrics={"auc": auc}))
