"""What a referee asks beside the correlations: power, transfer, calibration, latitudes, covariance, and what was done.

Conventions: C_ell are pseudo-spectra under the test mask over its mean squared weight, in the target's unit squared,
averaged over bins of ``WIDTH`` multipoles.  With t the target and p the prediction, the residual is p - t, the transfer
function ``T_ell = C^tp / C^tt`` (1 where nothing is lost) and the amplitude of a band ``sum (2 ell + 1) C^tp / sum
(2 ell + 1) C^tt``.  Errors are jackknives over blocks of sky.
"""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from sphereml.config.schema import ExperimentConfig
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.maps.sphere import SphereScores
from sphereml.evaluation.statistics import block_jackknife, jackknife_covariance, jackknife_error
from sphereml.harmonics.bands import Bands
from sphereml.simulate.galaxy import DUST
from sphereml.training.runs import Run

WIDTH = 10
_LATITUDE_BINS = 3


def power(scores: SphereScores, bands: Bands) -> dict[str, Any]:
    """Spectra of one model with their transfer function, and the amplitude of each band; JSON-ready."""
    ell, (target, cross, prediction) = scores.ell, scores.cl[0]
    binned = {"target": target, "prediction": prediction, "residual": target + prediction - 2 * cross}
    rows = _bin(scores.cl)
    transfer = rows[:, 1] / rows[:, 0]
    amplitude, inside = {}, bands.clipped(int(ell[-1]), lmin=2)
    for name, (lo, hi) in inside.items():
        weight = (2 * ell + 1) * ((ell >= lo) & (ell < hi))
        ratios = scores.cl[:, 1] @ weight / (scores.cl[:, 0] @ weight)
        amplitude[name] = {"mean": float(ratios[0]), "sem": float(jackknife_error(ratios[1:], scores.size))}
    return {
        "ell": _bin(ell.astype(float)).tolist(),
        **{name: _bin(cl).tolist() for name, cl in binned.items()},
        "transfer": transfer[0].tolist(),
        "transfer_sem": jackknife_error(transfer[1:], scores.size).tolist(),
        "amplitude": amplitude,
    }


def _bin(values: np.ndarray) -> np.ndarray:
    """Means over bins of ``WIDTH`` multipoles from ell = 2 up, along the last axis."""
    count = (values.shape[-1] - 2) // WIDTH
    means: np.ndarray = values[..., 2 : 2 + count * WIDTH].reshape(*values.shape[:-1], count, WIDTH).mean(axis=-1)
    return means


def covariance(scores: SphereScores) -> dict[str, Any]:
    """Correlation of the errors of the bands of r on the sphere, from their common jackknife; JSON-ready."""
    names = list(scores.samples)
    matrix = jackknife_covariance(np.stack([scores.samples[name] for name in names], axis=1), scores.size)
    errors = np.sqrt(np.diag(matrix))
    return {"bands": names, "correlation": (matrix / np.outer(errors, errors)).tolist()}


def latitudes(scores: TargetScores) -> dict[str, Any]:
    """Mean r of the flat patches in thirds of |b| of their centres, by model and band; JSON-ready."""
    test = scores.held_out.test
    latitude = np.degrees(np.arcsin(np.abs(test.frames[:, 2, 2])))
    edges = np.quantile(latitude, np.linspace(0, 1, _LATITUDE_BINS + 1))
    place = np.clip(np.searchsorted(edges, latitude, side="right") - 1, 0, _LATITUDE_BINS - 1)
    found: dict[str, Any] = {"edges": edges.tolist(), "models": {}}
    for name in scores.shown:
        found["models"][name] = {
            band: [_mean(values[place == part], test.block[place == part]) for part in range(_LATITUDE_BINS)]
            for band, values in scores.patches[name].bands.items()
        }
    return found


def _mean(values: np.ndarray, block: np.ndarray) -> dict[str, float | None]:
    if len(np.unique(block)) < 2:
        return {"mean": float(values.mean()) if len(values) else None, "sem": None}
    mean, sem = block_jackknife(values, block)
    return {"mean": float(mean), "sem": float(sem)}


def training_facts(run: Run) -> dict[str, Any]:
    """Parameters, best epoch, and the losses of every epoch of a run; empty lists for closed forms."""
    manifest = run.manifest()
    facts = {key: manifest.get(key) for key in ("parameters", "epochs", "best_epoch", "val_loss", "seed", "threads")}
    losses: dict[str, dict[int, float]] = {"train_loss": {}, "val_loss": {}}
    for path in sorted((run.folder / "logs").glob("csv*/metrics.csv")):
        with path.open(newline="") as lines:
            for row in csv.DictReader(lines):
                for key, values in losses.items():
                    if row.get(key):
                        values[int(row["epoch"]) + 1] = float(row[key])
    return facts | {"curves": {key: {"epoch": list(one), "loss": list(one.values())} for key, one in losses.items()}}


def setting(config: ExperimentConfig, sky: ReadableSky) -> dict[str, str]:
    """Data, seeds, and how the test region was kept from the training, in words."""
    split, galaxy, target = config.split, config.data.galaxy, config.data.target
    if config.data.kind == "galaxy":
        level = DUST.stokes_noise if sky.target_fields[0].spin else DUST.noise
        beam, noise = f"{galaxy.beam_arcmin:g} arcmin FWHM", f"{level:g} uK_RJ arcmin, white"
        noise += f"; {galaxy.noise_mk:g} mK a channel in the inputs"
    else:
        known = config.data.beam_arcmin or (target.beam_arcmin if target else 0.0)
        beam = f"{known:g} arcmin FWHM" if known else "not stated by the configuration"
        noise = "that of the target's map; not estimated here"
    kept = f"the map {split.file}" if split.file else (
        f"{split.train} trains; no training or validation pixel is nearer than {split.buffer:g} deg to the test side, "
        f"centres of patches and tiles keep {split.centre_margin:g} deg from the equator"
    )  # fmt: skip
    return {
        "data": f"{config.data.name}, Nside {sky.grid.nside}",
        "target beam": beam,
        "target noise": noise,
        "test region": kept,
        "seeds": f"training {config.training.seed}, evaluation {config.evaluation.seed}",
    }
