# %% [markdown]
# # Gallery
#
# Figures and the code that draws them. Each is a matplotlib Figure: `figure.savefig("name.pdf")` writes it.

# %%
import numpy as np

import sphereml as sm

sky = sm.load_sky("data=galaxy", "data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2")
dust, gas = sky.targets[:, 0].astype(float), sky.inputs.sum(axis=1).astype(float)
gas *= dust.std() / gas.std()

# %% [markdown]
# ## A map, with l and b
#
# The stretch is that of the data; missing pixels are grey.

# %%
sm.plot.sky(sm.SkyMap(dust, sm.Field("dust", "uK_RJ"), order="nest"))

# %% [markdown]
# ## A residual, on the scale of the region that counts

# %%
lat = sm.HealpixSky(32).region.grid.lonlat()[1]
residual = sm.SkyMap(gas - dust, sm.Field("gas - dust", "uK_RJ"), order="nest")
sm.plot.sky(residual, sm.plot.residual_scale(gas - dust, region=np.abs(lat) > 30))

# %% [markdown]
# ## Polarization: two panels of one field

# %%
sht = sm.SHT(nside=32, lmax=64, spin=2)
qu = sht.synthesis(sht.analysis(np.random.default_rng(0).normal(size=(2, 12288))))
sm.SkyMap(qu.T, sm.Field("P", "uK_CMB", spin=2), order="nest").plot()

# %% [markdown]
# ## Correlation against multipole, with errors and bands

# %%
cl = sm.spectra([dust, gas], np.clip((np.abs(lat) - 15) / 10, 0, 1), lmax=64, bins=list(range(2, 64, 6)), order="nest")
r = cl[0, 1]["TT"] / np.sqrt(cl[0, 0]["TT"] * cl[1, 1]["TT"])
error = (1 - r**2) / np.sqrt(6 * (2 * cl[0, 0].ell + 1) * 0.7)
sm.plot.correlation(cl[0, 0].ell, {"integrated": (r, error)}, {"r_low": (2, 15), "r50": (15, 64)})

# %% [markdown]
# ## Power

# %%
curves = {"dust": (cl[0, 0]["TT"], None), "gas": (cl[1, 1]["TT"], None)}
sm.plot.power(cl[0, 0].ell, curves, "uK_RJ", reference="dust")

# %% [markdown]
# ## Noise of lensing estimators

# %%
n0 = sm.lensing.n0(noise=5, beam=1, lmin=30, lmax=2000)
sm.plot.power(n0["L"], {"EB": (n0["N0_EB"], None), "EB iterated": (n0["N0_EB_iterated"], None)}, "1")

# %% [markdown]
# The figures of a report (scatter, training curves, transfer functions, scores by latitude, residual maps of every model)
# are drawn by `sphereml compare` and stand in its page, as light and as dark pictures in `figures/`.
