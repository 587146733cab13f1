"""Chords whose results are in a cache: processes that finish at once, and real workers with a forking pool."""

from __future__ import annotations

import json
import os

import pytest

from tests import services
from tests.integration.test_connections import Mariadb, Postgres

pytestmark = [pytest.mark.integration, pytest.mark.long]

CORE = "django.core.cache.backends"

SETTINGS = """
import json, os
from legacyproj.settings import *
CACHES = {{"default": json.loads(os.environ["TEST_CACHE"])}}
CELERY_RESULT_BACKEND = "djcelery-cache"
CELERY_CACHE_BACKEND = "default"
CELERY_ACKS_LATE = True
"""

TASKS = """

@shared_task
def total(numbers):
    return sum(numbers)


@shared_task
def double(x):
    return 2 * x


@shared_task
def echo(value):
    return value


@shared_task(ignore_result=True)
def silent(x):
    return x


@shared_task(bind=True)
def growing(self):
    self.add_to_chord(double.s(50))
    return 1
"""

# Processes that return the parts of the same chords at once; each callback that is sent is a line of a file.
RACE = """
import json, multiprocessing, os, traceback
from celery import current_app as app
from celery.app.task import Context
from celery.result import AsyncResult
from celery.signals import before_task_publish
from django.core.cache import close_caches
from django.db import connections
chords, size = 60, 4
def note(body, **kwargs):
    out = os.open("called", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(out, (json.dumps(body[0][0]) + chr(10)).encode())
before_task_publish.connect(note)
app.conf.broker_url = "memory://"
backend = app.backend
body = app.signature("shop.tasks.total")
for n in range(chords):
    backend.apply_chord((f"c{n}", [AsyncResult(f"c{n}-{k}") for k in range(size)]), body)
    backend.set_chord_size(f"c{n}", size)
close_caches()
connections.close_all()
together, pids = multiprocessing.get_context("fork").Barrier(size, timeout=120), []
for k in range(size):
    pids.append(os.fork())
    if pids[-1]:
        continue
    try:
        for n in range(chords):
            request = Context(id=f"c{n}-{k}", group=f"c{n}", group_index=k, chord=dict(body, options={}))
            backend.store_result(request.id, k, "SUCCESS", request=request)
            together.wait()
            backend.on_chord_part_return(request, "SUCCESS", k)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
print([os.waitpid(pid, 0)[1] for pid in pids])
"""


def cache_settings(kind, programs):
    made = {"KEY_PREFIX": programs.env["BROKER_PREFIX"], "OPTIONS": {"MAX_ENTRIES": 10_000}}
    if kind == "file":
        return {**made, "BACKEND": f"{CORE}.filebased.FileBasedCache", "LOCATION": str(programs.root / "cache")}
    if kind == "redis":
        services.redis().close()
        return {
            "KEY_PREFIX": programs.env["BROKER_PREFIX"],
            "BACKEND": f"{CORE}.redis.RedisCache",
            "LOCATION": services.REDIS_URL,
        }
    if kind == "memcached":
        address = services.memcached()
        return {
            "KEY_PREFIX": programs.env["BROKER_PREFIX"],
            "BACKEND": f"{CORE}.memcached.PyMemcacheCache",
            "LOCATION": address,
        }
    return {**made, "BACKEND": f"{CORE}.db.DatabaseCache", "LOCATION": "results_cache"}


@pytest.fixture
def project(request, programs):
    """The legacy project with results in the cache of the kind that the test names."""
    kind = request.param
    (programs.project / "cached.py").write_text(SETTINGS.format())
    with (programs.project / "shop" / "tasks.py").open("a") as out:
        out.write(TASKS)
    server = {"postgresql": Postgres, "mariadb": Mariadb}.get(kind)
    made = server(f"djcelery_cache_{os.getpid()}") if server else None
    if made:
        programs.env["DATABASE_URL"] = made.url
    programs.env["TEST_CACHE"] = json.dumps(cache_settings(kind, programs))
    programs.env["DJANGO_SETTINGS_MODULE"] = "cached"
    if kind in ("sqlite", "postgresql", "mariadb"):
        done = programs.run("createcachetable")
        assert done.returncode == 0, done.stderr
    yield programs
    programs.kill()
    if made:
        made.close()
    if kind == "redis":
        client = services.redis()
        for key in client.scan_iter(f"{programs.env['BROKER_PREFIX']}*", count=1000):
            client.delete(key)
        client.close()


KINDS = ["sqlite", "postgresql", "mariadb", "file", "redis", "memcached"]


@pytest.mark.parametrize("project", KINDS, indirect=True)
def test_processes_that_finish_at_once_call_back_once(project):
    done = project.run("shell", "-v0", "-c", RACE, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "[0, 0, 0, 0]" in done.stdout, done.stderr
    called = (project.cwd / "called").read_text().splitlines()
    assert called == [json.dumps(list(range(4)))] * 60


SEND = """
import json
from celery import chain, chord, group
from shop.tasks import add, double, echo, fail, growing, silent, total
plain = chord([add.s(n, n) for n in range(20)], total.s()).delay()
nested = chord([chord([add.s(n, 1) for n in range(3)], total.s()), add.s(1, 2)], total.s()).delay()
lazy = chord((add.s(n, n) for n in range(5)), total.s()).delay()
failing = chord([add.s(1, 1), fail.s("a")], total.s()).delay()
tail = chord([chain(add.s(1, 1), group(double.s(), double.s())), double.s(5)], echo.s()).delay()
ignored = chord([silent.s(n) for n in range(3)], echo.s()).delay()
grown = chord([growing.s(), double.s(1)], total.s()).delay()
names = "plain nested lazy failing tail ignored grown".split()
found = vars()
print(json.dumps({name: found[name].id for name in names}))
"""

READ = """
import json, sys
from celery.result import AsyncResult
from djcelery.app import app
ids = json.loads('{ids}')
found = {{name: AsyncResult(task_id) for name, task_id in ids.items()}}
for result in found.values():
    result.get(timeout=60, interval=0.05, propagate=False)
names = {{name: result.name for name, result in found.items() if name != "failing"}}
values = {{name: r.result if r.successful() else str(r.result) for name, r in found.items()}}
print(json.dumps([{{name: [r.state, values[name]] for name, r in found.items()}}, names]))
"""


def last_line(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("project", KINDS, indirect=True)
def test_chords_end_in_a_real_worker(project):
    worker = project.start("celeryd", "-c", "2", "-l", "info", ready="ready.")
    ids = last_line(project.run("shell", "-v0", "-c", SEND))
    found, names = last_line(project.run("shell", "-v0", "-c", READ.format(ids=json.dumps(ids))))
    assert found["plain"] == ["SUCCESS", 2 * sum(range(20))]
    assert found["nested"] == ["SUCCESS", 9]
    assert found["lazy"] == ["SUCCESS", 20]
    assert found["tail"] == ["SUCCESS", [[4, 4], 10]]
    assert found["ignored"] == ["SUCCESS", [0, 1, 2]]
    assert found["grown"] == ["SUCCESS", 103]
    assert found["failing"][0] == "FAILURE"
    assert "StockError" in found["failing"][1]
    assert set(names.values()) == {"shop.tasks.total", "shop.tasks.echo"}
    assert worker.stop() == 0
    # Each callback is received and succeeds once: "nested" has two, "failing" none.
    assert worker.text().count("shop.tasks.total[") == 2 * 5, worker.text()
    assert worker.text().count("shop.tasks.echo[") == 2 * 2, worker.text()
