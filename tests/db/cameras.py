"""A camera without broker or threads: events go in, batches are written."""

from __future__ import annotations

from collections import Counter

from django.db import DataError

from djcelery.models import TaskHistory
from djcelery.snapshot import intake, statements
from djcelery.snapshot.dirty import Dirty
from djcelery.snapshot.writer import Writer

SUMS = ("events", "malformed", "dropped", "missed")


class Feed:
    """Events of one worker, to one camera. *now* is in seconds since the epoch; times are given from there."""

    def __init__(self, now=1_780_000_000.0, name="cam"):
        self.now = now
        self.dirty = Dirty(100_000)
        self.writer = Writer(name, 1.0)

    def read(self, kind, task_id=None, at=0.0, came=None, hostname="w1@host", **fields):
        """What intake makes of an event."""
        event = {"type": kind, "hostname": hostname, "timestamp": self.now + at, "pid": 1, **fields}
        if task_id:
            event["uuid"] = task_id
        return intake.read(event, self.now + (at if came is None else came))

    def send(self, kind, task_id=None, at=0.0, **fields):
        self.dirty.add(self.read(kind, task_id, at, **fields))

    def received(self, task_id, at=0.0, worker="w1@host", **fields):
        self.send(
            "task-received",
            task_id,
            at,
            **{"name": "x", "args": "()", "kwargs": "{}", "retries": 0, "hostname": worker, **fields},
        )

    def write(self):
        self.writer.write(self.dirty.take(1_000_000))

    @staticmethod
    def counts(period="total"):
        """What the history has, by state."""
        counts = Counter()
        for state, number in TaskHistory.objects.filter(period=period).values_list("state", "count"):
            counts[state] += number
        return counts


def refuse(monkeypatch, task_ids, error=DataError):
    """Make the database refuse rows of *task_ids*."""
    original = statements.upsert

    def refusing(connection, table, rows, *args):
        if table.name.endswith("taskstate") and any(set(task_ids) & set(map(str, row)) for row in rows):
            raise error("no")
        return original(connection, table, rows, *args)

    monkeypatch.setattr(statements, "upsert", refusing)
