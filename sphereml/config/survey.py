"""The configuration of a survey: from the archives' own files to one store (``data.kind: survey``).

Conventions: beams are FWHM in arcmin, apodization in degrees, velocities LSR km/s.  A ``column`` of a FITS file is its
name or its number from 0.  What a file says itself decides; ``unit``, ``order`` and ``frame`` are for silent ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sphereml.errors import UserError


@dataclass
class CubeConfig:
    """The HI cube: files of a manifest's ``product``, or those that match ``pattern`` in the data folder.

    ``reader`` is ``hpx_table`` or ``car_cube`` (a product brings its own).  ``velocity`` is the range of the inputs;
    ``context`` a wider one whose mean spectrum is kept for the overview (it must be read as well).

    Args:
        product: name of a manifest's product
        pattern: of file names in the data folder, in place of a product
        reader: hpx_table or car_cube; a product brings its own
        nside: of the tables; cubes in other projections are brought to it
        beam_arcmin [arcmin]: FWHM; 0: what the files or the manifest say
        velocity [km/s]: LSR range of the inputs
        channel_width [km/s]: 0: the channels of the files; else they are rebinned to this width
        context [km/s]: wider range whose mean spectrum is kept for the overview
    """

    product: str = ""
    pattern: str = ""
    reader: str = "hpx_table"
    nside: int = 1024
    beam_arcmin: float = 0.0
    velocity: list[float] = field(default_factory=lambda: [-64.5, 17.0])
    channel_width: float = 0.0
    context: list[float] = field(default_factory=list)


@dataclass
class SurveyMap:
    """One column of a HEALPix file; ``beam_arcmin`` 0 is a beam that is not known.

    With ``convert_to`` the map changes its unit, at ``frequency_ghz`` where that matters.

    Args:
        file: name of the file
        column: name or number from 0
        unit: where the file states none
        order: RING or NESTED, where the file does not say
        frame: G, C or E, where the file does not say
        beam_arcmin [arcmin]: FWHM; 0: not known
        convert_to: unit to convert the map to
        frequency_ghz [GHz]: of the map, for the conversion
    """

    file: str = ""
    column: str = "0"
    unit: str = ""
    order: str = ""
    frame: str = ""
    beam_arcmin: float = 0.0
    convert_to: str = ""
    frequency_ghz: float = 0.0


@dataclass
class SurveyMask:
    """A mask, 1 = keep; it is stored beside the maps, and with ``apply`` they are multiplied by it.

    Args:
        file: name of the file
        column: name or number from 0
        order: RING or NESTED, where the file does not say
        frame: G, C or E, where the file does not say
        apodization [deg]: taper inside the mask's edge
        apply: multiply the maps by the mask
    """

    file: str = ""
    column: str = "0"
    order: str = ""
    frame: str = ""
    apodization: float = 0.0
    apply: bool = False


@dataclass
class FilterConfig:
    """What is done to every map in harmonic space.

    ``lmax`` 0 means twice the lower Nside of input and output.  ``beam_arcmin`` is the common beam (0: each map keeps
    its own).  ``pixel_window``: ``keep`` that of the input, or ``match`` the output's pixels.  ``iterations`` of the
    analysis: with one, spectra are right to 1e-4 for ell < 0.6 Nside, with none to 3e-4 (seen at Nside 128 and 256).

    Args:
        nside: of the store
        lmax: highest multipole; 0: twice the lower Nside of input and output
        iterations: Jacobi iterations of the harmonic analysis
        butterworth_ell: low-pass at this multipole; 0: none
        butterworth_order: of the low-pass
        beam_arcmin [arcmin]: FWHM of the common beam; 0: each map keeps its own
        pixel_window: keep that of the input, or match the output's pixels
        max_missing: share of pixels without data that may be filled from their surroundings
    """

    nside: int = 1024
    lmax: int = 0
    iterations: int = 1
    butterworth_ell: float = 460.0
    butterworth_order: float = 4.0
    beam_arcmin: float = 0.0
    pixel_window: str = "keep"
    max_missing: float = 0.01


@dataclass
class SurveyConfig:
    """Cube, target, total and mask, and the filters that all but the mask go through.

    Args:
        cube: the channels
        target: the map to predict
        total: total gas column, or null
        mask: stored beside the maps, or null
        filters: what is done to every map in harmonic space
    """

    cube: CubeConfig = field(default_factory=CubeConfig)
    target: SurveyMap = field(default_factory=SurveyMap)
    total: SurveyMap | None = None
    mask: SurveyMask | None = None
    filters: FilterConfig = field(default_factory=FilterConfig)


def check_survey(survey: SurveyConfig | None) -> None:
    """Raise UserError for the first value that the types allow but no survey can have."""
    if survey is None:
        raise UserError("data.kind=survey without data.survey", "describe the cube and the target under data.survey")
    for key, fault, mend in _faults(survey):
        raise UserError(f"data.survey.{key} {fault}", mend)


def _faults(survey: SurveyConfig) -> Iterator[tuple[str, str, str]]:
    cube, filters = survey.cube, survey.filters
    if bool(cube.product) == bool(cube.pattern):
        yield "cube", "needs a product or a pattern", "give one of the two"
    if cube.reader not in ("hpx_table", "car_cube"):
        yield "cube.reader", f"is {cube.reader!r}", "choose hpx_table or car_cube"
    if not _is_range(cube.velocity):
        yield "cube.velocity", f"is {cube.velocity}", "give [low, high] in km/s"
    if cube.context and not _is_range(cube.context):
        yield "cube.context", f"is {cube.context}", "give [low, high] in km/s, or []"
    for key, nside in (("cube.nside", cube.nside), ("filters.nside", filters.nside)):
        if nside < 1 or nside & (nside - 1):
            yield key, f"is {nside}", "give a power of two"
    if not survey.target.file:
        yield "target.file", "is empty", "name the FITS file of the target"
    if filters.pixel_window not in ("keep", "match"):
        yield "filters.pixel_window", f"is {filters.pixel_window!r}", "choose keep or match"
    if not 0 <= filters.max_missing < 1:
        yield "filters.max_missing", f"is {filters.max_missing:g}", "give a share in [0, 1)"
    if filters.butterworth_ell and filters.butterworth_order <= 0:
        yield "filters.butterworth_order", f"is {filters.butterworth_order:g}", "give a number above 0"
    for key, number in _not_negative(survey):
        if number < 0:
            yield key, f"is {number:g}", "give 0 or more"


def _not_negative(survey: SurveyConfig) -> Iterator[tuple[str, float]]:
    filters = survey.filters
    for key in ("lmax", "iterations", "butterworth_ell", "beam_arcmin"):
        yield f"filters.{key}", getattr(filters, key)
    for key in ("beam_arcmin", "channel_width"):
        yield f"cube.{key}", getattr(survey.cube, key)
    for name in ("target", "total"):
        one = getattr(survey, name)
        if one is not None:
            yield f"{name}.beam_arcmin", one.beam_arcmin
            yield f"{name}.frequency_ghz", one.frequency_ghz
    if survey.mask is not None:
        yield "mask.apodization", survey.mask.apodization


def _is_range(bounds: list[float]) -> bool:
    return len(bounds) == 2 and bounds[0] < bounds[1]
