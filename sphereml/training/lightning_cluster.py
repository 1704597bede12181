"""The processes of a training as Lightning's cluster, whatever launched them: Slurm, MPI, torchrun or a notebook.

Lightning takes the variables of those for a request to train together; a run here does only when its configuration says
so (:mod:`sphereml.training.processes`).
"""

from __future__ import annotations

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.plugins.environments import LightningEnvironment

from sphereml.training.processes import Process


class JoinedProcesses(LightningEnvironment):
    """The processes of :func:`together` as Lightning's cluster: one device each, and no variable is read or changed."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        # Lightning read its rank from the environment when it was imported, and only rank 0 writes checkpoints.
        rank_zero_only.rank = process.rank  # type: ignore[attr-defined]

    @property
    def creates_processes_externally(self) -> bool:
        return self.process.count > 1

    def world_size(self) -> int:
        return self.process.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.process.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.process.rank

    def teardown(self) -> None:
        pass
