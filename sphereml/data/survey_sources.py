"""The files of a survey's configuration, found and opened: the cube channel by channel, maps and mask as a whole.

Files lie in ``data.folder``, else where ``sphereml data fetch`` keeps them.  Only headers are read until a map is asked
for.  Files are identified by the checksum that was pinned when they were fetched, or else by a digest of their size and
of samples of their bytes: a cube of 33 GiB is not read twice for its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sphereml.config.schema import DataConfig
from sphereml.config.survey import CubeConfig, SurveyConfig, SurveyMap, SurveyMask, check_survey
from sphereml.data.car_cubes import open_cubes
from sphereml.data.channels import ChannelSource, find_files
from sphereml.data.column_names import ColumnReference, parse_reference
from sphereml.data.cube_files import UnsaidCubeCards
from sphereml.data.file_checksums import sampled_digest
from sphereml.data.healpix_fits import UnsaidCards, read_healpix, read_sky_weights
from sphereml.data.holdings import Holdings, open_holdings
from sphereml.data.hpx_tables import HI4PI, open_hpx_tables
from sphereml.data.manifests import Product, find_products
from sphereml.data.unit_conversion import conversion_factor
from sphereml.data.units import parse_unit
from sphereml.errors import UserError


@dataclass(frozen=True, eq=False)
class SkyMap:
    """A map as read: float32 ``(npix,)`` NEST with NaN where it has no data, in ``unit`` and in ``frame``."""

    name: str
    values: np.ndarray
    unit: str
    frame: str
    beam_arcmin: float | None


@dataclass(frozen=True)
class MapFile:
    """A map that is read when it is needed."""

    path: Path
    config: SurveyMap

    def read(self) -> SkyMap:
        """Raises UserError as ``read_healpix``, or when the unit cannot be converted."""
        config = self.config
        unsaid = UnsaidCards(config.order, config.frame)
        maps = read_healpix(_columns(self.path, config), (), config.unit, True, unsaid, any_frame=True)
        if maps.values.shape[1] != 1:
            raise UserError(f"{self.path.name} is asked for several columns", "name one")
        unit = parse_unit(config.convert_to) if config.convert_to else maps.unit
        factor = conversion_factor(maps.unit, unit, config.frequency_ghz)
        values = (factor * maps.values[:, 0]).astype(np.float32)
        return SkyMap(self.path.name, values, unit, maps.frame, config.beam_arcmin or None)


@dataclass(frozen=True)
class MaskFile:
    """A mask that is read when it is needed."""

    path: Path
    config: SurveyMask

    def read(self) -> SkyMap:
        """Weights 0..1, missing pixels 0; raises UserError as ``read_weights``."""
        unsaid = UnsaidCards(self.config.order, self.config.frame)
        mask = read_sky_weights(_columns(self.path, self.config), None, unsaid, any_frame=True)
        return SkyMap(self.path.name, mask.values.astype(np.float32), "", mask.frame, None)


@dataclass(frozen=True, eq=False)
class SurveySources:
    """Everything a survey is made from; ``files`` is name -> checksum, for the provenance."""

    cube: ChannelSource
    target: MapFile
    total: MapFile | None
    mask: MaskFile | None
    files: dict[str, str]


def open_survey(data: DataConfig) -> SurveySources:
    """Find and open the files of a survey.

    Raises:
        UserError: a file is not here or its header is not understood; see the readers.
    """
    survey = _survey(data)
    holdings = _holdings(data)
    total, mask = survey.total, survey.mask
    return SurveySources(
        cube=open_cube_files(survey.cube, holdings),
        target=MapFile(_find(survey.target.file, holdings), survey.target),
        total=MapFile(_find(total.file, holdings), total) if total else None,
        mask=MaskFile(_find(mask.file, holdings), mask) if mask else None,
        files=identify_files(data),
    )


def open_cube_files(cube: CubeConfig, holdings: Holdings) -> ChannelSource:
    """The reader of the cube's files; what their headers leave out is what HI4PI's documents say."""
    product = find_products([cube.product])[0] if cube.product else None
    reader = product.reader if product else cube.reader
    beam = cube.beam_arcmin or (product.beam_arcmin if product else None)
    paths = _cube_paths(cube, holdings)
    name = cube.product or cube.pattern
    if reader == "hpx_table":
        defaults = replace(HI4PI, nside=cube.nside, beam_arcmin=beam)
        return open_hpx_tables(paths, defaults, name)
    if reader in ("car_cube", "hi_cube"):
        return open_cubes(paths, cube.nside, UnsaidCubeCards("K", "LSRK", beam), name)
    raise UserError(f"product {name} is no cube (its reader is {reader})", "choose one of `sphereml data list`")


def identify_files(data: DataConfig) -> dict[str, str]:
    """Name -> identity of every file that a survey reads; raises UserError when one is not here."""
    survey, holdings = _survey(data), _holdings(data)
    pins = holdings.pins()
    single = [one.file for one in (survey.target, survey.total, survey.mask) if one is not None]
    paths = [*_cube_paths(survey.cube, holdings), *(_find(name, holdings) for name in single)]
    return {path.name: pins[path.name].checksum if path.name in pins else sampled_digest(path) for path in paths}


def _survey(data: DataConfig) -> SurveyConfig:
    check_survey(data.survey)
    assert data.survey is not None
    return data.survey


def _holdings(data: DataConfig) -> Holdings:
    return open_holdings(Path(data.folder) if data.folder else None)


def _columns(path: Path, one: SurveyMap | SurveyMask) -> ColumnReference:
    """The column that the file's configured name (``FILE[NAME]``) chooses, or else the key ``column``."""
    asked = ColumnReference(path) if path.name == Path(one.file).name else parse_reference(one.file)
    by_key = f"#{one.column}" if one.column.isdigit() else one.column
    return replace(asked, path=path, columns=asked.columns or (by_key,))


def _find(name: str, holdings: Holdings) -> Path:
    """The file called so, or the one that ``FILE[NAME]`` is of."""
    path = holdings.find(str(Path(name).expanduser())) or holdings.find(str(parse_reference(name).path))
    if path is None:
        raise UserError(
            f"{name} is not in {holdings.folder}", "bring it with `sphereml data fetch`, or give data.folder=PATH"
        )
    return path


def _cube_paths(cube: CubeConfig, holdings: Holdings) -> Sequence[Path]:
    if not cube.product:
        return find_files(holdings.folder, cube.pattern)
    return [path for product in find_products([cube.product]) for path in _product_paths(product, holdings)]


def _product_paths(product: Product, holdings: Holdings) -> list[Path]:
    names = [one.name for file in product.files for one in holdings.files(file)]
    found = [path for name in names if (path := holdings.find(name)) is not None]
    if not names or len(found) < len(names):
        here = f"{len(found)} of {len(names)} files of {product.name} are" if names else f"no file of {product.name} is"
        raise UserError(f"{here} in {holdings.folder}", f"bring them with `sphereml data fetch {product.name}`")
    return found
