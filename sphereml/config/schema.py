"""The configuration of an experiment as plain dataclasses: one schema for files, overrides and code.

Conventions: angles in degrees unless the name says otherwise, multipoles are bare numbers, velocities LSR km/s.  Only
types Hydra understands are used (no numpy, no tuples), and this module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sphereml.config.lensing import LensingConfig
from sphereml.config.survey import SurveyConfig


@dataclass
class GalaxyConfig:
    """Synthetic Galaxy (``sphereml.simulate.galaxy``); 64 channels of 1.288 km/s over -64.5..17 km/s by default.

    ``filaments`` is the share of the cold gas's structure, 0 to 1, that lies in filaments along its magnetic field; 0
    leaves the gas isotropic.
    """

    nside: int = 128
    seed: int = 1
    channels: int = 64
    velocity_start: float = -64.5
    channel_width: float = 1.28821496
    beam_arcmin: float = 16.2
    noise_mk: float = 43.0
    filaments: float = 0.0


@dataclass
class MapField:
    """Columns of one HEALPix FITS file.

    ``fields`` empty means every column.  ``unit`` is used when the file states none, and must agree when it does.
    """

    file: str = ""
    fields: list[int] = field(default_factory=list)
    unit: str = ""


@dataclass
class DataConfig:
    """Where the sky comes from: ``kind`` is ``galaxy`` (simulated), ``healpix`` (a folder of FITS maps) or ``survey``.

    ``folder`` holds the files of the last two; for a survey it is else that of ``sphereml data fetch``.
    """

    name: str = "galaxy"
    kind: str = "galaxy"
    stores: str = "stores"
    galaxy: GalaxyConfig = field(default_factory=GalaxyConfig)
    folder: str | None = None
    inputs: list[MapField] = field(default_factory=list)
    total: MapField | None = None
    target: MapField | None = None
    survey: SurveyConfig | None = None


@dataclass
class Disc:
    """A disc on the sky to be cut away."""

    name: str = ""
    lon: float = 0.0
    lat: float = 0.0
    radius: float = 0.0


@dataclass
class SplitConfig:
    """Training, validation and test regions.

    ``train: north``: pixels with ``lat > buffer`` train and those with ``lat < -buffer`` test (``south`` swaps them).
    ``east`` and ``west``: longitudes (198, 342) and (18, 162).  ``fold``: the sky is cut into ``folds`` lunes of
    longitude; number ``fold`` tests, the next one validates, the others train.  In all of them no training or
    validation pixel is nearer than ``buffer`` degrees to the test side.

    The longitudes ``validation_lon`` of the training side are its validation region, never trained on (not with folds).
    With north and south, patch and tile centres keep ``centre_margin`` degrees from the equator, so that no input
    crosses it.  ``mask_file`` (1 = keep) or ``sky_fraction`` (keep the faintest part of the smoothed target), and the
    mask that a survey's store brings, limit all regions, and so do ``cuts``.

    With ``file``, a HEALPix map of 0 (not used), 1 (training), 2 (validation) and 3 (test) as the package writes it,
    the regions are those of the map, and only masks and ``cuts`` limit them.
    """

    name: str = "north_south"
    file: str | None = None
    train: str = "north"
    buffer: float = 8.0
    centre_margin: float = 17.65
    folds: int = 5
    fold: int = 0
    validation_lon: list[float] = field(default_factory=lambda: [30.0, 90.0])
    mask_file: str | None = None
    sky_fraction: float | None = 0.71
    smoothing: float = 5.0
    cuts: list[Disc] = field(default_factory=list)


@dataclass
class LossConfig:
    """Equation 2.3 of arXiv:1904.13265: ``lambda_r [(1 - r50) + (1 - r150)] + l1 mean |T - T'|``, over ``bands``."""

    lambda_r: float = 30.0
    l1: float = 1.0
    bands: list[str] = field(default_factory=lambda: ["r50", "r150"])
    correlation: str = "auto"  # "mode": average of single modes' r; "ell": r of spectra; "auto": mode flat, ell sphere


@dataclass
class BandsConfig:
    """Multipole bands ``lo <= ell < hi`` of r50 and r150; clipped at run time to what the map resolves."""

    r_low: list[float] = field(default_factory=lambda: [2.0, 15.0])
    r50: list[float] = field(default_factory=lambda: [14.4, 100.0])
    r150: list[float] = field(default_factory=lambda: [100.0, 200.0])


@dataclass
class PatchConfig:
    """Patches of ``size`` x ``size`` pixels of ``pixel_arcmin``, masked by a share ``max_masked`` at most.

    Gnomonic, but those of lensing, which are Lambert's and whose mask is ``lensing.taper``.
    """

    size: int = 64
    pixel_arcmin: float = 23.4
    max_masked: float = 0.7


@dataclass
class ModelConfig:
    """A network or baseline.

    ``arch``: ``unet``, ``resunet``, ``linear`` or ``integrated``; ``domain``: ``flat``, ``sphere`` or ``none`` (the
    closed-form baselines); ``form``: ``plain`` (standardized channels in, standardized dust out) or ``physical`` (a
    gain on a first guess; see ``sphereml.tasks.dust`` for ``features``, ``guess``, ``gains`` and ``gain_limit``, and
    ``sphereml.tasks.lensing_features``).
    """

    name: str = "unet_sphere"
    arch: str = "unet"
    domain: str = "sphere"
    form: str = "physical"
    features: str = "profile"  # "profile": log column and line profile; "column": log column alone
    guess: str = "column"  # first guess: the "column" or "linear" weights of the channels
    gains: str = "one"  # "one" gain on the guess, or one on each of its "channels" (guess: linear)
    gain_limit: float = 0.0  # 0: gain 1 + n; else exp(limit tanh(n / limit)), bounded and positive
    width: int = 32
    depth: int = 3
    max_width: int = 512
    convs_per_level: int = 2
    # On the sphere: the graph of the Chebyshev convolutions ("adjacent", "nearest8", "nearest20", "nearest40",
    # "nearest60"), "oriented" for nine weights on the face grid, or "spin" for fields with types (docs/spin.md), flat
    # ones too.
    stencil: str = "adjacent"
    kernel: int = 3  # side of the flat, oriented or spin kernel; number K of Chebyshev polynomials
    # With stencil "spin", ``width`` counts the even scalars, and these the channels of the other types beside them.
    odd_width: int = 0
    spin1_width: int = 0
    spin2_width: int = 0
    products: bool = False  # products of typed channels before each activation
    chiral: bool = False  # whether their weights may tell left from right (E from B by more than parity allows)
    dropout: float = 0.3
    input_noise: float = 0.0
    norm: str = "batch"


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
    threads: int = 0  # 0: all cores


@dataclass
class EvaluationConfig:
    """Held-out comparison: number of flat test patches, apodization of the mask, Nside of the jackknife blocks.

    With ``cuts`` the scores on the sphere are given twice, with these discs of the test region and without them.
    """

    patches: int = 200
    apodization: float = 0.0
    block_nside: int = 2
    seed: int = 7
    cuts: list[Disc] = field(default_factory=list)


@dataclass
class ExperimentConfig:
    """Everything one run depends on; its hash names the run folder.

    The settings of a task stand under its own name; those of a plugin's task are added to this schema.
    """

    name: str = "dust_demo"
    task: str = "dust"
    output: str = "runs"
    models: list[str] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    bands: BandsConfig = field(default_factory=BandsConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    lensing: LensingConfig = field(default_factory=LensingConfig)
