"""Each recipe of ``docs/cookbook.rst`` does what it says: its blocks are run, on a database and a broker in memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import types
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from celery import _state
from celery.app.trace import build_tracer
from celery.signals import before_task_publish
from django.contrib.auth.models import User
from django.core import mail
from django.utils import translation

from djcelery import utils
from djcelery.models import ClockedSchedule, PeriodicRun, PeriodicTask, ScheduleChange, TaskHistory, TaskMeta
from tests.docs import pages

PAGE = pages.read("cookbook")
RECIPES: dict[str, list[pages.Block]] = {}
for _block in pages.blocks(PAGE):
    if _block.language == "python":
        RECIPES.setdefault(_block.section, []).append(_block)


class Kitchen:
    """Runs the blocks of a recipe: those that name a file as that module, the others as they come."""

    def __init__(self, monkeypatch, app):
        self.monkeypatch = monkeypatch
        self.app = app

    def cook(self, title: str, wanted=lambda block: True) -> dict:
        """Run the blocks of the recipe *title*, in order; return the names that the last one has made."""
        names: dict = {}
        for block in filter(wanted, RECIPES[title]):
            names = self.module(block.file.removesuffix(".py").replace("/", ".")) if block.file else {}
            names.setdefault("__name__", "typed")
            exec(compile(block.text, f"cookbook.rst: {title}", "exec"), names)
        return names

    def module(self, dotted: str) -> dict:
        """Return the names of module *dotted*; made anew, with its packages, if this recipe doesn't have it yet."""
        parts = dotted.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            known = sys.modules.get(name)
            if known is None or known.__spec__ is not None:
                known = types.ModuleType(name)
                known.__path__ = []
                self.monkeypatch.setitem(sys.modules, name, known)
        return vars(sys.modules[dotted])

    def work(self, queue: str = "celery") -> list[dict]:
        """Run what waits in *queue* as a worker does, and return the headers of the messages; what they send waits."""
        messages = []
        with self.app.connection_for_read() as connection:
            box = connection.SimpleQueue(queue)
            with contextlib.suppress(box.Empty):
                while True:
                    messages.append(box.get_nowait())
                    messages[-1].ack()
            box.close()
        for message in messages:
            args, kwargs, _embedded = message.payload
            headers, task = message.headers, self.app.tasks[message.headers["task"]]
            request = {**headers, "args": args, "kwargs": kwargs, "hostname": "cook@kitchen", "is_eager": False}
            # The connections are the test's: WorkerFixup is not installed here.
            build_tracer(task.name, task, app=self.app)(headers["id"], args, kwargs, request)
        return [message.headers for message in messages]


@pytest.fixture
def kitchen(monkeypatch, celery_app, settings):
    settings.BROKER_URL = "memory://"
    before = set(_state._on_app_finalizers)
    known = {app: set(app._tasks) for app in _state._get_active_apps()}
    # As djcelery does in a project: threads get this app, too, and no other with a broker of its own.
    celery_app.set_default()
    yield Kitchen(monkeypatch, celery_app)
    # Tasks of shared_task would come with every app that is made later.
    _state._on_app_finalizers.intersection_update(before)
    for app in _state._get_active_apps():
        for name in set(app._tasks) - known.get(app, set(app._tasks)):
            del app._tasks[name]


@pytest.fixture
def sent():
    """The names of the tasks that are sent, in order."""
    names = []

    def note(sender=None, **kwargs):
        names.append(sender)

    before_task_publish.connect(note)
    yield names
    before_task_publish.disconnect(note)


def test_every_recipe_with_code_has_a_test():
    source = Path(__file__).read_text()
    assert len(RECIPES) >= 12
    assert [title for title in RECIPES if f'"{title}"' not in source] == []


# -- transactions

COMMIT = "Send a task when the transaction is committed"


@pytest.mark.django_db
def test_a_task_is_sent_after_the_commit(kitchen, sent, rf, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        names = kitchen.cook(COMMIT, lambda block: block.file.startswith("accounts"))
        names["sign_up"](rf.post("/", {"username": "ann", "email": "ann@example.com"}))
        assert sent == []
    assert len(callbacks) == 1
    assert sent == ["accounts.tasks.welcome"]
    kitchen.work()
    assert [message.to for message in mail.outbox] == [["ann@example.com"]]


@pytest.mark.django_db
def test_the_id_of_a_task_that_waits_for_the_commit_can_be_chosen(kitchen, sent, django_capture_on_commit_callbacks):
    User.objects.create_user("first", "first@example.com", pk=1)
    with django_capture_on_commit_callbacks(execute=True):
        names = kitchen.cook(COMMIT, lambda block: not block.file or block.file == "accounts/tasks.py")
        assert sent == []
    assert [headers["id"] for headers in kitchen.work()] == [names["task_id"]]


@pytest.mark.django_db
def test_a_task_class_of_the_project_lets_every_delay_wait(
    kitchen, sent, monkeypatch, django_capture_on_commit_callbacks
):
    from celery import Celery

    from djcelery import LOADER

    kitchen.cook(COMMIT, lambda block: block.file == "proj/tasks.py")
    app = Celery("proj", loader=LOADER, task_cls="proj.tasks:OnCommitTask", set_as_current=False)

    @app.task(name="shop.tasks.double")
    def double(number):
        return 2 * number

    with django_capture_on_commit_callbacks(execute=True):
        result = double.delay(21)
        assert sent == []
    assert sent == ["shop.tasks.double"]
    kitchen.app = app
    kitchen.work()
    assert TaskMeta.objects.get(task_id=result.id).result == 42
    app.close()


@pytest.mark.django_db
def test_a_task_that_is_delivered_twice_does_its_work_once(kitchen):
    task = kitchen.cook("Transactions inside a task")["close_account"]
    user = User.objects.create_user("ann")
    task.delay(user.pk)
    task.delay(user.pk)
    first, second = kitchen.work()
    results = TaskMeta.objects.in_bulk([first["id"], second["id"]], field_name="task_id")
    assert [results[each["id"]].result for each in (first, second)] == ["closed", "closed before"]
    assert task.acks_late


@pytest.mark.django_db
def test_a_task_that_runs_elsewhere_is_tried_again_later(kitchen, settings):
    from django.core.cache import cache

    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "cookbook"}}
    task = kitchen.cook("One at a time")["count_stock"]
    cache.add("count-stock-north", "another task")
    task.delay("north")
    task.delay("south")
    north, south = kitchen.work()
    states = dict(TaskMeta.objects.values_list("task_id", "status"))
    assert (states[north["id"]], states[south["id"]]) == ("RETRY", "SUCCESS")
    cache.delete("count-stock-north")
    assert cache.add("count-stock-south", "the next one")
    cache.clear()


# -- tasks


@pytest.mark.django_db
def test_a_task_runs_in_the_language_that_was_sent_along(kitchen, settings):
    settings.LANGUAGE_CODE = "en"
    with translation.override("es"):
        kitchen.cook("A task in the language of its reader")
    sys.modules["shop.tasks"].remind.delay("bob@example.com")
    kitchen.work()
    assert [message.subject for message in mail.outbox] == ["lunes", "Monday"]
    assert translation.get_language() == "en"


@pytest.mark.django_db
def test_progress_is_in_its_column_while_the_task_runs_and_afterwards(kitchen, rf):
    rebuilding = kitchen.cook("Progress of a task")["rebuilding"]
    task = sys.modules["shop.tasks"].rebuild
    assert json.loads(rebuilding(rf.get("/"), "unknown").content) == {"status": "PENDING", "progress": None}
    seen = []
    update = task.__class__.update_state

    def look(self, *args, **kwargs):
        update(self, *args, **kwargs)
        seen.append(json.loads(rebuilding(rf.get("/"), self.request.id).content))

    kitchen.monkeypatch.setattr(task.__class__, "update_state", look)
    task.delay(2)
    (headers,) = kitchen.work()
    assert seen == [{"status": "PROGRESS", "progress": {"done": done, "total": 2}} for done in (1, 2)]
    done = json.loads(rebuilding(rf.get("/"), headers["id"]).content)
    assert done == {"status": "SUCCESS", "progress": {"done": 2, "total": 2}}


@pytest.mark.django_db
def test_a_large_result_is_a_file(kitchen, settings):
    from django.core.files.storage import default_storage

    settings.STORAGES = {"default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    User.objects.create_user("bob")
    User.objects.create_user("ann")
    kitchen.cook("Large results")["export_users"].delay()
    (headers,) = kitchen.work()
    stored = TaskMeta.objects.get(task_id=headers["id"]).result
    assert stored["rows"] == 2
    assert default_storage.open(stored["file"]).read() == b"ann\nbob\n"


@pytest.mark.django_db
def test_queues_and_limits_are_those_of_the_settings(kitchen, settings, sent):
    kitchen.module("proj.settings")
    values = kitchen.cook("Queues and rate limits of single tasks")
    for name in ("CELERY_TASK_ROUTES", "CELERY_TASK_ANNOTATIONS"):
        setattr(settings, name, values[name])

    @kitchen.app.task(name="shop.tasks.charge")
    def charge():
        pass

    @kitchen.app.task(name="shop.reports.monthly")
    def monthly():
        pass

    assert charge.rate_limit == "10/m"
    charge.delay()
    monthly.delay()
    assert [headers["task"] for headers in kitchen.work("payments")] == ["shop.tasks.charge"]
    assert [headers["task"] for headers in kitchen.work("slow")] == ["shop.reports.monthly"]


# -- schedule


@pytest.mark.django_db
def test_the_schedule_is_edited_from_code(kitchen, monkeypatch):
    title = "Edit the schedule from code"
    by_helper, by_rows, migration = RECIPES[title]
    kept = {}
    monkeypatch.setattr(PeriodicTask, "delete", lambda self, **kwargs: kept.update({self.name: self}))
    kitchen.cook(title, lambda block: block is by_helper)
    monkeypatch.undo()
    books = kept["close the books"]
    assert (books.task, books.args, books.queue, books.expire_seconds) == ("shop.tasks.close", "[2026]", "slow", 3600)
    assert (books.crontab.minute, books.crontab.hour, books.enabled) == ("30", "2", False)
    books.delete()
    assert not PeriodicTask.objects.exists()

    ScheduleChange.objects.all().delete()
    kitchen.cook(title, lambda block: block is by_rows)
    assert PeriodicTask.objects.get(name="poll").no_overlap
    trial = PeriodicTask.objects.get(name="trial of 17 ends")
    assert (trial.queue, trial.one_off, trial.next_run()) == ("slow", True, utils.to_utc(trial.clocked.clocked_time))
    assert ClockedSchedule.objects.count() == 1
    assert ScheduleChange.objects.filter(kind="task").exists()

    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    names = kitchen.cook(title, lambda block: block is migration)
    historical = MigrationExecutor(connection).loader.project_state(names["Migration"].dependencies).apps
    for _ in range(2):
        names["add_schedule"](historical, None)
    tidy = PeriodicTask.objects.get(name="tidy up")
    # In UTC: "in an hour" on a clock that changes in between is another time.
    assert datetime.now(timezone.utc) < tidy.next_run() <= datetime.now(timezone.utc) + timedelta(hours=1)


@pytest.mark.django_db
def test_a_periodic_task_knows_the_time_it_was_due_and_its_own_headers(kitchen):
    from djcelery.models import IntervalSchedule
    from djcelery.schedulers import DatabaseScheduler

    close = kitchen.cook("The time a periodic task was due")["close"]
    hourly = IntervalSchedule.objects.create(every=1, period="hours")
    row = PeriodicTask(name="close", task="shop.tasks.close", interval=hourly, headers='{"tenant": "acme"}')
    row.scheduled_from = datetime.now(timezone.utc) - timedelta(minutes=90)
    row.save()
    requests = []
    kitchen.monkeypatch.setattr(
        close.__class__, "after_return", lambda self, *args, **kwargs: requests.append(dict(vars(self.request)))
    )
    scheduler = DatabaseScheduler(app=kitchen.app)
    scheduler.tick()
    scheduler.tick()
    scheduler.close()
    (headers,) = kitchen.work()
    run = PeriodicRun.objects.get(task_id=headers["id"])
    assert TaskMeta.objects.get(task_id=headers["id"]).result == utils.to_utc(run.scheduled_at).date().isoformat()
    assert requests[0]["tenant"] == "acme"
    assert requests[0]["periodic_task_name"] == "close"
    assert datetime.fromisoformat(requests[0]["periodic_scheduled_at"]) == run.scheduled_at
    before = datetime.now(timezone.utc).date()
    found = close.apply().get()
    # Midnight may have come meanwhile.
    assert found in {day.isoformat() for day in (before, datetime.now(timezone.utc).date())}


@pytest.mark.django_db
def test_each_zone_has_its_eight_o_clock(kitchen):
    plan = kitchen.cook("Once a day, at eight in the user's zone")["newsletter_at_eight"]
    zones = ["Europe/Brussels", "America/New_York", "Asia/Kolkata"]
    for zone in [*zones, *zones]:
        plan(zone)
    rows = PeriodicTask.objects.order_by("name")
    assert [row.name for row in rows] == [f"newsletter {zone}" for zone in sorted(zones)]
    for row in rows:
        (zone,) = json.loads(row.args)
        local = row.next_run().astimezone(ZoneInfo(zone))
        assert (local.hour, local.minute) == (8, 0)


# -- the project


@pytest.mark.long
def test_a_router_keeps_the_tables_apart(tmp_path):
    router, values = RECIPES["Several databases"]
    project = tmp_path / "proj"
    project.mkdir()
    (project / "__init__.py").touch()
    (project / "routers.py").write_text(router.text)
    first = "from pathlib import Path\nBASE_DIR = Path(__file__).parent\nSECRET_KEY = 'x'\nUSE_TZ = True\n"
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "djcelery"]
    (project / "settings.py").write_text(f"{first}INSTALLED_APPS = {apps}\n{values.text}")
    (tmp_path / "look.py").write_text(
        "import django, json; django.setup()\n"
        "from celery import Celery\n"
        "from django.contrib.auth.models import Permission\n"
        "from django.db import connections\n"
        "from djcelery.models import TaskMeta\n"
        "app = Celery('proj', backend='djcelery-db')\n"
        "app.backend.store_result('id1', 42, 'SUCCESS')\n"
        "tables = {alias: connections[alias].introspection.table_names() for alias in connections}\n"
        "named = Permission.objects.filter(codename='retry_taskstate').count()\n"
        "print(json.dumps([tables, named, TaskMeta.objects.using('celery').get().result]))\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "proj.settings", "PYTHONPATH": str(tmp_path)}
    lines = [arguments for name, arguments in pages.commands(PAGE) if name == "migrate"]
    assert lines == [[], ["--database", "celery"]]
    for arguments in lines:
        line = [sys.executable, "-m", "django", "migrate", "-v0", *arguments]
        subprocess.run(line, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=180)
    found = subprocess.run(
        [sys.executable, "look.py"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=180,
    )
    tables, named, result = json.loads(found.stdout)
    assert "djcelery_periodictask" in tables["celery"]
    assert not [name for name in tables["default"] if name.startswith(("djcelery_", "celery_"))]
    assert "auth_user" in tables["default"]
    assert "auth_user" not in tables["celery"]
    assert named == 1
    assert result == 42


@pytest.mark.django_db
def test_an_async_view_sends(kitchen, rf):
    kitchen.cook("Progress of a task", lambda block: block.file == "shop/tasks.py")
    start = kitchen.cook("Web servers: WSGI and ASGI")["start"]
    response = async_to_sync(start)(rf.get("/"))
    (headers,) = kitchen.work()
    assert (response.status_code, json.loads(response.content)) == (202, {"task_id": headers["id"]})


@pytest.mark.django_db
def test_what_fails_is_found(kitchen, capsys):
    from djcelery.models import IntervalSchedule

    now = datetime.now(timezone.utc)
    minute = now.replace(second=0, microsecond=0)
    TaskHistory.objects.create(period="minute", start=minute, name="shop.tasks.pay", state="FAILURE", count=1)
    TaskHistory.objects.create(period="minute", start=minute, name="shop.tasks.pay", state="SUCCESS", count=3)
    failed = {"task_id": "id1", "status": "FAILURE", "name": "shop.tasks.pay", "finished": now}
    TaskMeta.objects.create(traceback="Traceback:\nValueError: no money", **failed)
    hourly = IntervalSchedule.objects.create(every=1, period="hours")
    PeriodicTask.objects.create(name="late", task="x", interval=hourly, scheduled_from=now - timedelta(minutes=90))
    kitchen.cook("Find out what fails")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["shop.tasks.pay 25% of 4 failed", "id1 shop.tasks.pay ['ValueError: no money']"]
    assert lines[2].startswith("late should have run at ")
