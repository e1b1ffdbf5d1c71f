"""Code shared by all modules: errors, warnings, events, windows, atomic file writing."""

import difflib
import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import config

LOG = logging.getLogger("anomalycd")

# Name and colour (RGB) of every category, by the first character of the event's folder (docs/method.md, section 1).
CATEGORIES = {
    0: ("normal control", (0, 0, 0)),
    1: ("explosion", (220, 30, 30)),
    2: ("collapse", (255, 150, 0)),
    3: ("landslide", (40, 160, 60)),
    4: ("fire", (250, 220, 40)),
    5: ("dam break", (120, 190, 255)),
    6: ("others", (150, 150, 150)),
}
IMAGE_SUFFIXES = (".tif", ".tiff")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".png")
# Not read, but can be converted to GeoTIFF.
OTHER_IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jpx", ".img", ".vrt", ".dat", ".bil", ".bip"),
    *(".bsq", ".ecw", ".sid", ".ntf", ".nc", ".hdf", ".h5"),
)
CONVERT = "only GeoTIFFs are read, convert each image (gdal_translate FILE out.tif)"
NAMES_SHOWN = 5  # at most, in a message
DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?=\D|$|\d{6}(?!\d))")  # in a name; a time of day may follow
CLOCK = re.compile(r"[T_]?([01]\d|2[0-3])([0-5]\d)([0-5]\d)Z?(?!\d)")


# --- Errors ----------------------------------------------------------------------------------------------------------
class AnomalyCDError(Exception):
    """An error that the user can fix; the message is one line that says what is wrong and how to fix it."""


class UsageError(AnomalyCDError):
    """The run is impossible as requested; exit code 2."""


class EventError(AnomalyCDError):
    """An event cannot be processed; the run continues with the others."""


class EventBusyError(AnomalyCDError):
    """Another run is processing this event."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception) -> str:
    """Return an error's message with its line breaks as spaces."""
    return " ".join(str(error).split())


def describe_error(error: Exception) -> str:
    """Return an error's message as one line."""
    text = one_line(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (AnomalyCDError, OSError, MemoryError)):
        return text
    # A bug in this program.
    return f"unexpected {type(error).__name__}: {text} (use --log-file to record the traceback)"


def hide_secrets(text: str) -> str:
    """Remove user names, passwords and queries, which can hold access tokens, from the addresses in a text."""
    end = r"(?=['\")\]]*[:,;.]?(?:\s|$))"  # punctuation of the text, not of the address
    text = re.sub(r"\b(\w[\w+.-]*://)[^/?#\s]*@", r"\1", text)
    text = re.sub(rf"(://[^?\s]*)\?\S*?{end}", r"\1", text)
    # Addresses without a server, in messages of urllib and in names of GDAL; a local path may have a `?` in it.
    return re.sub(rf"((?:\burl: |/vsi\w+)[^?\s]*)\?\S*?{end}", r"\1", text)


# --- Warnings --------------------------------------------------------------------------------------------------------
_WARNED: set[str] = set()


def warn_once(message: str) -> None:
    """Log a warning once per run."""
    if message not in _WARNED:
        _WARNED.add(message)
        LOG.warning("%s", message)


# --- Events ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Event:
    """One event: its monitor image, its historical images (oldest first), and its label, if it has one."""

    folder: Path
    monitor: Path
    historical: tuple[Path, ...]
    label: Path | None

    @property
    def name(self) -> str:
        """Name of the folder, which begins with the category's digit."""
        return self.folder.name

    @property
    def category(self) -> int:
        """Key in CATEGORIES."""
        return int(self.name[0])

    @property
    def reference(self) -> Path:
        """The latest historical image."""
        return self.historical[-1]

    @property
    def has_roles_by_order(self) -> bool:
        """Whether no name says which image plays which role, so that the order of the names decides."""
        return self.label is not None and not _is_label(self.label)

    @property
    def roles(self) -> str:
        """Text for messages: which image plays which role; the event has a label."""
        assert self.label is not None
        return (
            f"{self.monitor.name} is the monitor image, {self.label.name} the label, {self.reference.name} the "
            f"reference image, {list_names([path.name for path in self.historical])} the historical images"
        )


@dataclass
class Listing:
    """The event folders of a data root, sorted by name, and what else lies in it."""

    events: list[Event] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    other_folders: list[str] = field(default_factory=list)  # names
    loose_files: list[str] = field(default_factory=list)  # names

    def first(self, count: int) -> "Listing":
        """Return the first `count` event folders by name, usable or not."""
        names = sorted([event.name for event in self.events] + [name for name, _ in self.skipped])[:count]
        return replace(
            self,
            events=[event for event in self.events if event.name in names],
            skipped=[(name, reason) for name, reason in self.skipped if name in names],
        )

    def ignored(self) -> list[str]:
        """Return one line for the folders that are no events, and one for the loose files, if there are any."""
        folders, files = len(self.other_folders), len(self.loose_files)
        lines = []
        if folders:
            kind = "1 folder is no event:" if folders == 1 else f"{folders} folders are no events:"
            lines.append(f"{kind} {list_names(self.other_folders)} (names begin with 0_ to 6_)")
        if files:
            kind = "1 loose file is ignored:" if files == 1 else f"{files} loose files are ignored:"
            lines.append(f"{kind} {list_names(self.loose_files)} (images lie in one folder per event)")
        return lines


def list_names(names: Sequence[str]) -> str:
    """Return the first names as text for a message, with an ellipsis if there are more."""
    shown = [*names[:NAMES_SHOWN], *(["..."] if len(names) > NAMES_SHOWN else [])]
    return ", ".join(shown).encode("utf-8", "replace").decode()  # names on disk can be invalid UTF-8


def list_events(data_root: Path, only: str | None = None) -> Listing:
    """List the events of a data root: the folders whose names begin with a category, `0_` to `6_`.

    `only`: name of the only folder to list; other folders and loose files are then left out. Folders without a usable
    event are listed as skipped, with the reason. Names that begin with a dot are ignored. Raises UsageError if the data
    root is missing or has no event folder, or if `only` is unknown; the message then gives the most similar names.
    """
    entries = _visible_entries(data_root)
    directories = [entry for entry in entries if _is_folder(entry)]
    folders = {_normal_form(entry.name): entry for entry in directories if is_event_name(entry.name)}
    if only is None:
        listing = Listing(
            other_folders=[entry.name for entry in directories if not is_event_name(entry.name)],
            loose_files=[entry.name for entry in entries if not _is_folder(entry)],
        )
    else:
        listing = Listing()
        folders = {only: _find_folder(data_root, folders, only)}
    if not folders:
        raise UsageError(f"{data_root}: {_why_no_events(data_root, entries)}")
    for folder in folders.values():
        try:
            listing.events.append(read_event(folder))
        except (EventError, OSError) as error:  # OSError: a folder that may not be read
            listing.skipped.append((folder.name, str(error)))
    return listing


def _why_no_events(data_root: Path, entries: Sequence[Path]) -> str:
    """Return what to do about a data root without event folders, which may be an event's folder itself."""
    has_images = any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
    if not has_images or any(map(_is_folder, entries)):
        return "no event folders (names beginning with 0_ to 6_) in this data root"
    folder = data_root.absolute()
    rename = "" if is_event_name(folder.name) else ", and let this folder's name begin with its category, 0_ to 6_"
    return f"is the folder of one event; name the folder that contains it, --data-root {folder.parent}{rename}"


def _visible_entries(data_root: Path) -> list[Path]:
    try:
        return sorted(entry for entry in data_root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(
            f"{data_root}: cannot read the data root ({error.strerror}); set it with --data-root"
        ) from None


def _find_folder(data_root: Path, folders: dict[str, Path], name: str) -> Path:
    """Return the event folder of this name. Raises UsageError with the most similar names if there is none."""
    wanted = _normal_form(name)
    if wanted in folders:
        return folders[wanted]
    similar = [folder for folder in folders if wanted.casefold() in folder.casefold()]
    similar = similar or difflib.get_close_matches(wanted, folders, n=3, cutoff=0)
    if not similar:
        raise UsageError(f"{data_root}: no event {name!r}; it has no events")
    raise UsageError(f"{data_root}: no event {name!r}; similar names: {', '.join(similar[:3])}")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link that cannot be followed
        return False


def _normal_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS may store an accented letter as two characters


def is_event_name(name: str) -> bool:
    """Return whether a folder of this name is an event: whether it begins with a category, `0_` to `6_`."""
    return len(name) > 2 and name[0] in "0123456" and name[1] == "_"


def read_event(folder: Path) -> Event:
    """Find the monitor image, the historical images and the label of an event (docs/method.md, section 1).

    File names decide their roles: `anomaly_DATE.tif`, `anomaly_DATE_label.tif` (or `.png`), `normal_DATE.tif`. If no
    file has such a name, the sorted order decides. Other images are ignored with a warning, other files without.
    Raises EventError if an image is missing or a role is ambiguous.
    """
    event = _assign_roles(folder)
    _warn_of_roles(event)
    others = _other_images(folder)
    if others:
        LOG.warning("%s: ignored %s: %s", folder, list_names(others), CONVERT)
    return event


def _warn_of_roles(event: Event) -> None:
    """Say which image plays which role if the names leave it open, and if the dates in them contradict it."""
    if event.has_roles_by_order:
        warn_once(
            f"{event.folder}: no name begins with anomaly_ or normal_, so the order of the names decides: {event.roles}"
        )
    times = [found.time for found in map(named_time, (*event.historical, event.monitor)) if found]
    if times != sorted(times):
        warn_once(
            f"{event.folder}: the dates in the names are not in the order of the names, which decides: "
            f"{event.reference.name} is the reference image, {event.monitor.name} the monitor image"
        )


def _assign_roles(folder: Path) -> Event:
    files = _images_of(folder)
    normals = [path for path in files if path.stem.lower().startswith("normal_")]
    anomalies = [path for path in files if _is_anomaly(path)]
    is_control = folder.name.startswith("0_")
    if not normals and not anomalies:
        return _normal_control(folder, files) if is_control else _event_in_order(folder, files)
    named = normals if is_control else [*normals, *anomalies]
    warning = (
        "%s: ignored, a normal control has only images that begin with normal_"
        if is_control
        else "%s: ignored, its name begins with neither anomaly_ nor normal_"
    )
    for path in files:
        if path not in named:
            LOG.warning(warning, path)
    return _normal_control(folder, normals) if is_control else _named_event(folder, anomalies, normals)


def _is_anomaly(path: Path) -> bool:
    return path.stem.lower().startswith("anomaly_")


def _is_label(path: Path) -> bool:
    return _is_anomaly(path) and "_label" in path.stem.lower() and path.suffix.lower() in LABEL_SUFFIXES


def _images_of(folder: Path) -> list[Path]:
    """Return the images and labels of an event's folder, sorted.

    Raises EventError for links that leave the data root.
    """
    if folder.resolve().parent != folder.parent.resolve():
        raise EventError(
            "the folder is a link to a folder outside the data root; copy it, or pass its real parent as --data-root"
        )
    files = [path for path in _visible_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES or _is_label(path)]
    for path in files:
        if path.is_symlink() and not path.resolve().is_relative_to(folder.parent.resolve()):
            raise EventError(
                f"{path}: a link to a file outside the data root; "
                "copy the file, or pass a --data-root that contains both"
            )
    return files


def _visible_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def _named_event(folder: Path, anomalies: list[Path], normals: list[Path]) -> Event:
    labels = [path for path in anomalies if _is_label(path)]
    monitors = [path for path in anomalies if path not in labels]
    if len(monitors) != 1 or len(labels) > 1:
        problem = (
            f"needs one monitor image anomaly_DATE.tif and at most one label, has {len(monitors)} and {len(labels)}"
        )
        if anomalies:
            problem += f": {list_names([path.name for path in (*monitors, *labels)])}"
        raise EventError(problem) if monitors else _missing_image(folder, problem)
    if not normals:
        raise _missing_image(folder, "no historical image normal_DATE.tif")
    return Event(folder, monitors[0], tuple(normals), labels[0] if labels else None)


def _event_in_order(folder: Path, files: list[Path]) -> Event:
    if len(files) < 3:
        if _other_images(folder):
            raise _missing_image(folder, "too few GeoTIFFs")
        raise EventError(
            f"{len(files)} images without anomaly_/normal_ names; "
            "needs at least 3: a monitor image, a label and a historical image"
        )
    return Event(folder, files[0], tuple(files[2:]), files[1])


def _normal_control(folder: Path, images: list[Path]) -> Event:
    if len(images) < 2:
        raise _missing_image(folder, f"a normal control needs two normal_DATE.tif or more, has {len(images)}")
    return Event(folder, images[-1], tuple(images[:-1]), None)


def _other_images(folder: Path) -> list[str]:
    """Return the names of the images of an event's folder that would have to be converted."""
    return [
        path.name
        for path in _visible_files(folder)
        if path.suffix.lower() in OTHER_IMAGE_SUFFIXES and not _is_label(path)
    ]


def _missing_image(folder: Path, problem: str) -> EventError:
    """Return the error for a missing image, with the images of other formats, which may be what is missing."""
    others = _other_images(folder)
    if not others:
        return EventError(problem)
    return EventError(f"{problem}; found {list_names(others)}: {CONVERT}")


def differing_keys(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the keys whose values differ, sorted; a missing key counts as None."""
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


# --- Windows ---------------------------------------------------------------------------------------------------------
class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row slice and column slice, to index an (H, W) array."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def tile(height: int, width: int, patch_size: int, overlap: int = 0) -> list[Window]:
    """Cover an image with square windows, column by column (docs/method.md, section 2).

    Neighbours overlap by `overlap` pixels, which is below `patch_size`. The last window in each direction is moved back
    to end at the image's edge, so it can overlap its neighbour by more. Windows larger than an image are clipped to it.

    >>> for window in tile(height=100, width=250, patch_size=100):
    ...     print(window)
    Window(x=0, y=0, width=100, height=100)
    Window(x=100, y=0, width=100, height=100)
    Window(x=150, y=0, width=100, height=100)

    """
    return [
        Window(x, y, min(patch_size, width), min(patch_size, height))
        for x in _starts(width, patch_size, overlap)
        for y in _starts(height, patch_size, overlap)
    ]


def window_side(shape: tuple[int, int], small: int, large: int) -> int:
    """Return the side of stage 2's windows for an image of this height and width (docs/method.md, section 2)."""
    return small if min(shape) < large else large


def owned_parts(windows: Iterable[Window], deepest: bool = False) -> dict[Window, Window]:
    """Return the part of each window from which the map takes its pixels; the parts cover the image without overlap.

    Where windows overlap, the later one takes precedence (docs/method.md, section 2). If `deepest`, a pixel belongs to
    the window in whose interior it lies deepest: neighbours are divided in the middle of their overlap. `windows`: all
    windows of an image, as returned by `tile`.

    >>> windows = tile(height=100, width=250, patch_size=100)
    >>> [part.width for part in owned_parts(windows).values()]
    [100, 50, 100]
    >>> [part.width for part in owned_parts(windows, deepest=True).values()]
    [100, 75, 75]

    """
    listed = list(windows)
    columns = _owned_spans({(window.x, window.width) for window in listed}, deepest)
    rows = _owned_spans({(window.y, window.height) for window in listed}, deepest)
    parts = {}
    for window in listed:
        (left, right), (top, bottom) = columns[window.x], rows[window.y]
        parts[window] = Window(left, top, right - left, bottom - top)
    return parts


def _owned_spans(spans: set[tuple[int, int]], deepest: bool) -> dict[int, tuple[int, int]]:
    """Divide a direction among windows, given as (start, length): the owned (start, end) by the windows' starts."""
    ordered = sorted(spans)
    cuts = [
        (start + length + following) // 2 if deepest else following
        for (start, length), (following, _) in itertools.pairwise(ordered)
    ]
    edges = [ordered[0][0], *cuts, sum(ordered[-1])]
    return {start: owned for (start, _), owned in zip(ordered, itertools.pairwise(edges), strict=True)}


def _starts(length: int, patch_size: int, overlap: int) -> list[int]:
    return sorted({min(start, max(0, length - patch_size)) for start in range(0, length, patch_size - overlap)})


# --- Settings --------------------------------------------------------------------------------------------------------
def from_config(name: str) -> Any:
    """Return a dataclass field whose default is a setting of config.py, read when an instance is made."""
    return field(default_factory=lambda: getattr(config, name))


# --- Atomic file writing ---------------------------------------------------------------------------------------------
@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. If the block succeeds, sync the file to disk and rename it to `path`.

    If the block fails, the temporary file is removed and `path` stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")  # some formats require their suffix
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file atomically: it appears whole or not at all. Raises an OSError that names the file."""
    try:
        with atomic_file(path) as part:
            part.write_bytes(content)
    except OSError as error:
        named = str(error.filename or "")  # empty if the disk is full
        where = named if named and Path(named).parent != path.parent else str(path)
        raise OSError(error.errno, error.strerror, where) from None


# --- Dates in names --------------------------------------------------------------------------------------------------
class NamedTime(NamedTuple):
    """The acquisition time in an image's name, and what else the name holds."""

    time: datetime
    has_clock: bool  # False: only the date is known
    before: str  # text before the date, without the role
    after: str


def named_time(path: Path) -> NamedTime | None:
    """Find the first calendar date of 1900 to 2099 in an image's name, as in 20190620, 20190620T101112Z.

    Returns None if there is none: other numbers, such as 14062019 or an identifier, are no dates.
    """
    stem = _without_role(path)
    for found in DATE.finditer(stem):
        before, (year, month, day) = stem[: found.start()].strip("_-. "), map(int, found.groups())
        with suppress(ValueError):
            date = datetime(year, month, day)
            clock = CLOCK.match(stem, found.end())
            if clock is None:
                return NamedTime(date, False, before, stem[found.end() :])
            hour, minute, second = map(int, clock.groups())
            return NamedTime(date.replace(hour=hour, minute=minute, second=second), True, before, stem[clock.end() :])
    return None


def date_text(path: Path) -> str:
    """Return the date in an image's name, as in `2019-06-20`, the time of day if there is one, and all other text.

    Without a date, returns the name without `normal_` or `anomaly_`.
    """
    found = named_time(path)
    if found is None:
        return _without_role(path)
    text = f"{found.time:%Y-%m-%d %H:%M:%S}" if found.has_clock else f"{found.time:%Y-%m-%d}"
    return text + found.after + (f" {found.before}" if found.before else "")


def _without_role(path: Path) -> str:
    return re.sub(r"^(normal|anomaly)_", "", path.stem, flags=re.IGNORECASE)
