"""Models on disk: what a run starts from, and what it leaves (server/run_files.md#model-files)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import safetensors
from .errors import HeadstartError
from .safetensors import Metadata, State
from .worker import Worker

if TYPE_CHECKING:
    from .networks import Loaded

TRAINED = "headstart.trained"
"""Key of the metadata: JSON list of the names of the tensors that training changes. Absent: all floating-point ones."""


def save_model(file: str | os.PathLike[str], model: Any, trained: Iterable[str] | None = None) -> None:
    """Writes what round 1 of a run starts from (`model.name=state:FILE`). model: a PyTorch module, a worker, or a state
    (arrays by name). trained: names of the tensors that training changes; by default the parameters of a module that
    have a gradient, what a worker says, and of a state all floating-point tensors."""
    state, known = _state_of(model)
    names = known if trained is None else set(trained)
    metadata = {}
    if names is not None:
        unknown = sorted(names - state.keys())
        if unknown:
            raise HeadstartError(f"trained names '{unknown[0]}', which is no tensor of the model; it has "
                                 f"{', '.join(sorted(state)[:8])}")
        metadata[TRAINED] = json.dumps([name for name in state if name in names])
    write(file, state, metadata)


def _state_of(model: Any) -> tuple[State, set[str] | None]:
    """The tensors, and the names of the trained ones where they are known."""
    if isinstance(model, Worker):
        return model.state(), model.trained()
    if isinstance(model, Mapping):
        if any(hasattr(tensor, "detach") for tensor in model.values()):
            from .torch_worker import array_of

            return {name: array_of(tensor) for name, tensor in model.items()}, None
        return {name: np.asarray(tensor) for name, tensor in model.items()}, None
    if hasattr(model, "state_dict") and hasattr(model, "named_parameters"):
        from .torch_worker import TorchWorker

        return _state_of(TorchWorker(model, ([], [])))
    raise HeadstartError(f"save_model was given {type(model).__name__}; expected is a PyTorch module, a worker, or arrays by "
                         "name")


def write(file: str | os.PathLike[str], state: State, metadata: Mapping[str, str]) -> None:
    """The file is whole, or as it was before."""
    place = os.path.abspath(os.fspath(file))
    try:
        number, temporary = tempfile.mkstemp(dir=os.path.dirname(place), prefix=".headstart-")
        try:
            with os.fdopen(number, "wb") as out:
                for part in safetensors.parts_of(state, metadata):
                    out.write(part)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise HeadstartError(f"{file}: cannot be written ({error.strerror})", "storage") from None


def load_state(file: str | os.PathLike[str]) -> tuple[State, Metadata]:
    """The tensors of a model file by name, and its metadata (both empty where there are none)."""
    try:
        with open(file, "rb") as source:
            return safetensors.read(safetensors.filler(source), os.fstat(source.fileno()).st_size, str(file))
    except OSError as error:
        raise HeadstartError(f"{file}: cannot be read ({error.strerror})", "storage") from None


def load(file: str | os.PathLike[str]) -> Loaded:
    """A model that a run left, as a PyTorch module (networks.Loaded): it answers samples that are ready for it, and
    `predict()` names the classes of samples as they are stored. For the program's own networks; of another model
    load_state() gives the tensors."""
    state, metadata = load_state(file)
    if "architecture" not in metadata:
        raise HeadstartError(f"{file} does not say what model it is: it has no metadata of Headstart; use load_state() and "
                             "a module of your own", "data")
    try:
        from .networks import loaded
    except ModuleNotFoundError as error:
        raise HeadstartError(f"load() needs PyTorch, which is not installed here ({error}); load_state() does not") from None
    return loaded(state, metadata, str(file))
