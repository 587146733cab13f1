"""What events say, as records: of one task, of one worker, or why an event can't be read.

Made by ``intake``, put together by ``merging`` and ``dirty``, written by ``writer``. Times are seconds since the epoch,
by the clock of whoever sent the event, unless the name says otherwise. Pure.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class TaskNews:
    """What one or more events say of the task ``task_id``; None where they say nothing.

    The first four fields are those of the latest event that was merged in, as it came: ``event`` is ``"sent"``,
    ``"received"``, ``"started"``, ``"succeeded"``, ``"failed"``, ``"retried"``, ``"revoked"``, ``"rejected"``,
    ``"cancelled"``, or the name of one of the project's own. ``hostname`` and ``pid`` are the sender's: a worker, or
    for ``"sent"`` the client.
    """

    task_id: str
    event: str
    hostname: str
    pid: int | None = None
    #: When the latest event came to the camera, by the camera's clock.
    received_at_s: float = 0.0
    # The state, when the task came to it, and where; final ones are not reopened.
    state: str | None = None
    timestamp: float = 0.0
    is_final: bool = False
    worker: str | None = None
    # What the state brings along.
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    runtime: float | None = None
    # What was called, by whom, and when it may run.
    name: str | None = None
    args: str | None = None
    kwargs: str | None = None
    eta: datetime | None = None
    expires: datetime | None = None
    root_id: str | None = None
    parent_id: str | None = None
    client: str | None = None
    queue: str | None = None
    routing_key: str | None = None
    # The try: its number (0 is the first) and when that was said; events of retries whose try is not known.
    retries: int | None = None
    retries_at: float = 0.0
    # Whether a reception told the number, and the event of the retry that led to it is still to come.
    is_retry_owed: bool = False
    first_retries: int | None = None
    unplaced_retries: tuple[float, ...] = ()
    seen_retries: int = 0
    sent_at: float | None = None
    received_at: float | None = None
    first_received_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    # The latest event of the project's own, as JSON.
    progress: str | None = None
    progress_at: float = 0.0
    #: What was cut or escaped, such as ``"args_cut"``.
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class WorkerNews:
    """What one or more events say of the worker ``hostname``; None where they say nothing.

    ``event`` is ``"online"``, ``"heartbeat"`` or ``"offline"``, that of the latest event that was merged in; ``""``
    if only events of its tasks came. ``last_heartbeat`` is the latest sign of life, corrected by the worker's clock
    skew and never ahead of the camera's clock; so is ``offline_at``. ``timestamp`` is the latest as the worker says it.
    """

    hostname: str
    event: str
    timestamp: float
    #: When the latest event came to the camera, by the camera's clock.
    received_at_s: float
    pid: int | None = None
    last_heartbeat: float | None = None
    #: When it began, by its own clock, if that was seen.
    online_at: float | None = None
    #: When the camera heard of this process first, by its own clock, whatever came; filled in when the news is taken.
    first_at: float | None = None
    offline_at: float | None = None
    software: str | None = None
    version: str | None = None
    system: str | None = None
    #: Tasks since its start, by its own count.
    processed: int | None = None
    active: int | None = None
    load: str | None = None
    #: Seconds between two heartbeats.
    frequency: float | None = None
    #: Seconds by which its clock is ahead of the camera's; less than 1 s counts as 0. None: not known yet.
    clock_skew: float | None = None
    #: Tasks of which no event came, and those that are accounted for; ``program`` fills them in. See ``missed``.
    missed: int | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An event that can't be read, and why: ``reason`` is a short text, ``body`` the event cut to 2,000 characters."""

    reason: str
    body: str
    received_at_s: float
