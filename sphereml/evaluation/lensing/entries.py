"""The parts of ``lensing.json``, each from a study; :mod:`~sphereml.evaluation.lensing.results` has the schema."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.lensing.labels import QUADRATIC
from sphereml.evaluation.lensing.noise import (
    Judged,
    correlation,
    goal_ratio,
    noise,
    noise_ratio,
    residual,
    response,
)
from sphereml.evaluation.lensing.seeds import seed_spread
from sphereml.evaluation.lensing.setting import Setting
from sphereml.lensing.iterated import Iteration, iterate_eb
from sphereml.lensing.noise import NoiseModel, combined


def main_part(study: Setting) -> dict[str, Any]:
    theory, iteration = theory_curves(study)
    content: dict[str, Any] = {
        "experiment": study.described(),
        "bands": {"edges": list(study.bands.edges), "ell": study.bands.centers.tolist()},
        "theory": theory,
        "iteration": iteration,
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


def theory_curves(study: Setting) -> tuple[dict[str, Any], str]:
    """C^kk and N0 in the bands, and the iterated one if some convention of its iteration settles."""
    task, bands = study.task, study.bands
    reach = min(math.ceil(bands.edges[-1]) + 1, 2 * task.observation.lmax - 1)
    model = NoiseModel(task.spectra, task.observation, reach)
    eb, ee = model.eb(), model.ee()
    curves = {"N0_EB": eb, "N0_MV": combined(eb, ee)}
    iterated, note = _iterated(model)
    if iterated is not None:
        curves["N0_iterated"] = iterated
    averages = {name: bands.average(curve).tolist() for name, curve in _from_two(curves).items()}
    return {"kappa": bands.average(task.spectra.kappa).tolist(), **averages}, note


def _iterated(model: NoiseModel) -> tuple[np.ndarray | None, str]:
    """The iterated N0 and its convention, the default one where it settles; or None and why not."""
    for iteration in (Iteration(), Iteration(residual="ratio", e_filter="unlensed")):
        try:
            return iterate_eb(model, iteration).n0, f"residual {iteration.residual}, E filter {iteration.e_filter}"
        except UserError as error:
            fault = error.what
    return None, fault


def _from_two(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Curves whose infinite monopole and dipole are as L = 2, which no band's interpolation may see."""
    return {name: np.concatenate([curve[2:3], curve[2:3], curve[2:]]) for name, curve in curves.items()}


def _model(study: Setting, name: str, theory: dict[str, Any]) -> dict[str, Any]:
    judged = study.judged[name]
    auto, _, truth = judged.means[1][0].tolist()
    entry = _facts(study, name) | {"auto": auto, "truth": truth, "response": response(judged).to_json()}
    entry |= {
        "noise": noise(judged).to_json(),
        "correlation": correlation(judged).to_json(),
        "residual": residual(judged).to_json(),
        "scatter": judged.scatter().to_json(),
        "sample_variance": judged.sample_variance().to_json(),
    }
    if name in study.quadratic and name != "iterated":
        n0 = np.array(theory["N0_MV" if name == "qe_mv" else "N0_EB"])
        entry["over_n0"] = (np.array(entry["noise"]["value"]) / n0).tolist()
    entry["ratio"] = {other: _ratio(judged, study.judged[other]) for other in study.quadratic if other != name}
    return entry


def _ratio(judged: Judged, reference: Judged) -> dict[str, Any]:
    goal = goal_ratio(judged, reference)
    whole = None if goal is None else {"value": float(goal.value[0]), "error": float(goal.error[0])}
    return noise_ratio(judged, reference).to_json() | {"goal": whole}


def _facts(study: Setting, name: str) -> dict[str, Any]:
    if name in study.quadratic:
        return {"kind": "quadratic", "label": QUADRATIC[name]}
    if name in study.ensembles:
        return {"kind": "ensemble", "label": name}
    run = study.runs[name]
    training = run.config.training
    averaged = training.average_from < 1
    label = f"{name} (SWA)" if averaged else name
    return {"kind": "network", "label": label, "run": run.folder.name, "seed": training.seed,
            "seconds_train": study.seconds()[name], "averaged": averaged}  # fmt: skip


def _e_spectra(study: Setting) -> dict[str, Any]:
    bands, judged = study.output_bands("e"), study.judge("e")
    models = {
        name: {
            "auto": part.means[1][0, 0].tolist(), "truth": part.means[1][0, 2].tolist(),
            "residual": residual(part).to_json(), "correlation": correlation(part).to_json(),
        }
        for name, part in judged.items() if name not in ("qe_eb", "iterated")  # their E is that of qe_mv
    }  # fmt: skip
    return {"bands": {"edges": list(bands.edges), "ell": bands.centers.tolist()}, "models": models}


def setting_entry(study: Setting) -> dict[str, Any]:
    """What patches of one size (or noise level) give."""
    models = {
        name: {
            "noise": noise(judged).to_json(),
            "correlation": correlation(judged).to_json(),
            "ratio": noise_ratio(judged, study.judged[study.reference]).to_json(),
        }
        for name, judged in study.judged.items()
    }
    config = study.config
    return {
        "degrees": study.extent, "size": config.patches.size,
        "noise_level": config.lensing.noise, "networks": list(study.runs), "reference": study.reference,
        "bands": {"edges": list(study.bands.edges), "ell": study.bands.centers.tolist()}, "models": models,
    }  # fmt: skip


def omega_c_entry(study: Setting) -> dict[str, Any]:
    fits = study.fiducials.density_fits()
    first = next(iter(fits.values()))
    models = {name: fit.to_json() for name, fit in fits.items()}
    return {"grid": first.grid[::4].tolist(), "fiducial": first.fiducial, "models": models}


def notes_of(main: Setting, studies: Sequence[Setting], content: dict[str, Any], skip: Collection[str]) -> list[str]:
    """What a reader must know to trust the numbers."""
    notes = main.notes()
    if "over_n0" in content["models"].get("qe_eb", {}):
        excess = content["models"]["qe_eb"]["over_n0"]
        shown = ", ".join(f"{r:.2f} at L = {ell:.0f}" for ell, r in zip(content["bands"]["ell"], excess, strict=True))
        lensing = main.config.lensing
        known = (lensing.noise, lensing.beam) == (1.0, 1.0)
        whole = " (1.47 to 1.08 from L = 100 to 2000 on whole skies)" if known else ""
        notes.append(f"The fair EB's proxy over its N0: {shown}{whole}.")
    patches = "degrees" in content["experiment"]
    if patches and len({study.extent for study in studies}) < 2:
        notes.append("Patch sizes (fig. 12): all runs are of one size, so there is nothing to compare; add runs of "
                     "1.25, 2.5 and 5 degrees.")  # fmt: skip
    count = len(main.test.groups)
    if patches and main.config.lensing.simulator == "flat" and len(np.unique(main.test.groups)) == count:
        notes.append("Errors take patches for independent: they are cut from fewer than 20 drawn skies, and those side "
                     "by side share waves longer than a patch.")  # fmt: skip
    if not main.ensembles:
        notes.append("Seeds (eq. 18): no two runs differ in training.seed alone, so there is no spread.")
    if "N0_iterated" not in content["theory"]:
        notes.append(f"No iterated N0: {content['iteration']}.")
    if patches and main.config.lensing.simulator == "curved" and not {"nulls", "omega_c"} <= set(skip):
        notes.append("Gaussian skies and other cosmologies are drawn on a flat sky; the runs' own patches are curved.")
    notes += [f"Not measured: {name}." for name in skip]
    return notes
