"""Small lensing experiments with toy spectra: no CAMB, a network of four channels, seconds of training."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig
from sphereml.lensing.iterated import first_order_bb
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.tasks import lensing

# The experiments' lensing, weak enough for a coarse patch to stay smooth.
WEAK = 1e-3
QUICK = [
    "training.epochs=3",
    "training.steps_per_epoch=3",
    "training.validation_batches=1",
    "training.batch_size=4",
    "model.width=4",
    "lensing.spectra_lmax=3000",
]


@lru_cache(maxsize=32)
def toy_spectra(
    lmax: int = 3000,
    strength: float = 1.0,
    lowest: int = 2,
    lensed: float = 1.0,
    first_order: bool = False,
    fall: tuple[float, float] = (900.0, 1.2),
) -> CmbSpectra:
    """E with peaks, B and a steep potential of about the CMB's size, without CAMB.

    Args:
        strength: of the potential's power.
        lowest: multipole below which there is nothing.
        lensed: the lensed E over the unlensed one.
        first_order: B is what lensing makes to first order, rather than a smooth curve of the lensed B's size.
        fall: multipole and exponent of E's damping.
    """
    ell = np.maximum(np.arange(lmax + 1.0), 2)
    ee = 3e-4 * (1.2 + np.sin(ell / 45)) * np.exp(-((ell / fall[0]) ** fall[1]))
    bb = 2e-6 * np.exp(-((ell / 800) ** 1.2))
    potential = strength * 2e-8 / (ell * (ell + 1)) ** 1.2 / (1 + ell / 60) ** 1.5
    ee[:lowest] = bb[:lowest] = potential[:lowest] = 0
    spectra = CmbSpectra(ee, lensed * ee, bb, potential)
    return replace(spectra, bb_lensed=first_order_bb(spectra, lmax)) if first_order else spectra


def with_toy_spectra(monkeypatch) -> None:
    monkeypatch.setattr(lensing, "load_spectra", lambda lmax, cosmology: toy_spectra(lmax, WEAK))


def lensing_config(*overrides: str) -> ExperimentConfig:
    return compose(["experiment=lensing_quick", *QUICK, *overrides])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
