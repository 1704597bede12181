"""``import sphereml as sm``: every name is there, lazy, documented with an example that runs, and takes strings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from operator import attrgetter
from types import ModuleType

import healpy
import numpy as np
import pytest
import torch

import sphereml as sm

NAMES = [name for name in sm.__all__ if name != "__version__"]
MODULES = [name for name in NAMES if isinstance(getattr(sm, name), ModuleType)]
DOCUMENTED = [
    *(name for name in NAMES if name not in MODULES),
    *(f"{module}.{name}" for module in MODULES for name in getattr(sm, module).__all__),
]


def test_the_import_is_lazy():
    script = "import sys, sphereml; print([m for m in ('torch', 'numpy', 'healpy', 'camb') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_all_is_complete():
    assert set(dir(sm)) == set(sm.__all__) and len(set(sm.__all__)) == len(sm.__all__)
    assert all(getattr(sm, name) is not None for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sm.nothing  # noqa: B018


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_name_has_a_runnable_example(name: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = attrgetter(name)(sm)
    text = inspect.getdoc(thing) or ""
    assert ">>>" in text, f"{name} has no example"
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for found in finder.find(thing, name, globs=vars(importlib.import_module(thing.__module__)) | {"sm": sm}):
        runner.run(found)
    assert runner.summarize(verbose=False).failed == 0


def maps(nside: int = 16) -> np.ndarray:
    """Two smooth maps ``(2, npix)`` RING."""
    rng = np.random.default_rng(1)
    return np.stack([healpy.smoothing(row, fwhm=0.3) for row in rng.normal(size=(2, 12 * nside**2))])


def test_order_goes_with_the_values():
    dust, noise = maps()
    sky, mask = noise + 2 * dust, np.ones(dust.size)
    ring = sm.marginalize(sky, dust, mask, order="ring").amplitudes
    nested = [sm.SkyMap(one, "x", order="ring").nested() for one in (sky, dust, mask)]
    assert sm.marginalize(*nested).amplitudes == pytest.approx(ring)
    with pytest.raises(sm.UserError, match="does not carry the order"):
        sm.marginalize(sky, dust, mask)
    # What was wrong in silence: one map in RING, the others in NEST.
    mixed = sm.SkyMap(sky, "x", order="ring"), nested[1], nested[2]
    assert sm.marginalize(*mixed).amplitudes == pytest.approx(ring)


def test_spectra_are_anafast():
    dust, noise = (one - one.mean() for one in maps())
    cl = sm.spectra([dust, noise], lmax=32, order="ring")
    # Freed of what HEALPix's own quadrature couples, which anafast leaves in: 2e-5 here.
    np.testing.assert_allclose(cl[0, 0]["TT"][:14], healpy.anafast(dust, lmax=32)[2:16], rtol=1e-4)
    r = sm.correlation(dust, noise, bands=sm.Bands(low=(2, 16)), order="ring")["low"]
    spectra = [healpy.anafast(*pair, lmax=47) for pair in ((dust, noise), (dust,), (noise,))]
    assert r == pytest.approx((spectra[0] / np.sqrt(spectra[1] * spectra[2]))[2:16].mean(), abs=1e-6)


def test_a_workspace_takes_maps_of_any_order():
    dust, mask = sm.SkyMap(maps()[0], "I", order="ring"), sm.SkyMap(np.ones(3072), "mask", order="ring")
    mixed = sm.Workspace(mask, [2, 10, 20]).bandpowers(dust)["TT"]
    nested = sm.Workspace(np.ones(3072), [2, 10, 20]).bandpowers(dust.nested().values[:, 0])["TT"]
    np.testing.assert_allclose(mixed, nested)


def test_a_transform_takes_numpy_and_torch():
    qu = sm.SkyMap(maps().T, sm.Field("P", spin=2), order="ring").nested().values.T
    sht = sm.SHT(nside=16, lmax=32, spin=2)
    expected = healpy.map2alm_spin(maps(), 2, lmax=32)
    for given in (np.ascontiguousarray(qu), torch.from_numpy(np.ascontiguousarray(qu))):
        found = sht.analysis(given, iterations=0)
        assert type(found) is type(given)
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-10)


def test_a_map_knows_itself(tmp_path):
    polarization = sm.SkyMap(maps().T, [sm.Field("P", "uK_CMB", spin=2)], order="ring")
    assert repr(polarization) == "SkyMap(P [uK_CMB] spin 2; nside=16, RING, frame G)"
    assert "<table>" in polarization._repr_html_() and polarization.unit == "uK_CMB"
    path = sm.write_map(str(tmp_path / "qu.fits"), polarization)
    again = sm.read_map(str(path))
    assert again.fields == polarization.fields and again.order == "nest"
    np.testing.assert_allclose(again.to_healpy(), maps(), rtol=1e-6)
    np.testing.assert_allclose(sm.read_map(path, nest=False).values, maps().T, rtol=1e-6)
    assert len(polarization.plot().axes) >= 2
    with pytest.raises(sm.UserError, match="no pixel order"):
        sm.SkyMap(maps().T, ["a", "b"], order="spiral")
    with pytest.raises(sm.UserError, match="two columns for a field with a spin"):
        sm.SkyMap(maps()[0], sm.Field("P", spin=2), order="ring")
