"""The parts of ``lensing.json``, each from a study; :mod:`~sphereml.evaluation.lensing.results` has the schema."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.lensing.noise import (
    Judged,
    correlation_of,
    goal_ratio,
    measure,
    noise,
    noise_ratio,
    patch_bands,
    residual_of,
    response_of,
)
from sphereml.evaluation.lensing.seeds import seed_spread
from sphereml.evaluation.lensing.study import LensingStudy
from sphereml.lensing.iterated import iterate_eb
from sphereml.lensing.n0 import NoiseModel, combined

_LABELS = {
    "qe_naive": "QE EB, naive mask (as the paper)",
    "qe_eb": "QE EB, fair mask",
    "qe_mv": "QE EB + EE, fair mask",
}


def main_part(study: LensingStudy) -> dict[str, Any]:
    content = {
        "experiment": _experiment(study),
        "bands": {"edges": list(study.bands.edges), "ell": study.bands.centers.tolist()},
        "theory": theory_curves(study),
    }
    content["models"] = {name: _model(study, name, content["theory"]) for name in study.judged}
    if "e" in study.test.truth:
        content["e"] = _e_spectra(study)
    content["seeds"] = {
        called: seed_spread(
            {name: study.judged[name] for name in names},
            {name: study.test.images[name]["kappa"] for name in names},
            study.test.truth["kappa"],
            study.bands,
        )
        for called, names in study.ensembles.items()
    }
    return content


def _experiment(study: LensingStudy) -> dict[str, Any]:
    config = study.config
    lensing, patches = config.lensing, config.patches
    return {
        "name": config.name, "simulator": lensing.simulator, "noise": lensing.noise, "beam": lensing.beam,
        "taper": lensing.taper, "size": patches.size, "pixel_arcmin": patches.pixel_arcmin,
        "degrees": patches.size * patches.pixel_arcmin / 60, "patches": len(study.test.groups),
        "seed": config.evaluation.seed, "lmin": lensing.lmin, "lmax_eb": lensing.lmax_eb, "reference": study.reference,
    }  # fmt: skip


def theory_curves(study: LensingStudy) -> dict[str, Any]:
    """C^kk and N0 in the bands; where delensing would remove more B than there is, no iterated one."""
    task, bands = study.task, study.bands
    reach = min(math.ceil(bands.edges[-1]) + 1, 2 * task.observation.lmax - 1)
    model = NoiseModel(task.spectra, task.observation, reach)
    eb, ee = model.eb(), model.ee()
    curves = {"N0_EB": eb, "N0_MV": combined(eb, ee)}
    try:
        curves["N0_iterated"] = iterate_eb(model).n0
    except UserError as error:
        study.say(f"no iterated N0: {error.what}")
    averages = {name: bands.average(curve).tolist() for name, curve in _from_two(curves).items()}
    return {"kappa": bands.average(task.spectra.kappa).tolist(), **averages}


def _from_two(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Curves whose infinite monopole and dipole are as L = 2, which no band's interpolation may see."""
    return {name: np.concatenate([curve[2:3], curve[2:3], curve[2:]]) for name, curve in curves.items()}


def _model(study: LensingStudy, name: str, theory: dict[str, Any]) -> dict[str, Any]:
    judged = study.judged[name]
    auto, _, truth = judged.means[1][0].tolist()
    entry = _facts(study, name) | {"auto": auto, "truth": truth, "response": _response(judged)}
    entry |= {
        "noise": noise(judged).to_json(),
        "correlation": measure(correlation_of, judged).to_json(),
        "residual": measure(residual_of, judged).to_json(),
        "scatter": judged.scatter().to_json(),
        "sample_variance": judged.sample_variance().to_json(),
    }
    if name in study.quadratic:
        n0 = np.array(theory["N0_MV" if name == "qe_mv" else "N0_EB"])
        entry["over_n0"] = (np.array(entry["noise"]["value"]) / n0).tolist()
    entry["ratio"] = {other: _ratio(judged, study.judged[other]) for other in study.quadratic if other != name}
    return entry


def _response(judged: Judged) -> dict[str, Any]:
    """R of eq. 12, of the validation patches alone."""
    return measure(lambda calibration, means: response_of(calibration) + 0 * means[..., 0, :], judged).to_json()


def _ratio(judged: Judged, reference: Judged) -> dict[str, Any]:
    goal = goal_ratio(judged, reference)
    whole = None if goal is None else {"value": float(goal.value[0]), "error": float(goal.error[0])}
    return noise_ratio(judged, reference).to_json() | {"goal": whole}


def _facts(study: LensingStudy, name: str) -> dict[str, Any]:
    if name in study.quadratic:
        return {"kind": "quadratic", "label": _LABELS[name]}
    if name in study.ensembles:
        return {"kind": "ensemble", "label": name}
    run = study.runs[name]
    training = run.config.training
    averaged = training.average_from < 1
    label = f"{name} (SWA)" if averaged else name
    return {"kind": "network", "label": label, "run": run.folder.name, "seed": training.seed,
            "seconds_train": study.seconds()[name], "averaged": averaged}  # fmt: skip


def _e_spectra(study: LensingStudy) -> dict[str, Any]:
    bands, judged = patch_bands(study.task, "e"), study.judge("e")
    models = {
        name: {
            "auto": part.means[1][0, 0].tolist(), "truth": part.means[1][0, 2].tolist(),
            "residual": measure(residual_of, part).to_json(), "correlation": measure(correlation_of, part).to_json(),
        }
        for name, part in judged.items() if name != "qe_eb"  # its E is that of qe_mv
    }  # fmt: skip
    return {"bands": {"edges": list(bands.edges), "ell": bands.centers.tolist()}, "models": models}


def setting_entry(study: LensingStudy) -> dict[str, Any]:
    """What patches of one size (or noise level) give."""
    models = {
        name: {
            "noise": noise(judged).to_json(),
            "correlation": measure(correlation_of, judged).to_json(),
            "ratio": noise_ratio(judged, study.judged[study.reference]).to_json(),
        }
        for name, judged in study.judged.items()
    }
    config = study.config
    return {
        "degrees": config.patches.size * config.patches.pixel_arcmin / 60, "size": config.patches.size,
        "noise_level": config.lensing.noise, "networks": list(study.runs), "reference": study.reference,
        "bands": {"edges": list(study.bands.edges), "ell": study.bands.centers.tolist()}, "models": models,
    }  # fmt: skip


def omega_c_entry(study: LensingStudy) -> dict[str, Any]:
    fits = study.density_fits()
    first = next(iter(fits.values()))
    models = {name: fit.to_json() for name, fit in fits.items()}
    return {"grid": first.grid[::4].tolist(), "fiducial": first.fiducial, "models": models}


def notes_of(
    main: LensingStudy, studies: Sequence[LensingStudy], content: dict[str, Any], skip: Collection[str]
) -> list[str]:
    """What a reader must know to trust the numbers."""
    count = len(main.test.groups)
    notes = [
        f"{count} test patches, drawn from seeds (or skies) that no training saw; R, the mean fields and the debiasing "
        "N_L come from as many validation patches.",
        "All spectra are taken under the patch's mask. The naive QE's image already falls off as the mask squared and "
        "is not multiplied again; its response takes that up.",
        "N_L is the paper's proxy <auto>/R^2 - C^kk: on lensed skies it holds N1 and higher terms beside N0. Compare "
        "proxy with proxy.",
    ]
    if "over_n0" in content["models"].get("qe_eb", {}):
        excess = content["models"]["qe_eb"]["over_n0"]
        shown = ", ".join(f"{r:.2f} at L = {ell:.0f}" for ell, r in zip(content["bands"]["ell"], excess, strict=True))
        notes.append(f"The fair EB's proxy over its N0: {shown} (1.47 to 1.08 from L = 100 to 2000 on whole skies).")
    if len({study.config.patches.size * study.config.patches.pixel_arcmin for study in studies}) < 2:
        notes.append("Patch sizes (fig. 12): all runs are of one size, so there is nothing to compare; add runs of "
                     "1.25, 2.5 and 5 degrees.")  # fmt: skip
    if not main.ensembles:
        notes.append("Seeds (eq. 18): no two runs differ in training.seed alone, so there is no spread.")
    if "N0_iterated" not in content["theory"]:
        notes.append("The iterated N0 does not exist here: delensing would remove more B than there is.")
    if main.config.lensing.simulator == "curved" and not {"nulls", "omega_c"} <= set(skip):
        notes.append("Gaussian skies and other cosmologies are drawn on a flat sky; the runs' own patches are curved.")
    notes += [f"Not measured: {name}." for name in skip]
    return notes
