"""The configuration of an experiment as plain dataclasses: one schema for files, overrides and code.

Conventions: angles in degrees unless the name says otherwise, multipoles are bare numbers, velocities LSR km/s.  Only
types Hydra understands are used (no numpy, no tuples), and this module imports nothing heavy.  The keys are documented
under ``Args`` as ``key [unit]: meaning``, which `sphereml config show` prints (:mod:`sphereml.config.documentation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sphereml.config.cross_fit import CrossFitConfig
from sphereml.config.dust_polarization import DustPolarizationConfig
from sphereml.config.forecast import ForecastConfig
from sphereml.config.lensing import LensingConfig
from sphereml.config.sky import DataConfig, Disc, GalaxyConfig, MapField, SplitConfig

__all__ = [
    "BandsConfig",
    "CrossFitConfig",
    "DataConfig",
    "Disc",
    "EvaluationConfig",
    "ExperimentConfig",
    "GalaxyConfig",
    "LossConfig",
    "MapField",
    "ModelConfig",
    "PatchConfig",
    "SplitConfig",
    "TrainingConfig",
]


@dataclass
class LossConfig:
    """Equation 2.3 of arXiv:1904.13265: ``lambda_r [(1 - r50) + (1 - r150)] + l1 mean |T - T'|``, over ``bands``.

    ``l2`` adds ``l2 mean (T - T')^2``, in place of the first power with ``l1=0``.

    Args:
        lambda_r: weight of the correlations
        l1: weight of mean |T - T'|, in standard deviations of the target
        l2: weight of mean (T - T')^2, in variances of the target
        bands: bands whose correlation counts
        correlation: mode: average of single modes' r; ell: r of spectra; auto: mode on flat patches, ell on the sphere
    """

    lambda_r: float = 30.0
    l1: float = 1.0
    l2: float = 0.0
    bands: list[str] = field(default_factory=lambda: ["r50", "r150"])
    correlation: str = "auto"


@dataclass
class BandsConfig:
    """Multipole bands ``lo <= ell < hi`` of r50 and r150; clipped at run time to what the map resolves.

    Args:
        r_low: the largest scales, scored on the sphere
        r50: from the fundamental mode of the patches to 100
        r150: 100 to 200
    """

    r_low: list[float] = field(default_factory=lambda: [2.0, 15.0])
    r50: list[float] = field(default_factory=lambda: [14.4, 100.0])
    r150: list[float] = field(default_factory=lambda: [100.0, 200.0])


@dataclass
class PatchConfig:
    """Patches of ``size`` x ``size`` pixels of ``pixel_arcmin``, masked by a share ``max_masked`` at most.

    Those of lensing are Lambert's, and their mask is ``lensing.taper``.

    Args:
        size: pixels on a side
        pixel_arcmin [arcmin]: side of a pixel
        max_masked: largest share of a patch or tile outside its region
        projection: of the sphere to the plane: gnomonic, or lambert (of equal areas)
    """

    size: int = 64
    pixel_arcmin: float = 23.4
    max_masked: float = 0.7
    projection: str = "gnomonic"


@dataclass
class ModelConfig:
    """A network or baseline.

    ``arch``: ``unet``, ``resunet``, ``stack`` (residual convolutions at one resolution: depth 0), ``spectral``
    (convolutions along velocity, pixel by pixel), or a closed form, ``linear`` or ``integrated``, of polarization also
    the structure ``tensor`` or ``hough``; ``domain``: ``flat``, ``sphere`` or ``none`` (the closed forms); ``form``:
    ``plain`` (standardized ``inputs`` in, standardized dust out) or ``physical`` (a gain on a first guess; see
    ``sphereml.tasks.dust`` for ``features``, ``guess``, ``gains`` and ``gain_limit``,
    ``sphereml.tasks.dust_polarization`` and ``sphereml.tasks.lensing_features``).

    Args:
        name: of the model, part of the run folder's name
        arch: network, or closed-form baseline
        domain: where the network lives; none for closed forms
        form: plain: standardized channels in, standardized target out; physical: a gain on a first guess
        inputs: what a plain form or the linear model is made of: channels, their integral, the moments sum v^m I_v, or
            the channels apart by scale
        moments: number of them, from m = 0
        scales: multipoles between which the weights of scales change, linearly in log(ell)
        features: what a physical form sees: log column and line profile, or the log column alone
        guess: first guess of a physical form: weights of the column, or of each channel (linear)
        gains: one gain on the guess, or one on each of its channels (with guess linear)
        gain_limit: 0: gain 1 + n; else exp(limit tanh(n / limit)), bounded and positive
        width: channels of the first level
        depth: number of poolings (a stack has none), of a spectral network along velocity
        max_width: channels of a level at most
        convs_per_level: convolutions of a level, or of a stack
        stencil: what a convolution on the sphere sums over: graph of neighbours, nine oriented weights, or spin for
            fields with types (flat ones too)
        kernel: side of a flat, oriented or spin kernel; number of Chebyshev polynomials
        odd_width: with stencil spin, channels of odd scalars beside the width's even ones
        spin1_width: with stencil spin, channels of spin 1
        spin2_width: with stencil spin, channels of spin 2
        products: products of typed channels before each activation
        chiral: their weights may tell left from right (E from B by more than parity allows)
        dropout: probability, in [0, 1)
        input_noise: added to the features in training, in standard deviations
        norm: normalization layers
    """

    name: str = "unet_sphere"
    arch: str = "unet"
    domain: str = "sphere"
    form: str = "physical"
    inputs: str = "channels"
    moments: int = 3
    scales: list[float] = field(default_factory=lambda: [10.0, 30.0, 100.0])
    features: str = "profile"
    guess: str = "column"
    gains: str = "one"
    gain_limit: float = 0.0
    width: int = 32
    depth: int = 3
    max_width: int = 512
    convs_per_level: int = 2
    stencil: str = "adjacent"
    kernel: int = 3
    odd_width: int = 0
    spin1_width: int = 0
    spin2_width: int = 0
    products: bool = False
    chiral: bool = False
    dropout: float = 0.3
    input_noise: float = 0.0
    norm: str = "batch"

    @property
    def poolings(self) -> int:
        """How often the network halves the sky; ``depth`` of a spectral one is of the velocity axis."""
        return 0 if self.arch in ("stack", "spectral") else self.depth


@dataclass
class TrainingConfig:
    """Optimization: Adam, early stopping after ``patience`` epochs without a better validation loss.

    ``schedule`` of the rate: ``step`` divides it by ten every ``decay_every`` epochs, ``plateau`` halves it when the
    validation loss has not improved for ``decay_every`` epochs, ``cosine`` lets it rise and fall once.  From the share
    ``average_from`` of all steps on, weights are averaged.  ``clip`` is the largest norm of a gradient, 0
    none.  ``precision``: float32, or on a GPU tf32 or bf16.

    On the sphere ``footprint: tiles`` draws superpixels of ``tile_nside`` (turned at random with ``rotations``), and
    ``region`` shows the whole training region at every step.  With ``join_validation`` the validation region trains
    too, for all the epochs: for settings that were chosen before.

    Args:
        epochs: at most
        steps_per_epoch: batches of an epoch
        batch_size: patches or tiles of a batch
        learning_rate: of Adam, at its highest
        weight_decay: of AdamW
        schedule: of the rate: step, plateau or cosine
        decay_every: epochs, see schedule
        average_from: share of the training after which weights are averaged; 1: never
        clip: largest norm of a gradient; 0: none
        precision: float32, or on a GPU tf32 or bf16
        patience: epochs without a better validation loss before the training stops
        validation_batches: batches of a validation
        join_validation: the validation region trains too, for all the epochs
        footprint: on the sphere: tiles at random places, or the whole training region
        tile_nside: Nside of the tiles; a power of two
        rotations: turn tiles at random
        seed: of weights, batches and dropout
        threads: of the CPU; 0: all cores
        processes: that train together, each on a device of its own; torchrun or srun starts them
        logger: what shows the measures, beside a CSV file: tensorboard, mlflow, wandb, or csv alone
    """

    epochs: int = 12
    steps_per_epoch: int = 40
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "step"
    decay_every: int = 10
    average_from: float = 1.0
    clip: float = 0.0
    precision: str = "float32"
    patience: int = 5
    validation_batches: int = 8
    join_validation: bool = False
    footprint: str = "tiles"
    tile_nside: int = 2
    rotations: bool = True
    seed: int = 1
    threads: int = 0
    processes: int = 1
    logger: str = "tensorboard"


@dataclass
class EvaluationConfig:
    """Held-out comparison: number of flat test patches, apodization of the mask, Nside of the jackknife blocks.

    With ``cuts`` the scores on the sphere are given twice, with these discs of the test region and without them.

    Args:
        patches: number of held-out patches
        apodization [deg]: taper of the test region on the sphere
        block_nside: Nside of the blocks of sky that the jackknife leaves out
        seed: of the held-out patches
        cuts: discs without which the scores on the sphere are given a second time
        notes: what a reader of the scores must know of the data, a line each
        cross_fit: regions and ensembles of cross-fitted templates
        study: what measures the runs of `sphereml study`; empty: the task's own study
        forecast: settings of the study r_forecast
    """

    patches: int = 200
    apodization: float = 0.0
    block_nside: int = 2
    seed: int = 7
    cuts: list[Disc] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cross_fit: CrossFitConfig = field(default_factory=CrossFitConfig)
    study: str = ""
    forecast: ForecastConfig = field(default_factory=ForecastConfig)


@dataclass
class ExperimentConfig:
    """Everything one run depends on; its hash names the run folder.

    The settings of a task stand under its own name; those of a plugin's task are added to this schema.

    Args:
        name: of the experiment, its folder under output
        task: what is learnt from what
        output: folder of the runs
        scheduler: of `simulate lensing`, a survey's `data prepare` and `train -m`: empty: here; local; tcp://HOST:PORT
        models: models that `sphereml train` trains; empty: the chosen one
        rows: further runs beside the models, the name of each with its overrides
        seeds: every network of models and rows once with each, in place of training.seed; empty: that one
        data: the sky
        split: training, validation and test regions
        loss: what is minimized
        bands: multipole bands lo <= ell < hi
        patches: flat patches, to train on and to score on
        model: network or baseline
        training: optimization
        evaluation: the held-out comparison
        dust_polarization: settings of the task dust_polarization
        lensing: settings of the task lensing
    """

    name: str = "dust_demo"
    task: str = "dust"
    output: str = "runs"
    scheduler: str = ""
    models: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    bands: BandsConfig = field(default_factory=BandsConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dust_polarization: DustPolarizationConfig = field(default_factory=DustPolarizationConfig)
    lensing: LensingConfig = field(default_factory=LensingConfig)
