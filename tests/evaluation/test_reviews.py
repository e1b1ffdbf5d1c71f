"""Reviews of regions: reading, majority, matching by place and shape, and the polygons' file."""

import json
import shutil
from pathlib import Path

import pytest
from osgeo import gdal, ogr

import config
import run_eval
import run_report
from evaluation.reviewed import accepted_share
from evaluation.reviews import (
    Judgement,
    Review,
    ReviewedRegion,
    add_reviews,
    judge,
    match_reviews,
    read_judgements,
    read_reviews,
)
from report.event_report import slug
from tests.scripts import FIRE
from utils import EventError, UsageError


def square(x: float, y: float, side: float) -> ogr.Geometry:
    corners = ((x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y))
    return ogr.CreateGeometryFromWkt(f"POLYGON(({', '.join(f'{x} {y}' for x, y in corners)}))")


def review(
    verdict: str, reviewer: str = "Ada", note: str = "", time: str = "", outline: ogr.Geometry | None = None
) -> Review:
    return Review(FIRE, outline or square(0, 0, 1), verdict, note, reviewer, time)


def feature(one: Review) -> dict[str, object]:
    properties = {
        "event": one.event,
        "verdict": one.verdict,
        "note": one.note,
        "reviewer": one.reviewer,
        "time": one.time,
    }
    return {"type": "Feature", "geometry": json.loads(one.outline.ExportToJson()), "properties": properties}


def write_reviews(path: Path, *reviews: Review) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*map(feature, reviews)]}), encoding="utf-8")
    return path


@pytest.fixture
def regions(finished: Path, tmp_path: Path) -> Path:
    """The polygons of a run."""
    return Path(shutil.copytree(finished, tmp_path / "results")) / "stage2" / FIRE / config.REGIONS_NAME


def outline_of(path: Path) -> ogr.Geometry:
    """Return the first region in WGS 84."""
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    layer = dataset.GetLayer(0)
    wgs84 = ogr.osr.SpatialReference()
    wgs84.ImportFromEPSG(4326)
    wgs84.SetAxisMappingStrategy(ogr.osr.OAMS_TRADITIONAL_GIS_ORDER)
    for one in layer:
        outline = one.GetGeometryRef().Clone()
        outline.TransformTo(wgs84)
        return outline
    raise AssertionError("no region")


def test_the_majority_decides_and_a_tie_is_uncertain() -> None:
    assert judge([review("accepted", note="gone")]) == Judgement("accepted", "gone", "Ada")
    votes = [review("accepted", "Ada"), review("rejected", "Bea", "a shadow"), review("accepted", "Cy", "roof")]
    assert judge(votes) == Judgement("accepted", "Bea: a shadow; Cy: roof", "Ada, Bea, Cy")
    assert judge(votes[:2]).verdict == "uncertain"
    assert (
        judge([review("uncertain", "Ada"), review("uncertain", "Bea"), review("accepted", "Cy")]).verdict == "uncertain"
    )


def test_the_latest_verdict_of_a_reviewer_counts() -> None:
    twice = [review("rejected", time="2026-02-01T00:00:00Z"), review("accepted", time="2026-01-01T00:00:00Z")]
    assert judge(twice) == Judgement("rejected", "", "Ada")


def test_reviews_belong_to_regions_by_place_and_shape() -> None:
    outlines = [square(0, 0, 10), square(20, 0, 10)]
    moved, small, far = square(21, 0, 10), square(0, 0, 6), square(50, 50, 1)
    matched, unmatched = match_reviews(outlines, [review("accepted", outline=one) for one in (moved, small, far)])
    assert list(matched) == [1]  # 9 / 11 of the second; 36 / 100 of the first is another shape
    assert [one.outline.GetEnvelope() for one in unmatched] == [small.GetEnvelope(), far.GetEnvelope()]
    assert match_reviews([], [review("accepted", outline=far)])[0] == {}


def test_reviews_are_read_from_exports(tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "ada.geojson", review("accepted", "", "x"), review("rejected", "Bea"))
    assert [(one.reviewer, one.verdict) for one in read_reviews([path])] == [("ada", "accepted"), ("Bea", "rejected")]


@pytest.mark.parametrize("text", ["", "[]", '{"features": [{"properties": {}}]}', '{"features": 3}', "\x00"])
def test_other_files_are_no_reviews(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.geojson"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a review that a report's page exported"):
        read_reviews([path])
    with pytest.raises(UsageError, match="cannot be read"):
        read_reviews([tmp_path / "missing.geojson"])


def test_verdicts_are_written_into_the_polygons(regions: Path) -> None:
    assert read_judgements(regions) == []
    outline = outline_of(regions)
    assert add_reviews(regions, [review("accepted", note="gone", outline=outline)]) == (1, [])
    (found,) = read_judgements(regions)
    assert found.judgement == Judgement("accepted", "gone", "Ada")
    assert add_reviews(regions, [review("rejected", outline=outline)]) == (1, [])  # replaces the earlier one
    assert [one.judgement for one in read_judgements(regions)] == [Judgement("rejected", "", "Ada")]
    far = review("accepted", outline=square(0, 0, 1))
    assert add_reviews(regions, [far]) == (0, [far])
    assert read_judgements(regions) == []


def test_polygons_that_are_open_or_missing_are_refused(regions: Path) -> None:
    journal = regions.with_name(f"{regions.name}-wal")
    journal.touch()
    with pytest.raises(EventError, match="is open in another program"):
        add_reviews(regions, [])
    journal.unlink()
    regions.unlink()
    with pytest.raises(EventError, match="not found; run stage 2"):
        add_reviews(regions, [])
    assert read_judgements(regions) == []


def test_the_scripts_take_reviews(
    regions: Path,
    small_events: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    outline = outline_of(regions)
    files = [
        write_reviews(tmp_path / "a.geojson", review("accepted", "Ada", outline=outline)),
        write_reviews(tmp_path / "b.geojson", review("rejected", "Bea", outline=square(0, 0, 1))),
        write_reviews(tmp_path / "c.geojson", review("rejected", "Cy", outline=outline)._replace(event="1_other")),
    ]
    roots = ["--data-root", str(small_events), "--result-root", str(regions.parents[1])]
    report = ["--stage1-root", str(regions.parents[2] / "stage1"), "--output", str(tmp_path / "report")]
    assert run_report.main([*roots, *report, "--review", *map(str, files)]) == 0
    assert "1_other: reviewed, but no event of this data root" in caplog.text
    assert "no region has the place and shape of the one that Bea rejected at 0.50000, 0.50000" in caplog.text
    page = (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    assert '"verdicts":[[1,"accepted","","Ada"]]' in page
    assert run_eval.main([*roots, "--reviewed"]) == 0
    output = capsys.readouterr().out
    assert "Reviewed regions: 1 in 1 event\n" in output
    assert "1.000" in next(line for line in output.splitlines() if line.strip().startswith("0.08"))


def test_the_share_accepted_leaves_uncertain_regions_out() -> None:
    regions = [
        ReviewedRegion(number, 9, 0.5, Judgement(verdict, "", ""))
        for number, verdict in enumerate(["accepted", "accepted", "rejected", "uncertain"])
    ]
    assert accepted_share(regions) == pytest.approx(2 / 3)
    assert accepted_share(regions[3:]) is None
