"""Trials of faults: a line of the program is run over something broken, and what becomes of it is told in one word.

Conventions: a trial's verdict is ``refused`` (code 2 and one line), ``rebuilt`` (code 0, a line that says so, and the
product of the undisturbed program) or ``identical`` (that product without a word).  Everything else fails: something
damaged used in silence, a traceback, more than 10 s of computing, a lost product.  Trials are functions of a seed.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fixtures_cli import GALAXY, PATCHES, Outcome, done

from sphereml.cli.main import main
from sphereml.sources import sky

LIMIT = 10.0  # seconds of computing that no refusal takes
_WALL = 60.0  # seconds in which a program that computes nothing must have ended
TINY = [
    *("data.galaxy.nside=16" if "nside" in word else word for word in GALAXY),
    *(*PATCHES, "evaluation.patches=6", "model.width=4", "model.depth=1", "name=test", "experiment=dust_demo"),
    *("training.epochs=2", "training.steps_per_epoch=2", "training.validation_batches=1", "training.batch_size=2"),
]


class Hung(BaseException):
    """Raised in a trial that takes longer than any may."""


@dataclass(frozen=True)
class Trial:
    """What a line left: the outcome, and the traceback of what it should not have raised."""

    outcome: Outcome
    crash: str = ""

    def verdict(self, unharmed: Callable[[], bool]) -> str:
        """One word; ``unharmed`` says whether the product is that of the undisturbed program."""
        code, error = self.outcome.code, self.outcome.err
        if self.crash:
            return f"CRASH {self.crash}"
        one_line = error.startswith("sphereml: ") and error.count("\n") == 1 and "Traceback" not in error
        if code == 2:
            return "refused" if one_line else f"NOT ONE LINE {error}"
        if code == 0 and unharmed():
            return "rebuilt" if re.search("made anew|going on from", error + self.outcome.out) else "identical"
        return f"SILENT code {code} {error}"


@dataclass
class Tally:
    """Verdicts of the trials of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, verdict: str, what: str) -> None:
        word = verdict.split()[0]
        self.counts[word] += 1
        if word not in ("refused", "rebuilt", "identical"):
            self.failures.append(f"{what}: {verdict}")

    def finish(self, record_property: Callable[[str, object], None]) -> None:
        """Tell the summary the counts, and fail when any trial did."""
        record_property("faults", [self.kind, dict(self.counts)])
        assert not self.failures, f"{len(self.failures)} of {self.counts.total()}\n" + "\n".join(self.failures[:20])


def attempt(*words: str | Path) -> Trial:
    """Run ``sphereml words...`` here as a process of its own would: nothing is remembered, nothing escapes."""
    sky._KEPT.clear()
    sky._opened.cache_clear()
    out, err = io.StringIO(), io.StringIO()
    crash, code = "", 1
    try:
        with redirect_stdout(out), redirect_stderr(err), _limited():
            code = main([str(word) for word in words])
    except Hung:
        crash = f"hung: {words}"
    except BaseException:
        crash = traceback.format_exc(limit=-4)
    return Trial(Outcome(code, out.getvalue(), err.getvalue()), crash)


@contextmanager
def _limited() -> Iterator[None]:
    """Raises Hung after the limit, in seconds of computing or many more of waiting."""

    def stop(*_: object) -> None:
        raise Hung

    numbers = (signal.SIGPROF, signal.SIGALRM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers[:2]:
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.setitimer(signal.ITIMER_REAL, _WALL)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def damage(path: Path, rng: np.random.Generator) -> str:
    """Flip a bit of a file or cut it short; says what was done."""
    content = bytearray(path.read_bytes())
    way = rng.choice(["flip", "flip", "flip", "cut", "empty"]) if content else "grow"
    place = int(rng.integers(len(content))) if content else 0
    if way == "flip":
        content[place] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        del content[place:]
    else:
        content = bytearray() if way == "empty" else bytearray(b"x")
    path.write_bytes(content)
    return f"{way} at {place} of {path.name}"


def snapshot(folder: Path, ignored: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The bytes of every file below a folder, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if not any(word in name for word in ignored)}


def strays(folder: Path) -> list[str]:
    """Files of a work that is under way, or was."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


@contextmanager
def full_disc(folder: Path, room: int) -> Iterator[None]:
    """A disc of its own in the place of ``folder`` with ``room`` bytes left: a small tmpfs, or writes that fail."""
    with _small_disc(folder) as mounted:
        if not mounted:
            with _failing_writes(folder, room):
                yield
            return
        with (folder / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, shutil.disk_usage(folder).free - room))
        try:
            yield
        finally:
            (folder / "ballast").unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that may not be written: a disc of that kind, or for who is not root by its permissions."""
    if os.geteuid():
        before = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
        for path, mode in before.items():
            path.chmod(mode & ~0o222)
        yield
        for path, mode in before.items():
            path.chmod(mode)
        return
    with _small_disc(folder) as mounted:
        if not mounted:
            pytest.skip("root may write everywhere, and may not mount here")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextmanager
def _small_disc(folder: Path) -> Iterator[bool]:
    """``folder`` on a tmpfs within the block, where root may mount one; what is in it comes along and goes back."""
    copy = folder.with_name(f"{folder.name}.copy")
    shutil.copytree(folder, copy)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        shutil.rmtree(copy)
        yield False
        return
    try:
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        yield True
    finally:
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)
        subprocess.run(["umount", "--lazy", folder], check=True)  # a writer of logs may still hold a file
        shutil.rmtree(folder)
        copy.rename(folder)


@contextmanager
def _failing_writes(folder: Path, room: int) -> Iterator[None]:
    """ENOSPC from every writing to files below ``folder`` after ``room`` bytes."""
    opened, fdopened, left = io.open, os.fdopen, [room]

    class Stream:
        def __init__(self, stream: io.IOBase) -> None:
            self._stream = stream

        def write(self, data: bytes | str) -> int:
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self._stream.write(data))

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

    def wrap(stream: io.IOBase, name: object, mode: str) -> object:
        place = Path(f"/proc/self/fd/{stream.fileno()}").readlink()
        return Stream(stream) if set(mode) & set("wax+") and place.is_relative_to(folder) else stream

    def fake_open(name, mode="r", *rest, **options):  # type: ignore[no-untyped-def]
        return wrap(opened(name, mode, *rest, **options), name, mode)

    def fake_fdopen(descriptor, mode="r", *rest, **options):  # type: ignore[no-untyped-def]
        return wrap(fdopened(descriptor, mode, *rest, **options), descriptor, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", fake_open)
        patch.setattr("builtins.open", fake_open)
        patch.setattr(os, "fdopen", fake_fdopen)
        yield


_MADE: dict[str, Path] = {}


def made_runs(factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs of a baseline and a network, compared; made once a session."""
    if "runs" not in _MADE:
        root = factory.mktemp("faults")
        words = [*TINY, f"data.stores={root / 'stores'}", f"output={root / 'runs'}"]
        for model in ("linear", "unet_sphere"):
            done("train", *words, f"model={model}")
        done("compare", root / "runs/test")
        _MADE["runs"] = root
    return _MADE["runs"]


def elapsed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start
