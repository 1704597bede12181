"""The two-minute lensing experiment: its network must know kappa better than the quadratic estimator it starts from."""

from __future__ import annotations

import torch

from sphereml.config.compose import compose
from sphereml.harmonics.flat import FlatModes
from sphereml.lensing.patch_spectra import Bands, PatchPowers, compare_noise, summarize
from sphereml.tasks.lensing import LensingScaling, LensingTask
from sphereml.training.lensing_fit import Sampler, build_lensing_network, fit_lensing, predict_standardized
from sphereml.training.lifecycle import FitOptions

# 128 fresh patches tell rho to 0.006.  Measured: see STATED below.
EDGES = (200.0, 500.0, 1000.0)
STATED = (0.80, 0.55)


def test_two_minutes_of_training_reach_the_stated_correlation(tmp_path):
    config = compose(["experiment=lensing_quick", f"output={tmp_path}"])
    run = fit_lensing(config, FitOptions())
    task = LensingTask.of(config)
    network = build_lensing_network(config, task)
    network.load_state_dict(run.weights())
    network.eval()
    batch = task.batch(Sampler.of(task, "test").draw(20260, 128), LensingScaling.from_json(run.scaling()))
    with torch.inference_mode():
        prediction = predict_standardized(network, batch, task)[..., 0]
    bands = Bands(FlatModes(task.patch.size, task.patch.pixel_arcmin / 60), EDGES, task.mask)
    truth = batch.target[..., 0]
    learnt, estimator = (PatchPowers.measure(bands, image, truth) for image in (prediction, batch.base[..., 0]))
    print(summarize(learnt), summarize(estimator))
    for reached, stated in zip(summarize(learnt).correlation, STATED, strict=True):
        assert reached > stated
    ratio = compare_noise(learnt, estimator)
    assert ratio.ratio[0] + 2 * ratio.error[0] < 1
