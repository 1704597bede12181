"""Filtered E and B of masked flat patches: one filter against another, a periodic sky, and the leakage of E into B."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_lensing import toy_spectra

from sphereml.errors import UserError
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.lensing.flat_filters import DenseFilter, NaiveFilter, WienerFilter
from sphereml.lensing.observation import Observation
from sphereml.lensing.patch_model import Legs, PatchModel

SIZE, PIXEL = 24, 4.0
OBSERVATION = Observation(noise=1.0, beam=3.0, lmin=30, lmax=2000)


def tapered(size: int = SIZE, width: int = 5) -> torch.Tensor:
    distance = torch.arange(size, dtype=torch.float64) + 0.5
    edge = torch.sin(torch.minimum(distance, size - distance).clamp(max=width) * np.pi / 2 / width) ** 2
    return edge[:, None] * edge[None, :]


def holed() -> torch.Tensor:
    mask = tapered()
    mask[10:13, 8:10] = 0
    return mask


def patch_model(
    mask: torch.Tensor | None = None, period: int = 256, observation: Observation = OBSERVATION
) -> PatchModel:
    mask = tapered() if mask is None else mask
    return PatchModel(FlatSky(len(mask), PIXEL), toy_spectra(), observation, mask, period)


def images_of(legs: Legs) -> torch.Tensor:
    """Wiener-filtered E and the B leg on the patch's own pixels, ``(batch, size, size, 2)``."""
    both = legs.sky.to_images(torch.stack([legs.e, legs.b_inverse], dim=1))
    return both[..., : legs.size, : legs.size].movedim(1, -1)


def observed(model: PatchModel, count: int, b: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Legs]:
    """Masked Q and U with beam and noise, cut from a larger periodic sky; and its true E and B in place of legs."""
    sky, generator = FlatSky(4 * SIZE, PIXEL), torch.Generator().manual_seed(seed)
    e, b_modes = (
        sky.draw(power, count, generator).to(torch.complex128)
        for power in (toy_spectra().ee_lensed, b**2 * toy_spectra().bb_lensed)
    )
    beam = sky.weights(model.beam, e)
    noise = model.variance**0.5 * torch.randn(2, count, SIZE, SIZE, generator=generator, dtype=torch.float64)
    clean = (sky.to_images(beam * part)[..., :SIZE, :SIZE] for part in sky.to_qu(e, b_modes))
    q, u = (model.mask * (image + white) for image, white in zip(clean, noise, strict=True))
    return q, u, Legs(sky, SIZE, e, e, b_modes)


def deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().square().mean().sqrt())


def test_without_a_mask_the_exact_filter_of_a_periodic_sky_is_the_naive_one():
    model = patch_model(torch.ones(SIZE, SIZE, dtype=torch.float64), period=SIZE)
    q, u, _ = observed(model, 2)
    naive, weighted = NaiveFilter(model)(q, u), WienerFilter(model, 1e-10).inverse(torch.stack([q, u], dim=1))
    band = model.patch.weights(model.band, q)
    e, b = model.patch.to_eb(*torch.fft.rfft2(weighted).unbind(1))
    # Between multipoles one interpolates S, the other 1 / (S + N).
    assert deviation(band * e, naive.e_inverse) < 3e-3
    assert deviation(band * b, naive.b_inverse) < 3e-3


@pytest.mark.parametrize("mask", [tapered(), holed()])
def test_conjugate_gradients_agree_with_the_dense_filter(mask: torch.Tensor):
    model = patch_model(mask)
    q, u, _ = observed(model, 3)
    dense, iterated = DenseFilter(model, torch.float64)(q, u), WienerFilter(model, 1e-9)(q, u)
    for name in ("e", "e_inverse", "b_inverse"):
        assert deviation(getattr(iterated, name), getattr(dense, name)) < 1e-6
    usual = WienerFilter(model)(q, u)
    assert deviation(usual.b_inverse, dense.b_inverse) < 1e-2
    assert deviation(usual.e, dense.e) < 1e-2


def test_float32_data_are_filtered_in_float32():
    model = patch_model()
    q, u, _ = observed(model, 2)
    exact = images_of(DenseFilter(model, torch.float64)(q, u))
    for chosen in (DenseFilter(model), WienerFilter(model)):
        images = images_of(chosen(q.float(), u.float()))
        assert images.dtype == torch.float32
        assert images.shape == (2, SIZE, SIZE, 2)
        for leg in range(2):
            assert deviation(images[..., leg].double(), exact[..., leg]) < 1e-2


def test_the_dense_matrix_inverts_the_covariance_of_drawn_patches():
    """Seen in the mean of chi^2 = d C^-1 d, whose expectation is the number of unknowns."""
    model = patch_model()
    q, u, _ = observed(model, 200, seed=4)
    data = model.untapered(q, u)
    chi2 = (data * DenseFilter(model, torch.float64).inverse(data)).sum(dim=(1, 2, 3))
    unknowns = 2 * int(model.support.sum())
    assert float(chi2.mean()) == pytest.approx(unknowns, rel=5 * (2 / unknowns / 200) ** 0.5)


def test_the_taper_is_undone_where_the_mask_leaves_anything():
    wide, narrow = (patch_model(0.1 + 0.9 * tapered(width=width)) for width in (3, 7))
    q, u, _ = observed(wide, 1)
    share = narrow.mask / wide.mask
    one, other = WienerFilter(wide, 1e-9)(q, u), WienerFilter(narrow, 1e-9)(share * q, share * u)
    assert deviation(one.b_inverse, other.b_inverse) < 1e-6


def test_what_the_mask_hides_does_not_matter():
    model = patch_model(holed())
    q, u, _ = observed(model, 1)
    spoiled = torch.where(model.support, q, 1e3)
    assert deviation(WienerFilter(model)(spoiled, u).e, WienerFilter(model)(q, u).e) < 1e-12


def test_e_leaks_into_the_naive_b_only():
    """B of a sky without B, relative to B of a sky that has it."""
    model = patch_model()
    shares = {}
    for chosen in (NaiveFilter(model), WienerFilter(model)):
        power = [images_of(chosen(*observed(model, 8, b)[:2]))[..., 1].square().mean() for b in (0.0, 1.0)]
        shares[type(chosen)] = float(power[0] / power[1])
    assert shares[NaiveFilter] > 0.9
    assert shares[WienerFilter] < 0.6


def test_the_exact_filter_is_nearest_to_the_true_e():
    model = patch_model()
    q, u, true = observed(model, 16)
    band = true.sky.weights(np.where(model.band > 0, 1.0, 0.0), true.e)
    e = true.sky.to_images(band * true.e)[..., :SIZE, :SIZE]
    inner = slice(6, -6)
    error = [
        (images_of(chosen(q, u))[..., 0] - e)[:, inner, inner].square().mean() / e.square().mean()
        for chosen in (WienerFilter(model), NaiveFilter(model))
    ]
    assert error[0] < 0.75 * error[1]


def test_an_empty_patch_stays_empty():
    model = patch_model()
    q, u, _ = observed(model, 2)
    q[0] = u[0] = 0
    legs = WienerFilter(model)(q, u)
    assert not legs.e[0].abs().any()
    assert legs.e[1].abs().any()


def test_without_noise_the_naive_filter_holds():
    model = patch_model(observation=replace(OBSERVATION, noise=0.0))
    q, u, _ = observed(model, 1)
    assert images_of(NaiveFilter(model)(q, u)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WienerFilter(patch_model(observation=replace(OBSERVATION, noise=0.0))), "needs noise"),
        (lambda: DenseFilter(patch_model(observation=replace(OBSERVATION, noise=0.0))), "needs noise"),
        (lambda: DenseFilter(patch_model(torch.ones(128, 128))), "24 GiB"),
        (lambda: patch_model(observation=replace(OBSERVATION, lmax=2800)), "lmax 2800 is above the Nyquist"),
        (lambda: patch_model(torch.zeros(SIZE, SIZE)), "leaves no pixel"),
        (lambda: patch_model(period=SIZE - 2), "periodic sky of 22"),
        (lambda: PatchModel(FlatSky(SIZE, PIXEL), toy_spectra(), OBSERVATION, torch.ones(8, 8)), r"a mask of \(8, 8\)"),
        (lambda: WienerFilter(patch_model(), most_steps=2)(*observed(patch_model(), 1)[:2]), "in 2 steps"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, says: str):
    with pytest.raises(UserError, match=says):
        make()
