"""``sphereml lensing estimate | template`` for a flat patch of a user's own: FITS images in, FITS images out.

A patch is a square image of Q and U (two planes, ``CDELT2`` in degrees, ``BUNIT``), as observed and without a taper;
FILE[NAME] is the image of that name.
The file of kappa holds KAPPA, E (lensed, or UNLENSED_E of a network that predicts it), and with ``--mean-field`` the
images SIGMA and the table CURVES (L, RESPONSE, N_L, C_KAPPA by band) of simulated patches.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.cli.lensing_run_flags import refuse_beside_run
from sphereml.cli.output import say, tell
from sphereml.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from sphereml.data.patch_images import PatchImage
    from sphereml.evaluation.lensing.own_patch import OwnPatch
    from sphereml.lensing.lensed_b import Expansion
    from sphereml.tasks.lensing import LensingTask
    from sphereml.training.runs import Run

_OF_SPHERES = ("mask", "depth", "lmax_kappa", "e_out", "nside", "pixel_window", "tolerance", "seed", "json")
_OF_SPHERICAL_TEMPLATES = ("lmax", "filtered")


def is_patch(name: str | None) -> bool:
    """Whether a file holds a flat patch."""
    from sphereml.data.column_names import parse_reference
    from sphereml.data.patch_images import holds_patch

    return name is not None and holds_patch(parse_reference(name).path)


def estimate(options: argparse.Namespace) -> None:
    """Write kappa and E of a patch."""
    from sphereml.data.patch_images import write_patch
    from sphereml.templates.products import curve_table, refuse_standing

    _refuse(options, _OF_SPHERES)
    refuse_standing([Path(options.out)], options.overwrite)
    patch, image = _observed(options)
    images, tables = {"KAPPA": patch.images["kappa"], "E": patch.wiener_e()}, []
    if "e" in patch.images and options.network:
        images["UNLENSED_E"] = patch.images["e"]
    if options.mean_field:
        found = patch.calibrate(options.mean_field, tell)
        images["SIGMA"], tables = found.sigma, [curve_table("CURVES", found.curves)]
    units = dict.fromkeys(images, "1") | {"E": "uK_CMB", "UNLENSED_E": "uK_CMB"}
    write_patch(options.out, images, image.grid, units, _cards(patch), tables)
    say(f"kappa of the patch, most likely: {options.out}")


def template(options: argparse.Namespace) -> None:
    """Write Q and U of the lensing B of a patch, from the files of kappa and E or from Q and U at once."""
    from sphereml.data.patch_images import write_patch
    from sphereml.harmonics.flat_polarization import FlatSky
    from sphereml.lensing.patch_template import template_qu
    from sphereml.templates.products import refuse_standing

    _refuse(options, _OF_SPHERES + _OF_SPHERICAL_TEMPLATES)
    refuse_standing([Path(options.out)], options.overwrite)
    cards: dict[str, Any] = {"EXPANSIO": options.order}
    if options.network:
        patch, image = _observed(options)
        kappa, e, grid = patch.images["kappa"], _e_of(patch, options.order), image.grid
        cards |= _cards(patch)
    else:
        parts = [_read(name, 1, unit, options) for name, unit in ((options.kappa, "1"), (options.e, "uK_CMB"))]
        if parts[0].grid != parts[1].grid:
            raise UserError("kappa and E are of different pixels", "give patches of one grid")
        (kappa, e), grid = (part.values[0] for part in parts), parts[0].grid
    made = template_qu(FlatSky(grid.size, grid.pixel_arcmin), kappa, e, options.order)
    write_patch(options.out, {"P": made}, grid, {"P": "uK_CMB"}, cards)
    say(f"lensing-B template of the patch ({options.order}): {options.out}")


def _refuse(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    for name in names:
        given = getattr(options, name, None)
        if given is not None and given is not False:
            raise UserError(f"--{name.replace('_', '-')} is for HEALPix maps, not for a patch", "leave it out")


def _e_of(patch: OwnPatch, order: Expansion) -> np.ndarray:
    if order == "gradient":
        return patch.wiener_e()
    if "e" not in patch.images:
        raise UserError("--order all takes an unlensed E, which the run does not predict", "give --order gradient")
    return patch.images["e"]


def _read(name: str, planes: int, unit: str, options: argparse.Namespace) -> PatchImage:
    from sphereml.data.column_names import parse_reference
    from sphereml.data.patch_images import read_patch

    reference = parse_reference(name)
    wanted = reference.columns[0] if reference.columns else ""
    silent = options.unit if unit != "1" else ""
    return read_patch(reference.path, planes, unit, wanted, not options.no_checksum, silent)


def _observed(options: argparse.Namespace) -> tuple[OwnPatch, PatchImage]:
    from sphereml.evaluation.lensing.own_patch import OwnPatch
    from sphereml.tasks.lensing import LensingTask
    from sphereml.training.runs import Run

    image = _read(options.qu, 2, "uK_CMB", options)
    run = Run.open(options.network) if options.network else None
    task = LensingTask(_config(options, image), tell) if run is None else _task_of(run, image, options)
    return OwnPatch(task, image.values, run), image


def _config(options: argparse.Namespace, image: PatchImage) -> Any:
    """The experiment of a patch without a network."""
    from sphereml.config.compose import compose

    if options.estimator not in (None, "MV"):
        raise UserError(f"--estimator {options.estimator} of a patch", "leave it out: EB and EE together")
    given = {"noise": options.noise, "beam": options.beam, "lmin": options.lmin, "lmin_b": options.lmin_b or None}
    given |= {"taper": options.taper, "passes": options.passes}
    given["lmax_eb"] = options.lmax or min(4000, int(2 * image.grid.nyquist_ell / 3))
    words = [f"lensing.{name}={value}" for name, value in given.items() if value is not None]
    size = [f"patches.size={image.grid.size}", f"patches.pixel_arcmin={image.grid.pixel_arcmin!r}", "model.depth=1"]
    return compose(["experiment=lensing_small", "lensing.outputs=[kappa]", *size, *words])


def _task_of(run: Run, image: PatchImage, options: argparse.Namespace) -> LensingTask:
    """The run's task; raises UserError for a patch, or settings, that it was not trained for."""
    from sphereml.tasks.lensing import LensingTask

    patches, lensing = run.config.patches, run.config.lensing
    if run.config.task != "lensing" or "kappa" not in lensing.outputs:
        raise UserError(f"{options.network} predicts no kappa of patches", "name a run of the task lensing")
    wanted = f"{patches.size} x {patches.size} pixels of {patches.pixel_arcmin:g} arcmin"
    if image.grid.size != patches.size or abs(image.grid.pixel_arcmin / patches.pixel_arcmin - 1) > 1e-3:
        own = f"{image.grid.size} x {image.grid.size} of {image.grid.pixel_arcmin:g}"
        raise UserError(f"{options.qu} has {own}, the run {wanted}", "cut another patch, or train for this one")
    refuse_beside_run(options, run.config)
    return LensingTask(run.config, tell)


def _cards(patch: OwnPatch) -> dict[str, Any]:
    lensing = patch.task.settings
    name = {"RUN_ID": patch.run.folder.name} if patch.run else {}
    return name | {"NOISE": lensing.noise, "BEAM": lensing.beam, "LMIN_B": lensing.lmin_b, "PASSES": lensing.passes}
