"""Pages that are read from the code: the Python surface, the configuration, the command line.

They are written into ``docs/generated`` when the site is built, and only where they changed, so that Sphinx builds
again what is new.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import sphereml as sm
from sphereml import _SURFACE
from sphereml.cli.parsers import VERBS, build_parser, leaves, sentence
from sphereml.config.documentation import document_keys
from sphereml.config.overrides import config_names, experiment_schema
from sphereml.config.validation import allowed_values

_GROUPS = {
    "Data and maps": ("load_sky", "read_map", "write_map", "Sky", "SkyMap", "Field"),
    "Training and prediction": ("train", "open_run", "load_model", "Run"),
    "Results": ("compare", "load_result", "Result"),
    "Spectra and cleaning": ("spectra", "correlation", "marginalize", "Workspace", "Bands", "SHT"),
    "Networks and domains": ("UNet", "ResUNet", "Convolution", "Channels", "HealpixSky", "FlatPatch"),
    "Tasks of one's own": ("Task", "MapTask"),
    "Modules": ("lensing", "plot", "testing"),
    "Errors": ("UserError",),
}


def read_notebook(text: str) -> Any:
    """A notebook kept as Python (py:percent), with the language that its cells are highlighted in."""
    import jupytext

    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def write_reference_pages(folder: Path) -> None:
    """Write every generated page, and remove those of names that are gone."""
    pages = {"configuration.md": _configuration(), "command_line.md": _command_line(), "api/index.md": _api_index()}
    pages |= {f"api/{name}.md": _api_page(name) for name in _SURFACE}
    for old in folder.rglob("*.md"):
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def surface_groups() -> dict[str, tuple[str, ...]]:
    """The names of the Python surface by group; whatever no group has stands under ``More``."""
    grouped = {name for names in _GROUPS.values() for name in names}
    more = tuple(name for name in _SURFACE if name not in grouped)
    known = {title: tuple(name for name in names if name in _SURFACE) for title, names in _GROUPS.items()}
    return known | ({"More": more} if more else {})


def _api_index() -> str:
    lines = [
        "# Python surface",
        "",
        "`import sphereml as sm` gives these names; each is imported when it is first used.",
        "",
    ]
    for title, names in surface_groups().items():
        lines += [f"## {title}", "", "| name | what it is |", "|---|---|"]
        lines += [f"| [`sm.{name}`]({name}.md) | {_first_line(getattr(sm, name))} |" for name in names]
        lines += [""]
    listed = [name for names in surface_groups().values() for name in names]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", *listed, "```", ""])


def _first_line(thing: Any) -> str:
    text = (thing.__doc__ or "").strip().splitlines()
    return text[0].replace("|", "\\|").replace("``", "`") if text else ""


def _api_page(name: str) -> str:
    module, _, attribute = _SURFACE[name].partition(":")
    thing = getattr(sm, name)
    if isinstance(thing, ModuleType):
        directive = f".. automodule:: {module}"
        members = [f"   :members: {', '.join(thing.__all__)}"] if hasattr(thing, "__all__") else ["   :members:"]
        members.append("   :imported-members:") if hasattr(thing, "__all__") else None
    elif isinstance(thing, type):
        directive, members = f".. autoclass:: {module}.{attribute}", ["   :members:"]
    else:
        directive, members = f".. autofunction:: {module}.{attribute}", []
    body = "\n".join([directive, *members])
    return f"# sm.{name}\n\n```{{eval-rst}}\n{body}\n```\n"


def _configuration() -> str:
    lines = [
        "# Configuration",
        "",
        "Every key of an experiment, its default in the schema (the shipped files may say something else: "
        "`sphereml config show experiment=NAME` prints what is in force), its unit and the values it may have. Keys of "
        "the items of a list stand under the list's key. A key that an experiment's task does not use is refused.",
        "",
        "## Names to choose from",
        "",
        *(f"* `{group}=`: {', '.join(f'`{name}`' for name in names)}" for group, names in config_names().items()),
        "",
    ]
    documents = document_keys(experiment_schema(), allowed_values("dust") | allowed_values("lensing"))
    for title, rows in _sections(experiment_schema(), ""):
        lines += [f"## {title or 'experiment'}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key, kind, default in rows:
            meaning = str(documents.get(key, "")).replace("|", "\\|")
            lines.append(f"| `{key}` | {kind} | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


Row = tuple[str, str, str]


def _sections(kind: type, start: str) -> Iterator[tuple[str, list[Row]]]:
    """Sections of the schema with their own keys, a dataclass inside of another after it."""
    hints, rows, inner = get_type_hints(kind), [], []
    for item in fields(kind):
        key = f"{start}{item.name}"
        below = [one for one in (hints[item.name], *get_args(hints[item.name])) if is_dataclass(one)]
        rows += (
            [(key, _spelled(hints[item.name]), _default(item))] if not below or "list" in str(hints[item.name]) else []
        )
        inner += [(one, f"{key}.") for one in below]
    yield start.rstrip("."), rows
    for one, place in inner:
        yield from _sections(one, place)


def _spelled(hint: Any) -> str:
    return (
        str(getattr(hint, "__name__", hint) if not get_args(hint) else hint)
        .replace("sphereml.config.", "")
        .replace("|", "or")
    )


def _default(item: Field) -> str:
    value = item.default if item.default is not MISSING else item.default_factory()
    return "`null`" if value is None else f"`{value}`" if value != "" else "empty"


def _command_line() -> str:
    lines = ["# Command line", "", "What `sphereml VERB --help` prints.", ""]
    for verb in VERBS:
        (actions,) = (one for one in build_parser(verb)._actions if isinstance(one, argparse._SubParsersAction))
        lines += [f"## {verb}", "", sentence(VERBS[verb]), ""]
        for leaf in leaves(actions.choices[verb]):
            name = leaf.prog.removeprefix("sphereml ")
            lines += [f"### {name}", ""] if name != verb else []
            lines += ["```text", leaf.format_help().rstrip(), "```", ""]
    return "\n".join(lines)
