"""States in the safetensors format: named tensors as NumPy arrays, to bytes and back without copying them.

NumPy has no bfloat16. Such a tensor is an array of uint16 with the dtype `BFLOAT16`, whose metadata says what its bits
are; `is_bfloat16()` tells."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .errors import HeadstartError

Array = npt.NDArray[Any]
State = dict[str, Array]
"""A model: its tensors by name."""
Metadata = dict[str, str]

_dtype: Any = np.dtype  # its stubs do not know metadata
BFLOAT16: np.dtype[Any] = _dtype(np.uint16, metadata={"safetensors": "BF16"})
_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16, "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?")}
_MAX_HEADER = 64 << 20
_CHUNK = 16 << 20


def is_bfloat16(array: Array) -> bool:
    metadata: Any = array.dtype.metadata or {}
    return bool(metadata.get("safetensors") == "BF16")


def is_floating(array: Array) -> bool:
    return is_bfloat16(array) or array.dtype.kind == "f"


def type_word(array: Array, name: str) -> str:
    """The format's word for the array's type. `name` is for the message."""
    if is_bfloat16(array):
        return "BF16"
    for word, dtype in _TYPES.items():
        if word != "BF16" and array.dtype.newbyteorder("<") == dtype:
            return word
    raise HeadstartError(f"tensor '{name}' is of type {array.dtype}, which models cannot have; make it one of float64, "
                         "float32, float16, int64, int32, int16, int8, uint8 or bool")


def parts_of(state: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The bytes of a safetensors file, in parts: the head, then each tensor as a view of its array. Larger elements come
    first, so that every tensor is aligned."""
    ordered = sorted(state.items(), key=lambda named: (-named[1].itemsize, named[0].encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    bodies: list[memoryview] = []
    offset = 0
    for name, array in ordered:
        word = type_word(array, name)
        header[name] = {"dtype": word, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
        if array.nbytes > 0:
            little = array if is_bfloat16(array) else array.astype(array.dtype.newbyteorder("<"), copy=False)
            bodies.append(_bytes_of(np.ascontiguousarray(little).reshape(-1).view(np.uint8)))
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *bodies]


def read(fill: Callable[[memoryview], None], size: int, what: str) -> tuple[State, Metadata]:
    """A state of `size` bytes; `fill` fills a buffer with the bytes that come next, `what` tells in messages what they
    are. The arrays are views of one buffer."""
    start = bytearray(8)
    if size < 8:
        raise _damaged(what, f"it has {size} bytes, a safetensors file has at least 8")
    fill(memoryview(start))
    length = int.from_bytes(start, "little")
    if length > min(size - 8, _MAX_HEADER):
        raise _damaged(what, f"its header would have {length} bytes")
    text = bytearray(length)
    fill(memoryview(text))
    data = np.empty(size - 8 - length, np.uint8)
    if len(data) > 0:
        fill(_bytes_of(data))
    try:
        header = json.loads(text.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(what, f"its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(what, "its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(what, "its metadata are no texts")
    return _tensors(header, data, what), metadata


def _tensors(header: dict[str, Any], data: Array, what: str) -> State:
    state: State = {}
    ends = []
    for name, entry in header.items():
        try:
            dtype, shape = _TYPES[entry["dtype"]], tuple(int(extent) for extent in entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise _damaged(what, f"its entry of tensor '{name}' is none of the format") from None
        if min(shape, default=0) < 0 or begin < 0 or math.prod(shape) * dtype.itemsize != end - begin or end > len(data):
            raise _damaged(what, f"the bytes of tensor '{name}' do not fit its shape {list(shape)}")
        ends.append((begin, end))
        raw = data[begin:end]
        if raw.ctypes.data % dtype.itemsize != 0:
            raw = raw.copy()
        state[name] = raw.view(dtype).reshape(shape)
    at = 0
    for begin, end in sorted(ends):
        if begin != at:
            raise _damaged(what, f"its tensors overlap or leave a gap at byte {min(at, begin)} of the data")
        at = end
    if at != len(data):
        raise _damaged(what, f"it has {len(data) - at} bytes that belong to no tensor")
    return state


def filler(file: IO[bytes]) -> Callable[[memoryview], None]:
    """What read() takes, of a file at its beginning."""
    def fill(buffer: memoryview) -> None:
        while len(buffer) > 0:
            part = file.read(min(len(buffer), _CHUNK))
            if not part:
                raise HeadstartError(f"{getattr(file, 'name', 'a file')} ended early; is it still being written?", "data")
            buffer[: len(part)] = part
            buffer = buffer[len(part):]

    return fill


def read_bytes(raw: bytes | bytearray | memoryview, what: str) -> tuple[State, Metadata]:
    """As read(), of bytes in memory."""
    rest = memoryview(raw)

    def fill(buffer: memoryview) -> None:
        nonlocal rest
        buffer[:] = rest[: len(buffer)]
        rest = rest[len(buffer):]

    return read(fill, len(rest), what)


def _bytes_of(array: Any) -> memoryview:
    return memoryview(array)


def total_bytes(parts: Iterable[memoryview]) -> int:
    return sum(part.nbytes for part in parts)


def _damaged(what: str, why: str) -> HeadstartError:
    return HeadstartError(f"{what} is no safetensors file, or is damaged: {why}", "data")
