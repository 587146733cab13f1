"""Tried as an attacker: who has no permission acts on nothing and reads no arguments or results, whatever is asked."""

from __future__ import annotations

import pytest
from celery import states
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from djcelery.models import TaskState
from tests.db import viewkit
from tests.db.viewkit import SECRET, SENDS, VALUES, client_of, sent, strict, user

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.db.viewurls")]

ACTING = ("/celery/apply/shop.add/", "/by-hand/apply/shop.add/", "/shop/add/", "/shop/add/5/")
READING = ("/celery/ok/status/", "/celery/bad/status/", "/celery/busy/status/", "/celery/ok/done/", "/celery/tasks/")
RECEIVERS = ("/hooks/total/", "/hooks/fails/", "/hooks/awaited/", "/hooks/odd/")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
BODIES = (
    (b"", ""),
    (b"x=1", "application/x-www-form-urlencoded"),
    (b'{"x": 1}', "application/json"),
    (b"x=1&_method=POST&csrfmiddlewaretoken=" + b"t" * 32, "application/x-www-form-urlencoded"),
)
TRICKS = (
    {"HTTP_X_HTTP_METHOD_OVERRIDE": "POST", "HTTP_X_METHOD_OVERRIDE": "POST"},
    {"REMOTE_USER": "root", "HTTP_REMOTE_USER": "root", "HTTP_X_FORWARDED_USER": "root"},
    {"HTTP_AUTHORIZATION": "Bearer None"},
    {"HTTP_AUTHORIZATION": "Basic cm9vdDpyb290"},
    {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
    {"HTTP_X_REQUESTED_WITH": "XMLHttpRequest"},
)


def everything_but(*codenames):
    """Return the names of all permissions of djcelery, without these."""
    found = Permission.objects.filter(content_type__app_label="djcelery").exclude(codename__in=codenames)
    return found.values_list("codename", flat=True)


ATTACKERS = {
    "anonymous": lambda: client_of(),
    "ordinary user": lambda: client_of(user("ordinary")),
    "staff without permissions": lambda: client_of(user("staff", is_staff=True)),
    "staff who may see all but values": lambda: client_of(
        user("viewer", *everything_but(SENDS, VALUES), is_staff=True)
    ),
    "dismissed superuser": lambda: client_of(_dismissed()),
    "stolen cookie of nobody": lambda: _with_cookie("x" * 32),
}


def _dismissed():
    person = user("former root", is_staff=True, is_superuser=True)
    person.is_active = False
    person.save()
    return person


def _with_cookie(value):
    client = client_of()
    client.cookies["sessionid"] = value
    return client


@pytest.fixture(autouse=True)
def app(celery_app, settings):
    settings.DJCELERY_APPLY_ALLOW = ["*"]
    app = viewkit.register(celery_app)
    app.backend.store_result("ok", {"result": SECRET}, states.SUCCESS)
    app.backend.store_result("bad", ValueError(SECRET), states.FAILURE, traceback=f"Traceback {SECRET}")
    app.backend.store_result("busy", {"progress": SECRET}, "PROGRESS")
    return app


@pytest.fixture(params=ATTACKERS)
def attacker(request):
    return ATTACKERS[request.param]()


def attempts(client, paths):
    """Yield the answers to every method, every body and every trick, on every path."""
    tries = [(method, BODIES[1], {}) for method in METHODS] + [("POST", body, {}) for body in BODIES]
    tries += [(method, BODIES[1], tricks) for method in ("GET", "POST") for tricks in TRICKS]
    for path in paths:
        for method, (body, content_type), tricks in tries:
            yield client.generic(method, f"{path}?x=1", body, content_type=content_type, **tricks)


def test_nobody_without_the_permission_sends_a_task(app, attacker):
    people = get_user_model().objects.count()
    for response in attempts(attacker, ACTING):
        assert response.status_code in (401, 403, 405)
    assert sent(app) == []
    assert not LogEntry.objects.exists()
    assert get_user_model().objects.count() == people


def test_nobody_without_the_token_runs_a_receiver(attacker, settings):
    for token in (None, "a-token-of-some-length"):
        settings.DJCELERY_WEBHOOK_TOKEN = token
        for response in attempts(attacker, RECEIVERS):
            assert response.status_code in (401, 403, 405)
    assert not get_user_model().objects.filter(username="half done").exists()


@pytest.mark.parametrize("access", ["permission", "id"])
def test_nobody_without_the_permission_reads_results_errors_or_progress(attacker, settings, access):
    settings.DJCELERY_TASK_STATUS_ACCESS = settings.DJCELERY_IS_TASK_SUCCESSFUL_ACCESS = access
    for response in attempts(attacker, READING):
        assert SECRET.encode() not in response.content
        assert b"ValueError" not in response.content
        assert SECRET not in str(response.headers)


@pytest.mark.parametrize("name", [name for name in ATTACKERS if name != "staff who may see all but values"])
def test_nobody_without_a_permission_reads_states_or_names_of_tasks(name):
    client = ATTACKERS[name]()
    for response in attempts(client, READING):
        assert response.status_code in (401, 403, 405)
        for word in (b"SUCCESS", b"executed", b"shop.add", b"PENDING"):
            assert word not in response.content


def test_a_refusal_does_not_tell_whether_a_task_or_an_id_exists(attacker):
    same = [attacker.post(f"/celery/apply/{name}/", {"x": "1"}) for name in ("shop.add", "no.such")]
    assert same[0].content == same[1].content
    assert same[0].status_code == same[1].status_code
    if attacker.get("/celery/tasks/").status_code == 200:
        return
    same = [attacker.get(f"/celery/{task_id}/status/") for task_id in ("ok", "unknown")]
    assert same[0].content == same[1].content


@pytest.mark.parametrize("path", ACTING)
def test_not_even_a_superuser_acts_by_get(app, path):
    client = client_of(user("root", is_staff=True, is_superuser=True))
    for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert client.generic(method, f"{path}?x=1").status_code == 405
    assert sent(app) == []


@pytest.mark.parametrize("path", ACTING)
def test_a_page_elsewhere_acts_on_nothing_by_a_superusers_browser(app, path):
    client = client_of(user("root", is_staff=True, is_superuser=True), enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "t" * 32
    elsewhere = {"HTTP_ORIGIN": "https://evil.example", "HTTP_REFERER": "https://evil.example/"}
    for headers in ({}, elsewhere, {"HTTP_X_CSRFTOKEN": "u" * 32}, {**elsewhere, "HTTP_X_CSRFTOKEN": "t" * 32}):
        for body, content_type in (*BODIES[:3], (b'{"x": 1}', "text/plain")):
            response = client.generic("POST", path, body, content_type=content_type, **headers)
            assert response.status_code == 403
            assert "CSRF" in strict(response)["error"]
    assert sent(app) == []


def test_the_permission_to_send_shows_no_results_and_the_one_to_see_sends_nothing(app):
    sender, viewer = client_of(user("sender", SENDS)), client_of(user("viewer", "view_taskmeta", VALUES))
    assert sender.get("/celery/ok/status/").status_code == 403
    assert sender.get("/celery/tasks/").status_code == 403
    assert strict(viewer.get("/celery/ok/status/"))["task"]["result"] == {"result": SECRET}
    assert viewer.post("/shop/add/", {"x": "1"}).status_code == 403
    assert sent(app) == []


def test_the_permission_to_see_values_alone_shows_nothing():
    client = client_of(user("values only", VALUES))
    assert client.get("/celery/ok/status/").status_code == 403


def test_a_field_of_the_form_is_never_an_option_of_the_message(app):
    client = client_of(user("sender", SENDS))
    fields = {"x": "1", "queue": "other", "task_id": "chosen", "countdown": "99"}
    assert client.post("/shop/add/", fields).status_code == 400
    strict(client.post("/celery/apply/shop.loose/", fields))
    ((_name, task_id, kwargs),) = sent(app)
    assert kwargs == fields
    assert task_id != "chosen"


def test_what_was_sent_by_a_view_shows_its_arguments_to_nobody(app):
    client = client_of(user("sender", SENDS))
    response = client.post("/shop/add/", {"x": SECRET})
    assert SECRET.encode() not in response.content
    assert SECRET not in str(LogEntry.objects.values())
    assert not TaskState.objects.exists()
