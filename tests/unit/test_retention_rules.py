"""Which rule decides how long a result is kept."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from django.test import override_settings

from djcelery import checks
from djcelery.ages import RetentionRule
from djcelery.conf import conf
from djcelery.exceptions import SettingError
from djcelery.managers.retention import Retention, cutoff

DAY = timedelta(days=1)
RULES = {
    "FAILURE": 30 * DAY,
    "PROGRESS": None,
    "shop.tasks.ping": 3600,
    "shop.*": 2 * DAY,
    "shop.tasks.*": {"FAILURE": 0, "SUCCESS": 3 * DAY},
    "shop.tasks.charge": {"FAILURE": 60 * DAY},
}


@pytest.fixture
def retention():
    with override_settings(DJCELERY_RETENTION=RULES):
        return Retention.from_settings(DAY)


@pytest.mark.parametrize(
    ("name", "state", "age"),
    [
        # an exact name with its state, the same without, and what it leaves to the longest prefix
        ("shop.tasks.charge", "FAILURE", 60 * DAY),
        ("shop.tasks.ping", "FAILURE", timedelta(hours=1)),
        ("shop.tasks.ping", "SUCCESS", timedelta(hours=1)),
        ("shop.tasks.charge", "SUCCESS", 3 * DAY),
        # a longer prefix before a shorter one, and a prefix before a state
        ("shop.tasks.other", "FAILURE", None),
        ("shop.tasks.other", "RETRY", 2 * DAY),
        ("shop.mail", "FAILURE", 2 * DAY),
        ("shop.mail", "PROGRESS", 2 * DAY),
        # states of all other tasks, and of those whose name is not known
        ("other", "FAILURE", 30 * DAY),
        (None, "FAILURE", 30 * DAY),
        (None, "PROGRESS", None),
        ("shop", "SUCCESS", DAY),
        (None, "SUCCESS", DAY),
    ],
)
def test_the_more_specific_rule_wins(retention, name, state, age):
    assert retention.rule(name, state).age == age


def test_selections_cover_every_row_once_and_by_its_own_rule(retention):
    states = ["FAILURE", "PROGRESS", "RETRY", "SUCCESS", "other"]
    all_names = [None, "other", "shop", "shop.mail", "shop.tasks.ping", "shop.tasks.charge", "shop.tasks.x"]
    named = [name for name in all_names if name and retention.names(name)]
    assert named == ["shop.mail", "shop.tasks.ping", "shop.tasks.charge", "shop.tasks.x"]
    selections = retention.selections(states, named)
    for name, state in itertools.product(all_names, states):
        fitting = [
            found
            for found in selections
            if (found.column == "name" and found.value == name and state in found.states)
            or (found.column == "status" and found.value == state and name not in found.other_than)
        ]
        assert [found.rule for found in fitting] == [retention.rule(name, state)], (name, state)


@pytest.mark.parametrize("expires", [None, 0, timedelta(0)])
def test_without_an_age_nothing_is_deleted(expires):
    assert not Retention.of((), expires).deletes
    with override_settings(DJCELERY_RETENTION={"FAILURE": None}):
        assert not Retention.from_settings(expires).deletes
    with override_settings(DJCELERY_RETENTION={"FAILURE": 5}):
        assert Retention.from_settings(expires).deletes
        assert Retention.from_settings(expires).rule("any", "SUCCESS").age is None


def test_an_age_longer_than_the_calendar_is_for_ever():
    now = datetime(2026, 1, 1)
    assert cutoff(now, timedelta.max) is None
    assert cutoff(now, None) is None
    assert cutoff(now, DAY) == datetime(2025, 12, 31)


def test_rules_say_where_they_come_from():
    assert str(RetentionRule("shop.*", "FAILURE", None)) == "DJCELERY_RETENTION['shop.*']['FAILURE']"
    assert str(RetentionRule("", "FAILURE", None)) == "DJCELERY_RETENTION['FAILURE']"
    assert str(RetentionRule("", "", DAY)) == "CELERY_RESULT_EXPIRES"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([("FAILURE", 5)], "use a dictionary"),
        ({"FAILURE": -1}, "the age -1 of 'FAILURE' is wrong: it is below 0; use None"),
        ({"FAILURE": -DAY}, "is below 0"),
        ({"FAILURE": "30 days"}, "the age '30 days' of 'FAILURE' is wrong: use a timedelta"),
        ({"FAILURE": True}, "the age True of 'FAILURE' is wrong"),
        ({"FAILURE": float("inf")}, "the age inf of 'FAILURE' is wrong"),
        ({"FAILURE": float("nan")}, "the age nan of 'FAILURE' is wrong"),
        ({"FAILURE": {"shop.tasks.ping": 5}}, "the age {'shop.tasks.ping': 5} of 'FAILURE' is wrong"),
        ({"": 5}, "'' is neither a state nor a task name"),
        ({"*": 5}, "for all results set CELERY_RESULT_EXPIRES"),
        ({" FAILURE": 5}, "' FAILURE' is neither a state nor a task name"),
        ({5: 5}, "5 is neither"),
        ({"shop.*.ping": 5}, "only prefixes such as 'shop.\\*' are possible"),
        ({"shop.tasks.ping": {"failure": 5}}, "'failure' is no state; Celery's are written in capitals"),
        ({"shop.tasks.ping": {"": 5}}, "'' is no state"),
        ({"shop.tasks.ping": {"FAILURE": {}}}, "the age {} of 'FAILURE' is wrong"),
    ],
)
def test_a_wrong_rule_is_an_error_that_says_what_to_write(wrong, says):
    with override_settings(DJCELERY_RETENTION=wrong):
        with pytest.raises(SettingError, match=says) as caught:
            _ = conf.DJCELERY_RETENTION
        (found,) = checks.own_settings()
    assert str(caught.value).startswith("DJCELERY_RETENTION = ")
    assert (found.id, found.msg) == ("djcelery.E101", str(caught.value))
