"""Requests of any kind: the views answer JSON, never with 500, and never act for who may not.

``FUZZ_REQUESTS`` says how many; without it a few hundred, the same ones each time.
"""

from __future__ import annotations

import json
import os
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import quote, unquote_to_bytes

import pytest
from celery import states
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import get_path_info
from django.db import connection
from django.test import override_settings
from django.urls import Resolver404, resolve
from hypothesis import HealthCheck, assume, event, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from djcelery.conf import conf
from djcelery.models import TaskMeta
from tests.db import viewkit
from tests.db.viewkit import SECRET, SENDS, VALUES, client_of, strict, user

# An error of the database must spoil one request and no other.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.db.viewurls")]

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "300"))
TOKEN = "a-token-of-some-length"
CSRF = "t" * 32
PEOPLE = {
    "anonymous": None,
    "ordinary": (),
    "sender": (SENDS,),
    "viewer": ("view_taskmeta",),
    "reader": ("view_taskstate", VALUES),
    "all": (SENDS, "view_taskstate", VALUES),
}
ACCESS = {
    "DJCELERY_APPLY_ACCESS": ("permission", "open"),
    "DJCELERY_TASK_VIEW_ACCESS": ("permission", "open"),
    "DJCELERY_TASK_STATUS_ACCESS": ("permission", "id", "open"),
    "DJCELERY_IS_TASK_SUCCESSFUL_ACCESS": ("permission", "id", "open"),
    "DJCELERY_REGISTERED_TASKS_ACCESS": ("permission", "open"),
    "DJCELERY_TASK_WEBHOOK_ACCESS": ("token", "open"),
    "DJCELERY_APPLY_ALLOW": ((), ("shop.*",), ("*",)),
    "DJCELERY_WEBHOOK_TOKEN": (None, TOKEN),
}
STORED = {
    "good": (1, states.SUCCESS),
    "nan": (float("nan"), states.SUCCESS),
    "deep": ({"a": [{"b": [None, 1.5, "é\ud83d"]}]}, states.SUCCESS),
    "failed": (ValueError(SECRET), states.FAILURE),
    "again": (KeyError("\x00"), states.RETRY),
    "revoked": (None, states.REVOKED),
    "started": (None, states.STARTED),
    "busy": ({"secret": SECRET}, "PROGRESS"),
    "broken": (1, states.SUCCESS),
    "pickle": (1, states.FAILURE),
}

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
ids = st.one_of(
    st.sampled_from([*STORED, "unknown", "a.b-c_d", "..", "-", "é", "x" * 255, "x" * 256, "x" * 3000]),
    st.from_regex(r"\A[\w\-.]{1,300}\Z"),
)
names = st.one_of(st.sampled_from(["shop.add", "shop.loose", "other.task", "celery.ping", "no.such", "done"]), text)
paths = st.one_of(
    st.builds(
        "/celery/{}/{}{}".format, ids.map(quote), st.sampled_from(["done", "status"]), st.sampled_from(["", "/"])
    ),
    st.builds("/celery/apply/{}{}".format, names.map(quote), st.sampled_from(["", "/", "//", "/%0A", "%0A"])),
    st.builds("/by-hand/apply/{}/".format, names.map(quote)),
    st.builds("/shop/add/{}/".format, st.integers(0, 10**30)),
    st.sampled_from(["/celery/tasks", "/celery/tasks/", "/shop/add/", "/hooks/total/", "/hooks/fails/", "/hooks/odd/"]),
    st.binary(min_size=1, max_size=30).map(lambda raw: f"/celery/apply/{quote(raw)}"),
)
# Those that get furthest come most often.
methods = st.sampled_from(
    ["POST"] * 10
    + ["GET"] * 8
    + ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post", "!#$%&'*+-"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(
    st.sampled_from(["x", "y", "z", "self", "args", "kwargs", "task_id"]) | text, values, max_size=3
)
json_bodies = st.one_of(st.fixed_dictionaries({"x": values}), arguments, values).map(
    # Text with lone surrogates, too, as JSON may escape them.
    lambda value: json.dumps(value).encode()
)
forms = st.lists(st.tuples(st.sampled_from(["x", "y", "n", "csrfmiddlewaretoken"]) | text, text), max_size=4).map(
    lambda pairs: "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs).encode()
)
JSON, FORM, PARTS = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
PART = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="x"; filename="f"\r\n\r\n1\r\n--b--\r\n'
bodies = st.one_of(
    st.tuples(json_bodies, st.sampled_from([JSON, JSON, JSON, f"{JSON}; charset=utf-16", f"{JSON};charset=nonsense"])),
    st.tuples(forms, st.sampled_from([FORM, FORM, FORM, f"{FORM}; charset=latin-1", f"{FORM}; charset=nonsense"])),
    st.tuples(st.sampled_from([PART, FILE, PART[:-9]]), st.just(f"{PARTS}; boundary=b")),
    st.tuples(
        st.binary(max_size=60),
        st.sampled_from(
            ["", JSON, FORM, PARTS, f"{PARTS}; boundary=b", f"{PARTS}; boundary=é", "text/plain", ";", "a/b; ="]
        )
        | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30),
    ),
)
header_text = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=40)
headers = st.fixed_dictionaries(
    {},
    optional={
        "HTTP_AUTHORIZATION": st.sampled_from([f"Bearer {TOKEN}", f"bearer  {TOKEN} ", "Bearer", "Basic eA=="])
        | header_text,
        "HTTP_X_CSRFTOKEN": st.sampled_from([CSRF, "u" * 32]) | header_text,
        "HTTP_COOKIE": st.sampled_from([f"csrftoken={CSRF}", "sessionid=x", "csrftoken=", "="]) | header_text,
        "HTTP_ORIGIN": st.sampled_from(["http://testserver", "null", "http://["]) | header_text,
        "HTTP_REFERER": st.sampled_from(["https://testserver/", "http://[", "https://testserver:x/"]) | header_text,
        "HTTP_HOST": st.sampled_from(["testserver", "evil.example", "[", "testserver:99999"]) | header_text,
        "HTTP_ACCEPT": header_text,
        "HTTP_TRANSFER_ENCODING": st.just("chunked"),
        "CONTENT_LENGTH": st.sampled_from(["", "-1", "x", "5", "99999999999", "1" * 30]),
        "wsgi.url_scheme": st.sampled_from(["http", "https"]),
        "QUERY_STRING": st.sampled_from(["x=1", "x=1&x=2&y=%FF", "%", "&&=", "x" * 5000]) | header_text,
    },
)


def store(app):
    for task_id, (value, state) in STORED.items():
        app.backend.store_result(task_id, value, state, traceback=SECRET if state in states.EXCEPTION_STATES else None)
    TaskMeta.objects.filter(task_id="broken").update(content_type="application/x-unknown")
    TaskMeta.objects.filter(task_id="pickle").update(content_type=None)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {TaskMeta._meta.db_table} SET result = 'gAJ' WHERE task_id IN ('broken', 'pickle')")


def route(path):
    """Return the name of the URL at *path*, which is quoted; None if there is none."""
    try:
        return resolve(get_path_info({"PATH_INFO": unquote_to_bytes(path).decode("latin-1")})).url_name
    except Resolver404:
        return None


def check_rights(name, method, person, access, headers, response):
    """Fail if somebody was answered who must not be, or was shown what must be hidden."""
    rights = PEOPLE[person] or ()
    sees = "view_taskmeta" in rights or "view_taskstate" in rights
    if name in ("celery-apply", "by-hand", "add", "add-to"):
        is_open = access["DJCELERY_TASK_VIEW_ACCESS" if "add" in name else "DJCELERY_APPLY_ACCESS"] == "open"
        may = is_open or (SENDS in rights and method.upper() == "POST")
    elif name == "celery-tasks":
        may = "view_taskstate" in rights or access["DJCELERY_REGISTERED_TASKS_ACCESS"] == "open"
    elif name == "celery-is_task_successful":
        may = sees or access["DJCELERY_IS_TASK_SUCCESSFUL_ACCESS"] != "permission"
    elif name == "celery-task_status":
        may = sees or access["DJCELERY_TASK_STATUS_ACCESS"] != "permission"
        if SECRET.encode() in response.content:
            assert VALUES in rights or access["DJCELERY_TASK_STATUS_ACCESS"] == "open"
    else:
        has_token = headers.get("HTTP_AUTHORIZATION", "").replace(" ", "")[6:] == access["DJCELERY_WEBHOOK_TOKEN"]
        may = has_token or access["DJCELERY_TASK_WEBHOOK_ACCESS"] == "open"
    assert may or response.status_code >= 400


@pytest.mark.parametrize("middleware", [(), ("django.middleware.csrf.CsrfViewMiddleware",)], ids=["bare", "csrf"])
def test_no_request_is_answered_with_500_nor_with_anything_but_json(celery_app, settings, middleware):
    app = viewkit.register(celery_app)
    app.conf.result_backend_always_retry = False
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]
    settings.ALLOWED_HOSTS = ["testserver"]
    store(app)
    people = {name: None if rights is None else user(name, *rights) for name, rights in PEOPLE.items()}
    clients = {
        (name, enforced): client_of(person, enforce_csrf_checks=enforced)
        for name, person in people.items()
        for enforced in (False, True)
    }
    for name in people:
        clients[name, True].cookies["csrftoken"] = CSRF
    count = SimpleNamespace(requests=0, codes=set())

    @hypothesis_settings(
        max_examples=max(1, REQUESTS // 2),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A run of the suite sends the same ones each time.
        derandomize="FUZZ_REQUESTS" not in os.environ,
    )
    @given(
        st.sampled_from([*PEOPLE, "all", "all"]),
        st.booleans(),
        st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in ACCESS.items()}),
        methods,
        paths,
        bodies,
        headers,
    )
    def request(person, enforced, access, method, path, body, headers):
        name = route(path)
        # Pages that aren't there are Django's.
        assume(name is not None)
        data, content_type = body
        extra = {"wsgi.input": BytesIO(data), **headers}
        with override_settings(**access):
            response = clients[person, enforced].generic(method, path, data, content_type=content_type, **extra)
        note(f"{response.status_code} {response.content[:200]!r}")
        count.requests += 1
        count.codes.add(response.status_code)
        assert response.status_code != 500
        event(f"{name}: {response.status_code}")
        if method.upper() != "HEAD":
            strict(response)
            check_rights(name, method, person, access, headers, response)

    request()
    assert count.requests >= REQUESTS // 2
    assert {200, 401, 403, 405} <= count.codes
    assert conf.DJCELERY_APPLY_ACCESS in ("permission", "open")
    assert get_user_model().objects.count() >= len(PEOPLE) - 1
