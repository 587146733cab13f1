"""Tasks that fail, hang, die, report progress and call each other, for the tests of failures."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

from celery import current_task, shared_task
from django.db import transaction

from djcelery.managers.results import TaskManager


@shared_task(throws=(ValueError,))
def work(n):
    """Return the square of *n*; one in ten fails."""
    if n % 10 == 9:
        raise ValueError(f"number {n}")
    return n * n


@shared_task(ignore_result=True)
def tick(n):
    """Count in a file of this process, in the folder TICKS, that one more was run."""
    with open(f"{os.environ['TICKS']}/{os.getpid()}", "a") as out:
        out.write(".")


@shared_task
def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


@shared_task
def hang(seconds=60, release=None):
    """Wait for the file *release*, or for so many seconds; in small steps, so that soft limits get in."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline and not (release and Path(release).exists()):
        pause.wait(0.02)
    return "rested"


@shared_task(bind=True)
def progress(self, release, fail=False):
    """Report progress inside a transaction that stays open until the file *release* is there."""
    with transaction.atomic():
        self.update_state(state="PROGRESS", meta={"done": 1, "of": 2})
        hang.run(30, release)
        if fail:
            raise ValueError("rolled back")
    return "committed"


@shared_task(bind=True)
def replaced(self, n):
    return self.replace(work.s(n))


@shared_task(bind=True, max_retries=5, default_retry_delay=0.1)
def again(self, times):
    """Be retried so many times."""
    if self.request.retries < times:
        raise self.retry(exc=OSError("not yet"))
    return self.request.retries


@shared_task(bind=True)
def twice(self, folder, release):
    """On its first run wait for the file *release* and return "first"; on any other return "second" at once."""
    try:
        Path(folder, "first").touch(exist_ok=False)
    except FileExistsError:
        return "second"
    hang.run(30, release)
    return "first"


@shared_task
def store_in_the_middle(n):
    """Wait for a child's result in the task, as is bad manners but done."""
    from celery.result import allow_join_result

    with allow_join_result():
        return work.delay(n).get(timeout=20)


def _kill(note):
    with open(note, "a") as out:
        out.write(".")
    os.kill(os.getpid(), signal.SIGKILL)


def _die_while_storing(share, note):
    """Let pool processes be killed within 4 ms after they begin to store, at a *share* of stores; count in *note*."""
    write = TaskManager.write

    def dying(self, row, **kwargs):
        if current_task and random.random() < float(share):
            threading.Timer(random.uniform(0, 0.004), _kill, [note]).start()
        return write(self, row, **kwargs)

    TaskManager.write = dying


if "DIE_WHILE_STORING" in os.environ:
    _die_while_storing(*os.environ["DIE_WHILE_STORING"].split(":"))
