"""Whatever a browser sends to the pages of the admin, and whatever stands in the tables: no error, and no markup.

``make fuzz`` sends 10,000 requests; a run of the suite sends a few hundred, the same ones each time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import pytest
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from djcelery import queues
from djcelery.admin import inspection
from djcelery.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
    TaskState,
    WorkerState,
)
from tests.db.adminpages import ATTRIBUTE, KINDS, TAG, actions, autocompletes, columns, fill, pages
from tests.strategies import anything

pytestmark = [pytest.mark.django_db, pytest.mark.long]

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "300"))
PAGES = pages()
ACTING = [page for page in PAGES if page.model and page.path.count("/") == 4 and actions(page.model)]

# -- what is sent ----------------------------------------------------------------------------------

#: No text of these may be more than a wrong value.
NASTY = (
    "", " ", "0", "-1", "1.5", "1e400", "NaN", "Infinity", "9" * 10, "9" * 20, "9" * 40, "9" * 5000, "-" + "9" * 20,
    "\x00", "a\x00b", "\udc80", "\ud800a", "\U0001f600", "\u202e", "\u0661\u0662", "\uff11", "\r\nX: y", "%", "%00",
    "_", "'", '"',
    "\\", "';--", "{0.x}", "%(a)s", "{{ 1 }}", TAG, ATTRIBUTE, "javascript:x", "//evil.example",
    "http://evil.example/", "..",
    "../../etc/passwd", "_5F", "_00", "_", "a" * 300, "a" * 70_000, "*", "(a+)+$", "(", "[", "[" * 3000, "[[1]]",
    "[1e999]", "[NaN]",
    '["\\ud800"]', '["\\u0000"]', '{"\\ud800": 1}', '{"a": "\\u0000"}', "{}", "null", "True", "None", "on", "1,2",
    "2026-02-30",
    "0001-01-01", "9999-12-31", "0001-01-01T00:00", "9999-12-31T23:59:59.999999+00:00", "1970-01-01T00:00+23:59",
    "24:00", "23:59:59.999999",
    "10\n/s", "1/0", "0/s", "-1/s", "1e309/s", "5~2026-01-01T00:00:00+00:00", "9999999999999999999~x",
    "1~" + "9" * 30, "*/0", "*/99", "1-",
    "0-59/0", "Europe", "Europe/", "posix/..", "localtime", "state:FAILURE", 'name:"', "name:a*", "args:x", "when:1d",
    "when:9999w",
    "when:1970-01-01..8999-12-31", 'id:"\\', "1e-999999", "1e-99999999999999999999", "1e999999999",
    "0.0000000000000000000000000001", "sNaN",
    "every", "07:30", "29:59", "1 2 3 4 5 6", "2026", "2026-06-01 14:30", "0001", "9999", "9999-12", "9999-12-31 23:59",
)  # fmt: skip
values = st.sampled_from(NASTY) | st.text(max_size=20) | st.sampled_from(KINDS).map(lambda kind: f"key:{kind}")
LOOKUPS = (
    "",
    "exact",
    "in",
    "isnull",
    "contains",
    "startswith",
    "iregex",
    "regex",
    "gt",
    "lt",
    "range",
    "date",
    "year",
    "week_day",
    "x",
)
PARAMETERS = (
    "q", "o", "p", "e", "all", "after", "before", "_popup", "_to_field", "_changelist_filters", "_facets",
    "_source_model", "fragment",
    "period", "term", "app_label", "model_name", "field_name", "page", "next", "within", "eta", "held_out", "overdue",
    "outcome", "task",
    "online", "name", "state__exact", "status__exact", "worker", "worker__id__exact", "worker__hostname",
    "interval__id__exact",
    "crontab__minute", "interval__every__lt", "pk", "pk__in", "id__in", "worker__hostname__iregex",
    "periodictask__args__contains", "",
    "\x00", TAG, "a" * 3000, "__", "x__y", "_p", "post",
)  # fmt: skip
every_column = sorted({name for page in PAGES if page.model for name in columns(page.model)})
parameters = st.sampled_from(PARAMETERS) | st.builds(
    "{}__{}".format, st.sampled_from(every_column), st.sampled_from(LOOKUPS)
).map(lambda name: name.removesuffix("__"))
queries = st.lists(st.tuples(parameters, values), max_size=3)
headers = st.dictionaries(
    st.sampled_from(["HTTP_ACCEPT_LANGUAGE", "HTTP_X_REQUESTED_WITH", "HTTP_REFERER", "HTTP_ACCEPT", "HTTP_COOKIE"]),
    st.sampled_from(["es", "XMLHttpRequest", "\x00", "x" * 5000, "ar,fa;q=0.5", "*;q=9", "messages=x", f"a={TAG}",
    "../../en"]),
    max_size=2,
)  # fmt: skip
#: A query in UTF-7 may hold halves of characters, which no page and no database can.
charsets = st.sampled_from([""] * 9 + ["text/plain; charset=utf-7"])

FORMS = {
    IntervalSchedule: {"every": "5", "period": "minutes"},
    CrontabSchedule: {
        "minute": "0", "hour": "7", "day_of_week": "mon-fri", "day_of_month": "*", "month_of_year": "*",
        "timezone": "Europe/Brussels"
    },
    SolarSchedule: {"event": "sunset", "latitude": "51.2", "longitude": "4.4"},
    ClockedSchedule: {"clocked_time_0": "2030-01-01", "clocked_time_1": "00:00"},
    PeriodicTask: {
        "name": "n", "regtask": "shop.add", "task": "", "enabled": "on", "interval": "key:plain", "crontab": "",
        "solar": "", "clocked": "",
        "args": "[]", "kwargs": "{}", "queue": "", "exchange": "", "routing_key": "", "expires_0": "",
        "expires_1": "", "start_time_0": "",
        "start_time_1": "", "priority": "", "headers": "{}", "expire_seconds": "", "missed_runs": "",
        "grace_seconds": "",
        "overlap_timeout": "", "jitter_seconds": "", "description": "",
    },
    WorkerState: {"hostname": "w"},
}  # fmt: skip
ANSWERS = {
    "post": "yes", "rate_limit": "10/s", "n": "1", "queue": "mail", "task_name": "shop.add", "soft": "1", "hard": "2",
    "select_across": "0", "index": "0",
}  # fmt: skip
BODIES = (
    (b"", "application/x-www-form-urlencoded"),
    (b"%", "application/x-www-form-urlencoded; charset=utf-7"),
    (b'{"action": "x"}', "application/json"),
    (b"\xff\xfe", "text/plain"),
    (b"--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n\xff\x00\r\n--x--\r\n",
    "multipart/form-data; boundary=x"),
    (b"--x\r\nContent-Disposition: form-data; name=\"name\"; filename=\"a\"\r\n\r\nb\r\n--x--\r\n",
    "multipart/form-data; boundary=x"),
    (b"--x\r\nContent-Disposition: form-data; name=\"action\"\r\n\r\n+2AA-\r\n--x--\r\n",
    "multipart/form-data; boundary=x; charset=utf-7"),
    (b"--x", "multipart/form-data"),
    (b"x" * 100, "multipart/form-data; boundary=" + "y" * 300),
)  # fmt: skip


@pytest.fixture
def site(celery_app, monkeypatch, settings, django_user_model):
    """All that the requests meet: a person who may do everything, rows of all kinds, workers that answer nonsense."""

    @celery_app.task(name="shop.add", shared=False)
    def add(x, y=0):
        return x + y

    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    settings.USE_THOUSAND_SEPARATOR = True
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])
    found = SimpleNamespace(keys=fill(), answers={}, client=Client(raise_request_exception=False))
    TaskState.objects.filter(pk=found.keys[TaskState]["plain"]).update(name="shop.add", args="(1,)", kwargs="{}")
    broker = queues.Broker((queues.Queue(TAG, 3), queues.Queue("\x00", None)), url=f"memory://{TAG}")
    monkeypatch.setattr(queues, "look", lambda app, names=(), **options: broker)
    monkeypatch.setattr(inspection, "ask", lambda *args, **options: inspection.Answers(found.answers, ""))
    found.client.force_login(django_user_model.objects.create_superuser("admin"))
    cache.clear()
    yield found
    cache.clear()


def send(site, method, page, key, query=(), body=b"", content_type="", **extra):
    """Send one request, go where it leads, and undo what it did; fail if anything broke on the way."""
    path = quote(page.url(resolved(site, page.model, key)), safe="/{}", errors="surrogatepass")
    query = urlencode([(name, resolved(site, page.model, value)) for name, value in query], errors="surrogatepass")
    with suppress(Undone), transaction.atomic():
        response = site.client.generic(method, path, body, content_type, QUERY_STRING=query, **extra)
        for _step in range(4):
            check(response, f"{method} {path}?{query[:500]} {body[:500]!r} {extra}")
            target = response.headers.get("Location", "")
            if not target.startswith("/admin/"):
                assert not target or target.startswith("?"), f"{method} {path}?{query} leads to {target}"
                break
            path, _mark, query = target.partition("?")
            response = site.client.get(path, QUERY_STRING=query)
        raise Undone


class Undone(Exception):
    pass


def resolved(site, model, value):
    """Return *value*, or the key of the row that it stands for."""
    kind = str(value).removeprefix("key:")
    return site.keys.get(model, {}).get(kind, value) if str(value).startswith("key:") else value


def form(site, model, data):
    """Return the body of a form; ``key:`` in a field that names a schedule is the key of one."""
    tables = {
        "interval": IntervalSchedule,
        "crontab": CrontabSchedule,
        "solar": SolarSchedule,
        "clocked": ClockedSchedule,
    }
    pairs = [(name, resolved(site, tables.get(name, model), value)) for name, value in data]
    return urlencode(pairs, errors="surrogatepass").encode()


def check(response, what):
    reason = getattr(response, "exc_info", None)
    assert response.status_code < 500, f"{response.status_code}: {what}: {reason and reason[1]!r}"
    if response.headers.get("Content-Type", "").startswith("text/html"):
        text = response.content.decode()
        assert TAG not in text, what
        assert ATTRIBUTE not in text, what


def fuzz(share):
    """Return the settings of a test that sends *share* of all requests."""
    return hypothesis_settings(
        database=None,
        deadline=None,
        max_examples=max(1, round(REQUESTS * share)),
        derandomize="FUZZ_REQUESTS" not in os.environ,
        suppress_health_check=list(HealthCheck),
        # To look for a smaller request that fails, too, takes longer than to understand the one that was found.
        phases=(Phase.generate,),
    )


keys = st.sampled_from([f"key:{kind}" for kind in KINDS] * 4 + list(NASTY))
changes = st.lists(st.tuples(st.integers(0, 40), values | st.none()), max_size=3)


def changed(data, changes):
    """Return *data* with some values replaced, and without those that become None."""
    names, data = list(data), dict(data)
    for number, new in changes:
        data[names[number % len(names)]] = new
    return [(name, value) for name, value in data.items() if value is not None]


# -- the requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_breaks_a_page(site, kind):
    for page in PAGES:
        if "{key}" in page.path or kind == KINDS[0]:
            send(site, "GET", page, f"key:{kind}")


@given(
    st.sampled_from(PAGES),
    st.sampled_from(["GET"] * 8 + ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "X"]),
    keys,
    queries,
    headers,
    charsets,
)
@fuzz(0.4)
def test_no_address_breaks_a_page(site, page, method, key, query, headers, charset):
    send(
        site,
        method,
        page,
        key,
        query,
        content_type=charset,
        **({"CONTENT_TYPE": charset} if charset else {}),
        **headers,
    )


@given(st.sampled_from(autocompletes()), queries)
@fuzz(0.05)
def test_no_text_breaks_an_autocompletion(site, field, query):
    send(site, "GET", PAGES[-2], "", [*field.items(), *query])


@given(st.sampled_from(autocompletes()), values)
@fuzz(0.1)
def test_no_term_breaks_an_autocompletion(site, field, term):
    send(site, "GET", PAGES[-2], "", [*field.items(), ("term", term)])


@given(
    st.sampled_from([(page, name) for page in ACTING for name in actions(page.model)]),
    st.lists(keys, max_size=3),
    changes,
    queries,
)
@fuzz(0.2)
def test_no_answer_breaks_an_action(site, action, chosen, changes, query):
    page, name = action
    data = [*changed(ANSWERS, changes), ("action", name), *(("_selected_action", key) for key in chosen)]
    send(site, "POST", page, "", query, form(site, page.model, data), "application/x-www-form-urlencoded")


@given(
    st.sampled_from([page for page in PAGES if page.model in FORMS and page.path.endswith(("/add/", "/change/"))]),
    keys,
    changes,
    queries,
)
@fuzz(0.2)
def test_no_entry_breaks_a_form(site, page, key, changes, query):
    body = form(site, page.model, changed(FORMS[page.model], changes))
    send(site, "POST", page, key, query, body, "application/x-www-form-urlencoded")


@given(st.sampled_from(PAGES), keys, queries, st.sampled_from(BODIES))
@fuzz(0.05)
def test_no_body_breaks_a_page(site, page, key, query, body):
    send(site, "POST", page, key, query, *body)


LIVE = next(page for page in PAGES if page.path.endswith("/live/"))
REGISTERED = next(page for page in PAGES if page.path.endswith("/registered/"))
replies = st.fixed_dictionaries({}, optional={
    name: anything | st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(
        ("id", "name", "type", "args", "kwargs", "time_start", "worker_pid", "eta", "request", "exchange",
        "routing_key"), anything
    )), max_size=3)
    for name in inspection.DETAILS
})  # fmt: skip


@given(st.sampled_from([LIVE, REGISTERED]), st.booleans(), replies)
@fuzz(0.1)
def test_no_answer_of_a_worker_breaks_a_page(site, page, is_fragment, reply):
    hostnames = WorkerState.objects.values_list("hostname", flat=True)
    site.answers = {hostname: reply for hostname in hostnames}
    send(site, "GET", page, "key:plain", [("fragment", "1")] if is_fragment else [])
