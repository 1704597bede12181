"""What a person meets at the command line: help, completion, hints, progress, quiet and scripted output, the doctor."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import requires

import pytest
from fixtures_cli import TINY, Place, done, sphereml
from rich.console import Console

from sphereml.cli.completion import candidates
from sphereml.cli.examples import EXAMPLES
from sphereml.cli.main import _parse
from sphereml.cli.parsers import VERBS, build_parser, leaves
from sphereml.evaluation.terminal_tables import print_table
from sphereml.progress import TimeLeft, counted, spell_time

PROGRAM = f"{sys.executable} -m sphereml"


def every_leaf() -> dict[str, argparse.ArgumentParser]:
    found = {}
    for verb in VERBS:
        (actions,) = (one for one in build_parser(verb)._actions if isinstance(one, argparse._SubParsersAction))
        for leaf in leaves(actions.choices[verb]):
            found[leaf.prog.removeprefix("sphereml ")] = leaf
    return found


LEAVES = every_leaf()


@pytest.mark.parametrize("name", LEAVES)
def test_help_says_what_an_option_is_and_its_default(name):
    leaf = LEAVES[name]
    text = " ".join(leaf.format_help().split())
    assert "examples: " in text and len(EXAMPLES[name]) > 1
    assert max(map(len, leaf.format_help().split("examples:")[0].splitlines())) <= 80
    for action in leaf._actions:
        assert action.help, f"{action.dest} says nothing"
        if action.type in (int, float) and action.option_strings and not action.required:
            said = leaf._get_formatter()._expand_help(action)
            assert "default" in said or action.default is None, f"{action.option_strings[0]}: {said}"


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_help_can_be_typed(line):
    words = shlex.split(line.replace("\\\n", " ").split("|")[0].split(">")[0].split("  #")[0])
    if words[0] == "eval":
        words = shlex.split(words[1].strip("$()"))
    assert words.pop(0) == "sphereml"
    assert _parse(build_parser(words[0]), words).verb == words[0]


def test_names_keep_their_capitals():
    listed = done().out
    assert "CMB lensing" in listed and "HTML report" in listed and "synthetic Galaxy" in listed
    assert "Write the HTML report" in LEAVES["report"].format_help()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "did you mean train?"),
        (["config", "shaw"], "did you mean show?"),
        (["config", "show", "training.epoch=3"], "did you mean training.epochs?"),
        (["config", "show", "epochs=3"], "did you mean training.epochs?"),
        (["config", "show", "trainin.epochs=3"], "did you mean training.epochs?"),
        (["config", "show", "data.inputs=[{file: a.fits, feilds: [1]}]"], "did you mean data.inputs.fields?"),
        (["config", "show", "evaluation.cuts=[{nam: x}]"], "did you mean evaluation.cuts.name?"),
        (["config", "show", "model=unet_flt"], "did you mean unet_flat?"),
    ],
    ids=" ".join,
)
def test_a_slip_is_understood(words, hint):
    assert hint in sphereml(*words).refusal


def test_a_hint_is_no_guess():
    assert "did you mean" not in sphereml("config", "show", "training.colour=red").refusal


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tr", ["train"]),
        ("config ", ["list", "new", "show", "validate"]),
        ("train --dr", ["--dry-run"]),
        ("train experiment=dust_d", ["experiment=dust_demo"]),
        ("train training.epo", ["training.epochs="]),
        ("train model.domain=", ["model.domain=flat", "model.domain=none", "model.domain=sphere"]),
        ("spectra --field ", ["I", "IQU", "QU"]),
        ("lensing te", ["template"]),
    ],
)
def test_candidates(words, found):
    assert candidates(words.split(" ")) == found


TYPED = {
    "bash": 'source /dev/stdin <<< "$({0} completion bash)"; COMP_WORDS=(sphereml tr); COMP_CWORD=1; _sphereml; '
    'echo "${{COMPREPLY[@]}}"',
    "zsh": "autoload -Uz compinit; compinit -u; compadd() {{ print -l -- $@[-1] }}; words=(sphereml tr); CURRENT=2; "
    'eval "$({0} completion zsh)"; _sphereml',
    "fish": "{0} completion fish | source; complete -C 'sphereml tr'",
}


@pytest.mark.parametrize("shell", TYPED)
def test_the_shell_completes(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    program = tmp_path / "sphereml"
    program.write_text(f'#!/bin/sh\nexec {PROGRAM} "$@"\n')
    program.chmod(0o755)
    script = (
        f'PATH="{tmp_path}:$PATH"; ' if shell != "fish" else f"set -x PATH {tmp_path} $PATH; set -x HOME {tmp_path}; "
    )
    answer = subprocess.run(
        [shell, "-c", script + TYPED[shell].format("sphereml")], capture_output=True, text=True, check=False
    )
    assert answer.stdout.split() == ["train"], answer.stderr


def test_the_program_is_a_module():
    answer = subprocess.run([*shlex.split(PROGRAM), "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("sphereml ")


def test_plans_progress_and_json(tmp_path):
    """One tiny training: a plan that leaves nothing, lines with the right epoch, quiet, and JSON for scripts."""
    place = Place(tmp_path, "demo")
    words = ["experiment=dust_demo", "model=unet_sphere", *TINY, *place.words]
    (planned,) = json.loads(done("train", *words, "--dry-run", "--json").out)
    assert planned["state"] == "to train" and not list(tmp_path.iterdir())
    outcome = sphereml("train", *words, "--json", "-v")
    (trained,) = json.loads(outcome.out)
    assert trained["folder"] == planned["folder"] and trained["seconds_train"] > 0
    lines = [line for line in outcome.err.splitlines() if "epoch" in line]
    assert re.fullmatch(r"\[ +[\d.]+ s\] unet_sphere: epoch 1/2 .*, \d+ s left", lines[0])
    assert "epoch 2/2" in lines[1] and "left" not in lines[1]
    assert "trained" in done("train", *words, "--dry-run").out
    for verb in ("train", "study"):
        assert "to train again" in done(verb, *words, "--dry-run", "--overwrite").out
    assert done("train", *words, "-q").out.count("\n") == 1


def test_lists_for_scripts():
    assert "unet_flat" in json.loads(done("config", "list", "--json").out)["model"]
    assert json.loads(done("config", "show", "experiment=dust_demo", "--json").out)["name"] == "demo"
    products = json.loads(done("data", "list", "--json").out)
    assert {"name", "title", "files", "here", "nside", "units"} == set(products[0])
    assert "files" in done("data", "fetch", "hi4pi", "--dry-run").out


def test_the_doctor_finds_what_is_wrong(monkeypatch, tmp_path):
    findings = {one["what"]: one for one in json.loads(done("doctor", "--json").out)}
    needed = [line for line in requires("sphereml") or [] if "extra" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in needed} <= set(findings)
    assert {"threads", "memory", "gpu", "configurations", "cache and data"} <= set(findings)
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(tmp_path / "gone"))
    monkeypatch.setattr("sphereml.cli.doctor._version", lambda name: None if name == "camb" else "99.0")
    outcome = sphereml("doctor")
    assert outcome.code == 2 and "pip install 'camb" in outcome.err.splitlines()[-1]
    assert re.search(r"note +SPHEREML_REAL_SKY +.*gone is no folder\n +-> name", outcome.out)


@pytest.mark.parametrize("width", [40, 80])
def test_tables_fit_the_terminal(width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    headings = ["model", *(f"flat r50\n{index}" for index in range(9))]
    print_table(console, "scores", headings, [[name, *["0.835±0.006"] * 9] for name in ("integrated", "unet_sphere")])
    text = console.export_text()
    assert "…" not in text and text.count("0.835±0.006") == 18
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_time_left(capsys):
    assert [spell_time(one) for one in (3.4, 119, 3600, 5400)] == ["3 s", "2 min", "1 h 0 min", "1 h 30 min"]
    left = TimeLeft(4, done=2)
    assert left(2) == "" and left(4) == "" and left(3) == ", 0 s left"
    assert list(counted("ab", "sky", print, pause=0)) == ["a", "b"]
    assert capsys.readouterr().out.splitlines() == ["sky 1/2, 0 s left", "sky 2/2"]
