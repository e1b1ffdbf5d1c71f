"""Every command that README and docs tell a user to type is run, as it stands there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

import config
import get_event
from tests.scripts import CONTROL, FEW_POINTS, FIRE, PROJECT, run_forked
from tests.tiffs import TRANSFORM, crs, write_png, write_tiff

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")), PROJECT / "demo" / "README.md"]
PROGRAMS = ("make", "python", ".venv/bin/python", "pip", "gdal_translate", "gdal_rasterize", "gdalwarp", "gdalinfo")
# Those that other places run.
ELSEWHERE = {
    "make demo": "continuous integration",
    "make test": "continuous integration, and this",
    "pip ": "setup.sh, in another order",
    ".venv/bin/python -m pip install -r requirements-ray.txt": "make test",
    "python -m benchmarks.": "test_benchmarks.py, on next to nothing",
    ".venv/bin/python -m docs.tools.framework": "test_demo.py",
    ".venv/bin/python -m docs.tools.categories": "test_demo.py",
    ".venv/bin/python get_event.py": "test_get_event.py, against servers on this machine",
}


def commands() -> Iterator[tuple[str, str]]:
    """Page and command of every indented line that begins with a program, and of whole ones of GDAL's in a sentence."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE):
            command = line.partition(" #")[0].strip()
            if command.split()[0] in PROGRAMS:
                yield page.name, command
        for command in re.findall(r"`(gdal[a-z_]+ [^`]* (?:out\.tif|FILE))`", text):
            yield page.name, command


LISTED = [(page, command) for page, command in commands() if not command.startswith(tuple(ELSEWHERE))]


@pytest.fixture(scope="module")
def folder(small_events: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: with the data, results and files that they name."""
    root = tmp_path_factory.mktemp("user")
    for name in ("data/GDL", "my_data"):
        shutil.copytree(small_events, root / name)
    for name in ("outputs/stage1_change_detection", "results/stage1"):
        shutil.copytree(finished / "stage1", root / name)
    for name in ("outputs/stage2_anomaly_change", "results/stage2"):
        shutil.copytree(finished / "stage2", root / name)
    shutil.copy(config.DEMO_CHECKPOINT, root / "my_finetuned_vit_b.pth")

    def place(dataset: object) -> None:
        dataset.SetGeoTransform(TRANSFORM)  # type: ignore[attr-defined]
        dataset.SetSpatialRef(crs(32633))  # type: ignore[attr-defined]

    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    write_tiff(root / "in.tif", image, change=place)
    (root / "my_scores" / FIRE).mkdir(parents=True)
    shutil.copy(finished / "stage2" / FIRE / config.ANOMALY_MAP_NAME, root / "my_scores" / FIRE / "NAME.tif")
    for name in ("A", "B", "label"):
        (root / "LEVIR-CD" / name).mkdir(parents=True)
        write_png(root / "LEVIR-CD" / name / "train_1.png", image)
    (root / "polygons.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": {"type": '
        '"Polygon", "coordinates": [[[500005, 4199990], [500020, 4199990], [500020, 4199970], [500005, 4199990]]]}}]}'
    )
    region = gdal.VectorTranslate(str(root / "buildings.gpkg"), str(finished / "stage2" / FIRE / config.REGIONS_NAME))
    del region  # closes the file
    properties = {"event": FIRE, "verdict": "accepted"}
    outline = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    review = {"features": [{"type": "Feature", "properties": properties, "geometry": outline}]}
    (root / "review.geojson").write_text(json.dumps(review), encoding="utf-8")
    return root


# Capital words that stand for numbers and names, and what the toy SAM needs.
PLACEHOLDERS = {
    "XMIN": "500000",
    "XMAX": "500040",
    "YMIN": "4199960",
    "YMAX": "4200000",
    "W": "80",
    "H": "80",
    "EVENT": FIRE,
    "polygons.gpkg": "polygons.geojson",
    "in.jp2": "in.tif",
    "3_hillside_above_the_road": CONTROL,
    "3_landslide_x": CONTROL,
    "data/my_events": "data/GDL",
    "vit_b": "vit_demo",
    "FILE": "in.tif",
}


@pytest.mark.parametrize(("page", "command"), LISTED, ids=[command for _, command in LISTED])
def test_a_command_does_what_the_page_says(folder: Path, page: str, command: str) -> None:
    program, *arguments = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    if program.endswith("python"):
        program = sys.executable
        if arguments[0] == "-m":
            arguments[:2] = ["-m" + arguments[1]]
        elif arguments[0].endswith(".py"):
            arguments[0] = str(PROJECT / arguments[0])
    elif shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian's gdal-bin)")
    settings = {
        "ANOMALYCD_SAM_MODEL_TYPE": "vit_demo",
        "ANOMALYCD_DEFAULT_DEVICE": "cpu",
        "ANOMALYCD_DEFAULT_DATA_ROOT": "data/GDL",
        "ANOMALYCD_DEFAULT_OUTPUT_ROOT": "outputs",
        "PYTHONPATH": str(PROJECT),
    }
    (folder / "out.tif").unlink(missing_ok=True)
    line, environment = [program, *arguments], FEW_POINTS | settings
    if program == sys.executable:
        done = run_forked(line, environment, folder)
    else:
        done = subprocess.run(
            line, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command for _, command in commands() if "get_event.py" in command])
def test_a_command_for_a_service_on_the_network_is_valid(command: str) -> None:
    get_event.parse_arguments(shlex.split(command)[2:])


def test_commands_that_run_elsewhere_are_still_in_the_pages() -> None:
    found = [command for _, command in commands()]
    assert [start for start in ELSEWHERE if not any(command.startswith(start) for command in found)] == []
