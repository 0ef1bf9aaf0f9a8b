"""The report in Debian's chromium: no script error, no violation of the page's policy, no request, on desk and phone.

Screenshots stay in the test's temporary folder, to be looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import report
from tests.unit import results_factory as factory
from tests.unit.hostile_factory import hostile

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which `make test` as root installs"),
]

DESK, PHONE = (1280, 2400), (390, 2400)
_CONTROL = (
    """<html class="js"><body>x<img src="http://127.0.0.1:9/x.png"><script>throw new Error("oh")</script>"""
)


class Browsed:
    """What the browser said of a page, and what it fetched for it."""

    def __init__(self, page: Path, folder: Path, *arguments: str) -> None:
        log = folder / "net.json"
        done = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                "--disable-component-update", "--disable-background-networking", "--disable-sync",
                "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={folder / 'profile'}",
                f"--log-net-log={log}", "--net-log-capture-mode=Everything", *arguments, page.as_uri(),
            ],
            capture_output=True, text=True, timeout=100, errors="replace",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.dom = done.stdout
        self.said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        self.requests = _requests(log.read_text(encoding="utf-8", errors="replace"))


def _requests(log: str) -> list[str]:
    """Addresses outside of the machine that a page asked for; what the browser asks for itself has other initiators."""
    events = json.loads(log)["events"]
    asked = [e["params"] for e in events if {"url", "initiator"} <= e.get("params", {}).keys()]
    return [
        p["url"] for p in asked if p["initiator"] in ("null", "file://") and not p["url"].startswith("file:")
    ]


@pytest.fixture(scope="module", params=["quickstart", "hostile"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report."""
    folder = tmp_path_factory.mktemp(request.param)
    campaign = factory.quickstart() if request.param == "quickstart" else hostile()
    return report.write(campaign.write(folder / "results.h5")).report_html


def test_the_browser_has_nothing_to_say_and_fetches_nothing(page: Path, tmp_path: Path) -> None:
    seen = Browsed(page, tmp_path, "--dump-dom", "--window-size=1280,2400")
    assert (seen.said, seen.requests) == ([], [])
    assert re.search(r'<html[^>]*class="js"', seen.dom)  # our script ran, under the page's own policy
    assert "data-pwned" not in seen.dom.split(">", 2)[1]


def test_a_page_that_does_both_is_noticed(tmp_path: Path) -> None:
    control = tmp_path / "control.html"
    control.write_text(_CONTROL, encoding="utf-8")
    seen = Browsed(control, tmp_path, "--dump-dom")
    assert len(seen.said) == 1 and "Uncaught Error: oh" in seen.said[0]
    assert seen.requests == ["http://127.0.0.1:9/x.png"]


WIDTH = "document.documentElement.scrollWidth"
NO_HINT = """[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1
  && /auto|scroll/.test(getComputedStyle(e).overflowX)).map(e =>
  getComputedStyle(e).backgroundAttachment == 'local, local, scroll, scroll' ? 'hint' : e.outerHTML.slice(0, 60))"""


def framed(page: Path, folder: Path, width: int, said: str = WIDTH) -> Path:
    """A copy of a page in a frame as wide as a phone, which the browser's own window cannot be; it tells its width."""
    tell = f"<script>addEventListener('load', () => parent.postMessage({said}, '*'))</script>"
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    (folder / "copy.html").write_text(source.replace("</body>", tell + "</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(
        "<script>addEventListener('message', e => { document.documentElement.dataset.wide = e.data })</script>"
        f"<body style='margin:0'><iframe src='copy.html' style='border:0;width:{width}px;height:2400px'></iframe>",
        encoding="utf-8",
    )
    return frame


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_page_is_wider_than_its_window(page: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    frame = framed(page, tmp_path, size[0])
    seen = Browsed(frame, tmp_path, "--dump-dom", "--window-size=1400,2400")
    assert re.findall(r'data-wide="(\d+)"', seen.dom) == [str(size[0])]
    shot = tmp_path / f"{size[0]}.png"
    Browsed(frame, tmp_path, f"--screenshot={shot}", f"--window-size={max(500, size[0])},{size[1]}")
    assert shot.stat().st_size > 30_000


def test_all_that_is_wider_than_a_phone_says_so_by_a_shadow(page: Path, tmp_path: Path) -> None:
    seen = Browsed(
        framed(page, tmp_path, PHONE[0], NO_HINT), tmp_path, "--dump-dom", "--window-size=1400,2400"
    )
    (found,) = re.findall(r'data-wide="([^"]*)"', seen.dom)
    assert set(found.split(",")) == {"hint"}


def test_dark_is_not_light(page: Path, tmp_path: Path) -> None:
    shots = []
    for name, arguments in (
        ("light", ()),
        ("dark", ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")),
    ):
        shots.append(tmp_path / f"{name}.png")
        Browsed(page, tmp_path, f"--screenshot={shots[-1]}", "--window-size=1280,1600", *arguments)
    light, dark = (shot.read_bytes() for shot in shots)
    assert light != dark
