"""Domains: pieces of pixelized sky that know how to convolve, pool and take spectra, so that a network and a loss are
written once.  ``FlatPatch`` is the tangent plane, ``HealpixSky`` the sphere or any part of it."""

from sphereml.domains.flat import FlatPatch
from sphereml.domains.healpix import HealpixSky
from sphereml.domains.protocol import Domain

__all__ = ["Domain", "FlatPatch", "HealpixSky"]
