"""Frames as shared/wire/README.md describes them, encoded without Headstart.

Usage: python3 tests/golden/frames.py    (writes tests/golden/frames.json)
"""

import json
import struct
from pathlib import Path

DIGEST = "b" * 64


def number(kind):
    return lambda value: struct.pack("<" + kind, value)


u8, u16, u32, u64, i64 = (number(kind) for kind in "BHIQq")


def flag(value):
    return u8(1 if value else 0)


def text(words):
    return u32(len(words.encode())) + words.encode()


def numbers(kind, values):
    return u32(len(values)) + b"".join(kind(value) for value in values)


def control(message, *fields):
    return bytes([1, 0, message, 0, 1]) + b"".join(fields)


def chunk(attachment, offset, data):
    return bytes([1, 1, 0, 0]) + u32(attachment) + u64(offset) + data


TASKS = u32(2) + text("train") + text("evaluate")

CLIENT = {
    "Hello": control(0, u16(8), text("silo-0"), text("demo"), flag(False), u16(7), TASKS),
    "Join": control(1, u64(540), u64(60), u32(10), numbers(u32, [1, 28, 28]), text("a" * 64), text("cnn channels=32,64"),
                    text('{"model": {}}'), text("resnet18 width=64"), flag(True), text(""), flag(False)),
    "ProgressReport": control(2, u64(3), u64(10), u64(20)),
    "TaskFailed": control(6, u64(9), u8(4)),
    "Attachment": control(7, u32(0), u64(900136)),
    "Fetch": control(8, u64(3), numbers(u16, [0, 2])),
    "Result": control(9, u64(3), text('{"seconds":12.5}'), u64(900136)),
    # Of other versions: of one before 7 only the first number is read, of a later one what version 7 has.
    "Hello of version 6": control(0, u16(6), text("silo-0"), text("demo"), flag(False), u16(6),
                                  numbers(u8, [3, 4, 5, 6, 7, 8, 10])),
    "Hello of versions 7 to 9": control(0, u16(9), text("silo-0"), text("demo"), flag(True), u16(7),
                                        u32(2) + text("train") + text("later"), b"what a later version appends"),
}

SERVER = {
    "Welcome": control(0, u16(8), text('{"run": {"seed": 1}}'), i64(1767225600125), u32(45000), text("")),
    "Joined": control(1, u32(3), u32(10), text("")),
    "Refused": control(2, text("full"), flag(True)),
    "Grant": control(11, u64(3)),
    "ResultRefused": control(12, u64(3), text("NaN")),
    "Finished": control(13, text("done"), flag(False)),
    "Attachment": control(14, u32(0), u64(1)),
    "Notice": control(15, text("another one came")),
    "Task": control(16, u64(3), text("train"), text('{"counted_round":6,"round":7}'), u16(1), flag(True)),
    "Input": control(17, text("model"), text(DIGEST), text("silo-2"), text("{}")),
}

GREETING = [text("silo-0"), text("demo"), flag(False), u32(12), u32(2) + text("model") + text("seed"),
            u32(2) + text(DIGEST) + text("c" * 64)]

PEER = {
    "PeerHello": control(0, u16(1), u16(1), *GREETING),
    "PeerRefused": control(1, text("its seed differs")),
    "Ready": control(2, u32(13), u64(900136), text("a" * 64)),
    "Pull": control(3, u32(13)),
    "Gone": control(4, u32(11)),
    "Done": control(5),
    "Attachment": control(6, u32(0), u64(900136)),
    "Ready without a message": control(2, u32(13), u64(0), text("")),
    "PeerHello of versions 1 to 3": control(0, u16(3), u16(1), *GREETING, b"what a later version appends"),
}

# In the order in which the README shows them; of the chunk its head.
EXAMPLES = [CLIENT["Hello"], SERVER["Welcome"], SERVER["Refused"], SERVER["Task"], SERVER["Input"], CLIENT["Fetch"],
            CLIENT["Result"], SERVER["Grant"], CLIENT["Attachment"], chunk(0, 262144, b"")]
PEER_EXAMPLES = [PEER[name] for name in
                 ("PeerRefused", "Ready", "Ready without a message", "Pull", "Gone", "Done", "Attachment")]


def main():
    hexadecimal = lambda frames: {name: frame.hex(" ") for name, frame in frames.items()}
    document = {"client": hexadecimal(CLIENT), "server": hexadecimal(SERVER),
                "peer": hexadecimal(PEER), "chunk": chunk(7, (5 << 30) + 3, b"*").hex(" "),
                "readme": [frame.hex(" ") for frame in EXAMPLES],
                "readme of peers": [frame.hex(" ") for frame in PEER_EXAMPLES]}
    Path(__file__).with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
