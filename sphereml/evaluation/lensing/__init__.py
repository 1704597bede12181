"""The measurements of DeepCMB (arXiv:1810.01483) on networks and quadratic estimators, over the same test patches.

Conventions: kappa has no unit, its spectra are C_L in sr; equations and figures named by number are the paper's.  Every
image stands under the patch's mask when its spectrum is taken (:mod:`~sphereml.evaluation.lensing.estimates` says how).
Responses, mean fields and noise biases come from validation patches and are applied to test patches.
"""
