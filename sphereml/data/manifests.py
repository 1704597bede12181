"""Data products described in ``data_manifests/*.yaml``: files, mirrors, sizes, checksums, units, licences.

Conventions: what is not known is said to be ``unknown``, never guessed.  Fields count from 0.  A size is in bytes, or
an approximate text such as ``~318 MiB``.  A checksum is ``sha256:<hex>`` or ``md5:<hex>``; a provisional one was never
checked against the archive.  One entry may stand for many alike files, each of the stated size: ranges in braces
(``CAR_{A..I}{01..18}.fits``) spell every name, a glob (``HPX_*.fits``) is for files whose names are not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from itertools import product as combinations
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sphereml.config.bounds import refuse_bomb, refuse_special
from sphereml.config.resources import resource_folder
from sphereml.data.units import parse_unit
from sphereml.errors import UserError, meant

UNKNOWN = "unknown"
# The file in the data folder that holds the checksums of those that came.
PINS = "checksums.json"
# No survey has more; a range could stand for any number.
_MOST_FILES = 100_000
_Described = TypeVar("_Described", "Product", "ProductFile")
_RANGE = re.compile(r"\{([A-Z]\.\.[A-Z]|\d+\.\.\d+)\}")
_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class ProductFile:
    """One file of a product, or many alike; the ``urls`` of many are folders and end in ``/``.

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
        _require(not re.search(r"[/\0]|^\.|\.partial(\.json)?$", self.name), "a file's name", self.name)
        _require(self.name != PINS, "a file's name (the list of checksums is called so)", self.name)
        _require(all(url.startswith(("http://", "https://")) for url in self.urls), f"urls of {self.name}", self.urls)
        _require(0 < _count_spelled(self.name) <= _MOST_FILES, "the range in a file's name", self.name)
        _require(self._addresses_fit(), f"urls of {self.name}", self.urls)
        _require(_is_size(self.size), f"size of {self.name}", self.size)
        _require(_is_checksum(self.checksum), f"checksum of {self.name}", self.checksum)
        _require(_is_columns(self.fields), f"fields of {self.name}", self.fields)
        _require(_is_nside(self.nside), f"nside of {self.name}", self.nside)
        _require(self.order in ("RING", "NESTED", "none", UNKNOWN), f"order of {self.name}", self.order)
        if self.unit != UNKNOWN:
            parse_unit(self.unit)

    @property
    def is_glob(self) -> bool:
        """Whether only the files at hand can tell the names."""
        return any(sign in self.name for sign in "*?[")

    @property
    def bytes(self) -> int | None:
        """The size of one file, approximate where the manifest's is; None where it is unknown."""
        if isinstance(self.size, int):
            return self.size
        match = re.fullmatch(r"~(\d+) ([KMG])iB", self.size)
        return int(match[1]) * _BYTES[match[2]] if match else None

    def each(self) -> tuple[ProductFile, ...]:
        """The single files that a name with ranges stands for; a glob, like a plain name, stands for itself."""
        names = _spelled(self.name)
        return tuple(self.called(name) for name in names) if names != [self.name] else (self,)

    def called(self, name: str) -> ProductFile:
        """One of the files that this entry stands for."""
        return replace(self, name=name, urls=tuple(url + name if url.endswith("/") else url for url in self.urls))

    def _addresses_fit(self) -> bool:
        many = self.is_glob or _spelled(self.name) != [self.name]
        # The names behind a glob are not known, so no address of theirs is.
        return not (self.is_glob and self.urls) and all(url.endswith("/") == many for url in self.urls)


@dataclass(frozen=True)
class Product:
    """Files that belong together, their licence and how to read them.

    ``frame`` is ``G``, ``C``, ``E`` or ``unknown``; ``reader`` the kind of file (``healpix``, ``car_cube``, ...);
    ``beam_arcmin`` the FWHM, None where it is unknown; ``released`` when the files were published (a year, or
    ``YYYY-MM-DD``) and ``zero_level`` what an intensity's zero is, both of which change between versions of a product;
    ``manifest`` the stem of the file that describes it.
    """

    name: str
    title: str
    files: tuple[ProductFile, ...]
    licence: str
    citation: str
    frame: str
    reader: str
    beam_arcmin: float | None = None
    released: str = UNKNOWN
    zero_level: str = UNKNOWN
    manifest: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "title", "licence", "citation", "reader"):
            value = getattr(self, key)
            _require(isinstance(value, str) and bool(value), f"{key} of product {self.name}", value)
        _require(self.frame in ("G", "C", "E", UNKNOWN), f"frame of product {self.name}", self.frame)
        dated = isinstance(self.released, str) and re.fullmatch(r"unknown|\d{4}(-\d{2}-\d{2})?", self.released)
        _require(bool(dated), f"released of product {self.name}", self.released)
        _require(bool(self.files), f"files of product {self.name}", list(self.files))
        beam = self.beam_arcmin
        _require(beam is None or (isinstance(beam, int | float) and beam > 0), f"beam_arcmin of {self.name}", beam)


def list_products(folder: Path | None = None) -> list[Product]:
    """Every product of every manifest, sorted by name.

    Raises:
        UserError: no such folder, a malformed manifest (the message names it), or two products of one name.
    """
    folder = folder or resource_folder("data_manifests")
    if not folder.is_dir():
        raise UserError(f"there is no folder of manifests {folder}", "give one that holds .yaml files")
    products = [product for path in sorted(folder.glob("*.yaml")) for product in load_manifest(path)]
    products.sort(key=lambda product: product.name)
    for one, other in pairwise(products):
        if one.name == other.name:
            raise UserError(f"two products are called {one.name!r}", f"rename one in {folder}")
    return products


def product_facts(file_name: str) -> dict[str, str]:
    """What the shipped manifests say of a file: ``product``, ``released``, ``zero_level``; empty if none does."""
    return dict(_facts().get(file_name, {}))


@lru_cache(maxsize=1)
def _facts() -> dict[str, dict[str, str]]:
    return {
        file.name: {"product": product.name, "released": product.released, "zero_level": product.zero_level}
        for product in list_products()
        for entry in product.files
        for file in entry.each()
    }


def find_products(names: Sequence[str], folder: Path | None = None) -> list[Product]:
    """The products called so, each once; the name of a manifest (``planck``) means all of its products.

    Raises:
        UserError: a name is neither (the message offers the nearest), or see :func:`list_products`.
    """
    products = list_products(folder)
    known = sorted({product.name for product in products} | {product.manifest for product in products})
    for name in names:
        if name not in known:
            raise UserError(f"there is no product {name!r}", f"{meant(name, known)}see `sphereml data list`")
    return [product for product in products if {product.name, product.manifest} & set(names)]


def load_manifest(path: Path) -> list[Product]:
    """Products of one file ``{products: [...]}``; raises UserError naming the file when it breaks the schema."""
    refuse_special(path)
    try:
        text = path.read_text(encoding="utf-8")
        refuse_bomb(text, path)
        described = yaml.safe_load(text)
        _require(
            isinstance(described, dict) and set(described) == {"products"}, "the top level", "not {products: [...]}"
        )
        return [replace(_product(entry), manifest=path.stem) for entry in described["products"]]
    except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
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


def _spelled(name: str) -> list[str]:
    """Every name that the ranges of ``name`` stand for; numbers keep the width of the range's first."""
    parts = _RANGE.split(name)  # literal, range, literal, ...
    choices = [_range_words(part) if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(words) for words in combinations(*choices)]


def _count_spelled(name: str) -> int:
    """How many names that are, without spelling them."""
    return math.prod(max(0, last + 1 - first) for first, last in map(_range_ends, _RANGE.findall(name)))


def _range_ends(text: str) -> tuple[int, int]:
    first, last = text.split("..")
    return (int(first), int(last)) if first.isdigit() else (ord(first), ord(last))


def _range_words(text: str) -> list[str]:
    first, last = _range_ends(text)
    width = len(text.partition("..")[0])
    return [str(one).zfill(width) if text[0].isdigit() else chr(one) for one in range(first, last + 1)]


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
