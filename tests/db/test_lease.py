"""The lease: one leader at a time, by the database's clock, whatever dies or freezes."""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from contextlib import closing
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction

from djcelery.exceptions import LeaseLost
from djcelery.models import BeatLease, PeriodicRun
from djcelery.schedulers import statements
from djcelery.schedulers.lease import Lease
from tests.checking import said
from tests.db.beats import end_session, running, shared_database
from tests.services import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def shared(tmp_path):
    with shared_database(tmp_path) as url:
        yield url


def lease(length_s=30, **kwargs):
    return Lease("default", "tests", length_s, **kwargs)


def expire():
    """Let the lease run out, whoever has it."""
    row = BeatLease.objects.get()
    BeatLease.objects.update(expires_at=row.expires_at - timedelta(days=1))


def test_the_first_who_asks_leads_and_the_others_stand_by():
    clock = Clock()
    first, second = lease(clock=clock), lease(clock=clock)
    assert first.acquire()
    assert first.is_held()
    assert not second.acquire()
    assert not second.is_held()
    assert second.held_by == first.holder
    assert second.token is None
    assert second.wait_s() == pytest.approx(1)
    assert first.wait_s() == pytest.approx(10)


def test_leases_of_other_names_do_not_meet():
    assert lease().acquire()
    assert Lease("default", "other", 30).acquire()


def test_the_token_grows_with_every_holder():
    first, second = lease(), lease()
    tokens = []
    for one in (first, second, second, first):
        assert one.acquire()
        tokens.append(one.token)
        expire()
    assert tokens == sorted(set(tokens))


def test_a_lease_that_has_run_out_is_taken_over_and_not_before():
    first, second = lease(0.6), lease(0.6)
    started = time.monotonic()
    assert first.acquire()
    wait_until(second.acquire, 30, "the takeover")
    # SQLite counts milliseconds; a busy machine may look late.
    assert 0.598 <= time.monotonic() - started < 10
    assert not first.is_held()
    assert not first.renew()
    assert first.token is None


def test_who_stands_by_looks_again_when_the_lease_runs_out():
    first, second = lease(0.5), lease(30)

    def stands_by():
        # On a busy machine half a second may pass in between.
        assert first.acquire()
        if second.acquire():
            second.release()
            return False
        return True

    wait_until(stands_by, 30, "the two to meet")
    assert second.wait_s() < 0.6


def test_a_released_lease_is_free_at_once():
    first, second = lease(), lease()
    first.acquire()
    first.release()
    assert not first.is_held()
    assert second.acquire()
    first.release()
    assert second.renew()


def test_a_renewal_holds_for_the_full_length():
    one = lease()
    one.acquire()
    before = BeatLease.objects.get().expires_at
    expire()
    assert one.renew()
    assert BeatLease.objects.get().expires_at >= before


def test_the_deadline_counts_from_before_the_statement(monkeypatch):
    clock = Clock()
    one = lease(clock=clock)
    one.acquire()
    execute = statements.execute

    def slow(*args):
        changed = execute(*args)
        clock.now += 20
        return changed

    monkeypatch.setattr(statements, "execute", slow)
    assert one.renew()
    clock.now += 6.9
    assert one.is_held()
    clock.now += 0.2
    assert not one.is_held()


def test_past_the_deadline_nothing_is_held_and_nobody_is_asked(django_assert_num_queries):
    clock = Clock()
    one = lease(clock=clock)
    one.acquire()
    with django_assert_num_queries(0):
        clock.now += 26.9
        assert one.is_held()
        assert one._deadline_mono - clock.now == pytest.approx(0.1)
        clock.now += 0.2
        assert not one.is_held()
        assert one._deadline_mono < clock.now


def test_who_was_late_but_not_replaced_may_go_on():
    one = lease()
    one.acquire()
    expire()
    assert one.renew()
    assert one.is_held()


def test_the_fence_stops_a_transaction_of_a_former_leader():
    former, leader = lease(), lease()
    former.acquire()
    expire()
    leader.acquire()
    assert former.is_held()
    with pytest.raises(LeaseLost, match="has taken the lease 'tests'"), transaction.atomic():
        former.fence(connection)
    assert not former.is_held()
    with pytest.raises(LeaseLost, match="doesn't hold"):
        former.fence(connection)


def test_a_fence_renews_only_when_it_is_committed():
    clock = Clock()
    one = lease(clock=clock)
    one.acquire()
    clock.now += 20
    with transaction.atomic():
        one.fence(connection)
        transaction.set_rollback(True)
    assert one._deadline_mono - clock.now == pytest.approx(7)
    with transaction.atomic():
        one.fence(connection)
        assert one._deadline_mono - clock.now == pytest.approx(7)
    assert one._deadline_mono - clock.now == pytest.approx(27)


def test_a_deleted_row_demotes_and_is_written_again():
    one, other = lease(), lease()
    one.acquire()
    BeatLease.objects.all().delete()
    assert other.acquire()
    assert not one.renew()


def test_the_clock_is_the_databases_own_whatever_zone_the_session_has(settings):
    # Long enough for a busy machine to ask three times meanwhile.
    first, second = lease(), lease(4)
    first.acquire()
    sets = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mysql": "SET time_zone = '+09:00'", "sqlite": "SELECT 1"}
    back = {"postgresql": "SET TIME ZONE 'UTC'", "mysql": "SET time_zone = '+00:00'", "sqlite": "SELECT 1"}
    with connection.cursor() as cursor:
        cursor.execute(sets[connection.vendor])
        assert not second.acquire()
        first.release()
        assert second.acquire()
        assert not first.acquire()
        cursor.execute(back[connection.vendor])
        assert not first.acquire()
    settings.USE_TZ = False
    wait_until(first.acquire, 60, "the takeover")
    assert not second.acquire()


def test_a_database_error_is_no_lease_and_is_logged_once(monkeypatch, caplog):
    one = lease()
    caplog.set_level(logging.INFO, "djcelery")
    with monkeypatch.context() as patch:
        patch.setattr(statements, "fetch", lambda *args: (_ for _ in ()).throw(OperationalError("away")))
        assert not one.acquire()
        assert not one.acquire()
    assert one.acquire()
    assert [record.levelname for record in said(caplog)] == ["ERROR", "INFO"]
    assert "can't ask for the lease 'tests': away" in caplog.text


def test_a_failed_renewal_leaves_the_lease_until_its_deadline(monkeypatch, caplog):
    clock = Clock()
    one = lease(clock=clock)
    one.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(statements, "execute", lambda *args: (_ for _ in ()).throw(OperationalError("away")))
        assert not one.renew()
        assert one.is_held()
        one.release()
    assert not one.is_held()
    assert "it runs out by itself" in caplog.text


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no sessions")
def test_a_lost_connection_is_replaced_at_once():
    one, other = lease(), lease()
    assert one.acquire()
    end_session()
    assert one.renew()
    end_session()
    assert not other.acquire()
    end_session()
    assert one.acquire()


def test_the_queries_of_each_step_are_counted(django_assert_num_queries):
    one, other = lease(), lease()
    with django_assert_num_queries(7 if connection.vendor == "mysql" else 6):
        # SELECT, BEGIN, UPDATE, INSERT, SELECT, COMMIT; MariaDB is told once what to do with a frozen session.
        one.acquire()
    with django_assert_num_queries(1):
        other.acquire()
    with django_assert_num_queries(1):
        one.renew()
    with django_assert_num_queries(5):
        one.acquire()
    with django_assert_num_queries(1):
        one.release()


@pytest.mark.django_db(transaction=False)
def test_it_works_in_a_test_case():
    one, other = lease(), lease()
    assert one.acquire()
    assert one.renew()
    assert not other.acquire()
    one.release()
    assert other.acquire()


# -- processes ---------------------------------------------------------------------------------


def test_never_two_of_many_contenders_hold_it_at_one_instant(shared):
    with running(shared) as start:
        beats = [start("contend", "tests", 0.5, 6) for _ in range(5)]
        assert [beat.end() for beat in beats] == [0] * 5
    held = sorted((line["at"], line["token"]) for beat in beats for line in beat.seen("held"))
    tokens = [token for _, token in held]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 10
    owners = {
        token: {n for n, beat in enumerate(beats) for x in beat.seen("held") if x["token"] == token} for token in tokens
    }
    assert all(len(beat) == 1 for beat in owners.values())
    assert len({next(iter(beat)) for beat in owners.values()}) > 1
    assert BeatLease.objects.get().token >= max(tokens)


def test_a_killed_leader_is_replaced_within_the_length(shared):
    with running(shared) as start:
        leader = start("hold", "tests", 4, 180)
        wait_until(lambda: leader.seen("claimed"), 60, "the first leader")
        heir = start("hold", "tests", 4, 180)
        wait_until(lambda: heir.seen("waits"), 60, "the second to stand by")
        leader.send(signal.SIGKILL)
        killed_at = time.time()
        wait_until(lambda: heir.seen("leads"), 60, "the takeover")
    # A busy machine may look late, but not by as much as a second lease.
    assert heir.seen("leads")[0]["at"] - killed_at < 4 + 3.5


def is_free(url):
    """Whether somebody can write into the SQLite file at *url* within a second."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=1, isolation_level=None)) as file:
        try:
            file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        file.execute("ROLLBACK")
        return True


def freeze(beat, url):
    """Stop *beat*; but not with the lock of an SQLite file, which nobody could take away from it."""
    beat.send(signal.SIGSTOP)
    while url.startswith("sqlite") and not is_free(url):
        beat.send(signal.SIGCONT)
        wait_until(lambda: is_free(url), 60, "the end of the transaction")
        beat.send(signal.SIGSTOP)


def test_a_leader_that_was_frozen_can_not_claim_when_it_wakes_up(shared):
    with running(shared) as start:
        sleeper = start("hold", "tests", 3, 180)
        wait_until(lambda: sleeper.seen("claimed"), 60, "the first leader")
        heir = start("hold", "tests", 3, 180)
        wait_until(lambda: heir.seen("waits"), 60, "the second to stand by")
        freeze(sleeper, shared)
        wait_until(lambda: heir.seen("claimed"), 60, "the takeover")
        sleeper.send(signal.SIGCONT)
        seen = len(heir.seen("claimed"))
        wait_until(lambda: len(heir.seen("claimed")) > seen + 10, 60, "the second to go on")
    tokens = list(PeriodicRun.objects.order_by("id").values_list("token", flat=True))
    assert tokens == sorted(tokens)
    assert {sleeper.seen("leads")[0]["token"], heir.seen("leads")[0]["token"]} <= set(tokens)


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one lock, and nobody who could take it away")
def test_a_leader_that_froze_inside_a_transaction_is_replaced(shared):
    with running(shared) as start:
        frozen = start("stand_still", "tests", 3, 180)
        wait_until(lambda: frozen.seen("inserted"), 60, "the transaction")
        heir = start("hold", "tests", 3, 180)
        # To start a process takes long on a busy machine.
        wait_until(lambda: heir.lines, 60, "the second to be there")
        started = time.monotonic()
        wait_until(lambda: heir.seen("claimed"), 60, "the takeover")
        assert time.monotonic() - started < 12


def test_a_lease_of_many_days_is_no_longer_than_postgresql_can_wait():
    long = lease(90 * 86400)
    assert long.acquire()
    assert long.renew()
    assert long._unfreeze("postgresql").count("'2147483647'") == 1
