"""Where the folders that ship with the package are (``configs``, ``data_manifests``).

In a checkout they stand at the top of the repository; in an installed copy the wheel carries them inside the package
with a leading underscore (see ``force-include`` in ``pyproject.toml``).
"""

from __future__ import annotations

from pathlib import Path

from sphereml.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]


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
