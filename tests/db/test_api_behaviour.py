"""What names of django-celery do that work on the database; ``tests/unit/api_table.py`` says which test is whose."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from celery.events.state import State
from celery.schedules import crontab
from django.contrib import admin
from django.core import serializers
from django.db import DatabaseError, connection, models, transaction
from django.db.models.signals import post_save
from django.test.utils import isolate_apps
from django.urls import path

from djcelery import admin as ours
from djcelery import db, managers, utils
from djcelery.backends import cache as cache_module
from djcelery.backends.database import DatabaseBackend
from djcelery.models import (
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    ScheduleChange,
    TaskMeta,
    TaskSetMeta,
    TaskState,
    WorkerState,
)
from djcelery.picklefield import PickledObjectField
from djcelery.schedulers import DatabaseScheduler, ModelEntry
from djcelery.snapshot import Camera

pytestmark = pytest.mark.django_db


@pytest.fixture
def every10():
    return IntervalSchedule.objects.create(every=10, period="seconds")


# transactions and errors


def test_database_errors_of_every_driver_are_caught():
    with pytest.raises(utils.DATABASE_ERRORS), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")
    assert DatabaseError in utils.DATABASE_ERRORS


def test_names_for_transactions_work(every10):
    assert db.get_queryset(IntervalSchedule.objects).get() == every10

    def fails():
        with db.commit_on_success(using="default"):
            IntervalSchedule.objects.create(every=1, period="days")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with db.atomic(), db.commit_on_success():
        IntervalSchedule.objects.create(every=2, period="days")
    assert db.commit_unless_managed() is db.rollback_unless_managed(using="default") is None
    assert {row.every for row in IntervalSchedule.objects.all()} == {10, 2}


# managers


def test_a_row_is_updated_from_a_dictionary(every10):
    assert managers.update_model_with_dict(every10, {"every": 20, "period": "minutes"}) is every10
    every10.refresh_from_db()
    assert (every10.every, every10.period) == (20, "minutes")


def test_update_or_create_returns_the_row_and_whether_it_is_new():
    made = WorkerState.objects.update_or_create(hostname="w1", defaults={"last_heartbeat": None})
    again = WorkerState.objects.update_or_create(hostname="w1", defaults={"last_heartbeat": utils.now()})
    assert (made[1], again[1]) == (True, False)
    assert made[0] == again[0]
    assert WorkerState.objects.get().last_heartbeat is not None


def test_managers_have_their_legacy_names(every10):
    manager = TaskState.objects
    assert isinstance(manager.get_query_set(), managers.ExtendedQuerySet)
    assert list(IntervalSchedule.objects.get_query_set()) == [every10]
    assert manager.connection_for_read().alias == manager.connection_for_write().alias == "default"
    assert manager.current_engine() == connection.settings_dict["ENGINE"]


def test_a_manager_of_another_database_asks_that_one():
    assert TaskMeta.objects.db_manager("other").get_queryset().db == "other"


def test_expired_results_are_found_and_deleted():
    for name, age in (("old", timedelta(days=2)), ("new", timedelta(0))):
        TaskMeta.objects.store_result(name, 1, "SUCCESS")
        TaskMeta.objects.filter(task_id=name).update(date_done=utils.now() - age)
    for day in (timedelta(days=1), 24 * 3600):
        assert [row.task_id for row in TaskMeta.objects.get_all_expired(day)] == ["old"]
    assert TaskMeta.objects.delete_expired(24 * 3600) == 1
    assert TaskMeta.objects.get().task_id == "new"


def test_an_unknown_task_is_an_unsaved_pending_row():
    row = TaskMeta.objects.get_task("unknown")
    assert (row.pk, row.task_id, row.status, row.result) == (None, "unknown", "PENDING", None)
    assert not TaskMeta.objects.exists()


def test_periodic_tasks_are_found_by_name_and_by_being_enabled(every10):
    on, off = (
        PeriodicTask.objects.create(name=name, task="x", interval=every10, enabled=name == "on")
        for name in ("on", "off")
    )
    assert list(PeriodicTask.objects.enabled()) == [on]
    assert PeriodicTask.objects.get_by_natural_key(*off.natural_key()) == off


def test_task_states_are_hidden_by_state_and_age_and_then_purged():
    old = utils.now() - timedelta(days=2)
    for task_id, state, at in (("a", "SUCCESS", old), ("b", "SUCCESS", utils.now()), ("c", "FAILURE", old)):
        TaskState.objects.create(task_id=task_id, state=state, tstamp=at)
    states = TaskState.objects
    assert [row.task_id for row in states.expired(["SUCCESS"], 86400)] == ["a"]
    assert not states.expired(["SUCCESS"], timedelta(days=1), lambda: old).exists()
    assert states.expire_by_states(["SUCCESS"], None) is None
    assert states.expire_by_states(["SUCCESS"], timedelta(days=1)) == 1
    assert {row.task_id for row in states.active()} == {"b", "c"}
    assert states.count() == 3
    states.purge()
    assert {row.task_id for row in states.all()} == {"b", "c"}


# models


def test_results_have_their_legacy_texts_and_dictionaries():
    row, _ = TaskMeta.objects.store_result("id", {"a": 1}, "SUCCESS", children=[["c", None]])
    assert str(row) == "<Task: id state=SUCCESS>"
    meta = row.to_dict()
    assert list(meta) == ["task_id", "status", "result", "date_done", "traceback", "children"]
    assert (meta["result"], meta["children"]) == ({"a": 1}, [["c", None]])
    group, _ = TaskSetMeta.objects.store_result("gid", [1])
    assert str(group) == "<TaskSet: gid>"
    assert group.to_dict() == {"taskset_id": "gid", "result": [1], "date_done": group.date_done}
    names = [kind._meta.verbose_name for kind in (TaskMeta, TaskSetMeta)]
    assert names == ["task state", "saved group result"]


def test_the_time_of_a_result_is_that_of_its_last_write():
    row, _ = TaskMeta.objects.store_result("id", 1, "STARTED")
    TaskMeta.objects.filter(pk=row.pk).update(date_done=utils.now() - timedelta(days=1))
    row, _ = TaskMeta.objects.store_result("id", 2, "SUCCESS")
    assert utils.now() - row.date_done < timedelta(minutes=1)


def test_states_of_the_monitor_have_their_legacy_texts():
    worker = WorkerState(hostname="w1@host")
    assert (str(worker), repr(worker)) == ("w1@host", "<WorkerState: w1@host>")
    task = TaskState(state="SUCCESS", task_id="id", name="shop.add", tstamp="now")
    assert str(task) == f"{'SUCCESS':<10} {'id':<36} shop.add"
    assert repr(task) == "<TaskState: SUCCESS shop.add[id] ts:now>"
    assert "UNKNOWN" in str(TaskState(state="SUCCESS", task_id="id"))
    assert str(TaskState(state="RECEIVED", task_id="id", name="x", eta="noon")).endswith("x eta:noon")
    assert (WorkerState._meta.get_latest_by, TaskState._meta.get_latest_by) == ("last_heartbeat", "tstamp")


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_heartbeat_is_the_same_instant_with_and_without_use_tz(settings, use_tz):
    settings.USE_TZ = use_tz
    worker = WorkerState.objects.create(hostname="w1", last_heartbeat=utils.fromtimestamp(1_700_000_000))
    worker.refresh_from_db()
    assert worker.heartbeat_timestamp == 1_700_000_000
    assert not worker.is_alive()
    worker.last_heartbeat = utils.now()
    assert worker.is_alive()
    worker.last_heartbeat = None
    assert not worker.is_alive()


def test_an_interval_knows_its_unit_in_the_singular():
    assert IntervalSchedule(every=1, period="hours").period_singular == "hour"


def test_models_have_the_text_that_python_2_asked_for(every10):
    task = PeriodicTask(name="t", interval=every10)
    assert task.__unicode__() == str(task)
    for kind in (TaskMeta, TaskSetMeta, IntervalSchedule, CrontabSchedule, WorkerState, TaskState):
        assert kind.__unicode__ is kind.__str__


def test_a_project_may_connect_the_receiver_of_changes_itself(every10):
    # A change of rows of its own, such as holidays, that beat must hear of.
    receiver = PeriodicTasks.changed
    post_save.connect(receiver, sender=WorkerState)
    try:
        before = ScheduleChange.objects.count()
        WorkerState.objects.create(hostname="w1")
        assert ScheduleChange.objects.count() == before + 1
    finally:
        post_save.disconnect(receiver, sender=WorkerState)


def test_a_periodic_task_is_dumped_and_loaded_by_its_name(every10):
    row = PeriodicTask.objects.create(name="nightly", task="x", interval=every10)
    text = serializers.serialize("json", [row], use_natural_primary_keys=True)
    assert '"pk"' not in text
    PeriodicTask.objects.filter(pk=row.pk).update(task="other")
    (loaded,) = serializers.deserialize("json", text)
    loaded.save()
    assert (PeriodicTask.objects.get().pk, PeriodicTask.objects.get().task) == (row.pk, "x")


# backends


class Seen(managers.TaskManager):
    """A manager of a project that has its own way to store, with the signature of django-celery."""

    @managers.transaction_retry(max_retries=2)
    def store_result(self, task_id, result, status, traceback=None, children=None, hostname="here"):
        values = {
            "status": status,
            "result": result,
            "traceback": f"{hostname}: {traceback}",
            "meta": {"children": children},
        }
        return self.update_or_create(task_id=task_id, defaults=values)


def project_table(manager, name):
    """Return a model of a project with the columns that django-celery had. Its table is ours, which has them too."""

    class Result(models.Model):
        task_id = models.CharField(max_length=255, unique=True)
        status = models.CharField(max_length=50, default="PENDING")
        result = PickledObjectField(null=True, default=None)
        date_done = models.DateTimeField(auto_now=True)
        traceback = models.TextField(null=True)
        hidden = models.BooleanField(default=False)
        meta = PickledObjectField(compress=True, null=True, default=None)
        objects = manager

        class Meta:
            app_label = name
            db_table = TaskMeta._meta.db_table
            managed = False

        def __str__(self):
            return self.task_id

        to_dict = TaskMeta.to_dict

    return Result


@pytest.mark.parametrize(("manager", "traceback"), [(managers.TaskManager, "tb"), (Seen, "here: tb")])
@isolate_apps("djcelery")
def test_a_backend_of_ones_own_may_have_other_tables(celery_app, settings, manager, traceback):
    settings.DJCELERY_STORE_PUBLISHED = True

    class Own(DatabaseBackend):
        TaskModel = project_table(manager(), "djcelery")

    backend = Own(app=celery_app, expires=60)
    assert backend.get_status("id") == "PENDING"
    backend.store_result("id", {"a": (1, 2)}, "STARTED")
    backend.store_result("id", {"a": (1, 2)}, "SUCCESS", traceback="tb")
    backend.store_result("bad", ValueError("odd"), "FAILURE")
    assert backend.get_result("id") == {"a": (1, 2)}
    assert backend.get_task_meta("id")["traceback"] == traceback
    assert isinstance(backend.get_result("bad"), ValueError)
    assert {meta["task_id"] for meta in backend.get_metas(["id", "bad", "none"])} == {"id", "bad"}
    assert TaskMeta.objects.filter(content_type=None).count() == 2
    backend.forget("bad")
    TaskMeta.objects.filter(task_id="id").update(date_done=utils.now() - timedelta(days=1))
    backend.cleanup()
    assert not TaskMeta.objects.exists()


@isolate_apps("djcelery")
def test_a_manager_of_ones_own_stores_in_our_table_too(celery_app):
    class Proxy(TaskMeta):
        objects = Seen()

        class Meta:
            app_label = "djcelery"
            proxy = True

    class Own(DatabaseBackend):
        TaskModel = Proxy

    backend = Own(app=celery_app)
    backend.store_result("id", 1, "SUCCESS", traceback="tb")
    assert backend.get_result("id") == 1
    assert TaskMeta.objects.get().traceback == "here: tb"


def test_the_models_of_the_backend_are_ours(celery_app):
    assert DatabaseBackend.TaskModel is TaskMeta
    assert DatabaseBackend(app=celery_app).TaskSetModel is TaskSetMeta
    assert DatabaseBackend(app=celery_app, expires=3600).expires == 3600


def test_a_backend_may_wrap_the_methods_of_ours(celery_app):
    class Own(DatabaseBackend):
        def _store_result(self, task_id, result, status, traceback=None, request=None):
            # As a project had it for years.
            return super()._store_result(task_id, result, status, traceback=traceback, request=result)

        def _get_task_meta_for(self, task_id):
            return {**super()._get_task_meta_for(task_id), "seen": True}

    backend = Own(app=celery_app)
    assert backend.store_result("id", {"a": 1}, "SUCCESS") == {"a": 1}
    assert backend.get_result("id") == {"a": 1}
    assert backend.get_task_meta("id")["seen"] is True


def test_the_methods_of_the_backend_take_what_they_took(celery_app):
    backend = DatabaseBackend(app=celery_app)
    assert backend._store_result("id", {"a": 1}, "SUCCESS", "tb", None) == {"a": 1}
    meta = backend._get_task_meta_for("id")
    assert (meta["status"], meta["result"], meta["traceback"]) == ("SUCCESS", {"a": 1}, "tb")
    assert backend.get_result("missing") is None
    assert backend._get_task_meta_for("missing")["status"] == "PENDING"
    backend._forget("id")
    backend._forget("id")
    TaskMeta.objects.create(task_id="hidden", status="SUCCESS", hidden=True)
    backend.cleanup()
    assert not TaskMeta.objects.exists()


def test_old_names_of_the_cache_backend_give_the_cache_that_is_used(celery_app, settings):
    settings.CACHES = {
        name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
        for name in ("default", "results")
    }
    settings.CELERY_CACHE_BACKEND = "results"
    with pytest.warns(DeprecationWarning, match="caches"):
        chosen = cache_module.cache
    cache_module.CacheBackend(app=celery_app).set("key", "value")
    assert chosen.get("key") == "value"
    with pytest.warns(DeprecationWarning, match="the cache itself"):
        wrapped = cache_module.DjangoMemcacheWrapper(chosen)
    wrapped.set("other", 1, 10)
    assert wrapped.get("other") == 1


# beat


def test_an_entry_may_leave_keys_out():
    entry = {"task": "x", "schedule": 10, "relative": True, "description": "left out", "options": {"queue": "q"}}
    ModelEntry.from_entry("t", ("relative", "options", "description"), **entry)
    row = PeriodicTask.objects.get()
    assert (row.description, row.queue) == ("", "q")
    ModelEntry.from_entry("t", skip_fields=("relative", "options"), **{**entry, "description": "kept"})
    row.refresh_from_db()
    assert row.description == "kept"
    with pytest.raises(ValueError, match="no key colour"):
        ModelEntry.from_entry("t", colour="red", **entry)


def test_an_entry_shows_its_call_and_schedule(every10):
    row = PeriodicTask.objects.create(name="t", task="shop.add", interval=every10, args="[1]", kwargs='{"a": 2}')
    assert repr(ModelEntry(row)) == "<ModelEntry: t shop.add(*(1,), **{'a': 2}) <freq: 10.00 seconds>>"


def test_the_schedule_has_its_older_name(celery_app, every10):
    PeriodicTask.objects.create(name="t", task="x", interval=every10)
    beat = DatabaseScheduler(app=celery_app, lazy=True)
    assert list(beat.get_schedule()) == list(beat.schedule) == ["t"]
    beat.close()


def test_a_scheduler_of_ones_own_is_told_what_is_never_asked(celery_app, caplog):
    class Holidays(ModelEntry):
        def is_due(self):
            return super().is_due()

    class Own(DatabaseScheduler):
        Entry = Holidays

        def all_as_schedule(self):
            return {}

        def apply_entry(self, entry, producer=None):
            super().apply_entry(entry, producer)

    DatabaseScheduler(app=celery_app, lazy=True).close()
    assert "not asked" not in caplog.text
    Own(app=celery_app, lazy=True).close()
    said = [record.getMessage() for record in caplog.records if "not asked" in record.getMessage()]
    assert len(said) == 2
    assert "Own has its own all_as_schedule()," in said[0]
    assert "Holidays has its own is_due()," in said[1]


def test_a_cleared_field_of_a_schedule_can_be_set_again(every10):
    # Rows of django-celery up to 3.2.1 can have both.
    row = PeriodicTask.objects.create(
        name="t", task="x", interval=every10, crontab=CrontabSchedule.objects.create(minute="5")
    )
    assert isinstance(row.schedule, type(every10.schedule))
    ModelEntry.from_entry("t", task="x", schedule=crontab(minute=7))
    row.refresh_from_db()
    assert (row.interval, row.crontab.minute) == (None, "7")


# cameras


def test_a_camera_of_ones_own_sees_the_tasks_after_ours_has_written_them(celery_app):
    class Own(Camera):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.expire_states = {"SUCCESS": timedelta(days=1)}
            self.seen = []

        def on_shutter(self, state):
            super().on_shutter(state)
            self.seen += [(uuid, TaskState.objects.get(task_id=uuid).state) for uuid in state.tasks]

    state, now = State(), time.time()
    event = {"hostname": "w1@host", "timestamp": now, "local_received": now, "clock": 1, "utcoffset": 0, "pid": 1}
    state.event({**event, "type": "task-received", "uuid": "id", "name": "shop.add", "args": "()", "kwargs": "{}"})
    state.event({**event, "type": "task-succeeded", "uuid": "id", "result": "1", "runtime": 0.1, "clock": 2})
    camera = Own(state, app=celery_app)
    camera.capture()
    assert camera.seen == [("id", "SUCCESS")]
    assert not state.tasks
    TaskState.objects.update(tstamp=utils.now() - timedelta(days=2))
    assert camera.on_cleanup() == 1


# pages and forms that projects derive from ours


class OwnTaskMonitor(ours.TaskMonitor):
    list_display = (
        ours.fixedwidth("task_id", name="UUID", pt=8),
        ours.colored_state,
        ours.name,
        ours.fixedwidth("args", pretty=True),
        ours.eta,
        ours.tstamp,
        "worker",
    )
    fieldsets = (
        (None, {"fields": ("state", "task_id", "name", "args", "kwargs", "eta", "runtime", "worker", "tstamp")}),
    )
    # As django-celery's own had them.
    date_hierarchy = "tstamp"
    list_filter = ("state", "name", "tstamp", "eta", "worker")
    search_fields = ("name", "task_id", "args", "kwargs", "worker__hostname")
    readonly_fields = ("state", "task_id", "name", "args", "kwargs", "eta", "runtime", "worker", "result", "traceback")


class OwnWorkerMonitor(ours.WorkerMonitor):
    list_display = ("hostname", ours.node_state)


class OwnForm(ours.PeriodicTaskForm):
    class Meta(ours.PeriodicTaskForm.Meta):
        exclude = ("args", "kwargs")

    def clean(self):
        data = super().clean()
        data["description"] = "checked"
        return data


class OwnPeriodicTaskAdmin(ours.PeriodicTaskAdmin):
    form = OwnForm
    list_display = ("enabled", "__unicode__", "task", "args", "kwargs")
    list_display_links = ("enabled", "__unicode__", "task")
    fieldsets = (
        (None, {"fields": ("name", "regtask", "task", "enabled", "description"), "classes": ("extrapretty", "wide")}),
        ("Schedule", {"fields": ("interval", "crontab")}),
    )


site = admin.AdminSite(name="own")
site.register(TaskState, OwnTaskMonitor)
site.register(WorkerState, OwnWorkerMonitor)
site.register(PeriodicTask, OwnPeriodicTaskAdmin)
site.register(IntervalSchedule)
site.register(CrontabSchedule, ours.CrontabScheduleAdmin)
site.register(
    TaskMeta, type("OwnMonitor", (ours.ModelMonitor,), {"list_page_title": "Mine", "list_display": ("task_id",)})
)
urlpatterns = [path("admin/", admin.site.urls), path("own/", site.urls)]


@pytest.fixture
def own(settings, admin_client):
    settings.ROOT_URLCONF = __name__
    return admin_client


def test_pages_that_a_project_derived_from_ours_work(own, every10):
    worker = WorkerState.objects.create(hostname="w1@host", last_heartbeat=utils.now())
    TaskState.objects.create(task_id="id-1", state="SUCCESS", name="shop.add", tstamp=utils.now(), worker=worker)
    PeriodicTask.objects.create(name="nightly", task="shop.add", interval=every10)
    TaskMeta.objects.store_result("id-2", 1, "SUCCESS")
    assert [error for model, page in site._registry.items() for error in page.check()] == []
    lists = {
        "taskstate": ("id-1", '<span style="color: green;">SUCCESS</span>'),
        "workerstate": ("w1@host", '<span style="color: green;">ONLINE</span>'),
        "periodictask": ("nightly: every 10 seconds",),
        "taskmeta": ("id-2", "Mine"),
    }
    for name, texts in lists.items():
        page = own.get(f"/own/djcelery/{name}/")
        assert page.status_code == 200, name
        for text in texts:
            assert text in page.text, name
    for query, is_found in {"state=SUCCESS": True, "state=FAILURE": False, "q=shop": True, "q=other": False}.items():
        assert ("id-1" in own.get(f"/own/djcelery/taskstate/?{query}").text) is is_found, query
    for kind in (TaskState, WorkerState, PeriodicTask, TaskMeta):
        name = kind._meta.model_name
        assert own.get(f"/own/djcelery/{name}/{kind.objects.get().pk}/change/").status_code == 200, name


def test_a_form_that_a_project_derived_from_ours_may_leave_fields_out(own, every10):
    data = {"name": "t", "regtask": "", "task": "shop.tasks.add", "enabled": "on", "interval": every10.pk}
    # Intervals can't be searched on this site, so all are in the list.
    assert f'<option value="{every10.pk}">every 10 seconds</option>' in own.get("/own/djcelery/periodictask/add/").text
    page = own.post("/own/djcelery/periodictask/add/", data)
    assert page.status_code == 302, page.context and page.context["errors"]
    row = PeriodicTask.objects.get()
    assert (row.description, row.args, row.kwargs) == ("checked", "[]", "{}")
