# %% [markdown]
# # 5. Cleaning a sky with templates
#
# A CMB-like sky with dust in it, and a template that knows most of the dust. Fit, subtract, and count what is left: of the
# dust, and of the CMB.

# %%
import numpy as np

import sphereml as sm

sky = sm.load_sky("data=galaxy", "data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2")
dust = 3.0 * sky.targets[:, 0].astype(float)  # uK_CMB at about 250 GHz, from uK_RJ at 353
template = sky.inputs.sum(axis=1).astype(float)  # what the gas alone says
template *= sky.targets[:, 0].std() / template.std()

nside, lmax, rng = 32, 64, np.random.default_rng(5)
sht = sm.SHT(nside=nside, lmax=lmax)
ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
white = sht.analysis(rng.normal(size=12 * nside**2)) / np.sqrt(4 * np.pi / (12 * nside**2))
cmb = sht.synthesis(white * np.where(ell > 1, np.sqrt(2 * np.pi * 1000.0 / np.maximum(ell * (ell + 1), 1)), 0))

# %% [markdown]
# A mask is a weight from 0 to 1; here it leaves out the Galactic plane, with a smooth edge.

# %%
lat = sm.HealpixSky(nside).region.grid.lonlat()[1]
mask = np.clip((np.abs(lat) - 20) / 15, 0, 1)
bands = sm.Bands(low=(2, 15), high=(15, 64))

# %% [markdown]
# **Explicit**: one amplitude, fitted with inverse-variance weights in harmonic space, with its error.

# %%
fit = sm.marginalize(cmb + dust, template, mask, order="nest", bands=bands)
print(f"amplitude {fit.amplitudes[0]:.3f} ± {fit.errors[0]:.3f} uK_CMB per uK_RJ")

# %%
cleaned = cmb + dust - fit.amplitudes[0] * template
kept = sm.spectra([cmb, cmb + dust, cleaned], mask, bins=bands, lmax=lmax, order="nest")
for i, name in enumerate(("CMB alone", "with dust", "cleaned")):
    print(f"{name:10s}", *(f"{value:10.3e}" for value in kept[i, i]["TT"]), "uK^2")

# %% [markdown]
# **Implicit**: the template's modes are taken out of the spectrum, and the bias of doing so is corrected. No amplitude has to be
# right, and what the template does not know stays as well.

# %%
deprojected = sm.spectra([cmb + dust], mask, bins=bands, lmax=lmax, order="nest", templates=[template])
print("deprojected", *(f"{value:10.3e}" for value in deprojected[0, 0]["TT"]), "uK^2")

# %%
power = {name: (kept[i, i]["TT"], None) for i, name in enumerate(("CMB alone", "with dust", "cleaned"))}
sm.plot.power(kept[0, 0].ell, power, "uK_CMB", reference="CMB alone")

# %% [markdown]
# **What this does not show.** The error of the amplitude knows of the CMB's chance correlation with the template, and not
# of the template's own errors. A template from a network that saw this sky carries this sky's noise:
# [theory](../theory/templates.md).
