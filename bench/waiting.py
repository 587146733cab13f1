"""Measure how late ``get()`` returns: from the moment that a worker has stored a result to the moment that it is there.

Usage, from the root of the repository::

    python bench/waiting.py                                   PostgreSQL, Redis broker, 300 no-op tasks
    python bench/waiting.py --engine mysql --tasks 500
    python bench/waiting.py --seconds 2 --tasks 20            tasks that take two seconds

A real worker (prefork, one process) runs the tasks one after the other; each is sent and waited for before the next
one. "late" is from the column ``finished`` (noted just before the worker's statement) to the return of ``get()``;
"round trip" from sending to return. The statements that one ``get()`` took are counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[1]
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")

SETTINGS = """
from tests.settings import *
from djcelery import setup_loader
setup_loader()
BROKER_URL = {broker!r}
BROKER_TRANSPORT_OPTIONS = {{"global_keyprefix": {prefix!r}}}
BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERYD_CONCURRENCY = 1
CELERY_IMPORTS = ["waiting_tasks"]
"""
TASKS = """
import time
from celery import shared_task

@shared_task
def work(seconds):
    if seconds:
        time.sleep(seconds)
"""


def measure(tasks: int, seconds: float) -> None:
    """Print the figures; runs in a process whose settings are those of the worker."""
    import django

    django.setup()
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from waiting_tasks import work

    from djcelery.models import TaskMeta

    work.delay(0).get(timeout=30)
    late, round_trip, looks, ids = [], [], [], []
    for _ in range(tasks):
        with CaptureQueriesContext(connection) as queries:
            began = time.time()
            result = work.delay(seconds)
            result.get(timeout=60)
            returned = time.time()
        round_trip.append(returned - began)
        looks.append(len(queries))
        ids.append((result.id, returned))
    finished = dict(TaskMeta.objects.values_list("task_id", "finished"))
    late = [returned - finished[task_id].timestamp() for task_id, returned in ids]
    for name, values in (("late", late), ("round trip", round_trip)):
        cuts = statistics.quantiles(values, n=20)
        print(
            f"{name:<11} median {statistics.median(values) * 1000:8.1f} ms   "
            f"95 % {cuts[-1] * 1000:8.1f} ms   max {max(values) * 1000:8.1f} ms"
        )
    print(f"{'statements':<11} median {statistics.median(looks):8.0f}      max {max(looks)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("postgresql", "mysql", "sqlite"), default="postgresql")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0, help="how long each task takes")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.tasks, options.seconds)
        return
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as name, databases.new_database(options.engine, Path(name)) as database:
        folder = Path(name)
        prefix = f"djcelery-bench-{uuid.uuid4().hex[:8]}."
        (folder / "waiting_settings.py").write_text(SETTINGS.format(broker=REDIS_URL, prefix=prefix))
        (folder / "waiting_tasks.py").write_text(TASKS)
        env = {
            **os.environ,
            "DATABASE_URL": database.url,
            "DJANGO_SETTINGS_MODULE": "waiting_settings",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "C_FORCE_ROOT": "1",
        }
        django_admin = [sys.executable, "-m", "django"]
        subprocess.run([*django_admin, "migrate", "-v0"], env=env, check=True)
        with (folder / "worker.txt").open("wb") as log:
            worker = subprocess.Popen([*django_admin, "celeryd", "-l", "warning"], env=env, stdout=log, stderr=log)
            line = [sys.executable, __file__, "--measure", "--tasks", str(options.tasks)]
            try:
                subprocess.run([*line, "--seconds", str(options.seconds)], env=env, check=True)
            finally:
                worker.terminate()
                worker.wait(30)
                _forget(prefix)


def _forget(prefix: str) -> None:
    import redis

    with redis.Redis.from_url(REDIS_URL) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


if __name__ == "__main__":
    main()
