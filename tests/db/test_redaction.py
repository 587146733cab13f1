"""What a project or a task hides is nowhere in the database, and Celery works all the same."""

from __future__ import annotations

import pytest
from celery import chain, group
from celery.app.task import Context
from celery.exceptions import ChordError
from celery.result import AsyncResult
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test import override_settings

from djcelery import checks
from djcelery.models import Chord, ChordPart, TaskMeta

pytestmark = pytest.mark.django_db

SECRET = "hunter2-pässword"


@pytest.fixture
def app(celery_app):
    celery_app.conf.update(task_always_eager=True, task_store_eager_result=True, result_backend="database")
    return celery_app


@pytest.fixture
def login(app):
    """A task whose arguments, result and error are the secret."""

    @app.task(name="shop.login", shared=False)
    def login(user, password, fail=False, twice=False):
        if twice and not login.request.retries:
            raise login.retry(exc=ValueError(password), countdown=0)
        if fail:
            raise ValueError(password)
        return {"token": password}

    return login


def stored(*models):
    """Return all that the database holds in the tables of results, as one text."""
    found = []
    with connection.cursor() as cursor:
        for model in models or (TaskMeta, Chord, ChordPart):
            cursor.execute(f"SELECT * FROM {model._meta.db_table}")
            found += cursor.fetchall()
    text = repr(found)
    # JSON writes the letter beyond ASCII as an escape.
    return text.replace("\\\\u00e4", "ä").replace("\\u00e4", "ä")


def test_the_secret_would_be_found(login):
    login.delay("me", password=SECRET)
    assert SECRET in stored()


EVERYTHING = ["args", "kwargs", "result", "traceback"]


@pytest.mark.parametrize("way", ["setting", "option"])
@pytest.mark.parametrize("arguments", [{}, {"fail": True}, {"twice": True}, {"fail": True, "twice": True}])
def test_nothing_of_a_secret_is_in_the_database(app, login, settings, way, arguments):
    if way == "setting":
        settings.DJCELERY_REDACT = EVERYTHING
    else:
        login.redact = EVERYTHING
    sent = login.apply_async(("me",), {"password": SECRET, **arguments})
    assert SECRET not in stored()
    row = TaskMeta.objects.get(task_id=sent.id)
    assert (row.args, row.kwargs, row.name) == (None, None, "shop.login")
    assert set(row.flags.split()) >= {"args_redacted", "kwargs_redacted", "result_redacted"}
    result = AsyncResult(sent.id)
    assert (result.args, result.kwargs) == (None, None)
    if arguments.get("fail"):
        assert (type(result.result), result.result.args, result.traceback) == (ValueError, ("[redacted]",), None)
    else:
        assert (result.state, result.result) == ("SUCCESS", None)


def test_one_item_is_hidden_and_the_others_can_be_queried(login, settings):
    settings.DJCELERY_REDACT = ["kwargs.password", "args.1", "result"]
    login.delay("me", password=SECRET)
    login.delay("you", SECRET)
    assert SECRET not in stored()
    assert TaskMeta.objects.get(args__0="me").kwargs == {"password": "[redacted]"}
    assert TaskMeta.objects.get(args__0="you").args == ["you", "[redacted]"]


def test_a_tasks_option_replaces_the_setting(app, settings):
    settings.DJCELERY_REDACT = EVERYTHING

    @app.task(name="shop.open", shared=False, redact=[])
    def openly(value):
        return value

    row = TaskMeta.objects.get(task_id=openly.delay(5).id)
    assert (row.args, row.result, row.flags) == ([5], 5, None)


@pytest.mark.parametrize("redact", [["result"], ["traceback"]])
def test_an_error_is_hidden_as_far_as_its_traceback_shows_it(app, login, redact):
    login.redact = redact
    sent = login.delay("me", password="x", fail=True)
    row = TaskMeta.objects.get(task_id=sent.id)
    assert row.traceback is None
    assert (row.result["exc_message"] == ["[redacted]"]) is (redact == ["result"])


def test_progress_is_hidden_with_the_result(app):
    @app.task(name="shop.import", shared=False, redact=["result"], bind=True)
    def load(self):
        self.update_state(state="PROGRESS", meta={"row": SECRET})

    sent = load.delay()
    assert SECRET not in stored()
    assert TaskMeta.objects.get(task_id=sent.id).progress is None


def test_the_error_of_a_task_is_hidden_in_the_tasks_chained_after_it(app, login):
    @app.task(name="shop.after", shared=False)
    def after(value):
        """Never run."""

    login.redact = EVERYTHING
    request = Context(
        id="first",
        task="shop.login",
        args=[SECRET],
        kwargs={},
        chain=[dict(after.s().set(task_id="second")), dict(after.s().set(task_id="third"))],
    )
    app.backend.mark_as_failure("first", ValueError(SECRET), f"Traceback\nValueError: {SECRET}", request=request)
    assert TaskMeta.objects.failed().count() == 3
    assert SECRET not in stored()
    # Only for that error.
    app.backend.store_result("fourth", ValueError("open"), "FAILURE", request=Context(id="fourth", task="shop.after"))
    assert AsyncResult("fourth").result.args == ("open",)


def test_chained_tasks_get_the_values_that_are_hidden(app, login):
    @app.task(name="shop.length", shared=False)
    def length(value):
        return len(value["token"])

    login.redact = EVERYTHING
    length.redact = ["args"]
    chain(login.s("me", SECRET), length.s()).apply_async()
    assert SECRET not in stored()
    assert TaskMeta.objects.get(name="shop.length").result == len(SECRET)


def part(name, number, body):
    """Return the request of a part of a chord's header, as a worker has it."""
    return Context(id=f"part{number}", task=name, args=[SECRET], kwargs={}, group="gid", group_index=number, chord=body)


@pytest.fixture
def chord_of_secrets(app, login):
    """The signature of a callback, when a chord of two parts that hide their results has begun."""
    got = []

    @app.task(name="shop.collect", shared=False, redact=["args"])
    def collect(values):
        got.append(values)

    login.redact = EVERYTHING
    app.backend.apply_chord(("gid", [AsyncResult("part0"), AsyncResult("part1")]), None)
    app.backend.set_chord_size("gid", 2)
    return collect.s().set(task_id="callback"), got


def test_the_callback_of_a_chord_gets_the_values_that_are_hidden(app, chord_of_secrets):
    body, got = chord_of_secrets
    for number in (0, 1):
        app.backend.mark_as_done(f"part{number}", SECRET, part("shop.login", number, body))
    assert got == [[SECRET, SECRET]]
    assert SECRET not in stored()


@pytest.mark.parametrize("failing", [0, 1])
def test_the_error_of_a_part_is_hidden_in_the_failure_of_the_callback(app, chord_of_secrets, failing):
    body, got = chord_of_secrets
    for number in (0, 1):
        returned = part("shop.login", number, body)
        if number == failing:
            app.backend.mark_as_failure(f"part{number}", ValueError(SECRET), "Traceback", returned)
        else:
            app.backend.mark_as_done(f"part{number}", "open", returned)
        assert SECRET not in stored()
    assert got == []
    assert type(AsyncResult("callback").result) is ChordError


def test_groups_are_restored_whatever_their_tasks_hide(app, login):
    login.redact = EVERYTHING
    result = group(login.s("me", SECRET)).apply_async()
    assert result.get(disable_sync_subtasks=False) == [{"token": SECRET}]
    assert SECRET not in stored()


# settings that can't be used


@pytest.mark.parametrize("wrong", ["args", ["arguments"], ["args.first"], ["kwargs."], ["result.0"], [5], 5])
def test_a_setting_that_cannot_be_used_is_an_error_of_the_checks(settings, wrong):
    settings.DJCELERY_REDACT = wrong
    found = checks.own_settings()
    assert [(error.id, "DJCELERY_REDACT" in error.msg) for error in found] == [("djcelery.E101", True)]
    with pytest.raises(SystemCheckError):
        call_command("check")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("DJCELERY_ARGS_MAX_BYTES", "16k"),
        ("DJCELERY_RESULT_MAX_BYTES", -1),
        ("DJCELERY_RESULT_MAX_BYTES", True),
        ("DJCELERY_RESULT_TOO_LARGE", "drop"),
        ("DJCELERY_STORE_PUBLISHED", "yes"),
    ],
)
def test_the_other_settings_of_rows_are_checked_too(name, wrong):
    with override_settings(**{name: wrong}):
        assert [(error.id, error.msg.startswith(f"{name} = {wrong!r}: use ")) for error in checks.own_settings()] == [
            ("djcelery.E101", True)
        ]


def test_a_tasks_wrong_option_hides_everything_and_the_task_runs(app, login, caplog):
    login.redact = "kwargs.password"
    sent = login.delay("me", password=SECRET)
    assert sent.get(disable_sync_subtasks=False) == {"token": SECRET}
    assert SECRET not in stored()
    assert TaskMeta.objects.get(task_id=sent.id).status == "SUCCESS"
    assert "redact of task shop.login = 'kwargs.password': use a list of names, not one string." in caplog.text


@pytest.mark.parametrize("fail", [False, True])
def test_a_cache_holds_no_secret_either(celery_app, settings, fail):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "redacted"}}
    settings.DJCELERY_REDACT = ["args", "kwargs.password", "result"]
    settings.CELERY_RESULT_BACKEND = "cache"
    celery_app.conf.update(task_always_eager=True, task_store_eager_result=True, result_extended=True)

    @celery_app.task(name="shop.login", shared=False)
    def login(user, password):
        if fail:
            raise ValueError(password)
        return {"token": password}

    result = login.apply(args=["me"], kwargs={"password": SECRET})
    cache = celery_app.backend.cache
    assert cache._cache
    assert SECRET not in repr([cache.get(key.split(":", 2)[2]) for key in list(cache._cache)])
    meta = celery_app.backend.get_task_meta(result.id)
    assert (meta["name"], meta["args"], meta["kwargs"]) == ("shop.login", None, {"password": "[redacted]"})
    assert meta["status"] == ("FAILURE" if fail else "SUCCESS")


@pytest.fixture
def cache_app(celery_app, settings):
    """An app whose results go to a cache in memory; ``cached()`` is all that is in it."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "hidden"}}
    settings.CELERY_RESULT_BACKEND = "cache"
    settings.CELERY_RESULT_EXTENDED = True
    yield celery_app
    celery_app.backend.cache.clear()


def cached(app):
    """Return all that the cache holds, as one text."""
    cache = app.backend.cache
    text = repr([cache.get(key.split(":", 2)[2]) for key in list(cache._cache)])
    return text.replace("\\\\u00e4", "ä").replace("\\u00e4", "ä")


@pytest.mark.parametrize("redact", [["result", "traceback"], ["result"], EVERYTHING])
@pytest.mark.parametrize("failing", [0, 1])
def test_the_error_of_a_part_is_hidden_in_a_cache_and_in_the_failure_of_the_callback(cache_app, failing, redact):
    backend = cache_app.backend

    @cache_app.task(name="shop.login", shared=False, redact=redact)
    def login():
        """Is never run here."""

    backend.apply_chord(("gid", [AsyncResult("part0"), AsyncResult("part1")]), None)
    backend.set_chord_size("gid", 2)
    body = cache_app.signature("shop.total", task_id="callback")
    for number in (0, 1):
        returned = Context(id=f"part{number}", task="shop.login", group="gid", group_index=number, chord=body)
        if number == failing:
            backend.mark_as_failure(f"part{number}", ValueError(SECRET), f"ValueError: {SECRET}", returned)
        else:
            backend.mark_as_done(f"part{number}", "open", returned)
        assert SECRET not in cached(cache_app)
    meta = backend.get_task_meta("callback")
    assert type(meta["result"]) is ChordError
    # The last part to return hides all of the failure that it stores for the callback.
    hidden = "[redacted]" if failing else "Dependency part0 raised ValueError('[redacted]')"
    assert str(meta["result"]) == hidden


def test_the_error_of_a_part_that_hides_nothing_is_told_by_a_cache(cache_app):
    cache_app.backend.apply_chord(("gid", [AsyncResult("part0")]), None)
    cache_app.backend.set_chord_size("gid", 1)
    body = cache_app.signature("shop.total", task_id="callback")
    part = Context(id="part0", task="shop.open", group="gid", group_index=0, chord=body)
    cache_app.backend.mark_as_failure("part0", ValueError(SECRET), "Traceback", part)
    assert SECRET in cached(cache_app)


def test_a_cache_holds_the_senders_texts_in_the_place_of_arguments(cache_app):
    request = Context(
        id="id",
        task="shop.login",
        args=["me", SECRET],
        kwargs={"b": 2},
        argsrepr="('me', ***)",
        kwargsrepr="{'b': 2}",
        hostname="w1",
    )
    cache_app.backend.store_result("id", 1, "SUCCESS", request=request)
    assert SECRET not in cached(cache_app)
    meta = cache_app.backend.get_task_meta("id")
    assert (meta["args"], meta["kwargs"]) == ("('me', ***)", {"b": 2})
