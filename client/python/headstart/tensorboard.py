"""TensorBoard's event files, written by their definition: TFRecords of Event messages. It needs neither TensorBoard nor
protobuf."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from .errors import HeadstartError
from .follow import Point, points

_POLYNOMIAL = 0x82F63B78  # CRC-32C, Castagnoli, reflected


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """As TFRecords store it, so that the sum of bytes that hold sums is not special."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """One TFRecord: length, its sum, data, their sum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _event(time: float, step: int, rest: bytes) -> bytes:
    """tensorflow.Event: wall_time 1 (double), step 2 (int64), and `rest`, which is one of its other fields."""
    return b"\x09" + struct.pack("<d", time) + (b"\x10" + _varint(step) if step else b"") + rest


def first_event(time: float) -> bytes:
    """Event.file_version is field 3."""
    return _event(time, 0, _bytes_field(3, b"brain.Event:2"))


def events_of(point: Point) -> list[bytes]:
    """Event.summary is field 5: Summary.value 1, of tag 1 and simple_value 2 (float). Where the run went back, an event
    before it says that later steps no longer hold: Event.session_log is field 7, SessionLog.status 1 is START, 1."""
    values = b"".join(
        _bytes_field(1, _bytes_field(1, name.encode()) + b"\x15" + struct.pack("<f", _as_float32(value)))
        for name, value in point.numbers.items())
    events = [_event(point.time, point.round, _bytes_field(5, values))]
    if point.is_again:
        events.insert(0, _event(point.time, point.round, _bytes_field(7, b"\x08\x01")))
    return events


def write(folder: Path, out: Path, follow: bool) -> Path:
    """One event file of the run in `folder`, in the folder `out`, which is made. It replaces the one that an earlier call
    wrote of the same run. Returns the file."""
    told = points(folder, follow)
    first = next(told, None)  # throws before anything is written
    try:
        out.mkdir(parents=True, exist_ok=True)
        begin = first.time if first else 0.0
        file = out / f"events.out.tfevents.{int(begin)}.headstart"
        with open(file, "wb") as events:
            events.write(record(first_event(begin)))
            for point in _chained(first, told):
                for event in events_of(point):
                    events.write(record(event))
                events.flush()
            os.fsync(events.fileno())
    except OSError as error:
        raise HeadstartError(f"{error.filename or out}: cannot be written ({error.strerror})", "storage") from None
    return file


def _chained(first: Point | None, rest: Iterable[Point]) -> Iterable[Point]:
    if first is not None:
        yield first
        yield from rest


def _as_float32(value: float) -> float:
    """What float32 can hold: a number of bytes may be rounded, and is not infinite."""
    return max(-3.4028234e38, min(3.4028234e38, value))
