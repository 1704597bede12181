"""Who made a result: date, version, commit, command line, machine; what a reader needs to make it again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

from sphereml import __version__


def provenance() -> dict[str, Any]:
    """Facts of this process as JSON values; ``commit`` is null outside of a checkout."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "commit": _commit(),
        "command": " ".join(["sphereml", *sys.argv[1:]]) if Path(sys.argv[0]).stem in _PROGRAMS else "from Python",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {device}",
        "libraries": f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}",
    }


# The installed program, ``python -m sphereml`` and ``python -m sphereml.cli.main``.
_PROGRAMS = ("sphereml", "__main__", "main")


def _commit() -> str | None:
    """The commit of the checkout that this code stands in, with ``+`` where files differ from it."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
