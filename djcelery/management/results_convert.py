"""``manage.py celeryresults convert``: the pickles of django-celery as JSON, where nothing is lost by it.

Called by the command. ``results_rows`` does the work; this takes the options, and prints what was done.
Next: ``docs/upgrading.rst``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError

from djcelery.management.results_progress import Progress, add_options, interruptible, report
from djcelery.management.results_rows import Conversion, Summary


class Convert:
    """Rewrite results that django-celery pickled as JSON.

    A value that JSON can't carry, or would give back as another, stays as it is and is reported; tuples become lists.
    SIGINT and SIGTERM end it between two transactions, and the next run goes on. The exit status is 1 if any row stays.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of this sub-command."""
        add_options(parser, "stay as they are")

    def __init__(self, stdout: Any, options: dict[str, Any]) -> None:
        self.stdout = stdout
        self.options = options

    def run(self) -> None:
        """Convert, or look what would be converted, and write a summary.

        Raises:
            CommandError: Rows stay that could not be converted, or the run was interrupted.
        """
        progress = Progress(self.stdout)
        columns = {"table": "table", "row": "pk", "id": "key", "reason": "reason"}
        with report(self.options["report"], columns) as on_skipped, interruptible() as interruption:
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
