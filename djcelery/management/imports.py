"""``manage.py celeryimport``: the rows of django-celery-results and django-celery-beat in djcelery's tables.

Called by the command. ``importing`` does the work; this takes the options, and prints what was done.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import CommandError
from django.utils import translation

from djcelery.app import project_app
from djcelery.importing import BeatImport, ResultImport, Summary, TableUnknown
from djcelery.importing.runs import IMPORTED, LEFT_OUT, MERGED, PRESENT, UPDATED
from djcelery.management.results_progress import Progress, add_options, interruptible, report

#: What became of rows, in the order of the summary, in words.
OUTCOMES = {
    IMPORTED: "imported",
    UPDATED: "updated",
    MERGED: "the same as another one, which serves for both",
    PRESENT: "there already",
    LEFT_OUT: "left out",
}
#: The columns of a report.
COLUMNS = {"table": "table", "row": "pk", "id": "key", "outcome": "outcome", "reason": "reason"}


class _SubCommand:
    """What both sub-commands have."""

    importer: Callable[..., Any]

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this sub-command."""
        add_options(parser, "are not imported")

    def __init__(self, stdout: Any, options: dict[str, Any]) -> None:
        self.stdout = stdout
        self.options = options

    def run(self) -> None:
        """Import, or look what would be imported, and write a summary.

        Raises:
            CommandError: Rows are left out, their tables aren't there, or the run was interrupted.
        """
        progress = Progress(self.stdout)
        # Reasons are the models' own words, and commands speak English.
        with (
            translation.override(None),
            report(self.options["report"], COLUMNS) as on_listed,
            interruptible() as interruption,
        ):
            run = self.importer(
                project_app(),
                self.options["database"],
                batch_rows=self.options["batch_rows"],
                is_dry_run=self.options["dry_run"],
                on_progress=lambda now: progress.show(f"{now.seen:,} of {max(now.total, now.seen):,} rows"),
                on_listed=on_listed,
                should_stop=lambda: interruption,
                **self.more(),
            )
            try:
                summary = run.run()
            except TableUnknown as exc:
                raise CommandError(str(exc)) from exc
        progress.clear()
        for line in self.lines(summary):
            self.stdout.write(line)
        for line in self.notes(run):
            self.stdout.write(line)
        interruption.leave("Run it again to go on.")
        if summary.left_out:
            hint = "" if self.options["report"] else " --report FILE lists all of them."
            raise CommandError(f"{_rows(summary.left_out)} left out.{hint}")

    def more(self) -> dict[str, Any]:
        """Return arguments that this sub-command alone has."""
        return {}

    def notes(self, run: Any) -> Iterator[str]:
        """Yield what else a person should know."""
        yield from ()

    def lines(self, summary: Summary) -> Iterator[str]:
        """Yield the lines that tell what was done."""
        for what, counts in summary.counts.items():
            for outcome, said in OUTCOMES.items():
                if counts[outcome]:
                    yield f"{counts[outcome]:>12,}  {what}: {said}{self._named(summary, what, outcome)}"
        if not summary.counts:
            yield "There is nothing to import."
        for reason, (count, named) in sorted(summary.reasons.items(), key=lambda item: -item[1][0]):
            yield f"{count:>12,}  left out: {reason}: {', '.join(named)}{', …' if count > len(named) else ''}"
        if self.options["dry_run"]:
            yield "Nothing was written: this is a dry run."

    def _named(self, summary: Summary, what: str, outcome: str) -> str:
        named = summary.present.get(what, []) if outcome == PRESENT else []
        rest = ", …" if summary.counts[what][outcome] > len(named) else ""
        return f" ({', '.join(named)}{rest})" if named else ""


class Results(_SubCommand):
    """Import the results and saved groups of django-celery-results.

    A result that is there already stays as it is, unless its task has finished only in theirs. Their tables are not
    changed. SIGINT and SIGTERM end it between two transactions, and the next run goes on. The exit status is 1 if any
    row is left out.
    """

    importer = ResultImport

    def notes(self, run: Any) -> Iterator[str]:
        """Say so if chords are open, whose counters can't be taken over."""
        if run.open_chords:
            yield (
                f"{_rows(run.open_chords)} of django_celery_results_chordcounter: chords that are not complete. "
                "Let the old workers finish them."
            )


class Beat(_SubCommand):
    """Import the schedules and periodic tasks of django-celery-beat.

    A periodic task whose name is there already stays as it is. Their tables are not changed. Stop their beat first: it
    writes the last runs when it ends. SIGINT and SIGTERM end it between two transactions, and the next run goes on. The
    exit status is 1 if any row is left out.
    """

    importer = BeatImport

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this sub-command."""
        super().add_arguments(parser)
        parser.add_argument(
            "--update", action="store_true", help="Give periodic tasks of the same name the values of theirs."
        )

    def more(self) -> dict[str, Any]:
        """Return whether tasks of the same name are updated."""
        return {"is_update": self.options["update"]}


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"
