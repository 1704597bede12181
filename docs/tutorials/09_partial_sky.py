# %% [markdown]
# # 9. A part of the sky, and masks
#
# Masks are weights from 0 to 1, and are used as they are: in spectra, in training, in the scores.

# %%
from itertools import pairwise

import numpy as np
import torch

import sphereml as sm

nside, rng = 32, np.random.default_rng(9)
lon, lat = sm.HealpixSky(nside).region.grid.lonlat()
binary = ((lat > 25) & (lon < 150)).astype(float)
smooth = np.clip((lat - 25) / 12, 0, 1) * np.clip((150 - lon) / 15, 0, 1) * np.clip(lon / 15, 0, 1)

# %% [markdown]
# **Spectra.** A mask couples multipoles. `sm.Workspace` knows the coupling of its mask and undoes it, band by band. What a
# bandpower then sees is its *window*; where a spectrum is steep inside a band, as here, the window is not the band, and a
# theory must be bound to it (`predict`), never averaged over the band. Twelve skies of this size still scatter by some ten per cent.

# %%
edges, multipoles = [2, 12, 24, 36, 50, 64], np.arange(65)
theory = 4 * np.pi / (12 * nside**2) * np.where(multipoles > 1, 1 / np.maximum(multipoles, 1), 0)
naive = [theory[lo:hi].mean() for lo, hi in pairwise(edges)]
sht = sm.SHT(nside=nside, lmax=64)
ell = np.concatenate([np.arange(m, 65) for m in range(65)])
skies = [
    sht.synthesis(sht.analysis(rng.normal(size=12 * nside**2)) * np.where(ell > 1, np.maximum(ell, 1) ** -0.5, 0))
    for _ in range(12)
]
for name, mask in (("binary", binary), ("smooth", smooth)):
    workspace = sm.Workspace(mask, edges, lmax=64)
    found = [workspace.bandpowers(sky) for sky in skies]
    mean = np.mean([one["TT"] for one in found], axis=0)
    print(f"{name}, {100 * np.mean(mask**2):.0f} % of the sky, 12 skies")
    print("  over the theory in its windows:", (mean / found[0].predict(theory[None])[0]).round(2))
    print("  over the theory's band average:", (mean / naive).round(2))

# %% [markdown]
# **Networks on a part.** Any union of coarse pixels is a domain: closed under pooling, so that a U-Net of that depth runs on
# it. Sixteen coarse pixels of Nside 8 here, 256 fine ones.

# %%
whole = sm.HealpixSky(nside)
part = sm.HealpixSky(nside, coarse_nside=8, coarse_pixels=tuple(range(16)))
net = sm.UNet(whole, 1, 1, width=4, depth=2)
x = torch.from_numpy(skies[0][None, :, None].astype(np.float32))
with torch.no_grad():
    everywhere, here = net.eval()(x, whole)[0, :, 0], net(x[:, : part.shape[0]], part)[0, :, 0]
difference = (everywhere[: part.shape[0]] - here).abs()
print(f"median difference {difference.median():.1e}, at the edge up to {difference.max():.1e}")

# %% [markdown]
# Inside, the part's result is the whole sky's; at its edge the network misses what lies beyond. Prediction on tiles adds
# a halo as wide as the network's reach, and is exact.
#
# **Training with a mask**: `split.mask_file=mask.fits`; weights between 0 and 1 count in part.

# %%
sm.write_map(
    "mask.fits", sm.SkyMap(np.clip((np.abs(lat) - 15) / 10, 0, 1), sm.Field("mask", "1"), order="nest"), overwrite=True
)
words = ["experiment=dust_demo", "data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2"]
small = ["patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=20", "split.sky_fraction=null"]
run = sm.train(*words, *small, "model=linear", "split.mask_file=mask.fits", resume=True)
sm.compare([run]).to_dataframe()[["model", "sphere.r_low", "sphere.r50", "sphere_sem.r50"]]

# %% [markdown]
# **What this does not show.** Pure B needs a smooth mask, and small ragged masks break the covariance's approximation:
# [spectra](../spectra.md), [theory](../theory/pseudo_spectra.md).
