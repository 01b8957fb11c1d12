"""The sample-ratio check, against values that are printed in tables."""

import pytest

from app.sample_ratio import p_value, ratio
from schema.loader import Mode


@pytest.mark.parametrize(
    ("statistic", "freedom", "p"),
    [
        (3.841458820694124, 1, 0.05),
        (10.827566170662733, 1, 0.001),
        (5.991464547107979, 2, 0.05),
        (7.814727903251179, 3, 0.05),
        (16.26623619623813, 3, 0.001),
        (9.487729036781154, 4, 0.05),
        (0.0, 1, 1.0),
        (0.0, 2, 1.0),
        (0.0, 3, 1.0),
    ],
)
def test_a_p_value_is_that_of_the_tables(statistic: float, freedom: int, p: float) -> None:
    assert p_value(statistic, freedom) == pytest.approx(p, rel=1e-9)


def test_subjects_that_come_as_the_weights_have_it_raise_no_alarm() -> None:
    found = ratio({"view": 5050, "cache-aside": 4950}, {"view": 50, "cache-aside": 50})
    assert found.p == pytest.approx(0.3173105, abs=1e-6)
    assert not found.wrong


@pytest.mark.parametrize("weights", [{"view": 50, "cache-aside": 50}, {"view": 1, "cache-aside": 1, "sql": 0}])
def test_an_arm_that_loses_some_of_its_subjects_raises_the_alarm(weights: dict[Mode, int]) -> None:
    assert ratio({"view": 4200, "cache-aside": 3900}, weights).wrong


def test_unequal_weights_are_what_is_expected() -> None:
    weights: dict[Mode, int] = {"view": 90, "cache-aside": 9, "sql": 1}
    assert not ratio({"view": 9010, "cache-aside": 893, "sql": 97}, weights).wrong
    assert ratio({"view": 3000, "cache-aside": 3000, "sql": 3000}, weights).wrong


@pytest.mark.parametrize("subjects", [{}, {"view": 9}, {"view": 100, "cache-aside": 100}])
def test_too_few_subjects_or_a_single_arm_say_nothing(subjects: dict[Mode, int]) -> None:
    alone = ratio(subjects, {"view": 1} if len(subjects) == 2 else {"view": 1, "cache-aside": 1})
    assert (alone.p, alone.wrong) == (None, False)
