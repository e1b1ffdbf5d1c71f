"""Figures for print: data, size, format and errors."""

import shutil
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import config
from eval_metrics import Scores
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import ScoreMap
from report.event_panels import PANEL_SIDE, EventPanels, read_panels
from report.event_sheet import bar_length, length_text, sheet_size
from report.figures import check_format, draw_event_figure, new_figure
from tests.helpers import whole
from tests.scripts import CONTROL, FIRE
from utils import EventError, UsageError, read_event


def png_size(path: Path) -> tuple[int, int, float]:
    """Width and height in pixels, and dots per inch, as recorded in the file."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", content[16:24])
    at = content.index(b"pHYs") + 4
    dots_per_metre, _, unit = struct.unpack(">2IB", content[at : at + 9])
    assert unit == 1
    return width, height, dots_per_metre * 0.0254


@pytest.fixture
def panels(small_events: Path, finished: Path) -> EventPanels:
    return read_panels(read_event(small_events / FIRE), finished / "stage1", finished / "stage2")


def test_figure_has_print_size_and_resolution(
    small_events: Path, finished: Path, panels: EventPanels, tmp_path: Path
) -> None:
    target = tmp_path / "new folder" / "event.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # including warnings of glyphs missing from the font
        draw_event_figure(read_event(small_events / FIRE), finished / "stage1", finished / "stage2", target)
    width, height, dpi = png_size(target)
    assert dpi == pytest.approx(300, abs=0.1)
    assert (width, height) == pytest.approx([length / 25.4 * 300 for length in sheet_size(panels)], abs=1)
    assert target.stat().st_size < 5 << 20
    assert [path.name for path in target.parent.iterdir()] == ["event.png"]


def test_figure_of_a_normal_control_can_be_a_pdf(small_events: Path, finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "control.PDF"
    draw_event_figure(read_event(small_events / CONTROL), finished / "stage1", finished / "stage2", target)
    assert target.read_bytes().startswith(b"%PDF")


def test_panels_contain_maps_and_scores(panels: EventPanels, finished: Path) -> None:
    stage2 = finished / "stage2" / FIRE
    np.testing.assert_array_equal(panels.anomalies, whole(ScoreMap(stage2 / config.ANOMALY_MAP_NAME)))
    np.testing.assert_array_equal(panels.changes, whole(ScoreMap(finished / "stage1" / FIRE / config.CHANGE_MAP_NAME)))
    assert len(panels.historical) == 4
    assert panels.pixel_metres == pytest.approx(0.5, rel=1e-3)
    assert panels.scores is not None
    recall, precision, _ = panels.scores[1]
    assert panels.label is not None
    found = np.count_nonzero(panels.anomalous & (panels.label > 1))
    assert recall == pytest.approx(found / np.count_nonzero(panels.label > 1))
    assert precision == pytest.approx(found / (found + 0.1 * np.count_nonzero(panels.anomalous & (panels.label <= 1))))


def test_sheet_height_grows_with_the_number_of_dates(panels: EventPanels) -> None:
    width, five_dates = sheet_size(panels)
    assert width == 180
    six = replace(panels, historical=panels.historical + panels.historical[:1])
    assert sheet_size(six)[1] > five_dates + 30
    many = replace(panels, historical=panels.historical[:1] * 60)
    assert sheet_size(many)[1] < 500
    assert sheet_size(replace(panels, shape=(100, 10_000)))[1] < five_dates  # panels are narrowed, text is not


def test_unusual_events_are_drawn(panels: EventPanels, tmp_path: Path) -> None:
    """Gaps, no georeference, no label, no anomalies, and a long name; and extreme scores."""
    from report.event_sheet import draw_sheet

    gap = np.zeros(panels.anomalies.shape, bool)
    gap[:50] = True
    pixels = [one._replace(valid=~gap) for one in panels.historical]
    unusual = replace(
        panels,
        event=replace(panels.event, folder=panels.event.folder.with_name("6_" + "long name " * 20)),
        historical=pixels,
        pixel_metres=None,
        anomalies=np.where(gap, np.float32(np.nan), 0),
        changed=~gap | True,
        anomalous=gap & False,
        label=None,
        change_threshold=0.0,
        scores=None,
    )
    for number, one in enumerate((unusual, replace(panels, scores=(Scores(1, 1, 1), Scores(0, 0, 0))))):
        path = tmp_path / f"{number}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with new_figure(path, *sheet_size(one), constrained_layout=False) as figure:
                draw_sheet(figure, one)
        assert png_size(path)[0] == pytest.approx(180 / 25.4 * 300, abs=1)


def test_large_events_are_scaled_down(tmp_path: Path) -> None:
    event, nowhere = tmp_path / "data" / "6_large", Georeference()
    shape = (1500, 900)
    for name in ("normal_20200101", "anomaly_20210101"):
        write_raster(event / f"{name}.tif", np.full((*shape, 3), 90, np.uint8), nowhere)
    for folder, name in (
        ("stage1", config.CHANGE_MAP_NAME),
        ("stage2", config.FILTERED_MAP_NAME),
        ("stage2", config.ANOMALY_MAP_NAME),
    ):
        write_raster(tmp_path / folder / "6_large" / name, np.zeros(shape, np.float32), nowhere)
    panels = read_panels(read_event(event), tmp_path / "stage1", tmp_path / "stage2")
    expected = (PANEL_SIDE, PANEL_SIDE * 900 // 1500)
    assert panels.monitor.rgb.shape[:2] == panels.anomalies.shape == panels.anomalous.shape == expected
    assert panels.pixel_metres is None
    assert panels.scores is None
    draw_event_figure(read_event(event), tmp_path / "stage1", tmp_path / "stage2", tmp_path / "large.png")


def test_other_file_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.jpg: figures are written as \.png or \.pdf"):
        check_format(tmp_path / "out.jpg")


def test_maps_of_another_size_are_refused(small_events: Path, finished: Path, tmp_path: Path) -> None:
    stage1 = Path(shutil.copytree(finished / "stage1", tmp_path / "stage1"))
    write_raster(stage1 / FIRE / config.CHANGE_MAP_NAME, np.zeros((70, 80), np.float32), Georeference())
    with pytest.raises(EventError, match=r"change_map_continuous\.tif and .*: sizes differ"):
        draw_event_figure(read_event(small_events / FIRE), stage1, finished / "stage2", tmp_path / "out.png")


def test_a_figure_on_a_full_disk_is_an_error_that_names_it(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1020 << 10))
    target = small_disk / "out.png"
    with pytest.raises(OSError, match=r"No space left on device.*out\.png"), new_figure(target, 100, 100) as figure:
        figure.figimage(np.random.default_rng(0).random((1000, 1000)))
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_no_figure_is_written_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_figure(tmp_path / "out.png", 10, 10):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("space", "length", "text"),
    [(153.6, 100, "100 m"), (200, 200, "200 m"), (1999, 1000, "1 km"), (7000, 5000, "5 km"), (0.7, 0.5, "0.5 m")],
)
def test_scale_bars_have_round_lengths(space: float, length: float, text: str) -> None:
    assert bar_length(space) == pytest.approx(length)
    assert length_text(bar_length(space)) == text
