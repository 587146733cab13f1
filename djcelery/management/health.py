"""Is a part of Celery alive? Probes for ``celery_health``: an answer each, within a time limit.

Called by ``commands.celery_health``. Reads the tables that the parts write while they live, and connects to the broker;
writes nothing. Each probe has a thread of its own, since a server that is away may not answer at all.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from celery.utils.nodenames import default_nodename
from django.db import connections, router

from djcelery import figures, queues
from djcelery.models import TaskState


@dataclass(frozen=True)
class Wanted:
    """What is asked for: how old a sign of life may be, in seconds (None: each part's own rule), and of whom."""

    max_age_s: float | None = None
    hostname: str | None = None
    app: Any = None
    timeout_s: float = 5.0


@dataclass(frozen=True)
class Answer:
    """What a probe found; ``details`` are the words of its line, in order."""

    probe: str
    is_ok: bool
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = (f"{name}={_word(value)}" for name, value in self.details.items() if value is not None)
        return " ".join(("ok" if self.is_ok else "fail", self.probe, *words))


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}s"
    text = " ".join(str(value).split())
    return f'"{text.replace(chr(34), chr(39))}"' if " " in text or not text else text


def database(wanted: Wanted) -> Answer:
    """Ask the database of the monitor for a row."""
    started_mono = time.monotonic()
    alias = router.db_for_read(TaskState)
    TaskState.objects.using(alias).order_by("pk").values_list("pk", flat=True).first()
    return Answer("database", True, {"alias": alias, "took": time.monotonic() - started_mono})


def broker(wanted: Wanted) -> Answer:
    """Connect to the broker and ask it for the queues of the settings."""
    said = queues.ask(wanted.app, queues.configured(wanted.app))
    if said.is_away:
        return Answer("broker", False, {"url": said.url or None, "reason": said.problem})
    waiting = sum(queue.messages or 0 for queue in said.queues)
    return Answer("broker", True, {"url": said.url, "messages": waiting, "took": said.took_s})


def worker(wanted: Wanted) -> Answer:
    """Find a worker whose last heartbeat, as the camera wrote it, is recent."""
    name = wanted.hostname and default_nodename(wanted.hostname)
    found = figures.workers(name)
    latest = found[0] if found else None
    age_s = figures.seconds_since(latest.last_heartbeat) if latest else None
    if wanted.max_age_s is None:
        alive = [each for each in found if each.is_alive()]
    else:
        ages = ((each, figures.seconds_since(each.last_heartbeat)) for each in found)
        alive = [
            each for each, age in ages if age is not None and age <= wanted.max_age_s and not figures.said_goodbye(each)
        ]
    details = {"hostname": name, "online": len(alive), "age": age_s}
    if alive:
        return Answer("worker", True, details)
    reason = "no heartbeat was ever seen" if latest is None else "no recent heartbeat"
    if latest is not None and figures.said_goodbye(latest):
        reason = "said good-bye"
    if not any(figures.is_running(camera) for camera in figures.cameras()):
        reason += ", and no camera is running to see one"
    return Answer("worker", False, {**details, "reason": reason})


def beat(wanted: Wanted) -> Answer:
    """Find a beat that leads, and has renewed its lease recently."""
    found = figures.leases()
    if not found:
        return Answer("beat", False, {"reason": "no beat has ever run here"})
    lease = max(found, key=lambda each: each.left_s)
    details = {"leader": lease.leader, "age": lease.age_s, "lease": lease.name}
    if not lease.is_held:
        return Answer("beat", False, {**details, "reason": "nobody leads"})
    if wanted.max_age_s is not None and lease.age_s > wanted.max_age_s:
        return Answer("beat", False, {**details, "reason": "the lease was not renewed for too long"})
    if wanted.hostname and not lease.holder.startswith(f"{wanted.hostname}:"):
        return Answer("beat", False, {**details, "reason": f"{wanted.hostname} does not lead"})
    return Answer("beat", True, details)


def camera(wanted: Wanted) -> Answer:
    """Find a camera that has written recently."""
    found = figures.cameras(wanted.hostname)
    if not found:
        return Answer("camera", False, {"name": wanted.hostname, "reason": "no camera has ever run here"})
    latest = found[0]
    age_s = figures.seconds_since(latest.shutter_at)
    details = {"name": latest.name, "age": age_s, "waiting": latest.waiting, "missed": latest.missed}
    if figures.is_running(latest, max_age_s=wanted.max_age_s):
        return Answer("camera", True, details)
    is_stopped = latest.stopped_at and latest.stopped_at >= latest.shutter_at
    return Answer("camera", False, {**details, "reason": "stopped" if is_stopped else "no recent shutter"})


#: In the order in which one needs the other.
PROBES: dict[str, Callable[[Wanted], Answer]] = {
    "database": database,
    "broker": broker,
    "worker": worker,
    "beat": beat,
    "camera": camera,
}


def run(names: Iterable[str], wanted: Wanted) -> list[Answer]:
    """Run the probes *names* at the same time, and return their answers after *timeout_s* seconds at most."""
    answers: dict[str, Answer] = {}
    threads = {name: threading.Thread(target=_run, args=(name, wanted, answers), daemon=True) for name in names}
    deadline_mono = time.monotonic() + wanted.timeout_s
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline_mono - time.monotonic()))
    late = {"reason": f"no answer within {wanted.timeout_s:g} s"}
    return [answers.get(name) or Answer(name, False, late) for name in threads]


def _run(name: str, wanted: Wanted, answers: dict[str, Answer]) -> None:
    try:
        answers[name] = PROBES[name](wanted)
    except Exception as exc:  # noqa: BLE001 - whatever keeps a part from being seen, the answer is that it isn't
        answers[name] = Answer(name, False, {"reason": str(exc).strip() or type(exc).__name__})
    finally:
        # They are this thread's own.
        connections.close_all()
