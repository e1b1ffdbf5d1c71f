"""The scripts of the demo."""

from pathlib import Path

from img_io import open_event
from tests.scripts import CONTROL, FIRE, run_process
from utils import list_events


def test_the_demo_draws_a_picture_of_every_event(finished: Path, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2")
    done = run_process("-mdemo.panels", *roots, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{CONTROL}.png", f"{FIRE}.png"}


def test_the_demo_draws_six_events(tmp_path: Path) -> None:
    done = run_process("-mdemo.make_events", tmp_path)
    assert done.returncode == 0, done.stderr
    listing = list_events(tmp_path)
    assert [event.category for event in listing.events] == [0, 1, 2, 3, 4, 5]
    assert not listing.skipped
    for event in listing.events:
        images = open_event(event)
        assert len(event.historical) == 4
        assert images.shape == (1024, 1024)
        assert images.georeference.spatial_reference is not None
