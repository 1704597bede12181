"""One file from one address, going on after cuts by range requests (RFC 9110, 14) that splice no two versions.

Conventions: ``Accept-Encoding: identity``, and bytes are kept as sent, so a ``.fits.gz`` stays the archive's own file.

pooch's ``stream_download`` deletes its temporary file on every failure, so nothing could be resumed through it; its
checksums and cache folder are used next door.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from threading import Event
from typing import Protocol

import requests
import urllib3.exceptions

from sphereml import __version__
from sphereml.data.holdings import refuse_full
from sphereml.data.partials import Partial, Version
from sphereml.data.verify import FITS_BLOCK, foreign
from sphereml.errors import UserError

TIMEOUT = (10.0, 30.0)  # seconds to connect, seconds of silence
CHUNK = 1 << 16
ATTEMPTS = 3  # in a row that bring no byte further
PAUSE = 1.0  # seconds before the second of them


class DownloadError(Exception):
    """Why an address did not give the file; another may."""


class Cut(DownloadError):
    """The connection ended midway; what came is kept."""


class Stopped(Exception):
    """The user interrupted; what came is kept."""


class Watch(Protocol):
    """Hears how a fetch goes; called from several threads."""

    def say(self, line: str) -> None: ...

    def show(self, name: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes of a file are here."""


@dataclass(frozen=True)
class Transfer:
    """Brings one partial file to completeness; ``stop`` ends it from another thread."""

    partial: Partial
    watch: Watch
    stop: Event = field(default_factory=Event)

    @property
    def name(self) -> str:
        return self.partial.target.name

    def complete(self, url: str) -> Version:
        """Download what is missing, going on after cuts for as long as each attempt brings the file further.

        Raises:
            DownloadError: the address gives no such file, or the connection was cut too often.
            Stopped: ``stop`` was set.
            UserError: the disc is full or cannot be written.
        """
        furthest, idle = -1, 0
        while not self.stop.is_set():
            try:
                return self._attempt(url)
            except Cut as cut:
                size = self.partial.size()
                idle = 0 if size > furthest else idle + 1
                furthest = max(furthest, size)
                if idle >= ATTEMPTS:
                    raise Cut(f"{cut}, {size} bytes are here") from None
                self.stop.wait(PAUSE * idle)
        raise Stopped

    def _attempt(self, url: str) -> Version:
        known = self._resumable(url)
        offset = self.partial.size() if known else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": f"sphereml/{__version__}"}
        if known:
            headers |= {"Range": f"bytes={offset}-", "If-Range": known.validator}
        with _opened(url, headers) as response:
            version, status = _version(url, response), response.status_code
            if status == HTTPStatus.OK:
                return self._receive(response, version, 0)
            if known and _continues(response, offset) and not version.contradicts(known):
                return self._receive(response, known, offset)
            if not known or status not in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
                raise DownloadError(f"HTTP {status} {response.reason}")
        self.partial.discard()
        return self._attempt(url)

    def _resumable(self, url: str) -> Version | None:
        version = self.partial.version()
        fits = version is not None and version.url == url and bool(version.validator)
        return version if fits and self.partial.size() else None

    def _receive(self, response: requests.Response, version: Version, offset: int) -> Version:
        chunks = _chunks(response)
        head = b""
        if not offset:
            # Before the old bytes go: a login page must not cost the user what was already here.
            while len(head) < FITS_BLOCK and (chunk := next(chunks, b"")):
                head += chunk
            if fault := foreign(self.name, head):
                raise DownloadError(f"{fault} under that name")
        try:
            if version.length is not None:
                refuse_full(self.partial.path.parent, version.length - offset, self.name)
            if not offset:
                self._begin(version)
            self._append(head, chunks, version.length)
        except OSError as error:
            raise UserError(
                f"cannot write {self.partial.path} ({error.strerror or error})",
                "free some room or choose --to FOLDER; the same line goes on where it stopped",
            ) from None
        return self._ended(version)

    def _begin(self, version: Version) -> None:
        if lost := self.partial.size():
            self.watch.say(f"{self.name}: the server has another version or cannot resume; {lost} bytes begin anew")
        self.partial.begin(version)

    def _append(self, head: bytes, chunks: Iterator[bytes], total: int | None) -> None:
        with self.partial.path.open("ab") as sink:
            sink.write(head)
            for chunk in chunks:
                sink.write(chunk)
                sink.flush()  # the program may end while the next chunk is awaited
                self.watch.show(self.name, sink.tell(), total)
                if self.stop.is_set():
                    raise Stopped

    def _ended(self, version: Version) -> Version:
        size = self.partial.size()
        if version.length is not None and size < version.length:
            raise Cut("the connection was cut")
        if version.length is not None and size > version.length:
            self.partial.discard()
            raise DownloadError(f"{size} bytes came where {version.length} were promised")
        whole = replace(version, length=size)
        self.partial.note(whole)
        return whole


@contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            yield response
    except requests.RequestException as error:
        raise DownloadError(_reason(error)) from None


def _chunks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Cut(f"the connection was cut ({_reason(error)})") from None


def _version(url: str, response: requests.Response) -> Version:
    said = response.headers
    length = said.get("Content-Length", "")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        length = said.get("Content-Range", "").rpartition("/")[2]
    return Version(
        url=url,
        etag=said.get("ETag", ""),
        modified=said.get("Last-Modified", ""),
        length=int(length) if length.isdigit() else None,
        framed=length.isdigit() or "chunked" in said.get("Transfer-Encoding", "").lower(),
    )


def _continues(response: requests.Response, offset: int) -> bool:
    partial = response.status_code == HTTPStatus.PARTIAL_CONTENT
    return partial and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _reason(error: Exception) -> str:
    """A connection's failure in a few words; the libraries' own run to several lines."""
    text = repr(error)
    known = {
        "NameResolution": "the host is not found",
        "getaddrinfo": "the host is not found",
        "refused": "the connection is refused",
        "timed out": "no answer in time",
        "Timeout": "no answer in time",
        "CERTIFICATE": "its certificate is not trusted",
        "ProxyError": "the proxy refuses",
        "unreachable": "the network is unreachable",
        "IncompleteRead": "bytes are missing",
    }
    return next((words for sign, words in known.items() if sign in text), type(error).__name__)
