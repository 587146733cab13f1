"""The shop's tasks; every one has a row in the databases of ``legacy/``, but ``sleepy``."""

from __future__ import annotations

import datetime
import threading
import time
from decimal import Decimal
from pathlib import Path

from celery import shared_task


class StockError(Exception):
    """Too few of one article; two arguments, as pickles of exceptions find hard."""

    def __init__(self, sku, message):
        super().__init__(sku, message)
        self.sku = sku
        self.message = message


class Basket:
    """A class of the project, as results of the old days held them."""

    def __init__(self, items):
        self.items = items

    def __eq__(self, other):
        return isinstance(other, Basket) and self.items == other.items

    __hash__ = None


@shared_task
def add(x, y):
    return x + y


@shared_task
def report(kind):
    return {
        "kind": kind,
        "title": "Übersicht",
        "bytes": "Größe".encode(),
        "when": datetime.datetime(2012, 5, 7, 12, 30),
        "total": Decimal("19.90"),
        "delta": datetime.timedelta(days=1, seconds=2),
        "set": {1, 2, 3},
        "long": 10**30,
        "nested": [{"a": (1, 2)}],
    }


@shared_task
def fail(sku):
    raise StockError(sku, "sold out")


@shared_task
def bad():
    raise KeyError("schlüssel")


@shared_task(bind=True, max_retries=3, default_retry_delay=3600)
def flaky(self):
    raise self.retry(exc=OSError("not yet"))


@shared_task
def basket(items):
    return Basket(items)


@shared_task
def noop():
    return None


@shared_task
def sleepy(log, release=None, seconds=20):
    """Write "started" to the file *log*, wait for the file *release* or *seconds*, write "finished"."""
    with open(log, "a") as out:
        out.write("started\n")
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline and not (release and Path(release).exists()):
        pause.wait(0.05)
    with open(log, "a") as out:
        out.write("finished\n")
    return "rested"


@shared_task
def count_rows(*args):
    """Use the database, as most tasks do."""
    from djcelery.models import PeriodicTask

    return PeriodicTask.objects.count()
