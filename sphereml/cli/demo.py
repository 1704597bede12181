"""``sphereml demo``: the whole job on a synthetic Galaxy into ``runs/demo``, its polarization beside it."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import add_overrides, model_configs, show, study_folder
from sphereml.cli.output import say, tell
from sphereml.cli.train import train_models

_POLARIZATION = [
    "experiment=dust_polarization_quick",
    "name=demo_polarization",
    "models=[structure_tensor,unet_flat,unet_spin]",
    "training.epochs=7",
]
# What a demo's user says of the dust's experiment alone.
_NOT_SHARED = ("experiment=", "name=", "models=", "model=", "task=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.set_defaults(usual=_with_experiment)


def _with_experiment(words: list[str]) -> list[str]:
    return ["experiment=dust_demo", *words]


def run(options: argparse.Namespace) -> None:
    """Simulate, train, predict, compare, marginalize, report; what is already trained is kept."""
    configs = model_configs(_with_experiment(options.overrides))
    tell("1/5 a synthetic Galaxy, and training on its north")
    runs = train_models(configs, resume=True, overwrite=False)
    from sphereml.evaluation.maps.contamination import clean_with_templates, contaminate
    from sphereml.evaluation.maps.study import MapStudy
    from sphereml.evaluation.protocol import StudyOptions
    from sphereml.templates.products import write_mask, write_template

    study = MapStudy(runs, StudyOptions(tell, evaluation=configs[0].evaluation))
    folder = study_folder("", configs[0])
    tell("2/5 full-sky templates")
    study.write_templates(folder / "templates")
    tell("3/5 comparison on the south")
    result = study.measure()
    tell("4/5 marginalization on CMB + dust, and the report")
    skies = contaminate(study.sky, study.split.test, configs[0].evaluation.seed)
    templates = {run.name: study.predict(run).values[:, 0] for run in runs}
    result.content["marginalization"] = clean_with_templates(skies, templates, study.held_out.bands)
    write_template(folder / "sky_150ghz.fits", {"I": skies[0].total}, "uK_CMB", overwrite=True)
    write_mask(folder / "mask_test.fits", study.split.test, overwrite=True)
    show(result, folder)
    say(f"templates: {folder / 'templates'}; a sky to clean: {folder / 'sky_150ghz.fits'}")
    tell("5/5 the same for polarization: Q and U")
    _show_polarization([word for word in options.overrides if not word.startswith(_NOT_SHARED)])


def _show_polarization(words: list[str]) -> None:
    """Train a flat and a spherical network on Q and U, and score them beside the structure tensor."""
    from sphereml.evaluation.maps.study import MapStudy
    from sphereml.evaluation.protocol import StudyOptions

    configs = model_configs([*_POLARIZATION, *words])
    runs = train_models(configs, resume=True, overwrite=False)
    study, folder = MapStudy(runs, StudyOptions(tell, evaluation=configs[0].evaluation)), study_folder("", configs[0])
    study.write_templates(folder / "templates")
    show(study.measure(), folder)
