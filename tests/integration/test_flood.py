"""The short form of ``make flood``: the history agrees with what ran, whatever is killed meanwhile."""

from __future__ import annotations

import pytest

from tests.faults.flood import Report, flood


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_the_history_agrees_with_what_ran_when_camera_and_database_are_killed(programs):
    report = flood(programs, tasks=2000, seed=5)
    assert not report.failed, "\n".join([str(report), *report.trouble])
    assert (report.camera_kills, report.camera_stops, report.restarts) == (2, 1, 2)
    # On RabbitMQ nothing needs an explanation.
    assert (report.missed, report.dropped, report.malformed) == (0, 0, 0)
    assert report.history == {"RECEIVED": 2000, "SUCCESS": 2000}


def report(**values):
    return Report(10, 0, **{"ran": 10, "history": {"RECEIVED": 10, "SUCCESS": 8, "FAILURE": 2}, **values})


def test_the_account_of_a_flood_finds_what_is_not_explained():
    assert not report().failed
    assert not report(history={"SUCCESS": 7, "RETRY": 5}, missed=3).failed
    assert report(history={"SUCCESS": 7}).failed
    assert report(history={"SUCCESS": 11}).failed
    assert report(history={"SUCCESS": 9}, ran=9).failed
    assert report(twice=1).failed
    assert report(trouble=["it ended"]).failed
