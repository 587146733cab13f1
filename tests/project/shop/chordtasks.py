"""Tasks of chords, for workers that are started with ``--include shop.chordtasks``."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from celery import chord, shared_task
from celery.backends.base import Backend
from celery.signals import before_task_publish


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def part(number):
    return number


@shared_task
def stored_part(number):
    return number


@shared_task(bind=True)
def total(self, values, log):
    """Write the task's id and what it was called with to the file *log*, one line."""
    with open(log, "a") as out:
        out.write(json.dumps([self.request.id, values]) + "\n")


@shared_task
def start(chords, size, log):
    """Send so many chords; return the ids of their callbacks."""
    return [chord((part.s(n) for n in range(size)), total.s(log)).delay().id for _ in range(chords)]


@shared_task(bind=True)
def start_as_before(self, size, log):
    """Send a chord as backends do that don't count: a task asks again and again whether it is complete."""
    backend = self.backend
    backend.apply_chord, backend.set_chord_size = Backend.apply_chord.__get__(backend), lambda *args: None
    try:
        header = [stored_part.s(n) for n in range(size)]
        return [chord(header, total.s(log)).delay().id]
    finally:
        del backend.apply_chord, backend.set_chord_size


@before_task_publish.connect
def die_once(sender=None, **kwargs):
    """Kill this process before it sends a callback, if the file DIE_ONCE is there."""
    path = Path(os.environ.get("DIE_ONCE", "never"))
    if sender == total.name and path.exists():
        path.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
