"""Kill -9 at random moments, over and over: every file under its final name is whole, and the end is undisturbed."""

import os
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

import config
from evaluation.polygons import read_regions_metadata
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.scripts import DEMO_SAM, fork_server

KILLS = int(os.environ.get("ANOMALYCD_TEST_KILLS", "6"))
WINDOW = 130  # pixels a side: 4 windows a stage


def work(arguments: list[str]) -> None:
    """What a killed process does: both stages, with one thread, since many such processes are started."""
    import torch

    import run

    torch.set_num_threads(1)
    config.STAGE1_SAM_PARAMS["points_per_side"] = 2
    config.STAGE2_PATCH_SIZE = config.STAGE2_SMALL_PATCH_SIZE = WINDOW
    raise SystemExit(run.main(arguments))


def visible(root: Path) -> dict[str, bytes]:
    """Pixels of all maps under final names, and all other outputs whole."""
    found = {}
    for path in root.rglob("*"):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix == ".tif":
            found[str(path.relative_to(root))] = whole(ScoreMap(path)).tobytes()
        elif path.suffix == ".gpkg":
            assert read_regions_metadata(path) is not None
        elif path.suffix == ".qml":
            assert path.read_text(encoding="utf-8").endswith("</qgis>")
        else:
            assert path.suffix == ".png"
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    return found


@pytest.mark.slow
def test_killed_runs_end_as_if_undisturbed(small_events: Path, tmp_path: Path) -> None:
    moments = random.Random(0)

    def start(root: Path) -> BaseProcess:
        roots = ("--data-root", small_events, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
        process = fork_server().Process(target=work, args=([*map(str, roots), "--patch-size", str(WINDOW), *DEMO_SAM],))
        process.start()
        return process

    # Moments are drawn from the seconds of the second run: the first one waits until the libraries are imported.
    for name in ("first", "undisturbed"):
        started = time.monotonic()
        undisturbed = start(tmp_path / name)
        undisturbed.join()
        seconds = time.monotonic() - started
        assert undisturbed.exitcode == 0
    expected = visible(tmp_path / "undisturbed")
    assert len(expected) == 2 * 3
    kills = finished = 0
    while kills < KILLS:
        root = tmp_path / f"killed_{finished}"
        process = start(root)
        process.join(moments.uniform(0, seconds))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert visible(root).items() <= expected.items()
            continue
        assert process.exitcode == 0
        assert visible(root) == expected
        finished += 1
    process = start(tmp_path / f"killed_{finished}")
    process.join()
    assert process.exitcode == 0
    assert visible(tmp_path / f"killed_{finished}") == expected
    assert not [path for path in (tmp_path / f"killed_{finished}").rglob(".*") if path.name != ".lock"]
    print(f"{kills} kills, {finished + 1} runs finished")
