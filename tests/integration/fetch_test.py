"""experiments/fetch.py from a server on loopback that lies, breaks off and resumes.

    python3 -m unittest tests/integration/fetch_test.py
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import sys
import tarfile
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import fetch  # noqa: E402
from common.errors import DATA, NETWORK, STORAGE  # noqa: E402


def archive_of(*members: tuple[str, bytes | None], link: str = "") -> bytes:
    """Files by name and content, folders where the content is None."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(info)
    return buffer.getvalue()


SOUND = archive_of(("./", None), ("./set", None), ("./set/train.bin", bytes(range(256)) * 3000), ("./readme", b"hello"))


class Site(http.server.ThreadingHTTPServer):
    """Sends `content`: `cut` bytes at most in one answer, from where it is asked where it `resumes`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.content, self.cut, self.resumes, self.asked = SOUND, 0, True, []
        self.shift, self.content_type = 0, "application/gzip"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/set.tar.gz"


class Page(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site = self.server
        asked = self.headers.get("Range", "")
        site.asked.append(asked)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.resumes else 0
        if begin and begin >= len(site.content):
            self.send_error(416)
            return
        rest = site.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + site.shift}-{len(site.content) - 1}/{len(site.content)}")
        self.send_header("Content-Type", site.content_type)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:site.cut] if site.cut else rest)

    def log_message(self, *_: object) -> None:
        pass


class Fetch(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.out = Path(temporary.name) / "data"
        self.site = self.open_site()
        self.urls = [self.site.url]

    def open_site(self) -> Site:
        site = Site()
        thread = threading.Thread(target=site.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(site.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(site.shutdown)
        return site

    def fetch(self, *options: str, content: bytes = SOUND) -> tuple[int, str]:
        """The exit code and what was said; `content` has the published checksum."""
        source = fetch.Source("set.tar.gz", hashlib.md5(content).hexdigest(), tuple(self.urls))
        said = io.StringIO()
        with mock.patch.dict(fetch.SOURCES, {"cifar10": source}), \
                mock.patch.object(sys, "argv", ["fetch.py", "cifar10", "--out", str(self.out), *options]), \
                contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return fetch.main(), said.getvalue()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())

    def serve(self, content: bytes) -> tuple[int, str]:
        self.site.content = content
        return self.fetch(content=content)

    def test_a_sound_archive_is_unpacked_and_only_the_folder_stays(self) -> None:
        code, said = self.fetch()
        self.assertEqual(code, 0, said)
        self.assertIn(f"done: {self.out / 'cifar10'}", said)
        self.assertRegex(said, r"set\.tar\.gz: [\d.]+ of [\d.]+ MB, 100%")
        self.assertEqual((self.out / "cifar10/set/train.bin").read_bytes(), bytes(range(256)) * 3000)
        self.assertEqual((self.out / "cifar10/readme").read_bytes(), b"hello")
        self.assertEqual(self.names(), ["cifar10"])

    def test_the_archive_may_stay_and_is_not_fetched_twice(self) -> None:
        self.assertEqual(self.fetch("--keep-archive")[0], 0)
        self.assertEqual(self.names(), ["cifar10", "set.tar.gz"])
        (self.out / "cifar10").rename(self.out / "elsewhere")
        self.assertEqual(self.fetch()[0], 0)
        self.assertEqual(len(self.site.asked), 1)

    def test_a_broken_download_goes_on_where_it_was(self) -> None:
        self.site.cut = len(SOUND) // 3
        code, said = self.fetch()
        self.assertEqual(code, NETWORK, said)
        self.assertIn("goes on where it was", said)
        self.assertEqual((self.out / "set.tar.gz.part").stat().st_size, self.site.cut)
        self.site.cut = 0
        self.assertEqual(self.fetch()[0], 0)
        self.assertEqual(self.site.asked, ["", f"bytes={len(SOUND) // 3}-"])

    def test_a_server_that_does_not_resume_sends_all_of_it(self) -> None:
        self.site.cut, self.site.resumes = 100, False
        self.assertEqual(self.fetch()[0], NETWORK)
        self.site.cut = 0
        self.assertEqual(self.fetch()[0], 0)

    def test_a_complete_part_needs_no_byte_more(self) -> None:
        self.out.mkdir()
        (self.out / "set.tar.gz.part").write_bytes(SOUND)
        self.assertEqual(self.fetch()[0], 0)

    def test_a_server_that_resumes_elsewhere_is_refused(self) -> None:
        self.site.cut = 100
        self.fetch()
        self.site.cut, self.site.shift = 0, 5
        code, said = self.fetch()
        self.assertEqual(code, NETWORK)
        self.assertIn("asked to go on at byte 100", said)

    def test_the_second_address_takes_over_from_the_first(self) -> None:
        self.urls.insert(0, "http://127.0.0.1:9/set.tar.gz")
        code, said = self.fetch()
        self.assertEqual(code, 0, said)

    def test_the_second_address_goes_on_where_the_first_broke_off(self) -> None:
        second = self.open_site()
        self.urls.append(second.url)
        self.site.cut = 100
        code, said = self.fetch()
        self.assertEqual(code, 0, said)
        self.assertEqual((self.site.asked, second.asked), ([""], ["bytes=100-"]))

    def test_a_page_in_the_archives_place_is_no_archive(self) -> None:
        self.site.content, self.site.content_type = b"<p>moved", "text/html; charset=utf-8"
        code, said = self.fetch()
        self.assertEqual(code, NETWORK)
        self.assertIn(f"{self.site.url}: answers with a page, not with the archive", said)
        self.assertEqual(self.names(), [".cifar10.lock"])
        self.urls.append(self.open_site().url)
        self.assertEqual(self.fetch()[0], 0)

    def test_every_address_that_failed_is_named(self) -> None:
        self.urls = ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"]
        code, said = self.fetch()
        self.assertEqual(code, NETWORK)
        for url in self.urls:
            self.assertIn(f"{url}: ", said)

    def test_a_mirror_takes_the_place_of_all_addresses(self) -> None:
        mirror = self.open_site()
        self.urls = ["http://127.0.0.1:9/a"]
        code, said = self.fetch("--keep-archive", "--url", f"{mirror.url}/content")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.names(), ["cifar10", "set.tar.gz"])

    def test_no_server_is_one_sentence(self) -> None:
        code, said = self.fetch("--url", "http://127.0.0.1:9/set.tar.gz")
        self.assertEqual(code, NETWORK)
        self.assertIn("http://127.0.0.1:9/set.tar.gz: ", said)
        self.assertNotIn("Traceback", said)

    def test_a_wrong_checksum_is_refused_before_anything_is_unpacked(self) -> None:
        self.site.content = SOUND + b"x"
        code, said = self.fetch()
        self.assertEqual(code, DATA)
        for part in (hashlib.md5(SOUND).hexdigest(), hashlib.md5(SOUND + b"x").hexdigest(), "set.tar.gz"):
            self.assertIn(part, said)
        self.assertFalse((self.out / "cifar10").exists())

    def test_what_would_leave_the_folder_is_refused_and_nothing_is_kept(self) -> None:
        outside = Path(self.out.parent / "evil")
        for archive in (archive_of(("good", b"1"), ("../evil", b"2")), archive_of((str(outside), b"2")),
                        archive_of(("a/../../../evil", b"2")), archive_of(("good", b"1"), link="etc")):
            code, said = self.serve(archive)
            self.assertEqual(code, DATA, said)
            self.assertIn("nothing is kept", said)
            self.assertFalse(outside.exists())
            self.assertFalse((self.out / "cifar10").exists())
            (self.out / "set.tar.gz").unlink()

    def test_broken_archives_are_one_sentence(self) -> None:
        for content in (b"no archive", SOUND[:len(SOUND) // 2], archive_of(("a", b"1"), ("a/b", b"2")), archive_of()):
            code, said = self.serve(content)
            self.assertEqual(code, DATA, said)
            self.assertIn("set.tar.gz: ", said)
            self.assertFalse((self.out / "cifar10").exists())
            (self.out / "set.tar.gz").unlink()

    def test_what_exists_is_never_overwritten(self) -> None:
        (self.out / "cifar10").mkdir(parents=True)
        code, said = self.fetch()
        self.assertEqual(code, STORAGE)
        self.assertIn("never overwritten", said)
        self.assertEqual(self.site.asked, [])

    def test_a_folder_that_cannot_be_made_is_named(self) -> None:
        self.out.write_text("a file")
        code, said = self.fetch()
        self.assertEqual(code, STORAGE)
        self.assertIn(str(self.out), said)


if __name__ == "__main__":
    unittest.main()
