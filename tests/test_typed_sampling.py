"""Maps with spins, sampled and stitched: Q and U turn with their frames, up to the poles."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest

from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.lambert import LambertPatch
from sphereml.patches.sampling import sample_patches
from sphereml.patches.stitching import covering_frames, stitch_stream
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.interpolation import sample
from sphereml.sky.rotations import frame_at
from sphereml.sky.stokes import directions, tangent_basis

LMAX = 24
FIELDS = (Field("I"), Field("V", spin=1), Field("P", spin=2))
SPINS = tuple(field.spin for field in FIELDS)
PATCHES = {"gnomonic": GnomonicPatch(16, 60), "lambert": LambertPatch(16, 60)}


def alms() -> np.ndarray:
    """I, then E and B of spin 1, then of spin 2, ``(5, nalm)``."""
    ell, order = alm_index(LMAX)
    rng = np.random.default_rng(0)
    alm = rng.standard_normal((5, ell.size)) + 1j * rng.standard_normal((5, ell.size))
    alm[:, order == 0] = alm[:, order == 0].real
    return alm * (ell >= 2)


def maps_of(alm: np.ndarray, nside: int) -> np.ndarray:
    spins = [synthesis(alm[None, 2 * s - 1 : 2 * s + 1], nside, LMAX, s)[0] for s in (1, 2)]
    return np.concatenate([synthesis(alm[:1], nside, LMAX), *spins]).T


def exact_at(alm: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Values in the meridian's frames at any directions, ``(..., 5)``."""
    place = np.stack(directions(vectors.reshape(-1, 3)), axis=-1)
    parts = [
        ducc0.sht.synthesis_general(alm=alm[max(0, 2 * s - 1) : 2 * s + 1], spin=s, lmax=LMAX, loc=place, epsilon=1e-10)
        for s in (0, 1, 2)
    ]
    return np.concatenate(parts).T.reshape(*vectors.shape[:-1], 5)


def turned_alm(alm: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """a_lm of the sky turned so that a frame becomes that of lon = lat = position angle = 0."""
    matrix = frame_at(0, 0) @ frame.T  # directions n' = M n
    beta = np.arccos(np.clip(matrix[2, 2], -1, 1))
    psi, phi = np.arctan2(matrix[2, 1], -matrix[2, 0]), np.arctan2(matrix[1, 2], matrix[0, 2])
    return np.stack([ducc0.sht.rotate_alm(one, LMAX, psi, beta, phi) for one in alm])


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.parametrize("latitude", [20.0, 70.0, 80.0, 89.0, -89.0])
def test_patches_equal_the_exactly_turned_sky(name, latitude):
    """A patch of the sky is the same patch at the origin of the sky turned there in harmonic space."""
    patch, alm = PATCHES[name], alms()
    frame = frame_at(40.0, latitude, 25.0)
    ours = sample_patches(maps_of(alm, 256), frame[None], patch, SPINS)[0]
    origin = frame_at(0, 0)
    vectors = patch.vectors(origin)
    there = exact_at(turned_alm(alm, frame), vectors)
    phase = patch.phase(origin)
    expected = there.copy()
    for spin, column in ((1, 1), (2, 3)):
        z = (there[..., column] + 1j * there[..., column + 1]) * phase**spin
        expected[..., column], expected[..., column + 1] = z.real, z.imag
    assert np.abs(ours - expected).max() < 0.02 * expected.std()


@pytest.mark.parametrize("latitude", [0.0, 70.0, 85.0, 89.0, 89.9])
def test_interpolation_is_as_good_at_the_pole(latitude):
    alm = alms()
    vectors = frame_at(np.linspace(0, 360, 50), latitude)[..., 2]
    _, south, _ = tangent_basis(*directions(vectors))
    ours, exact = sample(maps_of(alm, 256), vectors, south, SPINS), exact_at(alm, vectors)
    error = np.abs(ours - exact) / exact.std()
    assert error.max() < 0.04 and error[:, 1:].max() < max(0.01, error[:, 0].max())


def test_skipping_the_turn_is_wrong():
    """At latitude 89 the plain interpolation of Q and U is off by as much as the field itself."""
    patch, frames = PATCHES["gnomonic"], frame_at(40.0, 89.0, 0.0)[None]
    maps = maps_of(alms(), 64)
    plain, ours = sample_patches(maps, frames, patch), sample_patches(maps, frames, patch, SPINS)
    assert np.abs(plain - ours)[..., 3:].max() > ours[..., 3:].std()
    np.testing.assert_allclose(plain[..., 0], ours[..., 0], rtol=1e-6)


def test_stitching_turns_back():
    """Patches cut and stitched give the map again, poles included."""
    patch, grid = GnomonicPatch(64, 40), HealpixGrid(32)
    maps = maps_of(alms(), 128)
    frames = covering_frames(4, patch)
    patches = [(sample_patches(maps, frames, patch, SPINS), frames)]
    stitched = stitch_stream(patches, patch, grid, SPINS).map
    expected = maps_of(alms(), 32)
    assert np.abs(stitched - expected).max() < 0.06 * expected.std()
