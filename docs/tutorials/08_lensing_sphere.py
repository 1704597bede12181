# %% [markdown]
# # 8. Lensing on the sphere
#
# The quadratic estimator of kappa from Q and U of the full sky. A sky *without* lensing is the honest first test: whatever
# comes out is noise, and its power must be N0.

# %%
import camb
import numpy as np

import sphereml as sm

nside, lmax, rng = 128, 256, np.random.default_rng(8)
planck = {"H0": 67.94, "ombh2": 0.0222, "omch2": 0.1185, "As": 2.21e-9, "ns": 0.9624, "tau": 0.0943}
results = camb.get_results(camb.set_params(**planck, lmax=2000, lens_potential_accuracy=1))
lensed = results.get_cmb_power_spectra(CMB_unit="muK", raw_cl=True, lmax=lmax)["lensed_scalar"]  # C_ell: TT, EE, BB, TE

# %% [markdown]
# Gaussian E and B with the spectra of the lensed sky, which is what the estimator's filters expect, but without the
# correlations that lensing makes; and white noise of 10 uK-arcmin in Q and in U, no beam.

# %%
sht = sm.SHT(nside=nside, lmax=lmax, spin=2)
ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
m = np.concatenate([np.full(lmax + 1 - m, m) for m in range(lmax + 1)])


def draw(cl: np.ndarray) -> np.ndarray:
    """Gaussian coefficients in healpy's order."""
    re, im = rng.normal(size=(2, len(ell)))
    return np.where(m == 0, re, (re + 1j * im) / np.sqrt(2)) * np.sqrt(cl[ell])


clean = sht.synthesis(np.stack([draw(lensed[:, 1]), draw(lensed[:, 2])]))
pixel = np.degrees(np.sqrt(4 * np.pi / (12 * nside**2))) * 60  # arcmin
qu = clean + 10.0 / pixel * rng.normal(size=clean.shape)

# %%
kappa = sm.lensing.estimate(qu.T, noise=10, beam=0, lmin=30, lmax=lmax, lmax_kappa=200, estimator="EB", order="nest")
kappa

# %% [markdown]
# Nothing was lensed, so the estimate is noise. The measured spectrum over the theory's N0, in wide bands:

# %%
cl = sm.spectra([kappa], lmax=200, bins=[10, 40, 80, 120, 160, 200])[0, 0]
for lo, hi, value in zip(cl.lower, cl.upper, cl["TT"], strict=True):
    level = np.mean([kappa.n0[one] for one in range(lo, hi)])
    print(f"L {lo:3d}-{hi - 1:3d}: measured over N0 {value / level:.2f}")

# %% [markdown]
# The map comes with its curves; `kappa.wiener_e()` is the most likely E, and `sm.lensing.template(kappa, kappa.wiener_e())` the
# lensing B that they make.

# %%
template = sm.lensing.template(kappa, kappa.wiener_e())
template

# %% [markdown]
# **What this does not show.** A real sky has N1 (the estimate's power is above N0 + C_kappa), masks (conjugate gradients, a mean field from
# simulations) and multipoles up to 3000. At lmax 256 kappa is all noise: [lensing](../lensing.md) has skies where it is not.
