"""From maps to bandpowers: cleaning, pseudo-spectra, the bias of deprojection and noise, covariance.

Conventions: those of :mod:`sphereml.harmonics.workspace`.  One map gives its auto spectrum, two maps their cross
spectrum (of the workspace's first and second field), three or more are splits of one sky: the mean over all ordered
pairs of different ones, which has no noise bias and whose EB and BE are the same.

A guess of the spectra that the maps hold (signal, and in auto spectra noise, as the beam leaves them) corrects the bias
of deprojection.  Without one the bandpowers' own fit is it: bandpowers that keep the beam, interpolated as ell(ell+1) C
between the bands, T, E and B uncorrelated but for TE, refined twice.  The bias of noise alone, where its variance is
known, needs no guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bandpowers import Bandpowers
from sphereml.harmonics.covariance import Contractions, effective_spectra, gaussian_covariance
from sphereml.harmonics.deprojection import Deprojection, deprojection_bias, noise_bias
from sphereml.harmonics.masked_field import MaskedField

if TYPE_CHECKING:
    from sphereml.harmonics.workspace import Workspace

UNSEEN = -1.6375e30
_REFINEMENTS = 2


class Options(TypedDict, total=False):
    """What :func:`estimate` may be told.

    Keys:
        templates: ``(nt, npix)`` or ``(nt, 2, npix)`` to deproject from the first field, and the second if alike.
        second_templates: those of the second field, where the two differ.
        guess: ``(ncl, lmax + 1)`` spectra of the skies in the maps, beam included.
        noise_variance: ``(npix,)`` of uncorrelated noise in an auto spectrum, whose bias is taken away.
        covariance: ``"improved"`` (the improved narrow-kernel approximation, of the guess or of the bandpowers' own
            fit) or ``"narrow"`` (the guess as it stands); see :mod:`~sphereml.harmonics.covariance`.
        unit: of the values.
    """

    templates: np.ndarray | None
    second_templates: np.ndarray | None
    guess: np.ndarray | None
    noise_variance: np.ndarray | None
    covariance: Literal["improved", "narrow"] | None
    unit: str


@dataclass(frozen=True, eq=False)
class CleanedMap:
    """Coefficients ``(ncomp, nalm)`` of one masked map less its templates, and their amplitudes ``(nt,)``."""

    alms: np.ndarray
    amplitudes: np.ndarray


def estimate(workspace: Workspace, maps: tuple[np.ndarray, ...], **options: Unpack[Options]) -> Bandpowers:
    """Bandpowers of maps; see the module's docstring.

    Raises:
        UserError: no map; maps, templates, guess or noise of a wrong shape; missing values under the mask; splits
            of two different fields; noise with a cross spectrum or with purification; ``"narrow"`` without a guess.
    """
    _refuse(workspace, maps, options)
    projections = _deprojections(workspace, options)
    sides = [0, 1] if len(maps) == 2 else [0] * len(maps)
    cleaned = [_clean(workspace.fields[i], projections[i], one) for i, one in zip(sides, maps, strict=True)]
    pairs = _pairs(cleaned)
    field = workspace.fields[0]
    coupled = np.mean([field.cross_spectra(a.alms, b.alms) for a, b in pairs], axis=0)
    flat = coupled.reshape(len(workspace.names), -1)
    bias = _bias(workspace, projections, flat, options)
    binned = workspace.decouple(flat - bias)
    result = Bandpowers(
        workspace.names, workspace.lower, workspace.upper, binned, workspace.windows, flat, bias,
        amplitudes=np.stack([one.amplitudes for one in cleaned]) if _same_length(cleaned) else None,
        dl=workspace.dl, unit=options.get("unit", ""),
    )  # fmt: skip
    kind = options.get("covariance")
    if kind is None:
        return result
    guess = options.get("guess")
    if kind == "narrow" and guess is not None:
        spectra = guess.reshape(coupled.shape)
        contractions = Contractions.of_pair(spectra, spectra, spectra)
    else:
        contractions = effective_spectra(workspace, [one.alms for one in cleaned], guess if len(maps) == 1 else None)
    return result.with_covariance(gaussian_covariance(workspace, contractions), "gaussian")


def _refuse(workspace: Workspace, maps: tuple[np.ndarray, ...], options: Options) -> None:
    if not maps:
        raise UserError("no map", "give one, two, or the splits of one sky")
    first, second = workspace.fields
    if first is not second and len(maps) != 2:
        raise UserError(f"{len(maps)} maps for two different fields", "give one map of each")
    if options.get("noise_variance") is not None:
        if len(maps) > 1:
            raise UserError("noise is taken from auto spectra, not from cross spectra", "give one map")
        if any(component.pure for component in first.components.members):
            raise UserError("the noise of purified maps is not white", "use cross spectra of splits")
    shape = len(workspace.names), first.lmax + 1
    guess = options.get("guess")
    if guess is not None and guess.shape != shape:
        raise UserError(f"a guess of shape {guess.shape}", f"give {shape[0]} spectra to ell = {first.lmax}")
    if options.get("covariance") == "narrow" and (guess is None or first is not second or len(maps) > 1):
        raise UserError("the narrow-kernel covariance is of one map and a guess", "ask for the improved one")


def as_components(values: np.ndarray, field: MaskedField, what: str) -> np.ndarray:
    """Maps as float64 ``(..., ncomp, npix)`` with NaN where missing.

    Raises:
        UserError: the shape is not that of the field, or a value is missing where the mask is not zero.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[..., None, :] if field.spin == 0 else values
    count = len(field.components.members)
    if values.shape[-1] != field.mask.size or values.ndim < 2 or values.shape[-2] != count:
        expected = f"(2, {field.mask.size}): Q and U" if field.spin else f"({field.mask.size},)"
        raise UserError(f"{what} of shape {values.shape} for spin {field.spin}", f"give {expected}")
    missing = ~np.isfinite(values) | (np.abs(values / UNSEEN - 1) < 1e-5)
    if missing[..., field.mask > 0].any():
        raise UserError(f"{what} with missing values where the mask is not 0", "set the mask to 0 there")
    return np.where(missing, np.nan, values) if missing.any() else values


def _deprojections(workspace: Workspace, options: Options) -> tuple[Deprojection | None, Deprojection | None]:
    first, second = workspace.fields
    templates, others = options.get("templates"), options.get("second_templates")
    one = _deprojection(first, templates)
    if others is None and first.spin == second.spin:
        return one, one if first is second else _deprojection(second, templates)
    return one, _deprojection(second, others)


def _deprojection(field: MaskedField, templates: np.ndarray | None) -> Deprojection | None:
    if templates is None or len(templates) == 0:
        return None
    return Deprojection(field, as_components(templates, field, "templates"))


def _clean(field: MaskedField, deprojection: Deprojection | None, maps: np.ndarray) -> CleanedMap:
    maps = as_components(maps, field, "a map")
    if deprojection is None:
        return CleanedMap(field.alms(maps), np.zeros(0))
    amplitudes = deprojection.amplitudes(maps)
    return CleanedMap(field.alms(deprojection.subtract(maps, amplitudes)), amplitudes)


def _pairs(cleaned: list[CleanedMap]) -> list[tuple[CleanedMap, CleanedMap]]:
    if len(cleaned) == 1:
        return [(cleaned[0], cleaned[0])]
    return [(cleaned[0], cleaned[1])] if len(cleaned) == 2 else list(permutations(cleaned, 2))


def _same_length(cleaned: list[CleanedMap]) -> bool:
    return len({len(one.amplitudes) for one in cleaned}) == 1


def _bias(
    workspace: Workspace,
    projections: tuple[Deprojection | None, Deprojection | None],
    coupled: np.ndarray,
    options: Options,
) -> np.ndarray:
    """Bias of the pseudo-spectra, ``(ncl, lmax + 1)``."""
    bias = _white_noise(workspace, projections[0], options.get("noise_variance"))
    if projections == (None, None):
        return bias
    guess = options.get("guess")
    shape = [len(field.components.members) for field in workspace.fields]

    def of_signal(spectra: np.ndarray) -> np.ndarray:
        matrix = spectra.reshape(*shape, -1)
        return deprojection_bias(*projections, matrix, workspace.fields).reshape(spectra.shape)

    if guess is not None:
        return bias + of_signal(guess)
    signal = np.zeros_like(bias)
    for _ in range(_REFINEMENTS):
        signal = of_signal(workspace.fit(coupled - bias - signal))
    return bias + signal


def _white_noise(workspace: Workspace, deprojection: Deprojection | None, variance: np.ndarray | None) -> np.ndarray:
    """Pseudo-spectra ``(ncl, lmax + 1)`` of uncorrelated noise, with what deprojection takes of it."""
    field = workspace.fields[0]
    noise = np.zeros((len(workspace.names), field.lmax + 1))
    if variance is None:
        return noise
    variance = np.where(field.mask > 0, variance, 0.0)
    level = field.pixel_area**2 / (4 * np.pi) * np.sum(field.mask**2 * variance)
    noise[[i for i, name in enumerate(workspace.names) if name[0] == name[1]]] = level
    return noise if deprojection is None else noise + noise_bias(deprojection, variance).reshape(noise.shape)
