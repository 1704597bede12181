"""``sphereml lensing n0 | estimate | template``: noise curves, kappa from a user's maps, lensing-B templates."""

from __future__ import annotations

import argparse

from sphereml.cli import lensing_estimate, lensing_n0, lensing_template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, (module, summary) in _WHAT.items():
        sub = what.add_parser(name, help=summary)
        module.add_arguments(sub)
        sub.set_defaults(lensing=module.run)


def run(options: argparse.Namespace) -> None:
    options.lensing(options)


_WHAT = {
    "n0": (lensing_n0, "N0 of EB, EE, both together, and EB iterated; C_L of kappa"),
    "estimate": (lensing_estimate, "kappa from Q and U of the full or a masked sky, by a quadratic estimator"),
    "template": (lensing_template, "the lensing-B template, Q and U of B alone, from kappa and E"),
}
