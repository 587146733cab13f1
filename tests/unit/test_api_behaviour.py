"""What the helpers do that code written for django-celery calls; ``api_table`` says which test is whose."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from smtplib import SMTPServerDisconnected
from types import SimpleNamespace

import pytest
from celery import Celery
from django.core.management import CommandError
from django.db import models
from django.utils import timezone as django_timezone
from django.utils import translation

import djcelery
from djcelery import common, compat, humanize, loaders, utils
from djcelery.management import base
from djcelery.models import cronexp
from djcelery.picklefield import PickledObject, PickledObjectField
from tests.unit.test_loaders import run_python

UTC_NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
#: The default zone of the tests is Brussels.
LOCAL_NOON = datetime(2026, 7, 1, 14)


@pytest.fixture
def loader():
    return Celery("x", loader=djcelery.LOADER, set_as_current=False).loader


def a_task(is_eager):
    return SimpleNamespace(request=SimpleNamespace(is_eager=is_eager))


# the loader


@pytest.mark.parametrize("use_tz", [True, False])
def test_the_loader_tells_the_time(loader, settings, use_tz):
    settings.USE_TZ = use_tz
    assert django_timezone.is_aware(loader.now()) is use_tz
    assert abs(utils.to_utc(loader.now()) - datetime.now(timezone.utc)) < timedelta(seconds=10)
    assert loader.now(utc=True).utcoffset() == timedelta(0)
    assert abs(loader.now(utc=True) - datetime.now(timezone.utc)) < timedelta(seconds=10)


def test_the_loader_closes_connections_and_caches(loader, monkeypatch):
    called = []
    monkeypatch.setattr(loaders.db, "close_old_connections", lambda: called.append("old connections"))
    monkeypatch.setattr(loaders.db.connections, "close_all", lambda: called.append("all connections"))
    monkeypatch.setattr("django.core.cache.close_caches", lambda: called.append("caches"))
    loader.close_database(signal="any", sender=None)
    loader._close_database()
    loader.close_cache()
    assert called == ["old connections", "all connections", "caches"]


def test_hooks_of_the_loader_can_be_called_and_overridden():
    class Own(loaders.DjangoLoader):
        def on_task_init(self, task_id, task):
            super().on_task_init(task_id, task)
            self.seen = task_id

    own = Own(Celery("x", set_as_current=False))
    own.on_worker_init()
    own.on_worker_process_init()
    own.on_task_init("id", a_task(is_eager=False))
    own.on_process_cleanup()
    assert own.seen == "id"


def test_a_loader_that_closes_the_database_in_its_own_way_is_called_around_tasks():
    class Own(loaders.DjangoLoader):
        closed = 0

        def close_database(self, **kwargs):
            self.closed += 1

    own = Own(Celery("x", set_as_current=False))
    own.on_task_init("id", a_task(is_eager=False))
    own.on_process_cleanup()
    assert own.closed == 2
    own.on_task_init("id", a_task(is_eager=True))
    assert own.closed == 2


def test_the_loader_sends_mail_to_the_admins(loader, monkeypatch):
    sent = []
    monkeypatch.setattr("django.core.mail.mail_admins", lambda *args, **kwargs: sent.append((args, kwargs)))
    loader.mail_admins("Worker died", "all of it", fail_silently=True, sender="x")
    # Not fail_silently: Django 6.1 has deprecated it.
    assert sent == [(("Worker died", "all of it"), {})]


def test_a_mail_that_cannot_be_sent_may_fail_silently(loader, monkeypatch):
    def fails(*args, **kwargs):
        raise SMTPServerDisconnected

    monkeypatch.setattr("django.core.mail.mail_admins", fails)
    loader.mail_admins("subject", "body", fail_silently=True)
    with pytest.raises(SMTPServerDisconnected):
        loader.mail_admins("subject", "body")


def test_a_plain_module_has_no_related_module():
    assert loaders.find_related_module("tests.named", "tasks") is None


# times


@pytest.mark.parametrize("use_tz", [True, False])
def test_values_are_aware_or_naive_as_use_tz_says(settings, use_tz):
    settings.USE_TZ = use_tz
    naive_utc = UTC_NOON.replace(tzinfo=None)
    assert django_timezone.is_aware(utils.now()) is use_tz
    assert django_timezone.is_aware(utils.fromtimestamp(0)) is use_tz
    if use_tz:
        assert utils.make_aware(naive_utc) == UTC_NOON
        assert utils.make_aware(naive_utc).replace(tzinfo=None) == LOCAL_NOON
        assert utils.make_naive(UTC_NOON) == LOCAL_NOON
        assert utils.correct_awareness(naive_utc) == UTC_NOON
        assert utils.fromtimestamp(UTC_NOON.timestamp()) == UTC_NOON
    else:
        assert utils.make_aware(naive_utc) is naive_utc
        assert utils.make_naive(UTC_NOON) is UTC_NOON
        assert utils.correct_awareness(UTC_NOON) == LOCAL_NOON
        assert utils.correct_awareness(naive_utc) is naive_utc
        assert utils.fromtimestamp(UTC_NOON.timestamp()) == LOCAL_NOON
    for no_time in (None, "yesterday", 3):
        assert utils.correct_awareness(no_time) is no_time


def test_a_naive_value_cannot_be_made_naive_under_use_tz():
    with pytest.raises(ValueError, match="naive"):
        utils.make_naive(LOCAL_NOON)


def test_old_helpers_of_time_work_as_they_did():
    with pytest.warns(DeprecationWarning, match=r"django\.utils\.timezone\.is_aware"):
        assert utils.is_aware(UTC_NOON)
    with pytest.warns(DeprecationWarning, match="correct_awareness"):
        maybe_make_aware = utils.maybe_make_aware
    assert maybe_make_aware(None) is None
    assert maybe_make_aware(UTC_NOON) is UTC_NOON
    assert maybe_make_aware(UTC_NOON.replace(tzinfo=None)) == UTC_NOON


def test_schedulers_on_the_database_are_known_by_path():
    assert utils.is_database_scheduler("djcelery.schedulers.DatabaseScheduler")
    assert utils.is_database_scheduler("djcelery.schedulers:DatabaseScheduler")
    assert utils.is_database_scheduler("djcelery")
    assert not utils.is_database_scheduler("celery.beat:PersistentScheduler")
    assert not utils.is_database_scheduler(None)
    assert not utils.is_database_scheduler("")
    with pytest.raises(ImportError):
        utils.is_database_scheduler("no_such_package.Scheduler")


def test_utils_loads_no_translation():
    # A settings module with lazy translations would import itself.
    out = run_python("import sys, djcelery.utils; print('django.utils.translation' in sys.modules)")
    assert out == "False"


# languages


def test_a_block_runs_in_a_language_and_gives_the_old_one_back():
    with translation.override("en"):
        with common.respect_language("es"):
            assert translation.get_language() == "es"
        assert translation.get_language() == "en"
        for nothing in (None, ""):
            with common.respect_language(nothing):
                assert translation.get_language() == "en"
        with pytest.raises(RuntimeError), common.respect_language("es"):
            raise RuntimeError
        assert translation.get_language() == "en"


def test_a_task_runs_in_the_language_it_is_given_and_never_sees_it():
    @common.respects_language
    def greet(name, language="default"):
        """Greet."""
        return name, language, translation.get_language()

    assert (greet.__name__, greet.__doc__) == ("greet", "Greet.")
    with translation.override("en"):
        assert greet("Ana", language="es") == ("Ana", "default", "es")
        assert greet("Ann") == ("Ann", "default", "en")


@pytest.mark.parametrize("language", ["en", "es"])
def test_texts_of_ages_are_translated_in_all_their_forms(language):
    with pytest.warns(DeprecationWarning, match="naturaldate"):
        pairs = {name: getattr(humanize, name) for name in ("SECONDS_AGO", "HOURS_AGO", "OLDER_DAY", "OLDER_YEAR")}
    with translation.override(language):
        said = {name: [humanize._un(pair, n).format(num=n) for n in (1, 2)] for name, pair in pairs.items()}
        older = {"OLDER_DAY": humanize.pluralize_day, "OLDER_YEAR": humanize.pluralize_year}
        assert all(said[name] == [say(1), say(2)] for name, say in older.items())
        assert said["HOURS_AGO"][1] == {"en": "2 hours ago", "es": "hace 2 horas"}[language]


def test_texts_of_moments_are_those_that_naturaldate_says():
    with pytest.warns(DeprecationWarning, match="naturaldate"):
        just_now, yesterday = humanize.JUST_NOW, humanize.YESTERDAY_AT
    with translation.override("en"):
        assert str(just_now) == "just now"
        assert str(yesterday).format(time="14:05") == "yesterday at 14:05"


# two Pythons


def test_a_class_with_a_text_has_unicode_too():
    @compat.python_2_unicode_compatible
    class Named:
        def __str__(self):
            return "name"

    assert Named().__unicode__() == "name"
    with pytest.raises(ValueError, match="__str__"):
        compat.python_2_unicode_compatible(type("Nameless", (), {}))


def test_names_for_two_pythons_work(monkeypatch):
    assert sorted(compat.itervalues({1: "a", 2: "b"})) == ["a", "b"]
    monkeypatch.delenv("DJCELERY_COMPAT", raising=False)
    compat.setenv(b"DJCELERY_COMPAT", "ä".encode())
    assert os.environ["DJCELERY_COMPAT"] == "ä"
    assert (compat.bytes_to_str(b"a"), compat.str_to_bytes("a"), compat.unicode) == ("a", b"a", str)


def test_the_release_can_still_be_asked_for():
    with pytest.warns(DeprecationWarning, match="VERSION"):
        assert djcelery.is_stable_release() is True
    with pytest.warns(DeprecationWarning, match="__version__"):
        assert djcelery.version_with_meta() == djcelery.__version__


# the rest


@pytest.mark.parametrize(("field", "text"), [("", "*"), (None, "*"), ("1, 2", "1,2"), (5, "5"), ("*/5", "*/5")])
def test_a_field_of_a_crontab_is_text_without_spaces(field, text):
    assert cronexp(field) == text


def test_the_field_of_pickles_takes_what_it_took():
    made = []
    field = PickledObjectField(compress=True, protocol=2, null=True, default=lambda: made.append(1) or made)
    assert (field.compress, field.protocol, field.editable) == (True, 2, False)
    assert field.get_default() is made
    assert PickledObjectField(default=12).get_default() == 12
    assert PickledObjectField(default={"a": 1}).get_default() == {"a": 1}
    assert field.get_internal_type() == "TextField"
    assert isinstance(field.to_python("gAJLAS4="), PickledObject)
    text = field.get_db_prep_value([1], None)
    assert isinstance(text, str)
    assert field.from_db_value(text, None, None) == [1]
    assert field.get_db_prep_value(None, connection=None, prepared=False) is None
    assert isinstance(field, models.Field)


def test_patching_threads_any_number_of_times_does_nothing():
    import threading

    before = threading.get_ident
    base.patch_thread_ident()
    base.patch_thread_ident()
    assert threading.get_ident is before


def test_a_command_that_dies_says_so_by_its_status():
    with pytest.raises(CommandError, match="no broker") as caught:
        base.CeleryCommand().die("no broker")
    assert caught.value.returncode == 1
