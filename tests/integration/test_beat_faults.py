"""Beats when things go wrong: killed and frozen, with the broker away. The long form is ``make faults``."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import pytest

from tests.faults import beats, engines, storms

START = datetime(2026, 3, 1, 12, 30, 30, tzinfo=timezone.utc)


@pytest.fixture
def redis_server():
    server = engines.RedisServer()
    yield server
    server.close()


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize(("kind", "count"), [("postgresql", 3), ("mariadb", 3), ("sqlite", 2)])
def test_no_firing_is_lost_or_has_two_ids_when_beats_are_killed(kind, count, programs, redis_server):
    name = f"djcelery_test_{os.getpid()}"
    makers = {"postgresql": engines.Postgres, "mariadb": engines.Mariadb}
    engine = makers[kind](name) if kind in makers else engines.Sqlite(programs.root / "db.sqlite3")
    with storms.closing_after(programs, engine):
        report = beats.storm(
            programs,
            engine,
            redis_server,
            title=kind,
            seed=4,
            duration_s=12,
            entry_count=100,
            beats=count,
            lease_s=2,
        )
    assert not report.failed, "\n".join([str(report), *report.ended, *report.examples[:5]])
    assert report.firings > 100
    assert report.faults["beats killed"] >= 2


def row(name="a", **values):
    return {"name": name, "since": START.isoformat(), **values}


def told(rows, messages, until):
    """Return the account of *messages*: (name, instant, id)."""
    sent = beats.Collector(None)
    for name, at, task_id in messages:
        sent._note({"periodic_task_name": name, "periodic_scheduled_at": at.isoformat(), "id": task_id})
    report = beats.Report("", len(rows), 0, 10)
    beats.account(report, rows, sent, until, until + timedelta(seconds=5))
    return report.firings, report.lost, report.two_ids, report.resent, report.unscheduled


def test_the_account_of_a_storm_finds_what_is_lost_doubled_resent_or_never_due():
    rows = [row(every=10, start_time=None)]
    first, second, until = START + timedelta(seconds=10), START + timedelta(seconds=20), START + timedelta(seconds=29)
    whole = [("a", first, "1"), ("a", second, "2")]
    assert told(rows, whole, until) == (2, 0, 0, 0, 0)
    assert told(rows, whole[:1], until) == (2, 1, 0, 0, 0)
    assert told(rows, [*whole, ("a", second, "3")], until) == (2, 0, 1, 0, 0)
    assert told(rows, [*whole, ("a", second, "2")], until) == (2, 0, 0, 1, 0)
    assert told(rows, [*whole, ("a", START, "0")], until) == (2, 0, 0, 0, 1)


def test_the_account_of_a_storm_knows_crontabs_by_the_clock_of_their_zone():
    # Kathmandu is 5:45 ahead: 12:31 there is 18:16.
    rows = [row(minute="1-59/5", hour="18", zone="Asia/Kathmandu")]
    found = list(beats.instants(rows[0], START + timedelta(minutes=12)))
    assert found == [
        START.replace(minute=31, second=0),
        START.replace(minute=36, second=0),
        START.replace(minute=41, second=0),
    ]
    assert not list(beats.instants(row(minute="*", hour="12", zone="Asia/Kathmandu"), START + timedelta(hours=1)))
