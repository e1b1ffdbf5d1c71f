"""Tables of what a catalog has: the dates of a place, and the cells of an event."""

from collections.abc import Callable, Iterable, Sequence

from catalogs.plan import Decision, EventPlan, Measured
from utils import LOG, hide_secrets

FEW_DATES = 3  # historical dates; with fewer, the F1 of synthetic events was clearly lower (docs/results.md)
LARGE_REGION = 10_000.0  # square metres; warns if the smallest region of stage 2 is larger


def print_table(decisions: Sequence[Decision], stored_bytes: Callable[[Decision], int]) -> None:
    """Print one row per acquisition. `stored_bytes`: returns the size of what would be fetched of a chosen one."""
    rows = [("date", "sensor", "items", "covers", "clouds", "MB", "choice")]
    rows += [
        (
            str(decision.acquisition.date),
            decision.acquisition.sensor or "-",
            str(len(decision.acquisition.scenes)),
            "-" if decision.measured.coverage is None else f"{decision.measured.coverage:.0%}",
            clouds_text(decision.measured),
            f"{stored_bytes(decision) / 1e6:.1f}" if decision.role else "-",
            decision.role or (f"no: {decision.reason}" if decision.reason else "not measured"),
        )
        for decision in decisions
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_plan(plan: EventPlan, stored_bytes: Callable[[Decision], int]) -> None:
    """Print the table of all acquisitions, the grid, and the size of what would be fetched."""
    sizes = {id(decision): stored_bytes(decision) for decision in plan.chosen}
    print_table(plan.decisions, lambda decision: sizes[id(decision)])
    height, width = plan.grid.shape
    assert plan.grid.crs is not None
    print(
        f"{len(plan.chosen)} images of {width} x {height} pixels of {plan.grid.transform.xx:.4g} m in "
        f"{plan.grid.crs.GetName()}; {sum(sizes.values()) / 1e6:.1f} MB to fetch"
    )


def clouds_text(measured: Measured) -> str:
    """Return the share under clouds for a table; `item` marks what the catalog says of whole items."""
    if measured.clouds is None:
        return "unknown" if measured.coverage is not None else "-"
    return f"{measured.clouds:.0%}" if measured.clouds_measured else f"{measured.clouds:.0%} (item)"


def warn_left_out(unusable: Iterable[str]) -> None:
    """Log what a search could not use, one line each."""
    for line in unusable:
        LOG.warning("left out: %s", hide_secrets(line))


def warn_of_depth(historical: int) -> None:
    """Log a warning of what few historical dates mean for the result."""
    if historical == 1:
        LOG.warning("one historical date: stage 2 cannot tell seasonal changes from anomalies (docs/data.md)")
    elif 0 < historical < FEW_DATES:
        LOG.warning("%d historical dates explain few seasonal changes: expect false alarms (docs/data.md)", historical)


def warn_of_resolution(metres: float, least_pixels: Sequence[int]) -> None:
    """Log a warning if the smallest regions of the two stages are large on the ground."""
    first, second = (pixels * metres**2 for pixels in least_pixels)
    if second > LARGE_REGION:
        LOG.warning(
            "pixels of %.3g m: the smallest regions are %.1f hectares in stage 1 and %.1f in stage 2; "
            "nothing smaller is found",
            metres,
            first / 1e4,
            second / 1e4,
        )
