"""Prints which share of the reviewed regions was accepted, over the threshold."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import config
from evaluation.reviews import VERDICTS, ReviewedRegion, read_judgements

STEPS = (0.08, 0.1, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # besides the evaluation's own threshold


def accepted_share(regions: Sequence[ReviewedRegion]) -> float | None:
    """Return the share of accepted regions among the accepted and rejected ones; None if there are none."""
    decided = [region for region in regions if region.judgement.verdict != "uncertain"]
    accepted = sum(region.judgement.verdict == "accepted" for region in decided)
    return accepted / len(decided) if decided else None


def print_reviewed(names: Sequence[str], result_root: Path, threshold: float) -> None:
    """Print a table of the reviewed regions of some events: at each threshold, those whose highest score reaches it.

    `threshold`: of stage 2, the table's first one.
    """
    by_event = [read_judgements(result_root / name / config.REGIONS_NAME) for name in names]
    regions = list(chain.from_iterable(by_event))
    events = sum(map(bool, by_event))
    print(f"Reviewed regions: {len(regions)} in {events} event{'' if events == 1 else 's'}")
    if not regions:
        return
    print("  threshold  regions  accepted  rejected  uncertain  accepted share")
    for step in (threshold, *(step for step in STEPS if step > threshold)):
        left = [region for region in regions if region.max_score >= step]
        counts = [sum(region.judgement.verdict == verdict for region in left) for verdict in VERDICTS]
        share = accepted_share(left)
        text = "" if share is None else f"{share:.3f}"
        print(f"  {step:9g}  {len(left):7}  {counts[0]:8}  {counts[1]:8}  {counts[2]:9}  {text:>14}")
