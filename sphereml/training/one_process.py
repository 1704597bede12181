"""Training is one process on one device, whatever launched it: Slurm, MPI, torchrun or a notebook.

Lightning takes the variables of those for a request to train together with other processes; a run here never is.
"""

from __future__ import annotations

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.plugins.environments import LightningEnvironment


class OneProcess(LightningEnvironment):
    """The cluster of one process: rank 0 of 1, and no variable is read or changed."""

    def __init__(self) -> None:
        super().__init__()
        # Lightning read its rank from the environment when it was imported, and only rank 0 writes checkpoints.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]

    @property
    def creates_processes_externally(self) -> bool:
        return False

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0

    def teardown(self) -> None:
        pass
