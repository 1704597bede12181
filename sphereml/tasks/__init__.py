"""The tasks by their names, and those that plugins bring.

A plugin is a Python file (``--plugin FILE.py``), or a package with an entry point of the group ``sphereml.tasks``, that
defines classes derived from :class:`~sphereml.tasks.protocol.Task`.  A plugin is code: it runs when it is named, and
never because a configuration or a run folder mentions it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sphereml.config.tasks import SCHEMAS, schema_of
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig
    from sphereml.tasks.protocol import Task

TASKS: dict[str, str | type[Task]] = {
    "dust": "sphereml.tasks.dust:DustTask",
    "dust_polarization": "sphereml.tasks.dust_polarization:DustPolarizationTask",
    "maps": "sphereml.tasks.maps:MapTask",
    "lensing": "sphereml.tasks.lensing:LensingTask",
}


def task_class(name: str) -> type[Task]:
    """The class of a task; raises UserError when there is no such task."""
    schema_of(name)
    found = TASKS[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = TASKS[name] = getattr(import_module(module), attribute)
    return found


def open_task(config: ExperimentConfig, say: Callable[[str], None] = print, **given: Any) -> Task:
    """The task of a configuration; ``given`` are data that are already at hand, by the task's own names."""
    return task_class(config.task).of(config, say, **given)


def register(task: type[Task]) -> None:
    """Make a task known by its name.

    Raises:
        UserError: another task has this name.
    """
    if task.name in TASKS:
        raise UserError(f"there is a task {task.name!r} already", "give the plugin's task another name")
    TASKS[task.name], SCHEMAS[task.name] = task, task.schema


def load_plugin(path: Path) -> None:
    """Run a Python file and register the tasks that it defines.

    Raises:
        UserError: there is no such file, it fails, or it defines no task.
    """
    if not path.is_file():
        raise UserError(f"there is no plugin {path}", "name a Python file that defines a task")
    spec = spec_from_file_location(f"sphereml_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"the plugin {path} is no Python file", "give a file whose name ends in .py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the plugin {path} fails ({type(error).__name__}: {error})", "mend it") from error
    _register_all(module, str(path))


def load_entry_points() -> None:
    """Register the tasks of installed packages that name one under the group ``sphereml.tasks``."""
    for entry in entry_points(group="sphereml.tasks"):
        found = entry.load()
        if isinstance(found, ModuleType):
            _register_all(found, entry.value)
        elif found.name not in TASKS:
            register(found)


def _register_all(module: ModuleType, where: str) -> None:
    from sphereml.tasks.protocol import Task

    own = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Task) and one.__module__ == module.__name__
    ]
    found = [one for one in own if not inspect.isabstract(one) and "name" in vars(one)]
    if not found:
        raise UserError(f"the plugin {where} defines no task", "derive a class from sphereml's MapTask or Task")
    for one in found:
        if TASKS.get(one.name) is None or getattr(TASKS[one.name], "__module__", "") != module.__name__:
            register(one)
