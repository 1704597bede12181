"""A survey's way from archive files to a store: exact where it can be, filtered as said, and the same after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy import units
from fixtures_archive import SHORT_AXIS, AnalyticSky, HpxLayout, write_allsky_car, write_car_tiles, write_hpx_tables
from fixtures_cli import sphereml

from sphereml.config.schema import DataConfig
from sphereml.config.survey import CubeConfig, FilterConfig, SurveyConfig, SurveyMap, SurveyMask, check_survey
from sphereml.data.channel_plan import plan_channels
from sphereml.data.map_filter import MapKind, design_filter
from sphereml.data.prepare import store_path
from sphereml.data.store import Sky, open_store
from sphereml.data.survey import batch_size, prepare_survey, write_survey
from sphereml.data.survey_sources import MapFile, SurveySources
from sphereml.data.unit_conversion import conversion_factor
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.harmonics.filters import butterworth, gaussian_beam, multiply, rotate_to_galactic
from sphereml.harmonics.pixel_window import pixel_window
from sphereml.harmonics.spectra import spectrum
from sphereml.harmonics.transforms import alm_index, alm_size, synthesis
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import disc
from sphereml.sky.ordering import nest_to_ring, ring_to_nest

SKY = AnalyticSky()
CENTRES = SHORT_AXIS.axis.centres
RANGE = [float(CENTRES[0]), float(CENTRES[-1])]
# What the maps are when nothing is done to them.
PLAIN = FilterConfig(nside=16, butterworth_ell=0.0)


def random_alm(lmax: int, slope: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ell, order = alm_index(lmax)
    alm = (rng.standard_normal(ell.size) + 1j * rng.standard_normal(ell.size)) / (ell + 2.0) ** slope
    alm[order == 0] = alm[order == 0].real
    return alm


@dataclass(eq=False)
class Channels:
    """A ChannelSource over maps in memory; ``when_read`` is told every channel that is asked for."""

    maps: np.ndarray
    axis: VelocityAxis
    beam_arcmin: float | None = None
    name: str = "cube"
    unit: str = "K"
    frame: str = "G"
    files: dict[str, str] = field(default_factory=lambda: {"cube.fits": "sha256:0"})
    when_read: Callable[[int], None] = lambda channel: None

    @property
    def nside(self) -> int:
        return HealpixGrid.of_size(self.maps.shape[1]).nside

    @property
    def velocity(self) -> np.ndarray:
        return self.axis.centres

    def read(self, channel: int) -> np.ndarray:
        self.when_read(channel)
        return self.maps[channel].astype(np.float32)


def write_map(path: Path, values: np.ndarray, unit: str = "uK_RJ", coord: str = "G") -> Path:
    healpy.write_map(path, nest_to_ring(values), coord=coord, column_units=unit, dtype=np.float64, overwrite=True)
    return path


def made_sources(folder: Path, source: Channels, **target: object) -> SurveySources:
    path = write_map(folder / "dust.fits", source.maps[0].astype(np.float64))
    return SurveySources(source, MapFile(path, SurveyMap("dust.fits", **target)), None, None, {})


def random_channels(nside: int = 16, count: int = 11, **more: object) -> Channels:
    maps = np.stack([synthesis(random_alm(2 * nside, 1.5, seed), nside, 2 * nside) for seed in range(count)])
    return Channels(maps, VelocityAxis.uniform(-5.0, 1.0, count), **more)


def config_for(source: Channels, **filters: object) -> SurveyConfig:
    ends = [float(source.velocity.min()), float(source.velocity.max())]
    given = {"nside": source.nside, "butterworth_ell": 0.0} | filters
    return SurveyConfig(CubeConfig(pattern="*", velocity=ends), SurveyMap("dust.fits"), filters=FilterConfig(**given))


def prepare(folder: Path, config: SurveyConfig, source: Channels, **target: object) -> Sky:
    write_survey(folder / "one.zarr", config, made_sources(folder, source, **target))
    return open_store(folder / "one.zarr")


def archive(folder: Path, **survey: object) -> DataConfig:
    """A data configuration over the files of ``folder``, with the analytic sky's last channel as the dust."""
    write_map(folder / "dust.fits", SKY.channels(16, CENTRES)[:, -1])
    given = {"target": SurveyMap("dust.fits"), "filters": PLAIN} | survey
    return DataConfig("made", "survey", str(folder / "stores"), folder=str(folder), survey=SurveyConfig(**given))


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


# ---- from the archives' formats, and back


def test_tables_come_back_to_the_last_bit(tmp_path):
    write_hpx_tables(tmp_path, SKY)
    cube = CubeConfig(pattern="HPX_*.fits", nside=16, velocity=RANGE)
    sky = open_store(prepare_survey(archive(tmp_path, cube=cube)))
    np.testing.assert_array_equal(sky.inputs, SKY.channels(16, CENTRES).astype(np.float32))
    np.testing.assert_allclose(sky.velocity, CENTRES)
    assert (sky.input_unit, sky.target_fields) == ("K", (Field("target", "uK_RJ"),))
    assert sky.input_fields[3].name == f"{CENTRES[3]:+.2f} km/s"
    assert len(sky.provenance["files"]) == 5 and all(v.startswith("sampled:") for v in sky.provenance["files"].values())
    assert not list((tmp_path / "stores").glob(".*"))


@pytest.mark.parametrize("write", [write_car_tiles, lambda f, s, p: write_allsky_car(f / "CAR_all.fits", s, p)])
def test_plate_carree_cubes_come_back_within_the_error_of_resampling(write, tmp_path):
    """Bilinear between samples h apart: h^2 / 8 (|T_xx| + |T_yy|), as much again for the mean over the pixel's area."""
    pixel = 3.0
    write(tmp_path, SKY, pixel)
    cube = CubeConfig(pattern="CAR_*.fits", reader="car_cube", nside=16, velocity=RANGE)
    sky = open_store(prepare_survey(archive(tmp_path, cube=cube)))
    truth = SKY.channels(16, CENTRES)
    profile = SKY.temperature(np.eye(3), CENTRES).max()  # at most the amplitudes' sum, which `curvature` already holds
    assert profile < SKY.curvature
    bound = 2 * np.radians(pixel) ** 2 / 8 * 2 * SKY.curvature
    assert np.abs(sky.inputs - truth).max() < bound
    assert np.abs(sky.inputs - truth).mean() < 0.05 * bound


def test_a_wanted_grid_of_velocities_keeps_the_integral(tmp_path):
    source = random_channels(count=12)
    config = config_for(source)
    config.cube.velocity, config.cube.channel_width = [-4.5, 4.5], 1.5
    sky = prepare(tmp_path, config, source)
    np.testing.assert_allclose(sky.velocity, [-3.75, -2.25, -0.75, 0.75, 2.25, 3.75])
    # Edges of the source's channels lie at half integers, as the range's do.
    np.testing.assert_allclose(1.5 * sky.inputs.sum(axis=1), source.maps[1:10].sum(axis=0), atol=1e-5)


def test_the_mean_spectrum_is_recorded_before_the_filters_and_beyond_the_inputs(tmp_path):
    source = random_channels(count=9)
    config = config_for(source, butterworth_ell=5.0)
    config.cube.velocity, config.cube.context = [-3.0, -1.0], [-5.0, 0.0]
    spectrum_of = prepare(tmp_path, config, source).provenance["spectrum"]
    assert spectrum_of["velocity"] == [-3, -2, -1] and spectrum_of["context_velocity"] == [-5, -4, -3, -2, -1, 0]
    means = source.maps.astype(np.float32).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(spectrum_of["mean"], means[2:5])
    np.testing.assert_allclose(spectrum_of["context_mean"], means[:6])


def test_batches_of_channels_at_nside_1024_take_less_than_two_gigabytes():
    at_full_size = design_filter(FilterConfig(), MapKind("cube", 1024, 16.2))
    assert batch_size(at_full_size) == 4 and 4 * at_full_size.bytes_per_map() < 2e9


def test_channels_are_chosen_by_velocity_not_by_number():
    axis = VelocityAxis.uniform(465 * 1.28821496, -1.28821496, 933)  # a file that runs the other way
    plan = plan_channels(CubeConfig(velocity=[-64.5, 17.0]), Channels(np.zeros((1, 12)), axis))
    assert len(plan.axis) == 64 and plan.weights.shape == (64, 933)
    assert plan.axis.centres.max() == pytest.approx(16.75, abs=0.01)
    np.testing.assert_array_equal(plan.weights.sum(axis=1), 1)


# ---- harmonic space


def test_spectra_behind_the_butterworth_filter_are_the_inputs_times_the_squared_gain(tmp_path):
    """Nside 1024, cutoff 460 and ell < 600, all divided by 16; the input has power up to 3 Nside - 1, as skies have."""
    nside, lmax, cutoff, top = 64, 128, 460 / 16, 600 // 16
    source = Channels(
        np.stack([synthesis(random_alm(3 * nside - 1, 1.3, seed), nside, 3 * nside - 1) for seed in range(3)]),
        VelocityAxis.uniform(0.0, 1.0, 3),
    )
    sky = prepare(tmp_path, config_for(source, butterworth_ell=cutoff, butterworth_order=3.0), source)
    was, now = spectrum(source.maps, lmax=lmax), spectrum(sky.inputs.T.astype(np.float64), lmax=lmax)
    gain = butterworth(lmax, cutoff, 3.0)
    np.testing.assert_allclose(now[:, 2:top], (gain**2 * was)[:, 2:top], rtol=1e-3)
    target = spectrum(sky.target.astype(np.float64), lmax=lmax)
    np.testing.assert_allclose(target[2:top], now[0, 2:top], rtol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(32, 16), (16, 32)])
def test_nside_changes_in_harmonic_space(before, after, tmp_path):
    """A map whose multipoles both grids carry is sampled anew; eight iterations make up for the coarser grid."""
    alm = random_alm(24, 1.0, 0)
    source = Channels(synthesis(alm, before, 24)[None].repeat(2, axis=0), VelocityAxis.uniform(0.0, 1.0, 2))
    sky = prepare(tmp_path, config_for(source, nside=after, iterations=8), source)
    expected = synthesis(alm, after, 24)
    assert np.abs(sky.inputs[:, 1] - expected).max() < 2e-5 * expected.std()


def test_a_common_beam_smooths_each_map_by_what_it_lacks(tmp_path):
    source = random_channels(nside=32, count=2, beam_arcmin=300.0)
    config = config_for(source, beam_arcmin=500.0, iterations=3)
    sky = prepare(tmp_path, config, source, beam_arcmin=400.0)
    ratio = [gaussian_beam(64, 500.0) / gaussian_beam(64, beam) for beam in (300.0, 400.0)]
    for values, gain in zip((sky.inputs[:, 0], sky.target), ratio, strict=True):
        expected = gain**2 * spectrum(source.maps[0], lmax=64)
        np.testing.assert_allclose(spectrum(values.astype(np.float64), lmax=64)[2:40], expected[2:40], rtol=1e-3)
    assert sky.provenance["maps"]["inputs"]["beam_arcmin"] == 500.0


def test_the_pixel_window_is_kept_or_matched():
    kind = MapKind("map", 64, None)
    keep = design_filter(FilterConfig(nside=32, butterworth_ell=0.0), kind)
    match = design_filter(FilterConfig(nside=32, butterworth_ell=0.0, pixel_window="match"), kind)
    assert (keep.gain == 1).all() and keep.lmax == 64
    np.testing.assert_allclose(match.gain, pixel_window(32, 64) / pixel_window(64, 64))
    assert (match.gain <= 1).all() and match.gain[64] < 0.9


@pytest.mark.parametrize("ell", [8, 16, 32])
def test_the_pixel_window_is_what_averaging_does_to_waves_of_one_multipole(ell):
    chosen, order = alm_index(32)
    waves = np.where(chosen == ell, np.exp(2j * np.pi * np.random.default_rng(0).random((20, chosen.size))), 0)
    waves[:, order == 0] = waves[:, order == 0].real
    maps = synthesis(waves, 128, 32)
    averaged = maps.reshape(20, 12 * 16**2, -1).mean(axis=-1)
    # Averages over 64 centres are themselves 1 / 64 of the pixel's spread short of the whole window.
    assert np.sqrt(np.mean(averaged**2) / np.mean(maps**2)) == pytest.approx(pixel_window(16, 32)[ell], abs=3e-3)


@pytest.mark.parametrize("frame", ["C", "E"])
def test_frames_are_rotated_like_healpy_does(frame, tmp_path):
    alm = random_alm(20, 1.0, 3)
    expected = healpy.Rotator(coord=[frame, "G"]).rotate_alm(alm.copy(), lmax=20)
    np.testing.assert_allclose(rotate_to_galactic(alm[None].copy(), 20, frame)[0], expected, atol=1e-12)
    source = random_channels(count=2)
    sources = made_sources(tmp_path, source)
    write_map(tmp_path / "dust.fits", synthesis(alm, 16, 20), coord=frame)
    write_survey(tmp_path / "one.zarr", config_for(source, iterations=8), sources)
    sky = open_store(tmp_path / "one.zarr")
    np.testing.assert_allclose(sky.target, synthesis(expected, 16, 20), atol=2e-5 * sky.target.std())


def test_gains_multiply_by_multipole():
    gain = np.random.default_rng(0).random(7)
    alm = np.ones((2, alm_size(6)), complex)
    np.testing.assert_array_equal(multiply(alm, gain)[1], gain[alm_index(6)[0]])


# ---- gaps and masks


def test_gaps_are_filled_for_the_transform_and_masked_in_the_store(tmp_path):
    source = random_channels(nside=16)
    hole = disc(HealpixGrid(16), 120.0, 40.0, 6.0)
    source.maps[4, hole] = np.nan
    sky = prepare(tmp_path, config_for(source, max_missing=0.02), source)
    np.testing.assert_array_equal(sky.components["mask"], ~hole)
    assert sky.provenance["filled"] == {"channel-0004": int(hole.sum())}
    np.testing.assert_array_equal(sky.inputs[~hole, 4], source.maps[4, ~hole].astype(np.float32))
    assert np.isfinite(sky.inputs).all()
    assert np.abs(sky.inputs[hole, 4]).max() < 2 * np.nanstd(source.maps[4])


def test_the_mask_is_regraded_apodized_stored_and_applied(tmp_path):
    source = random_channels(nside=16)
    keep = ~disc(HealpixGrid(32), 0.0, 0.0, 40.0)
    write_map(tmp_path / "mask.fits", keep.astype(float), unit="1")
    config = config_for(source)
    config.mask = SurveyMask("mask.fits", apodization=10.0, apply=True)
    data = DataConfig("masked", "survey", str(tmp_path / "s"), folder=str(tmp_path), survey=config)
    write_hpx_tables(tmp_path, SKY)
    write_map(tmp_path / "dust.fits", source.maps[0])
    config.cube = CubeConfig(pattern="HPX_*.fits", nside=16, velocity=RANGE)
    sky = open_store(prepare_survey(data))
    weight = sky.components["mask"]
    middle = disc(HealpixGrid(16), 0.0, 0.0, 38.0)
    assert (weight[middle] == 0).all() and (weight[~disc(HealpixGrid(16), 0.0, 0.0, 54.0)] == 1).all()
    assert ((weight > 0) & (weight < 1)).any()
    np.testing.assert_allclose(sky.inputs, SKY.channels(16, CENTRES).astype(np.float32) * weight[:, None], atol=1e-6)
    np.testing.assert_allclose(sky.target, source.maps[0] * weight, atol=1e-6)


def test_units_are_converted(tmp_path):
    # Planck 2013 IX, table 6 (353 GHz, no band): 1 K_CMB is 297 MJy/sr at 353 GHz; 1 K_RJ = 3.07e-2 nu^2[GHz] kJy/sr.
    assert conversion_factor("K_CMB", "MJy/sr", 353.0) == pytest.approx(297, rel=0.01)
    assert conversion_factor("uK_RJ", "MJy/sr", 545.0) == pytest.approx(1e-6 * 3.0724e-2 * 545**2, rel=1e-3)
    assert conversion_factor("mK", "K") == 1e-3
    at = 150 * units.GHz
    intensity = (1 * units.uK).to(units.MJy / units.sr, units.brightness_temperature(at))
    thermodynamic = intensity.to_value(units.uK, units.thermodynamic_temperature(at, 2.7255 * units.K))
    assert conversion_factor("uK_RJ", "uK_CMB", 150.0) == pytest.approx(thermodynamic, rel=1e-12)
    source = random_channels(count=2)
    sky = prepare(tmp_path, config_for(source), source, convert_to="MJy/sr", frequency_ghz=545.0)
    assert sky.target_fields[0].unit == "MJy/sr"
    np.testing.assert_allclose(sky.target, source.maps[0] * conversion_factor("uK_RJ", "MJy/sr", 545.0), rtol=1e-5)


# ---- stopped and resumed


class Killed(BaseException):
    """Like SIGKILL, nobody may catch it."""


@pytest.mark.parametrize("last", [0, 3, 9])
def test_a_killed_preparation_goes_on_and_ends_in_the_same_bytes(last, tmp_path):
    source = random_channels(nside=16, count=11)
    config = config_for(source, butterworth_ell=12.0)
    sources = made_sources(tmp_path, source)
    write_survey(tmp_path / "whole.zarr", config, sources)

    def die(channel: int) -> None:
        if channel == last:
            raise Killed

    source.when_read = die
    with pytest.raises(Killed):
        write_survey(tmp_path / "cut.zarr", config, sources)
    assert not (tmp_path / "cut.zarr").exists()
    partial = tmp_path / ".cut.zarr.partial"
    (partial / "channel-0010.npy.scratch").write_bytes(b"half a map")
    (partial / "store").mkdir()
    read: list[int] = []
    source.when_read = read.append
    write_survey(tmp_path / "cut.zarr", config, sources)
    assert contents(tmp_path / "cut.zarr") == contents(tmp_path / "whole.zarr")
    assert min(read) == last // 8 * 8 and len(read) == 11 - min(read)
    assert not partial.exists()


def test_other_settings_or_files_are_another_store(tmp_path):
    write_hpx_tables(tmp_path, SKY)
    data = archive(tmp_path, cube=CubeConfig(pattern="HPX_*.fits", nside=16, velocity=RANGE))
    first = prepare_survey(data)
    assert prepare_survey(data) == first == store_path(data)
    other = replace(data, survey=replace(data.survey, filters=replace(PLAIN, butterworth_ell=9.0)))
    assert store_path(other) != first
    write_map(tmp_path / "dust.fits", np.ones(HealpixGrid(16).npix))
    assert store_path(data) != first


def test_two_processes_do_not_prepare_one_store(tmp_path):
    source = random_channels(count=3)
    sources, config = made_sources(tmp_path, source), config_for(source)
    seen: list[str] = []

    def again(channel: int) -> None:
        with pytest.raises(UserError) as caught:
            write_survey(tmp_path / "one.zarr", config, sources)
        seen.append(str(caught.value))

    source.when_read = again
    write_survey(tmp_path / "one.zarr", config, sources)
    assert len(seen) == 3 and "another process" in seen[0]


# ---- refusals


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"beam_arcmin": 100.0}, "300"),
        ({"pixel_window": "match", "nside": 32}, "pixel window"),
        ({"lmax": 100}, "lmax=100"),
        ({"max_missing": 0.0}, "have no data"),
    ],
)
def test_impossible_filters_are_refused_in_one_line(change, word, tmp_path):
    source = random_channels(count=2, beam_arcmin=300.0)
    if "max_missing" in change:
        source.maps[1, :5] = np.nan
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, config_for(source, **change), source, beam_arcmin=1.0)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_beam_that_is_not_known_is_not_changed(tmp_path):
    source = random_channels(count=2)
    with pytest.raises(UserError, match="beam of cube is not known"):
        prepare(tmp_path, config_for(source, beam_arcmin=600.0), source)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"velocity": [-400.0, 17.0]}, "beyond the velocity axis"),
        ({"velocity": [0.1, 0.2]}, "no channel"),
        ({"velocity": [-1.0, 1.0], "channel_width": 5.0}, "no channel of 5"),
        ({"pattern": "", "product": "hi4pi_cubes_healpix"}, "no file of hi4pi_cubes_healpix"),
        ({"pattern": "", "product": "hi4pi_cubes_car"}, "0 of 162 files"),
        ({"pattern": "", "product": "real_sky_dust"}, "reader"),
        ({"pattern": "*.none"}, "no file"),
        ({"nside": 32}, "Nside 16"),
    ],
)
def test_cubes_that_cannot_be_are_refused_in_one_line(change, word, tmp_path, monkeypatch):
    monkeypatch.delenv("SPHEREML_REAL_SKY", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    # Under a name that no product has.
    write_hpx_tables(folder, SKY, layout=HpxLayout(files=1))[0].rename(folder / "TABLE.fits")
    write_map(folder / "dust_353_iqu_n64.fits", np.ones(12 * 16**2))
    cube = replace(CubeConfig(pattern="T*.fits", nside=16, velocity=RANGE), **change)
    with pytest.raises(UserError) as caught:
        prepare_survey(archive(folder, cube=cube))
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (SurveyMap("absent.fits"), "data fetch"),
        (SurveyMap("dust.fits", column="I_ML"), "no column I_ML"),
        (SurveyMap("dust.fits", unit="K"), "uK_RJ"),
        (SurveyMap("dust.fits", convert_to="MJy/sr"), "frequency_ghz"),
        (SurveyMap("dust.fits", convert_to="cm^-2"), "cannot become"),
    ],
)
def test_maps_that_cannot_be_are_refused_in_one_line(target, word, tmp_path):
    write_hpx_tables(tmp_path, SKY)
    cube = CubeConfig(pattern="HPX_*.fits", nside=16, velocity=RANGE)
    with pytest.raises(UserError) as caught:
        prepare_survey(archive(tmp_path, cube=cube, target=target))
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cube": CubeConfig()}, "product or a pattern"),
        ({"cube": CubeConfig(pattern="*", reader="x")}, "cube.reader"),
        ({"cube": CubeConfig(pattern="*", velocity=[3.0, 1.0])}, "cube.velocity"),
        ({"cube": CubeConfig(pattern="*", context=[3.0])}, "cube.context"),
        ({"target": SurveyMap()}, "target.file"),
        ({"filters": FilterConfig(nside=12)}, "filters.nside"),
        ({"filters": FilterConfig(pixel_window="divide")}, "pixel_window"),
        ({"filters": FilterConfig(butterworth_order=0.0)}, "butterworth_order"),
        ({"filters": FilterConfig(max_missing=1.0)}, "max_missing"),
        ({"mask": SurveyMask("m.fits", apodization=-1.0)}, "mask.apodization"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(change, word):
    config = SurveyConfig(CubeConfig(pattern="*"), SurveyMap("dust.fits"))
    check_survey(config)
    with pytest.raises(UserError) as caught:
        check_survey(replace(config, **change))
    assert word in str(caught.value) and "\n" not in str(caught.value)


# ---- the command line


def test_the_command_line_prepares_a_survey(tmp_path):
    write_hpx_tables(tmp_path, SKY)
    write_map(tmp_path / "dust.fits", ring_to_nest(np.ones(12 * 16**2)))
    words = ["data=hi4pi_planck", f"data.folder={tmp_path}", f"data.stores={tmp_path / 'stores'}"]
    words += ["data.survey.cube.product=''", "data.survey.cube.pattern=HPX_*.fits", "data.survey.cube.nside=16"]
    words += [f"data.survey.cube.velocity=[{RANGE[0]},{RANGE[1]}]", "data.survey.mask=null"]
    words += ["data.survey.target.file=dust.fits", "data.survey.target.column='0'", "data.survey.filters.nside=16"]
    answer = sphereml("data", "prepare", *words)
    assert answer.code == 0, answer.err
    assert "7 channels in K" in answer.out and "Nside 16" in answer.out
    assert answer.out.endswith(sphereml("data", "prepare", *words).out)  # made once, said twice
