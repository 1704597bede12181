"""Where a training's measures go: CSV always, and what ``training.logger`` names, through Lightning.

TensorBoard and CSV files stand in the run's folder; MLflow and Weights & Biases go where ``MLFLOW_TRACKING_URI`` and
``WANDB_MODE`` say (without them: the run's folder, and W&B's own server).  Every setting of the run is logged as a
hyperparameter by its dotted key; a resumed training goes on in the same MLflow or W&B run.
"""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from sphereml.config.compose import used_settings
from sphereml.config.tasks import dotted_values
from sphereml.errors import UserError
from sphereml.training.runs import Run


def open_loggers(run: Run) -> list[Logger]:
    """The loggers of a run, with its settings in them.

    Raises:
        UserError: the server or the package of the chosen one refuses.
    """
    chosen = run.config.training.logger
    loggers: list[Logger] = [CSVLogger(run.folder, name="logs", version=_csv_version(run))]
    try:
        if chosen != "csv":
            loggers.append(_OTHERS[chosen](run))
        for one in loggers:
            one.log_hyperparams(settings_of(run))
    except Exception as error:  # each package has errors of its own, and a server those of the network
        if isinstance(error, OSError):
            raise
        what = f"training.logger={chosen} does not open ({str(error).splitlines()[0]})"
        raise UserError(what, "see what it needs, or choose training.logger=csv") from None
    return loggers


def settings_of(run: Run) -> dict[str, Any]:
    """Every setting that the run's task uses, by its dotted key."""
    settings = dotted_values(used_settings(run.config))
    return {key: str(value) if isinstance(value, list) else value for key, value in settings}


def log_score(loggers: list[Logger], run: Run, score: float) -> None:
    """The best validation loss beside the settings, for the tables of trainings that TensorBoard shows."""
    for one in loggers:
        if isinstance(one, TensorBoardLogger):
            one.log_hyperparams(settings_of(run), {"best_val_loss": score})


def _tensorboard(run: Run) -> Logger:
    return TensorBoardLogger(run.folder, name="logs", version="tensorboard", default_hp_metric=False)


def _mlflow(run: Run) -> Logger:
    own, known = run.folder.absolute() / "logs" / "mlflow", run.manifest().get("mlflow_run")
    options: dict[str, Any] = {"tracking_uri": os.environ.get("MLFLOW_TRACKING_URI")}
    if not options["tracking_uri"]:
        own.mkdir(parents=True, exist_ok=True)
        options = {"tracking_uri": f"sqlite:///{own / 'mlflow.db'}", "artifact_location": str(own)}
    logger = MLFlowLogger(run.config.name, run_name=run.folder.name, run_id=known, **options)
    if known is None and logger.run_id is not None:
        run.update(mlflow_run=logger.run_id)
    return logger


def _wandb(run: Run) -> Logger:
    folder = run.folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(run.folder.name, save_dir=folder, project=run.config.name, id=run.folder.name, resume="allow")


_OTHERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


def _csv_version(run: Run) -> str:
    """``csv``, or after an interruption ``csv-2`` and so on: Lightning empties the folder it logs to."""
    earlier = len(list((run.folder / "logs").glob("csv*")))
    return f"csv-{earlier + 1}" if earlier else "csv"
