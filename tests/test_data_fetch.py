"""Products from a server on loopback that fails in every way the archives do, into a checked data folder."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from fixtures_cli import Outcome, files_below, sphereml

from sphereml.data import acquisition, downloads
from sphereml.data.fetch import Request, fetch_products
from sphereml.data.holdings import Holdings
from sphereml.data.manifests import ProductFile, find_products, list_products
from sphereml.data.whole_files import read_sealed_json
from sphereml.errors import UserError

# ---- the archives' files, small


def as_bytes(hdus: fits.HDUList) -> bytes:
    stream = BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def column_table(nside: int = 16, scale: float = 1e20) -> bytes:
    """Like HI4PI's NHI_HPX.fits: a row for each pixel, NHI the sixth column."""
    npix = 12 * nside**2
    values = {name: np.zeros(npix) for name in ("RA2000", "DE2000", "GLON", "GLAT")}
    names = {"HPXINDEX": np.arange(npix), **values, "NHI": scale * np.arange(1.0, npix + 1)}
    columns = [fits.Column(name, "K" if name == "HPXINDEX" else "D", array=array) for name, array in names.items()]
    return as_bytes(fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]))


def car_tile(seed: int, size: int = 60, channels: int = 16) -> bytes:
    """Like a tile of HI4PI's plate-carree cubes, 230 kB."""
    cube = np.random.default_rng(seed).standard_normal((channels, size, size), dtype=np.float32)
    hdu = fits.PrimaryHDU(cube)
    hdu.header.update(CTYPE1="GLON-CAR", CTYPE2="GLAT-CAR", CTYPE3="VRAD", BUNIT="K", CDELT3=1288.21496)
    return as_bytes(fits.HDUList([hdu]))


TILE, NEWER = car_tile(1), car_tile(2)
assert len(TILE) == len(NEWER), "the length alone must not tell versions apart"
HALF = len(TILE) // 2


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# ---- the server


@dataclass
class Served:
    """One address: its content, and how the server misbehaves."""

    content: bytes
    status: int = 200
    etag: str = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next answers ends
    ignores_range: bool = False
    ignores_if_range: bool = False
    states_length: bool = True
    midway: Callable[[], None] | None = None  # called once, where the next answer is cut


@dataclass
class Site:
    """What is served under each path, and what was asked: (path, Range header, bytes sent)."""

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    log: list[tuple[str, str | None, int]] = field(default_factory=list)

    def serve(self, path: str, content: bytes, **traits: object) -> Served:
        self.files[path] = Served(content, **traits)  # type: ignore[arg-type]
        return self.files[path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        served = self.site.files.get(path)
        if served is None or served.status != 200:
            self.send_error(served.status if served else 404)
            self.site.log.append((path, self.headers["Range"], 0))
            return
        start = self._start(served)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        body = served.content[start:]
        headers = {"Content-Length": str(len(body))} if served.states_length else {}
        headers |= {"ETag": served.etag} if served.etag else {}
        for name, value in (headers | served.headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = body[: served.cuts.pop(0)] if served.cuts else body
        self.site.log.append((path, self.headers["Range"], len(sent)))
        self.wfile.write(sent)
        self.wfile.flush()
        if served.midway:
            call, served.midway = served.midway, None
            call()

    def _start(self, served: Served) -> int:
        asked = self.headers["Range"]
        same = served.ignores_if_range or self.headers["If-Range"] == served.etag
        return int(asked[len("bytes=") : -1]) if asked and same and not served.ignores_range else 0

    def log_message(self, *words: object) -> None:
        """Nothing on the tests' error stream."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    handler = type("BoundHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.site = Site(f"http://127.0.0.1:{server.server_address[1]}/")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(downloads, "PAUSE", 0.01)
        yield handler.site
        server.shutdown()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


# ---- a place to fetch to


@dataclass
class Place:
    """A data folder, a folder of manifests, and the program run on them."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "data"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    def describe(self, product: str = "p", **file: object) -> None:
        """A manifest of one product with one entry."""
        entry = {"name": "tile.fits", "unit": "K"} | file
        described = {"name": product, "title": "t", "licence": "l", "citation": "c", "frame": "G", "reader": "car_cube"}
        self.manifests.mkdir(exist_ok=True)
        text = yaml.safe_dump({"products": [described | {"files": [entry]}]})
        (self.manifests / f"{product}.yaml").write_text(text)

    def data(self, action: str, *words: str | Path) -> Outcome:
        place = "--to" if action == "fetch" else "--in"
        return sphereml("data", action, *words, place, self.folder, "--manifests", self.manifests)

    def fetch(self, *words: str | Path) -> Outcome:
        return self.data("fetch", "p", *words)

    def files(self) -> set[str]:
        return files_below(self.folder) if self.folder.exists() else set()

    def pins(self) -> dict[str, dict[str, object]]:
        return read_sealed_json(self.folder / "checksums.json")

    def holds(self, content: bytes, name: str = "tile.fits") -> bool:
        """The file is there, right, pinned, and nothing is left beside it."""
        assert self.files() == {name, "checksums.json"}
        assert self.pins()[name]["size"] == len(content)
        return (self.folder / name).read_bytes() == content


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for variable in ("SPHEREML_REAL_SKY", "SPHEREML_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Place(tmp_path)


def succeeds(outcome: Outcome) -> str:
    assert outcome.code == 0 and not outcome.err, outcome
    return outcome.out


# ---- mirrors


def test_mirrors_are_tried_in_order_and_each_failure_is_one_line(place: Place, site: Site, closed_port: str) -> None:
    site.serve("broken", b"", status=500)
    site.serve("right", TILE)
    place.describe(urls=[f"{site.url}broken", f"{closed_port}tile", f"{site.url}gone", f"{site.url}right"])
    said = succeeds(place.fetch()).splitlines()
    assert place.holds(TILE)
    failures = [line for line in said if "next mirror" in line]
    assert [word in line for word, line in zip(("HTTP 500", "refused", "HTTP 404"), failures, strict=True)] == [
        True
    ] * 3
    assert place.pins()["tile.fits"] == {
        "checksum": sha256(TILE),
        "size": len(TILE),
        "source": f"{site.url}right",
    }


def test_no_mirror_is_a_clear_message(place: Place, site: Site, closed_port: str) -> None:
    site.serve("broken", b"", status=503)
    place.describe(urls=[f"{site.url}broken", f"{closed_port}tile"])
    refusal = place.fetch().refusal
    assert "tile.fits" in refusal and "HTTP 503" in refusal and "refused" in refusal and "--from" in refusal
    assert not place.files()


def test_no_network_and_offline(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"])
    assert "--offline" in place.fetch("--offline").refusal
    assert not site.log and not place.files()
    succeeds(place.fetch())
    assert "1 present" in succeeds(place.fetch("--offline"))
    place.describe("q", urls=["http://no-such-host.invalid/tile.fits"])
    (place.folder / "tile.fits").unlink()
    assert "the host is not found" in place.data("fetch", "q").refusal or "proxy" in place.data("fetch", "q").refusal


# ---- cuts and resuming


def test_a_cut_download_resumes_by_range(place: Place, site: Site) -> None:
    site.serve("tile", TILE, cuts=[HALF])
    place.describe(urls=[f"{site.url}tile"])
    succeeds(place.fetch())
    assert place.holds(TILE)
    assert site.log == [("tile", None, HALF), ("tile", f"bytes={HALF}-", len(TILE) - HALF)]


def test_many_cuts_that_each_bring_the_file_further(place: Place, site: Site) -> None:
    step = len(TILE) // 10
    site.serve("tile", TILE, cuts=[step] * 9)
    place.describe(urls=[f"{site.url}tile"])
    succeeds(place.fetch())
    assert place.holds(TILE) and sum(sent for *_, sent in site.log) == len(TILE)


def cut_once(place: Place, site: Site, monkeypatch: pytest.MonkeyPatch, **traits: object) -> Served:
    """Leave half the tile behind, as a connection that dies does."""
    served = site.serve("tile", TILE, cuts=[HALF], **traits)
    place.describe(urls=[f"{site.url}tile"])
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "ATTEMPTS", 0)
        assert f"cut (bytes are missing), {HALF} bytes are here" in place.fetch().refusal
    assert place.files() == {"tile.fits.partial", "tile.fits.partial.json"}
    site.log.clear()
    return served


def test_another_day_only_the_missing_bytes_come(place, site, monkeypatch) -> None:
    cut_once(place, site, monkeypatch)
    succeeds(place.fetch())
    assert place.holds(TILE) and site.log == [("tile", f"bytes={HALF}-", len(TILE) - HALF)]


def test_last_modified_serves_where_there_is_no_strong_etag(place, site, monkeypatch) -> None:
    date = {"Last-Modified": "Sat, 21 Nov 2026 13:00:00 GMT"}
    cut_once(place, site, monkeypatch, etag='W/"weak"', headers=date, ignores_if_range=True)
    succeeds(place.fetch())
    assert place.holds(TILE) and site.log == [("tile", f"bytes={HALF}-", len(TILE) - HALF)]


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_that_changed_on_the_server_is_never_spliced(place, site, monkeypatch, ignores_if_range) -> None:
    served = cut_once(place, site, monkeypatch, ignores_if_range=ignores_if_range)
    served.content, served.etag = NEWER, '"two"'
    assert "another version" in succeeds(place.fetch()) or ignores_if_range
    assert place.holds(NEWER) and site.log[-1][2] == len(NEWER)


@pytest.mark.parametrize("traits", [{"ignores_range": True}, {"etag": "", "ignores_if_range": True}])
def test_a_server_that_cannot_resume_starts_anew(place, site, monkeypatch, traits) -> None:
    cut_once(place, site, monkeypatch, **traits)
    assert "begin anew" in succeeds(place.fetch())
    assert place.holds(TILE) and [sent for *_, sent in site.log] == [len(TILE)]


def test_a_server_that_always_cuts_is_given_up(place: Place, site: Site) -> None:
    site.serve("tile", TILE, cuts=[HALF] * 99, ignores_range=True)
    place.describe(urls=[f"{site.url}tile"])
    assert "connection was cut" in place.fetch().refusal and len(site.log) == 1 + downloads.ATTEMPTS


def test_a_login_page_does_not_cost_what_is_here(place, site, monkeypatch) -> None:
    served = cut_once(place, site, monkeypatch)
    served.content, served.etag = b"<html>Please log in</html>", '"page"'
    assert "web page" in place.fetch().refusal
    assert (place.folder / "tile.fits.partial").read_bytes() == TILE[:HALF]
    served.content, served.etag = TILE, '"one"'
    succeeds(place.fetch())
    assert place.holds(TILE)


def test_the_mirror_that_began_goes_on(place, site, monkeypatch, closed_port) -> None:
    cut_once(place, site, monkeypatch)
    site.serve("first", TILE)
    place.describe(urls=[f"{site.url}first", f"{site.url}tile"])
    succeeds(place.fetch())
    assert place.holds(TILE) and site.log == [("tile", f"bytes={HALF}-", len(TILE) - HALF)]


def test_a_resumed_file_that_is_wrong_comes_once_more(place, site, monkeypatch) -> None:
    cut_once(place, site, monkeypatch)
    place.describe(urls=[f"{site.url}tile"], checksum=sha256(TILE))
    with (place.folder / "tile.fits.partial").open("r+b") as damaged:
        damaged.seek(HALF - 9)
        damaged.write(b"rot")
    assert "from the start" in succeeds(place.fetch())
    assert place.holds(TILE)


def test_ctrl_c_keeps_what_came(place: Place, site: Site) -> None:
    # A shell that starts the tests in the background leaves Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        partial = place.folder / "tile.fits.partial"
        while not (partial.exists() and partial.stat().st_size):
            threading.Event().wait(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Event().wait(0.2)

    site.serve("tile", TILE, cuts=[HALF], midway=interrupt)
    place.describe(urls=[f"{site.url}tile"])
    outcome = place.fetch()
    assert outcome.code == 130 and "goes on where it stopped" in outcome.out
    assert "tile.fits" not in place.files()
    kept = (place.folder / "tile.fits.partial").read_bytes()
    assert kept and TILE.startswith(kept)
    site.log.clear()
    succeeds(place.fetch())
    assert place.holds(TILE) and site.log[0][1] == f"bytes={len(kept)}-"


# ---- checksums and content


def test_a_wrong_checksum_sends_to_the_next_mirror(place: Place, site: Site) -> None:
    site.serve("wrong", NEWER)
    site.serve("right", TILE)
    place.describe(urls=[f"{site.url}wrong", f"{site.url}right"], checksum=sha256(TILE))
    assert sha256(NEWER) in succeeds(place.fetch())
    assert place.holds(TILE)


def test_a_wrong_checksum_everywhere_is_refused(place: Place, site: Site) -> None:
    site.serve("tile", NEWER)
    place.describe(urls=[f"{site.url}tile"], checksum=sha256(TILE))
    for words in ([], ["--accept-changed"]):
        refusal = place.fetch(*words).refusal
        assert sha256(NEWER) in refusal and sha256(TILE) in refusal
        assert not place.files()


def test_a_provisional_checksum_is_the_users_to_accept(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    provisional = f"md5:{'0' * 32}"
    place.describe(urls=[f"{site.url}tile"], checksum=provisional, checksum_provisional=True)
    refusal = place.fetch().refusal
    got = f"md5:{hashlib.md5(TILE).hexdigest()}"
    assert got in refusal and provisional in refusal and "--accept-changed" in refusal
    assert "tile.fits" not in place.files()
    succeeds(place.fetch("--accept-changed"))
    assert place.holds(TILE) and len(site.log) == 1, "what was downloaded is not downloaded again"
    assert place.pins()["tile.fits"]["checksum"] == got
    assert "nothing wrong" in succeeds(place.data("verify", "p"))


def test_an_unknown_checksum_is_pinned_at_the_first_download(place: Place, site: Site) -> None:
    served = site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"])
    succeeds(place.fetch())
    (place.folder / "tile.fits").unlink()
    served.content, served.etag = NEWER, '"two"'
    refusal = place.fetch().refusal
    assert sha256(NEWER) in refusal and f"the pinned {sha256(TILE)}" in refusal
    succeeds(place.fetch("--accept-changed"))
    assert place.holds(NEWER)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("map.fits", b"<!DOCTYPE html><title>Not found</title>", "web page"),
        ("map.fits", b"\n <html></html>", "web page"),
        ("map.fits", b"some words", "not a FITS file"),
        ("map.fits", b"", "not a FITS file"),
        ("map.fits.gz", column_table(2), "not gzipped"),
        ("map.fits.gz", gzip.compress(b"some words", mtime=0), "not a FITS file"),
        ("map.fits.gz", b"<html></html>", "web page"),
    ],
)
def test_a_page_in_place_of_the_file_is_refused(place: Place, site: Site, name, content, words) -> None:
    site.serve("map", content)
    place.describe(name=name, urls=[f"{site.url}map"])
    assert words in place.fetch().refusal and not place.files()


def test_a_gzipped_map_stays_the_archives_file(place: Place, site: Site) -> None:
    content = gzip.compress(column_table())
    site.serve("map", content, headers={"Content-Encoding": "x-gzip"}, cuts=[len(content) // 2])
    place.describe(name="NHI_HPX.fits.gz", unit="cm^-2", urls=[f"{site.url}map"])
    succeeds(place.fetch())
    assert place.holds(content, "NHI_HPX.fits.gz")
    with fits.open(place.folder / "NHI_HPX.fits.gz") as hdus:
        assert hdus[1].columns.names[5] == "NHI"


def test_sizes_are_checked(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"], size=len(TILE) + 2880)
    refusal = place.fetch().refusal
    assert str(len(TILE)) in refusal and str(len(TILE) + 2880) in refusal
    place.describe(urls=[f"{site.url}tile"], size=len(TILE))
    succeeds(place.fetch())
    assert place.holds(TILE)


def test_without_a_length_a_cut_must_be_noticeable(place: Place, site: Site) -> None:
    site.serve("tile", TILE, states_length=False)
    place.describe(urls=[f"{site.url}tile"])
    assert "no length" in place.fetch().refusal and not place.files()
    place.describe(urls=[f"{site.url}tile"], checksum=sha256(TILE))
    succeeds(place.fetch())
    assert place.holds(TILE)


# ---- many at once


class Silent:
    def say(self, line: str) -> None: ...

    def show(self, name: str, done: int, total: int | None) -> None: ...


def run_fetch(place: Place) -> None:
    fetch_products(find_products(["p"], place.manifests), Request(Holdings(place.folder)), Silent())


@pytest.mark.parametrize("kind", [threading.Thread, multiprocessing.get_context("fork").Process])
def test_two_who_want_the_same_file_download_it_once(place: Place, site: Site, kind) -> None:
    site.serve("tile", TILE, cuts=[HALF, len(TILE)], midway=lambda: threading.Event().wait(0.3))
    place.describe(urls=[f"{site.url}tile"])
    both = [kind(target=run_fetch, args=(place,)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(20)
    assert place.holds(TILE) and sum(sent for *_, sent in site.log) == len(TILE)


def test_tiles_come_in_parallel_and_one_that_fails_keeps_no_other(place: Place, site: Site) -> None:
    tiles = {f"CAR_{letter}{number:02d}.fits": car_tile(7 * number, 20, 4) for letter in "AB" for number in range(1, 4)}
    for name, content in tiles.items():
        site.serve(f"car/{name}", content)
    site.files["car/CAR_B02.fits"].status = 500
    place.describe(name="CAR_{A..B}{01..03}.fits", urls=[f"{site.url}car/"])
    refusal = place.fetch("--jobs", "3").refusal
    assert "CAR_B02.fits" in refusal
    assert place.files() == {*tiles, "checksums.json"} - {"CAR_B02.fits"} and len(place.pins()) == 5
    site.files["car/CAR_B02.fits"].status = 200
    assert "1 downloaded, 5 present" in succeeds(place.fetch())
    assert all((place.folder / name).read_bytes() == content for name, content in tiles.items())


# ---- adoption


def test_files_the_user_has_are_adopted_never_moved(place: Place, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "tile.fits").write_bytes(TILE)
    place.describe(urls=["http://no-such-host.invalid/tile"], checksum=sha256(TILE))
    assert "1 adopted" in succeeds(place.fetch("--from", own, "--offline"))
    assert place.holds(TILE) and (own / "tile.fits").read_bytes() == TILE
    assert "1 present" in succeeds(place.fetch("--from", tmp_path))
    assert (place.folder / "tile.fits").samefile(own / "tile.fits"), "one disc: one copy"


def test_adoption_copies_where_it_cannot_link(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object) -> None:
        raise OSError("another disc")

    (tmp_path / "tile.fits").write_bytes(TILE)
    place.describe()
    monkeypatch.setattr(acquisition.os, "link", refuse)
    succeeds(place.fetch("--from", tmp_path))
    assert place.holds(TILE) and not (place.folder / "tile.fits").samefile(tmp_path / "tile.fits")


def test_a_wrong_copy_is_not_adopted(place: Place, tmp_path: Path) -> None:
    (tmp_path / "tile.fits").write_bytes(NEWER)
    place.describe(checksum=sha256(TILE))
    assert sha256(NEWER) in place.fetch("--from", tmp_path).refusal
    assert not place.files() and (tmp_path / "tile.fits").exists()
    assert "no-folder" in place.fetch("--from", tmp_path / "no-folder").refusal
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "tile.fits" in place.fetch("--from", empty).refusal


def test_files_of_an_unknown_folder_are_adopted_by_glob(place: Place, tmp_path: Path) -> None:
    place.describe(name="HPX_*.fits")
    refusal = place.fetch().refusal
    assert "folder at the archive" in refusal and "--from" in refusal
    own = tmp_path / "own"
    own.mkdir()
    for number in range(3):
        (own / f"HPX_{number:03d}.fits").write_bytes(column_table(2, number + 1.0))
    assert "3 adopted" in succeeds(place.fetch("--from", own))
    assert "3 files, nothing wrong" in succeeds(place.data("verify", "p"))
    assert "3 present" in succeeds(place.fetch())


# ---- what is here


def test_list_and_verify_say_what_is_here(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"])
    assert "no file of any product" in succeeds(place.data("verify"))
    assert "not here" in place.data("verify", "p").refusal
    succeeds(place.fetch())
    assert "all" in succeeds(place.data("list")) and "right" in succeeds(place.data("verify"))
    with (place.folder / "tile.fits").open("r+b") as damaged:
        damaged.seek(HALF)
        damaged.write(b"rot")
    refusal = place.data("verify").refusal
    assert "the pinned" in refusal and str(place.folder / "tile.fits") in refusal


def test_a_file_put_there_by_hand_is_checked_and_pinned(place: Place) -> None:
    place.describe()
    place.folder.mkdir()
    (place.folder / "tile.fits").write_bytes(TILE)
    assert "no checksum is known" in succeeds(place.data("verify", "p"))
    assert "1 present" in succeeds(place.fetch())
    assert place.holds(TILE)
    (place.folder / "tile.fits").write_bytes(TILE[:HALF])
    assert "the pinned" in place.fetch().refusal


def test_the_sample_is_verified_where_it_lies(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = tmp_path / "sample"
    sample.mkdir()
    (sample / "tile.fits").write_bytes(TILE)
    place.describe(checksum=sha256(TILE))
    assert "address of tile.fits is not known" in place.fetch().refusal
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(sample))
    assert "nothing wrong" in succeeds(place.data("verify", "p"))
    assert "1 present" in succeeds(place.fetch())
    assert files_below(sample) == {"tile.fits"}, "nothing is written there"


def test_the_data_folder_is_the_environments_or_the_cache(place: Place, tmp_path: Path, monkeypatch) -> None:
    place.describe()
    words = ("data", "list", "--manifests", place.manifests)
    assert str(tmp_path / "cache" / "sphereml") in sphereml(*words).out
    monkeypatch.setenv("SPHEREML_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere") in sphereml(*words).out


# ---- refusals before anything starts


def test_words_that_make_no_sense_are_refused(place: Place) -> None:
    place.describe("planets")
    assert "did you mean planets?" in place.data("fetch", "planet").refusal
    assert "did you mean planets?" in place.data("verify", "planet").refusal
    assert "--jobs" in place.data("fetch", "planets", "--jobs", "0").refusal
    assert "folder" in sphereml("data", "list", "--manifests", place.root / "none").refusal


def test_a_folder_that_cannot_be_written_or_has_no_room(place: Place, site: Site, monkeypatch) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"], size="~33 GiB")
    (place.root / "file").write_text("")
    assert (
        "cannot write"
        in sphereml("data", "fetch", "p", "--to", place.root / "file" / "x", "--manifests", place.manifests).refusal
    )
    usage = shutil.disk_usage(place.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    assert "33.0 GiB" in place.fetch().refusal and not site.log
    place.describe(urls=[f"{site.url}tile"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9))
    assert "room" in place.fetch().refusal and not place.files()


def test_what_stands_in_the_way_is_refused(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"])
    (place.folder / "tile.fits.partial").mkdir(parents=True)
    assert "cannot bring tile.fits" in place.fetch().refusal


def test_damaged_pins_are_refused(place: Place, site: Site) -> None:
    site.serve("tile", TILE)
    place.describe(urls=[f"{site.url}tile"])
    place.folder.mkdir()
    (place.folder / "checksums.json").write_text("{")
    assert "checksums.json is damaged" in place.fetch().refusal


# ---- names in manifests


def test_ranges_spell_every_name() -> None:
    files = {product.name: [one for file in product.files for one in file.each()] for product in list_products()}
    tiles = files["hi4pi_cubes_car"]
    assert len(tiles) == 162 and (tiles[0].name, tiles[-1].name) == ("CAR_A01.fits", "CAR_I18.fits")
    assert tiles[-1].urls[0].endswith("/CUBES/GAL/CAR/CAR_I18.fits")
    assert [one.is_glob for one in files["hi4pi_cubes_healpix"]] == [True]
    assert sum(file.bytes or 0 for file in tiles) == 162 * 250 * 2**20


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("CAR_{01..09}.fits", "https://x/CAR.fits"),
        ("CAR.fits", "https://x/"),
        ("CAR_*.fits", "https://x/"),
        ("CAR_{09..01}.fits", "https://x/"),
        ("../CAR.fits", "https://x/CAR.fits"),
    ],
)
def test_names_that_do_not_fit_their_addresses_are_refused(name: str, url: str) -> None:
    with pytest.raises(UserError):
        ProductFile(name=name, unit="K", urls=(url,))
