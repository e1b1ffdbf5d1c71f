"""Data sets of image pairs in folders: LEVIR-CD, S2Looking, GVLM.

None of them names its dates: those of the event folders are made up.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datasets.event_folder import EventReader, Labelled, NewEvent, open_raster
from utils import UsageError

BEFORE, AFTER = "20000101", "20200101"  # made up
SPLITS = ("train", "val", "test")


def _is_set(values: np.ndarray) -> np.ndarray:
    return values > 0


def _label(path: Path) -> Labelled:
    return Labelled(open_raster(path), _is_set)


def levir_cd(source: Path) -> Iterator[EventReader]:
    """LEVIR-CD: `train`, `val` and `test`, or one of them, with `A`, `B` and `label`."""
    return _split_pairs(source, "LEVIR", "A", "B", "label")


def s2looking(source: Path) -> Iterator[EventReader]:
    """S2Looking: `train`, `val` and `test`, or one of them, with `Image1`, `Image2` and `label`."""
    return _split_pairs(source, "S2Looking", "Image1", "Image2", "label")


def _split_pairs(source: Path, name: str, before: str, after: str, label: str) -> Iterator[EventReader]:
    folders = [folder for folder in (source, *(source / split for split in SPLITS)) if (folder / before).is_dir()]
    if not folders:
        raise UsageError(f"{source}: no folder {before}, {after} and {label}, nor {', '.join(SPLITS)} with them")
    for folder in folders:
        prefix = "" if folder == source else f"{folder.name}_"
        for image in sorted((folder / before).glob("*.png")):
            # LEVIR-CD's names begin with the split already.
            yield partial(
                NewEvent,
                f"6_{name}_{prefix * (not image.stem.startswith(prefix))}{image.stem}",
                {BEFORE: image},
                (AFTER, folder / after / image.name),
                partial(_label, folder / label / image.name),
            )


def gvlm(source: Path) -> Iterator[EventReader]:
    """GVLM: one folder per landslide site, with `im1.png`, `im2.png` and `ref.png`."""
    sites = sorted(path.parent for path in source.glob("*/im1.png"))
    if not sites:
        raise UsageError(f"{source}: no folder with im1.png, im2.png and ref.png")
    for site in sites:
        name = f"3_GVLM_{site.name.replace(' ', '_')}"
        label = partial(_label, site / "ref.png")
        yield partial(NewEvent, name, {BEFORE: site / "im1.png"}, (AFTER, site / "im2.png"), label)
