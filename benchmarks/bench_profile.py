"""Profiles stage 1 on one window, in the literal method and in ours; needs no GDAL.

    python -m benchmarks.bench_profile --device cpu --size 2048

Each part is timed from its call to the end of its device work, with one thread: parts of several would not add up.
"""

import argparse
import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import segment_anything.automatic_mask_generator as stock
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, Sam

import stage1_analysis
from benchmarks import reference
from benchmarks.bench_waterfall import STOCK_PARAMETERS, Images, own_masks
from benchmarks.programs import SEED, STAGE1_LIMITS, Weights, add_weights_arguments, blobs_for, load, own_engine
from demo.scenes import make_event
from sam.engine import SamEngine
from sam.features import WindowFeatures
from sam.mask_generator import MaskGenerator, PendingMasks
from sam.mask_measures import WindowScale
from sam.prompt_decoder import PromptDecoder

CATEGORY = 4  # of the scene: a fire
LITERAL_PARTS: list[tuple[Any, str, str]] = [
    (SamPredictor, "set_image", "encoder, twice per image"),
    (MaskDecoder, "forward", "decoder"),
    (Sam, "postprocess_masks", "masks to full size"),
    (stock, "calculate_stability_score", "stability"),
    (stock, "batched_mask_to_box", "boxes"),
    (stock, "mask_to_rle_pytorch", "run-length encoding"),
    (stock.SamAutomaticMaskGenerator, "postprocess_small_regions", "small regions, second suppression"),
    (reference, "upsampled_features", "features to full size"),
    (reference, "_region_mean", "region averages"),
]
OUR_PARTS: list[tuple[Any, str, str]] = [
    (SamEngine, "encode", "encoder, once per image"),
    (PromptDecoder, "decode", "decoder"),
    (WindowScale, "measure", "stability and boxes"),
    (MaskGenerator, "_full_size", "masks to full size"),
    (PendingMasks, "collect", "waiting for small regions, second suppression"),
    (WindowFeatures, "mask_counts", "cell counts"),
    (stage1_analysis, "region_means", "region averages"),
]


@contextmanager
def parts_timed(parts: list[tuple[Any, str, str]], device: str) -> Iterator[dict[str, float]]:
    """Yield the seconds that the block spends in each part, by title."""
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as patches:
        for owner, name, title in parts:
            part = timed(getattr(owner, name), title, seconds, device)
            if isinstance(inspect.getattr_static(owner, name), staticmethod):
                part = staticmethod(part)
            patches.enter_context(mock.patch.object(owner, name, part))
        yield seconds


def timed(work: Callable[..., Any], title: str, seconds: dict[str, float], device: str) -> Callable[..., Any]:
    """Return `work`, extended to add its time to the seconds of its title."""

    def run(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = work(*arguments, **keywords)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        seconds[title] += time.perf_counter() - started
        return result

    return run


def main() -> None:
    """Profile both programs and print their parts, the slowest first."""
    parser = argparse.ArgumentParser(description="Show where the time of stage 1 goes.")
    add_weights_arguments(parser)
    parser.add_argument("--size", type=int, default=2048, help="side of the window, pixels (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    event = make_event(SEED, CATEGORY, args.size, 1)
    images, weights = Images(event.historical[-1], event.monitor), Weights.of(args)
    stock_model, engine = load(weights).to(args.device), own_engine(weights, args.device)

    def ours() -> None:
        own_masks(engine, engine.encode([engine.scale(image) for image in images]), images)

    programs: dict[str, tuple[Callable[[], Any], list[tuple[Any, str, str]]]] = {
        "ours": (ours, OUR_PARTS),
        "literal": (
            lambda: reference.stage1_window(stock_model, *images, STOCK_PARAMETERS, *STAGE1_LIMITS),
            LITERAL_PARTS,
        ),
    }
    for program, (work, parts) in programs.items():
        with blobs_for(weights, stock_model), parts_timed(parts, args.device) as seconds:
            started = time.perf_counter()
            work()
            total = time.perf_counter() - started
        print(f"{program}: {total:.2f} s")
        for title, spent in sorted(seconds.items(), key=lambda part: -part[1]):
            print(f"  {spent:8.2f} s  {spent / total:6.1%}  {title}")
        print(f"  {total - sum(seconds.values()):8.2f} s  the rest", flush=True)


if __name__ == "__main__":
    main()
