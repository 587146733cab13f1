"""The views: names, paths and JSON of django-celery, who may call them, and an answer for each failure."""

from __future__ import annotations

import logging
import math
import socket
import time
import uuid
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from celery import states
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import Resolver404, resolve, reverse
from kombu import pools, serialization
from kombu.exceptions import LimitExceeded

from djcelery import db, urls, views
from djcelery.models import TaskMeta
from djcelery.views import JsonResponse, reading, sending
from tests import services
from tests.checking import said
from tests.db import viewkit
from tests.db.viewkit import SECRET, SEES, SENDS, VALUES, client_of, error, sent, strict, user

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.db.viewurls")]

TOKEN = "a-token-of-some-length"
JSON = "application/json"


@pytest.fixture(autouse=True)
def app(celery_app):
    return viewkit.register(celery_app)


@pytest.fixture
def sender(settings):
    """Somebody who may send tasks, in a project that allows some."""
    settings.DJCELERY_APPLY_ALLOW = ["shop.*"]
    return client_of(user("sender", SENDS))


@pytest.fixture
def reader():
    """Somebody who may see states and values."""
    return client_of(user("reader", SEES, VALUES))


def late():
    """A task that is registered when its module is imported."""


def store(app, task_id, result, state=states.SUCCESS, traceback=None):
    app.backend.store_result(task_id, result, state, traceback=traceback)


# -- names and paths -------------------------------------------------------------------------------


def test_the_names_of_django_celery_are_reversed_to_its_paths():
    assert reverse("celery-is_task_successful", kwargs={"task_id": "a-1"}) == "/celery/a-1/done"
    assert reverse("celery-task_status", args=["a.b_1"]) == "/celery/a.b_1/status"
    assert reverse("celery-tasks") == "/celery/tasks"
    assert reverse("celery-apply", args=["shop.add"]) == "/celery/apply/shop.add"
    assert reverse("by-hand", args=["shop.add"]) == "/by-hand/apply/shop.add/"


@pytest.mark.parametrize(
    ("path", "view"),
    [
        ("a-1/done", views.is_task_successful),
        ("a-1/done/", views.is_task_successful),
        ("a-1/status", views.task_status),
        ("a-1/status/", views.task_status),
        ("tasks", views.registered_tasks),
        ("tasks/", views.registered_tasks),
        ("apply/shop.add", views.apply),
        ("apply/shop.add/", views.apply),
        # Legacy's paths win over the one that is new here.
        ("apply/done/", views.is_task_successful),
    ],
)
def test_a_slash_at_the_end_is_optional(path, view):
    assert resolve(f"/celery/{path}").func is view


@pytest.mark.parametrize(
    "path", ["a b/done", "a:b/status", "/done", "a/b/status", "a/status/x", "tasks/x", "a/status\n"]
)
def test_other_characters_and_paths_are_not_found(path):
    with pytest.raises(Resolver404):
        resolve(f"/celery/{path}")


def test_the_pattern_of_ids_is_there_for_urls_of_projects():
    assert urls.task_pattern == r"(?P<task_id>[\w\d\-\.]+)"


# -- JsonResponse ----------------------------------------------------------------------------------


def test_the_legacy_response_takes_any_value():
    assert JsonResponse([1, None, "é"]).content == b'[1, null, "\\u00e9"]'
    assert JsonResponse({}).status_code == 200
    assert JsonResponse({}).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {("a",): 1}])
def test_the_legacy_response_raises_for_what_json_has_not(value):
    with pytest.raises(TypeError):
        JsonResponse({"value": value})


def test_the_legacy_response_writes_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        JsonResponse(math.nan)


# -- states and results ----------------------------------------------------------------------------


def test_executed_says_whether_the_task_has_succeeded(app, reader):
    store(app, "good", 1)
    store(app, "bad", KeyError("x"), states.FAILURE)
    for task_id, executed in (("good", True), ("bad", False), ("unknown", False)):
        assert strict(reader.get(f"/celery/{task_id}/done/")) == {"task": {"id": task_id, "executed": executed}}


@pytest.mark.parametrize("value", [42, None, "text", [1, {"a": None}], {"é": 1.5}])
def test_a_result_is_given_as_it_is(app, reader, value):
    store(app, "a-1", value)
    response = reader.get("/celery/a-1/status/")
    assert response.status_code == 200
    assert strict(response) == {"task": {"id": "a-1", "status": "SUCCESS", "result": value}}


def test_an_unknown_task_is_pending(reader):
    assert strict(reader.get("/celery/no.such/status/")) == {
        "task": {"id": "no.such", "status": "PENDING", "result": None}
    }


def test_progress_is_given_as_it_is(app, reader):
    store(app, "a-1", {"done": 3, "of": 4}, "PROGRESS")
    assert strict(reader.get("/celery/a-1/status/"))["task"]["result"] == {"done": 3, "of": 4}


@pytest.mark.parametrize("state", [states.FAILURE, states.RETRY, states.REVOKED])
def test_an_error_has_its_class_and_its_traceback(app, reader, state):
    store(app, "a-1", KeyError("x"), state, traceback="Traceback: …")
    assert strict(reader.get("/celery/a-1/status/")) == {
        "task": {
            "id": "a-1",
            "status": state,
            "result": "KeyError('x')",
            "exc": "builtins.KeyError",
            "traceback": "Traceback: …",
        }
    }


def test_an_error_state_without_an_error_has_null_for_it(app, reader, monkeypatch):
    monkeypatch.setattr(type(app.backend), "get_task_meta", lambda self, id: {"status": "REVOKED", "result": None})
    task = strict(reader.get("/celery/a-1/status/"))["task"]
    assert task == {"id": "a-1", "status": "REVOKED", "result": None, "exc": None, "traceback": None}


def test_the_cache_backend_is_asked_as_well(settings, celery_app, reader):
    from django.core.cache import cache

    settings.CELERY_RESULT_BACKEND = "cache"
    cache.clear()
    store(celery_app, "a-1", ["x"])
    store(celery_app, "a-2", ValueError("no"), states.FAILURE, traceback="tb")
    assert strict(reader.get("/celery/a-1/status/"))["task"]["result"] == ["x"]
    failed = strict(reader.get("/celery/a-2/status/"))["task"]
    assert (failed["exc"], failed["result"], failed["traceback"]) == ("builtins.ValueError", "ValueError('no')", "tb")
    assert strict(reader.get("/celery/a-1/done/"))["task"]["executed"] is True
    cache.clear()


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")


def nested():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "nan"),
        ([1, math.inf], "[1, inf]"),
        ({1, 2}, "{1, 2}"),
        (b"\xff", "b'ff'"),
        (Hostile(), "Hostile"),
        (10**5000, "0x"),
        (nested(), "Recursion"),
    ],
    ids=["nan", "inf", "set", "bytes", "hostile", "long", "nested"],
)
def test_what_json_cannot_carry_is_given_as_its_repr(app, reader, monkeypatch, value, text):
    monkeypatch.setattr(type(app.backend), "get_task_meta", lambda self, id: {"status": "SUCCESS", "result": value})
    task = strict(reader.get("/celery/a-1/status/"))["task"]
    assert task["result_is_repr"] is True
    assert text in task["result"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "2026-01-02T03:04:00Z"), (Decimal("1.50"), "1.50")],
)
def test_dates_and_decimals_are_texts(app, reader, value, text):
    store(app, "a-1", value)
    task = strict(reader.get("/celery/a-1/status/"))["task"]
    assert (task["result"], "result_is_repr" in task) == (text, False)


@pytest.mark.parametrize(
    ("stored", "content_type"),
    [
        ("gibberish", "application/x-unknown"),
        ("gAJ", None),
        # The pickle of os.system.
        ("gASVFAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOULg==", None),
        ("gASVFAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOULg==", "application/x-python-serialize"),
    ],
)
def test_a_stored_value_that_cannot_be_read_back_says_so(app, reader, stored, content_type):
    store(app, "a-1", 1)
    TaskMeta.objects.filter(task_id="a-1").update(content_type=content_type, content_encoding="utf-8")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {TaskMeta._meta.db_table} SET result = %s", [stored])
    response = reader.get("/celery/a-1/status/")
    assert response.status_code == 200
    task = strict(response)["task"]
    assert (task["status"], task["result_is_repr"]) == ("SUCCESS", True)
    assert task["result"].startswith("<unreadable")


def test_a_poll_is_one_statement(app, settings, client, django_assert_num_queries):
    settings.DJCELERY_TASK_STATUS_ACCESS = settings.DJCELERY_IS_TASK_SUCCESSFUL_ACCESS = "open"
    store(app, "a-1", 1)
    for path in ("status", "done"):
        with django_assert_num_queries(1):
            client.get(f"/celery/a-1/{path}/")


def test_a_refused_poll_asks_the_database_nothing(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert client.get("/celery/a-1/status/").status_code == 401


def test_a_poll_by_a_person_adds_one_statement_to_what_django_asks_for_the_permission(app, reader):
    store(app, "a-1", 1)
    with CaptureQueriesContext(connection) as captured:
        reader.get("/celery/a-1/status/")
    assert len(captured) <= 5
    assert len([query for query in captured if "celery_taskmeta" in query["sql"]]) == 1


# -- who sees what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codename", ["view_taskmeta", "view_taskstate"])
def test_either_permission_to_see_tasks_shows_states_but_no_values(app, codename):
    store(app, "a-1", SECRET)
    store(app, "a-2", ValueError(SECRET), states.FAILURE, traceback=SECRET)
    client = client_of(user("viewer", codename))
    first, second = (strict(client.get(f"/celery/{task_id}/status/"))["task"] for task_id in ("a-1", "a-2"))
    assert first == {"id": "a-1", "status": "SUCCESS", "result": None, "hidden": True}
    assert second == {
        "id": "a-2",
        "status": "FAILURE",
        "result": None,
        "exc": None,
        "traceback": None,
        "hidden": True,
    }


@pytest.mark.parametrize("path", ["a-1/status", "a-1/done", "tasks"])
def test_reading_needs_a_login_and_a_permission(path):
    response = Client().get(f"/celery/{path}")
    assert "Log in" in error(response, 401)
    assert response.headers["WWW-Authenticate"]
    assert "permission djcelery.view_task" in error(
        client_of(user("nobody", is_staff=True)).get(f"/celery/{path}"), 403
    )


def test_by_its_id_a_state_is_shown_without_values(app, settings, client):
    settings.DJCELERY_TASK_STATUS_ACCESS = settings.DJCELERY_IS_TASK_SUCCESSFUL_ACCESS = "id"
    store(app, "a-1", SECRET)
    task = strict(client.get("/celery/a-1/status/"))["task"]
    assert task == {"id": "a-1", "status": "SUCCESS", "result": None, "hidden": True}
    assert strict(client.get("/celery/a-1/done/"))["task"]["executed"] is True


def test_by_its_id_who_may_see_values_gets_them(app, settings):
    settings.DJCELERY_TASK_STATUS_ACCESS = "id"
    store(app, "a-1", SECRET)
    task = strict(client_of(user("viewer", VALUES)).get("/celery/a-1/status/"))["task"]
    assert task == {"id": "a-1", "status": "SUCCESS", "result": SECRET}


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_open_status_shows_everything_to_anybody(app, settings, client, method):
    settings.DJCELERY_TASK_STATUS_ACCESS = "open"
    store(app, "a-1", ValueError(SECRET), states.FAILURE, traceback="tb")
    task = strict(getattr(client, method)("/celery/a-1/status/"))["task"]
    assert (task["result"], task["traceback"]) == (f"ValueError('{SECRET}')", "tb")


def test_the_list_of_tasks_has_all_registered_names():
    value = strict(client_of(user("viewer", "view_taskstate")).get("/celery/tasks/"))
    assert set(value) == {"regular", "periodic"}
    assert value["periodic"] == ""
    assert value["regular"] == sorted(value["regular"])
    assert {"shop.add", "celery.backend_cleanup"} <= set(value["regular"])


def test_the_list_of_tasks_has_those_of_modules_that_nobody_imported_yet(app, reader):
    app.loader.import_default_modules = lambda: app.task(late, name="late.task", shared=False)
    value = strict(client_of(user("viewer", "view_taskstate")).get("/celery/tasks/"))
    assert "late.task" in value["regular"]


def test_an_open_list_is_for_anybody(settings, client):
    settings.DJCELERY_REGISTERED_TASKS_ACCESS = "open"
    assert "shop.add" in strict(client.get("/celery/tasks/"))["regular"]
    assert "shop.add" in strict(client.post("/celery/tasks/"))["regular"]


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
@pytest.mark.parametrize("path", ["a-1/status/", "a-1/done/", "tasks/"])
def test_reading_takes_no_other_methods(reader, method, path):
    response = getattr(reader, method)(f"/celery/{path}")
    error(response, 405)
    assert response.headers["Allow"] == "GET, HEAD"


def test_head_is_answered_without_a_body(app, reader):
    response = reader.head("/celery/a-1/status/")
    assert (response.status_code, response.content) == (200, b"")


# -- what goes wrong while reading -----------------------------------------------------------------


def fails(monkeypatch, app, exc):
    def get_task_meta(self, task_id, cache=True):
        raise exc

    monkeypatch.setattr(type(app.backend), "get_task_meta", get_task_meta)


@pytest.mark.parametrize("path", ["status", "done"])
@pytest.mark.parametrize("exc", [ConnectionError("refused"), TimeoutError(), RuntimeError("whatever a client raises")])
def test_a_result_backend_that_is_away_is_503(app, reader, monkeypatch, path, exc):
    fails(monkeypatch, app, exc)
    response = reader.get(f"/celery/a-1/{path}/")
    assert "refused" not in error(response, 503)
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    "exc", [ValueError("x"), TypeError("x"), KeyError("status"), UnicodeDecodeError("u", b"", 0, 1, "")]
)
def test_a_stored_result_that_a_backend_cannot_read_is_502(app, reader, monkeypatch, exc):
    fails(monkeypatch, app, exc)
    assert "log" in error(reader.get("/celery/a-1/status/"), 502)


def test_without_a_result_backend_the_answer_is_501(settings, celery_app, reader):
    settings.CELERY_RESULT_BACKEND = "disabled"
    for path in ("status", "done"):
        assert "result backend" in error(reader.get(f"/celery/a-1/{path}/"), 501)


class Refusal(Exception):
    """What a driver raises that can't connect."""

    sqlstate = "08001"


# Inside a transaction nothing is tried again.
@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_503_at_once(settings, client, monkeypatch):
    settings.DJCELERY_TASK_STATUS_ACCESS = "open"

    def refuse():
        raise OperationalError("connection refused") from Refusal()

    monkeypatch.setattr(connections["default"], "ensure_connection", refuse)
    # Who tried again would wait longer than any machine is busy.
    monkeypatch.setattr(db, "RETRY_WAITS_S", (30.0,))
    began = time.monotonic()
    response = client.get("/celery/a-1/status/")
    assert time.monotonic() - began < 12
    error(response, 503)
    assert response.headers["Retry-After"]


def test_a_database_that_goes_away_while_permissions_are_read_is_503(reader, monkeypatch):
    def refuse(self, permission):
        raise OperationalError("gone")

    monkeypatch.setattr(get_user_model(), "has_perm", refuse)
    error(reader.get("/celery/a-1/status/"), 503)


def test_an_id_that_no_table_can_hold_is_400(reader):
    assert "255" in error(reader.get(f"/celery/{'x' * 256}/status/"), 400)
    assert reader.get(f"/celery/{'x' * reading.MAX_ID}/status/").status_code == 200


# -- sending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/by-hand/apply/shop.add/", "/shop/add/"])
def test_a_form_sends_the_task_with_its_fields(app, sender, path):
    response = sender.post(path, {"x": "1", "y": ["2", "3"]})
    value = strict(response)
    assert response.status_code == 200
    assert set(value) == {"ok", "task_id"}
    assert value["ok"] == "true"
    # Of a repeated field the last one counts.
    assert sent(app) == [("shop.add", value["task_id"], {"x": "1", "y": "3"})]


@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
def test_json_sends_the_task_with_its_members(app, sender, path):
    value = strict(sender.post(path, {"x": 1, "y": [2, None]}, content_type=JSON))
    assert sent(app) == [("shop.add", value["task_id"], {"x": 1, "y": [2, None]})]


def test_what_the_url_captures_wins_over_the_form(app, sender):
    strict(sender.post("/shop/add/5/", {"x": "1", "y": "2"}))
    assert [kwargs for _name, _id, kwargs in sent(app)] == [{"x": "1", "y": 5}]


def test_the_query_string_of_a_post_is_no_argument(app, sender):
    strict(sender.post("/shop/add/?x=9", {"x": "1"}))
    assert [kwargs for _name, _id, kwargs in sent(app)] == [{"x": "1"}]


def test_a_task_view_needs_no_entry_in_the_list_of_allowed_tasks(app, settings):
    settings.DJCELERY_APPLY_ALLOW = []
    strict(client_of(user("sender", SENDS)).post("/shop/add/", {"x": "1"}))
    assert len(sent(app)) == 1


@pytest.mark.parametrize("allowed", [[], ["shop"], ["other.task"], ["SHOP.*"], ["add"]])
def test_apply_sends_only_what_is_on_the_list(app, settings, allowed):
    settings.DJCELERY_APPLY_ALLOW = allowed
    response = client_of(user("sender", SENDS)).post("/celery/apply/shop.add/", {"x": "1"})
    assert "DJCELERY_APPLY_ALLOW" in error(response, 403)
    assert sent(app) == []


@pytest.mark.parametrize("allowed", [["shop.add"], ["shop.*"], ("*",), {"x", "s?op.add"}])
def test_the_list_has_names_and_patterns(app, settings, allowed):
    settings.DJCELERY_APPLY_ALLOW = allowed
    strict(client_of(user("sender", SENDS)).post("/celery/apply/shop.add/", {"x": "1"}))
    assert len(sent(app)) == 1


def test_an_unknown_task_is_404(app, sender):
    assert error(sender.post("/celery/apply/shop.unknown/"), 404) == "apply: no such task"
    assert sent(app) == []


def test_a_task_whose_module_nobody_imported_yet_is_found(app, sender):
    app.loader.import_default_modules = lambda: app.task(late, name="shop.late", shared=False)
    strict(sender.post("/celery/apply/shop.late/"))
    assert len(sent(app)) == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [({}, "missing 1 required positional argument: 'x'"), ({"x": "1", "z": "2"}, "unexpected keyword argument 'z'")],
)
@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
def test_arguments_that_do_not_fit_are_400(app, sender, path, fields, text):
    assert text in error(sender.post(path, fields), 400)
    assert text in error(sender.post(path, fields, content_type=JSON), 400)
    assert sent(app) == []


def test_a_task_without_typing_takes_any_arguments(app, sender):
    strict(sender.post("/celery/apply/shop.loose/", {"anything": "1"}))
    assert len(sent(app)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"x"',
        b"null",
        b"1",
        b'{"x": NaN}',
        b'{"x": -Infinity}',
        b'{"x": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"x": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"{'x': 1}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_json_object_is_400(app, sender, body):
    text = error(sender.generic("POST", "/shop/add/", body, content_type=JSON), 400)
    assert len(text) < 500
    assert sent(app) == []


def test_other_bodies_are_415(app, sender):
    for content_type in ("text/plain", "application/xml", "application/octet-stream", "nonsense"):
        error(sender.generic("POST", "/shop/add/", b"x=1", content_type=content_type), 415)
    assert sent(app) == []


def test_a_form_that_cannot_be_read_is_400(sender):
    error(sender.generic("POST", "/shop/add/", b"x", content_type="multipart/form-data"), 400)
    error(
        sender.generic("POST", "/shop/add/", b"x=1", content_type="application/x-www-form-urlencoded; charset=latin-1"),
        400,
    )


def test_a_body_that_is_too_large_is_413(settings, sender):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    body = b'{"x": "' + b"1" * 200 + b'"}'
    error(sender.generic("POST", "/shop/add/", body, content_type=JSON), 413)
    error(sender.post("/shop/add/", {"x": "1" * 200}), 413)


@pytest.mark.parametrize("length", ["x", "1" * 5000, "1.5"])
@pytest.mark.parametrize("content_type", [JSON, "application/x-www-form-urlencoded"])
def test_a_length_that_is_no_number_is_400(sender, content_type, length):
    error(sender.generic("POST", "/shop/add/", b"{}", content_type=content_type, CONTENT_LENGTH=length), 400)


def test_a_length_beyond_any_memory_is_413(sender):
    body = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    for content_type in ("multipart/form-data; boundary=b", JSON):
        error(sender.generic("POST", "/shop/add/", body, content_type=content_type, CONTENT_LENGTH="1" * 30), 413)


def test_too_many_fields_are_400(settings, sender):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 3
    error(sender.post("/shop/add/", {f"x{n}": "1" for n in range(5)}), 400)


def test_arguments_that_the_serializer_does_not_take_are_400(app, sender):
    def refuse(value):
        raise UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed")

    serialization.register("picky", refuse, None, "application/x-picky")
    try:
        app.tasks["shop.add"].serializer = "picky"
        for is_eager in (False, True):
            app.conf.task_always_eager = is_eager
            assert "surrogates" in error(sender.post("/shop/add/", {"x": "1"}), 400)
    finally:
        serialization.unregister("picky")


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "patch", "options"])
@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
def test_nothing_but_post_sends(app, sender, method, path):
    response = getattr(sender, method)(f"{path}?x=1")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert sent(app) == []


def test_tasks_that_are_run_eagerly_are_run_in_the_request(app, sender):
    app.conf.task_always_eager = True
    assert strict(sender.post("/shop/add/", {"x": "1"}))["ok"] == "true"
    assert strict(sender.post("/shop/add/", {"x": "not a number"}))["ok"] == "true"
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="not a number"):
        sender.post("/shop/add/", {"x": "not a number"})


# -- the notes of who sent what --------------------------------------------------------------------


def test_each_sending_is_noted_in_the_admin_and_in_the_log(app, sender, caplog):
    with caplog.at_level(logging.INFO, "djcelery.views.sending"):
        task_id = strict(sender.post("/shop/add/", {"x": SECRET}))["task_id"]
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.action_flag) == ("sender", ADDITION)
    assert entry.object_repr == f"shop.add {task_id}"
    assert task_id in entry.change_message
    assert entry.get_admin_url() is None
    (record,) = said(caplog)
    for text in ("shop.add", task_id, "'sender'", "/shop/add/"):
        assert text in record.getMessage()
    assert SECRET not in record.getMessage() + entry.change_message


def test_a_refused_sending_is_not_noted(sender):
    error(sender.post("/shop/add/"), 400)
    assert not LogEntry.objects.exists()


def test_a_task_that_is_out_is_answered_though_it_cannot_be_noted(app, sender, monkeypatch, caplog):
    def refuse(**values):
        raise OperationalError("gone")

    monkeypatch.setattr(LogEntry.objects, "create", refuse)
    task_id = strict(sender.post("/shop/add/", {"x": "1"}))["task_id"]
    assert [each[1] for each in sent(app)] == [task_id]
    assert "could not be noted" in caplog.text


# -- CSRF ------------------------------------------------------------------------------------------

CSRF = "django.middleware.csrf.CsrfViewMiddleware"


@pytest.fixture(params=[False, True], ids=["without the middleware", "with it"])
def careful(request, settings, sender):
    """A client whose requests Django does not excuse from the CSRF check, and its token."""
    if request.param:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, CSRF]
    settings.DJCELERY_APPLY_ALLOW = ["shop.*"]
    client = client_of(get_user_model().objects.get(username="sender"), enforce_csrf_checks=True)
    token = "t" * 32
    client.cookies["csrftoken"] = token
    return client, token


@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
def test_without_a_csrf_token_nothing_is_sent(app, careful, path):
    client, token = careful
    assert "CSRF" in error(client.post(path, {"x": "1"}), 403)
    assert "CSRF" in error(client.post(path, {"x": 1}, content_type=JSON), 403)
    assert "CSRF" in error(client.post(path, {"x": "1", "csrfmiddlewaretoken": token[::-1].upper()}), 403)
    del client.cookies["csrftoken"]
    assert "CSRF" in error(client.post(path, {"x": "1"}, HTTP_X_CSRFTOKEN=token), 403)
    assert sent(app) == []


@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
def test_the_token_is_taken_from_the_header_or_the_form_and_is_no_argument(app, careful, path):
    client, token = careful
    strict(client.post(path, {"x": 1}, content_type=JSON, HTTP_X_CSRFTOKEN=token))
    strict(client.post(path, {"x": "2", "csrfmiddlewaretoken": token}))
    assert [kwargs for _name, _id, kwargs in sent(app)] == [{"x": 1}, {"x": "2"}]


def test_another_origin_is_refused_though_it_knows_the_token(app, careful):
    client, token = careful
    response = client.post("/shop/add/", {"x": "1"}, HTTP_X_CSRFTOKEN=token, HTTP_ORIGIN="https://evil.example")
    assert "Origin" in error(response, 403)
    assert sent(app) == []


# -- legacy openness -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_open_apply_sends_any_registered_task_for_anybody(app, settings, method):
    settings.DJCELERY_APPLY_ACCESS = "open"
    client = Client(enforce_csrf_checks=True)
    task_id = strict(getattr(client, method)("/celery/apply/other.task/", {"a": "1"}))["task_id"]
    assert sent(app) == [("other.task", task_id, {"a": "1"})]
    assert not LogEntry.objects.exists()


def test_an_open_apply_still_obeys_a_list(app, settings, client):
    settings.DJCELERY_APPLY_ACCESS, settings.DJCELERY_APPLY_ALLOW = "open", ["shop.*"]
    error(client.get("/celery/apply/other.task/"), 403)
    error(client.get("/celery/apply/shop.unknown/"), 404)
    assert sent(app) == []


def test_an_open_task_view_takes_the_query_string(app, settings, client):
    settings.DJCELERY_TASK_VIEW_ACCESS = "open"
    strict(client.get("/shop/add/7/?x=1&x=2"))
    assert [kwargs for _name, _id, kwargs in sent(app)] == [{"x": "2", "y": 7}]


def test_opening_one_view_opens_no_other(app, settings, client):
    settings.DJCELERY_TASK_VIEW_ACCESS = "open"
    error(client.post("/celery/apply/shop.add/", {"x": "1"}), 401)
    settings.DJCELERY_TASK_VIEW_ACCESS, settings.DJCELERY_APPLY_ACCESS = "permission", "open"
    error(client.post("/shop/add/", {"x": "1"}), 401)
    assert sent(app) == []


@pytest.mark.parametrize("method", ["head", "put", "delete", "options"])
def test_even_open_views_send_nothing_by_other_methods(app, settings, client, method):
    settings.DJCELERY_TASK_VIEW_ACCESS = settings.DJCELERY_APPLY_ACCESS = "open"
    for path in ("/celery/apply/shop.add/?x=1", "/shop/add/?x=1"):
        assert getattr(client, method)(path).status_code == 405
    assert sent(app) == []


def test_opening_by_an_unknown_word_opens_nothing(app, settings, client):
    from djcelery.exceptions import SettingError

    settings.DJCELERY_APPLY_ACCESS = "OPEN"
    with pytest.raises(SettingError, match="'permission' or 'open'"):
        client.post("/celery/apply/shop.add/", {"x": "1"})
    assert sent(app) == []


# -- the broker is away ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/celery/apply/shop.add/", "/shop/add/"])
@pytest.mark.parametrize("url", ["amqp://guest:hunter2@127.0.0.1:1//", "redis://:hunter2@127.0.0.1:1/0"])
def test_a_broker_that_refuses_connections_is_503_within_seconds(app, sender, path, url):
    if url.startswith("redis"):
        pytest.importorskip("redis")
    app.conf.broker_url = url
    app.conf.result_backend = "disabled"
    began = time.monotonic()
    response = sender.post(path, {"x": "1"})
    assert time.monotonic() - began < 15
    assert "hunter2" not in error(response, 503)
    assert response.headers["Retry-After"] == "5"
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("kind", ["amqp", "redis"])
def test_a_broker_that_never_answers_is_503_within_seconds(app, sender, kind, monkeypatch):
    if kind == "redis":
        pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app.conf.broker_url = f"{kind}://127.0.0.1:{silent.getsockname()[1]}//"
        app.conf.broker_connection_timeout = 1
        monkeypatch.setattr(sending, "_TIMEOUT_S", 0.5)
        began = time.monotonic()
        error(sender.post("/shop/add/", {"x": "1"}), 503)
        assert time.monotonic() - began < 15


def test_whatever_else_keeps_a_task_from_being_sent_is_503(app, sender, monkeypatch):
    def routes(name, *args, **kwargs):
        raise ZeroDivisionError("a bug in the project's routes")

    app.conf.task_routes = (routes,)
    response = sender.post("/shop/add/", {"x": "1"})
    assert "bug" not in error(response, 503)
    assert "Retry-After" not in response.headers


def test_sending_again_and_again_uses_the_same_connection(app, sender):
    def size():
        return sum(len(pool._resource.queue) + len(pool._dirty) for pool in pools.producers.values())

    strict(sender.post("/shop/add/", {"x": "1"}))
    before, used = size(), []
    for _ in range(5):
        strict(sender.post("/shop/add/", {"x": "1"}))
        with sending._producer(app) as producer:
            used.append(id(producer.connection.connection))
    assert size() == before
    assert len(set(used)) == 1


def test_the_pool_is_as_large_as_the_project_says(app, monkeypatch):
    monkeypatch.setattr(sending, "_TIMEOUT_S", 0.1)
    app.conf.broker_pool_limit = 1
    try:
        with sending._producer(app), pytest.raises(LimitExceeded), sending._producer(app):
            pass
    finally:
        pools.set_limit(10)


@pytest.mark.parametrize("path", ["/celery/a-1/status/", "/celery/a-1/done/"])
def test_a_result_backend_that_refuses_connections_is_503(app, reader, settings, path):
    pytest.importorskip("redis")
    settings.CELERY_RESULT_BACKEND = "redis://:hunter2@127.0.0.1:1/0"
    began = time.monotonic()
    assert "hunter2" not in error(reader.get(path), 503)
    assert time.monotonic() - began < 20


def test_a_task_is_not_sent_where_its_result_backend_is_away(app, sender, settings):
    pytest.importorskip("redis")
    settings.CELERY_RESULT_BACKEND = "redis://:hunter2@127.0.0.1:1/0"
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1, "interval_step": 0.1}}
    assert "hunter2" not in error(sender.post("/shop/add/", {"x": "1"}), 503)
    assert sent(app) == []


def test_a_connection_that_broke_while_nobody_used_it_is_replaced(app, sender):
    services.rabbitmq().close()
    queue = f"djcelery-views-tests-{uuid.uuid4().hex}"
    app.conf.update(broker_url=services.RABBITMQ_URL, task_default_queue=queue)
    try:
        strict(sender.post("/shop/add/", {"x": "1"}))
        with sending._producer(app) as producer:
            producer.connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        strict(sender.post("/shop/add/", {"x": "2"}))
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            # The server counts a message some time after it was sent.
            services.wait_until(
                lambda: channel.queue_declare(queue, passive=True).message_count == 2, 30, "both messages"
            )
            assert len([channel.basic_get(queue, no_ack=True) for _ in range(2)]) == 2
            assert channel.basic_get(queue) is None
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
        pools.reset()


# -- webhooks --------------------------------------------------------------------------------------


@pytest.fixture
def bearer(settings):
    settings.DJCELERY_WEBHOOK_TOKEN = TOKEN
    return {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


def test_a_receiver_answers_what_its_function_returned(bearer):
    client = Client(enforce_csrf_checks=True)
    response = client.post("/hooks/total/", {"n": ["1", "2"]}, **bearer)
    assert (response.status_code, strict(response)) == (200, {"status": "success", "retval": 3})


def test_a_receiver_that_raises_answers_its_reason(client, bearer, caplog):
    response = client.post("/hooks/total/", {"n": ["x"]}, **bearer)
    assert response.status_code == 200
    value = strict(response)
    assert value["status"] == "failure"
    assert value["reason"].startswith("ValueError(")
    assert "Traceback" in caplog.text


def test_a_value_that_json_cannot_carry_is_a_success_with_its_repr(client, bearer):
    value = strict(client.post("/hooks/odd/", **bearer))
    assert value == {"status": "success", "retval": "<class 'object'>", "retval_is_repr": True}


def test_a_receiver_may_be_a_coroutine_function(client, bearer):
    assert strict(client.post("/hooks/awaited/", **bearer)) == {"status": "success", "retval": "POST"}


def test_what_a_failed_receiver_wrote_is_rolled_back_where_requests_are_transactions(client, bearer, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert strict(client.post("/hooks/fails/", **bearer))["status"] == "failure"
    assert not get_user_model().objects.filter(username="half done").exists()


def test_without_transactions_around_requests_it_stays(client, bearer):
    assert strict(client.post("/hooks/fails/", **bearer))["status"] == "failure"
    assert get_user_model().objects.filter(username="half done").exists()


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"]
)
def test_nothing_but_the_token_opens_a_receiver(client, bearer, header):
    response = client.post("/hooks/fails/", HTTP_AUTHORIZATION=header)
    error(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer None"])
@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_in_the_settings_a_receiver_refuses_every_call(settings, header, token):
    settings.DJCELERY_WEBHOOK_TOKEN = token
    client = client_of(user("root", is_superuser=True, is_staff=True))
    assert "DJCELERY_WEBHOOK_TOKEN" in error(client.post("/hooks/total/", HTTP_AUTHORIZATION=header), 403)


@pytest.mark.parametrize("method", ["get", "head", "put", "options"])
def test_a_receiver_takes_no_other_methods(client, bearer, method):
    response = getattr(client, method)("/hooks/fails/", **bearer)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize("method", ["get", "post", "put"])
def test_an_open_receiver_is_for_anybody(settings, method):
    settings.DJCELERY_TASK_WEBHOOK_ACCESS = "open"
    client = Client(enforce_csrf_checks=True)
    assert strict(getattr(client, method)("/hooks/total/")) == {"status": "success", "retval": 0}


def test_a_receiver_keeps_the_name_of_its_function():
    from tests.db import viewurls

    assert viewurls.total.__name__ == "total"
    assert viewurls.total.__doc__ == "Add the numbers of the form."


# -- ASGI ------------------------------------------------------------------------------------------


def test_the_views_work_under_asgi(app, settings):
    settings.DJCELERY_TASK_STATUS_ACCESS = settings.DJCELERY_TASK_VIEW_ACCESS = "open"
    store(app, "a-1", 5)
    response = async_to_sync(AsyncClient().get)("/celery/a-1/status/")
    assert strict(response)["task"]["result"] == 5
    task_id = strict(async_to_sync(AsyncClient().post)("/shop/add/", {"x": "1"}))["task_id"]
    assert sent(app) == [("shop.add", task_id, {"x": "1"})]


def test_whoever_was_dismissed_may_nothing_whatever_a_backend_of_the_project_says(rf, settings):
    class Dismissed:
        is_active, is_authenticated = False, True

        def has_perm(self, permission):
            return True

    for view, request in ((views.registered_tasks, rf.get("/")), (views.apply, rf.post("/"))):
        request.user = Dismissed()
        error(view(request, *(["shop.add"] if view is views.apply else [])), 403)


def test_projects_without_users_get_an_answer_too(rf, settings):
    request = rf.get("/celery/tasks/")
    error(views.registered_tasks(request), 401)
    error(views.apply(rf.post("/"), "shop.add"), 401)
