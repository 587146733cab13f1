"""What commands that work through tables share: how far they are, ending between two batches, and a report.

Called by ``results_cleanup``, ``results_convert`` and ``imports``; writes nothing but text.
Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

import argparse
import csv
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

__all__ = ("Interruption", "Progress", "add_options", "batch_rows", "interruptible", "report")

MAX_BATCH_ROWS = 10_000

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


def batch_rows(text: str) -> int:
    """Parse the number of rows of one transaction.

    Raises:
        argparse.ArgumentTypeError: It is none from 1 to 10,000.
    """
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BATCH_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_BATCH_ROWS}")
    return int(text)


def add_options(parser: argparse.ArgumentParser, listed: str) -> None:
    """Add the options of a command that rewrites or copies rows; *listed* says which of them a report has."""
    add = parser.add_argument
    add("--dry-run", action="store_true", help="Report what would be done; change nothing.")
    add("--report", metavar="FILE", help=f"Write all rows that {listed}, and why, to this CSV file.")
    add(
        "--batch-rows",
        type=batch_rows,
        default=500,
        metavar="N",
        help="The most rows per transaction (500), up to 10000. Large values make it fewer.",
    )
    add("--database", choices=list(connections), metavar="ALIAS", help="The database; default: the router's.")


@contextmanager
def report(path: str | None, columns: Mapping[str, str]) -> Iterator[Callable[[Any], Any] | None]:
    """Give a function that writes an object as a row to the CSV file at *path*, or None if there is no path.

    Args:
        columns: The heading of each column, and the attribute in it.

    Raises:
        CommandError: The file can't be written.
    """
    if path is None:
        yield None
        return
    try:
        file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as exc:
        raise CommandError(f"The report can't be written to {path!r}: {exc.strerror}.") from exc
    with file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield lambda row: writer.writerow([getattr(row, name) for name in columns.values()])
