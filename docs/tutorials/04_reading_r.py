# %% [markdown]
# # 4. Reading r(ell)
#
# What a correlation says, and what it hides. Two maps whose correlation is known because it was put in.

# %%
import numpy as np

import sphereml as sm

nside, lmax, rng = 32, 64, np.random.default_rng(4)
sht = sm.SHT(nside=nside, lmax=lmax)
ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])


def draw() -> np.ndarray:
    """Coefficients of a field with C_ell falling as ell^-2.4."""
    return sht.analysis(rng.normal(size=12 * nside**2)) * np.maximum(ell, 1) ** -1.2


truth, other = draw(), draw()
wanted = 1 / (1 + (ell / 40) ** 2)  # r of each multipole
maps = {
    "truth": sht.synthesis(truth),
    "template": sht.synthesis(wanted * truth + np.sqrt(1 - wanted**2) * other),
}

# %%
bands = sm.Bands(r_low=(2, 15), middle=(15, 40), high=(40, 64))
r = sm.correlation(maps["truth"], maps["template"], bands=bands, order="nest")
expected = {
    name: np.mean([1 / (1 + (one / 40) ** 2) for one in range(int(lo), int(hi))]) for name, (lo, hi) in bands.items()
}
{name: (round(r[name], 3), round(expected[name], 3)) for name in r}

# %% [markdown]
# **r does not know the amplitude.** A template that is twice too strong has the same r; the transfer function
# $C^{tp}/C^{tt}$ tells them apart.

# %%
for factor in (1.0, 2.0):
    pair = [maps["truth"], factor * maps["template"]]
    cl = sm.spectra(pair, lmax=lmax, order="nest")
    transfer = cl[0, 1]["TT"] / cl[0, 0]["TT"]
    same = sm.correlation(*pair, bands=bands, order="nest")["middle"]
    print(f"x {factor:g}: r {same:.3f}, transfer at ell 15-40 {transfer[13:38].mean():.2f}")

# %% [markdown]
# **Noise in the target lowers r**, whatever the template: r with the data is r with the truth times
# $\sqrt{C^{tt}/(C^{tt}+N)}$.

# %%
noise = 0.5 * maps["truth"].std() * rng.normal(size=12 * nside**2)
noisy = sm.correlation(maps["truth"] + noise, maps["template"], bands=bands, order="nest")
{name: (round(r[name], 3), round(noisy[name], 3)) for name in r}

# %% [markdown]
# **What is left after cleaning** is at best the share $1 - r^2$ of the power, multipole by multipole: r = 0.95 leaves a
# tenth, r = 0.99 a fiftieth.

# %%
multipoles = np.arange(2, lmax + 1)
curve = 1 / (1 + (multipoles / 40) ** 2)
sm.plot.correlation(multipoles, {"put in": (curve, None), "left, 1 - r^2": (1 - curve**2, None)}, dict(bands))

# %% [markdown]
# **What this does not show.** On flat patches r is the mean of single modes' cosines, a lower number for the same maps:
# [theory](../theory/correlation.md). And a correlation on one sky has cosmic variance, which the block jackknife estimates.
