# %% [markdown]
# # 1. A first map with a network
#
# Eight velocity channels of 21 cm emission go in, the dust that the same gas carries comes out. The sky is a synthetic Galaxy:
# a physical toy, small enough to be made here.

# %%
import sphereml as sm

sky = sm.load_sky("data=galaxy", "data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2")
sky

# %% [markdown]
# Inputs are `(npix, channel)`, targets `(npix, column)`, in NEST order; every column is a field that knows its unit.

# %%
sky.inputs.shape, sky.targets.shape, sky.target_fields[0]

# %% [markdown]
# Words are those of the command line, so `sphereml train ...` with the same words trains the same run. Six epochs of a small
# U-Net on tiles of the northern sky:

# %%
words = [
    "experiment=dust_demo",
    "data.galaxy.nside=32",
    "data.galaxy.channels=8",
    "data.galaxy.channel_width=10.2",
    "patches.size=16",
    "patches.pixel_arcmin=93.6",
    "evaluation.patches=40",
    "training.epochs=6",
    "training.steps_per_epoch=20",
    "training.batch_size=4",
]
network = sm.train(*words, "model=unet_sphere", "model.width=8", "model.depth=2", resume=True)
linear = sm.train(*words, "model=linear", resume=True)

# %% [markdown]
# A run predicts the whole sky. The map knows its field, order and frame, and draws itself.

# %%
template = network.predict()
template.plot()

# %% [markdown]
# Is it any good? Its correlation with the true dust on the southern sky, which it never saw, beside that of the linear model:

# %%
result = sm.compare([linear, network])
result.to_dataframe()[["model", "sphere.r_low", "sphere.r50", "sphere_sem.r50"]]

# %% [markdown]
# And to disk, as any program that knows HEALPix reads it:

# %%
sm.write_map("template.fits", template, overwrite=True)

# %% [markdown]
# **What this does not show.** One seed, six epochs, Nside 32 and a toy Galaxy. Whether a network beats the linear model on
# the real sky is another question, and the answer is "barely": [the real sky](../real_sky.md).
