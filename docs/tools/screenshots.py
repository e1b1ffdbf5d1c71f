"""Draws the report's pictures of the documentation: `python -m docs.tools.screenshots REPORT docs/images`.

REPORT is the folder `report` that `make demo` writes. Needs selenium (requirements-dev.txt), Chromium and its driver.
"""

import argparse
import base64
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from selenium import webdriver

EVENT, DARK_EVENT = "events/3_demo_landslide.html", "events/4_demo_fire.html"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-sync",
)


class Picture(NamedTuple):
    """One picture of a page."""

    name: str
    page: str
    width: int  # of the browser's window, pixels
    height: int
    dark: bool = False
    panel: str = ""  # CSS selector: only this element


PICTURES = (
    Picture("report", EVENT, 1200, 830),
    Picture("report_overview", "index.html", 1200, 1250),
    Picture("report_region", DARK_EVENT, 1250, 2400, panel="section:has(#regions)"),
    Picture("report_phone", EVENT, 390, 900),
    Picture("report_dark", DARK_EVENT, 1000, 833, dark=True),
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a driver of a headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        yield driver
        driver.quit()


def take(driver: Any, report: Path, picture: Picture) -> bytes:
    """Open a page and return the picture as PNG."""
    size = {"width": picture.width, "height": picture.height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if picture.dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get((report / picture.page).absolute().as_uri())
    driver.implicitly_wait(30)
    driver.find_element("css selector", "body[data-ready], .overview")
    if picture.panel:
        return base64.b64decode(driver.find_element("css selector", picture.panel).screenshot_as_base64)
    return bytes(driver.get_screenshot_as_png())


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="folder of the report")
    parser.add_argument("output", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    with chromium() as driver:
        for picture in PICTURES:
            (args.output / f"{picture.name}.png").write_bytes(take(driver, args.report, picture))


if __name__ == "__main__":
    main()
