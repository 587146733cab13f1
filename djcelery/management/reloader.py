"""Start the worker anew when the code changes: ``celeryd --autoreload``.

Called by ``commands.celeryd``. This process imports the task modules too, only to know which files
to watch; the worker is a child with a main thread of its own, since that is where Celery's signal
handlers must live (Django's reloader would run it in another thread).
"""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from django.utils import autoreload

__all__ = ("Reloader",)

#: Exit status of a Python program that an exception ended, such as a syntax error in the new code.
CRASHED = 1


class Reloader:
    """Runs a worker as a child process, and another one after every change of the code."""

    #: Seconds between two looks at the files.
    interval_s = 1.0

    def __init__(self, app: Any, first: Sequence[str], later: Sequence[str]):
        """Take the lines that start the first worker and the ones after it, without the interpreter."""
        self.app = app
        self.line = [sys.executable, *first]
        self.later = [sys.executable, *later]
        self.files = autoreload.StatReloader()
        self.seen: dict[Path, float] = {}
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = False

    def run(self) -> int:
        """Run until the worker ends by itself or this process is told to stop; return the exit status."""
        self._import_tasks()
        self._watch_folders()
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            signal.signal(getattr(signal, name), self._pass_on)
        for name in ("SIGINT", "SIGQUIT"):
            signal.signal(getattr(signal, name), self._pass_on_from_keyboard)
        while True:
            self.changed()
            status = self._run_child()
            if status is not None:
                return status
            self.line = self.later

    def _run_child(self) -> int | None:
        """Run one worker; return its exit status, or None if another one is to follow."""
        self.child = subprocess.Popen(self.line)
        if self.stopping:
            # The signal came while there was no child to pass it on to.
            self.child.terminate()
        told = False
        while True:
            try:
                status = self.child.wait(self.interval_s)
                break
            except subprocess.TimeoutExpired:
                pass
            path = None if told or self.stopping else self.changed()
            if path:
                self._say(f"{path} changed; the worker ends its tasks and starts anew.")
                self.child.terminate()
                told = True
        if self.stopping or not (told or status == CRASHED):
            return status if status >= 0 else 128 - status
        return None if told else self._wait_for_repair()

    def _wait_for_repair(self) -> int | None:
        self.child = None
        self._say("The worker has crashed; waiting for a change of the code.")
        while not self.stopping:
            time.sleep(self.interval_s)
            if self.changed():
                return None
        return CRASHED

    def changed(self) -> Path | None:
        """Return a file that has changed since the last call, or None; new files are noted only."""
        found = None
        for path, mtime in self.files.snapshot_files():
            before = self.seen.setdefault(path, mtime)
            if before != mtime:
                self.seen[path] = mtime
                found = path
        return found

    def _import_tasks(self) -> None:
        try:
            autoreload.check_errors(self.app.loader.import_default_modules)()
        except Exception:  # noqa: BLE001 - whatever the project's code raises; the worker will say it, too
            traceback.print_exc()

    def _watch_folders(self) -> None:
        """Watch the folders of the project's modules, for files that only a later worker imports."""
        installed = {sysconfig.get_path("stdlib"), *site.getsitepackages(), site.getusersitepackages()}
        for path in autoreload.iter_all_python_module_files():
            if not any(path.is_relative_to(Path(folder).resolve()) for folder in installed):
                self.files.watch_dir(path.parent, "*.py")

    # signals

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopping = self.stopping or number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def _pass_on_from_keyboard(self, number: int, frame: FrameType | None) -> None:
        """Note Ctrl-C; the terminal has sent it to the worker itself, and a second one means another thing."""
        if _is_foreground():
            self.stopping = True
        else:
            self._pass_on(number, frame)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"celeryd --autoreload: {text}\n")
        sys.stderr.flush()


def _is_foreground() -> bool:
    """Tell whether this process is one that the terminal sends its signals to."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
