"""Real processes and peers without manners: the door stays open for honest clients, and every program ends when told to."""

import selectors
import signal
import socket
import ssl
import struct
import threading

from tests.integration.programs import ProgramsTest, wait_for

UPGRADE = (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def frame(payload: bytes, first_byte: int = 0x82) -> bytes:
    return bytes([first_byte, 0x80 | len(payload)]) + bytes(4) + payload  # a mask of zeros


def message(kind: int, body: bytes) -> bytes:
    return bytes([1, 0, kind, 0]) + b"\x01" + body


def hello(name: bytes, newest: int, oldest: int | None = None, tasks: tuple = ()) -> bytes:
    """Without `oldest` as it was before version 6."""
    text = lambda words: struct.pack("<I", len(words)) + words
    body = struct.pack("<H", newest) + text(name) + text(b"door test") + b"\0"
    if oldest is None:
        return message(0, body)
    names = struct.pack("<I", len(tasks)) + b"".join(text(task) for task in tasks)
    return message(0, body + struct.pack("<H", oldest) + names)


PROGRESS = message(2, struct.pack("<QQQ", 1, 2, 3))
# A Hello that will be refused, four progress reports and a frame with an opcode that is none.
REFUSED_AND_BROKEN = (frame(hello(b"silo-0", 5)) + 4 * frame(PROGRESS) + frame(b"broken", 0x83))


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10, source_address=(address, 0))


def upgraded(connection):
    connection.sendall(UPGRADE)
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += connection.recv(4096)
    return connection


def answer_to(connection, said: bytes) -> bytes:
    """The first message that comes back; shorter than 64 KiB."""
    connection.sendall(frame(said))
    heard = b""
    while True:
        if len(heard) >= 2:
            begin, size = (4, struct.unpack(">H", heard[2:4])[0]) if heard[1] == 126 and len(heard) >= 4 else (2, heard[1])
            if heard[0] == 0x82 and len(heard) >= begin + size:
                return heard[begin:begin + size]
        more = connection.recv(4096)
        if not more:
            return b""
        heard += more


def has_hung_up(connection) -> bool:
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


class Flood:
    """Silent connections from four addresses, each renewed as it is dropped."""

    def __init__(self, port: int, first_bytes: bytes):
        self.port, self.first_bytes = port, first_bytes
        self.selector, self.is_over, self.num_opened = selectors.DefaultSelector(), threading.Event(), 0
        for i in range(256):
            self.open(f"127.0.0.{1 + i % 4}")
        self.thread = threading.Thread(target=self.renew)
        self.thread.start()

    def open(self, address: str) -> None:
        connection = connect(self.port, address)
        if self.first_bytes:
            connection.sendall(self.first_bytes)
        self.selector.register(connection, selectors.EVENT_READ, address)
        self.num_opened += 1

    def renew(self) -> None:
        while not self.is_over.is_set():
            for key, _ in self.selector.select(0.05):
                if not has_hung_up(key.fileobj):
                    continue
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
                try:
                    self.open(key.data)
                except OSError:  # the server has ended
                    return

    def close(self) -> None:
        self.is_over.set()
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Door(ProgramsTest):
    def start_tls_server(self, **settings):
        self.make_authority()
        server = self.certify("server", "--server", "--host", "127.0.0.1")
        self.silos = {f"silo-{i}": self.certify(f"silo-{i}") for i in range(3)}
        self.draw()
        return self.start_server(**server, **settings)

    def tls_connection(self, port, name):
        files = self.silos[name]
        context = ssl.create_default_context(cafile=str(files["tls.authority"]))
        context.load_cert_chain(str(files["tls.certificate"]), str(files["tls.key"]))
        return context.wrap_socket(connect(port), server_hostname="127.0.0.1")

    def assert_ends(self, program, *signals):
        for number in signals:
            program.send_signal(number)
        self.assertEqual(self.finish(program)[0], 130)

    def test_a_server_ends_whatever_peers_do(self):
        self.draw()
        server, port = self.start_server()
        silent, half, mute = connect(port), connect(port), connect(port)
        half.sendall(UPGRADE[:40])
        mute.sendall(UPGRADE)  # and never reads
        refused = upgraded(connect(port))
        refused.sendall(REFUSED_AND_BROKEN)
        waiting = upgraded(connect(port))
        wait_for(lambda: has_hung_up(refused), "the end of the connection that broke the protocol")
        self.assert_ends(server, signal.SIGTERM)
        for peer in (silent, half, mute, refused, waiting):
            peer.close()

    def test_a_client_of_any_version_is_answered(self):
        self.draw()
        server, port = self.start_server()
        of_both = b"; use headstart of the same version on both sides"
        needed = (b"train", b"evaluate")
        for said, kind, words in (
                (hello(b"silo-0", 5), 2, b"this client speaks protocol version 5, the server versions 7 to 8" + of_both),
                (hello(b"silo-0", 1)[:7], 2, b"this client speaks protocol version 1, the server versions 7 to 8" + of_both),
                (hello(b"silo-0", 10, 9, needed) + b"later", 2,
                 b"this client speaks protocol versions 9 to 10, the server versions 7 to 8" + of_both),
                (hello(b"silo-0", 7, 7, needed[1:]), 2, b"the run has tasks that this client does not know: train;"),
                (hello(b"silo-0", 9, 7, needed + (b"later",)) + b"later", 0, b'{"architecture":"cnn')):
            with upgraded(connect(port)) as peer:
                answer = answer_to(peer, said)
                self.assertEqual(answer[:5], bytes([1, 0, kind, 0, 1]), answer)
                self.assertIn(words, answer)
                if kind == 0:
                    self.assertEqual(struct.unpack("<H", answer[5:7])[0], 8)
        self.assert_ends(server, signal.SIGTERM)

    def test_under_tls_too_and_after_the_run(self):
        server, port = self.start_tls_server(**{"federation.rounds": 1})
        peers = [upgraded(self.tls_connection(port, "silo-0")) for _ in range(2)]
        for peer in peers:
            peer.sendall(REFUSED_AND_BROKEN)
        peers += [connect(port), upgraded(self.tls_connection(port, "silo-1"))]
        clients = [self.start(*self.tls_client(i, port, self.silos[f"silo-{i}"])) for i in range(3)]
        for client in clients:
            self.assertEqual(self.finish(client)[0], 0)
        code, out, err = self.finish(server)
        self.assertEqual(code, 0, out + err)
        for peer in peers:
            peer.close()

    def test_two_signals_end_a_server_and_a_client_at_once(self):
        self.draw()
        server, port = self.start_server()
        client = self.start(*self.client_arguments(0, port))
        wait_for(lambda: "silo-0" in (self.folder / "run/audit.jsonl").read_text(), "the client in the lobby")
        self.assert_ends(client, signal.SIGINT, signal.SIGINT)
        self.assert_ends(server, signal.SIGINT, signal.SIGINT)

    def test_a_client_ends_whatever_its_server_does(self):
        self.draw()
        with socket.create_server(("127.0.0.1", 0)) as fake:
            client = self.start(*self.client_arguments(0, fake.getsockname()[1]))
            connection, _ = fake.accept()  # and never a word
            self.assert_ends(client, signal.SIGTERM)
            connection.close()

    def under_flood(self, server, port, clients, first_bytes):
        flood = Flood(port, first_bytes)
        try:
            started = [self.start(*arguments) for arguments in clients]
            for client in started:
                code, out, err = self.finish(client)
                self.assertEqual(code, 0, out + err)
            code, out, err = self.finish(server)
            self.assertEqual(code, 0, out + err)
        finally:
            flood.close()
        self.assertGreaterEqual(flood.num_opened, 256)

    def test_a_flood_of_silent_connections_keeps_no_honest_client_out(self):
        for number, first_bytes in enumerate((b"", UPGRADE)):
            if number == 0:
                self.draw()
            server, port = self.start_server(f"run-{number}", **{"federation.rounds": 1})
            self.under_flood(server, port, [self.client_arguments(i, port) for i in range(3)], first_bytes)

    def test_nor_under_tls(self):
        server, port = self.start_tls_server(**{"federation.rounds": 1})
        clients = [self.tls_client(i, port, self.silos[f"silo-{i}"]) for i in range(3)]
        self.under_flood(server, port, clients, b"\x16\x03\x01")

    def test_a_second_process_of_one_silo_is_refused_while_the_first_is_alive(self):
        server, port = self.start_tls_server()
        first = self.start(*self.tls_client(0, port, self.silos["silo-0"]))
        audit = self.folder / "run/audit.jsonl"
        wait_for(lambda: '"event":"joined"' in audit.read_text(), "the first process")
        second = self.run_program(*self.tls_client(0, port, self.silos["silo-0"]), "--set", "connect.patience=1")
        self.assert_fails(second, 6, "a client named 'silo-0' is in this run already", "is alive")
        self.assertIsNone(first.poll())
        self.assertEqual(audit.read_text().count('"event":"joined"'), 1)
        # One whose machine is gone is replaced: it answers no more, and nothing has closed its connection.
        first.send_signal(signal.SIGSTOP)
        third = self.start(*self.tls_client(0, port, self.silos["silo-0"]))
        wait_for(lambda: audit.read_text().count('"event":"joined"') == 2, "the one that takes its place")
        first.send_signal(signal.SIGCONT)
        self.assert_ends(third, signal.SIGTERM)
        self.assert_ends(server, signal.SIGTERM)
        first.kill()


if __name__ == "__main__":
    import unittest
    unittest.main()
