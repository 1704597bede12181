"""Hydra with our configurations alone: inside of another Hydra application, whose state is found and left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Names that no file of a user's is likely to have.
ROOT = "sphereml"
_SCHEMA = "sphereml_schema"


@contextmanager
def alone_in_hydra(schema: type, folders: list[Path]) -> Iterator[None]:
    """Hydra as if nobody used it but us, searching ``folders`` in this order, with ``schema`` in its store.

    Hydra keeps one global state: an application around us (``@hydra.main``, ``initialize``) would make it refuse.
    """
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    store = ConfigStore.instance()
    outer, theirs = GlobalHydra.instance().hydra, store.repo.get(f"{_SCHEMA}.yaml")
    GlobalHydra.instance().clear()
    store.store(name=_SCHEMA, node=schema)
    try:
        with _searched_first(folders[:-1]), initialize_config_dir(str(folders[-1]), version_base="1.3"):
            yield
    finally:
        # Not the instance of before: Hydra replaces it by a copy when a composition ends.
        GlobalHydra.instance().hydra = outer
        if theirs is None:
            store.repo.pop(f"{_SCHEMA}.yaml", None)
        else:
            store.repo[f"{_SCHEMA}.yaml"] = theirs


_FIRST: list[Path] = []


@contextmanager
def _searched_first(folders: list[Path]) -> Iterator[None]:
    """Put folders before the main one: ``hydra.searchpath`` itself only adds behind it."""
    _register_search_path()
    _FIRST[:] = folders
    try:
        yield
    finally:
        _FIRST.clear()


def _register_search_path() -> None:
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    known = Plugins.instance().discover(SearchPathPlugin)
    if any(one.__name__ == "SphereMlSearchPath" for one in known):
        return

    class SphereMlSearchPath(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in _FIRST:
                search_path.prepend("sphereml", f"file://{folder}", anchor=SearchPathQuery(provider="main"))

    Plugins.instance().register(SphereMlSearchPath)
