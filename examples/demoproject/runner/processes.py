"""Child processes in sessions of their own, with their names before every line they print."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

NAME_WIDTH = 8
GRACE_S = 15
POLL_S = 0.1
PR_SET_PDEATHSIG = 1


class Console:
    """Prints whole lines from any thread, each with the name of its source."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: True once nobody reads any more, as after ``make demo | head``.
        self.closed = False

    def line(self, name: str, text: str) -> None:
        """Print one line; never raises."""
        with self._lock:
            if self.closed:
                return
            try:
                print(f"{f'[{name}]':<{NAME_WIDTH + 2}} {text}", flush=True)
            except (OSError, ValueError):
                self.closed = True


class Process:
    """A running program; ``text`` of every line it printed is kept if it looks like an error."""

    ERROR_MARKS = ("Traceback (most recent call last)", " ERROR/", " CRITICAL/", "Unrecoverable error", "Error: ")

    def __init__(self, name: str, command: list[str], env: dict[str, str], cwd: Path, console: Console) -> None:
        self.name = name
        self.errors: list[str] = []
        self._console = console
        self._popen = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # The terminal's Ctrl-C reaches this program only, which then stops the others in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self.session = self._popen.pid
        self._reader = threading.Thread(target=self._copy_output, daemon=True)
        self._reader.start()

    def _copy_output(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            text = line.rstrip()
            if any(mark in text for mark in self.ERROR_MARKS):
                self.errors.append(text)
            self._console.line(self.name, text)

    def exit_status(self) -> int | None:
        """Return the exit status, or None while the program runs."""
        return self._popen.poll()

    def ask_to_end(self) -> None:
        """Send SIGTERM to the program, not to its children: it ends those itself."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)

    def reap(self) -> None:
        """Collect the exit status and the rest of the output of an ended program."""
        self._popen.wait()
        self._reader.join(timeout=2)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent is gone, however it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def living(sessions: Iterable[int]) -> dict[int, str]:
    """Return process id and command of every process in these sessions; zombies don't count."""
    wanted = set(sessions)
    found = _living_by_proc(wanted) if Path("/proc/self/stat").exists() else _living_by_ps(wanted)
    found.pop(os.getpid(), None)
    return found


def _living_by_proc(sessions: set[int]) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError):
            state, _parent, _group, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) in sessions and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


def _living_by_ps(sessions: set[int]) -> dict[int, str]:
    # Where there is no /proc, the process group stands for the session.
    listing = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat=,command="], capture_output=True, text=True)
    found = {}
    for line in listing.stdout.splitlines():
        pid, group, state, command = line.split(None, 3)
        if int(group) in sessions and not state.startswith("Z"):
            found[int(pid)] = command
    return found


def stop(processes: list[Process], hurry: Callable[[], bool], grace_s: float = GRACE_S) -> dict[int, str]:
    """End all processes and their children, and return those that are left, by process id.

    SIGTERM first; SIGKILL for what lives after *grace_s* seconds or once ``hurry()`` is true.
    """
    sessions = [process.session for process in processes]
    for process in processes:
        process.ask_to_end()
    deadline = time.monotonic() + grace_s
    while _poll(processes) and time.monotonic() < deadline and not hurry():
        time.sleep(POLL_S)
    for pid in living(sessions):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + grace_s
    while _poll(processes) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in processes:
        if process.exit_status() is not None:
            process.reap()
    return living(sessions)


def _poll(processes: list[Process]) -> bool:
    """Tell whether anything of *processes* still runs; collects the ended ones on the way."""
    ended = [process.exit_status() is not None for process in processes]
    return not all(ended) or bool(living(process.session for process in processes))
