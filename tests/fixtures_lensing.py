"""Small lensing experiments with toy spectra: no CAMB, a network of four channels, seconds of training."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from sphereml.config.compose import compose
from sphereml.config.schema import ExperimentConfig
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.tasks import lensing

QUICK = [
    "training.epochs=3",
    "training.steps_per_epoch=3",
    "training.validation_batches=1",
    "training.batch_size=4",
    "model.width=4",
    "lensing.spectra_lmax=3000",
]


@lru_cache(maxsize=4)
def toy_spectra(lmax: int = 3000, strength: float = 1.0) -> CmbSpectra:
    """About the CMB's size of E, B and phi; lensing leaves E as it is."""
    ell = np.maximum(np.arange(lmax + 1.0), 2)
    ee = 3e-4 * (1.2 + np.sin(ell / 45)) * np.exp(-((ell / 900) ** 1.2))
    bb = 2e-6 * np.exp(-((ell / 800) ** 1.2))
    potential = strength * 2e-11 / (ell * (ell + 1)) ** 1.2 / (1 + ell / 60) ** 1.5
    ee[:2] = bb[:2] = potential[:2] = 0
    return CmbSpectra(ee, ee, bb, potential)


def with_toy_spectra(monkeypatch) -> None:
    monkeypatch.setattr(lensing, "load_spectra", lambda lmax, cosmology: toy_spectra(lmax))


def lensing_config(*overrides: str) -> ExperimentConfig:
    return compose(["experiment=lensing_quick", *QUICK, *overrides])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
