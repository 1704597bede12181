"""Work that falls into items, done here one after another or on the workers of a Dask cluster: the same results.

Conventions: an item is done when its result stands on disk, whole; what makes one leaves alone what is there, and
writes under a temporary name.  So an item may be started again, by another worker or the next day, and a campaign that
lost its scheduler goes on with the same line.  Items are values that can be sent; the workers see the same disc.

``scheduler`` is empty (here), ``local`` (a worker a core of this machine) or the address of a running scheduler, such
as ``tcp://head:8786``; ``dask scheduler`` with ``dask worker``, or ``dask-jobqueue``, start one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sphereml.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Seconds until a scheduler without workers is given up.
_PATIENCE = 60
_GOES_ON = "the same line goes on with what is not done"


def _nothing(done: int) -> None:
    """Progress that nobody asked for."""


def do_items(
    make: Callable[[Item], Result],
    items: Sequence[Item],
    scheduler: str = "",
    progress: Callable[[int], None] = _nothing,
) -> list[Result]:
    """The results of ``make`` for every item, in their order.

    Args:
        make: does an item or finds it done; a function of a module, or ``functools.partial`` of one.
        scheduler: see the module.
        progress: told how many items are done, after each.

    Raises:
        UserError: what ``make`` raises; Dask is missing; the scheduler is not there or was lost; an item ended several
            workers.
    """
    if not scheduler or not items:
        return list(_counted(map(make, items), progress))
    with _client(scheduler) as client:
        return _on_cluster(client, make, items, progress)


def _counted(results: Iterable[Result], progress: Callable[[int], None]) -> Iterator[Result]:
    for done, result in enumerate(results, 1):
        progress(done)
        yield result


def _on_cluster(
    client: Any, make: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[int], None]
) -> list[Result]:
    from concurrent.futures import CancelledError

    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    futures = client.map(make, items, pure=False)
    try:
        for done, future in enumerate(as_completed(futures, loop=client.loop), 1):
            future.result()
            progress(done)
        return [future.result() for future in futures]
    except KilledWorker as error:
        what = f"an item of the work ended every worker that took it ({error.task})"
        raise UserError(what, f"give the workers more memory; {_GOES_ON}") from None
    except (CancelledError, OSError, TimeoutError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("the scheduler of the work was lost", f"start it again; {_GOES_ON}") from None


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    """A client of the scheduler, or of a cluster of this machine's for the block."""
    try:
        import distributed
    except ImportError:
        raise UserError(f"scheduler={scheduler} needs Dask", "pip install 'sphereml[cluster]'") from None
    # Its own account of a lost connection is pages of traceback.
    for name in [one for one in logging.root.manager.loggerDict if one.startswith(("distributed", "tornado"))]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    cluster, address = None, scheduler
    if scheduler == "local":
        options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
        cluster = distributed.LocalCluster(n_workers=len(os.sched_getaffinity(0)), **options)
        address = cluster.scheduler_address
    try:
        client = distributed.Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError):
        mend = "start it: dask scheduler, and dask worker beside it"
        raise UserError(f"there is no scheduler at {address}", mend) from None
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
        yield client
    except distributed.TimeoutError:
        raise UserError(
            f"the scheduler at {address} has no workers", "start some: dask worker, with its address"
        ) from None
    finally:
        # A busy machine may be slow to end them; their processes end with ours.
        with suppress(TimeoutError, OSError):
            client.close(timeout=10)
            if cluster is not None:
                cluster.close(timeout=30)
