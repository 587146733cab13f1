"""What the sub-commands of ``celeryresults`` share: saying how far they are, and ending between two batches.

Called by ``results_cleanup`` and ``results_convert``; writes nothing but text.
Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError

__all__ = ("Interruption", "Progress", "interruptible")

#: Seconds between two messages, on a terminal and elsewhere.
TERMINAL_S, LOG_S = 0.2, 5.0


class Progress:
    """Say from time to time how far a command is: on a terminal in one line, else in a line each time."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self._next = time.monotonic() + (0 if self.is_terminal else LOG_S)
        self._width = 0

    def show(self, text: str) -> None:
        """Show *text*, if the last one is old enough."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (TERMINAL_S if self.is_terminal else LOG_S)
        if self.is_terminal:
            self.stream.write(f"\r{text:<{self._width}}", ending="")
            self.stream.flush()
            self._width = len(text)
        else:
            self.stream.write(text)
            self.stream.flush()

    def clear(self) -> None:
        """Remove the line from the terminal; what is written next stands in its place."""
        if self._width:
            self.stream.write(f"\r{'':<{self._width}}\r", ending="")
            self._width = 0


class Interruption:
    """Whether SIGINT or SIGTERM has come; true if so."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def leave(self, summary: str) -> None:
        """Do nothing, or end the command with *summary* and the exit status of a shell for that signal.

        Raises:
            CommandError: A signal has come.
        """
        if self.signal is not None:
            raise CommandError(f"Interrupted by {self.signal.name}. {summary}", returncode=128 + self.signal)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Note the first SIGINT or SIGTERM instead of dying of it; the second one kills as usual."""
    found = Interruption()
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def note(number: int, frame: Any) -> None:
        found.signal = signal.Signals(number)
        restore()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        # Not the main thread: signals go elsewhere.
        before.clear()
    try:
        yield found
    finally:
        restore()
