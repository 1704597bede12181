"""``sphereml demo``: the whole job on a synthetic Galaxy, into ``runs/demo``."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import add_overrides, model_configs, show, study_folder
from sphereml.cli.output import say, tell
from sphereml.cli.train import train_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.set_defaults(usual=_with_experiment)


def _with_experiment(words: list[str]) -> list[str]:
    return ["experiment=dust_demo", *words]


def run(options: argparse.Namespace) -> None:
    """Simulate, train, predict, compare, marginalize, report; what is already trained is kept."""
    configs = model_configs(_with_experiment(options.overrides))
    tell("1/4 a synthetic Galaxy, and training on its north")
    runs = train_models(configs, resume=True, overwrite=False)
    from sphereml.evaluation.maps.contamination import clean_with_templates, contaminate
    from sphereml.evaluation.maps.study import MapStudy
    from sphereml.evaluation.protocol import StudyOptions
    from sphereml.templates.products import write_mask, write_template

    study = MapStudy(runs, StudyOptions(tell, evaluation=configs[0].evaluation))
    folder = study_folder("", configs[0])
    tell("2/4 full-sky templates")
    study.write_templates(folder / "templates")
    tell("3/4 comparison on the south")
    result = study.measure()
    tell("4/4 marginalization on CMB + dust, and the report")
    skies = contaminate(study.sky, study.split.test, configs[0].evaluation.seed)
    templates = {run.name: study.predict(run).values[:, 0] for run in runs}
    result.content["marginalization"] = clean_with_templates(skies, templates, study.held_out.bands)
    write_template(folder / "sky_150ghz.fits", {"I": skies[0].total}, "uK_CMB", overwrite=True)
    write_mask(folder / "mask_test.fits", study.split.test, overwrite=True)
    show(result, folder)
    say(f"templates: {folder / 'templates'}; a sky to clean: {folder / 'sky_150ghz.fits'}")
