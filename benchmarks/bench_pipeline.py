"""Times the pipeline against the literal method, alternately, on the same window and weights; needs no GDAL.

    python -m benchmarks.bench_pipeline --device cuda:0 --model vit_b --random --size 2048 --dates 5

Each program runs in its own process, so that its peak memory is measured alone. Rows are appended to a CSV.
"""

import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import config
from benchmarks.measure import Measurement, append_rows, describe_environment
from benchmarks.programs import SEED, TOLERANCE, Outcome, Weights, add_weights_arguments, run_ours, run_reference
from demo.scenes import SyntheticEvent, make_event
from sam.execution import PRECISIONS, Execution

RESULTS = Path(__file__).parent / "results" / "pipeline.csv"
CATEGORY = 4  # of the scene: a fire


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time the pipeline against the literal method.")
    add_weights_arguments(parser)
    parser.add_argument("--size", type=int, default=2048, help="side of the window, pixels (default: %(default)s)")
    parser.add_argument("--dates", type=int, default=5, help="images, the monitor included (default: %(default)s)")
    parser.add_argument(
        "--precision", nargs="+", choices=tuple(PRECISIONS), default=["fp32"], help="of the pipeline (default: fp32)"
    )
    parser.add_argument("--points-per-batch", type=int, help="of the pipeline (default: from the device's memory)")
    parser.add_argument("--encode-batch", type=int, help="of the pipeline (default: from the device's memory)")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile our encoder and mask decoder (default: off)"
    )
    parser.add_argument("--alone", action="store_true", help="leave out the literal method (default: off)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="repetitions; the fastest is reported (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    parser.add_argument("--program", help=argparse.SUPPRESS)  # when the script calls itself, once per program and round
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_program(args: argparse.Namespace) -> None:
    """Run one program and write its outcome to the folder."""
    weights = Weights.of(args)
    event: SyntheticEvent = pickle.loads((args.folder / "event.pickle").read_bytes())
    changes = args.folder / "changes.npy"
    if args.program == "reference":
        outcome = run_reference(weights, args.device, event, changes)
    else:
        execution = Execution(args.program, args.points_per_batch, args.encode_batch, args.compile)
        outcome = run_ours(weights, args.device, event, changes, execution)
    (args.folder / "outcome.pickle").write_bytes(pickle.dumps(outcome))


def run_alternately(args: argparse.Namespace, event: SyntheticEvent) -> dict[str, Outcome]:
    """Run every program once per round; returns each program's maps and the fastest measurement of each stage."""
    best: dict[str, Outcome] = {}
    programs = args.precision if args.alone else ("reference", *args.precision)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "event.pickle").write_bytes(pickle.dumps(event))
        for _ in range(args.rounds):
            for program in programs:
                this_script = [sys.executable, "-m", "benchmarks.bench_pipeline", *sys.argv[1:]]
                subprocess.run([*this_script, "--program", program, "--folder", folder], check=True)
                outcome: Outcome = pickle.loads((Path(folder) / "outcome.pickle").read_bytes())
                before = best.get(program, outcome)
                best[program] = outcome._replace(
                    stage1=min(outcome.stage1, before.stage1), stage2=min(outcome.stage2, before.stage2)
                )
    return best


def tabulate(args: argparse.Namespace, event: SyntheticEvent, outcomes: dict[str, Outcome]) -> list[dict[str, str]]:
    """Return one row per stage and program. Without the literal method, nothing is compared with it."""
    literal = outcomes.get("reference")
    rows = []
    for stage in ("stage1", "stage2"):
        for program, outcome in outcomes.items():
            took: Measurement = getattr(outcome, stage)
            ratio = largest = share = ""
            if literal is not None:
                maps = [o.change_map if stage == "stage1" else o.anomaly_map for o in (outcome, literal)]
                deviation = np.abs(maps[0] - maps[1])
                ratio = f"{getattr(literal, stage).seconds / took.seconds:.1f}"
                largest, share = f"{deviation.max():.1e}", f"{np.mean(deviation <= TOLERANCE):.5f}"
            rows.append(
                {
                    "stage": stage,
                    "program": program,
                    "window": str(args.size),
                    "dates": str(2 if stage == "stage1" else args.dates),
                    "masks": str(outcome.masks) if stage == "stage1" else "",
                    "seconds": f"{took.seconds:.3f}",
                    "ratio": ratio,
                    "host MiB": f"{took.host_bytes / 2**20:.0f}",
                    "device MiB": f"{took.device_bytes / 2**20:.0f}",
                    "largest deviation": largest,
                    "share within 1e-4": share,
                    "F1": f1_of(outcome.anomaly_map, event) if stage == "stage2" else "",
                }
            )
    return rows


def f1_of(anomalies: np.ndarray, event: SyntheticEvent) -> str:
    """Return F1 of an anomaly map at the published thresholds; empty if scikit-image is not installed."""
    try:
        from eval_metrics import binarize_anomaly_map, score_binary_map
    except ImportError:
        return ""
    from rasters.raster import MemoryRaster

    assert event.label is not None  # CATEGORY is not a normal control
    scores, label = MemoryRaster(anomalies), MemoryRaster(event.label)
    binary = binarize_anomaly_map(
        scores,
        config.EVAL_STAGE2_FIXED_THRESH,
        config.EVAL_AREA_RATIO,
        config.EVAL_CLOSING_SIZE,
        config.EVAL_CLOSING_RADIUS,
    )
    return f"{score_binary_map(binary, scores, label, config.EVAL_BACKGROUND_WEIGHT).f1:.4f}"


def main() -> None:
    """Run, print the table, append it to the results."""
    args = parse_arguments()
    if args.program is not None:
        run_program(args)
        return
    event = make_event(SEED, CATEGORY, args.size, args.dates - 1)
    rows = tabulate(args, event, run_alternately(args, event))
    print("  ".join(f"{column:>10}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>{max(10, len(column))}}" for column, value in row.items()))
    weights = f"{Weights.of(args).name}, {config.STAGE1_SAM_PARAMS['points_per_side']} points per side"
    described = describe_environment(args.device) | {"model": args.model, "weights": weights}
    append_rows(args.results, [described | row for row in rows])


if __name__ == "__main__":
    main()
