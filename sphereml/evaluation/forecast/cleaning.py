"""Cleaning two maps of one template each way, as sums of the parts of the sky.

Conventions: a map is the vector of the shares of its parts (:mod:`~sphereml.evaluation.forecast.skies`).  *Explicit*:
one amplitude for E and B, fitted in multipoles with weights of the residual's own power
(:mod:`sphereml.templates.amplitudes`); *implicit*: the template's mode is projected out of the masked map
(:mod:`sphereml.harmonics.deprojection`).  Both are done on every sky, so the scatter over skies holds the amplitudes'
errors: they are marginalized over.
"""

from __future__ import annotations

import numpy as np

from sphereml.evaluation.forecast.skies import Products
from sphereml.templates.amplitudes import fit_spectra

METHODS = ("explicit", "implicit")


def amplitude_of(method: str, data: np.ndarray, template: int, products: Products, lmin: int) -> float:
    """Amplitude of part ``template`` in the map ``data`` ``(nparts,)``; explicit ones are fitted from ``lmin`` on."""
    overlaps = products.overlaps
    amplitude = float(data @ overlaps[:, template] / overlaps[template, template])
    if method == "implicit":
        return amplitude
    vectors = np.stack([data, np.eye(len(data))[template]])
    spectra = np.einsum("ap,pqcl,bq->abcl", vectors, products.spectra, vectors, optimize=True)
    return float(fit_spectra(spectra, np.array([amplitude]), lmin).values[0])


def cross_bandpowers(first: np.ndarray, second: np.ndarray, products: Products) -> np.ndarray:
    """BB ``(nbin,)`` of two maps."""
    return np.asarray(np.einsum("p,pqb,q->b", first, products.bandpowers, second))


def cleaned(
    data: tuple[np.ndarray, np.ndarray], template: int | None, method: str, products: Products, lmin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cross bandpowers of both maps less the template (None: as they are), and its two amplitudes."""
    if template is None:
        return cross_bandpowers(data[0], data[1], products), np.zeros(2)
    amplitudes = [amplitude_of(method, one, template, products, lmin) for one in data]
    direction = np.eye(len(data[0]))[template]
    left = [one - amplitude * direction for one, amplitude in zip(data, amplitudes, strict=True)]
    return cross_bandpowers(left[0], left[1], products), np.array(amplitudes)
