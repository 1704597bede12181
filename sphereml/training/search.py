"""Search of settings with Optuna: it proposes trials, each of which is an ordinary run, judged by its validation loss.

A search is named by its words and stands in an SQLite file beside its runs, which Optuna's own tools read; the same
words go on with it, and a trial that was interrupted is trained to its end.  One process searches at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphereml.config.sweeps import Interval, SearchSpace
from sphereml.data.holdings import locked
from sphereml.errors import UserError
from sphereml.training.runs import Run


def search_settings(
    space: SearchSpace, trials: int, storage: Path, train: Callable[[list[str]], Run], say: Callable[[str], None]
) -> Run:
    """The run of the least validation loss after ``trials`` trials, earlier ones of the same search included.

    The proposals are those of the tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS 24), seeded by the
    number of the trial.

    Args:
        storage: SQLite file of the searches, made where it is missing.
        train: the finished run of a combination's words; a trial that it refuses counts as the worst.
    Raises:
        UserError: Optuna is missing, a run has no validation loss, or no trial could be trained.
    """
    study = _study(space, storage)
    with locked(storage):
        _take_up(study)
        while (done := len(_ended(study))) < trials:
            say(f"trial {done + 1} of {trials}")
            _try(study, space, train, say)
    judged = [one for one in _ended(study) if one.value is not None]
    if not judged:
        raise UserError(f"none of the {trials} trials could be trained", "see what was said of each")
    best = min(judged, key=lambda one: float(one.value))
    chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
    say(f"best of {len(judged)} trials: validation loss {best.value:.6g} with {chosen}")
    return Run.open(Path(best.user_attrs["run"]))


def _study(space: SearchSpace, storage: Path) -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("--optuna needs Optuna", "pip install 'sphereml[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    name = " ".join([*space.fixed, *(f"{key}={one}" for key, one in space.ranges.items())])
    return optuna.create_study(study_name=name, storage=f"sqlite:///{storage}", load_if_exists=True)


def _ended(study: Any) -> list[Any]:
    """Trials with a validation loss, and those that could not be trained."""
    from optuna.trial import TrialState

    trials: list[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return trials


def _take_up(study: Any) -> None:
    """Propose again, as the next ones, what a process that is gone had begun."""
    from optuna.trial import TrialState

    for one in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(one.number, state=TrialState.FAIL)
        study.enqueue_trial(one.params)


def _try(study: Any, space: SearchSpace, train: Callable[[list[str]], Run], say: Callable[[str], None]) -> None:
    """Train one trial and tell the study of it."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    study.sampler = TPESampler(seed=len(study.get_trials(deepcopy=False)))
    trial = study.ask({key: _distribution(one) for key, one in space.ranges.items()})
    try:
        run = train(space.words(trial.params))
    except UserError as error:
        say(f"{trial.params}: {error}")
        study.tell(trial, state=TrialState.PRUNED)
        return
    loss = run.manifest().get("val_loss")
    if loss is None:
        raise UserError(f"the run in {run.folder} has no validation loss", "give the split a validation region")
    trial.set_user_attr("run", str(run.folder))
    study.tell(trial, loss)


def _distribution(values: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Interval):
        return CategoricalDistribution(tuple(values))
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
