"""Where the folders that ship with the package are (``configs``, ``data_manifests``), and those of its user.

In a checkout they stand at the top of the repository; in an installed copy the wheel carries them inside the package
with a leading underscore (see ``force-include`` in ``pyproject.toml``).  Configurations of one's own stand before the
shipped ones: in folders named with ``--config-dir``, in those of the environment's ``SPHEREML_CONFIGS`` (separated as
in PATH), and in ``./configs``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sphereml.errors import UserError

CONFIGS_VARIABLE = "SPHEREML_CONFIGS"
_PACKAGE = Path(__file__).resolve().parents[1]
_NAMED: ContextVar[tuple[Path, ...]] = ContextVar("folders of configurations named by the caller", default=())


def resource_folder(name: str, package: Path = _PACKAGE) -> Path:
    """The folder of shipped files called ``name``.

    Args:
        name: ``"configs"`` or ``"data_manifests"``.
        package: folder of the installed package.
    Raises:
        UserError: neither the checkout nor the package has it.
    """
    checkout = package.parent
    # pyproject.toml tells a checkout from site-packages, where an unrelated "configs" may stand beside us.
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    packaged = package / f"_{name}"
    if packaged.is_dir():
        return packaged
    raise UserError(f"the folder {name!r} is missing from this installation", "reinstall sphereml")


@contextmanager
def searching(folders: Sequence[Path]) -> Iterator[None]:
    """Look for configurations in these folders first, within the block.

    Raises:
        UserError: one of them is no folder.
    """
    for folder in folders:
        _refuse_no_folder(folder, "--config-dir")
    token = _NAMED.set((*folders, *_NAMED.get()))
    try:
        yield
    finally:
        _NAMED.reset(token)


def config_folders() -> list[Path]:
    """Folders of configurations, absolute, in the order in which they are searched; the shipped one comes last.

    Raises:
        UserError: ``SPHEREML_CONFIGS`` names no folder.
    """
    listed = [Path(one).expanduser() for one in os.environ.get(CONFIGS_VARIABLE, "").split(os.pathsep) if one]
    for folder in listed:
        _refuse_no_folder(folder, CONFIGS_VARIABLE)
    here = [folder for folder in (Path("configs"),) if folder.is_dir()]
    found = [folder.resolve() for folder in (*_NAMED.get(), *listed, *here, resource_folder("configs"))]
    shipped = found[-1]
    return [*dict.fromkeys(folder for folder in found if folder != shipped), shipped]


def _refuse_no_folder(folder: Path, where: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{where} names {folder}, which is no folder", "name a folder with experiment/, model/, ...")
