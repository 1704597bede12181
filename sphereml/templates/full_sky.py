"""Full-sky templates of trained models: predicted tile by tile into FITS files, also after a stop on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from sphereml.data.finished_pieces import pieces_of
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.whole_files import appearing_together
from sphereml.sky.maps import SkyMap
from sphereml.templates.products import write_sky_map
from sphereml.training.predictor import Prediction, Predictor


def predict_templates(folder: Path, predictors: Mapping[str, Predictor], sky: ReadableSky) -> dict[str, Prediction]:
    """Predict the full sky by every model into ``folder/NAME.fits``; the files take their places together.

    Tiles that a stopped prediction finished are not made again.

    Raises:
        UserError: as :meth:`~sphereml.training.predictor.Predictor.sphere`; a file cannot be written, or another
            process makes it.
    """
    predictions = {}
    with appearing_together(folder) as scratch, ExitStack() as held:
        for name, predictor in predictors.items():
            header = predictor.header(sky)
            made_by = {"sky": sky.provenance, "tile_side": predictor.tile_side, "device": predictor.device.type}
            path = folder / f"{name}.fits"
            kept = held.enter_context(pieces_of(path, header | made_by | {"nside": sky.grid.nside}))
            predictions[name] = predictor.sphere(sky, kept)
            maps = SkyMap(predictions[name].values, predictor.outputs, order="nest", header=header)
            write_sky_map(scratch / path.name, maps)
    return predictions
