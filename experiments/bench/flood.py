#!/usr/bin/env python3
"""A flood against a server on loopback: strangers, and one certified silo that is not of the run; each connection has one
way to misbehave.

    flood.py PORT AUTHORITY CERTIFICATE KEY [--places N] [--rate N] [--seconds N]

Bounded: PLACES connections at a time, RATE new ones a second, SECONDS in all; ends earlier when told to (SIGTERM).
Prints what became of them, by kind.
"""

import argparse
import asyncio
import collections
import json
import os
import signal
import ssl
import struct

UPGRADE = (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
MASK = bytes(4)  # a mask of zeros leaves the payload as it is
MIB = 1 << 20


def frame_head(num_bytes: int) -> bytes:
    return b"\x82" + (bytes([0x80 | num_bytes]) if num_bytes < 126 else b"\xff" + struct.pack(">Q", num_bytes)) + MASK


def hello(name: bytes) -> bytes:
    message = b"\x01\x00\x00\x00" + b"\x01" + struct.pack("<H", 2)
    for text in (name, b"flood"):
        message += struct.pack("<I", len(text)) + text
    return frame_head(len(message)) + message


class Flood:
    def __init__(self, arguments):
        self.arguments = arguments
        self.counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.context = ssl.create_default_context(cafile=arguments.authority)
        self.context.load_cert_chain(arguments.certificate, arguments.key)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        greeting = self.context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        try:
            greeting.do_handshake()
        except ssl.SSLWantReadError:
            pass
        self.client_hello = outgoing.read()

    # ---- without a certificate

    async def say_nothing(self, reader, _writer):
        await reader.read(1)

    async def half_a_handshake(self, reader, writer):
        writer.write(self.client_hello[:100])
        await reader.read(1)

    async def byte_by_byte(self, reader, writer):
        for i in range(len(self.client_hello)):
            writer.write(self.client_hello[i:i + 1])
            await writer.drain()
            if reader.at_eof():
                return
            await asyncio.sleep(0.05)

    async def junk(self, reader, writer):
        for _ in range(64):
            writer.write(os.urandom(16384))
            await writer.drain()
        await reader.read(1)

    # ---- with one

    async def big_headers(self, reader, writer):
        writer.write(UPGRADE)
        for i in range(256):
            writer.write(b"X-%d: %s\r\n" % (i, b"x" * 4096))
            await writer.drain()
        await reader.read(1)

    async def upgraded(self, reader, writer):
        writer.write(UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")

    async def no_hello(self, reader, writer):
        await self.upgraded(reader, writer)
        await reader.read()

    async def huge_frame(self, reader, writer):
        await self.upgraded(reader, writer)
        writer.write(frame_head(1 << 40) + bytes(65536))
        await reader.read()

    async def slow_megabyte(self, reader, writer):
        await self.upgraded(reader, writer)
        writer.write(frame_head(MIB) + bytes(MIB - 64))
        for _ in range(64):
            writer.write(b"\0")
            await writer.drain()
            if reader.at_eof():
                return
            await asyncio.sleep(0.25)

    async def hello_and_no_join(self, reader, writer):
        await self.upgraded(reader, writer)
        writer.write(hello(b"mallory"))
        await reader.read()

    async def many_hellos(self, reader, writer):
        await self.upgraded(reader, writer)
        for _ in range(4096):
            writer.write(hello(b"mallory"))
        await writer.drain()
        await reader.read()

    STRANGERS = [say_nothing, half_a_handshake, byte_by_byte, junk]
    CERTIFIED = [big_headers, no_hello, huge_frame, slow_megabyte, hello_and_no_join, many_hellos]

    async def one(self, number: int) -> None:
        # Every second one is a stranger; either half comes from eight addresses.
        kinds = self.STRANGERS if number % 2 == 0 else self.CERTIFIED
        kind = kinds[number // 2 % len(kinds)]
        address = f"127.0.{1 + number % 2}.{1 + number // 2 % 8}"
        tls = {"ssl": self.context, "server_hostname": "127.0.0.1"} if number % 2 else {}
        counts, writer = self.counts[kind.__name__], None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.arguments.port, local_addr=(address, 0), **tls)
            counts["opened"] += 1
            await kind(self, reader, writer)
            counts["ended by the server"] += 1
        except (OSError, asyncio.IncompleteReadError):  # reset, or refused at once
            counts["reset"] += 1
        finally:
            if writer:
                writer.transport.abort()

    async def run(self) -> None:
        loop, live, number = asyncio.get_running_loop(), set(), 0
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        end = loop.time() + self.arguments.seconds
        while not stop.is_set() and loop.time() < end:
            for _ in range(max(1, self.arguments.rate // 20)):
                if len(live) < self.arguments.places:
                    task = asyncio.create_task(self.one(number))
                    live.add(task)
                    task.add_done_callback(live.discard)
                    number += 1
            try:
                await asyncio.wait_for(stop.wait(), 0.05)
            except asyncio.TimeoutError:
                pass
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)
        print(json.dumps({"connections": number, **self.counts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("authority")
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("--places", type=int, default=400)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    asyncio.run(Flood(parser.parse_args()).run())


if __name__ == "__main__":
    main()
