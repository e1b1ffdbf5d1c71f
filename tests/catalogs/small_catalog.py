"""A small catalog, runs of get_event.py against it, and what they must leave behind."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np

from tests.catalogs.made import ORIGIN, PIXEL, lonlat_box, make_item, write_cog
from tests.scripts import run_process

SIDE = 256  # pixels
WIDTH = SIDE * PIXEL  # metres
MONITOR = "2021-07-20"
HISTORICAL = ("2020-10-02", "2021-03-11", "2021-06-20")
DATES = (*HISTORICAL, MONITOR)
MANY_DATES = ("2020-07-15", "2020-08-20", *DATES)  # more than are fetched at once
FILES = ["anomaly_20210720.tif", "event.json", *(f"normal_{day.replace('-', '')}.tif" for day in HISTORICAL)]
BAD_DAY, BAD_FILE = HISTORICAL[0], "normal_20201002.tif"
ATTEMPTS = 3
ENVIRONMENT = {
    "ANOMALYCD_CATALOG_PAUSE": "0.0",
    "ANOMALYCD_CATALOG_ATTEMPTS": str(ATTEMPTS),
    "ANOMALYCD_CATALOG_TIMEOUT": "20",
}
BOX = lonlat_box(ORIGIN, WIDTH, WIDTH, inset=2)
LARGE_BOX = lonlat_box(ORIGIN, 4 * WIDTH, 4 * WIDTH, inset=2)


def pixels(seed: int, side: int = SIDE, bands: int = 3) -> np.ndarray:
    """Noise, which compresses so badly that a file has more bytes than GDAL reads at once."""
    return np.random.default_rng(seed).integers(1, 120, (side, side, bands), np.uint8)


def image_item(day: str, href: str | None = None, **more: Any) -> dict[str, Any]:
    return make_item(
        f"S-{day}",
        f"{day}T10:00:00Z",
        {"visual": href or f"../../img/{day}.tif"},
        **{"width": WIDTH, "height": WIDTH} | more,
    )


def write_images(root: Path, side: int, days: Sequence[str] = DATES) -> None:
    for number, day in enumerate(days):
        write_cog(root / f"img/{day}.tif", pixels(number, side))


class Fault:
    """Does one thing with the first requests of matching paths."""

    def __init__(self, what: int | str, where: str, times: float = float("inf")) -> None:
        """`what`: see servers.Fault. `where`: regular expression. `times`: for how many requests of each path."""
        self.what, self.where, self.times = what, where, times
        self.hits: Counter[str] = Counter()

    def __call__(self, path: str) -> int | str | None:
        if not re.search(self.where, path) or self.hits[path] >= self.times:
            return None
        self.hits[path] += 1
        return self.what


def run_get_event(
    catalog: str | Path, tmp_path: Path, *more: object, box: Sequence[float] = BOX
) -> CompletedProcess[str]:
    return run_process("get_event.py", *get_event_arguments(catalog, tmp_path, box), *more, **ENVIRONMENT)


def get_event_arguments(catalog: str | Path, tmp_path: Path, box: Sequence[float]) -> list[object]:
    return [
        *("--name", "3_x", "--date", "2021-07-01", "--data-root", tmp_path / "data", "--stac", catalog),
        *("--bbox", *map(repr, box)),
    ]


def event_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "3_x").iterdir())


def warnings_of(run: CompletedProcess[str]) -> str:
    return "\n".join(line for line in run.stderr.splitlines() if line.startswith("warning: "))


def the_error(run: CompletedProcess[str], tmp_path: Path, code: int = 1) -> str:
    """The one line that says why there is no event."""
    errors = [line for line in run.stderr.splitlines() if re.match(r"error: |get_event\.py: error: ", line)]
    assert run.returncode == code, run.stderr
    assert len(errors) == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "unexpected" not in run.stderr
    assert not (tmp_path / "data" / "3_x").exists()
    return errors[0]


def check_event(run: CompletedProcess[str], tmp_path: Path, *lacking: str) -> None:
    """The event is whole, but for the files that are lacking."""
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert "unexpected" not in run.stderr
    assert event_files(tmp_path) == [name for name in FILES if name not in lacking]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]


def check_left_out(run: CompletedProcess[str], tmp_path: Path, reason: str) -> None:
    """The image of one date was left out, by name, on the terminal and in the event's record."""
    check_event(run, tmp_path, BAD_FILE)
    lines = [line for line in warnings_of(run).splitlines() if BAD_DAY in line]
    assert len(lines) == 1, run.stderr
    assert re.search(reason, lines[0]), lines[0]
    record = json.loads((tmp_path / "data" / "3_x" / "event.json").read_text())
    (left_out,) = record["not_chosen"]
    assert left_out["date"] == BAD_DAY
    assert left_out["reason"] in lines[0]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])
