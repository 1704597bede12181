# %% [markdown]
# # 2. Your own maps
#
# Two maps, a target, a mask and a map of regions, in FITS files: what you have, more or less. Here they are made first.

# %%
import subprocess
import sys
from pathlib import Path

import numpy as np

import sphereml as sm

nside, rng = 32, np.random.default_rng(1)
npix = 12 * nside**2
sht = sm.SHT(nside=nside, lmax=64)


def smooth_field(slope: float) -> np.ndarray:
    """A Gaussian field ``(npix,)`` NEST with C_ell falling as ell^slope."""
    alm = sht.analysis(rng.normal(size=npix))
    ell = np.concatenate([np.arange(m, 65) for m in range(65)])
    return sht.synthesis(alm * np.maximum(ell, 1) ** (slope / 2))


gas, starlight = np.exp(smooth_field(-2.4)), smooth_field(-2.0)
dust = 3 * gas * (1 + 0.2 * np.tanh(starlight))
z = np.sin(np.radians(sm.HealpixSky(nside).region.grid.lonlat()[1]))

# %% [markdown]
# Units go into the files, and come out of them.

# %%
for name, values, unit in (("gas", gas, "K km/s"), ("starlight", starlight, "mag"), ("dust", dust, "MJy/sr")):
    sm.write_map(f"{name}.fits", sm.SkyMap(values, sm.Field(name, unit), order="nest"), overwrite=True)
mask = (np.abs(z) > 0.1).astype(float)
regions = np.select([z > 0.35, z > 0.15, z < -0.15], [1.0, 2.0, 3.0], 0.0)  # train, validate, test
for name, values in (("mask", mask), ("regions", regions)):
    sm.write_map(f"{name}.fits", sm.SkyMap(values, sm.Field(name, "1"), order="nest"), overwrite=True)

# %% [markdown]
# `sphereml config new` reads the headers and writes a commented experiment.

# %%
line = "config new mine --inputs gas.fits starlight.fits --target dust.fits --mask mask.fits --split regions.fits --overwrite"
said = subprocess.run([sys.executable, "-m", "sphereml", *line.split()], capture_output=True, text=True, check=True)
print(said.stdout)

# %%
print("\n".join(Path("configs/experiment/mine.yaml").read_text().splitlines()[:40]))

# %% [markdown]
# From here on it is as in the first tutorial; `task: maps` learns any columns from any columns.

# %%
words = ["experiment=mine", "training.epochs=4", "training.steps_per_epoch=15", "training.batch_size=4"]
small = ["patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=40", "bands.r50=[14.4, 64]"]
linear = sm.train(*words, *small, "model=linear", resume=True)
network = sm.train(*words, *small, "model=unet_sphere_plain", "model.width=8", "model.depth=2", resume=True)
sm.compare([linear, network]).to_dataframe()[["model", "sphere.r_low", "sphere.r50"]]

# %%
network.predict().plot()

# %% [markdown]
# **What this does not show.** The target is a product of the inputs, without noise: nature is not so kind. Read what
# `config new` wrote before you train, above all which beam and Nside it chose: [your own maps](../own_maps.md).
