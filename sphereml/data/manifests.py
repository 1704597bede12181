"""Data products described in ``data_manifests/*.yaml``: files, mirrors, sizes, checksums, units, licences.

Conventions: what is not known is said to be ``unknown``, never guessed.  Fields count from 0.  A size is in bytes, or
an approximate text such as ``~318 MiB``.  A checksum is ``sha256:<hex>`` or ``md5:<hex>``; a provisional one was never
checked against the archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sphereml.config.resources import resource_folder
from sphereml.data.units import parse_unit
from sphereml.errors import UserError

UNKNOWN = "unknown"
_Described = TypeVar("_Described", "Product", "ProductFile")


@dataclass(frozen=True)
class ProductFile:
    """One file of a product; ``name`` may be a glob where a product has many alike, ``urls`` then end in a folder.

    Raises:
        UserError: a value breaks the conventions above.
    """

    name: str
    unit: str
    urls: tuple[str, ...] = ()
    size: int | str = UNKNOWN
    checksum: str = UNKNOWN
    checksum_provisional: bool = False
    fields: dict[str, int] | None = None
    nside: int | str = UNKNOWN
    order: str = UNKNOWN
    note: str = ""

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and bool(self.name), "a file's name", self.name)
        _require(all(url.startswith(("http://", "https://")) for url in self.urls), f"urls of {self.name}", self.urls)
        _require(_is_size(self.size), f"size of {self.name}", self.size)
        _require(_is_checksum(self.checksum), f"checksum of {self.name}", self.checksum)
        _require(_is_columns(self.fields), f"fields of {self.name}", self.fields)
        _require(_is_nside(self.nside), f"nside of {self.name}", self.nside)
        _require(self.order in ("RING", "NESTED", "none", UNKNOWN), f"order of {self.name}", self.order)
        if self.unit != UNKNOWN:
            parse_unit(self.unit)


@dataclass(frozen=True)
class Product:
    """Files that belong together, their licence and how to read them.

    ``frame`` is ``G``, ``C``, ``E`` or ``unknown``; ``reader`` the kind of file (``healpix``, ``car_cube``, ...).
    """

    name: str
    title: str
    files: tuple[ProductFile, ...]
    licence: str
    citation: str
    frame: str
    reader: str

    def __post_init__(self) -> None:
        for key in ("name", "title", "licence", "citation", "reader"):
            value = getattr(self, key)
            _require(isinstance(value, str) and bool(value), f"{key} of product {self.name}", value)
        _require(self.frame in ("G", "C", "E", UNKNOWN), f"frame of product {self.name}", self.frame)
        _require(bool(self.files), f"files of product {self.name}", list(self.files))


def list_products(folder: Path | None = None) -> list[Product]:
    """Every product of every manifest, sorted by name.

    Raises:
        UserError: a manifest is malformed (the message names it), or two products share a name.
    """
    folder = folder or resource_folder("data_manifests")
    products = [product for path in sorted(folder.glob("*.yaml")) for product in load_manifest(path)]
    products.sort(key=lambda product: product.name)
    for one, other in pairwise(products):
        if one.name == other.name:
            raise UserError(f"two products are called {one.name!r}", f"rename one in {folder}")
    return products


def load_manifest(path: Path) -> list[Product]:
    """Products of one file ``{products: [...]}``; raises UserError naming the file when it breaks the schema."""
    try:
        described = yaml.safe_load(path.read_text())
        _require(
            isinstance(described, dict) and set(described) == {"products"}, "the top level", "not {products: [...]}"
        )
        return [_product(entry) for entry in described["products"]]
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise UserError(f"manifest {path.name} cannot be read ({error})", "mend its YAML") from None
    except UserError as error:
        raise UserError(f"manifest {path.name}: {error.what}", error.mend) from None


def _product(entry: dict[str, Any]) -> Product:
    files = tuple(_described(ProductFile, {**file, "urls": tuple(file.get("urls", ()))}) for file in entry["files"])
    return _described(Product, {**entry, "files": files})


def _described(kind: type[_Described], entry: dict[str, Any]) -> _Described:
    known = {one.name for one in fields(kind)}
    surplus = sorted(set(entry) - known)
    if surplus:
        raise UserError(
            f"unknown key {surplus[0]!r} in {entry.get('name')!r}", f"known keys: {', '.join(sorted(known))}"
        )
    return kind(**entry)


def _require(holds: bool, what: str, value: object) -> None:
    if not holds:
        raise UserError(f"{what} is invalid ({value!r})", "see sphereml/data/manifests.py for the schema")


def _is_size(size: object) -> bool:
    if isinstance(size, str):
        return size == UNKNOWN or re.fullmatch(r"~\d+ [KMG]iB", size) is not None
    return isinstance(size, int) and size > 0


def _is_checksum(checksum: object) -> bool:
    return isinstance(checksum, str) and bool(re.fullmatch(r"unknown|sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum))


def _is_columns(columns: object) -> bool:
    return columns is None or (
        isinstance(columns, dict) and all(isinstance(i, int) and i >= 0 for i in columns.values())
    )


def _is_nside(nside: object) -> bool:
    return nside in (UNKNOWN, "none") or (isinstance(nside, int) and nside > 0 and nside & (nside - 1) == 0)
