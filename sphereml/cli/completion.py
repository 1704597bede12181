"""``sphereml completion bash|zsh|fish``: shell completion of verbs, actions, options, names and configuration keys.

The script that is printed asks this program for the candidates (``sphereml completion words WORD ... LAST``), so that
it stays true when configurations or verbs are added.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from sphereml.cli.output import say

_SCRIPTS = {
    "bash": r"""_sphereml() {
  local IFS=$'\n'
  COMPREPLY=($(sphereml completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _sphereml sphereml""",
    "zsh": r"""#compdef sphereml
_sphereml() {
  local -a found
  found=("${(@f)$(sphereml completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n ${found[1]} ]]; then compadd -S '' -- "${found[@]}"; else _files; fi
}
compdef _sphereml sphereml""",
    "fish": "complete -c sphereml -a "
    "'(sphereml completion words (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=(*_SCRIPTS, "words"), metavar="SHELL", help="bash, zsh or fish")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    if options.shell != "words":
        say(_SCRIPTS[options.shell])
        return
    for candidate in candidates(options.words):
        say(candidate)


def candidates(words: Sequence[str]) -> list[str]:
    """What may stand in place of the last of these words, which is what was typed of it so far.

    Args:
        words: of the command line, without the program's name.
    """
    *before, last = words or [""]
    return sorted({one for one in _possible(before, last) if one.startswith(last)})


def _possible(before: Sequence[str], last: str) -> Iterator[str]:
    from sphereml.cli.parsers import VERBS, build_parser

    verb = next((word for word in before if word in VERBS), None)
    parser: argparse.ArgumentParser = build_parser(verb)
    for word in before:
        parser = _actions(parser).get(word, parser)
    if actions := _actions(parser):
        yield from actions
        return
    options = {name: action for action in parser._actions for name in action.option_strings}
    named = options.get(before[-1]) if before else None
    if named is not None and named.nargs != 0:
        yield from map(str, named.choices or ())
    elif last.startswith("-"):
        yield from options
    else:
        yield from _positionals(parser, last)


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return {name: sub for choices in found for name, sub in choices.items()}


def _positionals(parser: argparse.ArgumentParser, last: str) -> Iterator[str]:
    for action in parser._actions:
        if not action.option_strings:
            yield from map(str, action.choices or ())
            if action.dest == "overrides":
                yield from _overrides(last)


def _overrides(last: str) -> Iterable[str]:
    """``key=`` of every key and group; after the sign the names of the group, or the allowed values."""
    from sphereml.config.overrides import config_names, schema_keys
    from sphereml.config.validation import allowed_values

    names = config_names() | {key: list(values) for key, values in allowed_values("dust").items()}
    key, sign, _ = last.partition("=")
    if sign:
        return [f"{key}={name}" for name in names.get(key, ())]
    return [f"{one}=" for one in (*config_names(), *schema_keys())]
