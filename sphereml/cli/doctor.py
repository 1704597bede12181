"""``sphereml doctor``: what this installation finds around it, what is wrong with it, and how to mend it.

Exit code 2 where something that every job needs is missing; notes alone leave it at 0.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from sphereml import __version__
from sphereml.cli.output import say, say_json
from sphereml.errors import UserError

_GIB = 2**30
_FEW_GIB = 4


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``state`` is ``ok``, ``note`` or ``fault``; ``mend`` says what to do about these."""

    what: str
    state: str
    found: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON list of findings")


def run(options: argparse.Namespace) -> None:
    findings = [one for look in _LOOKS for one in look()]
    if options.json:
        say_json([asdict(one) for one in findings])
    else:
        for one in findings:
            say(f"{one.state:5s} {one.what:18s} {one.found}" + (f"\n{'':24s} -> {one.mend}" if one.mend else ""))
    faults = [one for one in findings if one.state == "fault"]
    if faults:
        raise UserError(f"{len(faults)} faults, first {faults[0].what}: {faults[0].found}", faults[0].mend)


def _program() -> Iterator[Finding]:
    where = Path(__file__).parents[1]
    yield Finding("sphereml", "ok", f"{__version__} in {where}")
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    """Every requirement of this package, and what its extras would add."""
    try:
        listed = requires("sphereml") or []
    except PackageNotFoundError:
        yield Finding("packages", "note", "sphereml runs from a folder, not installed", "pip install -e .")
        return
    extras: dict[str, list[str]] = {}
    for line in listed:
        named = re.search(r"extra == ['\"]([\w-]+)", line)
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        if named:
            extras.setdefault(named[1], []).append(name)
        else:
            yield _package(name, line)
    for extra, names in extras.items():
        lacking = [name for name in names if _version(name) is None]
        mend = f"pip install 'sphereml[{extra}]' where it is wanted" if lacking else ""
        yield Finding(f"extra {extra}", "ok", f"lacks {', '.join(lacking)}" if lacking else "installed", mend)


def _package(name: str, requirement: str) -> Finding:
    found = _version(name)
    if found is None:
        return Finding(name, "fault", "missing", f"pip install '{requirement}'")
    if not _satisfies(found, requirement):
        return Finding(name, "fault", f"{found}, but {requirement} is needed", f"pip install '{requirement}'")
    return Finding(name, "ok", found)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _satisfies(found: str, requirement: str) -> bool:
    if find_spec("packaging") is None:
        return True
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(found, prereleases=True)


def _threads() -> Iterator[Finding]:
    import torch

    from sphereml.harmonics.transforms import threads

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} cores, torch {torch.get_num_threads()}, ducc0 {threads()}, OMP_NUM_THREADS={said or 'not set'}"
    wrong = max(torch.get_num_threads(), threads()) > usable
    yield Finding("threads", "note" if wrong else "ok", found, f"export OMP_NUM_THREADS={usable}" if wrong else "")


def _memory() -> Iterator[Finding]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(name) * page / _GIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return
    little = total < _FEW_GIB
    mend = "keep nside at 128 or below, or train on tiles" if little else ""
    yield Finding("memory", "note" if little else "ok", f"{total:.1f} GiB, {free:.1f} GiB of it unused", mend)


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        free, total = (one / _GIB for one in torch.cuda.mem_get_info())
        yield Finding("gpu", "ok", f"{torch.cuda.get_device_name(0)}, {free:.1f} of {total:.1f} GiB free")
        return
    built = (
        f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for the CPU alone"
    )
    there = shutil.which("nvidia-smi") is not None
    mend = "install torch's CUDA build (docs: GPU)" if there else ""
    yield Finding("gpu", "note" if there else "ok", f"none in use; {built}", mend)


def _places() -> Iterator[Finding]:
    """Where data and configurations are looked for, and whether results can be written."""
    from sphereml.config.resources import config_folders
    from sphereml.data.holdings import FOLDER_VARIABLE, SAMPLE_VARIABLE, open_holdings

    folders = ", ".join(map(str, config_folders()))
    yield Finding(
        "configurations", "ok", f"{folders} (SPHEREML_CONFIGS={os.environ.get('SPHEREML_CONFIGS', 'not set')})"
    )
    cache = open_holdings(None).folder
    yield _writable("cache and data", cache, f"export {FOLDER_VARIABLE}=FOLDER with a folder of yours")
    sample = os.environ.get(SAMPLE_VARIABLE)
    if sample and not Path(sample).is_dir():
        yield Finding(SAMPLE_VARIABLE, "note", f"{sample} is no folder", "name the folder of the real maps")
    else:
        yield Finding(SAMPLE_VARIABLE, "ok", sample or "not set (the folder of real maps, for data=real_sample)")
    yield _writable("runs and stores", Path.cwd(), "change to a folder of yours, or say output=FOLDER")


def _writable(what: str, folder: Path, mend: str) -> Finding:
    standing = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(standing, os.W_OK):
        return Finding(what, "note", f"{folder} cannot be written", mend)
    free = shutil.disk_usage(standing).free / _GIB
    full = f"{folder}, {free:.1f} GiB free" + ("" if folder.exists() else " (not made yet)")
    return Finding(what, "note" if free < 1 else "ok", full, "make room, or " + mend if free < 1 else "")


_LOOKS = (_program, _packages, _threads, _memory, _gpu, _places)
