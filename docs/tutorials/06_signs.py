# %% [markdown]
# # 6. Q, U and their signs
#
# Half of all polarization bugs are a sign of U; the other half are Q and U taken for scalars. Both can be seen.

# %%
import healpy
import numpy as np

import sphereml as sm

nside, lmax, rng = 32, 64, np.random.default_rng(6)
sht = sm.SHT(nside=nside, lmax=lmax, spin=2)
ell = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
shape = sht.analysis(rng.normal(size=(2, 12 * nside**2)))
eb = np.stack([shape[0] * np.where(ell > 1, 10.0 / np.maximum(ell, 1), 0), 0 * shape[1]])  # E alone
qu = sm.SkyMap(sht.synthesis(eb).T, sm.Field("P", "uK_CMB", spin=2), order="nest")
qu

# %% [markdown]
# A field of spin 2 has two columns and one name. It goes to a file with its sign convention, and healpy reads it:

# %%
path = sm.write_map("qu.fits", qu, overwrite=True)
_, header = healpy.read_map(path, field=(0, 1), h=True)
{key: value for key, value in dict(header).items() if key in ("POLCCONV", "COORDSYS", "ORDERING", "TUNIT1")}

# %% [markdown]
# **The wrong sign of U** turns E into B:

# %%
right = sm.spectra([qu], lmax=lmax, bins=[2, 20, 40, 64])[0, 0]
flipped = sm.SkyMap(qu.values * np.array([1, -1]), qu.fields, order="nest")
wrong = sm.spectra([flipped], lmax=lmax, bins=[2, 20, 40, 64])[0, 0]
for name, found in (("COSMO", right), ("U flipped", wrong)):
    print(f"{name:10s} BB/EE", *(f"{value:9.2e}" for value in found["BB"] / found["EE"]))

# %% [markdown]
# **Q and U as two scalars.** Smooth them one by one, as scalars, and compare with smoothing E and B: the two differ where
# frames turn, towards the poles.

# %%
scalar = sm.SHT(nside=nside, lmax=lmax)
beam = np.exp(-((ell / 12.0) ** 2))
by_parts = np.stack([scalar.synthesis(scalar.analysis(column) * beam) for column in qu.values.T])
by_spin = sht.synthesis(eb * beam)
lat = np.abs(sm.HealpixSky(nside).region.grid.lonlat()[1])
for low, high in ((0, 30), (30, 60), (60, 80), (80, 90)):
    ring = (lat >= low) & (lat < high)
    off = np.std((by_parts - by_spin)[:, ring]) / np.std(by_spin[:, ring])
    print(f"|b| {low}-{high}: {100 * off:.0f} % wrong")

# %% [markdown]
# **Networks.** With typed channels a network turns with the frames. The harness that this package tests itself with is
# public:

# %%
sky = sm.HealpixSky(8)
polarization, parities = sm.Channels(spin2=1), sm.Channels(even=1, odd=1)  # Q and U in, E and B out
width = sm.Channels(even=4, odd=2, spin2=4)
typed = sm.UNet(sky, polarization, parities, width=width, depth=1, stencil="spin").eval()
sm.testing.assert_frame_free(typed, sky, polarization, parities)
print("outputs do not depend on how the local frames are turned")

# %%
qu.plot()

# %% [markdown]
# **What this does not show.** A file without `POLCCONV` cannot be read right by anybody: say the sign yourself
# (`polcconv: IAU` in a configuration). [Fields with a spin](../spin.md) has the rules of typed networks.
