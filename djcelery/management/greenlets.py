"""Greenlet pools (``-P gevent``, ``-P eventlet``) under manage.py.

They replace parts of the standard library, which must happen before Django and Celery are imported: a
lock or a thread-local made earlier hangs the worker. By the time that a management command runs it is too late, so
``celeryd`` calls ``restart``, and the process becomes this file, run as a script: it patches first and then
runs manage.py.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

__all__ = ("restart",)

#: Holds the id of the process that has been here: children inherit the variable, but not the id.
_MARK = "DJCELERY_GREENLETS"


def restart(pool: str | None, manage: Sequence[str], words: Sequence[str]) -> None:
    """Become a patched process that runs the same command line, if *pool* needs one; the process id stays.

    Args:
        pool: The value of ``--pool``, or None.
        manage: The interpreter's arguments that start manage.py.
        words: The arguments after manage.py.
    """
    from importlib.util import find_spec

    if pool not in ("gevent", "eventlet") or os.environ.get(_MARK) == str(os.getpid()) or find_spec(pool) is None:
        return
    os.environ[_MARK] = str(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, __file__, pool, *manage, *words])  # noqa: S606 - no shell is wanted


def main() -> None:
    """Patch the standard library and run manage.py: ``greenlets.py POOL (SCRIPT | -m MODULE) …``."""
    _, pool, *words = sys.argv
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        name, sys.argv = words[1], words[1:]
    else:
        # Before any import: the folder of this file has modules with the names of others.
        sys.path[0] = os.path.dirname(words[0])
        name, sys.argv = words[0], words
    from celery import maybe_patch_concurrency

    maybe_patch_concurrency(["--pool", pool])
    if words[0] == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(name, run_name="__main__")


if __name__ == "__main__":
    main()
