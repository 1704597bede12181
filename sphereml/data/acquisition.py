"""One file into the data folder: found there, adopted from a copy, or downloaded from the first mirror that has it.

Conventions: the file appears under its own name only after it was found right (see ``data.verify``).  A failed or
interrupted download leaves ``NAME.partial``, where the next one goes on; who holds that file's lock may write it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import urlsplit

from sphereml.data.downloads import DownloadError, Stopped, Transfer, Watch
from sphereml.data.holdings import Holdings, Pin, lock, refuse_full, spell_bytes
from sphereml.data.manifests import UNKNOWN, ProductFile
from sphereml.data.partials import Partial
from sphereml.data.verify import inspect
from sphereml.errors import UserError

_ADOPT = "adopt a copy with --from FOLDER"


@dataclass(frozen=True)
class Request:
    """What is asked: fill ``holdings``, from the folder ``source`` first, with ``jobs`` downloads at a time.

    ``accept_changed`` takes and pins a file whose provisional or pinned checksum is another one.
    """

    holdings: Holdings
    source: Path | None = None
    offline: bool = False
    accept_changed: bool = False
    jobs: int = 4


@dataclass(frozen=True)
class Fetched:
    """A file that is here now; ``how`` is ``present``, ``adopted`` or ``downloaded``."""

    name: str
    path: Path
    how: str


@dataclass(frozen=True)
class Acquisition:
    """One file to bring, as ``request`` says; ``stop`` ends it from another thread."""

    file: ProductFile
    request: Request
    watch: Watch
    stop: Event

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def target(self) -> Path:
        return self.request.holdings.path(self.name)

    def run(self) -> Fetched:
        """Find, adopt or download the file; raises UserError when none of them can be done, Stopped when told to."""
        try:
            return self._present() or self._bring()
        except OSError as error:
            raise UserError(
                f"cannot bring {self.name} into {self.request.holdings.folder} ({error.strerror or error})",
                "see to its permissions and its room, or choose another folder with --to",
            ) from None

    def _bring(self) -> Fetched:
        copy = copy_at(self.request.source, self.name)
        if copy is None:
            self._refuse_unreachable()
        with self._alone() as partial:
            if fetched := self._present():  # by whoever was waited for
                return fetched
            if copy is not None:
                self._adopt(copy)
                partial.discard()
                return self._done("adopted")
            self._from_mirrors(partial)
            partial.path.replace(self.target)
            partial.record.unlink(missing_ok=True)
            return self._done("downloaded")

    def _done(self, how: str) -> Fetched:
        self.watch.say(f"{self.name}: {how}, {spell_bytes(self.target.stat().st_size)}")
        return Fetched(self.name, self.target, how)

    def _present(self) -> Fetched | None:
        path = self.request.holdings.find(self.name)
        if path is None:
            return None
        pin = self.request.holdings.pins().get(self.name)
        if pin is None or pin.size != path.stat().st_size:  # a whole reading is left to `data verify`
            try:
                self._settle(path, str(path), mend=f"remove {path} and fetch it again, or take it with")
            except DownloadError as fault:
                raise UserError(f"{path} is wrong ({fault})", "remove it; the same line fetches it again") from None
        return Fetched(self.name, path, "present")

    def _refuse_unreachable(self) -> None:
        folder = self.request.holdings.folder
        if not self.file.urls:
            place = "folder at the archive" if self.file.is_glob else "address"
            raise UserError(f"the {place} of {self.name} is not known here, and it is not in {folder}", _ADOPT)
        if self.request.offline:
            raise UserError(
                f"{self.name} is not in {folder} and --offline forbids downloads", f"allow them, or {_ADOPT}"
            )

    def _adopt(self, copy: Path) -> None:
        scratch = self.target.with_name(f".{self.name}.{os.getpid()}.adopted")
        # A crash may have left it as a link to a file of the user's, which a copy would overwrite.
        scratch.unlink(missing_ok=True)
        try:
            _link_or_copy(copy.resolve(), scratch)
            self._settle(scratch, str(copy), mend="give another copy, or take it with")
            scratch.replace(self.target)
        except DownloadError as fault:
            raise UserError(f"{copy} is wrong ({fault})", "give another copy, or leave --from out") from None
        finally:
            scratch.unlink(missing_ok=True)

    def _from_mirrors(self, partial: Partial) -> None:
        begun = partial.version()
        # A new mirror would start from zero, so the one that began goes on if it can.
        urls = sorted(self.file.urls, key=lambda url: begun is None or url != begun.url)
        failures = []
        for rest, url in zip(range(len(urls) - 1, -1, -1), urls, strict=True):
            try:
                return self._from_mirror(url, partial)
            except DownloadError as error:
                failures.append(f"{urlsplit(url).netloc}: {error}")
                self.watch.say(f"{self.name}: {failures[-1]}{'; the next mirror is tried' if rest else ''}")
        raise UserError(
            f"no mirror gives {self.name} ({'; '.join(failures)})",
            f"see to the network and repeat the line, which goes on where it stopped, or {_ADOPT}",
        )

    def _from_mirror(self, url: str, partial: Partial) -> None:
        resumed = partial.size() > 0
        begun = partial.version()
        if begun is None or not partial.is_complete():
            begun = Transfer(partial, self.watch, self.stop).complete(url)
        try:
            if not begun.framed and not self._is_checkable():
                raise DownloadError("it states no length, so that a cut would not be noticed")
            self._settle(partial.path, begun.url, mend=f"remove {partial.path} to download it again, or take it with")
        except DownloadError as fault:
            partial.discard()
            if not resumed:
                raise
            self.watch.say(f"{self.name}: the resumed file is wrong ({fault}); from the start")
            self._from_mirror(url, partial)

    def _is_checkable(self) -> bool:
        return isinstance(self.file.size, int) or self.request.holdings.expected(self.file)[0] != UNKNOWN

    def _settle(self, path: Path, source: str, mend: str) -> None:
        """Pin a file that is right, new or accepted; DownloadError when it is wrong, UserError when it has changed."""
        holdings = self.request.holdings
        finding = inspect(path, self.file, holdings)
        if finding.state == "wrong":
            raise DownloadError(finding.fault)
        if finding.state == "changed" and not self.request.accept_changed:
            raise UserError(f"{self.name} is not the file expected ({finding.fault})", f"{mend} --accept-changed")
        if path.parent == holdings.folder:
            holdings.pin(self.name, Pin(finding.checksum, path.stat().st_size, source))

    @contextmanager
    def _alone(self) -> Iterator[Partial]:
        """Hold the partial file: another thread or process that wants the same file waits, and finds it fetched."""
        partial = Partial(self.target)
        held = self._claim(partial.path)
        try:
            yield partial
        finally:
            if not partial.size():
                partial.path.unlink(missing_ok=True)
                partial.record.unlink(missing_ok=True)
            held.close()

    def _claim(self, path: Path) -> BinaryIO:
        told = False
        while not self.stop.is_set():
            stream = path.open("ab")
            if lock(stream.fileno(), wait=False):
                # Whoever held it may have renamed or removed it meanwhile; then the lock is on a file gone.
                if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    return stream
            elif not told:
                self.watch.say(f"{self.name}: another process is fetching it; waiting")
                told = True
            stream.close()
            self.stop.wait(0.1)
        raise Stopped


def copy_at(source: Path | None, name: str) -> Path | None:
    """The file of that name in the folder that files are adopted from."""
    return source / name if source is not None and (source / name).is_file() else None


def _link_or_copy(copy: Path, scratch: Path) -> None:
    try:
        os.link(copy, scratch)
    except OSError:
        refuse_full(scratch.parent, copy.stat().st_size, copy.name)
        shutil.copyfile(copy, scratch)
