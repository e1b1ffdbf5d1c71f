import argparse
import doctest
import importlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import utils
from cli.flags import fraction, not_negative, positive_int
from tests.helpers import property_test
from utils import (
    CATEGORIES,
    Event,
    UsageError,
    Window,
    atomic_file,
    date_text,
    list_events,
    owned_parts,
    read_event,
    tile,
)

MONITOR = "anomaly_20210720.tif"
LABEL = "anomaly_20210720_label.tif"
FIRST, SECOND, LAST = "normal_20180101.tif", "normal_20190614.tif", "normal_20200311.tif"
CONVERT = "only GeoTIFFs are read, convert each image (gdal_translate FILE out.tif)"


def make_folder(root: Path, name: str, *files: str) -> Path:
    """An event folder with empty files: events are found by file names alone."""
    folder = root / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    return folder


def names(event: Event) -> tuple[str, list[str], str | None]:
    """Monitor, historical images and label."""
    label = event.label.name if event.label else None
    return event.monitor.name, [path.name for path in event.historical], label


def skip_reason(root: Path) -> str:
    """Why the only event of a data root is skipped."""
    listing = list_events(root)
    assert not listing.events
    ((_, reason),) = listing.skipped
    return reason


# --- Events ----------------------------------------------------------------------------------------------------------
def test_images_are_identified_by_their_names(tmp_path: Path) -> None:
    event = read_event(make_folder(tmp_path, "4_fire", SECOND, LABEL, LAST, MONITOR, FIRST))
    assert names(event) == (MONITOR, [FIRST, SECOND, LAST], LABEL)
    assert event.reference.name == LAST
    assert event.name == "4_fire"
    assert CATEGORIES[event.category][0] == "fire"


def test_images_are_identified_by_order_if_names_follow_no_pattern(tmp_path: Path) -> None:
    event = read_event(make_folder(tmp_path, "1_x", "d.tif", "a.tif", "c.tif", "b.tif"))
    assert names(event) == ("a.tif", ["c.tif", "d.tif"], "b.tif")


@pytest.mark.parametrize("files", [(MONITOR, FIRST), ("Anomaly_1.TIF", "NORMAL_1.tif")])
def test_an_event_without_label_keeps_its_first_normal_image(tmp_path: Path, files: tuple[str, str]) -> None:
    event = read_event(make_folder(tmp_path, "1_x", *files))
    assert names(event) == (files[0], [files[1]], None)


@pytest.mark.parametrize(
    "label",
    [
        "anomaly_1_label_v2.tif",
        "anomaly_1_labels.tif",
        "Anomaly_1_LABEL.tiff",
        "anomaly_label.tif",
        "anomaly_1_label.PNG",
    ],
)
def test_a_label_has_label_in_its_name(tmp_path: Path, label: str) -> None:
    side_files = ("anomaly_1_label.pgw", "anomaly_1_label.png.aux.xml", "anomaly_1.png", "unlabeled_label.png")
    folder = make_folder(tmp_path, "1_x", "anomaly_1.tif", label, FIRST, *side_files)
    assert names(read_event(folder)) == ("anomaly_1.tif", [FIRST], label)


@pytest.mark.parametrize("monitor", ["anomaly_unlabelled.tif", "anomaly_labrador_1.tif"])
def test_a_monitor_image_is_not_taken_for_a_label(tmp_path: Path, monitor: str) -> None:
    assert names(read_event(make_folder(tmp_path, "1_x", monitor, LABEL, FIRST))) == (monitor, [FIRST], LABEL)


def test_a_label_outside_the_data_root_is_not_followed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "1_x", MONITOR, FIRST)
    (folder / "anomaly_1_label.png").symlink_to(make_folder(tmp_path, "elsewhere", "a.png") / "a.png")
    assert "anomaly_1_label.png: a link to a file outside the data root" in skip_reason(tmp_path / "data")


def test_side_files_are_ignored(tmp_path: Path) -> None:
    side_files = (f"{MONITOR}.aux.xml", f"{FIRST}.ovr", "Thumbs.db", f"._{FIRST}", ".hidden.tif", "notes.txt")
    folder = make_folder(tmp_path, "3_x", MONITOR, LABEL, FIRST, *side_files)
    make_folder(folder, "normal_folder.tif", SECOND)
    assert names(read_event(folder)) == (MONITOR, [FIRST], LABEL)


def test_side_files_do_not_affect_the_order(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path, "3_x", "a.tif", "b.tif", "c.tif", "a.tif.aux.xml", "a.tif.ovr", "._a.tif", "Thumbs.db"
    )
    assert names(read_event(folder)) == ("a.tif", ["c.tif"], "b.tif")


def test_upper_case_and_long_extensions_are_accepted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "2_x", "anomaly_1.TIF", "normal_1.TIFF", "normal_2.tiff")
    assert names(read_event(folder)) == ("anomaly_1.TIF", ["normal_1.TIFF", "normal_2.tiff"], None)


def test_an_image_with_another_name_is_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path, "1_x", MONITOR, FIRST, "mosaic.tif")
    assert names(read_event(folder)) == (MONITOR, [FIRST], None)
    (warning,) = caplog.messages
    assert str(folder / "mosaic.tif") in warning


def test_the_last_image_of_a_normal_control_is_the_monitor_image(tmp_path: Path) -> None:
    event = read_event(make_folder(tmp_path, "0_control", SECOND, LAST, FIRST))
    assert names(event) == (LAST, [FIRST, SECOND], None)
    assert event.category == 0


@pytest.mark.parametrize("ignored", ["mosaic.tif", MONITOR, LABEL, "anomaly_1_label.png"])
def test_an_ignored_file_of_a_normal_control_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ignored: str
) -> None:
    folder = make_folder(tmp_path, "0_x", FIRST, SECOND, ignored, "notes.txt")
    assert names(read_event(folder)) == (SECOND, [FIRST], None)
    assert caplog.messages == [f"{folder / ignored}: ignored, a normal control has only images that begin with normal_"]


def test_images_of_a_normal_control_are_identified_by_order(tmp_path: Path) -> None:
    assert names(read_event(make_folder(tmp_path, "0_x", "b.tif", "a.tif"))) == ("b.tif", ["a.tif"], None)


@pytest.mark.parametrize(
    ("name", "files", "reason"),
    [
        ("1_x", (MONITOR, "anomaly_20220101.tif", FIRST), "one monitor image anomaly_DATE.tif"),
        ("1_x", ("anomaly_1.tif", "anomaly_2.tif", FIRST), "has 2 and 0: anomaly_1.tif, anomaly_2.tif"),
        (
            "1_x",
            (MONITOR, LABEL, "anomaly_2_label.tif", FIRST),
            f"at most one label, has 1 and 2: {MONITOR}, {LABEL}, anomaly_2_label.tif",
        ),
        (
            "1_x",
            (MONITOR, LABEL, "anomaly_1_label.png", FIRST),
            f"has 1 and 2: {MONITOR}, anomaly_1_label.png, {LABEL}",
        ),
        ("1_x", (LABEL, FIRST), f"has 0 and 1: {LABEL}"),
        ("1_x", (FIRST, SECOND), "has 0 and 0"),
        ("1_x", (MONITOR, LABEL), "no historical image"),
        ("1_x", ("a.tif", "b.tif"), "2 images without anomaly_/normal_ names"),
        ("1_x", (), "0 images"),
        ("0_x", (FIRST,), "two normal_DATE.tif or more, has 1"),
        ("0_x", (MONITOR, LABEL), "two normal_DATE.tif or more, has 0"),
    ],
)
def test_unusable_events_are_skipped_with_a_reason(
    tmp_path: Path, name: str, files: tuple[str, ...], reason: str
) -> None:
    make_folder(tmp_path, name, *files)
    assert reason in skip_reason(tmp_path)


@pytest.mark.parametrize(
    ("name", "files", "reason"),
    [
        ("1_x", ("anomaly_1.png", "normal_1.PNG"), f"too few GeoTIFFs; found anomaly_1.png, normal_1.PNG: {CONVERT}"),
        ("1_x", ("a.tif", "b.tif", "c.img"), f"too few GeoTIFFs; found c.img: {CONVERT}"),
        ("1_x", (MONITOR, "normal_1.jp2"), f"no historical image normal_DATE.tif; found normal_1.jp2: {CONVERT}"),
        ("1_x", (FIRST, "anomaly_1.vrt"), f"has 0 and 0; found anomaly_1.vrt: {CONVERT}"),
        ("0_x", (FIRST, "normal_2.jpg"), f"normal_DATE.tif or more, has 1; found normal_2.jpg: {CONVERT}"),
        ("1_x", tuple(f"{i}.jpeg" for i in range(9)), "found 0.jpeg, 1.jpeg, 2.jpeg, 3.jpeg, 4.jpeg, ...: only"),
    ],
)
def test_images_of_other_formats_are_named_if_images_are_missing(
    tmp_path: Path, name: str, files: tuple[str, ...], reason: str
) -> None:
    make_folder(tmp_path, name, *files, ".hidden.png", "anomaly_1.png.aux.xml", "anomaly_1.pgw")
    found = skip_reason(tmp_path)
    assert reason in found
    assert "0 images" not in found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("1_x", (MONITOR, FIRST)),
        ("1_x", ("a.tif", "b.tif", "c.tif")),
        ("0_x", (FIRST, SECOND)),
    ],
)
def test_ignored_images_of_other_formats_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, files: tuple[str, ...]
) -> None:
    folder = make_folder(tmp_path, name, *files, "normal_20180101.jp2", "preview.PNG", "notes.txt", f"{files[0]}.ovr")
    read_event(folder)
    assert caplog.messages[-1] == f"{folder}: ignored normal_20180101.jp2, preview.PNG: {CONVERT}"


@pytest.mark.parametrize("name", ["0_x", "1_x"])
def test_images_of_other_formats_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    make_folder(tmp_path, name, FIRST, "anomaly_1.png")
    assert f"found anomaly_1.png: {CONVERT}" in skip_reason(tmp_path)
    assert not caplog.messages


def test_a_label_is_no_image_to_convert(tmp_path: Path) -> None:
    make_folder(tmp_path, "1_x", MONITOR, "anomaly_1_label.png")
    assert skip_reason(tmp_path) == "no historical image normal_DATE.tif"


def test_an_unreadable_folder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, "1_x", MONITOR, FIRST)

    def refuse(folder: Path) -> Event:  # a mock: root, which may run the tests, can read every folder
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(utils, "read_event", refuse)
    assert "Permission denied" in skip_reason(tmp_path)


def test_only_category_folders_are_events(tmp_path: Path) -> None:
    for name in ("1_b", "0_a", "7_x", "10_x", "x_1", "1_", ".1_hidden", "outputs"):
        make_folder(tmp_path, name, MONITOR, FIRST, SECOND)
    (tmp_path / "2_file").touch()
    (tmp_path / ".hidden").touch()
    listing = list_events(tmp_path)
    assert [event.name for event in listing.events] == ["0_a", "1_b"]
    assert listing.ignored() == [
        "5 folders are no events: 10_x, 1_, 7_x, outputs, x_1 (names begin with 0_ to 6_)",
        "1 loose file is ignored: 2_file (images lie in one folder per event)",
    ]
    assert listing.first(1).ignored() == listing.ignored()
    assert not list_events(tmp_path, "1_b").ignored()


def test_a_data_root_with_events_only_has_nothing_ignored(tmp_path: Path) -> None:
    make_folder(tmp_path, "1_x", MONITOR, FIRST)
    assert not list_events(tmp_path).ignored()


def test_of_many_ignored_names_the_first_are_shown(tmp_path: Path) -> None:
    make_folder(tmp_path, "1_x", MONITOR, FIRST)
    make_folder(tmp_path, "old")
    for number in range(7):
        (tmp_path / f"{number}.tif").touch()
    assert list_events(tmp_path).ignored() == [
        "1 folder is no event: old (names begin with 0_ to 6_)",
        "7 loose files are ignored: 0.tif, 1.tif, 2.tif, 3.tif, 4.tif, ... (images lie in one folder per event)",
    ]


def test_ignored_names_can_be_printed_whatever_their_bytes(tmp_path: Path) -> None:
    make_folder(tmp_path, "1_x", MONITOR, FIRST)
    make_folder(tmp_path, os.fsdecode(b"old\xff"))
    assert list_events(tmp_path).ignored() == ["1 folder is no event: old? (names begin with 0_ to 6_)"]


@pytest.mark.parametrize("target", ["nowhere", "2_gone", "x" * 300])
def test_a_link_that_cannot_be_followed_is_a_loose_file(tmp_path: Path, target: str) -> None:
    make_folder(tmp_path, "1_x", MONITOR, FIRST)
    (tmp_path / "2_gone").symlink_to(target)
    (line,) = list_events(tmp_path).ignored()
    assert line.startswith("1 loose file is ignored: 2_gone")


def test_a_data_root_without_event_folders_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, "7_new", MONITOR, FIRST)
    (tmp_path / "a.tif").touch()
    with pytest.raises(UsageError, match="no event folders"):
        list_events(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("1_a", "is the folder of one event; name the folder that"), ("a", "0_ to 6_")]
)
def test_the_folder_of_one_event_is_no_data_root(tmp_path: Path, name: str, text: str) -> None:
    make_folder(tmp_path, name, MONITOR, FIRST)
    with pytest.raises(UsageError, match=f"--data-root {tmp_path}") as raised:
        list_events(tmp_path / name)
    assert text in str(raised.value)


def test_an_event_is_selected_by_name(tmp_path: Path) -> None:
    for name in ("1_a", "1_b"):
        make_folder(tmp_path, name, MONITOR, FIRST)
    (event,) = list_events(tmp_path, "1_b").events
    assert event.folder == tmp_path / "1_b"


@pytest.mark.parametrize("name", ["4_火灾_凉山", "1_Beirut port (2020)", "5_Kréma & 'Sàn'"])
def test_names_need_not_be_ascii(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path, name, MONITOR, FIRST)
    (event,) = list_events(tmp_path, name).events
    assert event.name == name


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "3_Éboulement") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("on_disk", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_names_match_in_any_unicode_normalization(tmp_path: Path, on_disk: str, asked: str) -> None:
    make_folder(tmp_path, on_disk, MONITOR, FIRST)
    (event,) = list_events(tmp_path, asked).events
    assert event.monitor.is_file()


@pytest.mark.parametrize(
    ("asked", "similar"), [("4_brand", "4_Brandt"), ("brand", "4_Brandt"), ("5_dam_brake", "5_dam_break"), ("", "1_a")]
)
def test_an_unknown_event_names_the_most_similar(tmp_path: Path, asked: str, similar: str) -> None:
    for name in ("1_a", "4_Brandt", "5_dam_break"):
        make_folder(tmp_path, name, MONITOR, FIRST)
    with pytest.raises(UsageError, match=f"no event '{asked}'; similar names: {similar}"):
        list_events(tmp_path, asked)


@pytest.mark.parametrize("asked", ["../secret/1_x", "1_x/../1_x", "./1_x", "1_x/", "..", "{root}/1_x"])
def test_paths_are_refused_as_event_names(tmp_path: Path, asked: str) -> None:
    root = tmp_path / "data"
    make_folder(root, "1_x", MONITOR, FIRST)
    make_folder(tmp_path / "secret", "1_x", MONITOR, FIRST)
    with pytest.raises(UsageError, match="no event"):
        list_events(root, asked.format(root=root))


def test_a_link_that_leaves_the_data_root_is_skipped(tmp_path: Path) -> None:
    outside = make_folder(tmp_path, "1_outside", MONITOR, FIRST)
    root = tmp_path / "data"
    root.mkdir()
    (root / "1_linked").symlink_to(outside)
    assert "a link to a folder outside the data root" in skip_reason(root)


def test_a_linked_image_is_followed_within_the_data_root_only(tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder = make_folder(root, "1_x", MONITOR)
    (folder / FIRST).symlink_to(make_folder(root, "archive", FIRST) / FIRST)
    assert [event.name for event in list_events(root).events] == ["1_x"]
    (folder / "normal_2.tif").symlink_to(make_folder(tmp_path, "elsewhere", FIRST) / FIRST)
    assert "normal_2.tif: a link to a file outside the data root" in skip_reason(root)


def test_a_linked_data_root_is_followed(tmp_path: Path) -> None:
    make_folder(tmp_path / "disk", "1_x", MONITOR, FIRST)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert len(list_events(tmp_path / "data").events) == 1


def test_a_missing_data_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: cannot read the data root .*--data-root"):
        list_events(tmp_path / "nowhere")


def test_a_file_as_data_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot read the data root"):
        list_events(tmp_path / "file")


@pytest.mark.parametrize(("only", "problem"), [(None, "no event folders"), ("1_x", "no event '1_x'; it has no events")])
def test_an_empty_data_root_is_refused(tmp_path: Path, only: str | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        list_events(tmp_path, only)


@pytest.mark.parametrize(
    ("count", "events", "skipped"), [(0, [], []), (1, ["0_a"], []), (2, ["0_a"], ["1_b"]), (9, ["0_a", "2_c"], ["1_b"])]
)
def test_first_counts_skipped_events(tmp_path: Path, count: int, events: list[str], skipped: list[str]) -> None:
    make_folder(tmp_path, "0_a", FIRST, SECOND)
    make_folder(tmp_path, "1_b")
    make_folder(tmp_path, "2_c", MONITOR, FIRST)
    listing = list_events(tmp_path).first(count)
    assert [event.name for event in listing.events] == events
    assert [name for name, _ in listing.skipped] == skipped


# --- Windows ---------------------------------------------------------------------------------------------------------
def test_windows_by_hand() -> None:
    assert tile(1100, 1300, 1024) == [(x, y, 1024, 1024) for x, y in ((0, 0), (0, 76), (276, 0), (276, 76))]


def test_windows_that_fit_do_not_overlap() -> None:
    assert tile(4, 6, 2) == [(x, y, 2, 2) for x in (0, 2, 4) for y in (0, 2)]


@pytest.mark.parametrize(("height", "width", "expected"), [(5, 9, (0, 0, 9, 5)), (10, 10, (0, 0, 10, 10))])
def test_a_window_is_clipped_to_the_image(height: int, width: int, expected: tuple[int, int, int, int]) -> None:
    assert tile(height, width, 10) == [expected]


def test_window_slices() -> None:
    assert Window(3, 5, 20, 10).slices == (slice(5, 15), slice(3, 23))


def covered(starts: list[int], side: int) -> set[int]:
    return {pixel for start in starts for pixel in range(start, start + side)}


@property_test
@given(height=st.integers(1, 300), width=st.integers(1, 300), patch_size=st.integers(1, 400))
def test_windows_cover_the_image_column_by_column(height: int, width: int, patch_size: int) -> None:
    windows = tile(height, width, patch_size)
    sides = min(patch_size, width), min(patch_size, height)
    assert {(window.width, window.height) for window in windows} == {sides}
    columns, rows = sorted({window.x for window in windows}), sorted({window.y for window in windows})
    assert [window[:2] for window in windows] == [(x, y) for x in columns for y in rows]
    for starts, side, length in ((columns, sides[0], width), (rows, sides[1], height)):
        assert covered(starts, side) == set(range(length))
        assert starts[-1] + side == length
        assert len(starts) == -(-length // patch_size)  # no more windows than needed
        assert all(start == index * patch_size for index, start in enumerate(starts[:-1]))


# --- Files -----------------------------------------------------------------------------------------------------------
def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for content in ("old", "new"):
        with atomic_file(path) as part:
            assert part.parent == path.parent  # on the same disk, so that renaming is atomic
            part.write_text(content)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def write_half(path: Path, interruption: type[BaseException]) -> None:
    with atomic_file(path) as part:
        part.write_text("half")
        raise interruption


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, interruption: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(interruption):
        write_half(path, interruption)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- Arguments -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (positive_int, "1", 1),
        (fraction, "0", 0),
        (fraction, "1", 1),
        (not_negative, "0", 0),
        (not_negative, "7.5", 7.5),
    ],
)
def test_numbers_within_limits_are_accepted(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((positive_int, text) for text in ("0", "-3")),
        *((fraction, text) for text in ("1.01", "-0.1", "nan")),
        *((not_negative, text) for text in ("-0.1", "nan", "inf")),
    ],
)
def test_numbers_outside_limits_are_refused(parse: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        parse(text)


@property_test
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_owned_parts_cover_an_image_once_by_its_later_windows(height: int, width: int, patch_size: int) -> None:
    windows = tile(height, width, patch_size)
    last, owner, times = (np.zeros((height, width), int) for _ in range(3))
    parts = owned_parts(windows)
    for number, window in enumerate(windows):
        last[window.slices] = number
        owner[parts[window].slices] = number
        times[parts[window].slices] += 1
    assert (times == 1).all()
    np.testing.assert_array_equal(owner, last)


def depths(window: Window, height: int, width: int) -> np.ndarray:
    """How far each pixel lies from the window's borders inside the image, (height, width); -1 outside the window."""
    along = []
    for start, side, length in ((window.y, window.height, height), (window.x, window.width, width)):
        at = np.arange(length) + 0.5
        to_start = np.where(start > 0, at - start, np.inf)
        to_end = np.where(start + side < length, start + side - at, np.inf)
        along.append(np.where((at > start) & (at < start + side), np.minimum(to_start, to_end), -1))
    return np.minimum(along[0][:, None], along[1])


@property_test
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 30), st.data())
def test_with_overlap_a_pixel_belongs_to_the_window_in_which_it_lies_deepest(
    height: int, width: int, patch_size: int, data: st.DataObject
) -> None:
    windows = tile(height, width, patch_size, data.draw(st.integers(1, patch_size - 1)))
    times, depth = np.zeros((height, width), int), np.zeros((height, width))
    for window, part in owned_parts(windows, deepest=True).items():
        times[part.slices] += 1
        depth[part.slices] = depths(window, height, width)[part.slices]
    assert (times == 1).all()
    np.testing.assert_array_equal(depth, np.max([depths(window, height, width) for window in windows], axis=0))


def test_windows_with_overlap_by_hand() -> None:
    windows = tile(8, 20, 8, overlap=3)
    assert [window.x for window in windows] == [0, 5, 10, 12]
    parts = owned_parts(windows, deepest=True)
    assert [(part.x, part.width) for part in parts.values()] == [(0, 6), (6, 5), (11, 4), (15, 5)]


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("normal_20190620.tif", "2019-06-20"),
        ("anomaly_20210720.tif", "2021-07-20"),
        ("Normal_summer.tif", "summer"),
        ("anomaly_S2A_20200101T101010.tif", "2020-01-01 10:10:10 S2A"),
        ("normal_20200311T143000Z.tif", "2020-03-11 14:30:00"),
        ("normal_20200311143000.tif", "2020-03-11 14:30:00"),
        ("normal_20200311_998877.tif", "2020-03-11_998877"),
        ("normal_10300100A1234500_20190614.tif", "2019-06-14 10300100A1234500"),
        ("normal_10300101_20190614.tif", "2019-06-14 10300101"),
        ("normal_14062019.tif", "14062019"),
        ("normal_20190231.tif", "20190231"),
        ("scene_123456789.tif", "scene_123456789"),
        ("normal_20190402.tif", "2019-04-02"),
        ("anomaly_20190402_a.tif", "2019-04-02_a"),
        ("spring.tif", "spring"),
    ],
)
def test_dates_are_read_from_names(name: str, date: str) -> None:
    assert date_text(Path(name)) == date


def test_dates_that_contradict_the_order_of_the_names_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path, "1_ids", "normal_A2_20200311.tif", "normal_B1_20190614.tif", MONITOR)
    for _ in range(2):
        read_event(folder)
    warning = (
        f"{folder}: the dates in the names are not in the order of the names, which decides: normal_B1_20190614.tif is "
        "the reference image, anomaly_20210720.tif the monitor image"
    )
    assert caplog.messages == [warning]
    caplog.clear()
    read_event(make_folder(tmp_path, "2_in_order", FIRST, "normal_20190231.tif", LAST, MONITOR))  # one is no date
    assert not caplog.messages


def test_roles_by_order_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path, "4_dated", "20190614.tif", "20191002.tif", "20200311.tif", "20210720.tif")
    for _ in range(2):
        event = read_event(folder)
    assert event.has_roles_by_order
    assert caplog.messages[0] == (
        f"{folder}: no name begins with anomaly_ or normal_, so the order of the names decides: 20190614.tif is the "
        "monitor image, 20191002.tif the label, 20210720.tif the reference image, 20200311.tif, 20210720.tif the "
        "historical images"
    )
    assert caplog.messages[1].startswith(f"{folder}: the dates in the names are not in the order of the names")
    assert len(caplog.messages) == 2
    assert not read_event(make_folder(tmp_path, "4_named", FIRST, MONITOR, LABEL)).has_roles_by_order


@pytest.mark.parametrize("module", ["utils", "stage1_analysis"])
def test_examples_in_docstrings(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0
