#!/usr/bin/python3
"""Fetches a published data set, for those who have a network, and unpacks it where the programs read it.

    experiments/fetch.py cifar10 --out data        then --set data.set=cifar10 --set data.path=data/cifar10
    experiments/fetch.py cinic10 --out data        then --set data.set=images --set data.path=data/cinic10

The archive must have the published checksum. A download that was interrupted goes on where it was. Nothing that exists
is overwritten. Exit codes: 2 usage; 3 wrong checksum or archive; 4 folder or disk; 5 network; 130 interrupted.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from common.errors import DATA, INTERRUPTED, NETWORK, STORAGE, CompareError
from common.paths import plain_path

BLOCK = 1 << 20
SILENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Source:
    file_name: str
    md5: str
    urls: tuple[str, ...]  # tried in this order


SOURCES = {
    "cifar10": Source("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
                      ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)),
    "cifar100": Source("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
                       ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",)),
    "cinic10": Source("CINIC-10.tar.gz", "6ee4d0c996905fe93221de577967a372",
                      ("https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
                       "https://datashare.ed.ac.uk/server/api/core/bitstreams/"
                       "e8e186cc-2688-48f1-aa5a-3fda1a43f8b6/content")),
}


class Progress:
    """A line that renews itself on a terminal; elsewhere a line at the beginning and at the end."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total = what, total
        self.is_terminal = sys.stderr.isatty()
        self.shown = 0.0

    def show(self, done: int, *, at_end: bool = False) -> None:
        now = time.monotonic()
        if not at_end and (now - self.shown < 0.2 if self.is_terminal else self.shown > 0):
            return
        self.shown = now
        of = f" of {self.total / 1e6:.1f} MB, {100 * done / self.total:.0f}%" if self.total else " MB"
        start, end = ("\r\x1b[K", "\n" if at_end else "") if self.is_terminal else ("", "\n")
        print(f"{start}{self.what}: {done / 1e6:.1f}{of}", end=end, file=sys.stderr, flush=True)


def open_at(url: str, offset: int) -> tuple[http.client.HTTPResponse | None, int]:
    """What follows `offset`, and where it begins: at 0 where the server does not resume. None: nothing follows."""
    request = urllib.request.Request(url, headers={"User-Agent": "headstart-fetch"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:
            return None, offset
        raise
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise CompareError(NETWORK, f"{url}: answers with a page, not with the archive")
    if response.status != 206:
        return response, 0
    begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begin != str(offset):
        response.close()
        raise CompareError(NETWORK, f"{url}: asked to go on at byte {offset}, the server sends from '{begin}'")
    return response, offset


def download(url: str, part: Path) -> None:
    """Completes `part`."""
    held = part.stat().st_size if part.exists() else 0
    try:
        response, begin = open_at(url, held)
        if response is None:
            return
        with response, part.open("r+b" if part.exists() else "xb") as out:
            out.truncate(begin)
            out.seek(begin)
            length = response.headers.get("Content-Length")
            total = begin + int(length) if length and length.isdigit() else None
            progress = Progress(part.name.removesuffix(".part"), total)
            done = begin
            while block := response.read(BLOCK):
                progress.show(done)
                out.write(block)
                done += len(block)
            progress.show(done, at_end=True)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError,
            ssl.SSLError) as error:
        raise CompareError(NETWORK, f"{url}: {error}") from error
    if total is not None and done < total:
        raise CompareError(NETWORK, f"{url}: the connection ended after {done} of {total} bytes")


def download_from_any(urls: Sequence[str], part: Path) -> None:
    """Completes `part`: what one address left unfinished, the next goes on with."""
    said = []
    for url in urls:
        try:
            return download(url, part)
        except CompareError as error:
            if error.code != NETWORK:
                raise
            said.append(str(error))
    raise CompareError(NETWORK, f"{'; '.join(said)}; the same command goes on where it was")


def md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Plain files and folders within `folder`, which is new; anything else is refused."""
    count = 0
    progress = Progress("unpacked", None)
    try:
        with tarfile.open(archive, "r|*") as tar:
            unpacked = 0
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\0" in member.name:
                    raise CompareError(DATA, f"{archive}: '{member.name}' would leave the folder; nothing is kept")
                target = folder.joinpath(*path.parts)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise CompareError(DATA, f"{archive}: '{member.name}' is neither a file nor a folder; nothing is kept")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    shutil.copyfileobj(content, out, BLOCK)
                count += 1
                unpacked += member.size
                progress.show(unpacked)
            progress.show(unpacked, at_end=True)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise CompareError(DATA, f"{archive}: broken archive ({error})") from error
    if count == 0:
        raise CompareError(DATA, f"{archive}: there are no files in it")


def refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise CompareError(STORAGE, f"{target}: exists already and is never overwritten; choose another --out")


def fetch(name: str, source: Source, out: Path, *, keeps_archive: bool = False) -> Path:
    target = out / name
    refuse_existing(target)
    out.mkdir(parents=True, exist_ok=True)
    with (out / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompareError(STORAGE, f"{out}: another process fetches {name} there") from None
        refuse_existing(target)
        archive = out / source.file_name
        if not archive.exists():
            part = out / f"{source.file_name}.part"
            download_from_any(source.urls, part)
            part.rename(archive)
        found = md5_of(archive)
        if found != source.md5:
            raise CompareError(DATA, f"{archive}: MD5 {found}, published is {source.md5}; remove it to fetch it anew")
        work = out / f".{name}.unpacking"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            unpack(archive, work)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not keeps_archive:
            archive.unlink()
        os.unlink(lock.name)
    return target


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("name", choices=SOURCES)
    result.add_argument("--out", type=plain_path, required=True, metavar="DIR", help="makes DIR/NAME")
    result.add_argument("--url", help="a mirror, in place of the published addresses; its archive must have the "
                                       "published checksum too")
    result.add_argument("--keep-archive", action="store_true", help="leave the archive beside the folder")
    return result


def main() -> int:
    arguments = parser().parse_args()
    source = SOURCES[arguments.name]
    if arguments.url:
        source = replace(source, urls=(arguments.url,))
    try:
        print(f"done: {fetch(arguments.name, source, arguments.out, keeps_archive=arguments.keep_archive)}")
        return 0
    except CompareError as error:
        print(error, file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"{error.filename or arguments.out}: {error.strerror or error}", file=sys.stderr)
        return STORAGE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
