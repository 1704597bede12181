"""Pages as a browser lays them out: headless Chromium opens a file in a frame of a given width and says what it met."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
# Errors are gathered from the first line of the page on; the figures are counted when everything is loaded.
_WATCH = """<script>
var faults = [];
addEventListener("error", (event) => faults.push(event.message || "not loaded: " + event.target.src), true);
for (const name of ["error", "warn"]) console[name] = (...words) => faults.push(words.join(" "));
addEventListener("load", () => {
  const root = document.documentElement, images = Array.from(document.images);
  parent.postMessage(JSON.stringify({
    faults: faults, images: images.length, missing: images.filter((one) => !one.naturalWidth).map((one) => one.alt),
    overflow: root.scrollWidth - root.clientWidth, buttons: document.querySelectorAll("button").length,
  }), "*");
});
</script>"""
_FRAME = """<!DOCTYPE html><title>frame</title><iframe src="{page}" width="{width}" height="{height}"></iframe>
<style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<pre id="found"></pre>
<script>onmessage = (one) => {{ document.getElementById("found").textContent = one.data; }}</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser met: console errors, images that are missing, and pixels by which the page is too wide."""

    faults: list[str]
    images: int
    missing: list[str]
    overflow: int
    buttons: int


def open_page(page: Path, folder: Path, width: int, dark: bool = False) -> Seen:
    """Lay out a page in a frame of ``width`` pixels; ``folder`` takes the copies that it needs."""
    text = page.read_text()
    watched = page.with_name(f".watched-{page.name}")
    watched.write_text(text.replace("<head>", f"<head>{_WATCH}", 1))
    frame = folder / f"frame-{width}.html"
    frame.write_text(_FRAME.format(page=watched.resolve().as_uri(), width=width, height=900))
    try:
        answer = run_chromium(frame, "--dump-dom", dark=dark)
    finally:
        watched.unlink()
    found = re.search(r'<pre id="found">(.*?)</pre>', answer, flags=re.DOTALL)
    assert found and found[1], "the page never finished loading"
    return Seen(**json.loads(html.unescape(found[1])))


def screenshot(page: Path, picture: Path, width: int, height: int = 900, dark: bool = False) -> Path:
    """A picture of the top of a page in a frame of ``width`` pixels, for people."""
    frame = picture.with_suffix(".html")
    frame.write_text(_FRAME.format(page=page.resolve().as_uri(), width=width, height=height))
    run_chromium(frame, f"--screenshot={picture}", f"--window-size={max(width, 500)},{height}", dark=dark)
    frame.unlink()
    return picture


def run_chromium(page: Path, *options: str, dark: bool) -> str:
    """Standard output of headless Chromium on a local file, without network and without a profile of its user's."""
    assert CHROMIUM is not None
    colours = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    basic = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    place = ["--allow-file-access-from-files", "--virtual-time-budget=10000", f"--user-data-dir={page.parent}/profile"]
    words = [CHROMIUM, *basic, *place, *colours, *options, page.resolve().as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
