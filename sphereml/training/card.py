"""The model card of a run, ``README.md`` of its folder: what it is, what it knows, how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sphereml import __version__
from sphereml.sky.fields import Field
from sphereml.tasks.protocol import Scaling, Task
from sphereml.training.runs import Run

_CARD = """---
library_name: sphereml
license: bsd-3-clause
tags: [HEALPix, {task}]
---
# {name}

A model of the task `{task}`, made by sphereml {version}: {architecture}.

| | |
|---|---|
| inputs | {inputs} |
| outputs | {outputs} |
| data | {data} |
| trained on | {regions} |
| parameters | {parameters} |
| validation loss | {loss} |

Read it with `sphereml.load_model("FOLDER")` and apply it to a sky with `.predict(sky)`; `config.json` holds every
setting, `scaling.json` the means and deviations of the inputs and the units of the outputs, `manifest.json` checksums
and versions.

**Scores** stand in the `comparison.json` that `sphereml compare` writes beside the runs, with their errors.

**Limits.** It knows the training region of one data set ({data}), at its resolution, beam and noise; on other data
nothing was measured.  Inputs must be the fields above, in these units and in this order.
"""


def model_card(run: Run, task: Task, scaling: Scaling, facts: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    model, data = run.config.model, run.manifest().get("data", {})
    architecture = f"{model.arch} on {model.domain}" if model.domain != "none" else f"{model.arch} (closed form)"
    loss = facts.get("val_loss")
    return _CARD.format(
        name=run.name,
        task=task.name,
        version=__version__,
        architecture=architecture,
        inputs=_spelled(getattr(scaling, "input_fields", ())),
        outputs=_spelled(task.outputs),
        data=f"{data.get('kind', 'unknown')}, seed {data['seed']}"
        if data.get("seed") is not None
        else run.config.data.name,
        regions="the training region of `split.fits`" if "split_sha256" in run.manifest() else "drawn skies",
        parameters=facts.get("parameters", "unknown"),
        loss="none" if loss is None else f"{loss:.4g}",
    )


def _spelled(fields: Iterable[Field], most: int = 4) -> str:
    names = [f"{one.name} ({one.unit or 'no unit'}{f', spin {one.spin}' if one.spin else ''})" for one in fields]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "drawn patches"
