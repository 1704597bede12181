"""The quick-look page of a store: maps of channels, mean spectrum, mask, histogram, splits, provenance; one HTML file.

Figures are embedded, so nothing beside the page is needed.  The same store gives the same page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sphereml.data.split_files import Split
from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.pages import embedded, open_environment
from sphereml.evaluation.store_summary import StoreSummary, describe
from sphereml.plotting.colours import intensity_scale
from sphereml.plotting.maps import class_map, sky_map, weight_map
from sphereml.plotting.style import png_pair
from sphereml.plotting.velocity import mean_profile, value_histogram
from sphereml.sky.grid import HealpixGrid

_BINS = 80
_PARTS = ("not used", "training", "validation", "test")


def write_overview(summary: StoreSummary, page: Path, splits: Sequence[Split] = ()) -> Path:
    """Write the page of a store; raises UserError when it cannot be written.

    Args:
        summary: from :func:`~sphereml.evaluation.store_summary.summarize_store`.
        splits: drawn as maps of their parts.
    """
    return write_atomically(page, render(summary, splits).encode())


def render(summary: StoreSummary, splits: Sequence[Split] = ()) -> str:
    """The page as text."""
    template = open_environment().get_template("overview.html.j2")
    return template.render(
        title=summary.path.name,
        facts=[line.strip() for line in describe(summary)[1:]],
        figures=[_embed(figure, caption) for figure, caption in _figures(summary, splits)],
        files=summary.provenance.get("files", {}),
        provenance=json.dumps(summary.provenance, indent=1, sort_keys=True),
    )


def _embed(figure: Figure, caption: str) -> dict[str, Any]:
    return embedded(*png_pair(figure, dpi=100)) | {"caption": caption}


def _figures(summary: StoreSummary, splits: Sequence[Split]) -> list[tuple[Figure, str]]:
    unit = summary.units["inputs"]
    drawn = []
    if summary.velocity is not None and len(summary.velocity) > 1:
        drawn.append((draw_profile(summary), "Mean spectrum before any filter; the shaded velocities are the inputs."))
    for channel, values in summary.maps.items():
        name = summary.channels[channel]
        drawn.append((sky_map(values, name, unit), f"Channel {channel}: {name}."))
    drawn.append((sky_map(summary.target, "target", summary.units["target"]), "The target."))
    if summary.mask is not None:
        drawn.append(
            (weight_map(summary.mask, "mask"), f"The mask (1 = keep) keeps {100 * summary.kept:.1f} % of the sky.")
        )
    drawn.append((_histogram(summary), "Values of the channels above, at the resolution of the maps above."))
    drawn += [(_split_map(split), _split_words(split)) for split in splits]
    return drawn


def draw_profile(summary: StoreSummary) -> Figure:
    """The spectrum that was recorded before the filters, with its surroundings, else the store's own."""
    assert summary.velocity is not None
    known = summary.provenance.get("spectrum") or {"velocity": summary.velocity, "mean": summary.mean}
    around = zip(known.get("context_velocity", []), known.get("context_mean", []), strict=True)
    # A context channel that is an input too counts once.
    means = {
        round(float(v), 6): float(mean) for v, mean in [*around, *zip(known["velocity"], known["mean"], strict=True)]
    }
    velocity = np.array(sorted(means))
    used = (float(summary.velocity.min()), float(summary.velocity.max()))
    return mean_profile(
        velocity, np.array([means[v] for v in velocity]), used, summary.units["inputs"], _inside(summary)
    )


def _inside(summary: StoreSummary) -> tuple[np.ndarray, np.ndarray] | None:
    if summary.inside is None or summary.velocity is None:
        return None
    order = np.argsort(summary.velocity)
    return summary.velocity[order], summary.inside[order]


def _histogram(summary: StoreSummary) -> Figure:
    maps = {summary.channels[channel]: values for channel, values in summary.maps.items()}
    scale = intensity_scale(np.concatenate(list(maps.values())), stretch="linear")
    span = scale.vmax - scale.vmin
    edges = np.linspace(scale.vmin - 0.2 * span, scale.vmax + span, _BINS + 1)
    counts = {name: np.histogram(values, edges)[0] for name, values in maps.items()}
    return value_histogram(edges, counts, summary.units["inputs"])


def _split_map(split: Split) -> Figure:
    step = max(1, split.grid.npix // HealpixGrid(128).npix)
    return class_map(split.parts[::step].astype(float), _PARTS, split.name)


def _split_words(split: Split) -> str:
    shares = ", ".join(f"{name} {100 * getattr(split, name).mean():.1f} %" for name in ("train", "validation", "test"))
    return f"Split {split.name}: {shares} of the sky."
