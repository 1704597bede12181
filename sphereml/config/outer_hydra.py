"""Composition inside of another Hydra application, whose state must be found and left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_SCHEMA = "schema.yaml"


@contextmanager
def alone_in_hydra(schema: type) -> Iterator[None]:
    """Hydra as if nobody used it but us, with ``schema`` in its store of structured configurations.

    Hydra keeps one global state: an application around us (``@hydra.main``, ``initialize``) would make it refuse.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    store = ConfigStore.instance()
    outer, theirs = GlobalHydra.instance().hydra, store.repo.get(_SCHEMA)
    GlobalHydra.instance().clear()
    store.store(name="schema", node=schema)
    try:
        yield
    finally:
        # Not the instance of before: Hydra replaces it by a copy when a composition ends.
        GlobalHydra.instance().hydra = outer
        if theirs is None:
            store.repo.pop(_SCHEMA, None)
        else:
            store.repo[_SCHEMA] = theirs
