"""Changes of a Celery app that are undone exactly: its configuration and its result backend.

Called by ``test_runner`` and ``capture``. Changes the app in this process, for all its threads.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MISSING = object()


@contextmanager
def changed_conf(app: Any, **values: Any) -> Iterator[None]:
    """Let ``app.conf`` have *values* during the block, by today's names such as ``task_always_eager``."""
    # The first look at a value reads the configuration, and replaces app.conf by another object.
    for name in values:
        app.conf.get(name)
    conf = app.conf
    changes = conf.changes
    # Whoever set a setting under its old or prefixed name would win over today's.
    wanted = {key: value for name, value in values.items() for key in conf._to_keys(name)}
    before = {key: changes.get(key, _MISSING) for key in wanted}
    changes.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is _MISSING:
                changes.pop(key, None)
            else:
                changes[key] = value


@contextmanager
def replaced_backend(app: Any, make: Callable[[], Any]) -> Iterator[None]:
    """Let ``app.backend`` be what ``make()`` returns during the block; tasks with a backend of their own keep it."""
    # CELERY_RESULT_BACKEND of the environment and Celery(backend=…) win over the configuration, so that is not enough.
    changed = {"_backend_cache": None, "_local": threading.local(), "_get_backend": make}
    with changed_attributes(app, changed):
        yield


@contextmanager
def changed_attributes(thing: Any, changed: dict[str, Any]) -> Iterator[None]:
    """Let *thing* have the attributes *changed* of its own during the block."""
    own = {name: vars(thing)[name] for name in changed if name in vars(thing)}
    vars(thing).update(changed)
    try:
        yield
    finally:
        for name in changed:
            vars(thing).pop(name, None)
        vars(thing).update(own)
