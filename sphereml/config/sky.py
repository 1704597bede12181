"""The configuration of a sky and its regions: where maps come from, what trains, what tests.

Conventions: angles in degrees unless the name says otherwise, velocities LSR km/s.  The keys are documented under
``Args`` as ``key [unit]: meaning``, which `sphereml config show` prints (:mod:`sphereml.config.documentation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sphereml.config.survey import SurveyConfig


@dataclass
class GalaxyConfig:
    """Synthetic Galaxy (``sphereml.simulate.galaxy``); 64 channels of 1.288 km/s over -64.5..17 km/s by default.

    Args:
        nside: resolution, a power of two
        seed: of the random fields
        channels: number of velocity channels, 2 or more
        velocity_start [km/s]: lower edge of the first channel
        channel_width [km/s]: of each channel
        beam_arcmin [arcmin]: FWHM of the beam of channels and dust
        noise_mk [mK]: white noise of a channel
        filaments: share of the cold gas's structure in filaments along its magnetic field, 0 to 1; 0: isotropic gas
        polarization: the dust's Q and U are a target beside its intensity
    """

    nside: int = 128
    seed: int = 1
    channels: int = 64
    velocity_start: float = -64.5
    channel_width: float = 1.28821496
    beam_arcmin: float = 16.2
    noise_mk: float = 43.0
    filaments: float = 0.0
    polarization: bool = False


@dataclass
class MapField:
    """Columns of one HEALPix FITS file, each ``(value - zero_level) * factor``, the factor that of ``convert_to``.

    Args:
        file: path, in the data folder or absolute; FILE[NAME] and FILE[#2] choose columns
        fields: numbers of columns from 0; empty: those of FILE[NAME], or every column
        unit: used when the file states none, and must agree when it does
        order: RING or NESTED, used when the file does not say
        frame: G, C or E, used when the file does not say
        beam_arcmin [arcmin]: FWHM of the map's beam; 0: not known
        polcconv: COSMO or IAU, the sign of U, used when the file does not say; COSMO when neither does
        zero_level: taken from every scalar, in the file's unit (a monopole that is not of the Galaxy)
        convert_to: unit to convert the columns to
        frequency_ghz [GHz]: of the map, for the conversion between temperatures and intensities
    """

    file: str = ""
    fields: list[int] = field(default_factory=list)
    unit: str = ""
    order: str = ""
    frame: str = ""
    beam_arcmin: float = 0.0
    polcconv: str = ""
    zero_level: float = 0.0
    convert_to: str = ""
    frequency_ghz: float = 0.0


@dataclass
class DataConfig:
    """Where the sky comes from.

    With ``nside``, ``lmax`` or ``beam_arcmin`` the maps of ``kind: healpix`` are brought to one grid and frame in
    harmonic space, each once; without them they must share grid and frame already, and are taken as they are.

    Args:
        name: of the data, part of the store's name
        kind: galaxy (simulated), healpix (FITS maps) or survey (the archives' files)
        stores: folder of prepared skies
        galaxy: the synthetic Galaxy of kind galaxy
        folder: folder of the files; null: SPHEREML_REAL_SKY, for a survey the folder of `sphereml data fetch`
        inputs: files of the input maps; Q and U side by side are one field of spin 2
        total: the gas column, for models that are made of one; null: the sum of the inputs, where they are gas
        target: file of what is to be predicted, one column or several
        targets: further files of targets
        nside: common resolution; 0: that of the maps, or the lowest of them
        lmax: highest multipole kept; 0: twice the lower Nside of a map and the common grid
        beam_arcmin [arcmin]: FWHM of the common beam, not below any map's own; 0: every map keeps its own
        iterations: Jacobi iterations of the harmonic analysis
        max_missing: largest share of a map without data, which is filled for the transform and masked afterwards
        survey: files and filters of kind survey
    """

    name: str = "galaxy"
    kind: str = "galaxy"
    stores: str = "stores"
    galaxy: GalaxyConfig = field(default_factory=GalaxyConfig)
    folder: str | None = None
    inputs: list[MapField] = field(default_factory=list)
    total: MapField | None = None
    target: MapField | None = None
    targets: list[MapField] = field(default_factory=list)
    nside: int = 0
    lmax: int = 0
    beam_arcmin: float = 0.0
    iterations: int = 3
    max_missing: float = 0.1
    survey: SurveyConfig | None = None

    @property
    def regrids(self) -> bool:
        """Whether the maps of ``kind: healpix`` are brought to one grid."""
        return self.kind == "healpix" and bool(self.nside or self.lmax or self.beam_arcmin)


@dataclass
class Disc:
    """A disc on the sky to be cut away.

    Args:
        name: for messages
        lon [deg]: Galactic longitude of the centre
        lat [deg]: Galactic latitude of the centre
        radius [deg]: of the disc
    """

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

    With ``file``, a HEALPix map of 0 (not used), 1 (training), 2 (validation) and 3 (test), the regions are those of
    the map, and only masks and ``cuts`` limit them.  A mask is weights: pixels that it keeps in part count in part, in
    the training and in the scores.

    Args:
        name: of the split
        file: map of 0 (not used), 1 (training), 2 (validation), 3 (test); null: regions by the keys below
        train: the side that trains
        buffer [deg]: no training pixel is nearer to the test side
        centre_margin [deg]: distance of patch and tile centres from the equator, with north and south
        folds: number of lunes, 3 or more
        fold: the lune that tests, from 0
        validation_lon [deg]: longitudes of the training side that validate, [from, to)
        mask_file: map of weights, 0 (drop) to 1 (keep)
        sky_fraction: keep the faintest share of the first target (its intensity, of polarization), in (0, 1]; null: all
        smoothing [deg]: FWHM of the smoothing before the faintest part is chosen
        cuts: discs that no region holds
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
