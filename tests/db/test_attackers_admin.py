"""Who may not act changes nothing and sends nothing, who may not read arguments reads none: on every page of the admin.

The pages are those that the admin has: a new one is tried without a change here.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

import pytest
from celery.app.control import Control
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from kombu.messaging import Producer
from kombu.pidbox import Mailbox

from djcelery import queues
from djcelery.admin import inspection
from djcelery.models import (
    ChordPart,
    IntervalSchedule,
    MalformedEvent,
    PeriodicTask,
    TaskMeta,
    TaskSetMeta,
    TaskState,
    WorkerState,
)
from tests.db.adminpages import actions, autocompletes, columns, fill, pages, registered

pytestmark = [pytest.mark.django_db, pytest.mark.long]

PAGES = pages()
#: The columns that hold what a task was given and what it gave, by table.
SECRETS = {
    TaskState: ("args", "kwargs", "result", "traceback", "exception", "progress"),
    TaskMeta: ("args", "kwargs", "result", "traceback", "progress"),
    TaskSetMeta: ("result",),
    ChordPart: ("value",),
    MalformedEvent: ("body",),
    PeriodicTask: ("args", "kwargs", "headers"),
}
READING = ("view",)
#: Permissions that say by their names that they are to see arguments, or need them to be seen.
SEEING = ("arguments_taskstate", "change_periodictask", "add_periodictask")


@pytest.fixture
def rows(celery_app, monkeypatch):
    """The keys of a row in each table; nothing is sent by accident."""
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])
    cache.clear()
    found = fill(("plain",))
    # What can be sent again, and run at once.
    TaskState.objects.update(state="SUCCESS", name="shop.add", args="(1,)", kwargs="{}", retried_as=None)
    TaskMeta.objects.update(args=[1], kwargs={})
    IntervalSchedule.objects.update(every=1, period="days")
    PeriodicTask.objects.update(crontab=None, solar=None, clocked=None, args="[]", kwargs="{}", headers="{}")
    yield {model: keys.get("plain") for model, keys in found.items()}
    cache.clear()


@pytest.fixture
def sent(celery_app, monkeypatch):
    """What was sent to the broker, or asked of workers."""
    found = []
    monkeypatch.setattr(Control, "broadcast", lambda self, *args, **options: found.append(("broadcast", args)))
    monkeypatch.setattr(Mailbox, "_publish", lambda self, *args, **options: found.append(("question", args)))
    monkeypatch.setattr(Producer, "publish", lambda self, *args, **options: found.append(("message", args)))
    monkeypatch.setattr(inspection, "ask", lambda *args, **options: found.append(("question", args)) or ANSWERS)
    monkeypatch.setattr(queues, "look", lambda app, names=(), **options: queues.Broker((), url="memory://"))
    return found


ANSWERS = inspection.Answers({"plain": {"registered": ["told"]}}, "")


def logged_in(django_user_model, kind, **options):
    """Return the browser of somebody: "nobody", "person", "staff", "viewer", "all but seeing" or "admin"."""
    client = Client(raise_request_exception=True, **options)
    if kind == "nobody":
        return client
    user = django_user_model.objects.create_user(kind, is_staff=kind != "person", is_superuser=kind == "admin")
    known = Permission.objects.filter(content_type__app_label="djcelery")
    if kind == "viewer":
        user.user_permissions.set(known.filter(codename__startswith="view_"))
    elif kind == "all but seeing":
        user.user_permissions.set(known.exclude(codename__in=SEEING))
    client.force_login(user)
    return client


def stored():
    """Return what is in all tables of djcelery, of the admin and of permissions."""
    models = [*apps.get_app_config("djcelery").get_models(), LogEntry, *apps.get_app_config("auth").get_models()]
    # Logging in is written down there.
    return {
        model: list(model._base_manager.order_by("pk").values_list(*set(columns(model)) - {"last_login"}))
        for model in models
    }


def bodies(page, key):
    """Return what somebody may try to post to a page: each action, asked and confirmed, a form, a deletion."""
    if page.model is None:
        return [{"post": "yes"}]
    answers = {"rate_limit": "1/s", "n": 1, "queue": "q", "task_name": "t", "soft": 1, "hard": 2, "djcelery_rows": key}
    if page.path.count("/") == 4:
        return [
            {"action": name, "_selected_action": key, "index": 0, "post": "yes", "select_across": "1", **answers}
            for name in actions(page.model)
        ]
    if page.path.endswith("/delete/"):
        return [{"post": "yes"}]
    form = {name: "5" for name in columns(page.model)}
    form |= {"hostname": "new", "every": 5, "period": "days", "task": "t", "args": "[]", "kwargs": "{}", "name": "new"}
    form |= {"clocked_time_0": "2030-01-01", "clocked_time_1": "00:00", "event": "sunset", "minute": "*", "hour": "*"}
    form |= {"day_of_week": "*", "day_of_month": "*", "month_of_year": "*", "timezone": ""}
    return [{**form, "_popup": 1, "_saveasnew": 1, "pk": key, "id": key, "post": "yes"}]


# -- who may act -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nobody", "person", "staff", "viewer"])
def test_who_may_not_act_changes_nothing_and_sends_nothing(rows, sent, django_user_model, kind):
    client = logged_in(django_user_model, kind)
    before = stored()
    for page in PAGES:
        url = page.url(rows.get(page.model, 1))
        assert client.put(url).status_code < 500
        for body in bodies(page, rows.get(page.model, 1)):
            response = client.post(url, body)
            assert response.status_code in ({200, 302, 403, 404, 405} if kind == "viewer" else {302, 403, 404, 405}), (
                url
            )
            assert sent == [], f"{url} {body}"
        assert stored() == before, url


def test_the_same_posts_do_change_and_send_what_a_superuser_wants(rows, sent, django_user_model):
    client = logged_in(django_user_model, "admin")
    before = stored()
    for page in PAGES:
        for body in bodies(page, rows.get(page.model, 1)):
            client.post(page.url(rows.get(page.model, 1)), body)
    changed = {model for model, found in stored().items() if found != before[model]}
    own = {model for model in registered() if model in before}
    assert changed >= {model for model in own if admin.site._registry[model].has_add_permission(superuser(client))}
    assert {kind for kind, _args in sent} >= {"broadcast", "message"}


def superuser(client):
    """Return a request of a superuser."""
    return client.get("/admin/djcelery/").wsgi_request


def test_nothing_is_done_without_the_csrf_token(rows, sent, django_user_model):
    client = logged_in(django_user_model, "admin", enforce_csrf_checks=True)
    before = stored()
    for page in PAGES:
        url = page.url(rows.get(page.model, 1))
        for body in bodies(page, rows.get(page.model, 1)):
            assert client.post(url, body).status_code == 403, url
        assert client.put(url).status_code == 403, url
    assert sent == []
    assert stored() == before


def test_a_link_changes_nothing_even_for_a_superuser(rows, sent, django_user_model):
    client = logged_in(django_user_model, "admin")
    before = stored()
    for page in PAGES:
        url = page.url(rows.get(page.model, 1))
        for query in [{}, *bodies(page, rows.get(page.model, 1))[-1:]]:
            assert client.get(f"{url}?{urlencode(query)}").status_code < 500, url
        assert client.options(url).status_code < 500, url
        asked, sent[:] = list(sent), []
        # Workers are asked, which is reading, too; where nobody may ask but who has the permission.
        assert not asked or (
            page.path.endswith(("/live/", "/registered/")) and {kind for kind, _ in asked} == {"question"}
        )
    assert stored() == before


def test_who_is_not_staff_sees_nothing_but_the_login(rows, sent, django_user_model):
    for kind in ("nobody", "person"):
        client = logged_in(django_user_model, kind)
        for page in PAGES:
            response = client.get(page.url(rows.get(page.model, 1)))
            assert response.status_code == 302, page
            assert response["Location"].startswith("/admin/login/?next=/admin/"), page


def test_staff_without_a_permission_sees_no_page(rows, sent, django_user_model):
    client = logged_in(django_user_model, "staff")
    for page in PAGES:
        # A short address only leads to the page of the row.
        expected = {302} if page.path.endswith("/{key}/") else {403, 404}
        assert client.get(page.url(rows.get(page.model, 1))).status_code in expected, page


# -- who may read ----------------------------------------------------------------------------------


def secrets(model, word):
    """Return values for the secret columns of *model* that have *word* in them."""
    made = {}
    for name in SECRETS[model]:
        kind = model._meta.get_field(name).get_internal_type()
        text = f"{word}-{model._meta.model_name}-{name}"
        made[name] = [text] if kind == "JSONField" else json.dumps([text]) if model is PeriodicTask else text
        if model is PeriodicTask and name != "args":
            made[name] = json.dumps({text: text})
    return made


def plant(word):
    for model in SECRETS:
        model._base_manager.update(**secrets(model, word))


@pytest.fixture
def answering(monkeypatch):
    """Workers that tell arguments."""
    request = {"id": "x", "name": "shop.add", "args": ["s3cret"], "kwargs": {"s3cret": "s3cret"}}
    reply = {"active": [request], "reserved": [request], "scheduled": [{"eta": "2100-01-01", "request": request}]}
    reply["stats"] = {"broker": {"password": "s3cret", "transport_options": {"password": "s3cret"}}}
    answers = inspection.Answers({WorkerState.objects.get().hostname: reply}, "")
    monkeypatch.setattr(inspection, "ask", lambda *args, **options: answers)


def questions(page):
    """Return the addresses by which somebody may guess at what a list hides: searched, ordered and filtered by it."""
    if page.path == "/admin/autocomplete/":
        return [f"{page.path}?{urlencode({**query, 'term': 's3cret'})}" for query in autocompletes()]
    if page.model not in SECRETS or page.path.count("/") != 4:
        return []
    lines = ["s3cret", '"s3cret', "args:s3cret", "kwargs:s3cret", "result:s3cret", "args:*"]
    found = [f"{page.path}?{urlencode({'q': line})}" for line in lines]
    found += [f"{page.path}?o={number}" for number in range(1, 11)]
    for column in SECRETS[page.model]:
        for lookup in ("", "__contains", "__regex", "__gt"):
            found.append(f"{page.path}?{urlencode({column + lookup: 's3cret'})}")
    return [*found, f"{page.path}?worker__taskstate__args__contains=s3cret"]


def told(client, url):
    """Return what an answer says, without what differs from one answer to the next."""
    response = client.get(url, follow=True)
    text = f"{response.status_code} {response.redirect_chain} {response.content.decode()}"
    # Ages and times that are still to come grow and shrink while the pages are asked for.
    text = re.sub(r'name="csrfmiddlewaretoken" value="\w+"|\d\d:\d\d:\d\d|just now|less than a minute', "", text)
    text = re.sub(r"\d{4}-\d\d-\d\d|yesterday at", "", text)
    return re.sub(r"\b\d+\s(s|min|h|seconds?|minutes?|hours?|days?)\b( ago)?", "", text)


@pytest.mark.parametrize("kind", ["viewer", "all but seeing"])
def test_who_may_not_see_arguments_reads_none_anywhere(rows, sent, answering, django_user_model, kind):
    client = logged_in(django_user_model, kind)
    plant("s3cret")
    for page in PAGES:
        assert "s3cret" not in told(client, page.url(rows.get(page.model, 1))), page


def test_what_a_list_says_does_not_depend_on_arguments(rows, sent, django_user_model):
    client = logged_in(django_user_model, "all but seeing")
    other = fill(("braces",))
    urls = [url for page in PAGES for url in questions(page)]
    answers = []
    for words in (("s3cret", "abc"), ("xyz", "s3cret")):
        for model in SECRETS:
            for pk, word in zip((rows[model], other[model]["braces"]), words, strict=True):
                model._base_manager.filter(pk=pk).update(**secrets(model, word))
        answers.append({url: told(client, url) for url in urls})
    assert [url for url in urls if answers[0][url] != answers[1][url]] == []


def test_who_may_see_arguments_sees_them(rows, sent, django_user_model):
    client = logged_in(django_user_model, "admin")
    plant("s3cret")
    seen = set()
    for page in PAGES:
        if page.path.endswith("/change/"):
            seen |= set(
                re.findall(r"s3cret-(\w+)-(\w+)", client.get(page.url(rows.get(page.model, 1))).content.decode())
            )
    shown = [TaskState, TaskMeta, TaskSetMeta, PeriodicTask]
    assert seen == {(model._meta.model_name, name) for model in shown for name in SECRETS[model]}
