"""The reference pages of models, permissions and signals say what the code has."""

from __future__ import annotations

import inspect
import re
import time
import weakref

import pytest
from celery import signals as celery_signals
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import models
from django.db.models import signals as django_signals

from djcelery.db import WorkerFixup
from djcelery.loaders import DjangoLoader
from djcelery.snapshot import Camera
from tests.docs import pages
from tests.docs.test_manual import resolve

MODELS = {model.__name__: model for model in apps.get_app_config("djcelery").get_models()}
MODEL_PAGE = pages.sections(pages.read("reference/models"), "~")
SIGNALS_PAGE = pages.read("reference/signals")


# -- models


def test_every_model_has_a_section():
    assert set(MODEL_PAGE) == set(MODELS)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_field_of_a_model_is_listed_once_and_no_other(model):
    listed = pages.first_cells(MODEL_PAGE[model.__name__])
    assert sorted(listed) == sorted(field.name for field in model._meta.concrete_fields)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_table_and_unique_keys_of_a_model_are_named(model):
    text = " ".join(MODEL_PAGE[model.__name__].split())
    assert f"Table ``{model._meta.db_table}``." in text
    keys = [(field.name,) for field in model._meta.concrete_fields if field.unique and not field.primary_key]
    keys += [rule.fields for rule in model._meta.constraints if isinstance(rule, models.UniqueConstraint)]
    said = re.search(r"Unique: (.*?)\.(?: |$)", text)
    assert {name for key in keys for name in key} == set(re.findall(r"``(\w+)``", said[1]) if said else [])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said_of_objects_of_a_model_exists(name):
    for found in re.findall(r"``\w+\.objects`` has (.*?)[.;]", " ".join(MODEL_PAGE[name].split())):
        for method, arguments in re.findall(r"``(\w+)\(([^`]*)\)``", found):
            signature = inspect.signature(getattr(MODELS[name].objects, method))
            given = [word for word in re.split(r"[, ]+", arguments) if word]
            signature.bind(*given)


# -- permissions


def test_every_permission_is_listed_with_its_name():
    text = pages.read("reference/permissions")
    own = {f"djcelery.{codename}" for model in MODELS.values() for codename, _ in model._meta.permissions}
    assert sorted(pages.first_cells(pages.sections(text, "-")["Actions"])) == sorted(own)


@pytest.mark.django_db
def test_what_the_admin_offers_of_each_model_is_listed(rf):
    request = rf.get("/")
    request.user = User.objects.create_superuser("boss")
    offered = {}
    for model, page in admin.site._registry.items():
        if MODELS.get(model.__name__) is model:
            kinds = page.get_model_perms(request)
            offered[model.__name__] = {kind for kind, is_allowed in kinds.items() if is_allowed}
    rows = pages.sections(pages.read("reference/permissions"), "-")["Rows"]
    listed = {}
    for row in re.findall(r"^``(\w+)`` +((?:``\w+``(?:, )?)+)", rows, re.MULTILINE):
        listed[row[0]] = set(re.findall(r"``(\w+)``", row[1]))
    assert listed == offered


# -- signals


def listed_receivers():
    rows = re.findall(r"^``(\w+)`` +``([a-z][\w.]+\.\w+)``", SIGNALS_PAGE, re.MULTILINE)
    assert len(rows) > 10
    named = {**vars(django_signals), **vars(celery_signals)}
    return {(named[signal], resolve(f"djcelery.{receiver}")) for signal, receiver in rows}


def connected_receivers():
    """Return signals and receivers of ours that are functions; methods are connected by loaders and workers."""
    found = set()
    for module in (celery_signals, django_signals):
        for signal in vars(module).values():
            for receiver in getattr(signal, "receivers", None) or ():
                function = receiver[1]() if isinstance(receiver[1], weakref.ReferenceType) else receiver[1]
                if inspect.isfunction(function) and function.__module__.startswith("djcelery."):
                    found.add((signal, function))
    return found


def test_every_receiver_that_is_connected_is_listed():
    by_objects = {pair for pair in listed_receivers() if pair[1] in (DjangoLoader, WorkerFixup)}
    assert connected_receivers() == listed_receivers() - by_objects


def test_the_receivers_of_workers_are_connected_where_it_is_said():
    source = inspect.getsource(DjangoLoader.__init__)
    assert "worker_ready.connect" in source
    source = inspect.getsource(WorkerFixup.__mro__[1].install)
    assert "task_prerun.connect" in source
    assert "task_postrun.connect" in source


# -- override points


def override_points():
    for heading, body in pages.sections(SIGNALS_PAGE, "~").items():
        owner = heading.strip("`")
        for name, call in re.findall(r"^``(\w+)(\([^`]*\))?``$", body, re.MULTILINE):
            yield owner, name, call


@pytest.mark.parametrize(("owner", "name", "call"), list(override_points()), ids=lambda part: part.strip("()"))
def test_every_override_point_exists_with_these_arguments(owner, name, call):
    member = inspect.getattr_static(resolve(owner), name)
    if not call:
        assert not inspect.isfunction(member)
        return
    said = [word.split("=")[0].strip() for word in call.strip("()").split(",") if word.strip()]
    parameters = list(inspect.signature(member).parameters.values())[1:]
    named = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    catch_all = [f"**{each.name}" for each in parameters if each.kind is each.VAR_KEYWORD]
    assert said in (named, named + catch_all, [])
    assert said or not [each for each in parameters if each.default is each.empty and each.name in named]


def block_with(text):
    found = next(block for block in pages.blocks(SIGNALS_PAGE) if text in block.text)
    namespace = {"__name__": "signals_page"}
    exec(compile(found.text, "reference/signals.rst", "exec"), namespace)
    return namespace


@pytest.mark.django_db
def test_a_scheduler_that_overrides_apply_entry_adds_its_header(celery_app):
    from datetime import datetime, timedelta, timezone

    from djcelery.models import IntervalSchedule, PeriodicTask

    scheduler_class = block_with("class RegionalScheduler")["RegionalScheduler"]
    every, _ = IntervalSchedule.objects.get_or_create(every=10, period="seconds")
    ago = datetime.now(timezone.utc) - timedelta(seconds=15)
    PeriodicTask.objects.create(name="t", task="shop.tasks.t", interval=every, scheduled_from=ago)
    sent = []

    def note(headers=None, **kwargs):
        sent.append(headers)

    celery_signals.before_task_publish.connect(note)
    scheduler = scheduler_class(app=celery_app)
    try:
        scheduler.tick()
        scheduler.tick()
    finally:
        celery_signals.before_task_publish.disconnect(note)
        scheduler.close()
    assert [(headers["task"], headers["region"]) for headers in sent] == [("shop.tasks.t", "eu-west")]


@pytest.mark.django_db
def test_a_camera_that_overrides_handle_task_keeps_a_task_out(celery_app):
    from celery.events.state import State

    from djcelery.models import TaskState

    camera_class = block_with("class QuietCamera")["QuietCamera"]
    assert issubclass(camera_class, Camera)
    state = State()
    for number, name in enumerate(["shop.tasks.ping", "shop.tasks.add"]):
        event = {"type": "task-received", "uuid": f"id{number}", "name": name, "hostname": "w@h", "clock": number + 1}
        # Now: what is far from the clock of this machine is not believed.
        state.event({**event, "timestamp": time.time(), "local_received": time.time(), "pid": 1})
    camera_class(state, app=celery_app, freq=1).on_shutter(state)
    assert list(TaskState.objects.values_list("name", flat=True)) == ["shop.tasks.add"]
