"""Headstart in Python: a silo's own training script as its client's worker, models to start from, and the files of runs.

The programs are C++ (headstart-server, headstart-client). This package speaks to the client
(`headstart-client --worker 'python3 train.py'`), and reads and writes what runs leave and need. README.md beside it has
the ten lines of a worker."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import VERSION as __version__
from .errors import HeadstartError
from .model_files import load, load_state, save_model
from .runs import Run, Study, Table, read_run, read_study
from .safetensors import State
from .seeds import Seed, held_out_split, permutation
from .serving import serve
from .terms import Terms
from .trying import Trial, try_out
from .worker import Brought, Evaluation, NumpyWorker, Pretrained, Task, Teacher, Worker

if TYPE_CHECKING:
    from .networks import Loaded
    from .sklearn_worker import SklearnWorker
    from .torch_worker import TorchWorker

__all__ = ["Brought", "Evaluation", "HeadstartError", "Loaded", "NumpyWorker", "Pretrained", "Run", "Seed",
           "SklearnWorker", "State", "Study", "Table", "Task", "Teacher", "Terms", "TorchWorker", "Trial", "Worker",
           "__version__", "held_out_split", "load", "load_state", "permutation", "read_run", "read_study", "save_model",
           "serve", "try_out"]


_OPTIONAL = {"TorchWorker": ("torch_worker", "PyTorch"), "Loaded": ("networks", "PyTorch"),
             "SklearnWorker": ("sklearn_worker", "scikit-learn")}


def __getattr__(name: str) -> Any:
    """What needs libraries that may not be installed."""
    if name not in _OPTIONAL:
        raise AttributeError(f"module 'headstart' has no attribute '{name}'")
    module, library = _OPTIONAL[name]
    try:
        return getattr(importlib.import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        raise HeadstartError(f"headstart.{name} needs {library}, which is not installed here ({error})") from None
