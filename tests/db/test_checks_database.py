"""System checks that look into the database: what they find, and what they leave alone."""

from __future__ import annotations

import pytest
from celery.beat import PersistentScheduler
from django.core.checks import Warning
from django.core.checks import registry as django_registry
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings

from djcelery import checks
from djcelery.checks import common, databases, looking, schedule, telling
from djcelery.models import IntervalSchedule, PeriodicTask
from djcelery.schedulers import DatabaseScheduler
from tests.checking import only, said
from tests.unit.conftest import no_app  # noqa: F401 - a fixture

OURS = ["default"]
CELERYS = "celery.beat:PersistentScheduler"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_app")]


@pytest.fixture
def inside(monkeypatch):
    """Looks go through the test's own connection, so they see what its transaction has written."""

    def look(work, alias):
        return work(connections[alias])

    monkeypatch.setattr(databases, "look", look)
    monkeypatch.setattr(schedule, "look", look)


@pytest.fixture
def no_looks(monkeypatch):
    """No check may look into the database."""

    def refuse(*args):
        raise AssertionError("a check looked into the database")

    for module in (databases, schedule):
        monkeypatch.setattr(module, "look", refuse)


# -- migrations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["celeryd", "celerybeat", "celerycam"])
def test_a_missing_migration_is_named_when_a_program_starts(inside, program):
    recorder = MigrationRecorder(connection)
    last = max(name for app, name in recorder.applied_migrations() if app == "djcelery")
    with override_settings(CELERY_RESULT_BACKEND="djcelery-db"), checks.starting(program, {}):
        assert databases.unapplied_migrations(databases=OURS) == []
        recorder.record_unapplied("djcelery", last)
        message = only(databases.unapplied_migrations(databases=OURS), "W704", Warning)
    assert last in message.msg
    assert "manage.py migrate djcelery" in message.hint


def test_nobody_looks_for_migrations_outside_of_a_start_or_without_leave(no_looks):
    assert databases.unapplied_migrations(databases=OURS) == []
    with checks.starting("celerybeat", {}):
        assert databases.unapplied_migrations() == []
        with override_settings(MIGRATION_MODULES={"djcelery": None}):
            assert databases.unapplied_migrations(databases=OURS) == []
    with checks.starting("celeryev", {}):
        assert databases.unapplied_migrations(databases=OURS) == []


def test_a_worker_whose_results_go_elsewhere_needs_no_tables(no_looks):
    with override_settings(CELERY_RESULT_BACKEND="redis://"), checks.starting("celeryd", {}):
        assert databases.unapplied_migrations(databases=OURS) == []


def test_the_number_of_queries_is_small(inside, django_assert_max_num_queries):
    with checks.starting("celerybeat", {}), django_assert_max_num_queries(4):
        for check in (*checks.START, *checks.DATABASE):
            check(databases=OURS)


# -- rows that nobody sends ------------------------------------------------------------------------


@pytest.fixture
def row():
    """A periodic task that is enabled."""
    every, _ = IntervalSchedule.objects.get_or_create(every=10, period="minutes")
    return PeriodicTask.objects.create(name="poll", task="shop.poll", interval=every)


@pytest.mark.parametrize("options", [{"scheduler": CELERYS}, {}, {"scheduler": "django"}])
def test_rows_that_a_beat_does_not_read_are_a_warning_when_it_starts(inside, row, options):
    with checks.starting("celerybeat", options):
        assert "1 is enabled" in only(schedule.rows_without_beat(databases=OURS), "W303", Warning).msg
    with checks.starting("celeryd", {**options, "beat": True}):
        only(schedule.rows_without_beat(databases=OURS), "W303", Warning)


def test_rows_that_are_disabled_or_the_schedulers_own_are_fine(inside, row):
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False)
    PeriodicTask.objects.create(name="celery.backend_cleanup", task="celery.backend_cleanup", interval=row.interval)
    with checks.starting("celerybeat", {}):
        assert schedule.rows_without_beat(databases=OURS) == []


@pytest.mark.parametrize(
    ("program", "options", "setting"),
    [
        ("celerybeat", {"scheduler": "djcelery"}, None),
        ("celerybeat", {"scheduler": "shop.beat:Own"}, CELERYS),
        ("celerybeat", {}, "djcelery.schedulers.DatabaseScheduler"),
        ("celerybeat", {"dry_run": True}, None),
        ("celeryd", {}, None),
        ("celerycam", {}, None),
    ],
)
def test_nobody_looks_for_rows_where_our_scheduler_or_none_starts(no_looks, row, program, options, setting):
    with override_settings(CELERY_BEAT_SCHEDULER=setting), checks.starting(program, options):
        assert schedule.rows_without_beat(databases=OURS) == []


class Service:
    """Celery's beat, as far as its signal shows it."""

    def __init__(self, kind):
        self.scheduler = object.__new__(kind)


@pytest.fixture
def not_told(monkeypatch):
    """This process has not run the checks for a start."""
    monkeypatch.setattr(common, "_run_in_pid", -1)


def test_a_beat_that_celery_starts_is_told_in_its_log(inside, row, not_told, caplog):
    telling.tell_beat(sender=Service(PersistentScheduler))
    (record,) = said(caplog)
    assert record.levelname == "WARNING"
    assert "djcelery.W303" in record.getMessage()


def test_a_beat_that_has_been_told_or_must_not_be_is_silent(inside, row, not_told, caplog, monkeypatch):
    telling.tell_beat(sender=Service(DatabaseScheduler))
    with override_settings(SILENCED_SYSTEM_CHECKS=["djcelery.W303"]):
        telling.tell_beat(sender=Service(PersistentScheduler))
    monkeypatch.setattr(common, "_run_in_pid", -1)
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "true")
    telling.tell_beat(sender=Service(PersistentScheduler))
    monkeypatch.delenv("CELERY_SKIP_CHECKS")
    with checks.starting("celerybeat", {}):
        pass
    telling.tell_beat(sender=Service(PersistentScheduler))
    assert said(caplog) == []


# -- isolation -------------------------------------------------------------------------------------


def test_transactions_that_see_no_news_are_a_warning_on_mysql(monkeypatch):
    if connection.vendor != "mysql":
        pytest.skip("MySQL and MariaDB only")
    assert databases.isolation(databases=OURS) == []
    options = {**connection.settings_dict["OPTIONS"], "isolation_level": "repeatable read"}
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
    assert "'default'" in only(databases.isolation(databases=OURS), "W701", Warning).msg
    # What the server is set to counts if the project leaves it to the server.
    options["isolation_level"] = None
    only(databases.isolation(databases=OURS), "W701", Warning)


@pytest.mark.parametrize("names", [None, [], ["other"]])
def test_nobody_looks_into_a_database_without_leave(no_looks, names):
    assert databases.isolation(databases=names) == []


# -- the look itself -------------------------------------------------------------------------------


def test_a_look_has_a_connection_of_its_own_that_is_closed():
    def work(looking_connection):
        assert looking_connection is not connection
        seen.append(looking_connection)
        with looking_connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone()[0]

    seen = []
    answer = looking.look(work, "default")
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        assert (answer, seen) == (None, [])
        return
    assert answer == 1
    assert seen[0].connection is None


# -- who runs them ---------------------------------------------------------------------------------


def test_manage_py_check_runs_no_query(django_assert_num_queries, no_looks):
    with django_assert_num_queries(0):
        django_registry.run_checks(tags=[checks.TAG], include_deployment_checks=True)


def test_a_program_runs_them_all_and_an_error_keeps_it_from_starting(inside, capsys):
    from djcelery.management.commands.celerybeat import Command

    ran = []
    with override_settings(CELERY_BEAT_SCHEDULER="djcelery:Missing", DEBUG=True):
        command = Command()
        command.start = ran.append
        with pytest.raises(CommandError) as refused:
            call_command(command, skip_checks=False)
    assert "djcelery.E304" in str(refused.value)
    assert "djcelery.W117" in str(refused.value)
    assert ran == []
