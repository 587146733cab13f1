"""System checks of results, schedule, monitor, broker and databases: each fires, and is silent otherwise."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta

import pytest
from celery.schedules import crontab
from django.core.checks import Error, Info, Warning
from django.core.checks import registry as django_registry
from django.db import connections
from django.test import override_settings

from djcelery import checks
from djcelery.checks import broker, databases, looking, monitor, results, schedule
from tests.checking import only
from tests.services import wait_until

pytestmark = pytest.mark.usefixtures("no_app")

CELERYS = "celery.beat:PersistentScheduler"
PEERS = "django_celery_beat.schedulers:DatabaseScheduler"


def given(**values):
    """Settings with the broker of the test suite taken out."""
    return override_settings(**{"BROKER_URL": None, **values})


@pytest.fixture
def peer(monkeypatch):
    """django-celery-results is installed, and not in INSTALLED_APPS."""
    names = [("django-db", "django_celery_results.backends:DatabaseBackend")]
    monkeypatch.setattr(results, "load_extension_class_names", lambda namespace: names)


def install(monkeypatch, *packages):
    """Have Django say that *packages* are in INSTALLED_APPS."""
    from django.apps import apps

    there = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name in packages or there(name))


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["django-db", "django_celery_results.backends:DatabaseBackend"])
def test_a_backend_whose_app_is_not_installed_is_an_error(peer, value):
    with given(CELERY_RESULT_BACKEND=value):
        assert "djcelery-db" in only(results.peers_backend(), "E203", Error).hint
        assert results.results_elsewhere() == []


@pytest.mark.parametrize("value", ["djcelery-db", "django-cache", "redis://", None])
def test_other_backends_need_no_app(peer, value):
    with given(CELERY_RESULT_BACKEND=value):
        assert results.peers_backend() == []


def test_a_backend_whose_app_is_installed_is_fine_but_fills_other_pages(peer, monkeypatch):
    install(monkeypatch, "django_celery_results")
    with given(CELERY_RESULT_BACKEND="django-db"):
        assert results.peers_backend() == []
        only(results.results_elsewhere(), "I204", Info)


@pytest.mark.parametrize("value", ["redis://:secret@host/0", "rpc://", "db+sqlite:///x", "cache+memcached://h"])
def test_results_that_go_elsewhere_are_an_info_without_the_password(value):
    with given(CELERY_RESULT_BACKEND=value):
        assert "secret" not in only(results.results_elsewhere(), "I204", Info).msg


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "djcelery-db",
        "djcelery-cache",
        "djcelery-cache://a",
        "django-db",
        "shop.backends:Own",
        "disabled",
        "djcelery.backends.database:DatabaseBackend",
        "djcelery.backends.cache.CacheBackend",
    ],
)
def test_results_in_our_tables_or_nowhere_or_in_a_class_of_the_projects_are_fine(value):
    with given(CELERY_RESULT_BACKEND=value):
        assert results.results_elsewhere() == []


def test_results_elsewhere_are_no_matter_without_an_admin():
    with (
        override_settings(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "djcelery"]),
        given(CELERY_RESULT_BACKEND="redis://"),
    ):
        assert results.results_elsewhere() == []


def test_the_loaders_names_without_the_loader_are_a_warning():
    with given(CELERY_RESULT_BACKEND="database"):
        assert "SQLAlchemy" in only(results.names_of_the_loader(), "W205", Warning).msg
    with given(CELERY_RESULT_BACKEND="cache", CELERY_CACHE_BACKEND="default"):
        assert "djcelery-cache" in only(results.names_of_the_loader(), "W205", Warning).hint


def test_the_loaders_names_under_the_loader_are_fine(under_loader):
    with given(CELERY_RESULT_BACKEND="database"):
        assert results.names_of_the_loader() == []
        assert results.results_elsewhere() == []
    with given(CELERY_RESULT_BACKEND="cache"):
        assert results.results_elsewhere() == []


def test_celerys_own_backends_of_these_names_are_fine_where_they_are_set_up():
    with given(CELERY_RESULT_BACKEND="database", CELERY_DATABASE_URL="sqlite://"):
        assert results.names_of_the_loader() == []
    with given(CELERY_RESULT_BACKEND="cache", CELERY_CACHE_BACKEND="memcached://h"):
        assert results.names_of_the_loader() == []


@pytest.mark.parametrize("backend", [None, "redis://", "djcelery-cache"])
def test_rows_of_sent_tasks_need_the_database(backend):
    with given(DJCELERY_STORE_PUBLISHED=True, CELERY_RESULT_BACKEND=backend):
        assert "not stored" in only(results.nothing_published(), "W206", Warning).msg


def test_rows_of_sent_tasks_that_ignore_results_are_a_warning():
    with given(DJCELERY_STORE_PUBLISHED=True, CELERY_RESULT_BACKEND="djcelery-db", CELERY_TASK_IGNORE_RESULT=True):
        assert "CELERY_TASK_IGNORE_RESULT" in only(results.nothing_published(), "W206", Warning).msg


def test_rows_of_sent_tasks_in_the_database_are_fine(under_loader):
    with given(DJCELERY_STORE_PUBLISHED=True):
        assert results.nothing_published() == []
    with given(DJCELERY_STORE_PUBLISHED="wrong", CELERY_RESULT_BACKEND="redis://"):
        assert results.nothing_published() == []
    with given(CELERY_RESULT_BACKEND="redis://"):
        assert results.nothing_published() == []


RULES = {"FAILURE": timedelta(days=30)}


def test_rules_that_no_scheduler_applies_are_an_info():
    with given(DJCELERY_RETENTION=RULES, CELERY_RESULT_EXPIRES=None, CELERY_BEAT_SCHEDULER=CELERYS):
        only(results.nobody_cleans_up(), "I207", Info)


@pytest.mark.parametrize(
    "changed",
    [
        {"DJCELERY_RETENTION": {}},
        {"CELERY_RESULT_EXPIRES": 3600},
        {"CELERY_BEAT_SCHEDULER": "djcelery"},
        {"CELERY_BEAT_SCHEDULER": None},
        {"DJCELERY_RETENTION": "wrong"},
    ],
)
def test_rules_that_are_applied_are_fine(changed):
    values = {"DJCELERY_RETENTION": RULES, "CELERY_RESULT_EXPIRES": None, "CELERY_BEAT_SCHEDULER": CELERYS}
    with given(**{**values, **changed}):
        assert results.nobody_cleans_up() == []


# -- schedule --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["django", PEERS])
def test_a_scheduler_whose_app_is_not_installed_is_an_error(value, monkeypatch):
    with given(CELERY_BEAT_SCHEDULER=value):
        assert "djcelery" in only(schedule.peers_scheduler(), "E301", Error).hint
        assert schedule.other_scheduler() == []
        install(monkeypatch, "django_celery_beat")
        assert schedule.peers_scheduler() == []
        only(schedule.other_scheduler(), "I302", Info)


def test_a_scheduler_that_reads_no_rows_is_an_info_if_it_is_named(under_loader):
    with given(CELERYBEAT_SCHEDULER=CELERYS):
        assert "CELERYBEAT_SCHEDULER" in only(schedule.other_scheduler(), "I302", Info).msg


@pytest.mark.parametrize(
    "value",
    [
        None,
        "djcelery",
        "djcelery.schedulers.DatabaseScheduler",
        "djcelery.schedulers:DatabaseScheduler",
        "shop.beat:Own",
    ],
)
def test_our_scheduler_one_of_the_projects_and_none_are_fine(value):
    with given(CELERY_BEAT_SCHEDULER=value):
        for check in (schedule.peers_scheduler, schedule.other_scheduler, schedule.unknown_scheduler):
            assert check() == []


@pytest.mark.parametrize("value", ["djcelery.schedulers:DatabaseSheduler", "djcelery:DatabaseScheduler"])
def test_a_scheduler_that_djcelery_does_not_have_is_an_error(value):
    with given(CELERY_BEAT_SCHEDULER=value):
        assert value in only(schedule.unknown_scheduler(), "E304", Error).msg


@pytest.mark.parametrize(
    ("entry", "missing"),
    [({"task": "a.b"}, "'schedule'"), ({"schedule": 10}, "'task'"), ("a.b", "'task'"), ({}, "no 'schedule'")],
)
def test_an_entry_that_lacks_something_is_a_warning_that_names_it(entry, missing):
    good = {"task": "a.b", "schedule": crontab()}
    with given(CELERY_BEAT_SCHEDULE={"good": good, "bad one": entry}):
        message = only(schedule.unusable_entries(), "W305", Warning)
    assert "'bad one'" in message.msg
    assert missing in message.msg


def test_a_schedule_that_is_no_dictionary_is_a_warning():
    with given(CELERY_BEAT_SCHEDULE=[{"task": "a.b"}]):
        only(schedule.unusable_entries(), "W305", Warning)


@pytest.mark.parametrize("value", [None, {}, {"a": {"task": "a.b", "schedule": 10.0, "args": (1,)}}])
def test_a_schedule_that_can_be_sent_is_fine(value):
    with given(CELERY_BEAT_SCHEDULE=value):
        assert schedule.unusable_entries() == []


def test_two_time_zones_are_an_info_when_beat_starts():
    with given(CELERY_TIMEZONE="UTC"):
        assert schedule.two_time_zones() == []
        with checks.starting("celerybeat", {}):
            assert "Europe/Brussels" in only(schedule.two_time_zones(), "I306", Info).msg
        with checks.starting("celeryd", {"beat": True}):
            only(schedule.two_time_zones(), "I306", Info)
        with checks.starting("celeryd", {}):
            assert schedule.two_time_zones() == []


@pytest.mark.parametrize("zone", [None, "Europe/Brussels"])
def test_one_time_zone_is_fine(zone):
    with given(CELERY_TIMEZONE=zone), checks.starting("celerybeat", {}):
        assert schedule.two_time_zones() == []


# -- monitor ---------------------------------------------------------------------------------------


def test_tasks_that_are_deleted_before_they_are_lost_are_a_warning():
    with given(DJCELERY_LOST_AFTER=timedelta(days=6)):
        only(monitor.lost_too_late(), "W401", Warning)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"DJCELERY_LOST_AFTER": None},
        {"DJCELERY_LOST_AFTER": timedelta(days=6), "CELERYCAM_EXPIRE_PENDING": None},
        {"DJCELERY_LOST_AFTER": "wrong"},
    ],
)
def test_tasks_that_are_lost_before_they_are_deleted_are_fine(values):
    with given(**values):
        assert monitor.lost_too_late() == []


@pytest.mark.parametrize(
    "values", [{"DJCELERY_HISTORY_HOURS": 3600}, {"DJCELERY_HISTORY_HOURS": 9, "DJCELERY_HISTORY_MINUTES": None}]
)
def test_hours_that_go_before_their_minutes_are_a_warning(values):
    with given(**values):
        only(monitor.hours_before_minutes(), "W402", Warning)


@pytest.mark.parametrize("values", [{}, {"DJCELERY_HISTORY_HOURS": None}, {"DJCELERY_HISTORY_MINUTES": 60}])
def test_hours_that_outlive_their_minutes_are_fine(values):
    with given(**values):
        assert monitor.hours_before_minutes() == []


# -- broker ----------------------------------------------------------------------------------------


@pytest.fixture
def no_broker(monkeypatch):
    """Neither the settings nor the environment name a broker."""
    from django.conf import settings

    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with override_settings():
        del settings.BROKER_URL
        yield


def test_no_broker_at_all_is_a_warning_of_deployment(no_broker):
    only(broker.nobody_named_a_broker(), "W501", Warning)
    assert broker.nobody_named_a_broker in checks.DEPLOY


@pytest.mark.parametrize(
    "values",
    [{"CELERY_BROKER_URL": "amqp://guest@localhost//"}, {"BROKER_HOST": "localhost"}, {"BROKER_TRANSPORT": "redis"}],
)
def test_a_broker_that_is_named_in_any_way_is_fine(no_broker, under_loader, values):
    with override_settings(**values):
        assert broker.nobody_named_a_broker() == []


def test_an_app_that_is_not_configured_by_the_settings_has_its_broker_elsewhere(no_broker, make_app):
    make_app(source="celeryconfig")
    assert broker.nobody_named_a_broker() == []


def test_the_broker_in_memory_is_a_matter_of_deployment_and_of_programs():
    with given(CELERY_BROKER_URL="memory://"):
        only(broker.memory_broker(), "W502", Warning)
        assert broker.memory_broker_of_a_program() == []
        with checks.starting("celerybeat", {}):
            only(broker.memory_broker_of_a_program(), "W502", Warning)
    with given(CELERY_BROKER_URL="redis://"), checks.starting("celerybeat", {}):
        assert broker.memory_broker_of_a_program() == []


def test_a_client_that_is_not_installed_is_a_warning_without_the_password(monkeypatch):
    with given(CELERY_BROKER_URL="redis://:secret@host/0"):
        assert broker.missing_client() == [] or "redis" not in sys.modules
        monkeypatch.setattr(broker, "is_importable", lambda name: name != "redis")
        message = only(broker.missing_client(), "W503", Warning)
    assert "secret" not in str(message)
    assert "celery[redis]" in message.hint
    with given(CELERY_BROKER_URL="amqp://"):
        assert broker.missing_client() == []


@pytest.fixture
def folders(tmp_path):
    """The options of a broker in folders that exist."""
    path = tmp_path / "messages"
    path.mkdir()
    return {"data_folder_in": str(path), "data_folder_out": str(path)}


def test_folders_that_are_not_there_are_an_error_when_a_program_starts(folders, tmp_path):
    with given(CELERY_BROKER_URL="filesystem://", CELERY_BROKER_TRANSPORT_OPTIONS=folders):
        with checks.starting("celeryd", {}):
            assert broker.missing_folders() == []
        folders["data_folder_in"] = str(tmp_path / "gone")
        assert broker.missing_folders() == []
        with checks.starting("celeryd", {}):
            assert "data_folder_in" in only(broker.missing_folders(), "E504", Error).hint


def test_two_folders_are_an_info(folders, tmp_path):
    with given(CELERY_BROKER_URL="filesystem://", CELERY_BROKER_TRANSPORT_OPTIONS=folders):
        assert broker.two_folders() == []
        only_one = {"data_folder_in": folders["data_folder_in"]}
    with given(CELERY_BROKER_URL="filesystem://", CELERY_BROKER_TRANSPORT_OPTIONS=only_one):
        only(broker.two_folders(), "I505", Info)
    with given(CELERY_BROKER_URL="redis://", CELERY_BROKER_TRANSPORT_OPTIONS=only_one):
        assert broker.two_folders() == []


LATE = {"CELERY_BROKER_URL": "redis://", "CELERY_TASK_ACKS_LATE": True, "CELERY_TASK_TIME_LIMIT": 7200}


def test_a_task_that_redis_delivers_while_it_runs_is_a_warning():
    with given(**LATE):
        assert "'visibility_timeout': 7260" in only(broker.delivered_twice(), "W506", Warning).hint


@pytest.mark.parametrize(
    "changed",
    [
        {"CELERY_BROKER_URL": "amqp://"},
        {"CELERY_TASK_ACKS_LATE": False},
        {"CELERY_TASK_TIME_LIMIT": 3600},
        {"CELERY_TASK_TIME_LIMIT": None},
        {"CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": 8000}},
        {"CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": "wrong"}},
    ],
)
def test_a_task_that_ends_before_redis_delivers_it_again_is_fine(changed):
    with given(**{**LATE, **changed}):
        assert broker.delivered_twice() == []


def test_a_broker_that_kombu_does_not_know_is_an_error(make_app):
    with given(CELERY_BROKER_URL="reddis://:secret@host"):
        assert broker.unknown_transport() == []
        make_app()
        assert "secret" not in str(only(broker.unknown_transport(), "E507", Error))


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "sqs://",
        "SQS://",
        "sqla+sqlite:///x",
        "localhost",
        "amqp://a;amqp://b",
        ["amqp://a", "amqp://b"],
        "shop.broker:Transport://",
        "django://",
        "redis+socket:///tmp/x",
        None,
        7,
    ],
)
def test_brokers_that_kombu_knows_or_others_speak_of_are_fine(make_app, url):
    with given(CELERY_BROKER_URL=url):
        make_app()
        assert broker.unknown_transport() == []


# -- databases -------------------------------------------------------------------------------------


class Replicas:
    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"


class Broken:
    def db_for_read(self, model, **hints):
        raise RuntimeError("no database for you")

    db_for_write = db_for_read


def test_reading_elsewhere_than_writing_is_an_info():
    with override_settings(DATABASE_ROUTERS=[Replicas()]):
        found = databases.replicas()
    assert {message.id for message in found} == {"djcelery.I702"}
    assert "TaskMeta" in found[0].msg


@pytest.mark.parametrize("routers", [[], [Broken()]])
def test_one_database_or_a_router_that_fails_is_no_matter_of_replicas(routers):
    with override_settings(DATABASE_ROUTERS=routers):
        assert databases.replicas() == []
        assert databases.sqlite_locks() == [] or routers == []
        assert databases.isolation(databases=["default"]) == []


class FileDatabase:
    """A database as the check of SQLite sees it."""

    vendor = "sqlite"

    def __init__(self, **options):
        self.settings_dict = {"OPTIONS": options}

    def is_in_memory_db(self):
        return False


@pytest.mark.parametrize("mode", [None, "DEFERRED", 7])
def test_sqlite_that_locks_half_way_is_a_warning_of_deployment(monkeypatch, mode):
    monkeypatch.setattr(databases, "connections", {"default": FileDatabase(transaction_mode=mode)})
    assert "IMMEDIATE" in only(databases.sqlite_locks(), "W703", Warning).hint
    assert databases.sqlite_locks in checks.DEPLOY


@pytest.mark.parametrize("mode", ["IMMEDIATE", "exclusive"])
def test_sqlite_that_locks_at_once_is_fine(monkeypatch, mode):
    monkeypatch.setattr(databases, "connections", {"default": FileDatabase(transaction_mode=mode)})
    assert databases.sqlite_locks() == []


def test_a_look_at_a_database_that_does_not_answer_ends_in_time(monkeypatch, tmp_path):
    answer = threading.Event()
    monkeypatch.setattr(looking, "LIMIT_S", 0.05)
    monkeypatch.setattr(looking, "_in_memory", lambda connection: False)
    asked = []
    monkeypatch.setattr(looking, "_work", lambda *args: asked.append(args) or answer.wait(60))
    monkeypatch.setattr(looking, "_silent_since_mono", {})
    assert looking.look(lambda connection: 1, "default") is None
    # The other checks of the same start don't wait for it again.
    assert looking.look(lambda connection: 1, "default") is None
    wait_until(lambda: asked, what="the thread that asks")
    assert len(asked) == 1
    answer.set()


def test_a_look_at_a_database_or_table_that_is_not_there_is_quiet(tmp_path, monkeypatch, capfd, django_db_blocker):
    options = {**connections["default"].settings_dict, "ENGINE": "django.db.backends.sqlite3", "OPTIONS": {}}
    monkeypatch.setattr(looking, "LIMIT_S", 60.0)
    monkeypatch.setitem(connections.settings, "away", {**options, "NAME": str(tmp_path / "no" / "such.db")})
    monkeypatch.setitem(connections.settings, "empty", {**options, "NAME": str(tmp_path / "empty.db")})
    with django_db_blocker.unblock():
        assert looking.look(lambda away: away.cursor(), "away") is None
        assert looking.look(schedule._enabled_rows, "empty") is None
        assert looking.look(lambda empty: empty.vendor, "empty") == "sqlite"
    assert looking.look(lambda nobody: 1, "nobody") is None
    assert looking.look(lambda nobody: 1, None) is None
    assert capfd.readouterr() == ("", "")
    for alias in ("away", "empty"):
        del connections[alias]


# -- all of them -----------------------------------------------------------------------------------


def test_every_check_is_registered_once_and_under_our_tag():
    everything = [*checks.ALL, *checks.START, *checks.DATABASE, *checks.DEPLOY]
    assert len(everything) == len(set(everything))
    there = {check for check in django_registry.registry.get_checks(include_deployment_checks=True)}
    assert set(everything) <= there
    assert all(checks.TAG in check.tags for check in everything)
    assert set(checks.DEPLOY) <= django_registry.registry.deployment_checks


HOSTILE = [
    None,
    0,
    1,
    -1.5,
    "",
    "x",
    "://",
    "django-db://",
    b"x",
    [],
    [None],
    {},
    {"a": None},
    {None: 1},
    len,
    {1, 2},
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_no_check_raises_whatever_a_setting_holds(value, make_app):
    from djcelery.checks.common import known_settings

    names = known_settings() - {"ADMINS", "SERVER_EMAIL"}
    names = {name for name in names if not name.startswith(("EMAIL_", "DJCELERY_", "CELERYCAM_"))}
    with override_settings(**dict.fromkeys(names, value)):
        for start in ("celeryd", "celerybeat", "celerycam"):
            with checks.starting(start, {"beat": True}):
                for check in (*checks.ALL, *checks.START, *checks.DEPLOY):
                    assert isinstance(check(databases=[]), list), check


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_no_check_raises_whatever_our_own_settings_hold(value, under_loader):
    from djcelery.conf import Conf

    with override_settings(**dict.fromkeys(Conf.all(), value)):
        for check in (*checks.ALL, *checks.START, *checks.DEPLOY):
            assert isinstance(check(databases=[]), list), check
