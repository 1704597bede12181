"""The report: one file, complete, honest about what is absent; and the figures that go into it."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fixtures_browser import needs_chromium, open_page

from sphereml.data.whole_files import sealed_json
from sphereml.errors import UserError
from sphereml.evaluation.maps.comparison import Comparison
from sphereml.plotting import maps, scatter, spectra, style
from sphereml.plotting.colours import ColourScale, residual_scale, spread_ticks
from sphereml.plotting.mollweide import sample_mollweide

VOID = {"meta", "img", "br", "source", "input"}


def report(folder: Path) -> Path:
    return Comparison.load(folder).report(folder)


def model(domain: str, r50: float, r150: float | None, **more) -> dict:
    band = None if r150 is None else {"mean": r150, "sem": 0.004}
    wins = {"r50": 120, "r150": 180, "of": 200}
    return {"domain": domain, "r50": {"mean": r50, "sem": 0.003}, "r150": band, "wins_vs_integrated": wins, **more}


@pytest.fixture
def comparison() -> dict:
    return {
        "split": "north trains, south tests",
        "ell_bands": {"r_low": [2, 15], "r50": [14.4, 100], "r150": [100, 200]},
        "experiment": {"name": "dust_demo", "seed": 1, "nested": {"left": "out"}},
        "models": {
            "integrated": model("none", 0.81, 0.7, seconds_predict=0.1),
            "unet_sphere": model(
                "sphere", 0.95, 0.91, sphere={"r50": 0.96, "r150": 0.92, "r_low": 0.99}, seconds_train=126.0
            ),
        },
        "paired": {
            "unet_sphere": {
                "linear": {
                    "r50": {"mean": 0.02, "sem": 0.004, "sigmas": 5.0},
                    "r150": {"mean": -0.01, "sem": float("nan"), "sigmas": float("inf")},
                }
            }
        },
        "marginalization": {
            "bands": ["r50", "r150"],
            "models": {
                "unet_sphere": {
                    "power_left": [0.0123, 0.2],
                    "cmb_power": [0.999, 1.0],
                    "amplitude": 0.031,
                    "error": 4e-4,
                }
            },
        },
        "notes": ["r150 is clipped to ell <= 128 & <b>nothing else</b>"],
    }


@pytest.fixture
def folder(tmp_path, comparison):
    (tmp_path / "comparison.json").write_text(json.dumps(comparison))
    figure = maps.sky_map(np.arange(48.0), "ramp", "K")
    style.write_pair(figure, tmp_path / "figures" / "b_map.png", dpi=40)
    style.write_png(figure, tmp_path / "figures" / "a_other.png", dpi=40)
    (tmp_path / "figures" / "captions.json").write_text(json.dumps({"b_map": 'A "ramp" over the sky'}))
    return tmp_path


class Page(HTMLParser):
    """Checks that tags are balanced and gathers what a reader would load or see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links, self.addresses, self.images, self.words = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.links += [value for key, value in attrs if key in ("src", "srcset", "action")]
        self.addresses += [value for key, value in attrs if key == "href"]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_report_is_one_self_contained_file(folder):
    path = report(folder)
    text = path.read_text()
    page = Page(text)
    assert path == folder / "report.html"
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    # What it leads to lies beside it; nothing of that is needed to read it.
    assert page.addresses and all((folder / address).exists() for address in page.addresses)
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert [image["alt"] for image in page.images] == ['A "ramp" over the sky', "a other"]
    assert 'name="viewport"' in text


def test_report_shows_every_number(folder):
    words = " ".join(" ".join(Page(report(folder).read_text()).words).split())
    for shown in (
        "0.950 ± 0.003",
        "0.910",
        "120 / 200",
        "1.23 %",
        "99.9 %",
        "100 %",
        "0.0310 ± 0.0004",
        "5.0",
        "2.1 min",
    ):
        assert shown in words
    for shown in ("north trains, south tests", "dust_demo", "14.4 ≤ ℓ < 100", "<b>nothing else</b>", "−0.0100"):
        assert shown in words
    assert "nan" not in words.lower().replace("none", "") and "left out" not in words.split("This run")[1]


def test_minimal_comparison_is_enough(tmp_path):
    minimal = {
        "split": "s",
        "ell_bands": {"r50": [2, 30], "r150": None},
        "models": {"linear": model("none", 0.8, None)},
    }
    (tmp_path / "comparison.json").write_text(json.dumps(minimal))
    words = " ".join(Page(report(tmp_path).read_text()).words)
    assert "0.800" in words and "not resolved" in words
    assert "Figures" not in words and "marginalization" not in words


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("{not json", "cannot be read"),
        ("[1]", "no JSON object"),
        ('{"split": "s"}', "lacks ell_bands, models"),
        ('{"split": "s", "ell_bands": {}, "models": {}}', "names no model"),
        ('{"split": "s", "ell_bands": {}, "models": {"a": {"r50": {}}}}', "lacks r150 of model a"),
        ('{"split": "s", "ell_bands": {}, "models": {"a": 3}}', "lacks r50 of model a"),
    ],
)
def test_bad_comparison_is_refused(tmp_path, content, says):
    if content is not None:
        (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(UserError, match=says):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_broken_figure_is_refused_and_the_old_report_kept(folder):
    before = report(folder).read_bytes()
    (folder / "figures" / "cut.png").write_bytes(b"")
    with pytest.raises(UserError, match="no PNG"):
        report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_mollweide_puts_the_sky_where_it_belongs():
    """lon +90 left of the centre, north up, corners outside."""
    import healpy

    lon, lat = healpy.pix2ang(32, np.arange(12 * 32**2), nest=True, lonlat=True)
    height = 200
    lons, lats = sample_mollweide(lon, height), sample_mollweide(lat, height)
    assert abs(lons[height // 2, height // 2] - 90) < 2
    assert abs(lons[height // 2, 3 * height // 2] - 270) < 2
    assert lats[-2, height] > 80 and lats[1, height] < -80
    assert lons.mask[0, 0] and lons.mask[-1, -1]
    share = 1 - lons.mask.mean()
    assert share == pytest.approx(np.pi / 4, abs=0.005)
    area = np.average(np.abs(lats.compressed()) > 30)  # an equal-area projection keeps shares of the sky
    assert area == pytest.approx(0.5, abs=0.01)


def test_figures_are_repeatable_and_leave_matplotlib_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    ell = np.arange(2, 65)
    r = {"linear": (0.9 - ell / 400, 0.01 + 0 * ell), "mine": (0.95 - ell / 400, None)}
    score = {name: {"r50": np.linspace(0.5, 0.9, 20) + shift} for name, shift in (("integrated", 0), ("mine", 0.01))}
    sky = np.where(np.arange(48) < 5, np.nan, np.arange(48.0))

    def draw() -> list[bytes]:
        return [
            style.png(figure, dpi=20)
            for figure in (
                spectra.correlation_curves(ell, r, {"r50": (14.4, 100), "r150": (100, 200)}),
                spectra.power_curves(ell, {"target": (1.0 / ell**2, None), **r}, "K", reference="target"),
                scatter.band_scatter(score),
                maps.sky_map(sky, "sky", "K", region=sky > 20),
                maps.class_map(np.arange(48) % 3, ("a", "b", "c"), "classes"),
                maps.patch_row([np.ones((4, 4)), np.eye(4)], ["one", "two"], "K", width_deg=25),
            )
        ]

    assert draw() == draw()
    assert dict(matplotlib.rcParams) == before


def test_model_colours_are_stable_and_distinct():
    colours = style.model_colours(["unet_flat", "mine", "linear", "another"])
    assert len(set(colours.values())) == 4
    assert colours["linear"] == style.model_colours(["linear"])["linear"]


def test_a_scale_of_residuals_fits_the_tested_region():
    sky = np.r_[np.full(24, 100.0), np.linspace(-1, 1, 24)]
    assert residual_scale(sky, region=np.arange(48) >= 24).vmax == pytest.approx(1, abs=0.05)
    assert residual_scale(sky).vmax == 100


@pytest.mark.parametrize(("low", "high", "width"), [(3.0, 800.0, 20.0), (-80.0, 400.0, 10.0), (0.1, 0.9, 0.05)])
def test_a_stretched_colour_bar_has_several_ticks_apart(low, high, width):
    norm = ColourScale("inferno", low, high, "asinh", width).norm()
    ticks = spread_ticks(norm)
    assert 4 <= len(ticks) <= 9 and low <= ticks[0] and ticks[-1] <= high
    assert np.diff(norm(np.array(ticks))).min() > 0.1


def test_a_mask_of_two_values_has_two_colours():
    figure = maps.weight_map(np.arange(48) % 2, "mask")
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["left out (0)", "kept (1)"]
    assert len(maps.weight_map(np.linspace(0, 1, 48), "mask").axes) == 2


def test_a_dark_figure_has_light_ink_and_its_data_colours():
    from matplotlib.colors import to_hex

    figure = spectra.correlation_curves(np.arange(2, 30), {"linear": (np.linspace(0.9, 0.8, 28), None)})
    style.darken(figure)
    (axes,) = figure.axes
    assert to_hex(axes.get_facecolor()) == to_hex(figure.get_facecolor()) == "#16181b"
    assert axes.xaxis.label.get_color() == to_hex(axes.spines["left"].get_edgecolor()) or (
        to_hex(axes.xaxis.label.get_color()) == "#e6e7e9"
    )
    assert axes.lines[0].get_color() == style.MODEL_COLOURS["linear"]


def test_curves_in_the_page_carry_their_model(folder):
    names = ("linear", "unet_sphere")
    curves = {name: (np.linspace(0.9, 0.8, 28), np.full(28, 0.01)) for name in names}
    figure = spectra.correlation_curves(np.arange(2, 30), curves, {"r50": (2, 20)}, "held-out patches")
    drawn = style.inline_svg(figure)
    assert all(drawn.count(f'data-model="{name}"') == 4 for name in names)  # curve, errors, and two of the legend
    style.write_pair(figure, folder / "figures" / "r_flat.png", dpi=40)
    (folder / "figures" / "curves.json").write_bytes(sealed_json({"r_flat": drawn}))
    text = report(folder).read_text()
    assert len(Page(text).images) == 2 and text.count("<svg") == 1 and "http" not in text


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_in_a_browser(folder, tmp_path, width, dark):
    seen = open_page(report(folder), tmp_path, width, dark)
    assert seen.faults == [] and seen.missing == [] and seen.images == 2
    assert seen.overflow <= 0 and seen.buttons >= 4
