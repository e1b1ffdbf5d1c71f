"""Measures the host work around the SAM: both stages with a device that only takes time; needs GDAL.

    python -m benchmarks.bench_host --device-seconds 0 0
    python -m benchmarks.bench_host --device-seconds 2.0 0.5 --events 8

The device is simulated: per window it sleeps for the given seconds, without Python's lock, and returns features of
ViT-B's shape and some 98 blobs per image (`blobs.py`). Everything else is the shipped code on real files: reading,
scaling, cleaning masks, averages, writing maps. A GPU would also count the pixels of the regions; here the CPU does.

The events are measured twice. First in one run, as `run.py --stage all` computes them: wall time, the share of it in
which the device is idle, CPU time, peak memory. Then step by step, nothing at once: the CPU time for opening events and
for writing their maps, per megapixel, and for the windows between, per window of both stages.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from torch.nn import functional as F

import run
from benchmarks.bench_raster import write_rasters
from benchmarks.blobs import SQUARES, blob_masks
from benchmarks.measure import append_rows, describe_environment, measure
from benchmarks.stepwise import compute_windows
from cli.flags import positive_int
from img_io import event_shape
from pipeline.feature_cache import FeatureCache
from pipeline.local import run_here
from pipeline.stage import advance
from pipeline.stage2 import Stage2Settings
from sam.assemble import assemble_sam
from sam.engine import SamEngine, ScaledImage
from sam.features import WindowFeatures
from sam.flags import SamFlags
from sam.mask_generator import MaskParameters, PendingMasks, ignore_points
from sam.masks import Mask
from sam.settings import EngineSettings, engine_settings
from sam.weights import SamIdentity
from utils import Event, list_events

RESULTS = Path(__file__).parent / "results" / "host.csv"
SEED = 14  # of the features
SCENE = 2048  # pixels, at most; the images repeat it, and the blobs are those of a window of this size
CHANNELS, CELLS, INPUT = 256, 64, 1024  # of ViT-B's features, and its input
KINDS = 4  # different features and sets of masks


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the host work around a simulated device.")
    parser.add_argument(
        "--device-seconds",
        nargs=2,
        type=float,
        metavar=("S1", "S2"),
        default=(0.0, 0.0),
        help="seconds per window in stage 1 and stage 2 (default: 0 0)",
    )
    parser.add_argument("--events", type=positive_int, default=2, help="(default: %(default)s)")
    parser.add_argument(
        "--size", type=positive_int, default=4096, help="side of the images, pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--dates", type=positive_int, default=5, help="images, the monitor included, at least 3 (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    if args.dates < 3:
        parser.error("--dates: at least 3, as stage 2 encodes only the dates that stage 1 does not")
    return args


# --- The device ------------------------------------------------------------------------------------------------------
class DeviceSeconds(NamedTuple):
    """Seconds of the simulated device."""

    per_image: float  # for encoding
    per_masks: float  # for the masks of an image


class SimulatedEngine(SamEngine):
    """The engine with a device that only takes time."""

    def __init__(self, seconds: DeviceSeconds, side: int) -> None:
        """`side`: of the windows, pixels."""
        super().__init__(_small_sam(), torch.device("cpu"))
        self._seconds = seconds
        self.busy_seconds = 0.0
        torch.manual_seed(SEED)
        self._embeddings = torch.randn(KINDS, 1, CHANNELS, CELLS, CELLS) + 1
        self._masks = [_blobs(seed, side) for seed in range(KINDS)]
        self.generator.generate = self._generate  # type: ignore[method-assign]

    def _work(self, seconds: float) -> None:
        self.busy_seconds += seconds
        time.sleep(seconds)

    def encode(self, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        """Return features that depend on the image, after the seconds of encoding."""
        self._work(self._seconds.per_image * len(images))
        return [
            WindowFeatures.from_embedding(
                self._embeddings[_kind(image.pixels)].clone(), image.window_size, image.pixels.shape[:2], INPUT
            )
            for image in images
        ]

    def _generate(self, image: np.ndarray | None, features: WindowFeatures, parameters: MaskParameters) -> PendingMasks:
        """Return blobs that depend on the features, after the seconds of mask generation."""
        self._work(self._seconds.per_masks)
        height, width = features.window_size
        (kind,) = torch.nonzero(self._embeddings[:, 0, 0, 0, 0] == features.embedding[0, 0, 0, 0])[0].tolist()
        masks = [
            Mask.of(np.unpackbits(bits, axis=1, count=columns).view(bool)[: height - y, : width - x], x, y)
            for bits, columns, x, y in self._masks[kind]
            if x < width and y < height
        ]
        return self.generator._cleaned(masks, features.window_size, parameters)


def _kind(pixels: np.ndarray) -> int:
    return int(pixels[::64, ::64].sum()) % KINDS


def _small_sam() -> Sam:
    """Return a small SAM with the input and the number of channels of the official ones; it is never run."""
    encoder = ImageEncoderViT(depth=1, embed_dim=16, img_size=INPUT, num_heads=1, out_chans=CHANNELS, use_rel_pos=True)
    return assemble_sam(encoder, INPUT, CHANNELS, mlp_dim=16, heads=8, iou_dim=16)


def _blobs(seed: int, side: int) -> list[tuple[np.ndarray, int, int, int]]:
    """Return a mask per object: packed rows of its box, the box's width, and its first column and row."""
    centers, levels = [], []
    for level, count in enumerate(SQUARES):
        positions = (torch.arange(count) + 0.5) * INPUT / count
        centers.append(torch.cartesian_prod(positions, positions))
        levels += [level] * count**2
    points = (torch.cat(centers) * 8).round() / 8
    logits = torch.cat([blob_masks(part, INPUT, seed)[0] for part in points.split(16)])
    masks = []
    for logit, level in zip(logits, levels, strict=True):
        (pixels,) = F.interpolate(logit[None, level : level + 1], (side, side), mode="bilinear")[0] > 0
        rows, columns = (pixels.any(axis).nonzero()[:, 0] for axis in (1, 0))
        if len(rows):
            box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].numpy()
            masks.append((np.packbits(box, axis=1), box.shape[1], int(columns[0]), int(rows[0])))
    return masks


# --- The runs --------------------------------------------------------------------------------------------------------
def write_events(folder: Path, count: int, size: int, dates: int) -> None:
    """Write events whose images repeat a scene, in the published layout; all events link to the same files."""
    first, *others = (folder / f"4_event_{number}" for number in range(count))
    write_rasters(first, size, size, dates, min(size, SCENE), repeated=True)
    for event in others:
        event.mkdir()
        for file in first.iterdir():
            os.link(file, event / file.name)


class SimulatedSettings(EngineSettings):
    """Settings from which a simulated engine is loaded."""

    engine: SimulatedEngine

    def load(self, points_done: Callable[[int], object] = ignore_points) -> SamEngine:
        """Return the simulated engine."""
        return type(self).engine


class StepSeconds(NamedTuple):
    """CPU seconds of one event after another."""

    events: float  # opening them and writing their maps
    windows: float


def measure_steps(events: Sequence[Event], args: argparse.Namespace, engine: SimulatedEngine) -> StepSeconds:
    """Compute events step by step, nothing at once."""
    identity = SamIdentity({}, "")
    seconds = [0.0, 0.0]
    for event in events:
        with FeatureCache(event.folder, Stage2Settings().tile(event_shape(event))) as features:
            times = [time.process_time()]
            progress = advance(None, run.plan(event, args), identity)
            while progress.stage is not None:
                times.append(time.process_time())
                compute_windows(progress, engine, features)
                times.append(time.process_time())
                progress = advance(progress.stage, progress.rest, identity)
            times.append(time.process_time())
        for number, took in enumerate(np.diff(times)):
            seconds[number % 2] += took
    return StepSeconds(*seconds)


def main() -> None:
    """Measure, print, append to the results."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        write_events(Path(folder) / "events", args.events, args.size, args.dates)
        listing = list_events(Path(folder) / "events")
        parsed = [_arguments(Path(folder) / name) for name in ("together", "apart")]
        windows = len(run.plan(listing.events[0], parsed[0])[0].tile_event()) * args.events
        settings = SimulatedSettings(*engine_settings(SamFlags.of(parsed[0]), torch.device("cpu")))
        stage1, stage2 = args.device_seconds
        per_image = stage2 / (args.dates - 2)  # stage 2 encodes neither the reference nor the monitor image again
        side = min(args.size, SCENE)
        engine = SimulatedEngine(DeviceSeconds(per_image, max(stage1 / 2 - per_image, 0)), side)
        SimulatedSettings.engine = engine
        cpu = time.process_time()
        _, took = measure("cpu", lambda: run_here("both", listing, partial(_plan, parsed[0]), settings))
        cpu, busy = time.process_time() - cpu, engine.busy_seconds
        steps = measure_steps(listing.events[:2], parsed[1], SimulatedEngine(DeviceSeconds(0, 0), side))
        steps_of = min(args.events, 2)
    row = describe_environment("cpu") | {
        "cores": str(os.cpu_count()),
        "events": str(args.events),
        "size": str(args.size),
        "dates": str(args.dates),
        "windows per stage": str(windows),
        "device s": f"{busy:.1f}",
        "wall s": f"{took.seconds:.1f}",
        "wall / device": f"{took.seconds / busy:.3f}" if busy else "",
        "device idle": f"{1 - busy / took.seconds:.3f}",
        "CPU s per window": f"{cpu / windows:.2f}",
        "windows alone, CPU s each": f"{steps.windows / windows * args.events / steps_of:.2f}",
        "events alone, CPU s per megapixel": f"{steps.events / steps_of / (args.size**2 / 1e6):.3f}",
        "host MiB": f"{took.host_bytes / 2**20:.0f}",
    }
    print("  ".join(f"{column}: {value}" for column, value in row.items()))
    append_rows(args.results, [row])


def _arguments(root: Path) -> argparse.Namespace:
    roots = ["--stage1-root", str(root / "stage1"), "--stage2-root", str(root / "stage2")]
    return run.parse_arguments([*roots, "--device", "cpu", "--sam-model-type", "vit_demo"])


def _plan(args: argparse.Namespace, event: Event) -> Any:
    return run.plan(event, args)


if __name__ == "__main__":
    main()
