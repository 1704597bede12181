"""The parser of the command line: help with defaults and examples, refusals that name the likely word.

Nothing heavy is imported, and of the verbs' modules only the chosen verb's.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sphereml import __version__
from sphereml.cli.examples import EXAMPLES
from sphereml.errors import UserError, meant

VERBS = {
    "demo": "simulate, train, compare, predict and report on a synthetic Galaxy",
    "data": "list, fetch and verify products, prepare a store",
    "simulate": "simulate a synthetic Galaxy, or lensed skies, into a store",
    "train": "train the models of an experiment",
    "runs": "list runs, with what differs between them",
    "predict": "write full-sky templates of trained models, in-sample or cross-fitted",
    "compare": "compare trained models on the held-out sky",
    "spectra": "measure decoupled bandpowers of masked maps, with templates deprojected",
    "marginalize": "fit templates to a sky map and subtract them",
    "hough": "polarization of filaments: the rolling Hough transform of a map or of a store's channels",
    "lensing": "CMB lensing: noise curves, kappa from Q and U, lensing-B templates",
    "study": "train the models of an experiment and measure everything its task is judged by",
    "report": "write the HTML report of a comparison",
    "config": "show, validate or list configurations",
    "info": "versions, device, threads",
    "doctor": "check packages, threads, memory, GPU, folders and data, and say how to mend what is wrong",
    "completion": "print what makes a shell complete verbs, options, names and keys",
    "cluster": "render the batch script of a line for Slurm",
    "bench": "time layers, graphs, transforms and tiles beside what is known",
}

# Verbs that meet tasks, and so those of plugins.
TASKS = ("train", "runs", "predict", "compare", "study", "config", "data", "report")
# Verbs that compose configurations.
_COMPOSING = ("train", "study", "demo", "config", "data", "simulate", "predict", "bench")
_WIDTH = 80


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose options state their defaults."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=_WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs are wrapped, examples (two spaces in) stand as they are."""
        wrapped: dict[str, Any] = {"width": width, "initial_indent": indent, "subsequent_indent": indent}
        return "\n".join(
            line if line.startswith("  ") else textwrap.fill(line, **wrapped) for line in text.splitlines()
        )

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        unsaid = action.default not in (None, "", argparse.SUPPRESS) and not isinstance(action.default, bool | list)
        return f"{text} (default %(default)s)" if action.option_strings and unsaid and "default" not in text else text


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would leave the program."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _Help} | settings)

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(message, f"see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is not None and value not in choices:
            what = "/".join(action.option_strings) or ("verb" if action.dest == "verb" else "action")
            mend = f"{meant(str(value), choices)}choose {', '.join(map(str, choices))} (`{self.prog} --help`)"
            raise UserError(f"there is no {what} {value!r}", mend)


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen verb's module is imported."""
    parser = Parser(prog="sphereml", description="Deep learning on full-sky maps, on the sphere.")
    parser.epilog = "sphereml VERB --help explains a verb, with examples; start with: sphereml demo"
    parser.add_argument("--version", action="version", version=f"sphereml {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, summary in VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=sentence(summary))
        if name == verb:
            module = import_module(f"sphereml.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
            for leaf in leaves(sub):
                _finish(leaf, name)
    return parser


def parse_words(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also follow options, which argparse does not see."""
    options, rest = parser.parse_known_args(words)
    late = [w for w in rest if ("=" in w or w.endswith((".yaml", ".yml"))) and not w.startswith("-")]
    if rest and not (late == rest and hasattr(options, "overrides")):
        raise UserError(f"unrecognized arguments: {' '.join(rest)}", f"see `sphereml {options.verb or ''} --help`")
    if late:
        options.overrides = [*options.overrides, *late]
    return options


def load_plugins(files: Sequence[str]) -> None:
    """Make the tasks of installed packages and of these files known."""
    from sphereml.tasks import load_entry_points, load_plugin

    load_entry_points()
    for file in files:
        load_plugin(Path(file))


def sentence(summary: str) -> str:
    """A summary as a sentence; names in it (CMB, HTML, Galaxy) keep their capitals."""
    return f"{summary[0].upper()}{summary[1:]}."


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers below a verb that have no further actions."""
    choices = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not choices:
        yield parser
    for actions in choices:
        helps = {one.dest: one.help for one in actions._choices_actions}
        for name, action in actions.choices.items():
            action.description = action.description or sentence(helps[name] or name)
            yield from leaves(action)


def _finish(parser: argparse.ArgumentParser, verb: str) -> None:
    """What every verb has: places of tasks and configurations, how much is printed, examples."""
    common = parser.add_argument_group("common")
    if verb in TASKS:
        what = "a Python file that defines a task (it is run)"
        common.add_argument("--plugin", action="append", default=[], metavar="FILE", help=what)
    if verb in _COMPOSING:
        what = "configurations of one's own, before those of SPHEREML_CONFIGS and ./configs"
        common.add_argument("--config-dir", "-cd", action="append", default=[], type=Path, metavar="FOLDER", help=what)
    common.add_argument("--quiet", "-q", action="store_true", help="answers and errors only, no progress")
    what = "seconds since the start beside progress, and the cause beneath a refusal"
    common.add_argument("--verbose", "-v", action="store_true", help=what)
    told = f"{parser.epilog}\n\n" if parser.epilog else ""
    name = parser.prog.removeprefix("sphereml ")
    lines = [textwrap.indent(example, "  ") for example in EXAMPLES.get(name, ())]
    parser.epilog = told + "\n".join(["examples:", *lines] if lines else [])
