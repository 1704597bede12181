"""``sphereml bench conv``: sphere convolutions beside a flat one, alternating in one process."""

from __future__ import annotations

import argparse
import json

from sphereml.cli.experiment import say
from sphereml.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["conv"])
    parser.add_argument("--nside", type=int, default=64)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each layer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    from sphereml.evaluation.benchmark import ConvolutionBenchmark

    for name in ("channels", "batch", "runs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} is impossible", "give 1 or more")
    result = ConvolutionBenchmark(options.nside, options.channels, options.batch, options.runs).measure()
    if options.json:
        say(json.dumps(result))
        return
    flat = result["conv2d"]
    say(f"Nside {options.nside}, {options.channels} channels, batch {options.batch}, medians of {options.runs} runs")
    say(f"conv2d 3x3 channels_last     forward {flat['fwd_ms']:7.1f} ms   with backward {flat['fwdbwd_ms']:7.1f} ms")
    for name, row in result["layers"].items():
        say(
            f"{name:28s} forward {row['fwd_ms']:7.1f} ms   with backward {row['fwdbwd_ms']:7.1f} ms"
            f"   x {row['ratio_fwdbwd']:.2f}"
        )
