"""Whether this code runs in the event loop of a worker's main process, which must not stand still.

The main process stores what pool processes can't: revoked, expired and lost tasks, hard time limits.
While it waits for the database, no task of the whole worker starts or ends. Asked how long to try by
``db`` and ``managers``, and by ``backends.outcomes``; noted by ``db.WorkerFixup``. Writes nothing.
Next: ``docs/explain/failures.rst``.
"""

from __future__ import annotations

import os
import threading

from celery import current_task

#: Waits between tries in the event loop, in seconds: enough to replace a lost connection.
QUICK_WAITS_S = (0.02, 0.1)
#: Where a worker stores what a task did: about a minute, since a database server takes that long to restart.
STORE_WAITS_S = (*(min(2.0, 0.02 * 2**n) for n in range(7)), *(2.0,) * 28)

# The worker's main process, in that and in processes forked from it; 0 in spawned ones; None outside workers.
_pid: int | None = None
_patient = threading.local()


def runs_here() -> bool:
    """Tell whether this is a worker's main process, outside any task and any patient thread."""
    return is_main_process() and not getattr(_patient, "here", False)


def is_main_process() -> bool:
    """Tell whether this is a worker's main process, outside any task."""
    return _pid == os.getpid() and not current_task


def starts_here() -> None:
    """Note that this is the main process of a worker."""
    global _pid
    _pid = os.getpid()


def is_elsewhere() -> None:
    """Note that this process has no event loop: it is one of a pool that was not forked."""
    global _pid
    _pid = 0


def store_waits() -> tuple[float, ...] | None:
    """Return the waits between tries to store a result; None outside workers, where somebody may wait for it."""
    return None if _pid is None else STORE_WAITS_S


def be_patient() -> None:
    """Let this thread of the main process wait for the database as long as a pool process does."""
    _patient.here = True
