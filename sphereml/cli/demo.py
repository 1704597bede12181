"""``sphereml demo``: the whole job on a synthetic Galaxy, into ``runs/demo``."""

from __future__ import annotations

import argparse

from sphereml.cli.experiment import add_overrides, load_data, model_configs, refuse_unfit, say, study_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)


def run(options: argparse.Namespace) -> None:
    """Simulate, train, predict, compare, marginalize, report; what is already trained is kept."""
    configs = model_configs(["experiment=dust_demo", *options.overrides])
    say("1/5 a synthetic Galaxy")
    sky, split = load_data(configs[0])
    refuse_unfit(configs, sky, split)
    from sphereml.evaluation.contamination import clean_with_templates, contaminate
    from sphereml.evaluation.study import Study
    from sphereml.evaluation.table import comparison_table
    from sphereml.templates.products import write_mask, write_template
    from sphereml.training.fit import fit_run
    from sphereml.training.lifecycle import FitOptions

    say("2/5 training on the north")
    runs = [fit_run(config, sky, split, FitOptions(resume=True, say=say)) for config in configs]
    study = Study(configs[0], runs, sky, split, say)
    folder = study_folder("", configs[0])
    say("3/5 full-sky templates")
    study.write_templates(folder / "templates")
    say("4/5 comparison on the south, and marginalization on CMB + dust")
    comparison = study.compare(folder)
    templates = {run.name: study.predict(run).values for run in runs}
    skies = contaminate(sky, split.test, configs[0].evaluation.seed)
    comparison.marginalization = clean_with_templates(skies, templates, comparison.bands)
    write_template(folder / "sky_150ghz.fits", {"I": skies[0].total}, "uK_CMB", overwrite=True)
    write_mask(folder / "mask_test.fits", split.test, overwrite=True)
    comparison.save(folder)
    say("5/5 report")
    report = study.report(folder)
    comparison_table(comparison.to_json())
    say(f"report: {report}")
    say(f"templates: {folder / 'templates'}; a sky to clean: {folder / 'sky_150ghz.fits'}")
