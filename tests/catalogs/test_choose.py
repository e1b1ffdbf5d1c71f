from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from catalogs.choose import Candidate, choose_historical, days_apart, why_unusable
from tests.helpers import property_test

LATEST = date(2021, 6, 20)  # day 171
candidates = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 45).map(lambda step: date(2019, 1, 1) + timedelta(20 * step)),
        st.sampled_from([0.0, 0.3, 0.6, 0.95, 1.0]),
        st.floats(0, 1),
    ),
    max_size=12,
)


def image(text: str, coverage: float = 1.0, clouds: float = 0.0) -> Candidate:
    return Candidate(date.fromisoformat(text), coverage, clouds)


def chosen_days(images: list[Candidate], wanted: int) -> list[str]:
    choice = choose_historical(images, wanted, 20)
    return [str(images[index].day) for index in choice.chosen]


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [
        ("2021-03-01", "2021-03-01", 0),
        ("2021-03-01", "2019-03-01", 0),
        ("2021-01-01", "2021-12-31", 1),
        ("2019-12-22", "2021-01-10", 19),  # days 356 and 10
        ("2021-01-10", "2021-06-20", 161),
        ("2021-01-01", "2021-07-02", 182),
        ("2021-01-01", "2021-07-03", 182),  # 183 days forwards, 182 backwards
        ("2020-02-29", "2021-03-01", 1),
        ("2020-02-29", "2021-02-28", 0),  # both are day 59
        ("2020-12-31", "2021-01-01", 1),
        ("2020-12-31", "2021-12-31", 0),
        ("2020-06-01", "2021-06-01", 0),
    ],
)
def test_days_apart_are_counted_around_the_year(first: str, second: str, days: int) -> None:
    one, other = date.fromisoformat(first), date.fromisoformat(second)
    assert days_apart(one, other) == days_apart(other, one) == days


@pytest.mark.parametrize("clouds", [0.2, 0.0])
def test_clouds_up_to_the_limit_are_usable(clouds: float) -> None:
    assert why_unusable(image("2021-06-20", clouds=clouds), 20, 0.5) is None


def test_reasons_name_coverage_and_clouds() -> None:
    assert why_unusable(image("2021-06-20", coverage=0.4), 20, 0.5) == "covers only 40% of the box"
    assert why_unusable(image("2021-06-20", clouds=0.3), 20, 0.5) == "clouds on 30%, above --max-cloud"


def test_reference_is_the_latest_whole_and_clear_image() -> None:
    images = [
        image("2021-06-20"),
        image("2021-06-25", clouds=0.5),
        image("2020-01-01"),
        image("2021-06-23", coverage=0.94),
    ]
    choice = choose_historical(images, 1, 20)
    assert choice.chosen == [0]
    assert choice.reasons == {
        1: "clouds on 50%, above --max-cloud",
        2: "its season is covered",
        3: "covers only a part of the box, as no reference image may",
    }


def test_dates_farthest_in_the_year_are_taken_one_after_another() -> None:
    # Distances from day 171: 161, 71, 20, 112. Then, with day 10: 71, 20, 92.
    images = [image(day) for day in ("2021-01-10", "2020-04-09", "2019-07-10", "2019-10-10")] + [
        Candidate(LATEST, 1, 0)
    ]
    assert chosen_days(images, 1) == ["2021-06-20"]
    assert chosen_days(images, 2) == ["2021-01-10", "2021-06-20"]
    assert chosen_days(images, 3) == ["2019-10-10", "2021-01-10", "2021-06-20"]
    assert chosen_days(images, 4) == ["2019-10-10", "2020-04-09", "2021-01-10", "2021-06-20"]
    assert chosen_days(images, 9) == ["2019-07-10", "2019-10-10", "2020-04-09", "2021-01-10", "2021-06-20"]


def test_clearer_date_is_taken_among_nearly_as_far_ones() -> None:
    near = [image("2021-01-10", clouds=0.1), image("2021-01-24"), Candidate(LATEST, 1, 0)]  # 161 and 147 days
    assert chosen_days(near, 2) == ["2021-01-24", "2021-06-20"]
    not_near = [image("2021-01-10", clouds=0.1), image("2021-01-25"), Candidate(LATEST, 1, 0)]  # 161 and 146 days
    assert chosen_days(not_near, 2) == ["2021-01-10", "2021-06-20"]


def test_more_complete_then_later_date_is_taken_among_equally_clear_ones() -> None:
    images = [image("2021-01-10", coverage=0.9), image("2021-01-12"), image("2020-01-12"), Candidate(LATEST, 1, 0)]
    assert chosen_days(images, 2) == ["2021-01-12", "2021-06-20"]


def test_one_acquisition_of_a_date_is_chosen() -> None:
    images = [
        image("2021-01-10", clouds=0.1),
        image("2021-01-10"),
        image("2021-01-10", clouds=0.2),
        image("2021-06-20"),
    ]
    choice = choose_historical(images, 9, 20)
    assert choice.chosen == [1, 3]
    assert choice.reasons == dict.fromkeys((0, 2), "another image of this date is better")


def test_partial_image_does_not_displace_the_only_whole_one_of_its_date() -> None:
    # Both are usable, and only the first can be the reference image.
    images = [image("2021-06-20", clouds=0.15), image("2021-06-20", coverage=0.9)]
    assert choose_historical(images, 9, 20).chosen == [0]


def test_partial_dates_are_used_before_the_reference() -> None:
    images = [image("2021-01-10", coverage=0.5), image("2020-10-10", coverage=0.49), image("2021-06-20")]
    choice = choose_historical(images, 9, 20)
    assert choice.chosen == [0, 2]
    assert choice.reasons == {1: "covers only 49% of the box"}


def test_without_a_whole_image_nothing_is_chosen() -> None:
    choice = choose_historical([image("2021-01-10", coverage=0.9), image("2021-06-20", coverage=0.7)], 9, 20)
    assert choice.chosen == []
    assert choice.reasons == dict.fromkeys((0, 1), "covers only a part of the box")


def test_nothing_is_chosen_from_nothing() -> None:
    assert choose_historical([], 6, 20) == ([], {})


@property_test
@given(images=candidates, wanted=st.integers(1, 6), max_cloud=st.floats(0, 100))
def test_choice_is_complete_and_keeps_its_rules(images: list[Candidate], wanted: int, max_cloud: float) -> None:
    chosen, reasons = choose_historical(images, wanted, max_cloud)
    days = [images[index].day for index in chosen]
    assert days == sorted(set(days))
    assert len(chosen) <= wanted
    assert set(chosen) | set(reasons) == set(range(len(images)))
    assert not set(chosen) & set(reasons)
    assert all(reasons.values())
    assert all(why_unusable(images[index], max_cloud, config.STAGE2_MIN_DATE_COVERAGE) is None for index in chosen)
    whole = [one for one in images if why_unusable(one, max_cloud, config.CATALOG_MIN_COVERAGE) is None]
    assert bool(chosen) == bool(whole)
    if chosen:
        assert images[chosen[-1]].coverage >= config.CATALOG_MIN_COVERAGE
        assert days[-1] == max(one.day for one in whole)
