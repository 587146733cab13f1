"""``manage.py celeryresults convert``: the pickles of django-celery as JSON, where nothing is lost by it.

Called by the command. ``results_rows`` does the work; this takes the options, and prints what was done.
Next: ``docs/upgrading.rst``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from djcelery.management.results_progress import Progress, interruptible
from djcelery.management.results_rows import Conversion, Skipped, Summary

MAX_BATCH_ROWS = 10_000


def _batch_rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BATCH_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_BATCH_ROWS}")
    return int(text)


class Convert:
    """Rewrite results that django-celery pickled as JSON.

    A value that JSON can't carry, or would give back as another, stays as it is and is reported; tuples become lists.
    SIGINT and SIGTERM end it between two transactions, and the next run goes on. The exit status is 1 if any row stays.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of this sub-command."""
        add = parser.add_argument
        add("--dry-run", action="store_true", help="Report what would be done; change nothing.")
        add("--report", metavar="FILE", help="Write all rows that stay as they are, and why, to this CSV file.")
        add(
            "--batch-rows",
            type=_batch_rows,
            default=500,
            metavar="N",
            help=f"The most rows per transaction (500), up to {MAX_BATCH_ROWS}. Large values make it fewer.",
        )
        add("--database", choices=list(connections), metavar="ALIAS", help="The database; default: the router's.")

    def __init__(self, stdout: Any, options: dict[str, Any]) -> None:
        self.stdout = stdout
        self.options = options

    def run(self) -> None:
        """Convert, or look what would be converted, and write a summary.

        Raises:
            CommandError: Rows stay that could not be converted, or the run was interrupted.
        """
        progress = Progress(self.stdout)
        with _report(self.options["report"]) as on_skipped, interruptible() as interruption:
            summary = Conversion(
                self.options["database"],
                batch_rows=self.options["batch_rows"],
                is_dry_run=self.options["dry_run"],
                on_progress=lambda now: progress.show(_shown(now)),
                on_skipped=on_skipped,
                should_stop=lambda: interruption,
            ).run()
        progress.clear()
        for line in self.lines(summary):
            self.stdout.write(line)
        interruption.leave("Run it again to go on.")
        if summary.contested:
            raise CommandError(
                f"{_results(summary.contested)} changed while they were converted. "
                "Stop the old workers, which still write pickles, and run it again."
            )
        if summary.skipped:
            hint = "" if self.options["report"] else " --report FILE lists all of them."
            raise CommandError(f"{_results(summary.skipped)} can't be converted.{hint}")

    def lines(self, summary: Summary) -> Iterator[str]:
        """Yield the lines that tell what was done."""
        if not summary.seen:
            yield "There is nothing to convert."
            return
        line = f"{_results(summary.converted)} converted to JSON"
        if summary.with_tuples:
            line += f", {summary.with_tuples:,} of them with tuples, which are lists now"
        yield f"{line}. Nothing was written: this is a dry run." if self.options["dry_run"] else f"{line}."
        if summary.reasons:
            yield "These stay as they are, and are read as before:"
        for reason, (count, named) in sorted(summary.reasons.items(), key=lambda item: -item[1][0]):
            rest = ", …" if count > len(named) else ""
            yield f"{count:>12,}  {reason}: {', '.join(named)}{rest}"


def _shown(now: Summary) -> str:
    return f"{now.seen:,} of {max(now.total, now.seen):,} rows; {now.skipped:,} stay as they are"


def _results(number: int) -> str:
    return f"{number:,} result{'' if number == 1 else 's'}"


@contextmanager
def _report(path: str | None) -> Iterator[Callable[[Skipped], Any] | None]:
    """Give a function that writes a row to the CSV file at *path*, or None if there is no path.

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
        writer.writerow(["table", "row", "id", "reason"])
        yield lambda row: writer.writerow([row.table, row.pk, row.key, row.reason])
