"""What the tests of the views share: tasks, people, and what the broker was given."""

from __future__ import annotations

import json

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

SECRET = "s3cret-4711"
SENDS = "apply_taskstate"
SEES = "view_taskmeta"
VALUES = "arguments_taskstate"


def register(app):
    """Give *app* the tasks that the tests send, and keep it from looking for more."""
    app.loader.import_default_modules = lambda: []

    @app.task(name="shop.add", shared=False)
    def add(x, y=0):
        return int(x) + int(y)

    @app.task(name="shop.loose", shared=False, typing=False)
    def loose(**kwargs):
        return kwargs

    @app.task(name="other.task", shared=False)
    def other(**kwargs):
        return kwargs

    return app


def strict(response):
    """Return the JSON of an answer, read by a parser that takes no NaN, and check what all answers share."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert response.headers["Content-Type"] == "application/json", response.content[:200]
    assert "no-store" in response.headers["Cache-Control"]
    return json.loads(response.content, parse_constant=refuse)


def error(response, status):
    """Return the text of an error with this *status*."""
    assert response.status_code == status, response.content
    value = strict(response)
    assert set(value) == {"error"}
    assert value["error"]
    return value["error"]


def user(name, *codenames, **fields):
    made = get_user_model().objects.create_user(name, **fields)
    made.user_permissions.set(Permission.objects.filter(content_type__app_label="djcelery", codename__in=codenames))
    return made


def client_of(person=None, **options):
    """Return a client, logged in as *person* if there is one."""
    client = Client(**options)
    if person is not None:
        client.force_login(person)
    return client


def sent(app):
    """Return what is in the default queue, as (name, id, kwargs), and empty it."""
    found = []
    with app.connection_for_read() as connection:
        while message := connection.default_channel.basic_get("celery", no_ack=True):
            _args, kwargs, _embed = message.decode()
            found.append((message.headers["task"], message.headers["id"], kwargs))
    return found
