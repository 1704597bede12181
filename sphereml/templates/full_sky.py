"""Full-sky templates of trained models: predicted tile by tile into a FITS file, also after a stop on the way."""

from __future__ import annotations

from pathlib import Path

from sphereml.data.finished_pieces import pieces_of
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.sky.maps import SkyMap
from sphereml.templates.products import write_sky_map
from sphereml.training.predictor import Prediction, Predictor


def predict_template(path: Path, predictor: Predictor, sky: ReadableSky, overwrite: bool = False) -> Prediction:
    """Predict the full sky into a FITS file; tiles that a stopped prediction finished are not made again.

    Raises:
        UserError: as :meth:`~sphereml.training.predictor.Predictor.sphere`; the file exists, cannot be written, or
            another process makes it.
    """
    header = predictor.header(sky)
    made_by = {"sky": sky.provenance, "tile_side": predictor.tile_side, "device": predictor.device.type}
    with pieces_of(path, header | made_by | {"nside": sky.grid.nside}) as kept:
        prediction = predictor.sphere(sky, kept)
        maps = SkyMap(prediction.values, predictor.outputs, order="nest", header=header)
        write_sky_map(path, maps, overwrite=overwrite)
    return prediction
