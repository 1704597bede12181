"""Experiments in files of one's own: ``sphereml train FILE.yaml``.

An experiment file is a YAML file as those in ``configs/experiment``: it starts with ``# @package _global_``, may choose
from the groups under ``defaults`` and sets keys.  Without that first line it is taken as if it were there; without a
``name`` the experiment is called as the file is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sphereml.config.bounds import refuse_bomb, refuse_special
from sphereml.config.resources import searching
from sphereml.errors import UserError

PACKAGE = "# @package _global_"
_ENDINGS = (".yaml", ".yml")
_NAME = "named_on_the_command_line"


def is_experiment_file(word: str) -> bool:
    """Whether a word of the command line is the file of an experiment, and no override."""
    return word.endswith(_ENDINGS) and (re.match(r"\+*[A-Za-z_][\w.]*=", word) is None or Path(word).is_file())


@contextmanager
def named_experiment(words: Sequence[str]) -> Iterator[list[str]]:
    """The words with ``experiment=NAME`` in place of a file, which is found by that name within the block.

    Raises:
        UserError: the file is missing or no experiment, or two experiments are named.
    """
    files = [word for word in words if is_experiment_file(word)]
    if not files:
        yield list(words)
        return
    rest = [word for word in words if word not in files]
    if len(files) > 1 or any(word.startswith("experiment=") for word in rest):
        raise UserError(f"{files[0]} is one of two experiments that are named", "name one")
    with tempfile.TemporaryDirectory(prefix="sphereml-") as folder:
        place = Path(folder) / "experiment" / f"{_NAME}.yaml"
        place.parent.mkdir()
        place.write_text(_complete(Path(files[0]).expanduser()), encoding="utf-8")
        with searching([Path(folder)]):
            yield [f"experiment={_NAME}", *rest]


def read_experiment(path: Path) -> dict[str, Any]:
    """The content of an experiment file.

    Raises:
        UserError: it cannot be read, is no YAML, holds no keys, or would not be merged at the top of a configuration.
    """
    text = read_text(path)
    content = _content(text, path)
    if not re.search(rf"^{PACKAGE}\s*$", text, re.MULTILINE):
        raise UserError(f"{path} is merged at the wrong place", f"let its first line be {PACKAGE}")
    return content


def _content(text: str, path: Path) -> dict[str, Any]:
    refuse_bomb(text, path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 1})"
        raise UserError(f"{path} is no YAML file{place}", "mend it, or see `sphereml config show`") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} holds no keys of an experiment", "see `sphereml config show` for the keys")
    return content


def _complete(path: Path) -> str:
    """The text of a file with what it may leave out."""
    text = read_text(path)
    named = "name" in _content(text, path)
    text = text if re.search(rf"^{PACKAGE}\s*$", text, re.MULTILINE) else f"{PACKAGE}\n{text}"
    name = re.sub(r"[^\w.+-]+", "_", path.stem).lstrip("_.+-") or "experiment"
    return text if named else f"{text.rstrip()}\nname: {name}\n"


def read_text(path: Path) -> str:
    """The text of a YAML file; raises UserError when it cannot be read."""
    refuse_special(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}", "name an experiment file, or write one: `sphereml config new`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})", "name a YAML file in UTF-8") from None
