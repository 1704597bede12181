# %% [markdown]
# # 10. A new task in one file
#
# A task says what goes in, what comes out and how it is learnt. Networks, tiles, splits, prediction, comparison and report are
# there. Here: a toy, two maps from two maps, with a loss of its own.

# %%
import subprocess
import sys
from pathlib import Path

import sphereml as sm

CODE = '''
"""Two smooth fields in; their sum with a square, and their difference, out."""

from functools import cached_property

import numpy as np
import sphereml as sm


class Haze(sm.MapTask):
    name = "haze"

    @cached_property
    def sky(self) -> sm.Sky:
        grid = sm.HealpixSky(32).region.grid
        rng = np.random.default_rng(3)
        waves = rng.normal(size=(2, 40, 3)) * np.array([3, 20])[:, None, None]
        maps = np.stack([np.cos(grid.vectors() @ one.T + 1).mean(axis=1) for one in waves], axis=1)
        out = np.stack([maps.sum(axis=1) + 0.5 * maps[:, 1] ** 2, maps[:, 0] - maps[:, 1]], axis=1)
        return sm.Sky(
            grid=grid,
            inputs=maps.astype(np.float32),
            targets=out.astype(np.float32),
            input_fields=(sm.Field("slow", "K"), sm.Field("fast", "mK")),
            target_fields=(sm.Field("sum", "K"), sm.Field("difference", "K")),
            provenance={"kind": "haze", "seed": 3},
        )

    def check(self):
        self.split

    def loss(self, scaling):
        def squares(prediction, batch):
            weight = batch.weight[..., None]
            return (weight * (prediction - batch.target).square()).sum() / weight.sum().clamp_min(1), {}

        return squares
'''
Path("haze.py").write_text(CODE)

# %% [markdown]
# A plugin is code, so it runs only when it is named. `--plugin` goes with every verb that meets tasks:

# %%
words = [
    "task=haze",
    "name=haze",
    "model=unet_sphere_plain",
    "model.width=8",
    "model.depth=2",
    "split.sky_fraction=null",
]
words += ["training.epochs=3", "training.steps_per_epoch=15", "training.batch_size=4"]
words += ["patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=20", "bands.r50=[14.4,64]"]


def sphereml(*line: str) -> str:
    answer = subprocess.run([sys.executable, "-m", "sphereml", *line], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


print(sphereml("train", "--plugin", "haze.py", *words, "--resume"))

# %%
print(sphereml("compare", "--plugin", "haze.py", "runs/haze"))

# %%
print(sphereml("predict", "--plugin", "haze.py", "runs/haze", "--overwrite"))
sm.read_map(next(Path("runs/haze/templates").glob("*.fits")).as_posix())

# %% [markdown]
# Settings of its own stand under the task's name, in a dataclass that its `schema` names; they are checked, documented and
# completed as all others. `tests/plugin/haze.py` of the repository is this task with settings.
#
# **What this does not show.** Features that mix pixels (`pixelwise = False`), fields with a spin, and a study of one's own:
# [runs, results and plugins](../runs.md).
