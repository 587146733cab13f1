"""Processes that outlive their terminal: detaching, PID files, and how to start manage.py again.

Called by ``base.ProgramCommand`` and the commands that start children. Celery's own ``--detach``
runs ``python -m celery`` with the arguments of this process, which are manage.py's.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence

from celery import platforms
from django.core.management.base import CommandError
from django.db import connections

__all__ = ("check_pidfile", "detach", "drop_privileges", "manage_line", "write_default_pidfile")


def manage_line(script: str | None) -> list[str]:
    """Return the arguments of the Python interpreter that start this project's manage.py.

    Args:
        script: ``sys.argv[0]`` of the process if that is manage.py; None from a program that uses
            ``call_command``.
    """
    if script is None:
        return ["-m", "django"]
    path = os.path.abspath(script)
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.origin == path:
        # It was "python -m django" or the like; as a script it would find other modules.
        return ["-m", spec.parent if spec.name.endswith("__main__") and spec.parent else spec.name]
    return [path]


def drop_privileges(uid: str | None, gid: str | None) -> None:
    """Become another user for good, if *uid* or *gid* is given.

    Raises:
        CommandError: There is no such user or group, or this process may not become them.
    """
    if not uid and not gid:
        return
    try:
        platforms.maybe_drop_privileges(uid=uid, gid=gid)
    except (KeyError, OSError) as exc:
        raise CommandError(f"Can't run as user {uid or 'unchanged'}, group {gid or 'unchanged'}: {exc}.") from exc


def check_pidfile(path: str) -> None:
    """Refuse a PID file whose process is alive, as Celery does, before there is a child to refuse.

    Raises:
        CommandError: With the exit status that Celery has for it, 73.
    """
    lock = platforms.Pidfile(path)
    if lock.is_locked() and not lock.remove_if_stale():
        raise CommandError(
            f"{path} belongs to the running process {_owner(lock)}. Stop that process, or name another --pidfile.",
            returncode=platforms.EX_CANTCREAT,
        )


def write_default_pidfile(path: str) -> str | None:
    """Write *path* and remove it when this process ends, unless a living process has it.

    Nobody asked for this file by name, so it never keeps a program from starting.

    Returns:
        None, or why there is no PID file.
    """
    lock = platforms.Pidfile(path)
    if lock.is_locked() and not lock.remove_if_stale():
        return f"{path} belongs to the running process {_owner(lock)}; going on without a PID file."
    try:
        lock.acquire()
    except platforms.LockFailed as exc:
        return f"Going on without the PID file {path}: {exc}."
    atexit.register(_release, lock, os.getpid())
    return None


def _release(lock: platforms.Pidfile, pid: int) -> None:
    # A forked child that runs its parent's exit handlers must leave the file alone.
    if os.getpid() == pid:
        lock.release()


def _owner(lock: platforms.Pidfile) -> int | str:
    try:
        return lock.read_pid() or "?"
    except ValueError:
        return "?"


def detach(
    line: Sequence[str],
    executable: str,
    pidfile: str | None = None,
    logfile: str | None = None,
    uid: str | None = None,
    gid: str | None = None,
    umask: str | None = None,
    fake: bool = False,
) -> None:
    """Go into the background and become the Python process that runs *line*; doesn't return.

    Whatever can be found wrong is found before, so that the one who started this sees it.

    Args:
        line: Arguments of the interpreter.
        executable: Path of the interpreter.
        pidfile: Must be free; the new process writes it.
        logfile: Must be writable; the new process opens it.
        uid: User to become before anything is written.
        gid: Group to become.
        umask: Octal if it starts with 0.
        fake: Stay in the foreground.

    Raises:
        CommandError: The file is taken or can't be written, the user is unknown, …
    """
    if not os.access(executable, os.X_OK):
        raise CommandError(f"--executable={executable}: there is no such program.")
    drop_privileges(uid, gid)
    if pidfile:
        check_pidfile(pidfile)
    if logfile:
        try:
            # The mode of a file that is made here follows the umask of the new process.
            open(logfile, "a").close()
        except OSError as exc:
            raise CommandError(f"--logfile={logfile} can't be written: {exc.strerror}.") from exc
    try:
        context = platforms.detached(umask=umask, workdir=os.getcwd(), fake=fake)
    except ValueError as exc:
        raise CommandError(f"--umask={umask}: use an octal number that starts with 0, such as 022.") from exc
    context.after_forkers = False
    connections.close_all()
    sys.stdout.flush()
    sys.stderr.flush()
    with context:
        os.execv(executable, [executable, *line])  # noqa: S606 - no shell is wanted
